//! What the captured frames of one announcement show: how its own left, who else sends from the guest's MAC, which questions were
//! answered, and what the guest itself has reported and announced.

use crate::path::hop::Edge;
use crate::proof::answer::{AnsweredBy, Inquiry};
use crate::proof::capture_point::Direction;
use crate::proof::delivery::Delivery;
use crate::proof::foreign::Foreign;
use crate::proof::membership::Membership;
use crate::proof::self_announcement::SelfAnnouncement;
use crate::proof::sighting::Sighting;

/// The findings so far.
#[derive(Debug)]
pub(crate) struct Findings {
    /// What is proved of the frames.
    pub proof: Delivery,
    /// The frames of other hosts from the guest's MAC.
    pub foreign: Foreign,
    /// The questions and their answers.
    pub inquiry: Option<Inquiry>,
    /// The guest's membership reports, once it was queried.
    pub membership: Option<Membership>,
    /// What it announces itself, once it was asked to.
    pub by_itself: Option<SelfAnnouncement>,
}

impl Findings {
    /// Nothing seen yet; `proof` has the frames and their path.
    pub(crate) fn new(proof: Delivery) -> Findings {
        Findings { proof, foreign: Foreign::default(), inquiry: None, membership: None, by_itself: None }
    }

    /// Records a frame captured on its way or at an edge.
    pub(crate) fn saw(&mut self, sighting: &Sighting) {
        if let (Some(membership), true) = (&mut self.membership, self.proof.goes_out(sighting)) {
            if membership.left(sighting) {
                return;
            }
        }
        if let (Some(by_itself), true) = (&mut self.by_itself, self.proof.goes_out(sighting)) {
            by_itself.left(&self.proof, sighting);
        }
        self.foreign.saw(&self.proof, sighting);
        if let Some(inquiry) = &mut self.inquiry {
            let by = self.proof.came_in(sighting).map(|edge| match edge {
                Edge::Host => AnsweredBy::Host,
                _ => AnsweredBy::Network,
            });
            if by.is_some() && inquiry.answered(sighting, by) {
                return;
            }
            inquiry.passage.saw(sighting);
        }
        self.proof.saw(sighting);
    }

    /// The capture on these devices has lost frames since the round began.
    pub(crate) fn missed_on(&mut self, devices: &[u32]) {
        for device in devices {
            self.proof.missed_on(*device);
            self.inquiry.iter_mut().for_each(|inquiry| inquiry.passage.missed_on(*device));
        }
    }

    /// Records a frame captured at the guest's device: its report, or an answer for it. An answer that did not enter by an edge is
    /// from this host, unless the host has blind edges.
    pub(crate) fn passed_guest(&mut self, sighting: &Sighting) {
        self.membership.iter_mut().for_each(|membership| membership.passed_guest(sighting));
        let by = self.proof.path().blind().next().is_none().then_some(AnsweredBy::Host);
        if let (Some(inquiry), Direction::Out) = (&mut self.inquiry, sighting.direction) {
            inquiry.answered(sighting, by);
        }
    }
}
