//! The hops at which the capture has lost frames, so that a frame that was not seen there may have passed.

/// Where frames may have passed unseen, by the hops' indexes.
#[derive(Debug)]
pub(super) struct Missed {
    /// In the last round.
    pub last: Vec<bool>,
    /// In any round.
    pub ever: Vec<bool>,
}

impl Missed {
    /// Nowhere on a path of so many hops.
    pub(super) fn none(hops: usize) -> Missed {
        Missed { last: vec![false; hops], ever: vec![false; hops] }
    }

    /// Another round begins.
    pub(super) fn begin(&mut self) {
        self.last.fill(false);
    }

    /// Frames of the last round may have passed this hop.
    pub(super) fn at(&mut self, hop: usize) {
        (self.last[hop], self.ever[hop]) = (true, true);
    }
}

#[cfg(test)]
mod tests {
    use crate::announcement::frame::Kind;
    use crate::proof::delivery::RoundFate::{Left, Lost, Unseen};
    use crate::proof::delivery::tests::*;

    const LOSSY: &str = "eth0 had more frames like them than the capture could hold";

    #[test]
    fn a_frame_is_lost_only_if_the_capture_at_the_edge_has_lost_none() {
        let mut proof = on_br_int();
        proof.begin();
        proof.missed_on(4);
        assert_eq!((proof.fate(), stuck(&proof)), (Unseen, vec![]));
        assert_eq!((proof.unseen().as_deref(), proof.left().is_none()), (Some(LOSSY), true));
        // The next round is captured whole. Of the first one nothing is proved.
        proof.begin();
        assert_eq!((proof.fate(), proof.unseen().as_deref()), (Lost, Some(LOSSY)));
        pass(&mut proof, "eth0", &ALL, ms(1), Some(100));
        assert_eq!((proof.fate(), proof.unseen()), (Left, None));
    }

    #[test]
    fn what_open_vswitch_drops_has_passed_no_edge() {
        let mut proof = on_br_int();
        proof.begin();
        proof.missed_on(4);
        assert_eq!(proof.unjudged().len(), 3);
        for kind in [Kind::ArpRequest, Kind::ArpReply, Kind::Rarp] {
            proof.judged(&like(kind), &verdict(&[]));
        }
        assert_eq!((proof.fate(), proof.unseen()), (Lost, None));
    }

    #[test]
    fn a_loss_before_the_edge_hides_no_departure() {
        let mut proof = hybrid();
        proof.begin();
        proof.missed_on(4);
        assert_eq!((proof.fate(), stuck(&proof)), (Lost, vec!["did not leave tap0".into()]));
    }
}
