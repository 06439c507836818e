//! The conditions that keep a frame of the guest from leaving the host.
//!
//! A frame that is sent too early is worse than a late one: without its VLAN tag it leaks into another network, and on a
//! switch it flaps the MAC. So the owner of the port, which is read from evidence, decides when the port is ready.

use std::time::Duration;

use crate::guest::GuestState;
use crate::guest::domain::Vlan;
use crate::guest::target::Target;
use crate::path::attachment::{self, Attachment, Kind};
use crate::path::condition::Condition;
use crate::path::hop::{Hop, Role, Tag};
use crate::path::link::{Link, Links, PortState};
use crate::path::ovs::{DEAD_VLAN, Ovs, Plugged, Unreachable, Untagged};
use crate::path::owner::Owner;
use crate::path::uplinks::Uplinks;

mod columns;

use columns::Wanted;

/// How long a ready port stays ready after OVSDB is lost: the datapath keeps its state while ovsdb-server restarts.
const OUTAGE_TOLERANCE: Duration = Duration::from_secs(30);

/// The state of the host and of the guest at one moment.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// The host's devices.
    pub links: &'a Links,
    /// Open vSwitch; empty on a host without it.
    pub ovs: &'a Ovs,
    /// Why OVSDB does not answer now; `ovs` may then be out of date.
    pub ovsdb_error: Option<&'a Unreachable>,
    /// The guest's state.
    pub guest: GuestState,
    /// The owner of the port according to the configuration.
    pub in_charge: Option<Owner>,
    /// The port's network has no VLAN according to the configuration, so that no agent sets one.
    pub untagged: bool,
    /// The present moment, on the same clock as the times in `ovs`.
    pub now: Duration,
    /// The devices by which frames leave the host, according to the configuration.
    pub uplinks: &'a Uplinks,
}

/// The attachment of a target, and its readiness.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assessment {
    /// Its attachment, as far as it exists.
    pub attachment: Option<Attachment>,
    /// The OpenFlow port number of the port by which the guest's frames enter; for a hybrid plug, that of its qvo.
    pub ofport: Option<u32>,
    /// How much longer a frame might meet the port's previous state.
    pub settles_in: Option<Duration>,
    /// The owner of the port, and the evidence.
    pub in_charge: (Owner, String),
    /// The VLAN of the guest's untagged frames, if the port puts them into one.
    pub vlan: Option<u16>,
    /// The unmet conditions; empty if it is ready.
    pub unmet: Vec<Condition>,
}

impl Assessment {
    /// Whether a frame sent now would leave the host in its VLAN.
    pub fn is_ready(&self) -> bool {
        self.unmet.is_empty() && self.settles_in.is_none()
    }

    /// The host's end of the NIC: as it was found, else its configured name.
    pub fn device(&self, target: &Target) -> Option<String> {
        let found = self.attachment.as_ref().map(|attachment| &attachment.entry.name);
        found.or(target.plug.device.as_ref()).cloned()
    }

    /// The guest does not use this NIC now: it has left, is paused, or the host's end is gone.
    pub fn is_gone(&self) -> bool {
        let gone = |c: &Condition| matches!(c, Condition::NoDevice { .. } | Condition::Paused(_));
        self.has_left() || self.unmet.iter().any(gone)
    }

    /// The guest will not run here again without a new event.
    pub fn has_left(&self) -> bool {
        self.unmet.iter().any(|c| matches!(c, Condition::Left(_)))
    }
}

/// Checks every condition for `target`'s frames.
pub fn assess(target: &Target, facts: &Facts<'_>) -> Assessment {
    let mut unmet = Vec::new();
    match facts.guest {
        GuestState::Running => {}
        GuestState::Paused(state) => unmet.push(Condition::Paused(state)),
        GuestState::Left(state) => unmet.push(Condition::Left(state)),
    }
    if !target.link_up {
        unmet.push(Condition::GuestLinkDown);
    }
    let mut assessment = Assessment {
        attachment: None,
        ofport: None,
        settles_in: None,
        in_charge: (Owner::Nobody, "it is not plugged in yet".into()),
        vlan: None,
        unmet,
    };
    // In which VLANs a trunk's frames pass where, the settings of each bridge decide.
    let tag = if is_trunk(target) { Tag::Unknown } else { Tag::Untagged };
    match attachment::resolve(&target.plug, tag, facts.links, facts.ovs, facts.uplinks) {
        Ok(attachment) => follow(target, facts, attachment, &mut assessment),
        Err(missing) => {
            let not_in_kernel = matches!(missing, Condition::NotPlugged { .. } | Condition::NotInOvs { .. });
            match facts.ovsdb_error.filter(|_| not_in_kernel) {
                // It may well be plugged in: only OVSDB could tell.
                Some(error) if !error.is_absence => {
                    assessment.in_charge.1 = "it cannot be told without OVSDB".into();
                    assessment.unmet.push(Condition::NoOvsdb { why: error.why.clone() });
                }
                Some(error) => {
                    assessment.unmet.extend([missing, Condition::NoOvsdb { why: error.why.clone() }]);
                }
                None => assessment.unmet.push(missing),
            }
        }
    }
    assessment
}

fn follow(target: &Target, facts: &Facts<'_>, attachment: Attachment, to: &mut Assessment) {
    let unmet = &mut to.unmet;
    match attachment.kind {
        Kind::Macvtap => {
            device_works(&attachment.port, facts.links, unmet);
            device_works(&attachment.bridge, facts.links, unmet);
        }
        Kind::LinuxBridge | Kind::Hybrid => linux_bridge(&attachment, facts.links, unmet),
        Kind::Ovs | Kind::TrunkBridge | Kind::PerPortBridge | Kind::VhostUser => {
            let nic = attachment.entry.ifindex.and_then(|ifindex| facts.links.get(ifindex));
            unmet.extend(
                nic.filter(|link| !link.up).map(|link| Condition::NicDown { device: link.name.clone() }),
            );
        }
    }
    match attachment.kind {
        Kind::Macvtap => to.in_charge = (Owner::Nobody, "a macvtap has no port to configure".into()),
        Kind::LinuxBridge => {
            to.vlan = filtered_vlan(target, &attachment, facts.links, unmet);
            to.in_charge = match &target.vlan {
                Some(_) => (Owner::Vlan, "a VLAN is asked for".into()),
                None => (Owner::Nobody, "a Linux bridge, and no VLAN is asked for".into()),
            };
        }
        Kind::Ovs | Kind::TrunkBridge | Kind::PerPortBridge | Kind::VhostUser | Kind::Hybrid => {
            if let Some(rule) = facts.ovs.port_of(&attachment.bridge, &attachment.port) {
                to.in_charge = match facts.in_charge {
                    Some(owner) => (owner, "the configuration says so".into()),
                    None => Owner::of(target, rule, facts.ovs),
                };
                ovs_rule(to.in_charge.0, target, rule, facts.untagged, unmet);
                to.settles_in = rule.port.settles_in(facts.ovs.cur_cfg, facts.now);
                if facts.ovs.cur_cfg < rule.port.changed_in {
                    unmet.push(Condition::NotApplied { port: rule.port.name.clone() });
                }
                to.vlan = match (to.in_charge.0, rule.port.untagged()) {
                    // OVN's flows do not depend on the port's columns.
                    (Owner::Ovn, _) | (_, Untagged::Into(DEAD_VLAN) | Untagged::Stay | Untagged::Dropped) => {
                        None
                    }
                    (_, Untagged::Into(vlan)) => Some(vlan),
                };
            } else {
                // The row by which the attachment was found is gone: the state is unknown, so nothing is sent.
                unmet.push(Condition::NotInOvs { device: attachment.port.clone() });
            }
            let entry = attachment.entry.ovs.as_ref();
            if let Some(entry) = entry.and_then(|entry| facts.ovs.named(&entry.interface)) {
                to.ofport = ofport(entry, unmet);
            }
            // A port that was ready stays ready for a while; no other port becomes ready without OVSDB.
            let lost = facts.ovsdb_error.filter(|error| {
                !unmet.is_empty() || facts.now.saturating_sub(error.since) > OUTAGE_TOLERANCE
            });
            unmet.extend(lost.map(|error| Condition::NoOvsdb { why: error.why.clone() }));
        }
    }
    // The agent that made the port makes its uplink, too, perhaps later.
    let has_agent = target.manager.is_some() || !matches!(to.in_charge.0, Owner::Nobody | Owner::Vlan);
    unmet.extend(attachment.way.nowhere().filter(|_| has_agent).map(|why| Condition::NoWayOut { why }));
    to.attachment = Some(attachment);
}

fn is_trunk(target: &Target) -> bool {
    target.vlan.as_ref().is_some_and(|vlan| vlan.tagged_only().is_some())
}

fn device_works(name: &str, links: &Links, unmet: &mut Vec<Condition>) {
    let device = name.to_owned();
    match links.named(name) {
        None => unmet.push(Condition::NoDevice { device }),
        Some(link) if !link.up => unmet.push(Condition::Down { device }),
        Some(link) if !link.lower_up => unmet.push(Condition::NoCarrier { device }),
        Some(_) => {}
    }
}

/// Checks that the guest's port, and that of a hybrid plug's veth, forward.
fn linux_bridge(attachment: &Attachment, links: &Links, unmet: &mut Vec<Condition>) {
    let Some(bridge) = &attachment.entry.linux_bridge else {
        return;
    };
    if links.get(bridge.ifindex).is_some_and(|link| !link.up) {
        unmet.push(Condition::Down { device: bridge.name.clone() });
    }
    let veth = attachment.entry.veth.as_ref().map(|veth| &veth.name);
    for name in [Some(&attachment.entry.name), veth].into_iter().flatten() {
        let before = unmet.len();
        device_works(name, links, unmet);
        let state = links.named(name).and_then(|link| link.port).map(|port| port.state);
        let state = state.unwrap_or_default();
        if unmet.len() == before && state != PortState::Forwarding {
            unmet.push(Condition::NotForwarding { device: name.clone(), bridge: bridge.name.clone(), state });
        }
    }
}

/// The VLAN that the first bridge which filters VLANs puts the port's untagged frames into, if that is the guest's own bridge.
fn filtered_vlan(
    target: &Target,
    attachment: &Attachment,
    links: &Links,
    unmet: &mut Vec<Condition>,
) -> Option<u16> {
    let wanted = target.vlan.as_ref().and_then(Vlan::native);
    let Some(entry) = filtering_port(attachment, links) else {
        let (device, bridge) = (attachment.port.clone(), attachment.bridge.clone());
        unmet.extend(wanted.map(|wanted| Condition::NoVlanFiltering { device, bridge, wanted }));
        return None;
    };
    if let Some(vlans) = target.vlan.as_ref().and_then(Vlan::tagged_only) {
        let missing: Vec<u16> = vlans.into_iter().filter(|vlan| entry.in_vlan(*vlan).is_none()).collect();
        if !missing.is_empty() {
            unmet.push(Condition::NotInVlans { device: entry.name.clone(), vlans: missing });
        }
        return None;
    }
    if entry.pvid.is_none() || wanted.is_some_and(|wanted| entry.pvid != Some(wanted)) {
        unmet.push(Condition::Pvid { device: entry.name.clone(), pvid: entry.pvid, wanted });
    }
    // Beyond another bridge, the guest's own knows nothing of that VLAN.
    entry.pvid.filter(|_| entry.name == attachment.port)
}

/// The port by which the guest's frames come into the first Linux bridge that filters VLANs.
fn filtering_port<'a>(attachment: &Attachment, links: &'a Links) -> Option<&'a Link> {
    let hops = &attachment.way.hops;
    let link = |hop: &Hop| links.get(hop.ifindex?);
    let mut on_bridges = hops.iter().filter(|hop| hop.role == Role::LinuxBridge);
    let is_filtering = |hop: &&Hop| link(hop).and_then(|link| link.bridge).is_some_and(|b| b.vlan_filtering);
    let entry = link(&hops[on_bridges.find(is_filtering)?.from?])?;
    // Where it comes from the bridge's own host side, or from Open vSwitch, no port says.
    Some(entry).filter(|entry| entry.port.is_some())
}

fn ovs_rule(owner: Owner, target: &Target, rule: Plugged<'_>, untagged: bool, unmet: &mut Vec<Condition>) {
    match (owner, &target.vlan) {
        (Owner::Ovn, _) => {
            let installed = rule.interface.external_ids.get("ovn-installed");
            if installed.map(String::as_str) != Some("true") {
                unmet.push(Condition::NotInstalled { port: rule.interface.name.clone() });
            }
        }
        (Owner::Neutron | Owner::Vlan | Owner::Agent, Some(vlan)) => {
            columns::compare(rule, &Wanted::of(vlan), unmet);
        }
        (Owner::Neutron | Owner::Agent, None) if untagged => columns::compare(rule, &Wanted::NotDead, unmet),
        (Owner::Neutron, None) => columns::compare(rule, &Wanted::AnyVlan, unmet),
        (Owner::Agent, None) => columns::compare(rule, &Wanted::AnySetting, unmet),
        (Owner::Vlan, None) | (Owner::Nobody, _) => {}
    }
    ofport(rule, unmet);
}

fn ofport(plugged: Plugged<'_>, unmet: &mut Vec<Condition>) -> Option<u32> {
    let ofport = plugged.interface.plugged_ofport();
    if ofport.is_none() {
        let missing = Condition::NoOfport {
            port: plugged.interface.name.clone(),
            error: plugged.interface.error.clone(),
        };
        if !unmet.contains(&missing) {
            unmet.push(missing);
        }
    }
    ofport
}

#[cfg(test)]
mod tests;
