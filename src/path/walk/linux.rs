//! The walk through kernel devices and Linux bridges.

use super::{Place, Step, Walk};
use crate::path::hop::{Edge, Hold, Hop, Role, Setting, Tag, Via};
use crate::path::link::{LIBVIRT_TAP, Link, PortState};

/// Kinds of devices that encapsulate or encrypt frames for other hosts (`IFLA_INFO_KIND`).
const TUNNELS: [&str; 15] = [
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
    "macsec",
];

impl<'a> Walk<'a> {
    pub(super) fn transmitted(&mut self, link: &'a Link, mut step: Step<'a>) {
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
            ("vlan" | "macvlan" | "macvtap" | "ipvlan" | "ipvtap", _) => self.down(link, step),
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
            (kind, _) if TUNNELS.contains(&kind) => self.tunnel_device(link, step),
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

    pub(super) fn through_veth(&mut self, link: &'a Link, mut step: Step<'a>) {
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
    pub(super) fn down(&mut self, link: &'a Link, mut step: Step<'a>) {
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

    pub(super) fn received(&mut self, link: &'a Link, mut step: Step<'a>) {
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

    pub(super) fn go_again(&mut self, place: Place<'a>, at: usize, step: &Step<'a>) {
        self.todo.push(Step { place, from: Some(at), tag: step.tag, via: None, holds: Vec::new() });
    }

    /// The VLAN devices on a device that receive frames with this tag.
    pub(super) fn vlan_devices(&self, link: &Link, tag: Tag) -> impl Iterator<Item = &'a Link> {
        let takes = move |device: &&Link| match (device.vlan_id, tag) {
            (Some(id), Tag::Vlan(vlan)) => id == vlan,
            (Some(_), Tag::Unknown) => true,
            _ => false,
        };
        self.links.stacked_on(link.index).filter(takes)
    }

    pub(super) fn in_linux_bridge(&mut self, bridge: &'a Link, port: Option<&'a Link>, mut step: Step<'a>) {
        let filters = bridge.bridge.is_some_and(|bridge| bridge.vlan_filtering);
        // Readiness checks the guest's own port.
        let entry = port.filter(|_| step.from != Some(0));
        let vlan =
            if filters { self.admit(bridge, entry, port.unwrap_or(bridge), &mut step) } else { step.tag };
        if let (true, Some(entry), Tag::Vlan(vlan)) = (filters, entry, vlan) {
            step.holds.extend(vlan_state(bridge, entry, vlan));
        }
        let role = if port.is_some() { Role::LinuxBridge } else { Role::Upper };
        let at = self.hop(Hop::of(bridge, role), &mut step);
        self.bridges.push(at);
        let internals = self.ovs.internals().filter_map(|name| self.links.named(name));
        let internals = internals.filter(|link| link.is_guests() && link.master == Some(bridge.index));
        let taps = self.uplinks.are_named().then(|| self.links.taps_of(bridge.index));
        let named = taps.into_iter().flatten().filter(|tap| self.uplinks.has(&tap.name));
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
            let next = if holds.is_empty() { &mut self.todo } else { &mut self.held };
            next.push(Step { place: Place::Out(out), from: Some(at), tag, via, holds });
        }
    }

    /// The VLAN into which a filtering bridge puts the frame; a setting that drops it is added to the step.
    pub(super) fn admit(&self, bridge: &Link, entry: Option<&Link>, by: &Link, step: &mut Step<'a>) -> Tag {
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
}

/// The settings that keep a frame in a VLAN from leaving by a port, and the tag that it has beyond it.
fn forwards(bridge: &Link, from: Option<&Link>, to: &Link, filters: bool, vlan: Tag) -> (Vec<Hold>, Tag) {
    let port = to.port.unwrap_or_default();
    let has_state_by_vlan = bridge.bridge.is_some_and(|bridge| bridge.mst);
    let mut settings = Vec::new();
    match (to.up, to.lower_up) {
        (false, _) => settings.push(Setting::Down),
        (true, false) => settings.push(Setting::NoCarrier),
        _ if port.state != PortState::Forwarding && !has_state_by_vlan => {
            settings.push(Setting::State(port.state))
        }
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
    let mut holds: Vec<Hold> = settings.into_iter().map(hold).collect();
    if let (true, Tag::Vlan(vlan)) = (filters, vlan) {
        holds.extend(vlan_state(bridge, to, vlan));
    }
    (holds, tag)
}

/// The setting that keeps frames of a VLAN from passing a port in either direction, if it does not forward there.
fn vlan_state(bridge: &Link, port: &Link, vlan: u16) -> Option<Hold> {
    let state = Some(port.vlan_state(vlan)).filter(|state| *state != PortState::Forwarding)?;
    let setting = Setting::VlanState(vlan, state);
    Some(Hold { bridge: bridge.name.clone(), port: port.name.clone(), setting })
}
