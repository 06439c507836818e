//! The devices on which a frame can be seen between its injection and the host's edges.

use crate::announcement::injection::Method;
use crate::path::attachment::{Attachment, Kind};
use crate::path::hop::{Edge, Hop, Role};
use crate::path::tunnel::Encapsulation;
use crate::path::way_out::{Reach, WayOut};

/// The hops that a frame passes after its injection by one method.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CapturePath {
    way: WayOut,
    method: Method,
    /// Only edges are capture points.
    exits_only: bool,
}

/// The direction in which a frame passes a device, as a packet socket reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// The device has received it.
    In,
    /// The device transmits it (`PACKET_OUTGOING`).
    Out,
}

/// A device on which frames are captured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CapturePoint {
    /// The device.
    pub ifindex: u32,
    /// The direction of outgoing frames.
    pub outward: Direction,
    /// Frames for the guest enter by it.
    pub is_uplink: bool,
    /// Frames are looked for inside such tunnels only.
    pub tunnel: Option<Encapsulation>,
}

impl CapturePath {
    /// The path of frames that `method` injects into `attachment`.
    pub fn of(attachment: &Attachment, method: Method) -> CapturePath {
        let enters = |hop: &Hop| match (method, hop.role) {
            (Method::Redirect | Method::Xdp, _) => true,
            (Method::PacketOut, role) => role == Role::Ovs,
            (Method::Packet, role) => role == Role::Veth || attachment.kind == Kind::Macvtap,
            (Method::Fdb, role) => role == Role::LinuxBridge,
        };
        let hops = &attachment.way.hops;
        let entry = hops.iter().position(enters);
        // Frames do not pass the hops before the point of injection.
        let mut places = vec![None; hops.len()];
        let mut kept: Vec<Hop> = Vec::new();
        for (at, hop) in hops.iter().enumerate() {
            let from = hop.from.and_then(|from| places[from]);
            if Some(at) == entry || from.is_some() {
                places[at] = Some(kept.len());
                kept.push(Hop { from, ..hop.clone() });
            }
        }
        let way = WayOut { hops: kept, ..attachment.way.clone() };
        CapturePath { way, method, exits_only: false }
    }

    /// The same path with capture points only at the edges.
    pub fn exits_only(self) -> CapturePath {
        CapturePath { exits_only: true, ..self }
    }

    /// Whether only edges are capture points.
    pub fn is_exits_only(&self) -> bool {
        self.exits_only
    }

    /// The hops from the point of injection on.
    pub fn hops(&self) -> &[Hop] {
        &self.way.hops
    }

    /// Where the path ends.
    pub fn reach(&self) -> Reach {
        self.way.reach()
    }

    /// The path itself.
    pub fn way(&self) -> &WayOut {
        &self.way
    }

    /// The names of the bridges of Open vSwitch on the path.
    pub fn ovs_bridges(&self) -> Vec<String> {
        let bridges = self.way.hops.iter().filter(|hop| hop.is_ovs_bridge());
        bridges.map(|hop| hop.name.clone()).collect()
    }

    /// The hop at this index and those before it, backwards.
    pub fn back_from(&self, at: usize) -> impl Iterator<Item = &Hop> {
        self.way.back_from(at)
    }

    /// The injection method.
    pub fn method(&self) -> Method {
        self.method
    }

    /// The direction in which outgoing frames pass the hop; `None` if the kernel does not show them or the hop is no capture
    /// point.
    pub fn outward(&self, hop: &Hop) -> Option<Direction> {
        // What does not enter a tunnel has not left by it.
        let is_exit = hop.role.is_edge() || hop.role == Role::Tunnel;
        hop.ifindex.filter(|_| !self.exits_only || is_exit)?;
        match (hop.role, self.method) {
            (Role::Nic, Method::Packet) | (Role::LinuxBridge, Method::Fdb) => Some(Direction::Out),
            (Role::Nic | Role::LinuxBridge | Role::VethPeer | Role::Edge(Edge::Host), _) => {
                Some(Direction::In)
            }
            (Role::Veth | Role::Upper | Role::Tunnel | Role::Edge(_), _) => Some(Direction::Out),
            (Role::Ovs, _) => None,
        }
    }

    /// Every capture point.
    pub fn points(&self) -> Vec<CapturePoint> {
        let mut points = Vec::new();
        for hop in self.hops() {
            let (Some(ifindex), Some(outward)) = (hop.ifindex, self.outward(hop)) else {
                continue;
            };
            let tunnel = hop.tunnel.as_ref().map(|tunnel| tunnel.encapsulation);
            let point = CapturePoint { ifindex, outward, is_uplink: hop.is_entrance(), tunnel };
            // Tunnels of several bridges may leave by one NIC.
            if tunnel.is_none() || !points.contains(&point) {
                points.push(point);
            }
        }
        points
    }

    /// Whether a frame seen at this hop has left the host.
    pub fn proves(&self, hop: &Hop) -> bool {
        hop.role.is_edge() && !hop.is_blind() && self.reach() != Reach::Several
    }

    /// The indexes of edges by which frames may leave unseen.
    pub fn blind(&self) -> impl Iterator<Item = usize> {
        let is_the_kernels = |hop: &Hop| hop.tunnel.as_ref().is_some_and(|tunnel| tunnel.has_device);
        let is_blind = move |hop: &Hop| hop.is_blind() || is_the_kernels(hop);
        self.hops().iter().enumerate().filter(move |(_, hop)| is_blind(hop)).map(|(at, _)| at)
    }

    /// Why a frame that leaves by the blind edge at this index is not seen.
    pub fn blindness(&self, at: usize) -> String {
        let hop = &self.hops()[at];
        let name = &hop.name;
        match (hop.edge(), hop.ifindex) {
            (Some(Edge::Tunnel), _) if hop.tunnel.is_some() => format!(
                "{0} is a tunnel, and no encapsulated frame was seen on {name}: {0} has no remote end for it, sends it by another device, or the host encrypts it",
                hop.tunnel.as_ref().map_or("", |tunnel| &tunnel.name)
            ),
            (Some(Edge::Tunnel), _) => {
                format!("{name} is a tunnel, and its outgoing frames are not captured")
            }
            (Some(Edge::Offload), _) => format!("Open vSwitch's flows are offloaded to {name}"),
            (Some(Edge::Namespace), None) => format!("{name} is in another network namespace"),
            _ => format!("frames that {name} transmits bypass the kernel"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path::attachment::tests::{find, link, ovs};
    use crate::path::link::Links;
    use crate::path::ovs::Ovs;

    fn hybrid() -> Attachment {
        let links = Links::from_iter([
            link(1, "qbr0", "bridge", 0, 0),
            link(2, "tap0", "tun", 1, 0),
            link(3, "qvb0", "veth", 1, 4),
            link(4, "qvo0", "veth", 0, 3),
            link(5, "eth0", "", 0, 0),
        ]);
        find("tap0", &links, &ovs(&[("br-int", &["qvo0", "eth0"])])).unwrap()
    }

    fn shown(path: &CapturePath) -> String {
        let hops = path.hops().iter().map(|hop| match path.outward(hop) {
            Some(direction) => format!("{} {direction:?}", hop.name),
            None => hop.name.clone(),
        });
        hops.collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn a_capture_path_begins_at_the_point_of_injection() {
        let trails = [
            (Method::Redirect, "tap0 In, qbr0 In, qvb0 Out, qvo0 In, br-int, eth0 Out"),
            (Method::Packet, "qvb0 Out, qvo0 In, br-int, eth0 Out"),
            (Method::PacketOut, "br-int, eth0 Out"),
        ];
        for (method, expected) in trails {
            assert_eq!(shown(&CapturePath::of(&hybrid(), method)), expected);
        }
    }

    #[test]
    fn capture_points_can_be_limited_to_the_edges() {
        let path = CapturePath::of(&hybrid(), Method::Redirect).exits_only();
        assert_eq!(shown(&path), "tap0, qbr0, qvb0, qvo0, br-int, eth0 Out");
        assert_eq!(path.blind().next(), None);
    }

    #[test]
    fn frames_for_the_guest_enter_by_the_uplink_only() {
        let path = CapturePath::of(&hybrid(), Method::Redirect);
        let uplinks: Vec<u32> = path.points().iter().filter(|p| p.is_uplink).map(|p| p.ifindex).collect();
        assert_eq!((uplinks, path.points().len()), (vec![5], 5));
    }

    #[test]
    fn a_macvtap_transmits_its_guests_frames() {
        let links = Links::from_iter([link(2, "macvtap0", "macvtap", 0, 4), link(4, "eth0", "", 0, 0)]);
        let attachment = find("macvtap0", &links, &Ovs::default()).unwrap();
        assert_eq!(shown(&CapturePath::of(&attachment, Method::Packet)), "macvtap0 Out, eth0 Out");
    }

    #[test]
    fn a_blind_edge_is_named() {
        let links = Links::from_iter([
            link(2, "tap0", "tun", 0, 0),
            link(4, "eth0", "", 0, 0),
            link(5, "gre_sys", "gretap", 0, 0),
        ]);
        for (ports, why) in [
            (["tap0", "tap1:internal", "eth0"], None),
            (["tap0", "tap1:internal", "dpdk0:dpdk"], Some("frames that dpdk0 transmits bypass the kernel")),
            (
                ["tap0", "vxlan-1:vxlan", "eth0"],
                Some("vxlan-1 is a tunnel, and its outgoing frames are not captured"),
            ),
            (
                ["tap0", "gre-1:gre", "eth0"],
                Some(
                    "gre-1 is a tunnel, and no encapsulated frame was seen on eth0: gre-1 has no remote end for it, sends it by another device, or the host encrypts it",
                ),
            ),
            (["tap0", "tap1:internal", "patch:patch"], Some("tap1 is in another network namespace")),
        ] {
            let attachment = find("tap0", &links, &ovs(&[("br-int", &ports)])).unwrap();
            let path = CapturePath::of(&attachment, Method::PacketOut);
            let blind = path.blind().next().map(|at| path.blindness(at));
            assert_eq!(blind.as_deref(), why);
        }
    }
}
