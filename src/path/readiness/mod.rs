//! The conditions that keep a frame of the guest from leaving the host.
//!
//! A frame that is sent too early is worse than a late one: without its VLAN tag it leaks into another network, and on a
//! switch it flaps the MAC. So the owner of the port, which is read from evidence, decides when the port is ready.

use crate::guest::GuestState;
use crate::guest::target::Target;
use crate::path::attachment::{self, Attachment, Kind};
use crate::path::condition::Condition;
use crate::path::hop::Tag;
use crate::path::owner::Owner;

mod assessment;
mod columns;
mod linux_bridge;
mod openvswitch;

pub use assessment::{Assessment, Facts};

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

/// The conditions of the devices and ports on the way.
fn follow(target: &Target, facts: &Facts<'_>, attachment: Attachment, to: &mut Assessment) {
    match attachment.kind {
        Kind::Macvtap => {
            linux_bridge::device_works(&attachment.port, facts.links, &mut to.unmet);
            linux_bridge::device_works(&attachment.bridge, facts.links, &mut to.unmet);
            to.in_charge = (Owner::Nobody, "a macvtap has no port to configure".into());
        }
        Kind::LinuxBridge => {
            linux_bridge::forwards(&attachment, facts.links, &mut to.unmet);
            to.vlan = linux_bridge::filtered_vlan(target, &attachment, facts.links, &mut to.unmet);
            to.in_charge = match &target.vlan {
                Some(_) => (Owner::Vlan, "a VLAN is asked for".into()),
                None => (Owner::Nobody, "a Linux bridge, and no VLAN is asked for".into()),
            };
        }
        Kind::Hybrid => {
            linux_bridge::forwards(&attachment, facts.links, &mut to.unmet);
            openvswitch::follow(target, facts, &attachment, to);
        }
        Kind::Ovs | Kind::TrunkBridge | Kind::PerPortBridge | Kind::VhostUser => {
            let nic = attachment.entry.ifindex.and_then(|ifindex| facts.links.get(ifindex));
            let down = nic.filter(|link| !link.up);
            to.unmet.extend(down.map(|link| Condition::NicDown { device: link.name.clone() }));
            openvswitch::follow(target, facts, &attachment, to);
        }
    }
    // The agent that made the port makes its uplink, too, perhaps later.
    let has_agent = target.manager.is_some() || !matches!(to.in_charge.0, Owner::Nobody | Owner::Vlan);
    let nowhere = attachment.way.nowhere().filter(|_| has_agent);
    to.unmet.extend(nowhere.map(|why| Condition::NoWayOut { why }));
    to.attachment = Some(attachment);
}

fn is_trunk(target: &Target) -> bool {
    target.vlan.as_ref().is_some_and(|vlan| vlan.tagged_only().is_some())
}

#[cfg(test)]
mod tests;
