//! Captures an announcement's frames, and determines the fate of each round.

use std::time::Duration;

use pnet_base::MacAddr;
use tokio::time::Instant;

use crate::announcement::frame::{self, Frame};
use crate::announcement::injection::Method;
use crate::announcement::question::Question;
use crate::host::witness::Watch;
use crate::path::hop::Hop;
use crate::path::readiness::Assessment;
use crate::proof::answer::Inquiry;
use crate::proof::capture_point::CapturePath;
use crate::proof::delivery::{Delivery, RoundFate};
use crate::proof::findings::Findings;
use crate::proof::membership::Membership;
use crate::proof::self_announcement::SelfAnnouncement;
use crate::report::evidence::Evidence;
use crate::run::diagnose;
use crate::run::host::{Capture, Host};
use crate::run::order::Order;

/// A frame that has not reached the uplink by then is lost. It may take a while through Open vSwitch.
const DEPARTURE_TIMEOUT: Duration = Duration::from_millis(5);
/// The same after Open vSwitch has confirmed the packet-out.
const PACKET_OUT_DEPARTURE_TIMEOUT: Duration = Duration::from_millis(1);

/// The same for the last questions of an announcement, behind which nothing waits.
const LAST_QUESTIONS_TIMEOUT: Duration = Duration::from_millis(100);

/// While many frames enter, captures are re-armed at this interval: within [`MOMENT`] of the event, and later.
const WINDOW: Duration = Duration::from_millis(100);
const LATE_WINDOW: Duration = Duration::from_millis(500);
const MOMENT: Duration = Duration::from_secs(1);

/// The proof of one announcement, with its captures.
#[derive(Debug)]
pub(crate) struct Observer {
    witness: Capture,
    began: Instant,
    mac: MacAddr,
    /// The complete path of the frames.
    path: CapturePath,
    watch: Option<Watch>,
    /// Why nothing can be captured.
    blind: Option<String>,
    /// What the captured frames show.
    pub found: Findings,
    /// Captures answers at the guest's device, once a question was sent.
    guests_device: Option<Watch>,
    /// Until when frames that leave are captured for the guest's membership reports.
    listens_until: Option<Instant>,
    /// When incoming frames are captured again.
    rearm_at: Instant,
}

/// How long a guest may take to answer a query, which asks for an answer within 100 ms.
const REPORT_TIME: Duration = Duration::from_millis(500);

impl Observer {
    /// Captures rounds of `frames` along `path` for an event at `began`, at first only at the edges: each further socket
    /// would delay the first frame.
    pub(crate) fn new(
        witness: Capture,
        began: Instant,
        mac: MacAddr,
        frames: &[Frame],
        path: CapturePath,
    ) -> Observer {
        let proof = Delivery::new(mac, frames, path.clone());
        let mut observer = Observer {
            witness,
            began,
            mac,
            path,
            watch: None,
            blind: None,
            found: Findings::new(proof),
            guests_device: None,
            listens_until: None,
            rearm_at: began,
        };
        let is_blind = observer.path.blind().next().is_some();
        observer.look(is_blind);
        observer
    }

    /// Captures along `path` from now on.
    pub(crate) fn follow(&mut self, path: CapturePath) {
        if self.path != path {
            self.path = path;
            self.look(!self.found.proof.path().is_exits_only());
        }
    }

    /// Captures at every hop.
    pub(crate) fn look_everywhere(&mut self) {
        if self.found.proof.path().is_exits_only() {
            self.look(true);
        }
    }

    fn look(&mut self, everywhere: bool) {
        let path = self.path.clone();
        let path = if everywhere { path } else { path.exits_only() };
        let watch = self.witness.watch(path.points(), self.mac, self.began);
        // What was captured until now passed the path until now.
        self.catch_up();
        self.found.inquiry.iter_mut().for_each(|inquiry| inquiry.passage.follow(path.clone()));
        self.found.proof.follow(path);
        (self.watch, self.blind) = match watch {
            Ok(watch) => (Some(watch), None),
            Err(error) => (None, Some(error.to_string())),
        };
        if self.listens_until.is_some() {
            self.look_on();
        }
    }

    /// Why departures cannot be seen, if they cannot.
    pub(crate) fn unseen(&self) -> Option<String> {
        self.blind.clone().or_else(|| self.found.proof.unseen())
    }

    /// Whether frames that pass this hop are captured.
    pub(crate) fn is_seen(&self, hop: &Hop) -> bool {
        self.blind.is_none() && self.found.proof.path().outward(hop).is_some()
    }

    /// The evidence so far, with facts from the host's bridges.
    pub(crate) async fn evidence(&mut self, host: &Host, seen: &Assessment, order: &Order) -> Evidence {
        self.judge_held(host, seen).await;
        let why = match self.blind {
            None => diagnose::why(host, seen, &self.found.proof, order).await,
            Some(_) => Vec::new(),
        };
        let mut evidence =
            Evidence::of(&self.found.proof, self.blind.clone(), &why).with_foreign(&self.found.foreign);
        if let (Some(unseen), None, Some(frame)) =
            (&mut evidence.unseen, &evidence.departure, self.found.proof.first_unseen())
        {
            if let Some((words, _)) = diagnose::ofproto(host, seen, std::slice::from_ref(frame)).await.pop() {
                *unseen += &format!("; Open vSwitch's verdict: {words}");
            }
        }
        if let Some(membership) = &self.found.membership {
            evidence = evidence.with_membership(membership, self.held_reports(host, seen, order).await);
        }
        let Some(inquiry) = &self.found.inquiry else {
            return evidence;
        };
        let why = match evidence.unseen {
            None => diagnose::why(host, seen, &inquiry.passage, order).await,
            Some(_) => Vec::new(),
        };
        evidence.with_inquiry(inquiry, &self.found.proof, self.blind.as_deref(), &why, self.began.elapsed())
    }

    /// The reports that the guest has sent and that did not leave, with the reason.
    async fn held_reports(&self, host: &Host, seen: &Assessment, order: &Order) -> Vec<String> {
        let mut held = Vec::new();
        let first = self.found.membership.iter().flat_map(Membership::first);
        for (protocol, first) in first.filter(|(_, first)| first.left.is_none()) {
            if let (Some(frame), None) = (&first.sent, self.unseen()) {
                let why = diagnose::why_held(host, seen, frame, order).await;
                held.push(format!("its {protocol} reports did not leave the host: {why}"));
            }
        }
        held
    }

    /// Asks Open vSwitch again about frames that left by no visible edge and, by its verdict on an earlier round, by no blind
    /// one either: its flows may have changed since.
    async fn judge_held(&mut self, host: &Host, seen: &Assessment) {
        if self.blind.is_some() || self.found.proof.unseen().is_none() {
            return;
        }
        let held = frame::one_of_each(self.found.proof.held().map(|(_, frame)| frame));
        let held: Vec<Frame> = held.into_iter().cloned().collect();
        for frame in &held {
            if let Some(verdict) = diagnose::fresh_verdict(host, seen, frame).await {
                self.found.proof.judged(frame, &verdict);
            }
        }
    }

    /// Called before a round is sent.
    pub(crate) fn begin(&mut self) {
        self.catch_up();
        self.found.proof.begin();
        self.look_on();
    }

    /// Called before a round of some of the frames is sent.
    pub(crate) fn begin_some(&mut self, round: &[Frame]) {
        self.catch_up();
        self.found.proof.begin_some(round);
        self.look_on();
    }

    /// Records what was captured until now: it belongs to an earlier round, or to none.
    fn catch_up(&mut self) {
        for sighting in self.watch.iter_mut().flat_map(Watch::so_far) {
            self.found.saw(&sighting);
        }
    }

    /// Decides about frames from the guest's MAC that entered; returns whether another host has sent some.
    pub(crate) fn settle_foreign(&mut self) -> bool {
        if !self.found.foreign.is_pending() {
            return false;
        }
        // A frame that left may be read after the copy of it that came back.
        self.catch_up();
        let is_foreign = self.found.foreign.settle();
        if is_foreign {
            // From now on, what leaves is compared with what enters.
            self.look_on();
        }
        is_foreign
    }

    /// Keeps capturing for the current round.
    pub(crate) fn look_on(&mut self) {
        self.watch.iter_mut().for_each(Watch::begin);
    }

    /// Called before the guest, which has this device, is queried for its multicast groups.
    pub(crate) fn listen_for_reports(&mut self, device: Option<u32>) {
        self.watch_guest(device);
        let now = self.began.elapsed();
        self.found.membership.get_or_insert_with(|| Membership::new(self.mac, now));
        self.listens_until = Some(Instant::now() + REPORT_TIME);
        self.look_on();
    }

    /// Called before the guest is asked to announce itself.
    pub(crate) fn listen_to_guest(&mut self) {
        self.found.by_itself.get_or_insert_default();
    }

    /// What the guest has announced itself, if it was asked to.
    pub(crate) fn by_itself(&self) -> Option<&SelfAnnouncement> {
        self.found.by_itself.as_ref()
    }

    /// Without the guest's device, only frames that enter by an edge count as answers.
    fn watch_guest(&mut self, device: Option<u32>) {
        if self.guests_device.is_none() {
            let watch = device.map(|device| self.witness.watch_guest(device, self.mac, self.began));
            self.guests_device = watch.and_then(Result::ok);
        }
    }

    /// Transmitted frames are no longer captured, unless a report may still leave.
    fn look_away(&mut self) {
        if self.listens_until.is_none_or(|until| Instant::now() >= until) {
            self.listens_until = None;
            self.watch.iter_mut().for_each(Watch::end);
        }
    }

    /// Called before these questions are sent, for a guest with this device.
    pub(crate) fn ask(&mut self, questions: &[Question], device: Option<u32>) {
        self.watch_guest(device);
        let (mac, path) = (self.mac, self.found.proof.path());
        let inquiry = self
            .found
            .inquiry
            .get_or_insert_with(|| Inquiry::new(mac, Delivery::new(mac, &[], path.clone())));
        inquiry.ask(questions, self.began.elapsed());
        self.look_on();
    }

    /// Called after the questions were sent; returns when they have left or would have. The `last` ones are waited for longer, since the
    /// announcement ends.
    pub(crate) async fn asked(&mut self, last: bool) {
        let deadline = Instant::now() + if last { LAST_QUESTIONS_TIMEOUT } else { DEPARTURE_TIMEOUT };
        let Some(watch) = &mut self.watch else {
            return;
        };
        loop {
            let is_over = Instant::now() >= deadline;
            for sighting in watch.so_far() {
                self.found.saw(&sighting);
            }
            let is_under_way = |inquiry: &Inquiry| inquiry.passage.fate() != RoundFate::Left;
            if !self.found.inquiry.as_ref().is_some_and(is_under_way) {
                return;
            }
            if is_over {
                return self.found.missed_on(&watch.missed());
            }
            tokio::select! {
                sighting = watch.next() => self.found.saw(&sighting),
                () = tokio::time::sleep_until(deadline) => {}
            }
        }
    }

    /// An answer from the network shows that it knows the guest's location.
    pub(crate) fn is_answered(&self) -> bool {
        let by_network = self.found.inquiry.as_ref().is_some_and(Inquiry::is_answered_by_network);
        by_network || self.found.proof.returned().is_some()
    }

    /// The fate of the round just sent, as soon as it is certain.
    pub(crate) async fn judge(&mut self) -> RoundFate {
        let Some(watch) = &mut self.watch else {
            return RoundFate::Unseen;
        };
        let timeout = match self.found.proof.path().method() {
            Method::PacketOut => PACKET_OUT_DEPARTURE_TIMEOUT,
            _ => DEPARTURE_TIMEOUT,
        };
        // Without a visible edge, no departure can be expected.
        let has_exits = self.found.proof.path().points().iter().any(|point| point.is_uplink);
        let deadline = Instant::now() + if has_exits { timeout } else { Duration::ZERO };
        let fate = loop {
            // Before the sightings: the thread may be descheduled after reading them, and frames may leave in that time.
            let is_over = Instant::now() >= deadline;
            for sighting in watch.so_far() {
                self.found.saw(&sighting);
            }
            let fate = self.found.proof.fate();
            if fate == RoundFate::Left {
                break fate;
            }
            if is_over {
                self.found.missed_on(&watch.missed());
                break self.found.proof.fate();
            }
            tokio::select! {
                sighting = watch.next() => self.found.saw(&sighting),
                () = tokio::time::sleep_until(deadline) => {}
            }
        };
        if matches!(fate, RoundFate::Lost | RoundFate::Partly) {
            // For the next round, capture where it ends.
            self.look_everywhere();
        }
        // On a busy host, frames of a round counted as lost may still be on their way.
        match fate {
            RoundFate::Lost => self.look_on(),
            _ => self.look_away(),
        }
        fate
    }

    /// The same, with Open vSwitch's verdicts on frames that were not seen to leave. It is asked after the frames were sent: its
    /// answer must not delay them.
    pub(crate) async fn judge_by_verdicts(&mut self, host: &Host, seen: &Assessment) -> RoundFate {
        let fate = self.judge().await;
        let unjudged: Vec<Frame> = self.found.proof.unjudged().into_iter().cloned().collect();
        if unjudged.is_empty() || self.watch.is_none() {
            return fate;
        }
        for frame in unjudged.iter().filter(|_| fate != RoundFate::Left) {
            let Some(verdict) = diagnose::fresh_verdict(host, seen, frame).await else {
                break;
            };
            self.found.proof.judged(frame, &verdict);
        }
        self.found.proof.fate()
    }

    /// Records sightings between two rounds; returns when one may be of another host.
    pub(crate) async fn see_others(&mut self) {
        while !self.found.foreign.is_pending() {
            self.see().await;
        }
    }

    /// Records the next sighting, between two rounds.
    pub(crate) async fn see(&mut self) {
        let Some(watch) = &mut self.watch else {
            return std::future::pending().await;
        };
        let on_guests_device = async {
            match &mut self.guests_device {
                Some(watch) => watch.next().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            sighting = watch.next() => self.found.saw(&sighting),
            sighting = on_guests_device => {
                self.found.passed_guest(&sighting);
            }
            () = listened(self.listens_until), if self.listens_until.is_some() => self.look_away(),
            () = tokio::time::sleep_until(self.rearm_at), if self.found.proof.returned().is_some() => {
                watch.rearm();
                let now = Instant::now();
                let is_early = now.duration_since(self.began) < MOMENT;
                self.rearm_at = now + if is_early { WINDOW } else { LATE_WINDOW };
            }
        }
    }
}

/// Returns at the end of the time to listen.
async fn listened(until: Option<Instant>) {
    match until {
        Some(until) => tokio::time::sleep_until(until).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
