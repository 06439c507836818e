//! Open vSwitch's verdicts on frames, by `ofproto/trace`.

use std::sync::Arc;
use std::time::Duration;

use crate::announcement::frame::Frame;
use crate::host::openvswitch::unixctl::{self, UnixctlError};
use crate::path::ovs::{Ovs, Plugged};
use crate::path::readiness::Assessment;
use crate::proof::ofproto_flow;
use crate::proof::ofproto_trace::{Output, Verdict};
use crate::run::host::Host;

/// How long a bridge may take to answer: a round may be due.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_millis(200);

/// Open vSwitch's verdict on each of these frames, in one line, and whether that is to drop it; none if they do not reach it, or it
/// does not answer.
pub(crate) async fn ofproto(host: &Host, seen: &Assessment, frames: &[Frame]) -> Vec<(String, bool)> {
    let verdicts = verdicts(host, seen, frames.iter()).await;
    let ovs = &host.ovs.borrow().ovs;
    let lines = verdicts.iter().flatten().map(|verdict| {
        (verdict.deciding_by_name(|bridge, ofport| port_name(ovs, bridge, ofport)), verdict.dropped)
    });
    lines.collect()
}

/// Open vSwitch's verdict on a frame, or why there is none.
pub(super) type Asked = Result<Verdict, Arc<UnixctlError>>;

/// The verdicts on these frames, or why there are none. After a failed answer no more are asked for.
pub(super) async fn verdicts(
    host: &Host,
    seen: &Assessment,
    frames: impl Iterator<Item = &Frame>,
) -> Vec<Asked> {
    let mut verdicts: Vec<Asked> = Vec::new();
    for frame in frames {
        let next = match verdicts.last() {
            Some(Err(error)) => Some(Err(error.clone())),
            _ => verdict(host, seen, &frame.bytes).await,
        };
        verdicts.extend(next);
    }
    verdicts
}

/// Open vSwitch's verdict on a frame; `None` if it does not answer or the rate of traces is exhausted.
pub(crate) async fn fresh_verdict(host: &Host, seen: &Assessment, frame: &Frame) -> Option<Verdict> {
    let asked =
        async { tokio::time::timeout(ANSWER_TIMEOUT, verdict(host, seen, &frame.bytes)).await.ok()??.ok() };
    host.traces.ask(asked).await
}

/// `None` if the frame does not reach Open vSwitch.
pub(super) async fn verdict(host: &Host, seen: &Assessment, frame: &[u8]) -> Option<Asked> {
    let attachment = seen.attachment.as_ref()?;
    let entry = attachment.entry.ovs.as_ref()?;
    let traced = unixctl::trace(&host.ovs_directory, &entry.bridge, seen.ofport?, frame).await;
    let ovs = &host.ovs.borrow().ovs;
    // What is in that VLAN already is not copied into it.
    let own = ofproto_flow::vlan(frame);
    let is_copied_into = |vlan: u16| attachment.way.hops.iter().any(|hop| hop.copied_into.contains(&vlan));
    let is_copied = |output: &Output| is_copy(ovs, output, |vlan| own != Some(vlan) && is_copied_into(vlan));
    let traced = traced.map(|verdict| verdict.without(is_copied).entered_by(&entry.interface));
    Some(traced.map_err(Arc::new))
}

/// Whether what leaves by this port of the datapath is a mirror's copy.
fn is_copy(ovs: &Ovs, output: &Output, is_copied_into: impl Fn(u16) -> bool) -> bool {
    let port = ovs.named(&output.port);
    let of_port = port.and_then(|plugged| plugged.port.tag.filter(|_| !plugged.port.heeds_trunks()));
    output.vlan.or(of_port).is_some_and(is_copied_into)
        || port.is_some_and(|plugged| ovs.is_output_of_mirror(plugged))
}

pub(super) fn port_name(ovs: &Ovs, bridge: &str, ofport: u32) -> Option<String> {
    port_by_number(ovs, bridge, ofport).map(|port| port.interface.name.clone())
}

pub(super) fn port_by_number<'a>(ovs: &'a Ovs, bridge: &str, ofport: u32) -> Option<Plugged<'a>> {
    let row = ovs.bridges.values().find(|row| row.name == bridge)?;
    ovs.plugged_into(row).find(|port| port.interface.plugged_ofport() == Some(ofport))
}
