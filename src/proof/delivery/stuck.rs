//! The frames that never left the host, and where they ended.

use std::fmt;

use crate::announcement::frame::Frame;
use crate::announcement::frame_names::names;
use crate::path::hop::{Hop, Role};
use crate::proof::delivery::Delivery;

/// Frames that never left the host, and where they ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stuck {
    /// The frames, as text; empty if they are all of a round.
    pub frames: Vec<String>,
    /// The last device on which they were seen.
    pub reached: Option<String>,
    /// What they did not leave: a bridge, several Open vSwitch bridges, a device, or the host if only edges are captured.
    pub held_by: String,
    /// The reason, if known.
    pub why: Option<String>,
}

impl Delivery {
    /// The frames that never left, with their numbers, if departures can be seen.
    pub fn held(&self) -> impl Iterator<Item = (usize, &Frame)> {
        let held = self.frames.iter().enumerate().filter(|(number, _)| self.left[*number] == 0);
        held.filter(|(number, _)| self.unseen_way(*number).is_none() && !self.is_kept_by_design(*number))
    }

    /// Whether this frame was seen to end before it reached Open vSwitch.
    pub fn is_held_before_ovs(&self, number: usize) -> bool {
        let is_ovs = |hop: &Hop| hop.role == Role::Ovs;
        let onward = &self.path.hops()[self.holder(self.reached(number))..];
        !self.path.is_exits_only() && onward.iter().any(is_ovs) && !onward.first().is_some_and(is_ovs)
    }

    /// The frames that never left, if departures can be seen, grouped by the hop that they reached and the reason. `why` has
    /// the reasons by frame number.
    pub fn stuck(&self, why: &[Option<String>]) -> Vec<Stuck> {
        self.stuck_of(why, |_| true)
    }

    /// The same for frames whose number `is_one`.
    pub fn stuck_of(&self, why: &[Option<String>], is_one: impl Fn(&usize) -> bool) -> Vec<Stuck> {
        let mut places: Vec<(Option<usize>, Option<&String>, Vec<usize>)> = Vec::new();
        for (number, _) in self.held().filter(|(number, _)| is_one(number)) {
            let (reached, why) = (self.reached(number), why.get(number).and_then(Option::as_ref));
            match places.iter_mut().find(|place| (place.0, place.1) == (reached, why)) {
                Some((_, _, frames)) => frames.push(number),
                None => places.push((reached, why, vec![number])),
            }
        }
        let stuck = places.into_iter().map(|(reached, why, frames)| {
            let all = frames.len() == self.frames.len();
            Stuck {
                frames: if all {
                    Vec::new()
                } else {
                    names(&self.frames, |number| frames.binary_search(&number).is_ok())
                },
                reached: reached.map(|at| self.path.hops()[at].name.clone()),
                held_by: self.held_by(reached),
                why: why.cloned(),
            }
        });
        stuck.collect()
    }

    /// The last hop at which a frame was seen.
    fn reached(&self, number: usize) -> Option<usize> {
        self.seen.iter().rposition(|seen| seen[number].is_some())
    }

    fn held_by(&self, reached: Option<usize>) -> String {
        if self.path.is_exits_only() {
            return "the host".into();
        }
        let onward = &self.path.hops()[self.holder(reached)..];
        let bridges = onward.iter().take_while(|hop| hop.is_ovs_bridge());
        match bridges.map(|hop| hop.name.as_str()).collect::<Vec<_>>()[..] {
            [] => onward.first().map_or(String::new(), |hop| hop.name.clone()),
            [bridge] => bridge.to_owned(),
            ref bridges => format!("Open vSwitch ({})", bridges.join(" -> ")),
        }
    }

    /// The hop that a frame did not leave, given the hop at which it was last seen.
    fn holder(&self, reached: Option<usize>) -> usize {
        let hops = self.path.hops();
        let holds =
            |hop: &Hop| matches!(hop.role, Role::LinuxBridge | Role::Ovs | Role::Upper | Role::Tunnel);
        match reached {
            None if hops.first().is_some_and(|hop| self.path.outward(hop).is_some()) => 0,
            // A bridge that shows a frame holds it; any other device has passed it on.
            _ => {
                let from = reached.unwrap_or_default();
                (from..hops.len()).find(|at| holds(&hops[*at])).unwrap_or(hops.len().saturating_sub(1))
            }
        }
    }
}

impl fmt::Display for Stuck {
    /// `rarp reached qvo6f7d3c1a-11, did not leave br-int: a flow drops it`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.frames.join(", "), if self.frames.is_empty() { "" } else { " " })?;
        if let Some(reached) = self.reached.as_ref().filter(|reached| **reached != self.held_by) {
            write!(f, "reached {reached}, ")?;
        }
        write!(f, "did not leave {}", self.held_by)?;
        self.why.as_ref().map_or(Ok(()), |why| write!(f, ": {why}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::announcement::frame::{Kind, Style, round};
    use crate::announcement::injection::Method;
    use crate::path::attachment::tests::{link, ovs};
    use crate::proof::delivery::RoundFate;
    use crate::proof::delivery::tests::*;

    #[test]
    fn a_verdict_is_of_one_kind_of_frame() {
        let links = vec![link(2, "tap0", "tun", 0, 0), link(4, "eth0", "", 0, 0)];
        let ovs = ovs(&[("br-int", &["tap0", "eth0", "vxlan-1:vxlan"])]);
        let mut proof = nothing_seen(links, &ovs, Method::PacketOut);
        proof.begin();
        proof.judged(&like(Kind::Rarp), &verdict(&[]));
        pass(&mut proof, "eth0", &ARP, ms(1), Some(100));
        assert_eq!(
            (proof.fate(), stuck(&proof)),
            (RoundFate::Partly, vec!["rarp did not leave br-int".into()])
        );
    }

    #[test]
    fn stuck_frames_are_reported_with_the_place() {
        for (mut proof, reached, words) in [
            (on_br_int(), &[][..], "did not leave br-int"),
            (provider(), &[], "did not leave Open vSwitch (br-int -> br-ex)"),
            (ovs_bond(), &[], "did not leave br-int"),
            (hybrid(), &[], "did not leave tap0"),
            (hybrid(), &["tap0"], "reached tap0, did not leave qbr0"),
            (hybrid(), &["tap0", "qbr0"], "did not leave qbr0"),
            (hybrid(), &["tap0", "qbr0", "qvb0"], "reached qvb0, did not leave br-int"),
            (hybrid(), &["tap0", "qbr0", "qvb0", "qvo0"], "reached qvo0, did not leave br-int"),
            (linux_bond(), &["tap0"], "reached tap0, did not leave br0"),
            (linux_bond(), &["tap0", "br0"], "did not leave br0"),
            (linux_bond(), &["tap0", "br0", "bond0.100"], "did not leave bond0.100"),
            (linux_bond(), &["tap0", "br0", "bond0.100", "bond0"], "did not leave bond0"),
        ] {
            proof.begin();
            reached.iter().for_each(|hop| pass(&mut proof, hop, &ALL, ms(1), None));
            assert_eq!(stuck(&proof), [words], "{reached:?}");
            let last = proof.last_hop().map(|hop| hop.name.as_str());
            let entry = proof.path.hops().first().filter(|hop| hop.role == Role::Ovs);
            assert_eq!(last, reached.last().copied().or(entry.map(|hop| hop.name.as_str())));
        }
    }

    #[test]
    fn captures_at_the_edges_alone_do_not_show_where_a_frame_ended() {
        let mut proof = hybrid();
        let whole = proof.path().clone();
        proof.follow(whole.clone().exits_only());
        proof.begin();
        pass(&mut proof, "eth0", &ARP, ms(2), Some(100));
        assert_eq!(
            (proof.fate(), stuck(&proof)),
            (RoundFate::Partly, vec!["rarp did not leave the host".to_owned()])
        );
        proof.follow(whole);
        proof.begin();
        pass(&mut proof, "qvo0", &ALL, ms(60), None);
        assert_eq!(stuck(&proof), ["rarp reached qvo0, did not leave br-int"]);
    }

    #[test]
    fn a_frame_that_a_round_omits_keeps_its_sightings_of_the_round_before() {
        let mut proof = hybrid();
        proof.begin();
        pass(&mut proof, "qvo0", &ALL, ms(1), None);
        let without_reply = [proof.frames[0].clone(), proof.frames[2].clone()];
        proof.begin_some(&without_reply);
        pass(&mut proof, "qvo0", &[0, 2], ms(50), None);
        assert_eq!(stuck(&proof), ["reached qvo0, did not leave br-int"]);
    }

    /// Neutron's firewall has this effect.
    #[test]
    fn arp_passes_and_rarp_does_not() {
        let mut proof = hybrid();
        proof.begin();
        ["tap0", "qbr0", "qvb0", "qvo0"].iter().for_each(|hop| pass(&mut proof, hop, &ALL, ms(1), None));
        pass(&mut proof, "eth0", &ARP, ms(2), Some(100));
        assert_eq!(proof.fate(), RoundFate::Partly);
        assert_eq!(stuck(&proof), ["rarp reached qvo0, did not leave br-int"]);
        assert_eq!(
            proof.held().map(|(number, frame)| (number, frame.kind)).collect::<Vec<_>>(),
            [(2, Kind::Rarp)]
        );
        assert_eq!(departed(&proof), "left br-int by eth0 in VLAN 100");
    }

    #[test]
    fn frames_that_ended_in_different_places_are_reported_apart() {
        let mut proof = hybrid();
        proof.begin();
        pass(&mut proof, "tap0", &ALL, ms(1), None);
        pass(&mut proof, "qvo0", &ARP, ms(1), None);
        assert_eq!(
            stuck(&proof),
            [
                "arp-request, arp-reply reached qvo0, did not leave br-int",
                "rarp reached tap0, did not leave qbr0"
            ]
        );
    }

    /// Such as when one of a guest's addresses is not allowed.
    #[test]
    fn frames_that_ended_for_different_reasons_are_reported_apart_with_their_addresses() {
        let ips = ["192.0.2.1", "192.0.2.2"].map(|ip| ip.parse().unwrap());
        let path = on_br_int().path;
        let mut proof = Delivery::new(GUEST, &round(GUEST, &ips, &Style::default()), path);
        proof.begin();
        let first = (0..proof.frames.len()).filter(|number| proof.frames[*number].ip == Some(ips[0]));
        let first: Vec<usize> = first.collect();
        pass(&mut proof, "eth0", &first, ms(1), None);
        let why =
            |frame: &Frame| Some(format!("no {}", if frame.kind == Kind::Rarp { "rarp" } else { "arp" }));
        let why: Vec<_> = proof.frames.iter().map(why).collect();
        let words: Vec<String> = proof.stuck(&why).iter().map(ToString::to_string).collect();
        assert_eq!(
            words,
            [
                "arp-request 192.0.2.2, arp-reply 192.0.2.2 did not leave br-int: no arp",
                "rarp did not leave br-int: no rarp"
            ]
        );
    }

    #[test]
    fn a_frame_that_did_not_reach_open_vswitch_is_recognized() {
        for (mut proof, reached, expected) in [
            (on_br_int(), &[][..], false),
            (linux_bond(), &[], false),
            (hybrid(), &[], true),
            (hybrid(), &["tap0", "qbr0"], true),
            (hybrid(), &["tap0", "qbr0", "qvb0"], false),
        ] {
            proof.begin();
            reached.iter().for_each(|hop| pass(&mut proof, hop, &ALL, ms(1), None));
            assert_eq!(proof.is_held_before_ovs(0), expected, "{reached:?}");
        }
    }

    #[test]
    fn a_frame_that_left_once_is_not_stuck() {
        let mut proof = on_br_int();
        proof.begin();
        pass(&mut proof, "eth0", &ALL, ms(1), None);
        proof.begin();
        assert_eq!((proof.fate(), stuck(&proof), proof.held().next()), (RoundFate::Lost, vec![], None));
    }

    #[test]
    fn a_new_path_keeps_what_was_proved() {
        let mut proof = on_br_int();
        proof.begin();
        pass(&mut proof, "eth0", &ARP, ms(1), Some(100));
        let other = provider();
        proof.follow(other.path().clone());

        assert_eq!(departed(&proof), "left br-int by eth0 in VLAN 100");
        assert_eq!(proof.fate(), RoundFate::Lost, "of the round on the new path");
        assert!(proof.hops().all(|(_, vlan, seen)| vlan.is_none() && seen.iter().all(Option::is_none)));
        assert_eq!(stuck(&proof), ["rarp did not leave Open vSwitch (br-int -> br-ex)"]);
        pass(&mut proof, "eth0", &ALL, ms(2), Some(1100));
        assert_eq!(
            (proof.fate(), departed(&proof)),
            (RoundFate::Left, "left br-int by eth0 in VLAN 100".into())
        );
        let left: Vec<u64> = proof.left().unwrap().map(|(_, left)| left).collect();
        assert_eq!(left, [2, 2, 1]);
    }
}
