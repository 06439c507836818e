//! The conditions of a port of Open vSwitch.

use std::time::Duration;

use super::assessment::{Assessment, Facts};
use super::columns::{self, Wanted};
use crate::guest::target::Target;
use crate::path::attachment::Attachment;
use crate::path::condition::Condition;
use crate::path::ovs::{CarriedOut, DEAD_VLAN, Plugged, Untagged};
use crate::path::owner::Owner;

/// How long a ready port stays ready after OVSDB is lost: the datapath keeps its state while ovsdb-server restarts.
pub(super) const OUTAGE_TOLERANCE: Duration = Duration::from_secs(30);

pub(super) fn follow(target: &Target, facts: &Facts<'_>, attachment: &Attachment, to: &mut Assessment) {
    match facts.ovs.port_of(&attachment.bridge, &attachment.port) {
        Some(plugged) => port(target, facts, plugged, to),
        // The row by which the attachment was found is gone: the state is unknown, so nothing is sent.
        None => to.unmet.push(Condition::NotInOvs { device: attachment.port.clone() }),
    }
    let entry = attachment.entry.ovs.as_ref();
    if let Some(entry) = entry.and_then(|entry| facts.ovs.named(&entry.interface)) {
        to.ofport = ofport(entry, &mut to.unmet);
    }
    // A port that was ready stays ready for a while; no other port becomes ready without OVSDB.
    let lost = facts
        .ovsdb_error
        .filter(|error| !to.unmet.is_empty() || facts.now.saturating_sub(error.since) > OUTAGE_TOLERANCE);
    to.unmet.extend(lost.map(|error| Condition::NoOvsdb { why: error.why.clone() }));
}

/// The conditions of the port that the owner configures.
fn port(target: &Target, facts: &Facts<'_>, plugged: Plugged<'_>, to: &mut Assessment) {
    to.in_charge = match facts.in_charge {
        Some(owner) => (owner, "the configuration says so".into()),
        None => Owner::of(target, plugged, facts.ovs),
    };
    let owner = to.in_charge.0;
    rule(owner, target, plugged, facts.untagged, &mut to.unmet);
    let carried_out = plugged.port.carried_out(facts.ovs.cur_cfg, &facts.ovs.answers, facts.now);
    if let CarriedOut::In(left) = carried_out {
        to.settles_in = Some(left);
    }
    if facts.ovs.cur_cfg < plugged.port.changed_in || carried_out == CarriedOut::Unanswered {
        to.unmet.push(Condition::NotApplied { port: plugged.port.name.clone() });
    }
    to.vlan = match (owner, plugged.port.untagged()) {
        // OVN's flows do not depend on the port's columns.
        (Owner::Ovn, _) | (_, Untagged::Into(DEAD_VLAN) | Untagged::Stay | Untagged::Dropped) => None,
        (_, Untagged::Into(vlan)) => Some(vlan),
    };
}

fn rule(owner: Owner, target: &Target, plugged: Plugged<'_>, untagged: bool, unmet: &mut Vec<Condition>) {
    match (owner, &target.vlan) {
        (Owner::Ovn, _) => {
            let installed = plugged.interface.external_ids.get("ovn-installed");
            if installed.map(String::as_str) != Some("true") {
                unmet.push(Condition::NotInstalled { port: plugged.interface.name.clone() });
            }
        }
        (Owner::Neutron | Owner::Vlan | Owner::Agent, Some(vlan)) => {
            columns::compare(plugged, &Wanted::of(vlan), unmet);
        }
        (Owner::Neutron | Owner::Agent, None) if untagged => {
            columns::compare(plugged, &Wanted::NotDead, unmet)
        }
        (Owner::Neutron, None) => columns::compare(plugged, &Wanted::AnyVlan, unmet),
        (Owner::Agent, None) => columns::compare(plugged, &Wanted::AnySetting, unmet),
        (Owner::Vlan, None) | (Owner::Nobody, _) => {}
    }
    ofport(plugged, unmet);
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
