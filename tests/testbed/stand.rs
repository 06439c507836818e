//! A guest without QEMU: a tap that this process holds open, for what needs no more than `announce --dev`.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};

use announced::for_tests::sys;
use nix::sched::{CloneFlags, setns};

use super::guest::{Nic, Plug};
use super::host::{Host, Place};
use super::running::{Run, Running};
use super::site::{IPV4, IPV6, VLAN};
use super::{linux_bridge, ovs};

/// The VLAN of the provider network, where there is a bridge for it.
pub const PROVIDER: u16 = 1100;

pub struct Stand {
    pub host: Host,
    pub nic: Nic,
    /// Frames enter by the tap, and Open vSwitch takes them from a device.
    pub is_hybrid: bool,
    /// The host's end of its NIC.
    device: String,
    /// The tap has a carrier for as long as this is held.
    guest: Vec<OwnedFd>,
}

impl Stand {
    /// Its tap is up, and plugged nowhere.
    pub fn new(host: Host) -> Self {
        let nic = Nic::new(10, Plug::EthernetUnmanaged);
        let guest = taps(&host, std::slice::from_ref(&nic));
        host.sh(&format!("ip link set {} up", nic.tap()));
        Self { host, is_hybrid: false, device: nic.tap(), nic, guest }
    }

    /// Behind the macvtap `mvt0` on the uplink: take [`super::guest::macvtaps`] first.
    pub fn macvtap() -> Self {
        let stand = Self::new(Host::build().start());
        let mac = &stand.nic.mac;
        stand.host.sh(&format!(
            "ip link add mvt0 link up0 address {mac} type macvtap mode bridge; ip link set mvt0 up"
        ));
        Self { device: "mvt0".into(), ..stand }
    }

    pub fn open_vswitch() -> Self {
        let stand = Self::new(Host::build().ovs().start());
        ovs::bridge(&stand.host, "br-int");
        ovs::plug(&stand.host, "br-int", &stand.nic);
        stand.bound("tap")
    }

    /// In the network that the uplink's untagged frames belong to.
    pub fn untagged_open_vswitch() -> Self {
        let stand = Self::new(Host::build().ovs().start());
        ovs::bridge(&stand.host, "br-int");
        let tap = stand.nic.tap();
        stand.host.sh(&format!("ovs-vsctl add-port br-int {tap}"));
        stand
    }

    pub fn hybrid_plug() -> Self {
        let stand = Self::new(Host::build().ovs().start());
        ovs::bridge(&stand.host, "br-int");
        linux_bridge::hybrid(&stand.host, &stand.nic, "br-int");
        stand.host.sh(&format!("ip link set {} master {}", stand.nic.tap(), stand.nic.device("qbr")));
        Self { is_hybrid: true, ..stand }.bound("qvo")
    }

    pub fn linux_bridge() -> Self {
        let stand = Self::new(Host::build().start());
        linux_bridge::bridge(&stand.host, "br0");
        stand.host.sh(&format!("ip link set {} master br0", stand.nic.tap()));
        stand
    }

    /// With the flows of neutron's agent.
    pub fn provider_bridge() -> Self {
        let stand = Self::new(Host::build().ovs().start());
        stand.host.sh(&format!(
            "ovs-vsctl add-br br-int -- set Bridge br-int datapath_type=netdev \
                 -- add-br br-ex -- set Bridge br-ex datapath_type=netdev -- add-port br-ex up0 \
                 -- add-port br-ex phy-br-ex -- set Interface phy-br-ex type=patch options:peer=int-br-ex \
                 -- add-port br-int int-br-ex -- set Interface int-br-ex type=patch options:peer=phy-br-ex
             ovs-ofctl add-flow br-int priority=65535,dl_vlan=4095,actions=drop
             ovs-ofctl add-flow br-int priority=2,in_port=int-br-ex,actions=drop
             ovs-ofctl add-flow br-int priority=3,in_port=int-br-ex,dl_vlan={PROVIDER},actions=mod_vlan_vid:{VLAN},NORMAL
             ovs-ofctl add-flow br-ex priority=2,in_port=phy-br-ex,actions=drop
             ovs-ofctl add-flow br-ex priority=4,in_port=phy-br-ex,dl_vlan={VLAN},actions=mod_vlan_vid:{PROVIDER},NORMAL"
        ));
        ovs::plug(&stand.host, "br-int", &stand.nic);
        stand.bound("tap")
    }

    pub fn trunk_bridge() -> Self {
        let stand = Self::new(Host::build().ovs().start());
        ovs::bridge(&stand.host, "br-int");
        stand.host.sh(
            "ovs-vsctl add-br tbr-567a450a -- set Bridge tbr-567a450a datapath_type=netdev \
                 -- add-port tbr-567a450a tpt-567a450a-b0 -- set Interface tpt-567a450a-b0 type=patch options:peer=tpi-567a450a-b0 \
                 -- add-port br-int tpi-567a450a-b0 -- set Interface tpi-567a450a-b0 type=patch options:peer=tpt-567a450a-b0",
        );
        ovs::plug(&stand.host, "tbr-567a450a", &stand.nic);
        stand.bound("tpi-")
    }

    /// Two uplinks to the same wire, as one port of br-int.
    pub fn bond() -> Self {
        let stand = Self::new(Host::build().ovs().start());
        stand.host.sh("ip link add up1 up type veth peer name wire1 netns wire
             ovs-vsctl add-br br-int -- set Bridge br-int datapath_type=netdev \
                 -- add-bond br-int bond0 up0 up1 bond_mode=active-backup");
        stand.host.wire().sh("ip link set wire1 up");
        ovs::plug(&stand.host, "br-int", &stand.nic);
        stand.bound("tap")
    }

    /// The port works, and neutron is in charge of it.
    fn bound(self, prefix: &str) -> Self {
        let port = self.nic.device(prefix);
        ovs::promise(&self.host, &port, VLAN);
        ovs::bind(&self.host, &port, VLAN);
        self
    }

    /// While `act` is going on, the guest sends `frame` as fast as it can.
    pub fn flooded_by<T>(&self, frame: &[u8], act: impl FnOnce() -> T) -> T {
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    // Whether it takes one more is the kernel's affair.
                    let _ = nix::unistd::write(&self.guest[0], frame);
                }
            });
            let done = act();
            is_over.store(true, Ordering::Relaxed);
            done
        })
    }

    /// The guest's end of its NIC.
    pub fn guests_end(&self) -> OwnedFd {
        self.guest[0].try_clone().unwrap()
    }

    /// The guest sends this frame.
    pub fn says(&self, frame: &[u8]) {
        nix::unistd::write(&self.guest[0], frame).unwrap();
    }

    /// Runs `announce` with `command`, for the guest with its two addresses.
    pub fn announce(&self, command: &[&str]) -> Run {
        self.start_announce(command).finish()
    }

    pub fn start_announce(&self, command: &[&str]) -> Running {
        let guest = ["--dev", &self.device, "--mac", &self.nic.mac, "--ip", IPV4, "--ip", IPV6];
        self.host.start_announce(&[command, &guest].concat())
    }
}

/// The taps of these NICs. They have a carrier for as long as what is returned is held.
pub fn taps(host: &Host, nics: &[Nic]) -> Vec<OwnedFd> {
    inside(host, || nics.iter().map(|nic| sys::tap(&nic.tap()).unwrap().0).collect())
}

/// Does something of this process in the host's network namespace.
pub fn inside<T: Send>(host: &Host, act: impl FnOnce() -> T + Send) -> T {
    let network = File::open(format!("/proc/{}/ns/net", host.pid())).unwrap();
    let act = || {
        // Of this thread only.
        setns(network, CloneFlags::CLONE_NEWNET).unwrap();
        act()
    };
    std::thread::scope(|scope| scope.spawn(act).join().unwrap())
}

/// The packet sockets that receive (proc_pid_net(5), packet: their protocol is not 0).
pub fn packet_sockets(host: &Host) -> usize {
    let sockets = host.sh("cat /proc/net/packet");
    sockets.lines().skip(1).filter(|socket| socket.split_whitespace().nth(3) != Some("0000")).count()
}
