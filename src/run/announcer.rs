//! Runs announcements: observes the host, asks the state machine for the next step, and carries it out.

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

/// The pauses between attempts to prepare an injection method while none works.
const MIN_RETRY: Duration = Duration::from_millis(1);
const MAX_RETRY: Duration = Duration::from_millis(100);
/// Longer than any preparation, which has a time-out of its own.
const PREPARE_TIMEOUT: Duration = Duration::from_secs(60);

/// The inputs that direct, end or pause an announcement.
#[derive(Debug, Clone)]
pub(crate) struct Signals {
    /// The order; a new one applies while the announcement waits.
    pub order: watch::Receiver<Arc<Order>>,
    /// The guest's state.
    pub guest: watch::Receiver<GuestState>,
    /// The reason to end, if any.
    pub stop: watch::Receiver<Option<Stop>>,
}

/// Why an announcement must end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// The program ends.
    Interrupted,
    /// Another announcement replaces it.
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
        reported: String::new(),
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
        run.suppose_now();
        run.report_unmet(&seen);
        run.prepare(&host, &seen).await;
        run.watch_path(run.way.as_ref().map(Way::method), &host, &seen);
        match run.machine.step(run.now()) {
            Step::Send if run.lacks_a_way() => run.wait(run.next_attempt(), &mut host, &mut signals).await,
            // Much may change before its turn: observe again then.
            Step::Send if !run.has_turn => run.take_turn(&host, &mut signals).await,
            Step::Send => {
                if run.send(&host, &seen, &mut signals).await {
                    run.ask_routers(&host, &seen, &mut signals).await;
                }
                run.look_up_learned(&host, &seen).await;
            }
            Step::WaitUntil(at) => run.wait(at, &mut host, &mut signals).await,
            Step::Warn(overdue) => Box::pin(run.warn(overdue, &host, &seen)).await,
            // Boxed, so that waiting announcements, perhaps thousands, reserve no space for it.
            Step::Done => return Box::pin(run.report(&host, &seen)).await,
        }
    }
}

struct Run {
    order: Arc<Order>,
    machine: Announcement,
    frames: Vec<Frame>,
    way: Option<Way>,
    /// The methods on offer when `way` was chosen, best first.
    offered: Vec<Way>,
    /// The preparation of one of them.
    preparing: Option<Preparing>,
    /// The best method, or every one, could not be prepared, or has failed.
    lacking: Option<Lacking>,
    /// Captures the frames.
    observer: Option<Observer>,
    /// The FDB entry of the guest, and when it was looked up.
    learned: Option<(Learned, Duration)>,
    tally: Tally,
    asking: Asking,
    /// Tells of changes to the flows on the way, while something is lost.
    flows: Option<Monitored>,
    /// The next round may be sent.
    has_turn: bool,
    /// The last unmet conditions that were logged.
    reported: String,
    /// Where its unmet conditions are published.
    place: Place,
    began: Instant,
    /// The simulated time of a dry run, once the port is ready.
    supposed: Option<Duration>,
}

type Preparing = Pin<Box<dyn Future<Output = Result<Way, InjectorError>> + Send>>;

/// The best method, or every one, does not work now but may work later: ovs-vswitchd may be starting.
struct Lacking {
    why: String,
    since: Duration,
    retry_at: Duration,
    backoff: Backoff,
    is_warned_of: bool,
}

impl Lacking {
    fn new(now: Duration) -> Lacking {
        let backoff = Backoff::new(MIN_RETRY, MAX_RETRY);
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

    /// Leaves the real clock in a dry run, so that no round is late.
    fn suppose_now(&mut self) {
        if self.order.dry_run && self.supposed.is_none() {
            self.supposed = self.machine.progress().ready_at;
        }
    }

    /// Prepares a method as soon as the path is known, so that no work is left when the port is ready. Does not wait for a
    /// bridge.
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
            self.watch_path(ways.first().map(Way::method), host, seen);
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
            // The better method is tried again later.
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
            // A missing socket may still appear before the port is ready.
            (Err(_), None) if !is_ready => {}
            (Err(error), _) => self.lack(&error),
        }
    }

    /// No method works: preparation is repeated for as long as a port may take to become ready, if that can help.
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

    /// When the methods are tried next, unless the one in preparation reports earlier.
    fn next_attempt(&self) -> Duration {
        match (&self.preparing, &self.lacking) {
            // The preparation has a time-out of its own.
            (Some(_), _) => self.now().saturating_add(PREPARE_TIMEOUT),
            (None, Some(lacking)) => lacking.retry_at,
            (None, None) => Duration::ZERO,
        }
    }

    /// Starts watching the path of frames injected by `method`.
    fn watch_path(&mut self, method: Option<Method>, host: &Host, seen: &Assessment) {
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

    /// Waits for a turn in the host's quota, unless the announcement must end or the guest changes its state.
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

    /// Sends a round's announcements; returns whether they left, as far as that can be seen.
    async fn send(&mut self, host: &Host, seen: &Assessment, signals: &mut Signals) -> bool {
        self.has_turn = false;
        let frames = self.round();
        let sent = tokio::select! {
            sent = self.send_by_any_way(&frames, host, seen) => sent,
            // The loop checks the guest's state and the stop signal next.
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
                // The report has the last error.
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

    /// Sends the round by the prepared method, or by the next one that works.
    async fn send_by_any_way(
        &mut self,
        frames: &[Frame],
        host: &Host,
        seen: &Assessment,
    ) -> Result<(), InjectorError> {
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
            self.watch_path(Some(way.method()), host, seen);
            self.observer.iter_mut().for_each(Observer::look_on);
        }
    }

    /// Sends a round's questions, after all announcements of that round had their turn. Their result does not affect the
    /// announcement.
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

    /// The frames of the next round. A round that is retried for long has one ARP announcement, NA and RARP per address.
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
        // Open vSwitch is asked after the frames were sent: its answer must not delay them.
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
        // A frame may leave before the injector returns.
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

    /// Looks up the guest's FDB entry. Open vSwitch may learn half a second later from a frame that hits a cached flow, and
    /// may lose an entry made by the first frame, so the look-up at the end decides.
    async fn look_up_learned(&mut self, host: &Host, seen: &Assessment) {
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
            // An order without a guest (--dev) has no state changes.
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
            // The frames may have left after we stopped watching.
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

/// Returns when the guest no longer runs or the announcement must end.
async fn must_stop(signals: &mut Signals) {
    tokio::select! {
        () = changes_to(&mut signals.guest, |guest| *guest != GuestState::Running) => {}
        () = changes_to(&mut signals.stop, Option::is_some) => {}
    }
}

/// Waits for a value that satisfies `is_wanted`; for ever if the sender is gone.
async fn changes_to<T>(receiver: &mut watch::Receiver<T>, is_wanted: impl FnMut(&T) -> bool) {
    if receiver.wait_for(is_wanted).await.is_err() {
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

/// Waits for a preparation to end.
async fn made_ready(preparing: &mut Option<Preparing>) -> Result<Way, InjectorError> {
    match preparing {
        Some(preparing) => preparing.await,
        None => std::future::pending().await,
    }
}

/// Lets the observer record frames between two rounds, for as long as that matters.
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
