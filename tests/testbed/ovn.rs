//! The real OVN, as `contrib/lab/sdn/ovn` brings it up: the databases, and three chassis between which guests move.

use std::os::fd::OwnedFd;
use std::time::Duration;

use super::capture::{Capture, Direction};
use super::dissect::Frame;
use super::guest::{Nic, Plug};
use super::host::{Host, Place};
use super::rounds::kinds;
use super::running::{Running, eventually};
use super::site::{IPV4, IPV6, VLAN, timed};
use super::stand::taps;

const LAB: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/contrib/lab/sdn/ovn");

/// Dropped in this order.
pub struct Ovn {
    pub first: Host,
    pub second: Host,
    pub third: Host,
    /// What is between them: the databases; `up1` … `up3`, the far ends of the uplinks, on the bridge `provider`; `tun1` … `tun3`
    /// on the bridge `underlay`.
    pub outer: Host,
    /// Of the guest that moves.
    pub nic: Nic,
    /// The taps have a carrier for as long as these are held.
    carriers: Vec<OwnedFd>,
}

impl Ovn {
    /// The guest's tap is there on the first and on the second host, plugged nowhere.
    pub fn build() -> Self {
        let mut ovn = Self::without_guest(false, Plug::EthernetUnmanaged);
        for host in [&ovn.first, &ovn.second] {
            ovn.carriers.extend(tap(host, &ovn.nic));
        }
        ovn
    }

    /// Each host has a libvirtd, and accepts live migrations.
    pub fn with_libvirt() -> Self {
        Self::without_guest(true, Plug::Ovs("br-int"))
    }

    fn without_guest(libvirt: bool, plug: Plug) -> Self {
        let outer = Host::build().start();
        outer.sh(&format!(
            "for bridge in provider underlay mg; do
               ip link add $bridge type bridge forward_delay 0 mcast_snooping 0
               ip link set $bridge up
             done
             ip address add 10.77.0.254/24 dev mg
             {LAB} central 10.77.0.254"
        ));
        let host = |number: u8| {
            let plan = Host::build().inside(&outer).ovs().name(&format!("h{number}"));
            let plan = ["up", "tun", "mg"]
                .iter()
                .fold(plan, |plan, prefix| plan.cable(&format!("{prefix}0"), &format!("{prefix}{number}")));
            let plan = plan.listen(&format!("mg0=10.77.0.{number}/24"));
            let host = if libvirt { plan.libvirt() } else { plan }.start();
            outer.sh(&format!(
                "ip link set up{number} master provider
                 ip link set tun{number} master underlay
                 ip link set mg{number} master mg"
            ));
            host.sh(&format!("{LAB} chassis 10.77.0.254 {number}"));
            host
        };
        let [first, second, third] = std::thread::scope(|scope| {
            [1, 2, 3].map(|number| scope.spawn(move || host(number))).map(|host| host.join().unwrap())
        });
        outer.sh(&format!(
            "ovn-nbctl ls-add provider -- lsp-add provider uplink -- lsp-set-type uplink localnet \
                 -- lsp-set-addresses uplink unknown -- lsp-set-options uplink network_name=physnet1 \
                 -- set Logical_Switch_Port uplink tag={VLAN} \
                 -- ls-add overlay"
        ));
        let nic = Nic::new(10, plug).address(IPV4).address(IPV6);
        Self { first, second, third, outer, nic, carriers: Vec::new() }
    }

    /// A logical port, with port security and the addresses of every test, that may be bound by these chassis.
    pub fn port(&self, switch: &str, nic: &Nic, chassis: &str) {
        let (port, addresses) = (&nic.port, format!("{} {IPV4} {IPV6}", nic.mac));
        self.outer.sh(&format!(
            "ovn-nbctl lsp-add {switch} {port} -- lsp-set-addresses {port} '{addresses}' \
                 -- lsp-set-port-security {port} '{addresses}' -- lsp-set-options {port} requested-chassis={chassis}"
        ));
        self.settle();
    }

    /// Sets in the northbound database which chassis may bind the guest's port; returns when that began.
    pub fn request(&self, chassis: &str) -> Duration {
        timed(
            &self.outer,
            &format!("ovn-nbctl lsp-set-options {} requested-chassis={chassis}", self.nic.port),
        )
    }

    /// Returns when all chassis have carried out what the northbound database says.
    pub fn settle(&self) {
        self.outer.sh("ovn-nbctl --wait=hv sync");
    }

    /// Another guest on that host.
    pub fn neighbour(&mut self, host: fn(&Self) -> &Host, switch: &str, number: u8, ip: &str) -> Nic {
        let nic = Nic::new(number, Plug::EthernetUnmanaged);
        let carrier = tap(host(self), &nic);
        self.carriers.extend(carrier);
        let port = &nic.port;
        self.outer.sh(&format!(
            "ovn-nbctl lsp-add {switch} {port} -- lsp-set-addresses {port} '{} {ip}' \
                 -- lsp-set-port-security {port} '{} {ip}'",
            nic.mac, nic.mac
        ));
        plug(host(self), &nic);
        is_installed(host(self), &nic);
        nic
    }

    /// What comes out of a host's uplink, from the guest's MAC; `up2`, say.
    pub fn wire(&self, uplink: &str) -> Capture {
        Capture::start(&self.outer, uplink, Direction::In, &self.nic.sent())
    }

    pub fn start_announce(&self, host: &Host, more: &[&str]) -> Running {
        let tap = self.nic.tap();
        let guest = ["--dev", &tap, "--mac", &self.nic.mac, "--ip", IPV4, "--ip", IPV6];
        host.start_announce(&[more, &guest].concat())
    }
}

fn tap(host: &Host, nic: &Nic) -> Vec<OwnedFd> {
    let carrier = taps(host, std::slice::from_ref(nic));
    host.sh(&format!("ip link set {} up", nic.tap()));
    carrier
}

/// As os-vif does.
pub fn plug(host: &Host, nic: &Nic) {
    super::ovs::plug(host, "br-int", nic);
}

/// Waits for `ovn-installed`.
pub fn is_installed(host: &Host, nic: &Nic) {
    host.sh(&format!(
        "ovs-vsctl --timeout=60 wait-until Interface {} external_ids:ovn-installed=true",
        nic.tap()
    ));
}

pub fn start_controller(host: &Host) {
    host.sh(
        "ovn-controller --verbose=console:off --detach --no-chdir --pidfile=/run/ovn/ovn-controller.pid \
             --log-file=/var/log/ovn/ovn-controller.log unix:/run/openvswitch/db.sock",
    );
}

/// How many rounds of ours these are, without their RARPs. OVN announces its ports, too, by ARP requests only.
pub fn rounds_without_rarp(frames: &[Frame]) -> usize {
    let count = |kind| kinds(frames).iter().filter(|name| **name == kind).count();
    assert!(frames.iter().all(|frame| frame.complaints.is_empty()), "{frames:#?}");
    let [requests, replies, nas] = ["arp-request", "arp-reply", "na"].map(count);
    assert!(replies == nas && requests >= replies, "{:?}", kinds(frames));
    replies
}

/// Waits until the southbound database has this of the guest's port.
pub fn binding(ovn: &Ovn, column: &str, is: impl Fn(&str) -> bool) {
    eventually(column, || {
        let port = &ovn.nic.port;
        let told = ovn
            .outer
            .sh(&format!("ovn-sbctl --bare --columns={column} find Port_Binding logical_port={port}"));
        is(told.trim()).then_some(())
    });
}
