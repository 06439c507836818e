//! Open vSwitch, and what neutron's agent does to its ports.

use super::guest::Nic;
use super::host::{Host, Place};

/// A bridge with the uplink as a trunk port.
pub fn bridge(host: &Host, name: &str) {
    // netdev: the kernel may lack the openvswitch module, and must not be touched anyway.
    host.sh(&format!(
        "ovs-vsctl add-br {name} -- set Bridge {name} datapath_type=netdev -- add-port {name} up0"
    ));
}

/// The bridge of a trunk, as neutron's agent makes it, with its patch to br-int.
pub fn trunk_bridge(host: &Host, id: &str) {
    let patch = |bridge: &str, own: &str, peer: &str| {
        let (port, to) = (format!("{own}-{id}"), format!("options:peer={peer}-{id}"));
        format!("-- add-port {bridge} {port} -- set Interface {port} type=patch {to}")
    };
    let trunk = format!("tbr-{id}");
    let (parent, on_int) = (patch(&trunk, "tpt", "tpi"), patch("br-int", "tpi", "tpt"));
    host.sh(&format!(
        "ovs-vsctl add-br {trunk} -- set Bridge {trunk} datapath_type=netdev {parent} {on_int}"
    ));
}

/// Ends ovsdb-server or ovs-vswitchd. It has let go of the database, and of its devices, only when its process has ended: that is
/// later than it says so.
pub fn stop(host: &Host, daemon: &str) {
    host.sh(&format!(
        "pid=$(cat /run/openvswitch/{daemon}.pid)
         ovs-appctl -t {daemon} exit
         while [ -e /proc/$pid ]; do sleep 0.01; done"
    ));
}

pub fn start_vswitchd(host: &Host) {
    host.sh("ovs-vswitchd --verbose=console:off --detach --pidfile --log-file");
}

/// ovsdb-server, after it was ended.
pub fn start_ovsdb(host: &Host) {
    host.sh("ovsdb-server --verbose=console:off --detach --pidfile --log-file \
             --remote=punix:/run/openvswitch/db.sock /etc/openvswitch/conf.db");
}

/// Plugs the NIC's tap as os-vif does, for a NIC that libvirt does not plug: no tag yet.
pub fn plug(host: &Host, bridge: &str, nic: &Nic) {
    let tap = nic.tap();
    host.sh(&format!(
        "ovs-vsctl add-port {bridge} {tap} -- set Interface {tap} \
             external_ids:iface-id={} external_ids:iface-status=active external_ids:attached-mac={}",
        nic.port, nic.mac
    ));
}

/// Neutron's agent before it knows the port: nothing may pass.
pub fn dead(host: &Host, port: &str) {
    host.sh(&format!("ovs-vsctl set Port {port} tag=4095 vlan_mode=trunk trunks=4095"));
}

/// What neutron's agent writes early; it binds nothing.
pub fn promise(host: &Host, port: &str, tag: u16) {
    host.sh(&format!(
        "ovs-vsctl set Port {port} other_config:net_uuid=6d9ae9d0-0000-4000-8000-000000000001 \
             other_config:network_type=vlan other_config:physical_network=physnet1 other_config:tag={tag}"
    ));
}

/// The last thing that neutron's agent does, in one transaction: from now on the port works.
pub fn bind(host: &Host, port: &str, tag: u16) {
    host.sh(&format!("ovs-vsctl set Port {port} tag={tag} -- clear Port {port} vlan_mode trunks"));
}

/// Sends a frame, in hexadecimal digits, as if it had come in by that port.
pub fn inject(host: &Host, bridge: &str, port: &str, frame: &str) {
    host.sh(&format!("ovs-ofctl packet-out {bridge} in_port={port},packet={frame},actions=TABLE"));
}

/// The port and the VLAN behind which the bridge has learned the MAC.
pub fn learned(host: &Host, bridge: &str, mac: &str) -> Option<(String, u16)> {
    let table = host.sh(&format!("ovs-appctl fdb/show {bridge}"));
    let entry = table.lines().find(|line| line.contains(mac))?;
    let mut columns = entry.split_whitespace();
    let (number, vlan) = (columns.next()?, columns.next()?);
    // The table has OpenFlow port numbers, which are the bridge's own.
    let ports = host.sh(&format!(
        "for port in $(ovs-vsctl list-ifaces {bridge}); do echo $port $(ovs-vsctl get Interface $port ofport); done"
    ));
    let port = ports.lines().find_map(|line| line.split_once(' ').filter(|(_, ofport)| *ofport == number))?.0;
    Some((port.to_owned(), vlan.parse().ok()?))
}
