//! The walk through bridges of Open vSwitch.

use super::{Place, Step, Walk};
use crate::path::hop::{Edge, Hop, Role, Tag, Via};
use crate::path::neutron_network::Network;
use crate::path::ovs::{Bridge, Plugged};

/// How the names of guests' ports begin. Thousands of their rows may outlive them.
const GUESTS: [&str; 4] = ["tap", "qvo", "vnet", "vhu"];

impl<'a> Walk<'a> {
    pub(super) fn in_ovs(&mut self, bridge: &'a Bridge, by: &'a str, mut step: Step<'a>) {
        step.via = None;
        let came_by = self.ovs.named(by);
        // What is in that VLAN already is not copied into it.
        let is_own = |vlan: &u16| {
            step.tag == Tag::Vlan(*vlan) || came_by.is_some_and(|came_by| came_by.port.tag == Some(*vlan))
        };
        let copied_into: Vec<u16> = self.ovs.copied_into(bridge).filter(|vlan| !is_own(vlan)).collect();
        let is_for_copies = |plugged: &Plugged<'_>| {
            !plugged.port.heeds_trunks() && plugged.port.tag.is_some_and(|tag| copied_into.contains(&tag))
        };
        let hop = Hop { copied_into: copied_into.clone(), ..Hop::unseen(&bridge.name, Role::Ovs) };
        let at = self.hop(hop, &mut step);
        self.bridges.push(at);
        let network = came_by.and_then(Network::of);
        self.network = self.network.or(network);
        // Beyond the patch port towards a provider bridge, frames are in the VLAN of the physical network.
        // A sub-port of a trunk is the guest's own patch port, and no provider bridge's.
        let leads_beyond =
            |plugged: Plugged<'_>| plugged.interface.kind == "patch" && !plugged.interface.is_guests();
        let is_patch = came_by.is_some_and(leads_beyond);
        let is_beyond = is_patch && network.is_none();
        let tag = if is_beyond { step.tag } else { Tag::Unknown };
        let beyond = match self.network {
            Some(Network::Provider(tag)) if !is_beyond => tag,
            _ => tag,
        };
        // Neutron writes the iface-id of a trunk's parent on its patch ports as well.
        let id = came_by.and_then(|plugged| plugged.interface.external_ids.get("iface-id"));
        let own = id.into_iter().flat_map(|id| self.ovs.of_interface_id(id));
        let own = own.filter(|port| port.bridge.name == bridge.name && port.interface.kind == "patch");
        let onward = self.ovs.leading_on(bridge).chain(own);
        let leads_on = |plugged: &Plugged<'_>| plugged.interface.name != by && !is_for_copies(plugged);
        let mut onward: Vec<Plugged<'_>> = onward.filter(leads_on).collect();
        // OVSDB's order is random; provider networks are named before the tunnels beside them.
        onward.sort_by_key(|plugged| (plugged.interface.is_tunnel(), &plugged.interface.name));
        for plugged in onward.into_iter().rev() {
            let (place, tag) = match self.ovs.peer_of(plugged.interface) {
                Some(peer) => (Place::Ovs(peer.bridge, &peer.interface.name), beyond),
                None => (Place::Row(plugged), tag),
            };
            self.todo.push(Step { place, from: Some(at), tag, via: None, holds: Vec::new() });
        }
    }

    pub(super) fn leaves_ovs(&mut self, plugged: Plugged<'a>, mut step: Step<'a>) {
        let Plugged { bridge, port, interface } = plugged;
        let is_other = match self.network {
            Some(Network::Overlay) => !interface.is_tunnel(),
            Some(Network::Provider(_)) => interface.is_tunnel(),
            None => false,
        };
        if is_other {
            return;
        }
        let is_orphaned = interface.error.is_some() || interface.ofport == Some(-1);
        if is_orphaned && GUESTS.iter().any(|prefix| interface.name.starts_with(prefix)) {
            self.orphans += 1;
            return;
        }
        if is_orphaned {
            let why = interface.error.clone().unwrap_or_else(|| "Open vSwitch could not open it".into());
            return self.dead_end(format!("{} of {}: {why}", interface.name, bridge.name));
        }
        step.via = Some(Via::of(&bridge.name, &port.name));
        match interface.kind.as_str() {
            "patch" => {
                self.dead_end(format!("the patch port {} of {} has no peer", interface.name, bridge.name))
            }
            "" | "system" => self.device(plugged, step),
            "internal" => self.internal(plugged, step),
            "dpdk" | "afxdp" | "afxdp-nonpmd" => {
                self.bond(plugged, &mut step);
                self.edge(Hop::unseen(&interface.name, Role::Ovs), Edge::Bypass, step);
            }
            _ if interface.is_tunnel() => self.tunnel(plugged, step),
            _ => {}
        }
    }

    fn device(&mut self, plugged: Plugged<'a>, mut step: Step<'a>) {
        let Plugged { bridge, interface, .. } = plugged;
        let Some(link) = self.links.named(&interface.name) else {
            return self.dead_end(format!("{} of {} does not exist", interface.name, bridge.name));
        };
        self.bond(plugged, &mut step);
        if self.ovs.offloads() && link.has_hardware && !self.uplinks.are_named() {
            self.edge(Hop::of(link, Role::Upper), Edge::Offload, step);
        } else {
            self.todo.push(Step { place: Place::Out(link), ..step });
        }
    }

    /// An internal port leads on where it is a port of another bridge, or below a stacked device.
    fn internal(&mut self, plugged: Plugged<'a>, step: Step<'a>) {
        let Plugged { bridge, interface, .. } = plugged;
        match self.links.named(&interface.name) {
            Some(link) if link.name == bridge.name && link.master.is_none() => {}
            Some(link) => {
                if link.master.is_some() || self.links.stacked_on(link.index).next().is_some() {
                    self.todo.push(Step { place: Place::In(link), ..step });
                }
            }
            None if self.uplinks.are_named() || interface.name == bridge.name => {}
            None => self.edge(Hop::unseen(&interface.name, Role::Ovs), Edge::Namespace, step),
        }
    }

    /// Adds the port of a bond before its member, once.
    pub(super) fn bond(&mut self, plugged: Plugged<'a>, step: &mut Step<'a>) {
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
}
