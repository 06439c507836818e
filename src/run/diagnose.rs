//! Asks the host's bridges for facts that no frame shows: the port behind which they have learned the guest, and why they
//! drop frames.

use std::borrow::Cow;

use crate::announcement::frame::{self, Frame};
use crate::announcement::injection::Method;
use crate::guest::target::printable;
use crate::host::openvswitch::unixctl::UnixctlError;
use crate::path::attachment;
use crate::path::hop::{Hop, Role, Tag};
use crate::path::link::{BridgePort, Links, PortState};
use crate::path::ovs::Ovs;
use crate::path::readiness::Assessment;
use crate::path::way_out::WayOut;
use crate::proof::capture_point::CapturePath;
use crate::proof::delivery::Delivery;
use crate::proof::ofproto_trace::{self, Verdict};
use crate::run::host::Host;
use crate::run::order::Order;

mod learned;
mod verdicts;

pub(crate) use learned::{has_moved, learned};
use verdicts::{ANSWER_TIMEOUT, port_name, verdict, verdicts};
pub(crate) use verdicts::{fresh_verdict, ofproto};

/// The number of flows that a reason names.
const MAX_FLOWS: usize = 8;

/// Why frames do not leave the host, by frame number, as far as known: the port's unmet conditions, the uplinks' faults, the
/// Open vSwitch flow that drops them.
pub(crate) async fn why(
    host: &Host,
    seen: &Assessment,
    proof: &Delivery,
    order: &Order,
) -> Vec<Option<String>> {
    let held: Vec<(usize, &Frame)> = proof.held().collect();
    let mut why = vec![None; proof.frames().len()];
    for (number, verdict) in proof.verdicts_on_unseen() {
        let ovs = &host.ovs.borrow().ovs;
        why[number] = Some(verdict.deciding_by_name(|bridge, ofport| port_name(ovs, bridge, ofport)));
    }
    let of_all = why_none_leaves(host, seen, proof);
    if of_all.is_some() {
        held.iter().for_each(|(number, _)| why[*number].clone_from(&of_all));
        return why;
    }
    let is_in_ovs = seen.attachment.as_ref().is_some_and(|attachment| attachment.entry.ovs.is_some());
    let leads_to_ovs = is_in_ovs || proof.path().way().enters_ovs().is_some();
    let mut asked = Vec::new();
    for (number, frame) in held {
        if leads_to_ovs && !proof.is_held_before_ovs(number) {
            asked.push((number, frame));
        }
        // Behind a bridge of Linux, what Open vSwitch says of the frame decides, if it drops it.
        if !is_in_ovs || proof.is_held_before_ovs(number) {
            why[number] = Some(held_by_linux(host, seen, proof, order, frame));
        }
    }
    let mut verdicts = verdicts(host, seen, asked.iter().map(|(_, frame)| *frame)).await.into_iter();
    for (number, frame) in asked {
        why[number] = match verdicts.next() {
            Some(Ok(verdict)) if !is_in_ovs && !verdict.dropped => continue,
            Some(Ok(verdict)) => reason(host, seen, proof.path().hops(), frame, &verdict),
            Some(Err(error)) => Some(match &*error {
                UnixctlError::NoAnswer(_) => "the reason is unknown: ovs-vswitchd does not answer".into(),
                other => format!("the reason is unknown: {other}"),
            }),
            None if is_in_ovs => None,
            None => continue,
        };
    }
    why
}

/// Why a Linux bridge does not pass a frame on: its settings, else a filter.
fn held_by_linux(host: &Host, seen: &Assessment, proof: &Delivery, order: &Order, frame: &Frame) -> String {
    let way = match frame.vlan {
        Some(_) => way_of(host, seen, order, frame),
        None => Cow::Borrowed(proof.path().way()),
    };
    let holds: Vec<String> = way.holds(frame.kind.cast()).iter().map(ToString::to_string).collect();
    match holds.is_empty() {
        true => locked(&host.links.borrow(), proof.path().hops()).unwrap_or_else(|| filter(order)),
        false => holds.join("; "),
    }
}

/// What keeps every frame in: the port's unmet conditions, a path that leads nowhere, a device that is down.
fn why_none_leaves(host: &Host, seen: &Assessment, proof: &Delivery) -> Option<String> {
    let unmet: Vec<String> = seen.unmet.iter().map(ToString::to_string).collect();
    if !unmet.is_empty() {
        return Some(unmet.join("; "));
    }
    let path = proof.path();
    path.way().nowhere().or_else(|| broken(&host.links.borrow(), path.hops(), |_| true))
}

/// A filter on the way of the frames. The kernel cannot be asked what its filters do with a frame.
fn filter(order: &Order) -> String {
    let nwfilter = order.target.filter.as_deref().map(|name| {
        let name = printable(name);
        format!("libvirt's network filter {name}, perhaps: see virsh nwfilter-dumpxml {name}, ")
    });
    format!("{}nft list ruleset, and ebtables", nwfilter.unwrap_or_else(|| "a filter, perhaps: see ".into()))
}

/// The uplinks of the deciding bridge that do not carry this VLAN, or untagged frames, by `tag` and `trunks` of their rows.
fn uncarried(ovs: &Ovs, hops: &[Hop], seen: &Assessment, vlan: Option<u16>) -> Vec<String> {
    let Some(attachment) = &seen.attachment else {
        return Vec::new();
    };
    let edges = hops.iter().filter(|hop| hop.role.is_edge());
    let ports = edges.filter_map(|hop| hop.via.as_ref()).filter(|via| via.bridge == attachment.bridge);
    let rows = ports.filter_map(|via| ovs.port_of(&via.bridge, &via.port));
    let what = vlan.map_or("untagged frames".to_owned(), |vlan| format!("VLAN {vlan}"));
    // Open vSwitch takes an untagged frame for one of VLAN 0.
    let vlan = vlan.unwrap_or(0);
    let closed = rows.filter_map(|row| {
        let (name, port) = (&row.port.name, row.port);
        let is_trunk = port.heeds_trunks();
        match port.tag {
            Some(tag) if !is_trunk && tag != vlan => {
                Some(format!("the uplink {name} carries VLAN {tag} only, and not {what}"))
            }
            _ if is_trunk
                && port.tag != Some(vlan)
                && !port.trunks.is_empty()
                && !port.trunks.contains(&vlan) =>
            {
                let trunks: Vec<String> = port.trunks.iter().map(ToString::to_string).collect();
                Some(format!("the uplink {name} does not carry {what} (trunks: {})", trunks.join(", ")))
            }
            _ => None,
        }
    });
    closed.collect()
}

/// The path of a frame: that of a trunk's depends on its VLAN.
pub(crate) fn way_of<'a>(host: &Host, seen: &'a Assessment, order: &Order, frame: &Frame) -> Cow<'a, WayOut> {
    let in_vlan = frame.vlan.and_then(|vlan| {
        let (links, ovs) = (&host.links.borrow(), &host.ovs.borrow().ovs);
        attachment::resolve(&order.target.plug, Tag::Vlan(vlan), links, ovs, &order.settings.uplinks).ok()
    });
    match (in_vlan, &seen.attachment) {
        (Some(attachment), _) => Cow::Owned(attachment.way),
        (None, Some(attachment)) => Cow::Borrowed(&attachment.way),
        (None, None) => Cow::default(),
    }
}

/// A frame that would not leave as things stand.
#[derive(Debug)]
pub(crate) struct KeptIn {
    pub frame: Frame,
    /// A flow drops it, or no flow leads to an uplink; otherwise its uplinks are at fault.
    pub by_flow: bool,
    pub why: String,
}

/// The frames that would not leave by Open vSwitch, one of each kind and VLAN. Nothing is sent.
pub(crate) async fn kept_in(host: &Host, seen: &Assessment, order: &Order) -> Vec<KeptIn> {
    let Some(attachment) = seen.attachment.as_ref().filter(|_| seen.unmet.is_empty()) else {
        return Vec::new();
    };
    let frames = order.round();
    let path = CapturePath::of(attachment, Method::PacketOut);
    let proof = Delivery::new(order.target.mac, &frames, path);
    let mut kept = Vec::new();
    for frame in frame::one_of_each(frames.iter()) {
        let Ok(Some(Ok(verdict))) =
            tokio::time::timeout(ANSWER_TIMEOUT, verdict(host, seen, &frame.bytes)).await
        else {
            break;
        };
        let (hops, by_flow) = (proof.path().hops(), !proof.is_bound_out(&verdict));
        let why =
            if by_flow { reason(host, seen, hops, frame, &verdict) } else { fault(host, hops, &verdict) };
        kept.extend(why.map(|why| KeptIn { frame: frame.clone(), by_flow, why }));
    }
    kept
}

/// Why a frame with this verdict does not leave: first the uplinks that do not carry its VLAN.
fn reason(host: &Host, seen: &Assessment, hops: &[Hop], frame: &Frame, verdict: &Verdict) -> Option<String> {
    let why = flow_or_fault(host, hops, verdict)?;
    let closed = uncarried(&host.ovs.borrow().ovs, hops, seen, frame.vlan.or(seen.vlan)).join("; ");
    Some(if closed.is_empty() { why } else { format!("{closed}; {why}") })
}

/// The hops by which a frame with this verdict leaves Open vSwitch.
fn outputs<'a>(hops: &'a [Hop], verdict: &Verdict) -> Vec<&'a Hop> {
    let is_output = |hop: &&Hop| verdict.outputs.iter().any(|output| output.port == hop.name);
    hops.iter().filter(|hop| hop.via.is_some()).filter(is_output).collect()
}

/// The faults of the uplinks that a frame with this verdict is bound for, if none of them works.
fn fault(host: &Host, hops: &[Hop], verdict: &Verdict) -> Option<String> {
    let outputs = outputs(hops, verdict);
    broken(&host.links.borrow(), hops, |exit| outputs.iter().any(|hop| hop.via == exit.via))
}

/// The faults of the uplinks that a frame with this verdict is bound for, else the flow that keeps it in.
fn flow_or_fault(host: &Host, hops: &[Hop], verdict: &Verdict) -> Option<String> {
    if !outputs(hops, verdict).is_empty() {
        return fault(host, hops, verdict);
    }
    // On a healthy host, bridges for other networks may drop the frame, too.
    let led_on = |bridge: &str| {
        let mut exits = hops.iter().filter(|hop| hop.role.is_edge());
        exits.any(|exit| exit.via.as_ref().is_some_and(|via| via.bridge == bridge))
    };
    let ends = verdict.ends.iter().filter(|end| end.dropped && led_on(&end.bridge));
    let ovs = &host.ovs.borrow().ovs;
    let mut lines: Vec<String> = Vec::new();
    for end in ends.take(MAX_FLOWS) {
        let line = ofproto_trace::with_port_names(&end.line, |ofport| port_name(ovs, &end.bridge, ofport));
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    Some(match lines.is_empty() {
        true => verdict.deciding_by_name(|bridge, ofport| port_name(ovs, bridge, ofport)),
        false => lines.join("; "),
    })
}

/// Why a frame that the guest itself has sent does not leave the host.
pub(crate) async fn why_held(host: &Host, seen: &Assessment, frame: &[u8], order: &Order) -> String {
    let asked = tokio::time::timeout(ANSWER_TIMEOUT, verdict(host, seen, frame)).await;
    match asked.ok().flatten() {
        Some(Ok(verdict)) if verdict.dropped => {
            let ovs = &host.ovs.borrow().ovs;
            verdict.deciding_by_name(|bridge, ofport| port_name(ovs, bridge, ofport))
        }
        Some(Err(error)) => format!("the reason is unknown: {error}"),
        _ => filter(order),
    }
}

/// The port of a Linux bridge that is locked, where the frames enter the bridge: it drops those whose source it has not been told
/// (`BR_PORT_LOCKED`, `net/bridge/br_input.c`).
fn locked(links: &Links, hops: &[Hop]) -> Option<String> {
    let entries = hops.iter().filter(|hop| matches!(hop.role, Role::Nic | Role::VethPeer));
    let port = entries.filter_map(|hop| links.get(hop.ifindex?)).find(|link| {
        let is_locked = |port: BridgePort| port.locked;
        link.port.is_some_and(is_locked)
    })?;
    let bridge = &links.get(port.master?)?.name;
    Some(format!(
        "the port {} of {bridge} is locked: it takes frames only from a MAC that the FDB has there (bridge fdb show dev {0})",
        port.name
    ))
}

/// Why none of these uplinks passes frames on, if none does.
fn broken(links: &Links, hops: &[Hop], is_meant: impl Fn(&Hop) -> bool) -> Option<String> {
    let exits = hops.iter().filter(|hop| hop.role.is_edge() && is_meant(hop));
    let mut reasons = Vec::new();
    for exit in exits {
        // A device above it, such as a VLAN device, has no carrier if it has none.
        let back = std::iter::successors(Some(exit), |hop| hops.get(hop.from?));
        let mut stacked = back.take_while(|hop| hop.role.is_edge() || hop.role == Role::Upper);
        let reason = stacked.find_map(|hop| trouble(links, hop))?;
        if !reasons.contains(&reason) {
            reasons.push(reason);
        }
    }
    (!reasons.is_empty()).then(|| reasons.join("; "))
}

/// Why a device does not pass frames on.
fn trouble(links: &Links, hop: &Hop) -> Option<String> {
    let link = links.get(hop.ifindex?)?;
    let state = link.port.map_or(PortState::Forwarding, |port| port.state);
    match (link.up, link.lower_up) {
        (false, _) => Some(format!("{} is down", link.name)),
        (true, false) => Some(format!("{} has no carrier", link.name)),
        _ if state != PortState::Forwarding => {
            Some(format!("the bridge does not forward to {}: the port is {}", link.name, state.word()))
        }
        _ => None,
    }
}
