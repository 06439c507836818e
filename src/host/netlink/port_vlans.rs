//! The state of a bridge's port in each VLAN (`RTM_NEWVLAN`, `include/uapi/linux/if_bridge.h`): spanning trees of VLANs, or
//! `bridge vlan set … state`.

use super::{Message, Request, attributes, u16_at};
use crate::path::link::{Link, PortState};

/// Since Linux 5.6.
pub(super) const RTM_NEWVLAN: u16 = 112;
pub(super) const RTM_DELVLAN: u16 = 113;
const RTM_GETVLAN: u16 = 114;
/// The group of notifications, beyond those of a bit mask.
pub(super) const RTNLGRP_BRVLAN: u32 = 33;
/// The length of `struct br_vlan_msg`.
const BR_VLAN_MSG: usize = 8;
const BRIDGE_VLANDB_ENTRY: u16 = 1;
const BRIDGE_VLANDB_ENTRY_INFO: u16 = 1;
const BRIDGE_VLANDB_ENTRY_RANGE: u16 = 2;
const BRIDGE_VLANDB_ENTRY_STATE: u16 = 3;
const MAX_VLAN: u16 = 4094;

/// The request for the VLANs of a port, or of all for 0.
pub(super) fn dump(port: u32) -> Request {
    let mut header = [0; BR_VLAN_MSG];
    header[0] = libc::AF_BRIDGE as u8;
    header[4..].copy_from_slice(&port.to_ne_bytes());
    Request::new(RTM_GETVLAN, 0).fixed(&header)
}

/// Applies the VLANs of a message about a port; returns whether that changed anything.
pub(super) fn apply(port: &mut Link, message: &Message<'_>) -> bool {
    let before = port.held_vlans.clone();
    let entries = attributes(message.body.get(BR_VLAN_MSG..).unwrap_or_default());
    for (_, entry) in entries.filter(|(kind, _)| *kind == BRIDGE_VLANDB_ENTRY) {
        let find = |wanted| attributes(entry).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
        // `struct bridge_vlan_info`: flags, and the first VLAN.
        let Some(first) = find(BRIDGE_VLANDB_ENTRY_INFO).and_then(|info| u16_at(info, 2)) else {
            continue;
        };
        let last = find(BRIDGE_VLANDB_ENTRY_RANGE).and_then(|range| u16_at(range, 0)).unwrap_or(first);
        let told = find(BRIDGE_VLANDB_ENTRY_STATE).and_then(<[u8]>::first).map(|told| PortState::of(*told));
        port.held_vlans.retain(|vlan, _| !(first..=last).contains(vlan));
        // A VLAN that is removed holds nothing that the port's VLANs do not tell.
        let held = told.filter(|state| *state != PortState::Forwarding && message.kind == RTM_NEWVLAN);
        port.held_vlans.extend(
            held.into_iter().flat_map(|state| (first..=last.min(MAX_VLAN)).map(move |vlan| (vlan, state))),
        );
    }
    before != port.held_vlans
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::netlink::messages;

    /// Entries of a port: VLANs and the state in them.
    fn message(kind: u16, entries: &[(u16, u16, u8)]) -> Vec<u8> {
        let request = Request::new(kind, 0).fixed(&[7, 0, 0, 0, 8, 0, 0, 0]);
        let request = entries.iter().fold(request, |request, (first, last, state)| {
            let info = [0_u16.to_ne_bytes(), first.to_ne_bytes()].concat();
            let entry = [
                (BRIDGE_VLANDB_ENTRY_INFO, &info[..]),
                (BRIDGE_VLANDB_ENTRY_RANGE, &last.to_ne_bytes()),
                (BRIDGE_VLANDB_ENTRY_STATE, &[*state]),
            ];
            request.nested(BRIDGE_VLANDB_ENTRY | (1 << 15), &entry)
        });
        request.finish()
    }

    fn take(port: &mut Link, bytes: &[u8]) -> bool {
        messages(bytes).fold(false, |changed, message| apply(port, &message) | changed)
    }

    #[test]
    fn the_vlans_in_which_a_port_does_not_forward_are_known() {
        let mut port = Link::default();
        let held = |port: &Link| {
            port.held_vlans.iter().map(|(vlan, state)| (*vlan, state.word())).collect::<Vec<_>>()
        };
        assert!(take(&mut port, &message(RTM_NEWVLAN, &[(1, 1, 3), (10, 12, 4), (20, 20, 2)])));
        let expected = [(10, "blocking"), (11, "blocking"), (12, "blocking"), (20, "learning")];
        assert_eq!(held(&port), expected);
        assert!(!take(&mut port, &message(RTM_NEWVLAN, &[(11, 11, 4)])), "the same again");
        assert!(take(&mut port, &message(RTM_NEWVLAN, &[(11, 11, 3), (12, 12, 1)])));
        assert!(take(&mut port, &message(RTM_DELVLAN, &[(20, 20, 2)])));
        assert_eq!(held(&port), [(10, "blocking"), (12, "listening")]);
        assert_eq!(
            [10, 11, 4095].map(|vlan| port.vlan_state(vlan).word()),
            ["blocking", "forwarding", "forwarding"]
        );
    }

    #[test]
    fn broken_entries_are_skipped() {
        let mut port = Link::default();
        for (first, last) in [(12, 10), (0, u16::MAX), (u16::MAX, u16::MAX)] {
            take(&mut port, &message(RTM_NEWVLAN, &[(first, last, 4)]));
            assert!(port.held_vlans.keys().all(|vlan| *vlan <= MAX_VLAN));
        }
        let whole = message(RTM_NEWVLAN, &[(10, 12, 4)]);
        for end in 16..whole.len() {
            let message = Message { kind: RTM_NEWVLAN, body: &whole[16..end], ..Message::default() };
            apply(&mut Link::default(), &message);
        }
    }
}
