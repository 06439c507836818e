//! Frames from the guest's MAC that another host sends: they enter by an edge after ours have left.
//!
//! A frame that a bond or a loop of the network returns is none: it has the bytes of one that left shortly before. Time is a
//! [`Duration`] since the event.

use std::collections::VecDeque;
use std::time::Duration;

use pnet_packet::Packet;
use pnet_packet::arp::{ArpOperations, ArpPacket};
use pnet_packet::ethernet::{EtherTypes, EthernetPacket};
use pnet_packet::icmpv6::Icmpv6Types;

use crate::proof::delivery::Delivery;
use crate::proof::departure::{Departed, Departure, departure, note};
use crate::proof::sighting::Sighting;

/// A network returns a frame within this time.
const RETURN_TIME: Duration = Duration::from_secs(2);
/// Two frames of one guest are at least so far apart: a network may deliver several copies of one frame.
const MIN_GAP: Duration = Duration::from_millis(20);
/// The number of departures that are remembered within [`RETURN_TIME`].
const MAX_LEFT: usize = 128;
/// The number of frames that wait for [`Foreign::settle`].
const MAX_PENDING: usize = 128;

/// The frames from the guest's MAC that entered, and those that left before.
#[derive(Debug, Default)]
pub struct Foreign {
    left: VecDeque<(Duration, Vec<u8>)>,
    pending: Vec<(Departure, Sighting)>,
    seen: Vec<Departed>,
    /// By device: the first frame that counts for a move.
    first: Vec<(String, Duration)>,
    moved: Option<Departure>,
}

impl Foreign {
    /// Records a frame from the guest's MAC if it passes an edge: outward, of whichever program, or inward in the VLAN of a frame
    /// of ours that left before.
    pub fn saw(&mut self, proof: &Delivery, sighting: &Sighting) {
        let mut edges = proof.path().hops().iter().filter(|hop| hop.role.is_edge());
        let edge = edges.find(|hop| sighting.is_at(hop));
        let Some(edge) = edge.filter(|_| proof.is_from_guest(sighting)) else { return };
        if proof.path().outward(edge) == Some(sighting.direction) {
            self.left(sighting);
        } else if proof.follows_departure(edge, sighting) {
            self.entered(departure(edge, sighting), sighting);
        }
    }

    fn left(&mut self, sighting: &Sighting) {
        while self.left.front().is_some_and(|(at, _)| *at + RETURN_TIME < sighting.at) {
            self.left.pop_front();
        }
        if self.left.len() == MAX_LEFT {
            // What has left can no longer be told from what others send.
            self.pending.clear();
            return;
        }
        self.left.push_back((sighting.at, sighting.frame.clone()));
    }

    /// Records a frame that entered by the edge that `by` describes.
    fn entered(&mut self, by: Departure, sighting: &Sighting) {
        if self.pending.len() < MAX_PENDING && self.left.len() < MAX_LEFT {
            self.pending.push((by, sighting.clone()));
        }
    }

    /// Frames entered since the last [`Foreign::settle`].
    pub fn is_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Decides about the frames that entered, once every capture has been read up to now; returns whether another host sent
    /// any.
    pub fn settle(&mut self) -> bool {
        let mut pending = std::mem::take(&mut self.pending);
        pending.sort_by_key(|(_, sighting)| sighting.at);
        pending.retain(|(_, sighting)| !self.is_returned(sighting));
        for (by, sighting) in &pending {
            self.count(by, sighting);
            note(&mut self.seen, by.clone(), sighting.at);
        }
        !pending.is_empty()
    }

    fn is_returned(&self, sighting: &Sighting) -> bool {
        let is_recent = |at: Duration| at <= sighting.at && sighting.at <= at + RETURN_TIME;
        self.left.iter().any(|(at, frame)| is_recent(*at) && is_same(frame, &sighting.frame))
    }

    /// The first frame of all does not count: until it came, only our own departures were captured.
    fn count(&mut self, by: &Departure, sighting: &Sighting) {
        let is_first = self.seen.first().is_none_or(|first| sighting.at < first.at + MIN_GAP);
        if is_first || is_reply(&sighting.frame) {
            return;
        }
        match self.first.iter().find(|(device, _)| *device == by.device) {
            Some((_, first)) if sighting.at >= *first + MIN_GAP => self.moved = Some(by.clone()),
            Some(_) => {}
            None => self.first.push((by.device.clone(), sighting.at)),
        }
    }

    /// The frames of other hosts, by the way they came, in the order of the first ones.
    pub fn seen(&self) -> &[Departed] {
        &self.seen
    }

    /// The edge by which frames came that only the guest itself sends: if the bridge has moved its MAC there too, the guest
    /// is behind it.
    pub fn moved(&self) -> Option<&Departure> {
        self.moved.as_ref()
    }
}

/// Whether two captures are of one frame: one may be truncated, or padded to the least size.
fn is_same(a: &[u8], b: &[u8]) -> bool {
    let length = a.len().min(b.len());
    a[..length] == b[..length] && a[length..].iter().chain(&b[length..]).all(|byte| *byte == 0)
}

/// An ARP reply or a neighbour advertisement: switches and responders send them in place of the guest.
fn is_reply(frame: &[u8]) -> bool {
    let Some(ethernet) = EthernetPacket::new(frame) else { return false };
    match ethernet.get_ethertype() {
        EtherTypes::Arp => {
            let arp = ArpPacket::new(ethernet.payload());
            arp.is_some_and(|arp| arp.get_operation() == ArpOperations::Reply)
        }
        // The type of an ICMPv6 message without extension headers.
        EtherTypes::Ipv6 => frame.get(54) == Some(&Icmpv6Types::NeighborAdvert.0),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use pnet_base::MacAddr;

    use super::*;
    use crate::announcement::frame::{Kind, Style, rarp, round};
    use crate::proof::capture_point::Direction;
    use crate::proof::delivery::tests::{on_br_int, pass};

    const ETH0: u32 = 4;
    const GUEST: MacAddr = MacAddr(0xfa, 0x16, 0x3e, 0, 0, 0x11);

    fn edge(device: &str) -> Departure {
        Departure {
            device: device.into(),
            bridge: Some("br0".into()),
            port: None,
            vlan: None,
            edge: None,
            vni: None,
        }
    }

    fn at(ms: u64, frame: &[u8]) -> Sighting {
        Sighting::new(1, Direction::In, Duration::from_millis(ms), None, frame)
    }

    /// An announcement of the guest's own address.
    fn of_kind(kind: Kind) -> Vec<u8> {
        let ips = ["192.0.2.10", "2001:db8::10"].map(|ip| ip.parse().unwrap());
        let frames = round(GUEST, &ips, &Style::default());
        frames.into_iter().find(|frame| frame.kind == kind).unwrap().bytes
    }

    /// A question of the guest's own, for the neighbour with this number.
    fn question(number: u8) -> Vec<u8> {
        let mut question = of_kind(Kind::ArpRequest);
        question[41] = number;
        question
    }

    /// These frames leave and enter by `up0`, and every capture is read after each of them.
    fn seen(left: &[Sighting], entered: &[Sighting]) -> Foreign {
        let mut it = Foreign::default();
        let mut left = left.iter().peekable();
        for sighting in entered {
            while let Some(earlier) = left.next_if(|earlier| earlier.at <= sighting.at) {
                it.left(earlier);
            }
            it.entered(edge("up0"), sighting);
            it.settle();
        }
        it
    }

    fn frames(it: &Foreign) -> u64 {
        it.seen().iter().map(|seen| seen.frames).sum()
    }

    #[test]
    fn a_guest_that_speaks_behind_an_edge_has_moved() {
        let rarps = [0, 50, 200].map(|ms| at(ms, &rarp(GUEST).bytes));
        let it = seen(&[], &rarps);
        assert_eq!((frames(&it), it.moved()), (3, Some(&edge("up0"))));
        let it = seen(&[], &rarps[..2]);
        assert_eq!((frames(&it), it.moved()), (2, None), "one frame after the first");
        let it = seen(&[], &[0, 50, 60].map(|ms| at(ms, &rarp(GUEST).bytes)));
        assert_eq!((frames(&it), it.moved()), (3, None), "copies of one frame");
    }

    /// It answers with the guest's MAC as the source, as l2pop's responder does in br-tun.
    #[test]
    fn answers_of_a_suppressing_leaf_or_of_l2pops_responder_are_no_move() {
        for kind in [Kind::ArpReply, Kind::Na] {
            let replies: Vec<Sighting> = (0..10).map(|n| at(n * 100, &of_kind(kind))).collect();
            let it = seen(&[], &replies);
            assert_eq!((frames(&it), it.moved()), (10, None), "{kind}");
        }
    }

    /// ovn-controller on the old host announces 1, 3, 7 s after it has bound a port, by the request form.
    #[test]
    fn an_announcement_with_our_bytes_within_two_seconds_of_ours_is_taken_for_a_copy_of_it() {
        let request = of_kind(Kind::ArpRequest);
        let left = [at(0, &request), at(3000, &request)];
        let it = seen(&left, &[at(1000, &request), at(3500, &request)]);
        assert_eq!((frames(&it), it.moved()), (0, None));
        let it = seen(&left, &[at(2500, &request), at(7000, &request)]);
        assert_eq!((frames(&it), it.moved()), (2, None), "told, and no move");
    }

    #[test]
    fn what_a_bond_reflects_is_not_of_another_host() {
        let (ours, own) = (rarp(GUEST).bytes, question(1));
        let mut padded = own.clone();
        padded.resize(60, 0);
        let left = [at(0, &ours), at(10, &own), at(500, &own)];
        let entered = [at(1, &ours), at(11, &padded), at(501, &padded), at(900, &ours)];
        let it = seen(&left, &entered);
        assert_eq!((frames(&it), it.moved()), (0, None));
    }

    #[test]
    fn only_frames_in_the_guests_vlan_that_enter_by_an_edge_after_a_departure_count() {
        let mut proof = on_br_int();
        let rarp = proof.frames().last().unwrap().bytes.clone();
        let mut it = Foreign::default();
        let mut saw = |proof: &Delivery, ifindex, ms, vlan| {
            let at = Duration::from_millis(ms);
            it.saw(proof, &Sighting::new(ifindex, Direction::In, at, vlan, &rarp));
            it.settle()
        };
        assert!(!saw(&proof, ETH0, 1, Some(100)), "nothing has left");
        proof.begin();
        pass(&mut proof, "eth0", &[0], Duration::from_millis(2), Some(100));
        assert!(!saw(&proof, ETH0, 3, Some(101)), "a neighbour of another network");
        assert!(!saw(&proof, ETH0 + 1, 3, Some(100)), "a spoofing neighbour on this host");
        assert!(saw(&proof, ETH0, 3, Some(100)));
    }

    #[test]
    fn a_reflection_that_is_read_before_its_departure_is_recognized() {
        let mut it = Foreign::default();
        it.entered(edge("up1"), &at(2, &question(1)));
        it.left(&at(1, &question(1)));
        assert!(it.is_pending() && !it.settle() && !it.is_pending());
        assert_eq!(frames(&it), 0);
    }

    #[test]
    fn frames_by_different_edges_are_no_move() {
        let mut it = Foreign::default();
        for (ms, device) in [(0, "up0"), (100, "up0"), (200, "up1")] {
            it.entered(edge(device), &at(ms, &question(1)));
            it.settle();
        }
        assert_eq!((it.seen().len(), it.moved()), (2, None));
    }

    #[test]
    fn a_guest_that_floods_the_network_proves_nothing() {
        let mut it = Foreign::default();
        for n in 0..200 {
            it.left(&at(n, &question(n as u8)));
        }
        (0..3).for_each(|n| it.entered(edge("up0"), &at(200 + n * 100, &question(250))));
        assert!(!it.settle() && it.moved().is_none());
    }
}
