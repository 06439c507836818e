//! The path of a frame out of the host, and where it ends.

use crate::path::hop::{Cast, Edge, Hold, Hop, Role, Tag};

/// The path of a frame out of the host.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WayOut {
    /// The hops from the host's end of the NIC to the edges, in the order of travel; each has the index of the previous one.
    pub hops: Vec<Hop>,
    /// Where the path ends inside the host, as text; only for a path without an edge.
    pub dead_ends: Vec<String>,
    /// Its network uses tunnels, and none exists: no other host has a port of it.
    pub is_alone: bool,
}

/// Where the guest's frames end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Beyond the host.
    Network,
    /// In the single end of the path, which is another namespace or program of this host.
    Elsewhere(Edge),
    /// In one of several such ends: a frame seen there proves nothing.
    Several,
    /// In this host itself, by design.
    Host,
    /// Nowhere.
    Nowhere,
}

impl WayOut {
    /// The edges, with the hops that they are.
    pub fn edges(&self) -> impl Iterator<Item = (&Hop, Edge)> {
        self.hops.iter().filter_map(|hop| Some((hop, hop.edge()?)))
    }

    /// The names of the hops.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        let hops = self.hops.iter().filter(|hop| hop.is_named());
        hops.map(|hop| hop.name.as_str())
    }

    /// The hop at this index and those before it, backwards.
    pub fn back_from(&self, at: usize) -> impl Iterator<Item = &Hop> {
        std::iter::successors(self.hops.get(at), |hop| self.hops.get(hop.from?))
    }

    /// The first bridge of Open vSwitch, and the device by which frames enter it; `None` if they enter such bridges at several places.
    pub fn enters_ovs(&self) -> Option<(&Hop, &Hop)> {
        let bridges = self.hops.iter().filter(|hop| hop.is_ovs_bridge());
        let entered = bridges.filter_map(|bridge| Some((bridge, self.hops.get(bridge.from?)?)));
        let mut entered = entered.filter(|(_, by)| by.role != Role::Ovs);
        let first = entered.next();
        first.filter(|_| entered.next().is_none())
    }

    /// Whether a frame that passes this hop with this outer tag is the copy that a mirror has made of the guest's: it says nothing of
    /// the frame itself.
    pub fn is_copy(&self, at: usize, vlan: u16) -> bool {
        let is_own = self.hops.get(at).is_some_and(|hop| hop.tag == Tag::Vlan(vlan));
        !is_own && self.back_from(at).any(|hop| hop.copied_into.contains(&vlan))
    }

    /// The settings of Linux bridges that keep such frames from every edge, one per edge; empty if some edge is open.
    pub fn holds(&self, cast: Cast) -> Vec<&Hold> {
        let edges = self.hops.iter().enumerate().filter(|(_, hop)| hop.role.is_edge());
        let held = edges.map(|(at, _)| {
            let holds = self.back_from(at).flat_map(|hop| &hop.holds);
            holds.into_iter().find(|hold| hold.setting.keeps(cast))
        });
        let mut holds = held.collect::<Option<Vec<&Hold>>>().unwrap_or_default();
        holds.dedup();
        holds
    }

    /// Where the frames end up.
    pub fn reach(&self) -> Reach {
        let mut edges = self.edges().map(|(_, edge)| edge);
        match (edges.next(), edges.next()) {
            (None, _) if self.is_alone => Reach::Host,
            (None, _) => Reach::Nowhere,
            (Some(edge), _) if edge.is_of_the_host() => Reach::Network,
            (Some(Edge::Host), None) => Reach::Host,
            (Some(edge), None) => Reach::Elsewhere(edge),
            (Some(_), Some(_)) => Reach::Several,
        }
    }

    /// Why no frame can leave, if none can.
    pub fn nowhere(&self) -> Option<String> {
        if self.reach() != Reach::Nowhere {
            return None;
        }
        let last = self.hops.iter().rev().find(|hop| matches!(hop.role, Role::LinuxBridge | Role::Ovs));
        let last = last.or(self.hops.last()).map_or("the path", |hop| &hop.name);
        Some(match self.dead_ends.is_empty() {
            true => format!("{last} has no uplink"),
            false => format!("{last} has no uplink: {}", self.dead_ends.join("; ")),
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::path::attachment::tests::{find, link, ovs};
    use crate::path::link::Links;

    #[test]
    fn the_place_where_frames_enter_open_vswitch_is_known_if_it_is_one() {
        // tap0 is in lan; from there veths lead into the bridges of Open vSwitch.
        let entered = |bridges: &[(&str, &[&str])]| {
            let links = Links::from_iter([
                link(1, "lan", "bridge", 0, 0),
                link(2, "tap0", "tun", 1, 0),
                link(3, "mid1", "veth", 1, 4),
                link(4, "mid2", "veth", 9, 3),
                link(5, "b1", "veth", 9, 6),
                link(6, "b2", "veth", 0, 5),
                link(7, "c1", "veth", 9, 8),
                link(8, "c2", "veth", 0, 7),
                link(9, "mid", "bridge", 0, 0),
                link(10, "eth0", "", 0, 0),
                link(11, "eth1", "", 0, 0),
            ]);
            let way = find("tap0", &links, &ovs(bridges)).unwrap().way;
            way.enters_ovs().map(|(bridge, by)| (bridge.name.clone(), by.name.clone()))
        };
        assert_eq!(entered(&[]), None);
        assert_eq!(entered(&[("br-ex", &["b2", "eth0"])]), Some(("br-ex".into(), "b2".into())));
        assert_eq!(entered(&[("br-ex", &["b2", "eth0"]), ("br-lan", &["c2", "eth1"])]), None);
    }
}
