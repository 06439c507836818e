//! Sends the rounds of an announcement.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::{Run, Signals};
use crate::announcement::failure::Failure;
use crate::announcement::frame::{Frame, Kind};
use crate::announcement::machine::Round;
use crate::announcement::quota::Part;
use crate::guest::GuestState;
use crate::host::injector::InjectorError;
use crate::host::openvswitch::flow_monitor::Monitored;
use crate::host::openvswitch::packet_outs::Submission;
use crate::path::readiness::Assessment;
use crate::report::count;
use crate::report::evidence::millis;
use crate::run::host::Host;
use crate::run::lacking::Lacking;

impl Run {
    /// Waits for a turn in the host's quota, unless the announcement must end or the guest changes its state.
    pub(super) async fn take_turn(&mut self, host: &Host, signals: &Signals) {
        let Some(pace) = host.pace.as_ref().filter(|_| !self.order.settings.dry_run) else {
            self.has_turn = true;
            return;
        };
        let attempt = self.machine.progress().attempts();
        let part =
            if self.order.settings.early { Part::early(attempt) } else { Part::announcements(attempt) };
        let was_held = tokio::select! {
            was_held = pace.turn(part, self.frames.len()) => was_held,
            () = signals.directed() => return,
        };
        self.has_turn = true;
        if was_held {
            let now = self.now();
            self.machine.held_up(now);
        }
    }

    /// Sends a round's announcements; returns whether they left, as far as that can be seen.
    pub(super) async fn send(&mut self, host: &Host, seen: &Assessment, signals: &Signals) -> bool {
        self.has_turn = false;
        let frames = self.round();
        let submission = Submission::new(self.machine.progress().rounds == 0);
        let must_not = self.must_not_be_sent(host, signals);
        let sent = tokio::select! {
            biased;
            () = must_not => match submission.is_handed_over() {
                // It may leave all the same, and counts.
                true => Ok(()),
                // The loop looks at all of that next.
                false => return false,
            },
            sent = self.send_by_any_way(&frames, host, seen, &submission) => sent,
        };
        match sent {
            Ok(()) => {
                let at = self.now();
                self.unsent = None;
                self.tally_up(&frames, host);
                self.record(at, &frames);
                let round = self.judge(at, host, seen).await;
                self.log_round(&frames, round);
                self.machine.sent(round);
                self.monitor_flows(host);
                self.explain_loss(host, seen).await;
                round.left && !self.machine.is_lost()
            }
            Err(error) => {
                // The report has the last error.
                tracing::debug!("{}: {error}", self.order.target.mac);
                self.way = None;
                if error.is_transient() {
                    self.machine.lacks_a_way(error.to_string());
                    self.lack(&error);
                } else if error.is_refused() {
                    self.machine.give_up(Failure::Injector, error.to_string());
                } else {
                    self.machine.failed(self.now(), error.to_string());
                }
                false
            }
        }
    }

    fn tally_up(&mut self, frames: &[Frame], host: &Host) {
        frames.iter().for_each(|frame| self.tally.add(frame.kind));
        host.sent.add(frames);
    }

    /// For `--verbose`.
    fn log_round(&self, frames: &[Frame], round: Round) {
        if !tracing::enabled!(tracing::Level::DEBUG) {
            return;
        }
        let target = &self.order.target;
        let subject = target.subject(target.plug.device.clone());
        let number = self.machine.progress().attempts() + 1;
        let by = self.way.as_ref().map_or("", |way| way.method().word());
        let frames = count(frames.len(), "frame");
        let (ms, fate) = (millis(round.at), if round.left { "sent" } else { "lost, and sent again" });
        tracing::debug!("{subject}: round {number} at {ms} ms, {frames} by {by}: {fate}");
    }

    /// Sends the round by the prepared method, or by the next one that works.
    pub(super) async fn send_by_any_way(
        &mut self,
        frames: &[Frame],
        host: &Host,
        seen: &Assessment,
        submission: &Submission,
    ) -> Result<(), InjectorError> {
        self.observer.iter_mut().for_each(|observer| observer.begin_some(frames));
        if self.order.settings.dry_run {
            return Ok(());
        }
        let Some(mut way) = self.way.clone() else {
            return Err(InjectorError::Unavailable(Vec::new()));
        };
        self.monitor_flows(host);
        loop {
            let Err(error) = host.injectors.send(&way, frames, submission).await else {
                self.way = Some(way);
                return Ok(());
            };
            let current = self.offered.iter().position(|offered| *offered == way);
            let others = current.map_or(&[][..], |at| &self.offered[at + 1..]);
            match host.injectors.prepare(others, self.order.settings.inject).await {
                Ok(next) => way = next,
                Err(_) => return Err(error),
            }
            tracing::debug!("{}: {error}; trying {}", self.order.target.mac, way.method());
            let now = self.now();
            self.lacking.get_or_insert_with(|| Lacking::new(now)).pause(now);
            self.watch_path(Some(way.method()), host, seen);
            self.monitor_flows(host);
            self.flows.iter().for_each(Monitored::doubt);
            self.observer.iter_mut().for_each(|observer| observer.look_on());
        }
    }

    /// Sends a round's questions, after all announcements of that round had their turn. Their result does not affect the
    /// announcement.
    pub(super) async fn ask_routers(&mut self, host: &Host, seen: &Assessment, signals: &Signals) {
        let questions = self.asking.round(&self.order, host, seen, self.now()).await;
        let frames: Vec<Frame> = questions.iter().filter_map(|q| q.frame(self.order.target.mac)).collect();
        if frames.is_empty() {
            return;
        }
        if let (Some(pace), false) = (&host.pace, self.order.settings.dry_run) {
            let attempt = self.machine.progress().attempts().saturating_sub(1);
            tokio::select! {
                () = self.must_not_be_sent(host, signals) => return,
                _ = pace.turn(Part::questions(attempt), frames.len()) => {}
            }
        }
        let device = seen.attachment.as_ref().and_then(|attachment| attachment.entry.ifindex);
        self.observer.iter_mut().for_each(|observer| observer.ask(&questions, device));
        let (at, submission) = (self.now(), Submission::new(false));
        let send = async {
            match &self.way {
                Some(way) if !self.order.settings.dry_run => {
                    host.injectors.send(way, &frames, &submission).await
                }
                _ => Ok(()),
            }
        };
        let sent = tokio::select! {
            biased;
            () = self.must_not_be_sent(host, signals) => match submission.is_handed_over() {
                true => Ok(()),
                false => return,
            },
            sent = send => sent,
        };
        match sent {
            Ok(()) => {
                self.tally_up(&frames, host);
                self.record(at, &frames);
                if let Some(observer) = &mut self.observer {
                    observer.asked(self.machine.has_ended()).await;
                }
            }
            Err(error) => tracing::debug!("{}: cannot ask: {error}", self.order.target.mac),
        }
    }

    /// The frames of the next round. A round that is retried for long has one ARP announcement, NA and RARP per address.
    pub(super) fn round(&self) -> Arc<[Frame]> {
        if !self.machine.is_sparing() {
            return self.frames.clone();
        }
        let is_spared = |frame: &&Frame| {
            let is_other_form = |other: &Frame| other.kind == Kind::ArpRequest && other.ip == frame.ip;
            frame.kind == Kind::ArpReply && self.frames.iter().any(is_other_form)
        };
        self.frames.iter().filter(|frame| !is_spared(frame)).cloned().collect()
    }

    pub(super) fn record(&self, now: Duration, frames: &[Frame]) {
        let Some(pcap) = &self.order.pcap else {
            return;
        };
        let mut pcap = pcap.lock().unwrap_or_else(PoisonError::into_inner);
        for frame in frames {
            if let Err(error) = pcap.write(now, &frame.bytes) {
                tracing::error!("cannot write the capture file: {error}");
                return;
            }
        }
    }

    /// Returns when the guest does not run, the port is no longer as the last look found it, ready, or the announcement must end.
    fn must_not_be_sent<'a>(
        &self,
        host: &'a Host,
        signals: &'a Signals,
    ) -> impl Future<Output = ()> + use<'a> {
        let (order, look) = (self.order.clone(), self.last_look.as_ref());
        let mut host_changes = look.map_or(0, |look| look.changes);
        async move {
            while !signals.must_stop_or_changed(&mut host_changes).await {
                if !order.look(host, GuestState::Running).is_ready() {
                    return;
                }
            }
        }
    }
}
