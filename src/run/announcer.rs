//! Runs announcements: looks at the host, asks the state machine what to do, and does it.

use std::pin::Pin;
use std::sync::{Arc, PoisonError};
use std::task::Poll;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::announcement::frame::{Frame, Kind};
use crate::announcement::injection::{self, Method, Way};
use crate::announcement::machine::{Announcement, Outcome, Round, Step};
use crate::announcement::quota::Part;
use crate::guest::GuestState;
use crate::host::backoff::Backoff;
use crate::host::injector::InjectorError;
use crate::host::openvswitch::flow_monitor::Monitored;
use crate::path::readiness::Assessment;
use crate::proof::capture_point::CapturePath;
use crate::proof::delivery::RoundFate;
use crate::report::Report;
use crate::report::evidence::{Evidence, Learned, Tally};
use crate::run::asking::Asking;
use crate::run::diagnose;
use crate::run::observer::Observer;
use crate::run::order::{Host, Order};
use crate::run::waits::Place;

mod patience;

/// The pauses between attempts to make a way in ready, while none works.
const FIRST_RETRY: Duration = Duration::from_millis(1);
const LAST_RETRY: Duration = Duration::from_millis(100);
/// To make a way in ready has a time-out of its own, and ends before.
const A_LONG_TIME: Duration = Duration::from_secs(60);

/// What directs an announcement from outside.
#[derive(Debug, Clone)]
pub(crate) struct Signals {
    /// What is to be announced, and how; another one holds if it waits.
    pub order: watch::Receiver<Arc<Order>>,
    /// Whether the guest runs.
    pub guest: watch::Receiver<GuestState>,
    /// Why it is to end.
    pub stop: watch::Receiver<Option<Stop>>,
}

/// Why an announcement is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// The program ends.
    Interrupted,
    /// Another one takes its place.
    Superseded,
    /// The configuration leaves the NIC out.
    LeftOut,
}

/// Carries out an order for an event at `began`, until it is announced or cannot be.
pub(crate) async fn announce(mut host: Host, mut signals: Signals, began: Instant) -> Report {
    let order = signals.order.borrow_and_update().clone();
    let mut run = Run {
        frames: order.round(),
        machine: Announcement::new(order.schedule.clone(), order.wait)
            .insisting(order.proof.more_rounds)
            .endless(order.endless),
        place: host.waits.enter(),
        order,
        way: None,
        offered: Vec::new(),
        preparing: None,
        lacking: None,
        observer: None,
        learned: None,
        tally: Tally::default(),
        asking: Asking::default(),
        flows: None,
        has_turn: false,
        told: String::new(),
        began,
        supposed: None,
    };
    run.must_have_frames();
    loop {
        match *signals.stop.borrow_and_update() {
            Some(Stop::Interrupted) => run.machine.cancel("interrupted"),
            Some(Stop::Superseded) => run.machine.supersede(),
            Some(Stop::LeftOut) => run.machine.cancel("the configuration leaves it out (announce = false)"),
            None => {}
        }
        if let Ok(true) = signals.order.has_changed() {
            let order = signals.order.borrow_and_update().clone();
            run.follow(order);
        }
        let guest = *signals.guest.borrow_and_update();
        let seen = run.order.look(&mut host, guest);
        run.machine.observe(run.now(), &seen);
        run.leave_the_clock();
        run.tell_what_is_unmet(&seen);
        run.prepare(&host, &seen).await;
        run.look_along(run.way.as_ref().map(Way::method), &host, &seen);
        match run.machine.step(run.now()) {
            Step::Send if run.lacks_a_way() => run.wait(run.next_attempt(), &mut host, &mut signals).await,
            // Much may change until it is our turn: look again then.
            Step::Send if !run.has_turn => run.take_turn(&host, &mut signals).await,
            Step::Send => {
                if run.send(&host, &seen, &mut signals).await {
                    run.ask_routers(&host, &seen, &mut signals).await;
                }
                run.ask_who_learned(&host, &seen).await;
            }
            Step::WaitUntil(at) => run.wait(at, &mut host, &mut signals).await,
            Step::Warn(overdue) => Box::pin(run.warn(overdue, &host, &seen)).await,
            // In a box of its own: announcements that wait, perhaps thousands, need no room for it.
            Step::Done => return Box::pin(run.report(&host, &seen)).await,
        }
    }
}

struct Run {
    order: Arc<Order>,
    machine: Announcement,
    frames: Vec<Frame>,
    way: Option<Way>,
    /// The ways that were on offer when `way` was chosen, best first.
    offered: Vec<Way>,
    /// Makes one of them ready.
    preparing: Option<Preparing>,
    /// The best of them, or every one, could not be made ready, or has broken.
    lacking: Option<Lacking>,
    /// Sees the frames pass.
    observer: Option<Observer>,
    /// Where the bridge has learned the guest, and when it was asked.
    learned: Option<(Learned, Duration)>,
    tally: Tally,
    asking: Asking,
    /// Tells of changes to the flows on the way, while something is lost.
    flows: Option<Monitored>,
    /// The next round may be sent.
    has_turn: bool,
    /// What was last said to be unmet.
    told: String,
    /// Where it says what it waits for.
    place: Place,
    began: Instant,
    /// What the time is in a dry run, once the port is ready.
    supposed: Option<Duration>,
}

type Preparing = Pin<Box<dyn Future<Output = Result<Way, InjectorError>> + Send>>;

/// The best way in, or every one, does not work at present, though it may again: ovs-vswitchd may be starting.
struct Lacking {
    why: String,
    since: Duration,
    retry_at: Duration,
    backoff: Backoff,
    is_warned_of: bool,
}

impl Lacking {
    fn new(now: Duration) -> Lacking {
        let backoff = Backoff::new(FIRST_RETRY, LAST_RETRY);
        Lacking { why: String::new(), since: now, retry_at: now, backoff, is_warned_of: false }
    }

    fn pause(&mut self, now: Duration) {
        self.retry_at = now.saturating_add(self.backoff.pause());
    }
}

impl Run {
    fn now(&self) -> Duration {
        self.supposed.unwrap_or_else(|| self.began.elapsed())
    }

    /// In a dry run, no clock makes a round late.
    fn leave_the_clock(&mut self) {
        if self.order.dry_run && self.supposed.is_none() {
            self.supposed = self.machine.progress().ready_at;
        }
    }

    /// Makes a way in ready as soon as the path is known, so that nothing is left to do when the port is ready. Does not wait
    /// for a bridge.
    async fn prepare(&mut self, host: &Host, seen: &Assessment) {
        let ways = injection::ways(seen, self.order.inject);
        if self.order.dry_run || self.frames.is_empty() {
            if let (Some(method), true, true) = (self.order.inject, seen.is_ready(), ways.is_empty()) {
                self.machine.give_up(InjectorError::NoSuchWay(method).to_string());
            }
            return;
        }
        let is_ready = self.machine.is_ready();
        let is_lacking = self.way.is_none() || self.lacking.is_some();
        let is_due = is_ready && self.preparing.is_none() && self.now() >= self.next_attempt();
        if ways != self.offered {
            self.offered.clone_from(&ways);
            self.way = None;
            self.look_along(ways.first().map(Way::method), host, seen);
            self.start_preparing(host);
        } else if is_lacking && is_due {
            self.start_preparing(host);
        }
        // Mostly it is ready at once.
        let now = std::future::poll_fn(|context| {
            Poll::Ready(match &mut self.preparing {
                Some(preparing) => preparing.as_mut().poll(context),
                None => Poll::Pending,
            })
        });
        if let Poll::Ready(prepared) = now.await {
            self.prepared(prepared, is_ready);
        }
    }

    fn start_preparing(&mut self, host: &Host) {
        let (injectors, ways, inject) = (host.injectors.clone(), self.offered.clone(), self.order.inject);
        self.preparing = Some(Box::pin(async move { injectors.prepare(&ways, inject).await }));
    }

    fn prepared(&mut self, prepared: Result<Way, InjectorError>, is_ready: bool) {
        self.preparing = None;
        let now = self.now();
        let rank = |way: &Way| self.offered.iter().position(|offered| offered == way);
        match (prepared, &self.way) {
            // The better one is tried again, though not at once.
            (Ok(way), Some(current)) if rank(&way) >= rank(current) => {
                if let Some(lacking) = &mut self.lacking {
                    lacking.pause(now);
                }
            }
            (Ok(way), current) => {
                let was_held_up = current.is_none() && self.lacking.is_some();
                (self.way, self.lacking) = (Some(way), None);
                if was_held_up {
                    self.machine.has_a_way_again(now);
                }
            }
            // A socket that is not there yet may still come before the port is ready.
            (Err(_), None) if !is_ready => {}
            (Err(error), _) => self.lack(&error),
        }
    }

    /// No way works: it is tried again for as long as a port may take to become ready, if that can help.
    fn lack(&mut self, error: &InjectorError) {
        let now = self.now();
        let lacking = self.lacking.get_or_insert_with(|| Lacking::new(now));
        lacking.pause(now);
        let why = error.to_string();
        if lacking.why != why {
            tracing::debug!(target: crate::log::WAITING, "{}: waiting: {why}", self.order.target.mac);
            lacking.why.clone_from(&why);
        }
        let is_late = now.saturating_sub(lacking.since) >= self.order.wait;
        if !error.is_transient() || (is_late && !self.order.endless) {
            self.machine.give_up(why);
        } else if is_late && !std::mem::replace(&mut lacking.is_warned_of, true) {
            self.warn_of(&format!("{why}; still trying"));
        }
    }

    fn lacks_a_way(&self) -> bool {
        self.way.is_none() && !self.order.dry_run
    }

    /// When the ways are tried next, without a word from one that is being made ready.
    fn next_attempt(&self) -> Duration {
        match (&self.preparing, &self.lacking) {
            // It has a time-out of its own.
            (Some(_), _) => self.now().saturating_add(A_LONG_TIME),
            (None, Some(lacking)) => lacking.retry_at,
            (None, None) => Duration::ZERO,
        }
    }

    /// Opens the witness's eyes on the way that frames will take which are let in by `method`.
    fn look_along(&mut self, method: Option<Method>, host: &Host, seen: &Assessment) {
        let (true, Some(method), Some(attachment)) = (self.order.proof.watch, method, &seen.attachment)
        else {
            return;
        };
        let path = CapturePath::of(attachment, method);
        match &mut self.observer {
            Some(observer) => observer.follow(path),
            None => {
                let (witness, mac) = (host.witness.clone(), self.order.target.mac);
                self.observer = Some(Observer::new(witness, self.began, mac, &self.frames, path));
            }
        }
    }

    /// Waits for its turn in the host's quota, unless it is to end meanwhile, or the guest does something else.
    async fn take_turn(&mut self, host: &Host, signals: &mut Signals) {
        let Some(pace) = host.pace.as_ref().filter(|_| !self.order.dry_run) else {
            self.has_turn = true;
            return;
        };
        tokio::select! {
            () = pace.turn(Part::announcements(self.machine.progress().attempts()), self.frames.len()) => self.has_turn = true,
            Ok(()) = signals.guest.changed() => {}
            Ok(()) = signals.stop.changed() => {}
            Ok(()) = order_changed(&mut signals.order) => {}
        }
    }

    /// Sends a round's announcements; returns whether they have left, as far as anybody can see.
    async fn send(&mut self, host: &Host, seen: &Assessment, signals: &mut Signals) -> bool {
        self.has_turn = false;
        let frames = self.round();
        let sent = tokio::select! {
            sent = self.climb(&frames, host, seen) => sent,
            // What the guest is, or why it is to end, is looked at next.
            () = must_stop(signals) => return false,
        };
        match sent {
            Ok(()) => {
                let at = self.now();
                frames.iter().for_each(|frame| self.tally.add(frame.kind));
                self.record(at, &frames);
                let round = self.judge(at, host, seen).await;
                self.machine.sent(round);
                self.monitor_flows(host);
                round.left
            }
            Err(error) => {
                // The report tells the last one.
                tracing::debug!("{}: {error}", self.order.target.mac);
                self.way = None;
                match error.is_transient() {
                    true => {
                        self.machine.lacks_a_way(error.to_string());
                        self.lack(&error);
                    }
                    false => self.machine.failed(self.now(), error.to_string()),
                }
                false
            }
        }
    }

    /// Sends the round by the way that was made ready, or else by the next one that works.
    async fn climb(&mut self, frames: &[Frame], host: &Host, seen: &Assessment) -> Result<(), InjectorError> {
        self.observer.iter_mut().for_each(|observer| observer.begin_some(frames));
        if self.order.dry_run {
            return Ok(());
        }
        let Some(mut way) = self.way.clone() else {
            return Err(InjectorError::Unavailable(Vec::new()));
        };
        loop {
            let Err(error) = host.injectors.send(&way, frames).await else {
                self.way = Some(way);
                return Ok(());
            };
            let rung = self.offered.iter().position(|offered| *offered == way);
            let below = rung.map_or(&[][..], |rung| &self.offered[rung + 1..]);
            match host.injectors.prepare(below, self.order.inject).await {
                Ok(next) => way = next,
                Err(_) => return Err(error),
            }
            tracing::debug!("{}: {error}; trying {}", self.order.target.mac, way.method());
            let now = self.now();
            self.lacking.get_or_insert_with(|| Lacking::new(now)).pause(now);
            self.look_along(Some(way.method()), host, seen);
            self.observer.iter_mut().for_each(Observer::look_on);
        }
    }

    /// Sends a round's questions, when all others' announcements of that round have had their turn. What becomes of them changes
    /// nothing about the announcement.
    async fn ask_routers(&mut self, host: &Host, seen: &Assessment, signals: &mut Signals) {
        let questions = self.asking.round(&self.order, host, seen, self.now()).await;
        let frames: Vec<Frame> = questions.iter().filter_map(|q| q.frame(self.order.target.mac)).collect();
        if frames.is_empty() {
            return;
        }
        if let (Some(pace), false) = (&host.pace, self.order.dry_run) {
            let attempt = self.machine.progress().attempts().saturating_sub(1);
            tokio::select! {
                () = pace.turn(Part::questions(attempt), frames.len()) => {}
                () = must_stop(signals) => return,
            }
        }
        let device = seen.attachment.as_ref().and_then(|attachment| attachment.entry.ifindex);
        self.observer.iter_mut().for_each(|observer| observer.ask(&questions, device));
        let at = self.now();
        let send = async {
            match &self.way {
                Some(way) if !self.order.dry_run => host.injectors.send(way, &frames).await,
                _ => Ok(()),
            }
        };
        let sent = tokio::select! {
            sent = send => sent,
            () = must_stop(signals) => return,
        };
        match sent {
            Ok(()) => {
                frames.iter().for_each(|frame| self.tally.add(frame.kind));
                self.record(at, &frames);
                if let Some(observer) = &mut self.observer {
                    observer.asked().await;
                }
            }
            Err(error) => tracing::debug!("{}: cannot ask: {error}", self.order.target.mac),
        }
    }

    /// The frames of the next round: of one that is tried again for long, one ARP announcement, NA and RARP for each address.
    fn round(&self) -> Vec<Frame> {
        let is_spared = |frame: &&Frame| {
            let is_other_form = |other: &Frame| other.kind == Kind::ArpRequest && other.ip == frame.ip;
            frame.kind == Kind::ArpReply && self.frames.iter().any(is_other_form)
        };
        let is_sparing = self.machine.is_sparing();
        self.frames.iter().filter(|frame| !(is_sparing && is_spared(frame))).cloned().collect()
    }

    async fn judge(&mut self, at: Duration, host: &Host, seen: &Assessment) -> Round {
        let Some(observer) = &mut self.observer else {
            return Round { at, left: true, answered: true };
        };
        let mut fate = observer.judge().await;
        // Open vSwitch is asked only after the frames were sent: its answer must not delay them.
        let unjudged: Vec<Frame> = observer.proof.unjudged().into_iter().cloned().collect();
        for frame in unjudged.iter().filter(|_| fate != RoundFate::Left) {
            let Some(verdict) = diagnose::fresh_verdict(host, seen, frame).await else {
                break;
            };
            observer.proof.judged(frame.kind, &verdict);
        }
        if !unjudged.is_empty() {
            fate = observer.proof.fate();
        }
        if fate == RoundFate::Lost {
            return Round { at, left: false, answered: false };
        }
        let answered = fate == RoundFate::Unseen || observer.is_answered();
        // A frame may have left before we were told that it was sent.
        let at = observer.proof.departure().map_or(at, |left| at.min(left.at));
        Round { at, left: true, answered }
    }

    /// Hears of changes to the flows on the way for as long as something is lost there.
    fn monitor_flows(&mut self, host: &Host) {
        let observer = self.observer.as_ref().filter(|_| self.machine.is_lost());
        let bridges: Vec<String> =
            observer.map(|observer| observer.proof.path().ovs_bridges()).unwrap_or_default();
        if self.flows.as_ref().map_or(&[][..], Monitored::bridges) != bridges {
            self.flows = (!bridges.is_empty()).then(|| host.flows.monitor(bridges));
        }
    }

    /// Open vSwitch may learn half a second later from a frame that took a cached flow. It may also unlearn what it has learned
    /// from the first frame: the last word is that at the end.
    async fn ask_who_learned(&mut self, host: &Host, seen: &Assessment) {
        let progress = self.machine.progress();
        let is_settled = |known: &Learned| matches!(known, Learned::Here(_));
        let was_settled = self.learned.as_ref().is_some_and(|(known, _)| is_settled(known));
        let is_due = match progress.outcome {
            None => !was_settled && progress.rounds > 0,
            Some(outcome) => outcome == Outcome::Announced,
        };
        if let (Some(_), true, Some(frame)) = (&self.observer, is_due, self.frames.first()) {
            let learned = diagnose::learned(host, seen, self.order.target.mac, frame).await;
            // When it was learned first is the time to tell.
            if !(was_settled && learned.as_ref().is_none_or(is_settled)) {
                self.learned = learned.map(|learned| (learned, self.now()));
            }
        }
    }

    fn record(&self, now: Duration, frames: &[Frame]) {
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

    async fn wait(&mut self, until: Duration, host: &mut Host, signals: &mut Signals) {
        if self.supposed.is_some() {
            self.supposed = Some(until);
            return;
        }
        let deadline = self.began + until;
        let mut has_changed = false;
        let lost = tokio::select! {
            changed = host.links.changed() => {
                has_changed = true;
                changed.is_err()
            }
            changed = host.ovs.changed() => {
                has_changed = true;
                changed.is_err()
            }
            // Who never had a guest to watch has nobody to tell of it.
            Ok(()) = signals.guest.changed() => false,
            Ok(()) = signals.stop.changed() => false,
            () = flows_change(&mut self.flows) => {
                has_changed = true;
                false
            }
            Ok(()) = order_changed(&mut signals.order) => false,
            () = see(&mut self.observer) => false,
            prepared = made_ready(&mut self.preparing) => {
                self.prepared(prepared, self.machine.is_ready());
                false
            }
            () = tokio::time::sleep_until(deadline) => false,
        };
        if has_changed {
            let now = self.now();
            self.machine.changed(now);
        }
        if lost {
            self.machine.give_up("lost sight of the host's devices".into());
        }
    }

    async fn report(self, host: &Host, seen: &Assessment) -> Report {
        let (order, progress) = (&self.order, self.machine.progress());
        let sent = progress.first_frame_at.is_some();
        let evidence = match self.observer.as_ref().filter(|_| sent) {
            Some(observer) => observer.evidence(host, seen).await.with_learned(self.learned.as_ref()),
            None => Evidence::default(),
        };
        let lost = progress.outcome == Some(Outcome::Failed) && progress.error.is_none();
        let lost = lost.then(|| match evidence.stuck.join("; ") {
            // What nobody waited for has left after all.
            stuck if stuck.is_empty() => "no frame was seen to leave the host in time".into(),
            stuck => format!("no frame left the host: {stuck}"),
        });
        Report {
            frames: self.tally,
            evidence: Evidence { lost_rounds: progress.lost, ..evidence },
            injector: self.way.map(|way| way.method()),
            dry_run: order.dry_run,
            error: progress.error.clone().or(lost),
            event_at: Some(wall_clock(self.began)),
            ended_at: Some(wall_clock(Instant::now())),
            ..Report::new(&order.target, order.addresses.clone(), order.cause, seen, progress)
        }
    }
}

/// Returns when there is another order, which stays to be taken.
async fn order_changed(order: &mut watch::Receiver<Arc<Order>>) -> Result<(), watch::error::RecvError> {
    order.changed().await.inspect(|()| order.mark_changed())
}

/// Returns when the guest does not run any more, or the announcement is to end.
async fn must_stop(signals: &mut Signals) {
    tokio::select! {
        () = comes(&mut signals.guest, |guest| *guest != GuestState::Running) => {}
        () = comes(&mut signals.stop, Option::is_some) => {}
    }
}

/// Waits for a value; for ever, where none comes any more.
async fn comes<T>(receiver: &mut watch::Receiver<T>, is_it: impl FnMut(&T) -> bool) {
    if receiver.wait_for(is_it).await.is_err() {
        std::future::pending().await
    }
}

/// Waits for a change to the flows on the way, where they are monitored.
async fn flows_change(flows: &mut Option<Monitored>) {
    match flows {
        Some(flows) => flows.changed().await,
        None => std::future::pending().await,
    }
}

/// Waits for a way in to be made ready.
async fn made_ready(preparing: &mut Option<Preparing>) -> Result<Way, InjectorError> {
    match preparing {
        Some(preparing) => preparing.await,
        None => std::future::pending().await,
    }
}

/// Lets the observer see what passes between two rounds, for as long as that is waited for.
async fn see(observer: &mut Option<Observer>) {
    match observer {
        Some(observer) => loop {
            observer.see().await;
        },
        None => std::future::pending().await,
    }
}

/// A moment by the wall clock (RFC 3339, UTC, milliseconds).
fn wall_clock(at: Instant) -> String {
    let at = std::time::SystemTime::now() - at.elapsed();
    jiff::Timestamp::try_from(at).map(|at| format!("{at:.3}")).unwrap_or_default()
}
