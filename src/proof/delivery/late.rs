//! The rounds that counted as lost and have left after all. On a busy host, frames may take longer than a round is waited for, and
//! the next try is under way then.
//!
//! Frames leave in the order in which they were sent. What passes an edge more often than the last round explains is of a lost
//! one before it.

use std::time::Duration;

use crate::proof::delivery::{Delivery, RoundFate};
use crate::proof::departure::{Departure, note};

/// What is left of successive lost rounds.
#[derive(Debug, Default)]
pub(super) struct Late {
    /// By frame: in how many of them it was sent.
    lost: Vec<u32>,
    /// By frame, then by hop: how often it passed since, beyond the last round's.
    passed: Vec<Vec<u32>>,
    /// These frames, with the way of each, until it is certain that they are ours.
    departures: Vec<(usize, Departure, Duration)>,
    /// The number of rounds that are known to have left by that.
    rounds: u32,
    /// Rounds that were found to have left before the next one began.
    just_before: u32,
}

impl Late {
    /// How often this frame is known to have left since.
    fn left(&self, frame: usize) -> u32 {
        let passed = self.passed.get(frame).and_then(|passed| passed.iter().max());
        passed.map_or(0, |passed| self.lost(frame).min(*passed))
    }

    fn lost(&self, frame: usize) -> u32 {
        self.lost.get(frame).copied().unwrap_or_default()
    }
}

impl Delivery {
    /// Another round begins: the last one, if it was lost, may still leave.
    pub(super) fn last_may_be_late(&mut self) {
        if !self.is_under_way || self.fate() != RoundFate::Lost {
            return;
        }
        let (frames, hops) = (self.frames.len(), self.path.hops().len());
        self.late.lost.resize(frames, 0);
        self.late.passed.resize_with(frames, || vec![0; hops]);
        for number in (0..frames).filter(|number| self.in_last[*number]) {
            self.late.lost[number] = self.late.lost[number].saturating_add(1);
        }
    }

    /// The rounds that were lost until now are.
    pub fn forget_late(&mut self) {
        self.late = Late { just_before: self.late.just_before, ..Late::default() };
    }

    /// The last round, which counted as lost, has left, and the next one begins.
    pub fn note_late(&mut self) {
        self.late.just_before = self.late.just_before.saturating_add(1);
    }

    /// A frame of the last round has passed this edge again, after other frames: one that follows itself was doubled on its way. In a
    /// tunnel, it may go to another host.
    pub(super) fn passed_again(&mut self, at: usize, frame: usize, departure: Departure, when: Duration) {
        let before = self.late.left(frame);
        match self.late.passed.get_mut(frame) {
            Some(passed) if self.path.hops()[at].tunnel.is_none() => {
                passed[at] = passed[at].saturating_add(1)
            }
            _ => return,
        }
        if self.late.left(frame) > before {
            self.late.departures.push((frame, departure, when));
        }
    }

    /// Whether announcements of the last round have left.
    pub fn last_left(&self) -> bool {
        matches!(self.fate(), RoundFate::Left | RoundFate::Partly) && !self.lacks_every_address()
    }

    /// Whether frames of lost rounds may still leave.
    pub fn may_leave_late(&self) -> bool {
        let is_late = |frame: usize| self.late.left(frame) < self.late.lost(frame);
        self.fate() == RoundFate::Lost || (0..self.frames.len()).any(is_late)
    }

    /// The lost rounds before the last one that have left since, but for those that this has returned before: each frame with an
    /// address was seen again. The guest itself and QEMU send some of them, too.
    pub fn left_late(&mut self) -> u32 {
        let is_one = |frame: &usize| self.late.lost(*frame) > 0 && self.frames[*frame].ip.is_some();
        let named = (0..self.frames.len()).filter(is_one).filter(|frame| !self.is_kept_by_design(*frame));
        let rounds = named.map(|frame| self.late.left(frame)).min().unwrap_or_default();
        let new = rounds.saturating_sub(self.late.rounds);
        if new > 0 {
            self.late.rounds = rounds;
            for (frame, departure, at) in std::mem::take(&mut self.late.departures) {
                self.left[frame] += 1;
                note(&mut self.departures, departure, at);
            }
        }
        new.saturating_add(std::mem::take(&mut self.late.just_before))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proof::delivery::tests::*;

    /// Frames of two rounds leave after the third was sent.
    #[test]
    fn lost_rounds_that_leave_during_the_next_one_were_not_lost() {
        let mut proof = on_br_int();
        for _ in 0..3 {
            proof.begin();
            assert_eq!((proof.fate(), proof.may_leave_late()), (RoundFate::Lost, true));
        }
        pass(&mut proof, "eth0", &ALL, ms(20), Some(100));
        assert_eq!((proof.fate(), proof.left_late(), proof.may_leave_late()), (RoundFate::Left, 0, true));
        pass(&mut proof, "eth0", &ALL, ms(21), Some(100));
        assert_eq!((proof.left_late(), proof.left_late(), proof.may_leave_late()), (1, 0, true));
        pass(&mut proof, "eth0", &ALL, ms(22), Some(100));
        assert_eq!((proof.left_late(), proof.may_leave_late()), (1, false));
        assert_eq!(proof.left().unwrap().map(|(_, left)| left).collect::<Vec<_>>(), [3, 3, 3]);
        // No more were sent: the guest sends the same.
        pass(&mut proof, "eth0", &ALL, ms(23), Some(100));
        assert_eq!((proof.left_late(), proof.times_left(0)), (0, 3));
    }

    #[test]
    fn a_round_that_is_lost_stays_so_whatever_the_guest_sends_or_is_doubled_on_the_way() {
        let mut proof = on_br_int();
        proof.begin();
        proof.begin();
        for (at, frame) in [0, 0, 1, 1, 2, 2].into_iter().enumerate() {
            pass(&mut proof, "eth0", &[frame], ms(10 + at as u64), Some(100));
        }
        assert_eq!((proof.left_late(), proof.times_left(0)), (0, 1));
        // Its ARP announcement, and QEMU's RARP.
        pass(&mut proof, "eth0", &[0, 2], ms(20), Some(100));
        assert_eq!((proof.left_late(), proof.times_left(0)), (0, 1));
        proof.forget_late();
        pass(&mut proof, "eth0", &ALL, ms(50), Some(100));
        assert_eq!((proof.left_late(), proof.may_leave_late()), (0, false));
    }

    /// The capture is renewed, and its old one and its new one have the same frame.
    #[test]
    fn one_sighting_that_is_told_twice_is_one() {
        let mut proof = on_br_int();
        proof.begin();
        proof.begin();
        pass(&mut proof, "eth0", &ALL, ms(10), Some(100));
        pass(&mut proof, "eth0", &ALL, ms(10), Some(100));
        assert_eq!((proof.left_late(), proof.times_left(0)), (0, 1));
    }
}
