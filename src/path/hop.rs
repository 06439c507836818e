//! The hops of a frame's path through the host, the edges where it leaves, and the bridge settings that hold it back.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::path::link::{Link, PortState};
use crate::path::tunnel::Tunnel;

/// One hop of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hop {
    /// The name of the device or port.
    pub name: String,
    /// Its ifindex, if it is a kernel device in this network namespace.
    pub ifindex: Option<u32>,
    /// What happens to an outgoing frame there.
    pub role: Role,
    /// The last bridge before an edge, and that bridge's port towards it.
    pub via: Option<Via>,
    /// The index of the previous hop in the list; `None` for the first hop.
    pub from: Option<usize>,
    /// The outer VLAN tag of a frame that passes here.
    pub tag: Tag,
    /// The settings that keep frames of the previous hop from reaching this one.
    pub holds: Vec<Hold>,
    /// Only frames that this tunnel has encapsulated pass here.
    pub tunnel: Option<Tunnel>,
    /// The VLANs into which mirrors of this bridge of Open vSwitch copy frames, also those that it drops.
    pub copied_into: Vec<u16>,
}

/// The bridge and port before an edge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Via {
    /// The last bridge before it; for a macvtap, the macvtap.
    pub bridge: String,
    /// That bridge's port.
    pub port: String,
}

/// The outer VLAN tag of a frame, as far as the configuration determines it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Tag {
    /// No tag.
    Untagged,
    /// This VLAN.
    Vlan(u16),
    /// Open vSwitch's flows decide.
    Unknown,
}

impl Tag {
    /// Whether a frame with this tag, or none, is as expected. A tag with VLAN 0 carries only a priority.
    pub fn fits(self, seen: Option<u16>) -> bool {
        let seen = seen.filter(|vlan| *vlan != 0);
        match self {
            Tag::Unknown => true,
            Tag::Untagged => seen.is_none(),
            Tag::Vlan(vlan) => seen == Some(vlan),
        }
    }
}

/// What happens to an outgoing frame at a hop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The host's end of the NIC: the frame enters the host.
    Nic,
    /// A Linux bridge: it forwards the frame, and passes a copy of a broadcast to the host itself.
    LinuxBridge,
    /// An end of a veth, or an internal port of Open vSwitch in a Linux bridge: the frame crosses to the other side.
    Veth,
    /// The other side of a veth: the frame enters again.
    VethPeer,
    /// A bridge, a bond or a tunnel port of Open vSwitch: the frame passes unseen by the kernel.
    Ovs,
    /// A tunnel whose encapsulated frames are captured at the NICs that follow.
    Tunnel,
    /// A device stacked on others, such as a VLAN device or a bond: the frame passes to them.
    Upper,
    /// The last device: the frame leaves the host.
    Edge(Edge),
}

/// The kinds of devices where a path ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Edge {
    /// A device with hardware below it.
    Nic,
    /// A device that the configuration names as an uplink.
    Uplink,
    /// A tunnel, or the NIC by which its encapsulated frames leave.
    Tunnel,
    /// A port of DPDK or AF_XDP: its frames bypass the kernel.
    Bypass,
    /// A NIC to which Open vSwitch's flows are offloaded.
    Offload,
    /// A veth, or an internal port of Open vSwitch, whose other end is in another network namespace.
    Namespace,
    /// A tap that belongs to another program.
    Program,
    /// The bridge itself: this host is the network's router.
    Host,
}

impl Edge {
    /// The network is certainly beyond it. Any other edge counts only on a path that has no such edge.
    pub fn is_of_the_host(self) -> bool {
        matches!(self, Edge::Nic | Edge::Uplink | Edge::Tunnel | Edge::Bypass | Edge::Offload)
    }

    /// Where a frame goes that leaves by it, if that is not the network for certain.
    pub fn beyond(self) -> Option<&'static str> {
        match self {
            Edge::Namespace => Some("into another network namespace"),
            Edge::Program => Some("into another program"),
            Edge::Host => Some("to this host itself"),
            Edge::Nic | Edge::Uplink | Edge::Tunnel | Edge::Bypass | Edge::Offload => None,
        }
    }
}

impl Role {
    /// A frame that passes this hop leaves the host.
    pub fn is_edge(self) -> bool {
        matches!(self, Role::Edge(_))
    }
}

impl Hop {
    /// A kernel device.
    pub fn of(link: &Link, role: Role) -> Hop {
        Hop { ifindex: Some(link.index), ..Hop::unseen(&link.name, role) }
    }

    /// A hop without a device of its own in this namespace.
    pub fn unseen(name: &str, role: Role) -> Hop {
        Hop {
            name: name.to_owned(),
            ifindex: None,
            role,
            via: None,
            from: None,
            tag: Tag::Untagged,
            holds: Vec::new(),
            tunnel: None,
            copied_into: Vec::new(),
        }
    }

    /// A bridge of Open vSwitch, not a port of one that has no device.
    pub fn is_ovs_bridge(&self) -> bool {
        self.role == Role::Ovs && self.via.is_none()
    }

    /// The name to tell frames of a tunnel from others on the same device: `vxlan0 over up0`.
    pub fn label(&self) -> String {
        match &self.tunnel {
            Some(tunnel) => format!("{} over {}", tunnel.name, self.name),
            None => self.name.clone(),
        }
    }

    /// It is an edge, and frames that leave by it do not show.
    pub fn is_blind(&self) -> bool {
        match self.edge() {
            Some(Edge::Tunnel) => self.tunnel.is_none(),
            Some(Edge::Bypass | Edge::Offload) => true,
            Some(_) => self.ifindex.is_none(),
            None => false,
        }
    }

    /// Frames for the guest that enter the host show here.
    pub fn is_entrance(&self) -> bool {
        match self.role {
            Role::Tunnel => self.ifindex.is_some(),
            Role::Edge(_) => self.tunnel.as_ref().is_none_or(|tunnel| !tunnel.has_device),
            _ => false,
        }
    }

    /// It is named among the hops: as an edge, this host is the bridge before it.
    pub fn is_named(&self) -> bool {
        self.role != Role::Edge(Edge::Host)
    }

    /// The kind of edge, if it is one.
    pub fn edge(&self) -> Option<Edge> {
        match self.role {
            Role::Edge(edge) => Some(edge),
            _ => None,
        }
    }
}

impl Via {
    /// The port of this name on that bridge.
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

/// The settings of a port that keep frames from passing it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Setting {
    /// Not `IFF_UP`.
    Down,
    /// Not `IFF_LOWER_UP`.
    NoCarrier,
    /// The spanning tree's state of the port.
    State(PortState),
    /// The port's state in the frame's VLAN.
    VlanState(u16, PortState),
    /// The port is not in the frame's VLAN.
    NotInVlan(u16),
    /// The port has no PVID, and the frame has no tag.
    NoPvid,
    /// Both ports are `isolated`.
    Isolated,
    /// `bcast_flood off`.
    BcastFlood,
    /// `mcast_flood off`.
    McastFlood,
    /// `neigh_suppress on`: the bridge answers for known neighbours itself, and EVPN informs the others.
    NeighSuppress,
}

/// The property of a frame that such settings apply to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cast {
    /// A broadcast other than an ARP announcement: RARP, a question.
    Broadcast,
    /// An ARP announcement: sender and target are the same address.
    ArpAnnouncement,
    /// A multicast other than an unsolicited neighbour advertisement.
    Multicast,
    /// An unsolicited neighbour advertisement.
    Advertisement,
}

impl Setting {
    /// Whether this setting holds back a frame of `cast`.
    pub fn keeps(self, cast: Cast) -> bool {
        match self {
            Setting::BcastFlood => matches!(cast, Cast::Broadcast | Cast::ArpAnnouncement),
            Setting::McastFlood => matches!(cast, Cast::Multicast | Cast::Advertisement),
            Setting::NeighSuppress => matches!(cast, Cast::ArpAnnouncement | Cast::Advertisement),
            _ => true,
        }
    }

    /// The setting is intended: there is nothing to repair.
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
            Setting::VlanState(vlan, state) => {
                write!(f, "the port {port} of {bridge} is {} in VLAN {vlan}", state.word())
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
