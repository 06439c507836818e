//! The walk into tunnels, and on to the NICs by which their encapsulated frames leave.

use std::net::IpAddr;

use super::{Step, Visit, Walk};
use crate::path::hop::{Edge, Hold, Hop, Role, Setting, Tag, Via};
use crate::path::link::Link;
use crate::path::ovs::Plugged;
use crate::path::tunnel::{Encapsulation, Tunnel, TunnelDevice};

/// The number of NICs by which the frames of one tunnel leave.
const MAX_CARRIERS: usize = 8;
/// The number of tunnels that are followed to their NICs; ports with the same NICs are one. Others are blind edges.
const MAX_TUNNELS: usize = 16;

/// Ports of a bridge of Open vSwitch that encapsulate alike and transmit by the same device.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct Group<'a> {
    bridge: &'a str,
    ifindex: u32,
    encapsulation: Option<Encapsulation>,
}

impl<'a> Walk<'a> {
    /// A tunnel port of Open vSwitch. The kernel datapath has one device for all tunnels of a kind and port; in user space,
    /// Open vSwitch sends by its own bridges.
    pub(super) fn tunnel(&mut self, plugged: Plugged<'a>, mut step: Step<'a>) {
        if self.is_underlay {
            return;
        }
        let interface = plugged.interface;
        let device = interface.tunnel_device().and_then(|name| self.links.named(&name));
        let egress = interface.egress.as_deref().and_then(|name| self.links.named(name));
        let egress = egress.filter(|_| interface.remote().is_some() && !self.ovs.offloads());
        let encapsulation = interface.encapsulation();
        let Some(by) = device.or(egress.filter(|_| encapsulation.is_some())) else {
            return self.edge(Hop::unseen(&interface.name, Role::Ovs), Edge::Tunnel, step);
        };
        let bridge = &plugged.bridge.name;
        let group = Group { bridge, ifindex: by.index, encapsulation };
        if let Some(edges) = self.tunnels.get(&group) {
            let edges = edges.clone();
            return self.name_port(&edges, interface.remote(), &interface.name);
        }
        let carriers = match (device, encapsulation) {
            _ if self.tunnels.len() >= MAX_TUNNELS || self.ovs.offloads() => Vec::new(),
            (_, None) => Vec::new(),
            (Some(_), Some(_)) => self.carriers_or_nics(egress),
            (None, Some(_)) => egress.map(|egress| self.carriers(egress)).unwrap_or_default(),
        };
        let (Some(encapsulation), false) = (encapsulation, carriers.is_empty()) else {
            return self.blind_tunnel(plugged, device, step);
        };
        let tunnel = Tunnel {
            encapsulation,
            name: interface.name.clone(),
            ports: Default::default(),
            has_device: device.is_some(),
        };
        let mut at = match device {
            Some(_) => self.hop(Hop::unseen(&interface.name, Role::Ovs), &mut step),
            None => self.hop(Hop::unseen(&interface.name, Role::Tunnel), &mut step),
        };
        if let Some(device) = device {
            step.from = Some(at);
            at = self.hop(Hop::of(device, Role::Tunnel), &mut step);
        }
        // Flows decide about the tag inside.
        (step.from, step.tag) = (Some(at), Tag::Unknown);
        let edges = self.carried(&tunnel, &carriers, step);
        self.name_port(&edges, interface.remote(), &interface.name);
        self.tunnels.insert(group, edges);
    }

    /// A tunnel port whose encapsulated frames cannot be captured. Its device, if it has one, shows what enters it.
    fn blind_tunnel(&mut self, plugged: Plugged<'a>, device: Option<&'a Link>, mut step: Step<'a>) {
        let name = &plugged.interface.name;
        let Some(device) = device.filter(|_| !self.ovs.offloads()) else {
            return self.edge(Hop::unseen(name, Role::Ovs), Edge::Tunnel, step);
        };
        let port = self.hop(Hop::unseen(name, Role::Ovs), &mut step);
        if !self.visited.insert(Visit::Out(device.index, Tag::Unknown)) {
            return;
        }
        step.from = Some(port);
        step.via = Some(Via::of(&plugged.bridge.name, &device.name));
        self.edge(Hop::of(device, Role::Upper), Edge::Tunnel, step);
    }

    /// A kernel device that encapsulates.
    pub(super) fn tunnel_device(&mut self, link: &'a Link, mut step: Step<'a>) {
        let tunnel = link.tunnel.filter(|_| !link.link_is_elsewhere && !self.is_underlay);
        let carriers = match tunnel {
            Some(TunnelDevice { lower, .. }) => {
                self.carriers_or_nics(lower.and_then(|lower| self.links.get(lower)))
            }
            None => Vec::new(),
        };
        let (Some(TunnelDevice { encapsulation, .. }), false) = (tunnel, carriers.is_empty()) else {
            return self.edge(Hop::of(link, Role::Upper), Edge::Tunnel, step);
        };
        let (name, ports) = (link.name.clone(), Default::default());
        let tunnel = Tunnel { encapsulation, name, ports, has_device: true };
        let at = self.hop(Hop::of(link, Role::Tunnel), &mut step);
        step.from = Some(at);
        self.carried(&tunnel, &carriers, step);
    }

    /// Adds the NICs that carry the tunnel's frames as edges; returns their hops.
    fn carried(&mut self, tunnel: &Tunnel, carriers: &[&'a Link], step: Step<'a>) -> Vec<usize> {
        let edges = carriers.iter().map(|nic| {
            let setting = match (nic.up, nic.lower_up) {
                (false, _) => Some(Setting::Down),
                (true, false) => Some(Setting::NoCarrier),
                (true, true) => None,
            };
            let hold = |setting| Hold { bridge: tunnel.name.clone(), port: nic.name.clone(), setting };
            self.hops.push(Hop {
                from: step.from,
                via: step.via.clone(),
                tag: step.tag,
                holds: setting.map(hold).into_iter().collect(),
                tunnel: Some(tunnel.clone()),
                ..Hop::of(nic, Role::Edge(Edge::Tunnel))
            });
            self.hops.len() - 1
        });
        let edges: Vec<usize> = edges.collect();
        self.edges.extend(&edges);
        edges
    }

    fn name_port(&mut self, edges: &[usize], remote: Option<IpAddr>, name: &str) {
        let Some(remote) = remote else { return };
        for at in edges {
            if let Some(tunnel) = &mut self.hops[*at].tunnel {
                tunnel.ports.insert(remote, name.to_owned());
            }
        }
    }

    /// The NICs behind this device of the underlay, as a frame that it transmits would reach them; none if it may also leave
    /// unseen, or ends nowhere.
    fn carriers(&self, egress: &'a Link) -> Vec<&'a Link> {
        let mut underlay = Walk { is_underlay: true, ..Walk::new(self.links, self.ovs, self.uplinks) };
        let place = underlay.below(egress);
        underlay.todo.push(Step { place, from: None, tag: Tag::Untagged, via: None, holds: Vec::new() });
        underlay.run();
        let edges = underlay.edges.iter().map(|at| &underlay.hops[*at]);
        let nics = edges.map(|hop| match hop.edge()? {
            Edge::Nic | Edge::Uplink => self.links.get(hop.ifindex?),
            _ => None,
        });
        let nics: Vec<&Link> = nics.collect::<Option<_>>().unwrap_or_default();
        if nics.len() <= MAX_CARRIERS { nics } else { Vec::new() }
    }

    /// The same for a tunnel of the kernel: a frame that is seen on any NIC has left, and one that is seen on none may have,
    /// so that guesses do no harm.
    fn carriers_or_nics(&mut self, egress: Option<&'a Link>) -> Vec<&'a Link> {
        let carriers = egress.map(|egress| self.carriers(egress)).unwrap_or_default();
        if !carriers.is_empty() {
            return carriers;
        }
        let (links, uplinks) = (self.links, self.uplinks);
        let is_nic = |link: &&Link| match uplinks.are_named() {
            true => uplinks.has(&link.name),
            false => link.has_hardware && !link.is_representor,
        };
        let nics =
            self.nics.get_or_insert_with(|| links.all().filter(is_nic).take(MAX_CARRIERS + 1).collect());
        if nics.len() <= MAX_CARRIERS { nics.clone() } else { Vec::new() }
    }
}
