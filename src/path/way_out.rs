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
