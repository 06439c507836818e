//! Follows a frame, with its VLAN, from the guest's port to the host's edges, over rtnetlink's devices and OVSDB's rows.
//!
//! Every device and bridge is visited once per VLAN, and the number of steps is bounded: cycles end, and the cost is linear
//! in the devices that are no guests'.

use std::collections::{HashMap, HashSet};

use crate::path::hop::{Edge, Hold, Hop, Role, Tag, Via};
use crate::path::link::{Link, Links};
use crate::path::neutron_network::Network;
use crate::path::ovs::{Bridge, Ovs, Plugged};
use crate::path::uplinks::Uplinks;
use crate::path::way_out::WayOut;

mod linux;
mod openvswitch;
mod tunnel;

/// The number of devices and ports that a walk visits.
const MAX_STEPS: usize = 20_000;
/// The number of edges that a path lists.
const MAX_EDGES: usize = 64;
/// The number of dead ends that a path lists.
const MAX_DEAD_ENDS: usize = 8;
/// Prefix of the bridges of libvirt's own networks (`networkFindUnusedBridgeName`, `src/network/bridge_driver.c`).
const LIBVIRT_BRIDGE: &str = "virbr";

/// The start of a walk.
#[derive(Debug, Clone, Copy)]
pub(super) enum Start<'a> {
    /// A port of a Linux bridge.
    LinuxBridge(&'a Link, &'a Link),
    /// A port of a bridge of Open vSwitch, with its device if it has one.
    Ovs(Option<&'a Link>, Plugged<'a>),
    /// A macvtap on its lower device.
    Lower(&'a Link, &'a Link),
}

/// Walks from `start` to the edges, with frames that have this tag there.
pub(super) fn walk(start: Start<'_>, tag: Tag, links: &Links, ovs: &Ovs, uplinks: &Uplinks) -> WayOut {
    let mut walk = Walk::new(links, ovs, uplinks);
    walk.begin(start, tag);
    walk.run();
    walk.finish()
}

/// The position of a frame.
#[derive(Clone, Copy)]
enum Place<'a> {
    /// A device transmits it.
    Out(&'a Link),
    /// A device has received it.
    In(&'a Link),
    /// It is in a Linux bridge, which received it by the port, or from the host itself.
    Bridge(&'a Link, Option<&'a Link>),
    /// It is in an Open vSwitch bridge, which received it by the interface.
    Ovs(&'a Bridge, &'a str),
    /// It leaves an Open vSwitch bridge by the interface.
    Row(Plugged<'a>),
}

/// What is visited once per VLAN.
#[derive(PartialEq, Eq, Hash)]
enum Visit<'a> {
    Out(u32, Tag),
    In(u32, Tag),
    Bridge(u32, Tag),
    Ovs(&'a str),
}

struct Step<'a> {
    place: Place<'a>,
    from: Option<usize>,
    tag: Tag,
    via: Option<Via>,
    holds: Vec<Hold>,
}

struct Walk<'a> {
    links: &'a Links,
    ovs: &'a Ovs,
    uplinks: &'a Uplinks,
    hops: Vec<Hop>,
    visited: HashSet<Visit<'a>>,
    todo: Vec<Step<'a>>,
    /// The steps that a setting holds back. They come last, so that a place which an open way leads to is not taken for closed.
    held: Vec<Step<'a>>,
    steps: usize,
    /// The indexes of hops that are edges of the host.
    edges: Vec<usize>,
    /// The indexes of hops that are edges only if the path has no others.
    last_resorts: Vec<usize>,
    /// The indexes of hops that are bridges.
    bridges: Vec<usize>,
    dead_ends: Vec<String>,
    /// The number of rows of Open vSwitch that guests have left behind.
    orphans: usize,
    /// The port's network according to neutron's agent, once the frame is in Open vSwitch.
    network: Option<Network>,
    /// By what they have in common, the edges of tunnel ports of Open vSwitch.
    tunnels: HashMap<tunnel::Group<'a>, Vec<usize>>,
    /// The host's NICs, once they were looked for.
    nics: Option<Vec<&'a Link>>,
    /// Frames of a tunnel are followed: no tunnel port of Open vSwitch encapsulates them again.
    is_underlay: bool,
}

impl<'a> Walk<'a> {
    fn new(links: &'a Links, ovs: &'a Ovs, uplinks: &'a Uplinks) -> Self {
        Walk {
            links,
            ovs,
            uplinks,
            hops: Vec::new(),
            visited: HashSet::new(),
            todo: Vec::new(),
            held: Vec::new(),
            steps: 0,
            edges: Vec::new(),
            last_resorts: Vec::new(),
            bridges: Vec::new(),
            dead_ends: Vec::new(),
            orphans: 0,
            network: None,
            tunnels: HashMap::new(),
            nics: None,
            is_underlay: false,
        }
    }

    fn run(&mut self) {
        while let Some(step) = self.todo.pop().or_else(|| self.held.pop()) {
            self.steps += 1;
            if self.steps > MAX_STEPS {
                return self.dead_end("the path has more devices than are followed".into());
            }
            if self.edges.len() >= MAX_EDGES {
                return;
            }
            self.take(step);
        }
    }

    fn begin(&mut self, start: Start<'a>, tag: Tag) {
        let nic = |link: Option<&Link>, name: &str| match link {
            Some(link) => Hop::of(link, Role::Nic),
            None => Hop::unseen(name, Role::Nic),
        };
        let (hop, place, via) = match start {
            Start::LinuxBridge(tap, bridge) => (nic(Some(tap), ""), Place::Bridge(bridge, Some(tap)), None),
            Start::Ovs(link, plugged) => {
                let name = &plugged.interface.name;
                (nic(link, name), Place::Ovs(plugged.bridge, name), None)
            }
            Start::Lower(macvtap, lower) => {
                let via = Via::of(&macvtap.name, &lower.name);
                (nic(Some(macvtap), ""), self.below(lower), Some(via))
            }
        };
        self.hops.push(hop);
        self.todo.push(Step { place, from: Some(0), tag, via, holds: Vec::new() });
    }

    fn take(&mut self, step: Step<'a>) {
        let is_new = match step.place {
            Place::Out(link) => self.visited.insert(Visit::Out(link.index, step.tag)),
            Place::In(link) => self.visited.insert(Visit::In(link.index, step.tag)),
            Place::Bridge(bridge, _) => self.visited.insert(Visit::Bridge(bridge.index, step.tag)),
            Place::Ovs(bridge, _) => self.visited.insert(Visit::Ovs(&bridge.name)),
            Place::Row(_) => true,
        };
        if !is_new {
            return;
        }
        match step.place {
            Place::Out(link) => self.transmitted(link, step),
            Place::In(link) => self.received(link, step),
            Place::Bridge(bridge, port) => self.in_linux_bridge(bridge, port, step),
            Place::Ovs(bridge, by) => self.in_ovs(bridge, by, step),
            Place::Row(plugged) => self.leaves_ovs(plugged, step),
        }
    }

    /// Adds a hop after that of the step; returns its index.
    fn hop(&mut self, hop: Hop, step: &mut Step<'a>) -> usize {
        let (via, holds) = (step.via.clone(), std::mem::take(&mut step.holds));
        self.hops.push(Hop { from: step.from, tag: step.tag, via, holds, ..hop });
        self.hops.len() - 1
    }

    /// Continues from a hop, on the same path to the edge.
    fn go(&mut self, place: Place<'a>, from: usize, step: Step<'a>) {
        self.todo.push(Step { place, from: Some(from), ..step });
    }

    fn edge(&mut self, hop: Hop, edge: Edge, mut step: Step<'a>) {
        if !edge.is_of_the_host() && self.last_resorts.len() >= MAX_EDGES {
            return;
        }
        let at = self.hop(Hop { role: Role::Edge(edge), ..hop }, &mut step);
        match edge.is_of_the_host() {
            true => self.edges.push(at),
            false => self.last_resorts.push(at),
        }
    }

    /// Another program's tap on a Linux bridge, if it cannot be taken for a guest's.
    fn programs(&mut self) {
        let bridges = std::mem::take(&mut self.bridges);
        for at in &bridges {
            let (index, name) = (self.hops[*at].ifindex, self.hops[*at].name.clone());
            let taps = index.into_iter().flat_map(|index| self.links.taps_of(index));
            let own = self.hops[0].ifindex;
            for tap in taps.filter(|tap| Some(tap.index) != own && self.ovs.named(&tap.name).is_none()) {
                let via = Some(Via::of(&name, &tap.name));
                let tag = self.hops[*at].tag;
                self.transmitted(
                    tap,
                    Step { place: Place::Out(tap), from: Some(*at), tag, via, holds: Vec::new() },
                );
            }
        }
        self.bridges = bridges;
    }

    fn dead_end(&mut self, why: String) {
        if self.dead_ends.len() < MAX_DEAD_ENDS {
            self.dead_ends.push(why);
        }
    }

    /// The position of a frame that a stacked device passes down.
    fn below(&self, lower: &'a Link) -> Place<'a> {
        if lower.is("bridge") { Place::Bridge(lower, None) } else { Place::Out(lower) }
    }

    /// Removes hops that lead to no edge.
    fn finish(mut self) -> WayOut {
        let mut edges = std::mem::take(&mut self.edges);
        let is_overlay = self.network == Some(Network::Overlay);
        if edges.is_empty() && !is_overlay {
            if !self.uplinks.are_named() {
                self.programs();
            }
            edges = std::mem::take(&mut self.last_resorts);
        }
        if edges.is_empty() {
            edges.extend(self.host());
        }
        let kept = match edges.is_empty() {
            // Without an edge, the path goes as far as its last bridge.
            true => self.bridges.last().copied().into_iter().collect(),
            false => edges,
        };
        let mut keep = vec![false; self.hops.len()];
        keep[0] = true;
        for edge in kept.iter().copied() {
            let mut at = Some(edge);
            while let Some(here) = at.filter(|here| !std::mem::replace(&mut keep[*here], true)) {
                at = self.hops[here].from;
            }
        }
        let mut places = vec![None; self.hops.len()];
        let mut hops: Vec<Hop> = Vec::new();
        for (at, hop) in self.hops.into_iter().enumerate().filter(|(at, _)| keep[*at]) {
            places[at] = Some(hops.len());
            hops.push(Hop { from: hop.from.and_then(|from| places[from]), ..hop });
        }
        let is_nowhere = hops.iter().all(|hop| !hop.role.is_edge());
        let orphans = self.orphans;
        self.dead_ends
            .extend((orphans > 0).then(|| format!("ports without a device, of former guests: {orphans}")));
        let dead_ends = if is_nowhere { self.dead_ends } else { Vec::new() };
        WayOut { hops, dead_ends, is_alone: is_nowhere && is_overlay }
    }

    /// The first bridge through which this host itself is reachable.
    fn host(&mut self) -> Option<usize> {
        let is_host = |hop: &Hop| {
            let link =
                hop.ifindex.and_then(|index| self.links.get(index)).or_else(|| self.links.named(&hop.name));
            link.is_some_and(|link| self.is_the_hosts(link))
        };
        let at = self.bridges.iter().copied().find(|at| is_host(&self.hops[*at]))?;
        let bridge = &self.hops[at];
        let link = self.links.named(&bridge.name)?;
        let hop = Hop::of(link, Role::Edge(Edge::Host));
        let via = Some(Via::of(&bridge.name, &link.name));
        let hop = Hop { from: Some(at), tag: Tag::Unknown, via, ..hop };
        self.hops.push(hop);
        Some(self.hops.len() - 1)
    }

    fn is_the_hosts(&self, bridge: &Link) -> bool {
        let master = bridge.master.and_then(|index| self.links.get(index));
        self.links.has_address(bridge.index)
            || master.is_some_and(|master| master.is("vrf"))
            || bridge.name.starts_with(LIBVIRT_BRIDGE)
    }
}

#[cfg(test)]
mod tests;
