//! Open vSwitch's verdicts on frames, by `ofproto/trace`.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use crate::announcement::frame::{self, Frame};
use crate::host::openvswitch::unixctl::{self, UnixctlError};
use crate::path::attachment::OvsPort;
use crate::path::hop::Tag;
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

/// Where frames enter Open vSwitch.
struct Entrance {
    port: OvsPort,
    ofport: u32,
    /// The tag that bridges and devices before it have added.
    vlan: Option<u16>,
}

/// Where the guest's frames enter Open vSwitch: by its port, or by a device to which Linux bridges lead.
fn entrance(host: &Host, seen: &Assessment) -> Option<Entrance> {
    let attachment = seen.attachment.as_ref()?;
    if let Some(port) = attachment.entry.ovs.clone() {
        return Some(Entrance { port, ofport: seen.ofport?, vlan: None });
    }
    let (bridge, by) = attachment.way.enters_ovs()?;
    let vlan = match bridge.tag {
        Tag::Untagged => None,
        Tag::Vlan(vlan) => Some(vlan),
        Tag::Unknown => return None,
    };
    let ofport = host.ovs.borrow().ovs.named(&by.name)?.interface.plugged_ofport()?;
    let port = OvsPort { bridge: bridge.name.clone(), interface: by.name.clone() };
    Some(Entrance { port, ofport, vlan })
}

/// `None` if the frame does not reach Open vSwitch.
pub(super) async fn verdict(host: &Host, seen: &Assessment, frame: &[u8]) -> Option<Asked> {
    let attachment = seen.attachment.as_ref()?;
    let Entrance { port: entry, ofport, vlan } = entrance(host, seen)?;
    let frame = with_tag(frame, vlan);
    let traced = unixctl::trace(&host.ovs_directory, &entry.bridge, ofport, &frame).await;
    let ovs = &host.ovs.borrow().ovs;
    // What is in that VLAN already is not copied into it.
    let own = ofproto_flow::vlan(&frame);
    let is_copied_into = |vlan: u16| attachment.way.hops.iter().any(|hop| hop.copied_into.contains(&vlan));
    let is_copied = |output: &Output| is_copy(ovs, output, |vlan| own != Some(vlan) && is_copied_into(vlan));
    let traced = traced.map(|verdict| verdict.without(is_copied).entered_by(&entry.interface));
    Some(traced.map_err(Arc::new))
}

/// The frame with this tag, unless it has one.
fn with_tag(frame: &[u8], vlan: Option<u16>) -> Cow<'_, [u8]> {
    match vlan.filter(|_| ofproto_flow::vlan(frame).is_none()) {
        Some(vlan) => Cow::Owned(frame::tagged(frame.to_vec(), vlan)),
        None => Cow::Borrowed(frame),
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::announcement::frame::{Style, round, tagged_round};

    #[test]
    fn a_frame_has_one_tag_its_own_or_that_of_the_way_to_open_vswitch() {
        let mac = pnet_base::MacAddr(0x52, 0x54, 0, 0, 0, 1);
        let plain = &round(mac, &[], &Style::default())[0];
        let own = &tagged_round(mac, &[7], &Style::default())[0];
        for (frame, added, expected) in [
            (plain, None, None),
            (plain, Some(100), Some(100)),
            (own, None, Some(7)),
            (own, Some(100), Some(7)),
        ] {
            assert_eq!(ofproto_flow::vlan(&with_tag(&frame.bytes, added)), expected);
        }
    }
}
