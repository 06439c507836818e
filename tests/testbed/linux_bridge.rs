//! Linux bridges, and neutron's hybrid plug.

use super::guest::Nic;
use super::host::{Host, Place};

/// A bridge with the uplink as a port.
pub fn bridge(host: &Host, name: &str) {
    host.sh(&format!(
        "ip link add {name} type bridge forward_delay 0 mcast_snooping 0
         ip link set up0 master {name}
         ip link set {name} up"
    ));
}

/// The bridge of a hybrid plug, before the guest is there: the tap goes into `qbr…`, and a veth pair leads to the OVS
/// bridge, whose port is `qvo…`.
pub fn hybrid(host: &Host, nic: &Nic, ovs_bridge: &str) {
    let [qbr, qvb, qvo] = ["qbr", "qvb", "qvo"].map(|prefix| nic.device(prefix));
    // ageing_time 0: os-vif makes it a hub.
    host.sh(&format!(
        "ip link add {qbr} type bridge forward_delay 0 ageing_time 0 mcast_snooping 0
         ip link add {qvb} type veth peer name {qvo}
         ip link set {qvb} master {qbr}
         ip link set {qvb} up; ip link set {qvo} up; ip link set {qbr} up
         ovs-vsctl add-port {ovs_bridge} {qvo} -- set Interface {qvo} \
             external_ids:iface-id={} external_ids:iface-status=active external_ids:attached-mac={}",
        nic.port, nic.mac
    ));
}

/// The port behind which the bridge has learned the MAC.
pub fn learned(host: &Host, bridge: &str, mac: &str) -> Option<String> {
    let entries = host.sh(&format!("bridge -json fdb show br {bridge}"));
    let entries: serde_json::Value = serde_json::from_str(&entries).unwrap();
    let mut entries = entries.as_array().unwrap().iter();
    let entry = entries.find(|entry| entry["mac"] == mac && entry["state"] != "permanent")?;
    entry["ifname"].as_str().map(str::to_owned)
}
