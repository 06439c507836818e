//! Neutron's real Open vSwitch agent on one host, as `contrib/lab/sdn/neutron` starts it.

use std::path::PathBuf;

use serde_json::{Map, Value, json};

use super::capture::{Capture, Direction, told_by_tcpdump};
use super::guest::Nic;
use super::host::{Host, Place};
use super::need::python;
use super::running::{Running, eventually};
use super::site::{IPV4, IPV6};
use super::stand::Stand;
use super::{linux_bridge, ovs};

const LAB: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/contrib/lab/sdn/neutron");
/// The VLAN of the provider network, and the VNI of the overlay.
pub const PROVIDER: u16 = 1100;
pub const VNI: u32 = 5001;
/// What an overlay needs of the agent: [`Neutron::start`].
pub const VXLAN: [&str; 3] = ["openvswitch", "agent.tunnel_types=vxlan", "ovs.local_ip=10.1.1.1"];

pub struct Neutron {
    /// The guest's tap is there, plugged nowhere.
    pub stand: Stand,
    /// Neutron's release: 21 is 2022.2.
    pub release: u32,
    /// What the server knows.
    ports: Map<String, Value>,
}

impl Neutron {
    /// The agent runs with this firewall and these options, and has looked at its host once. It knows of the guest's port.
    pub fn start(arguments: &[&str]) -> Self {
        let host = Host::build().ovs().name("node").start();
        host.sh(&format!(
            "ovs-vsctl add-br br-ex -- set Bridge br-ex datapath_type=netdev -- add-port br-ex up0
             ip link add tun0 up type veth peer name far0 netns wire
             ovs-vsctl add-br br-phy -- set Bridge br-phy datapath_type=netdev -- add-port br-phy tun0
             ip address add 10.1.1.1/24 dev br-phy
             ip link set br-phy up
             mkdir -p {RUN}
             echo 10.1.1.2 >{RUN}/remotes"
        ));
        host.wire().sh("ip link set far0 up; ip address add 10.1.1.2/24 dev far0");
        // What enters a tunnel before Open vSwitch knows the MAC at its other end is lost, whatever it is.
        host.sh("until busybox ping -c 1 -W 1 10.1.1.2; do :; done");
        let stand = Stand::new(host);
        let release = stand.host.sh(&format!(
            "{} -c 'from importlib.metadata import version; print(version(\"neutron\").split(\".\")[0])'",
            python()
        ));
        let mut neutron = Self { stand, release: release.trim().parse().unwrap(), ports: Map::new() };
        neutron.knows(json!({ "vlan": PROVIDER }));
        neutron.start_agent(arguments);
        neutron
    }

    pub fn start_agent(&self, arguments: &[&str]) {
        self.stand.host.sh(&format!("{LAB} agent {} {}", python(), arguments.join(" ")));
    }

    /// As a crash ends it.
    pub fn kill_agent(&self) {
        self.stand.host.sh(&format!("kill -KILL $(cat {RUN}/agent.pid); rm {RUN}/agent.log"));
    }

    /// The server knows this of the guest's port, beside its MAC and its addresses.
    pub fn knows(&mut self, more: Value) {
        self.knows_of(&self.stand.nic.clone(), &[IPV4, IPV6], more);
    }

    pub fn knows_of(&mut self, nic: &Nic, addresses: &[&str], more: Value) {
        let mut port = json!({ "mac": nic.mac, "addresses": addresses });
        port.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.ports.insert(nic.port.clone(), port);
        self.tell("ports.json", &Value::Object(self.ports.clone()));
    }

    /// The server knows no port any more.
    pub fn forgets(&mut self) {
        self.ports.clear();
        self.tell("ports.json", &json!({}));
    }

    /// l2population: the other host has this MAC.
    pub fn populates(&self, mac: &str, ip: &str) {
        let ports = json!({ "10.1.1.2": [["00:00:00:00:00:00", "0.0.0.0"], [mac, ip]] });
        let network = "aaaaaaaa-0000-4000-8000-000000000001";
        self.tell(
            "fdb.json",
            &json!({ network: { "network_type": "vxlan", "segment_id": VNI, "ports": ports } }),
        );
    }

    /// Whole, or not at all.
    fn tell(&self, name: &str, what: &Value) {
        let file = self.run().join(name);
        std::fs::write(file.with_extension("new"), what.to_string()).unwrap();
        std::fs::rename(file.with_extension("new"), file).unwrap();
    }

    fn run(&self) -> PathBuf {
        self.stand.host.directory().join(&RUN[1..])
    }

    /// As os-vif does.
    pub fn plug(&self) {
        ovs::plug(&self.stand.host, "br-int", &self.stand.nic);
    }

    /// As os-vif does where a firewall of iptables is between.
    pub fn plug_hybrid(&mut self) {
        linux_bridge::hybrid(&self.stand.host, &self.stand.nic, "br-int");
        let [tap, qbr] = ["tap", "qbr"].map(|prefix| self.stand.nic.device(prefix));
        self.stand.host.sh(&format!("ip link set {tap} master {qbr}"));
        self.stand.is_hybrid = true;
    }

    /// Waits until the agent has nothing more to do for the port: flows are the last.
    pub fn has_wired(&self, nic: &Nic) {
        let events = self.run().join("events");
        let wired = |line: &str| {
            let (up, _) = line.split_once("update_device_list up=")?.1.split_once(" down=")?;
            up.contains(&nic.port).then_some(())
        };
        eventually("update_device_list", || {
            std::fs::read_to_string(&events).unwrap().lines().find_map(wired)
        });
    }

    pub fn tag(&self, port: &str) -> String {
        self.stand.host.sh(&format!("ovs-vsctl get Port {port} tag vlan_mode trunks")).replace('\n', " ")
    }

    /// What arrives from the guest's MAC beyond the uplink.
    pub fn wire(&self) -> Capture {
        Capture::start(&self.stand.host.wire(), "wire0", Direction::In, &self.stand.nic.sent())
    }

    /// What the host at the other end of the tunnel hears, in tcpdump's words.
    pub fn far(&self) -> Running {
        told_by_tcpdump(&self.stand.host.wire(), "far0", "udp port 4789")
    }

    /// `announce` is told that neutron is in charge, as nova's metadata would tell it of a guest of libvirt's.
    pub fn start_announce(&self, command: &[&str]) -> Running {
        let config = self.stand.host.directory().join("announced.toml");
        std::fs::write(&config, "[ports]\nin-charge = \"neutron\"\n[path]\nuplinks = [\"up*\"]\n").unwrap();
        let config = config.display().to_string();
        self.stand.start_announce(&[command, &["--config", &config]].concat())
    }
}

/// Where the agent and we meet.
const RUN: &str = "/run/neutron";
