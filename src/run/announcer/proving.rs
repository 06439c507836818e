//! Proves that rounds have left the host, and heeds what is seen on the way.

use std::time::Duration;

use super::Run;
use crate::announcement::failure::Failure;
use crate::announcement::injection::Method;
use crate::announcement::machine::Round;
use crate::announcement::progress::Outcome;
use crate::host::openvswitch::flow_monitor::Monitored;
use crate::path::readiness::Assessment;
use crate::proof::capture_point::CapturePath;
use crate::proof::delivery::RoundFate;
use crate::report::evidence::Learned;
use crate::run::diagnose;
use crate::run::host::Host;
use crate::run::observer::Observer;

impl Run {
    /// Starts watching the path of frames injected by `method`.
    pub(super) fn watch_path(&mut self, method: Option<Method>, host: &Host, seen: &Assessment) {
        let (true, Some(method), Some(attachment)) =
            (self.order.settings.proof.watch, method, &seen.attachment)
        else {
            return;
        };
        let path = CapturePath::of(attachment, method);
        match &mut self.observer {
            Some(observer) => observer.follow(path),
            None => {
                let (witness, mac) = (host.witness.clone(), self.order.target.mac);
                let observer = Observer::new(witness, self.began, mac, &self.frames, path);
                self.observer = Some(Box::new(observer));
            }
        }
    }

    pub(super) async fn judge(&mut self, at: Duration, host: &Host, seen: &Assessment) -> Round {
        let Some(observer) = &mut self.observer else {
            return Round { at, left: true, only_rarp: false, answered: true };
        };
        let had_left = observer.found.proof.departure().is_some();
        let fate = observer.judge_by_verdicts(host, seen).await;
        if fate == RoundFate::Lost {
            return Round { at, left: false, only_rarp: false, answered: false };
        }
        let answered = fate == RoundFate::Unseen || observer.is_answered();
        // The first frame to leave may have done so before the injector returned. An earlier round's has another time.
        let first = observer.found.proof.departure().filter(|_| !had_left);
        let at = first.map_or(at, |left| at.min(left.at));
        let only_rarp = fate == RoundFate::Partly && observer.found.proof.lacks_every_address();
        Round { at, left: true, only_rarp, answered }
    }

    /// Hears of changes to the flows on the way for as long as something is lost there, or its best method does not work.
    pub(super) fn monitor_flows(&mut self, host: &Host) {
        let is_doubtful = self.machine.is_lost() || self.lacking.is_some();
        let observer = self.observer.as_ref().filter(|_| is_doubtful);
        let bridges: Vec<String> =
            observer.map(|observer| observer.found.proof.path().ovs_bridges()).unwrap_or_default();
        if self.flows.as_ref().map_or(&[][..], Monitored::bridges) != bridges {
            self.flows = (!bridges.is_empty()).then(|| host.flows.monitor(bridges));
        }
    }

    /// Considers frames from the guest's MAC that another host has sent. Where a guest is, libvirt decides; a device without
    /// libvirt has moved if its bridge has moved the MAC, too. Open vSwitch may do that half a second later, so that it is asked
    /// before each round.
    pub(super) async fn heed_foreign(&mut self, host: &Host, seen: &Assessment) {
        let now = self.now();
        let Some(observer) = self.observer.as_mut().filter(|_| !self.machine.has_ended()) else { return };
        let is_new = observer.settle_foreign();
        if self.order.target.domain.is_some() {
            if is_new {
                self.machine.hurry(now);
            }
            return;
        }
        let by =
            observer.found.foreign.moved().filter(|_| is_new || self.has_turn).map(|by| by.device.clone());
        let was_here = matches!(self.learned, Some((Learned::Here(_), _)));
        let (Some(device), true) = (by, was_here) else { return };
        if diagnose::has_moved(host, seen, self.order.target.mac).await {
            let why = format!("{} has been seen on {device}", self.order.target.mac);
            self.machine.cancel(Some(Failure::Moved), &why);
        }
    }

    /// Looks up the guest's FDB entry. Open vSwitch may learn half a second later from a frame that hits a cached flow, and
    /// may lose an entry made by the first frame, so the look-up at the end decides.
    pub(super) async fn look_up_learned(&mut self, host: &Host, seen: &Assessment) {
        let progress = self.machine.progress();
        let is_settled = |known: &Learned| matches!(known, Learned::Here(_));
        let was_settled = self.learned.as_ref().is_some_and(|(known, _)| is_settled(known));
        let is_due = match progress.outcome {
            None => !was_settled && progress.rounds > 0,
            Some(outcome) => outcome == Outcome::Announced,
        };
        if let (Some(_), true, Some(frame)) = (&self.observer, is_due, self.frames.first()) {
            let learned = diagnose::learned(host, seen, self.order.target.mac, frame).await;
            // Record the time of the first correct entry.
            if !(was_settled && learned.as_ref().is_none_or(is_settled)) {
                self.learned = learned.map(|learned| (learned, self.now()));
            }
        }
    }

    /// What is lost is not sent again while a bridge on the way does not answer.
    pub(super) fn heed_silence(&mut self) {
        if self.flows.as_ref().is_some_and(Monitored::is_silent) {
            self.machine.stands_still();
        }
    }
}
