//! One guest on one kind of attachment: `web1`, with nova's metadata, an IPv4 and an IPv6 address.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::capture::{Capture, Direction};
use super::guest::{Guest, Nic, Plug};
use super::host::{Host, Place};
use super::running::{Run, Running};
use super::{linux_bridge, ovs};

pub const IPV4: &str = "192.0.2.10";
pub const IPV6: &str = "2001:db8::10";
/// The VLAN that an OVS port gets.
pub const VLAN: u16 = 100;

/// Three rounds, at 0, 50 and 150 ms.
pub const QUICK: [&str; 4] = ["--count", "3", "--interval", "50ms"];
/// Three rounds, so far apart that a slow Open vSwitch does not make all of them seem lost.
pub const CALM: [&str; 4] = ["--count", "3", "--interval", "300ms"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attachment {
    /// tap → br0 → up0. Ready from the start.
    LinuxBridge,
    /// tap → br-int → up0.
    Ovs,
    /// tap → qbr → qvb ═ qvo → br-int → up0.
    Hybrid,
}

pub struct Site {
    pub host: Host,
    pub nic: Nic,
    pub guest: Guest,
    pub attachment: Attachment,
}

impl Site {
    /// The guest runs; its OVS port has no VLAN yet.
    pub fn build(attachment: Attachment) -> Self {
        Self::plugged(attachment, |_| ())
    }

    /// The guest runs and may speak.
    pub fn ready(attachment: Attachment) -> Self {
        let site = Self::build(attachment);
        site.bind();
        site
    }

    /// As [`Site::build`]; `before` prepares the host for the guest.
    pub fn plugged(attachment: Attachment, before: impl FnOnce(&Host)) -> Self {
        let plan = Host::build().libvirt();
        let host = if attachment == Attachment::LinuxBridge { plan } else { plan.ovs() }.start();
        let plug = match attachment {
            Attachment::LinuxBridge => Plug::Bridge("br0"),
            Attachment::Ovs => Plug::Ovs("br-int"),
            Attachment::Hybrid => Plug::Bridge("qbr567a450a-b0"),
        };
        let nic = Nic::new(10, plug).address(IPV4).address(IPV6);
        match attachment {
            Attachment::LinuxBridge => linux_bridge::bridge(&host, "br0"),
            Attachment::Ovs => ovs::bridge(&host, "br-int"),
            Attachment::Hybrid => {
                ovs::bridge(&host, "br-int");
                linux_bridge::hybrid(&host, &nic, "br-int");
            }
        }
        before(&host);
        let guest = Guest::new("web1").nova().quiet().nic(&nic);
        guest.start(&host);
        Self { host, nic, guest, attachment }
    }

    /// The port whose configuration decides: the tap, or the hybrid plug's `qvo`.
    pub fn port(&self) -> String {
        self.nic.device(if self.attachment == Attachment::Hybrid { "qvo" } else { "tap" })
    }

    /// The VLAN in which frames leave when the port is ready.
    pub fn vlan(&self) -> Option<u16> {
        (self.attachment != Attachment::LinuxBridge).then_some(VLAN)
    }

    /// The end of the work of neutron's agent.
    pub fn bind(&self) {
        if self.attachment != Attachment::LinuxBridge {
            ovs::bind(&self.host, &self.port(), VLAN);
        }
    }

    /// Saves the guest to a file, which ends it.
    pub fn save(&self) {
        self.host.sh(&format!("virsh --quiet save web1 {}", self.saved()));
    }

    /// Restores it from there; `how` is more for `virsh restore`.
    pub fn restore(&self, how: &str) {
        self.host.sh(&format!("virsh --quiet restore {} {how}", self.saved()));
    }

    /// Where [`Site::save`] saves it.
    pub fn saved(&self) -> String {
        self.host.directory().join("web1.saved").display().to_string()
    }

    /// What arrives from the guest's MAC beyond the uplink.
    pub fn wire(&self) -> Capture {
        Capture::start(&self.host.wire(), "wire0", Direction::In, &self.nic.sent())
    }

    /// What the guest is given of its own MAC.
    pub fn given(&self) -> Capture {
        Capture::start(&self.host, &self.nic.tap(), Direction::Out, &self.nic.sent())
    }

    /// The port behind which the deciding bridge has learned the guest, and the VLAN.
    pub fn learned(&self) -> Option<(String, Option<u16>)> {
        let mac = &self.nic.mac;
        match self.attachment {
            Attachment::LinuxBridge => linux_bridge::learned(&self.host, "br0", mac).map(|port| (port, None)),
            _ => ovs::learned(&self.host, "br-int", mac).map(|(port, vlan)| (port, Some(vlan))),
        }
    }

    /// `announce --vm web1` in three rounds, to its end.
    pub fn announce(&self, more: &[&str]) -> Run {
        self.start_announce(more).finish()
    }

    pub fn start_announce(&self, more: &[&str]) -> Running {
        let schedule = if self.attachment == Attachment::LinuxBridge { QUICK } else { CALM };
        self.host.start_announce(&[&["--vm", "web1"], &schedule[..], more].concat())
    }

    /// Announces, and returns when it says that it waits for this.
    pub fn waiting(&self, words: &str, more: &[&str]) -> Running {
        let announce = self.start_announce(&[&["-v"], more].concat());
        let line = announce.stderr.line_with("waiting:");
        assert!(line.contains(words), "it waits for something else than {words:?}: {line}");
        announce
    }
}

/// Now, by the clock of captures.
pub fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap()
}

/// Runs a shell script that must succeed; returns when it began, by the clock of captures.
pub fn timed(place: &impl Place, script: &str) -> Duration {
    let began = place.sh(&format!("date +%s%N\n{script}"));
    Duration::from_nanos(began.lines().next().unwrap().parse().unwrap())
}
