//! The methods that inject a frame into the host as if the guest had sent it, best first.
//!
//! A frame written to a tap with a packet socket is transmitted *to* the guest. To appear *from* the guest, the tap must
//! receive the frame, or Open vSwitch must get it with the guest's port as `in_port`.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::path::attachment::{Device, Kind};
use crate::path::readiness::Assessment;

/// An injection method.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// A helper tap whose BPF program redirects what we write into the guest's ingress.
    Redirect,
    /// XDP live frames on the guest's tap (Linux 5.18).
    Xdp,
    /// An OpenFlow packet-out with the guest's port as `in_port`.
    PacketOut,
    /// A packet socket on a device whose transmit side leads to the network: a macvtap, or the veth of a hybrid plug.
    Packet,
    /// An FDB entry for the guest's port, and a packet socket on the bridge. Bypasses the port's filters, and the guest
    /// receives its own frames.
    Fdb,
}

impl Method {
    /// Every method.
    pub const ALL: [Method; 5] =
        [Method::Redirect, Method::Xdp, Method::PacketOut, Method::Packet, Method::Fdb];

    /// The name of this method on the command line and in output.
    pub fn word(self) -> &'static str {
        match self {
            Method::Redirect => "redirect",
            Method::Xdp => "xdp",
            Method::PacketOut => "packet-out",
            Method::Packet => "packet",
            Method::Fdb => "fdb",
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// A method and its device or port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Way {
    /// Into the ingress of a device.
    Redirect(Device),
    /// Into the ingress of a device.
    Xdp(Device),
    /// Into a bridge of Open vSwitch.
    PacketOut {
        /// The bridge's name.
        bridge: String,
        /// The OpenFlow port number of the guest's port.
        in_port: u32,
    },
    /// Out of a device.
    Packet(Device),
    /// Out of a bridge, with an FDB entry for a port.
    Fdb {
        /// The guest's port.
        port: Device,
        /// Its bridge.
        bridge: Device,
    },
}

impl Way {
    /// Its method.
    pub fn method(&self) -> Method {
        match self {
            Way::Redirect(_) => Method::Redirect,
            Way::Xdp(_) => Method::Xdp,
            Way::PacketOut { .. } => Method::PacketOut,
            Way::Packet(_) => Method::Packet,
            Way::Fdb { .. } => Method::Fdb,
        }
    }
}

/// How a frame reaches the guest, and nothing else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Inward {
    /// A packet socket on its tap: what the tap transmits, the guest receives.
    Packet(Device),
    /// Into the ingress of its macvtap. What a macvtap transmits, the network receives.
    Ingress(Vec<Way>),
    /// An OpenFlow packet-out to its port, which has no kernel device.
    PacketOut {
        /// The bridge's name.
        bridge: String,
        /// The OpenFlow port number of the guest's port.
        port: u32,
    },
}

/// The way to the guest, if it has one.
pub fn inward(seen: &Assessment) -> Option<Inward> {
    let attachment = seen.attachment.as_ref()?;
    let entry = &attachment.entry;
    let Some(ifindex) = entry.ifindex else {
        let bridge = entry.ovs.as_ref()?.bridge.clone();
        return seen.ofport.map(|port| Inward::PacketOut { bridge, port });
    };
    let device = Device { name: entry.name.clone(), ifindex };
    Some(match attachment.kind {
        Kind::Macvtap => Inward::Ingress(vec![Way::Redirect(device.clone()), Way::Xdp(device)]),
        _ => Inward::Packet(device),
    })
}

/// The methods that an attachment permits, best first; with `forced`, only that one.
///
/// [`Method::Fdb`] is used only if forced: it bypasses the port's filters, and with them its protection against spoofing.
pub fn ways(seen: &Assessment, forced: Option<Method>) -> Vec<Way> {
    let mut ways = all(seen);
    ways.retain(|way| match forced {
        Some(method) => way.method() == method,
        None => way.method() != Method::Fdb,
    });
    ways
}

fn all(seen: &Assessment) -> Vec<Way> {
    let Some(attachment) = &seen.attachment else {
        return Vec::new();
    };
    let entry = &attachment.entry;
    let device = entry.ifindex.map(|ifindex| Device { name: entry.name.clone(), ifindex });
    let redirect = device.clone().map(Way::Redirect);
    let xdp = device.clone().map(Way::Xdp);
    let packet_out = entry
        .ovs
        .as_ref()
        .zip(seen.ofport)
        .map(|(ovs, in_port)| Way::PacketOut { bridge: ovs.bridge.clone(), in_port });
    // A frame that the bridge itself sends is in the bridge's own VLAN, not in that of the guest's port.
    let bridge = entry.linux_bridge.clone().filter(|_| seen.vlan.is_none());
    let fdb = device.clone().zip(bridge).map(|(port, bridge)| Way::Fdb { port, bridge });
    let ways = match attachment.kind {
        Kind::LinuxBridge => vec![redirect, xdp, fdb],
        Kind::Hybrid => vec![redirect, packet_out, entry.veth.clone().map(Way::Packet), xdp],
        Kind::Ovs | Kind::TrunkBridge | Kind::PerPortBridge | Kind::VhostUser => {
            vec![packet_out, redirect, xdp]
        }
        Kind::Macvtap => vec![device.map(Way::Packet)],
    };
    ways.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path::attachment::{Attachment, Entry, OvsPort};
    use crate::path::owner::Owner;

    fn seen(kind: Kind, ifindex: Option<u32>) -> Assessment {
        let device = |name: &str, ifindex| Device { name: name.into(), ifindex };
        let entry = Entry {
            name: "tap0".into(),
            ifindex,
            linux_bridge: Some(device("br0", 1)),
            veth: Some(device("qvb0", 3)),
            ovs: Some(OvsPort { bridge: "br-int".into(), interface: "tap0".into() }),
        };
        Assessment {
            attachment: Some(Attachment {
                kind,
                entry,
                bridge: "br-int".into(),
                port: "tap0".into(),
                way: crate::path::way_out::WayOut::default(),
            }),
            ofport: Some(5),
            settles_in: None,
            in_charge: (Owner::Nobody, String::new()),
            vlan: None,
            unmet: Vec::new(),
        }
    }

    fn words(kind: Kind, ifindex: Option<u32>, forced: Option<Method>) -> String {
        let ways = ways(&seen(kind, ifindex), forced);
        ways.iter().map(|way| way.method().word()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn each_attachment_has_its_methods_best_first() {
        for (kind, expected) in [
            (Kind::LinuxBridge, "redirect xdp"),
            (Kind::Hybrid, "redirect packet-out packet xdp"),
            (Kind::Ovs, "packet-out redirect xdp"),
            (Kind::TrunkBridge, "packet-out redirect xdp"),
            (Kind::Macvtap, "packet"),
        ] {
            assert_eq!(words(kind, Some(2), None), expected, "{kind:?}");
        }
    }

    #[test]
    fn a_port_without_a_kernel_device_has_packet_out_only() {
        assert_eq!(words(Kind::VhostUser, None, None), "packet-out");
    }

    #[test]
    fn a_guest_is_reached_by_its_own_device_or_port() {
        let by = |kind, ifindex| match inward(&seen(kind, ifindex)) {
            Some(Inward::Packet(device)) => device.name,
            Some(Inward::Ingress(ways)) => {
                ways.iter().map(|way| way.method().word()).collect::<Vec<_>>().join(" ")
            }
            Some(Inward::PacketOut { bridge, port }) => format!("{bridge} {port}"),
            None => String::new(),
        };
        for kind in [Kind::LinuxBridge, Kind::Hybrid, Kind::Ovs, Kind::TrunkBridge, Kind::PerPortBridge] {
            assert_eq!(by(kind, Some(2)), "tap0", "{kind:?}");
        }
        assert_eq!(by(Kind::Macvtap, Some(2)), "redirect xdp", "a macvtap transmits to the network");
        assert_eq!(by(Kind::VhostUser, None), "br-int 5");
    }

    #[test]
    fn a_method_that_bypasses_the_filters_must_be_forced() {
        assert_eq!(words(Kind::LinuxBridge, Some(2), Some(Method::Fdb)), "fdb");
        assert_eq!(words(Kind::Macvtap, Some(2), Some(Method::Redirect)), "");
    }

    #[test]
    fn a_hybrid_plugs_packet_socket_is_on_the_veth_not_on_the_tap() {
        let ways = ways(&seen(Kind::Hybrid, Some(2)), Some(Method::Packet));
        assert!(matches!(&ways[..], [Way::Packet(device)] if device.name == "qvb0"), "{ways:?}");
    }
}
