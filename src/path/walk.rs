//! Follows a frame, with its VLAN, from the guest's port to the host's edges, over rtnetlink's devices and OVSDB's rows.
//!
//! Every device and bridge is visited once per VLAN, and the number of steps is bounded: cycles end, and the cost is linear
//! in the devices that are no guests'.

use std::collections::HashSet;

use crate::path::hop::{Cast, Edge, Hold, Hop, Role, Setting, Tag, Via};
use crate::path::link::{Link, Links, PortState};
use crate::path::ovs::{Bridge, Ovs, Plugged};
use crate::path::uplinks::Uplinks;

/// The number of devices and ports that a walk visits.
const MAX_STEPS: usize = 20_000;
/// The number of edges that a path lists.
const MAX_EDGES: usize = 64;
/// The number of dead ends that a path lists.
const MAX_DEAD_ENDS: usize = 8;
/// Prefix of the bridges of libvirt's own networks (`networkFindUnusedBridgeName`, `src/network/bridge_driver.c`).
const LIBVIRT_BRIDGE: &str = "virbr";
/// libvirt gives a tap the NIC's address with this first byte (`virNetDevTapCreateInBridgePort`).
const LIBVIRT_TAP: u8 = 0xfe;
/// Kinds of devices that encapsulate frames for other hosts (`IFLA_INFO_KIND`).
const TUNNELS: [&str; 14] = [
    "vxlan",
    "geneve",
    "gre",
    "gretap",
    "ip6gre",
    "ip6gretap",
    "erspan",
    "ip6erspan",
    "ipip",
    "ip6tnl",
    "sit",
    "vti",
    "wireguard",
    "bareudp",
];

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
        let hops = self.hops.iter().filter(|hop| hop.role != Role::Edge(Edge::Host));
        hops.map(|hop| hop.name.as_str())
    }

    /// The hop at this index and those before it, backwards.
    pub fn back_from(&self, at: usize) -> impl Iterator<Item = &Hop> {
        std::iter::successors(self.hops.get(at), |hop| self.hops.get(hop.from?))
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

/// Walks from `start` to the edges.
pub(super) fn walk(start: Start<'_>, links: &Links, ovs: &Ovs, uplinks: &Uplinks) -> WayOut {
    let mut walk = Walk::new(links, ovs, uplinks);
    walk.begin(start);
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
    steps: usize,
    /// The indexes of hops that are edges of the host.
    edges: Vec<usize>,
    /// The indexes of hops that are edges only if the path has no others.
    last_resorts: Vec<usize>,
    /// The indexes of hops that are bridges.
    bridges: Vec<usize>,
    dead_ends: Vec<String>,
    /// The port's network according to neutron's agent, once the frame is in Open vSwitch.
    network: Option<Network>,
}

/// The kind of network of a neutron port (`other_config:network_type`, `segmentation_id`).
#[derive(Clone, Copy, PartialEq, Eq)]
enum Network {
    /// A VLAN of a physical network, or a flat one, with the tag beyond the provider bridge.
    Provider(Tag),
    /// In tunnels.
    Overlay,
}

impl Network {
    fn of(plugged: Plugged<'_>) -> Option<Network> {
        let said = &plugged.port.other_config;
        match said.get("network_type")?.as_str() {
            "flat" => Some(Network::Provider(Tag::Untagged)),
            "vlan" => {
                let vlan = said.get("segmentation_id").and_then(|id| id.parse().ok());
                Some(Network::Provider(vlan.map_or(Tag::Unknown, Tag::Vlan)))
            }
            "vxlan" | "gre" | "geneve" | "stt" => Some(Network::Overlay),
            _ => None,
        }
    }
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
            steps: 0,
            edges: Vec::new(),
            last_resorts: Vec::new(),
            bridges: Vec::new(),
            dead_ends: Vec::new(),
            network: None,
        }
    }

    fn run(&mut self) {
        while let Some(step) = self.todo.pop() {
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

    fn begin(&mut self, start: Start<'a>) {
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
        self.todo.push(Step { place, from: Some(0), tag: Tag::Untagged, via, holds: Vec::new() });
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

    fn transmitted(&mut self, link: &'a Link, mut step: Step<'a>) {
        if self.uplinks.has(&link.name) {
            return self.edge(Hop::of(link, Role::Upper), Edge::Uplink, step);
        }
        let kind = link.kind.as_deref().unwrap_or_default();
        let is_internal = self.ovs.named(&link.name).filter(|plugged| plugged.interface.kind == "internal");
        match (kind, is_internal) {
            (_, Some(plugged)) => {
                let at = self.hop(Hop::of(link, Role::Veth), &mut step);
                self.go(Place::Ovs(plugged.bridge, &plugged.interface.name), at, step);
            }
            ("veth", _) => self.through_veth(link, step),
            ("vlan" | "macvlan" | "macvtap" | "ipvlan" | "ipvtap" | "macsec", _) => self.down(link, step),
            ("bond" | "team", _) => {
                let at = self.hop(Hop::of(link, Role::Upper), &mut step);
                let members: Vec<&Link> = self.links.leading_on(link.index).collect();
                if members.is_empty() {
                    self.dead_end(format!("{} has no members", link.name));
                }
                for member in members.into_iter().rev() {
                    self.todo.push(Step {
                        place: Place::Out(member),
                        from: Some(at),
                        tag: step.tag,
                        via: step.via.clone(),
                        holds: Vec::new(),
                    });
                }
            }
            (kind, _) if TUNNELS.contains(&kind) => self.edge(Hop::of(link, Role::Upper), Edge::Tunnel, step),
            ("tun", _) => {
                let is_guests = link.address.is_some_and(|address| address[0] == LIBVIRT_TAP);
                if link.lower_up && !is_guests {
                    self.edge(Hop::of(link, Role::Upper), Edge::Program, step);
                }
            }
            _ if link.has_hardware && !self.uplinks.are_named() => {
                self.edge(Hop::of(link, Role::Upper), Edge::Nic, step);
            }
            _ if link.has_hardware => self.dead_end(format!("{} is not one of [path] uplinks", link.name)),
            ("", _) => self.dead_end(format!("{} has no hardware below it", link.name)),
            (kind, _) => {
                self.dead_end(format!("{} is a device of kind {kind}, which leads nowhere", link.name))
            }
        }
    }

    fn through_veth(&mut self, link: &'a Link, mut step: Step<'a>) {
        match link.link.and_then(|index| self.links.get(index)) {
            Some(peer) => {
                let at = self.hop(Hop::of(link, Role::Veth), &mut step);
                self.go(Place::In(peer), at, step);
            }
            None if self.uplinks.are_named() => {
                self.dead_end(format!("{} leads into another network namespace", link.name));
            }
            None => self.edge(Hop::of(link, Role::Upper), Edge::Namespace, step),
        }
    }

    /// A device stacked on one other device.
    fn down(&mut self, link: &'a Link, mut step: Step<'a>) {
        let Some(lower) = link.link.and_then(|index| self.links.get(index)) else {
            return match link.link_is_elsewhere && !self.uplinks.are_named() {
                true => self.edge(Hop::of(link, Role::Upper), Edge::Namespace, step),
                false => self.dead_end(format!("the lower device of {} is not here", link.name)),
            };
        };
        let at = self.hop(Hop::of(link, Role::Upper), &mut step);
        step.tag = link.vlan_id.map_or(step.tag, Tag::Vlan);
        self.go(self.below(lower), at, step);
    }

    fn received(&mut self, link: &'a Link, mut step: Step<'a>) {
        let at = self.hop(Hop::of(link, Role::VethPeer), &mut step);
        // A VLAN device receives its frames before a bridge does (`__netif_receive_skb_core`).
        let vlans: Vec<&Link> = self.vlan_devices(link, step.tag).collect();
        let bridge = link.master.and_then(|index| self.links.get(index)).filter(|master| master.is("bridge"));
        let row = self
            .ovs
            .named(&link.name)
            .filter(|plugged| matches!(plugged.interface.kind.as_str(), "" | "system"));
        let is_taken = !vlans.is_empty() && step.tag != Tag::Unknown;
        match (bridge, row) {
            _ if is_taken => {}
            (Some(bridge), _) => self.go_again(Place::Bridge(bridge, Some(link)), at, &step),
            (None, Some(plugged)) => {
                self.go_again(Place::Ovs(plugged.bridge, &plugged.interface.name), at, &step)
            }
            (None, None) if vlans.is_empty() => {
                self.dead_end(format!("{} is a port of no bridge", link.name))
            }
            (None, None) => {}
        }
        for vlan in vlans.into_iter().rev() {
            let untagged =
                Step { place: step.place, from: step.from, tag: Tag::Untagged, via: None, holds: Vec::new() };
            self.go(Place::In(vlan), at, untagged);
        }
    }

    fn go_again(&mut self, place: Place<'a>, at: usize, step: &Step<'a>) {
        self.todo.push(Step { place, from: Some(at), tag: step.tag, via: None, holds: Vec::new() });
    }

    /// The VLAN devices on a device that receive frames with this tag.
    fn vlan_devices(&self, link: &Link, tag: Tag) -> impl Iterator<Item = &'a Link> {
        let takes = move |device: &&Link| match (device.vlan_id, tag) {
            (Some(id), Tag::Vlan(vlan)) => id == vlan,
            (Some(_), Tag::Unknown) => true,
            _ => false,
        };
        self.links.stacked_on(link.index).filter(takes)
    }

    fn in_linux_bridge(&mut self, bridge: &'a Link, port: Option<&'a Link>, mut step: Step<'a>) {
        let filters = bridge.bridge.is_some_and(|bridge| bridge.vlan_filtering);
        // Readiness checks the guest's own port.
        let entry = port.filter(|_| step.from != Some(0));
        let vlan =
            if filters { self.admit(bridge, entry, port.unwrap_or(bridge), &mut step) } else { step.tag };
        let role = if port.is_some() { Role::LinuxBridge } else { Role::Upper };
        let at = self.hop(Hop::of(bridge, role), &mut step);
        self.bridges.push(at);
        let internals = self.ovs.internals().filter_map(|name| self.links.named(name));
        let internals = internals.filter(|link| link.is_guests() && link.master == Some(bridge.index));
        let named = self.links.taps_of(bridge.index);
        let named = named.filter(|tap| self.uplinks.are_named() && self.uplinks.has(&tap.name));
        let ports = self.links.leading_on(bridge.index).chain(internals).chain(named);
        let ports: Vec<&Link> = ports.filter(|out| port.is_none_or(|port| port.index != out.index)).collect();
        // A frame that the bridge passes up to the host in its VLAN may enter a port of another bridge.
        let vlans: Vec<&Link> = self.vlan_devices(bridge, vlan).collect();
        for up in vlans.into_iter().filter(|up| up.master.is_some()).rev() {
            self.todo.push(Step {
                place: Place::In(up),
                from: Some(at),
                tag: Tag::Untagged,
                via: None,
                holds: Vec::new(),
            });
        }
        for out in ports.into_iter().rev() {
            let (holds, tag) = forwards(bridge, port, out, filters, vlan);
            let via = Some(Via::of(&bridge.name, &out.name));
            self.todo.push(Step { place: Place::Out(out), from: Some(at), tag, via, holds });
        }
    }

    /// The VLAN into which a filtering bridge puts the frame; a setting that drops it is added to the step.
    fn admit(&self, bridge: &Link, entry: Option<&Link>, by: &Link, step: &mut Step<'a>) -> Tag {
        let hold = |setting| Hold { bridge: bridge.name.clone(), port: by.name.clone(), setting };
        match step.tag {
            Tag::Untagged => match by.pvid {
                Some(pvid) => Tag::Vlan(pvid),
                None => {
                    // Without an entry for the bridge itself, its host side is not known to filter.
                    step.holds.extend(entry.map(|_| hold(Setting::NoPvid)));
                    Tag::Unknown
                }
            },
            Tag::Vlan(vlan) => {
                let is_in = by.in_vlan(vlan).is_some();
                step.holds.extend((!is_in && entry.is_some()).then(|| hold(Setting::NotInVlan(vlan))));
                Tag::Vlan(vlan)
            }
            Tag::Unknown => Tag::Unknown,
        }
    }

    fn in_ovs(&mut self, bridge: &'a Bridge, by: &'a str, mut step: Step<'a>) {
        step.via = None;
        let at = self.hop(Hop::unseen(&bridge.name, Role::Ovs), &mut step);
        self.bridges.push(at);
        let came_by = self.ovs.named(by);
        let network = came_by.and_then(Network::of);
        self.network = self.network.or(network);
        // Beyond the patch port towards a provider bridge, frames are in the VLAN of the physical network.
        let is_patch = came_by.is_some_and(|plugged| plugged.interface.kind == "patch");
        let is_beyond = is_patch && network.is_none();
        let tag = if is_beyond { step.tag } else { Tag::Unknown };
        let beyond = match self.network {
            Some(Network::Provider(tag)) if !is_beyond => tag,
            _ => tag,
        };
        let onward: Vec<Plugged<'_>> =
            self.ovs.leading_on(bridge).filter(|plugged| plugged.interface.name != by).collect();
        for plugged in onward.into_iter().rev() {
            let (place, tag) = match self.ovs.peer_of(plugged.interface) {
                Some(peer) => (Place::Ovs(peer.bridge, &peer.interface.name), beyond),
                None => (Place::Row(plugged), tag),
            };
            self.todo.push(Step { place, from: Some(at), tag, via: None, holds: Vec::new() });
        }
    }

    fn leaves_ovs(&mut self, plugged: Plugged<'a>, mut step: Step<'a>) {
        let Plugged { bridge, port, interface } = plugged;
        let is_other = match self.network {
            Some(Network::Overlay) => !interface.is_tunnel(),
            Some(Network::Provider(_)) => interface.is_tunnel(),
            None => false,
        };
        if is_other {
            return;
        }
        if interface.error.is_some() || interface.ofport == Some(-1) {
            let why = interface.error.clone().unwrap_or_else(|| "Open vSwitch could not open it".into());
            return self.dead_end(format!("{} of {}: {why}", interface.name, bridge.name));
        }
        step.via = Some(Via::of(&bridge.name, &port.name));
        let link = self.links.named(&interface.name);
        match interface.kind.as_str() {
            "patch" => {
                self.dead_end(format!("the patch port {} of {} has no peer", interface.name, bridge.name))
            }
            "" | "system" => match link {
                Some(link) => {
                    self.bond(plugged, &mut step);
                    let offloads = self.ovs.offloads() && link.has_hardware && !self.uplinks.are_named();
                    match offloads {
                        true => self.edge(Hop::of(link, Role::Upper), Edge::Offload, step),
                        false => self.todo.push(Step { place: Place::Out(link), ..step }),
                    }
                }
                None => self.dead_end(format!("{} of {} does not exist", interface.name, bridge.name)),
            },
            "internal" => match link {
                Some(link) if link.name == bridge.name && link.master.is_none() => {}
                Some(link) => {
                    let is_port = link.master.is_some() || self.links.stacked_on(link.index).next().is_some();
                    if is_port {
                        self.todo.push(Step { place: Place::In(link), ..step });
                    }
                }
                None if self.uplinks.are_named() => {}
                None if interface.name == bridge.name => {}
                None => self.edge(Hop::unseen(&interface.name, Role::Ovs), Edge::Namespace, step),
            },
            "dpdk" | "afxdp" | "afxdp-nonpmd" => {
                self.bond(plugged, &mut step);
                self.edge(Hop::unseen(&interface.name, Role::Ovs), Edge::Bypass, step);
            }
            _ if interface.is_tunnel() => self.tunnel(plugged, step),
            _ => {}
        }
    }

    /// Adds the port of a bond before its member, once.
    fn bond(&mut self, plugged: Plugged<'a>, step: &mut Step<'a>) {
        let port = &plugged.port.name;
        if port == &plugged.interface.name {
            return;
        }
        let is_it = |hop: &Hop| hop.name == *port && hop.role == Role::Ovs && hop.via == step.via;
        step.from = match self.hops.iter().rposition(is_it) {
            Some(at) => Some(at),
            None => Some(self.hop(Hop::unseen(port, Role::Ovs), step)),
        };
    }

    /// The kernel datapath has one device for all tunnels of a kind.
    fn tunnel(&mut self, plugged: Plugged<'a>, mut step: Step<'a>) {
        let device = plugged.interface.tunnel_device().and_then(|name| self.links.named(&name));
        let Some(device) = device else {
            return self.edge(Hop::unseen(&plugged.interface.name, Role::Ovs), Edge::Tunnel, step);
        };
        let port = self.hop(Hop::unseen(&plugged.interface.name, Role::Ovs), &mut step);
        if !self.visited.insert(Visit::Out(device.index, Tag::Unknown)) {
            return;
        }
        step.from = Some(port);
        step.via = Some(Via::of(&plugged.bridge.name, &device.name));
        self.edge(Hop::of(device, Role::Upper), Edge::Tunnel, step);
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

/// The settings that keep a frame in a VLAN from leaving by a port, and the tag that it has beyond it.
fn forwards(bridge: &Link, from: Option<&Link>, to: &Link, filters: bool, vlan: Tag) -> (Vec<Hold>, Tag) {
    let port = to.port.unwrap_or_default();
    let mut settings = Vec::new();
    match (to.up, to.lower_up) {
        (false, _) => settings.push(Setting::Down),
        (true, false) => settings.push(Setting::NoCarrier),
        _ if port.state != PortState::Forwarding => settings.push(Setting::State(port.state)),
        _ => {}
    }
    let is_isolated = |link: &Link| link.port.is_some_and(|port| port.isolated);
    if port.isolated && from.is_some_and(is_isolated) {
        settings.push(Setting::Isolated);
    }
    if !port.bcast_flood && from.is_some() {
        settings.push(Setting::BcastFlood);
    }
    if !port.mcast_flood && from.is_some() {
        settings.push(Setting::McastFlood);
    }
    if port.neigh_suppress {
        settings.push(Setting::NeighSuppress);
    }
    let tag = match (filters, vlan) {
        (true, Tag::Vlan(vlan)) => match to.in_vlan(vlan) {
            Some(range) if range.untagged => Tag::Untagged,
            Some(_) => Tag::Vlan(vlan),
            None => {
                settings.push(Setting::NotInVlan(vlan));
                Tag::Unknown
            }
        },
        (_, tag) => tag,
    };
    let hold = |setting| Hold { bridge: bridge.name.clone(), port: to.name.clone(), setting };
    (settings.into_iter().map(hold).collect(), tag)
}

#[cfg(test)]
mod tests;
