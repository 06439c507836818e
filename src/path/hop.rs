//! The steps of a frame's way through the host, the devices by which it leaves, and the settings that keep it in.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::path::link::{Link, PortState};

/// One step of the way out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hop {
    /// The device's or the port's name.
    pub name: String,
    /// The device's index, where there is a kernel device in this network namespace.
    pub ifindex: Option<u32>,
    /// What a frame on its way out does there.
    pub role: Role,
    /// The last bridge before an edge, and its port that leads to it.
    pub via: Option<Via>,
    /// The place of the hop before it in the list; `None` for the first one.
    pub from: Option<usize>,
    /// The outer VLAN tag of a frame that passes there.
    pub tag: Tag,
    /// The settings that keep frames from coming here from the hop before it.
    pub holds: Vec<Hold>,
}

/// How frames get to an edge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Via {
    /// The last bridge before it; of a macvtap, the macvtap.
    pub bridge: String,
    /// That bridge's port.
    pub port: String,
}

/// The outer VLAN tag of a frame, as far as it is known from the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Tag {
    /// It has none.
    Untagged,
    /// It is in this VLAN.
    Vlan(u16),
    /// Flows of Open vSwitch decide.
    Unknown,
}

impl Tag {
    /// Whether a frame with this tag, or none, is as expected; 0 says nothing but a priority.
    pub fn fits(self, seen: Option<u16>) -> bool {
        let seen = seen.filter(|vlan| *vlan != 0);
        match self {
            Tag::Unknown => true,
            Tag::Untagged => seen.is_none(),
            Tag::Vlan(vlan) => seen == Some(vlan),
        }
    }
}

/// What a frame on its way out does at a hop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The host's end of the NIC: enters the host.
    Nic,
    /// A Linux bridge: is forwarded, with a copy for the host itself when it is a broadcast.
    LinuxBridge,
    /// An end of a veth, or an internal port of Open vSwitch that is a port of a Linux bridge: goes over to the other side.
    Veth,
    /// That other side: comes in again.
    VethPeer,
    /// A bridge, a bond or a tunnel's port of Open vSwitch: passes unseen by the kernel.
    Ovs,
    /// A device that is stacked on others, a VLAN device or a bond: goes on to them.
    Upper,
    /// The last device: leaves the host.
    Edge(Edge),
}

/// What a path ends at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Edge {
    /// A device with hardware below it.
    Nic,
    /// A device that the configuration calls an uplink.
    Uplink,
    /// A tunnel: the frame is wrapped up, if some other end of it is to have the frame.
    Tunnel,
    /// A port of DPDK or AF_XDP: what it transmits does not pass the kernel.
    Bypass,
    /// A NIC that carries out Open vSwitch's flows by itself.
    Offload,
    /// A veth, or an internal port of Open vSwitch, whose other end is in another network namespace.
    Namespace,
    /// A tap that belongs to another program.
    Program,
    /// The bridge itself: this host is the router of the network.
    Host,
}

impl Edge {
    /// The network is surely beyond it; any other one is an edge only of a path that has none of these.
    pub fn is_of_the_host(self) -> bool {
        matches!(self, Edge::Nic | Edge::Uplink | Edge::Tunnel | Edge::Bypass | Edge::Offload)
    }

    /// Frames may leave by it without being seen.
    pub fn is_blind(self) -> bool {
        matches!(self, Edge::Tunnel | Edge::Bypass | Edge::Offload)
    }

    /// What it is, after the device's name, where that does not go without saying.
    pub fn remark(self) -> Option<&'static str> {
        match self {
            Edge::Namespace => Some("which leads into another network namespace"),
            Edge::Program => Some("which leads into another program"),
            Edge::Host => Some("to this host itself"),
            Edge::Nic | Edge::Uplink | Edge::Tunnel | Edge::Bypass | Edge::Offload => None,
        }
    }
}

impl Role {
    /// What passes there leaves the host.
    pub fn is_edge(self) -> bool {
        matches!(self, Role::Edge(_))
    }
}

impl Hop {
    /// A kernel device.
    pub fn of(link: &Link, role: Role) -> Hop {
        Hop { ifindex: Some(link.index), ..Hop::unseen(&link.name, role) }
    }

    /// What has no device of its own in this namespace.
    pub fn unseen(name: &str, role: Role) -> Hop {
        Hop {
            name: name.to_owned(),
            ifindex: None,
            role,
            via: None,
            from: None,
            tag: Tag::Untagged,
            holds: Vec::new(),
        }
    }

    /// A bridge of Open vSwitch, not a port of one that has no device.
    pub fn is_ovs_bridge(&self) -> bool {
        self.role == Role::Ovs && self.via.is_none()
    }

    /// What kind of edge it is, if it is one.
    pub fn edge(&self) -> Option<Edge> {
        match self.role {
            Role::Edge(edge) => Some(edge),
            _ => None,
        }
    }
}

impl Via {
    /// That bridge's port of this name.
    pub fn of(bridge: &str, port: &str) -> Via {
        Via { bridge: bridge.to_owned(), port: port.to_owned() }
    }
}

/// A setting of a Linux bridge that keeps frames from passing a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// The bridge.
    pub bridge: String,
    /// The port.
    pub port: String,
    /// The setting.
    pub setting: Setting,
}

/// What of a port's settings keeps frames from passing it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Setting {
    /// Not `IFF_UP`.
    Down,
    /// Not `IFF_LOWER_UP`.
    NoCarrier,
    /// The spanning tree's state of the port.
    State(PortState),
    /// The port is not in the frame's VLAN.
    NotInVlan(u16),
    /// The port has no PVID, and the frame no tag.
    NoPvid,
    /// Both ports are `isolated`.
    Isolated,
    /// `bcast_flood off`.
    BcastFlood,
    /// `mcast_flood off`.
    McastFlood,
    /// `neigh_suppress on`: the bridge itself answers for what it knows, and EVPN tells the others.
    NeighSuppress,
}

/// What of a frame such a setting asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cast {
    /// A broadcast that is no ARP announcement: RARP, a question.
    Broadcast,
    /// An ARP announcement: sender and target are the same address.
    ArpAnnouncement,
    /// A multicast that is no unsolicited neighbour advertisement.
    Multicast,
    /// An unsolicited neighbour advertisement.
    Advertisement,
}

impl Setting {
    /// Whether it keeps such a frame in.
    pub fn keeps(self, cast: Cast) -> bool {
        match self {
            Setting::BcastFlood => matches!(cast, Cast::Broadcast | Cast::ArpAnnouncement),
            Setting::McastFlood => matches!(cast, Cast::Multicast | Cast::Advertisement),
            Setting::NeighSuppress => matches!(cast, Cast::ArpAnnouncement | Cast::Advertisement),
            _ => true,
        }
    }

    /// It is so by design, and nothing is to be mended.
    pub fn is_by_design(self) -> bool {
        self == Setting::NeighSuppress
    }
}

impl fmt::Display for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Hold { bridge, port, setting } = self;
        match setting {
            Setting::Down => write!(f, "{port} is down"),
            Setting::NoCarrier => write!(f, "{port} has no carrier"),
            Setting::State(state) => {
                write!(f, "the bridge {bridge} does not forward to {port}: the port is {}", state.word())
            }
            Setting::NotInVlan(vlan) => write!(f, "the port {port} of {bridge} is not in VLAN {vlan}"),
            Setting::NoPvid => {
                write!(f, "the port {port} of {bridge} has no PVID, and drops untagged frames")
            }
            Setting::Isolated => {
                write!(
                    f,
                    "the port {port} of {bridge} is isolated, and so is the one that the frame comes from"
                )
            }
            Setting::BcastFlood => write!(f, "the port {port} of {bridge} has bcast_flood off"),
            Setting::McastFlood => write!(f, "the port {port} of {bridge} has mcast_flood off"),
            Setting::NeighSuppress => {
                write!(
                    f,
                    "the port {port} of {bridge} has neigh_suppress on, which keeps gratuitous ARP and unsolicited neighbour advertisements in by design"
                )
            }
        }
    }
}
