//! Two hosts beside each other, between which guests migrate: one network for that, and one for the guests.

use super::capture::{Capture, Direction};
use super::guest::{Guest, Nic, Plug};
use super::host::{Host, Place};
use super::running::{Run, Running};
use super::site::{Attachment, IPV4, IPV6};
use super::{linux_bridge, ovs};

/// Dropped in this order.
pub struct Rack {
    pub first: Host,
    pub second: Host,
    /// What is between them: `wire1` and `wire2`, on the bridge `fabric`.
    pub outer: Host,
    pub nic: Nic,
}

impl Rack {
    /// No guest yet.
    pub fn build(attachment: Attachment) -> Self {
        let outer = Host::build().start();
        outer.sh("for bridge in fabric mg; do
               ip link add $bridge type bridge forward_delay 0 mcast_snooping 0
               ip link set $bridge up
             done");
        let host = |number: u8| {
            let plan = Host::build().inside(&outer).libvirt().name(&format!("h{number}"));
            let plan = plan.cable("mg0", &format!("mg{number}")).cable("up0", &format!("wire{number}"));
            let plan = plan.listen(&format!("mg0=10.77.0.{number}/24"));
            if attachment == Attachment::Ovs {
                let host = plan.ovs().start();
                ovs::bridge(&host, "br-int");
                host
            } else {
                let host = plan.start();
                linux_bridge::bridge(&host, "br0");
                host
            }
        };
        let (first, second) = std::thread::scope(|scope| {
            let first = scope.spawn(|| host(1));
            let second = host(2);
            (first.join().unwrap(), second)
        });
        outer.sh("for number in 1 2; do
               ip link set mg$number master mg
               ip link set wire$number master fabric
             done");
        let plug = if attachment == Attachment::Ovs { Plug::Ovs("br-int") } else { Plug::Bridge("br0") };
        let nic = Nic::new(10, plug).address(IPV4).address(IPV6);
        Self { first, second, outer, nic }
    }

    /// The guest that migrates, not started yet.
    pub fn guest(&self) -> Guest {
        Guest::new("web1").nova().nic(&self.nic)
    }

    /// A live migration of `web1` to that host; `how` is more for `virsh migrate`.
    pub fn migrate(&self, to: &Host, how: &[&str]) -> Run {
        self.start_migration(to, how).finish()
    }

    pub fn start_migration(&self, to: &Host, how: &[&str]) -> Running {
        let (from, number) = if std::ptr::eq(to, &self.first) { (&self.second, 1) } else { (&self.first, 2) };
        let mut virsh = from.command("virsh");
        virsh.args(["migrate", "--live", "--p2p", "web1", &format!("qemu+tcp://10.77.0.{number}/system")]);
        Running::start(virsh.args(how))
    }

    /// What the guest is said to say on that host's uplink.
    pub fn wire(&self, of: &Host) -> Capture {
        let wire = if std::ptr::eq(of, &self.first) { "wire1" } else { "wire2" };
        Capture::start(&self.outer, wire, Direction::In, &self.nic.sent())
    }

    /// The host behind whose uplink the fabric looks for the guest.
    pub fn learned(&self) -> Option<&Host> {
        let wire = linux_bridge::learned(&self.outer, "fabric", &self.nic.mac)?;
        Some(if wire == "wire1" { &self.first } else { &self.second })
    }
}
