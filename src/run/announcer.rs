//! Runs announcements: observes the host, asks the state machine for the next step, and carries it out.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::announcement::failure::Failure;
use crate::announcement::frame::Frame;
use crate::announcement::injection::Way;
use crate::announcement::machine::{Announcement, Step};
use crate::announcement::progress::Outcome;
use crate::announcement::query::Queries;
use crate::guest::GuestState;
use crate::host::injector::InjectorError;
use crate::host::openvswitch::flow_monitor::Monitored;
use crate::path::readiness::Assessment;
use crate::report::Report;
use crate::report::evidence::{Evidence, Learned, Tally, millis};
use crate::report::guest_announcement::GuestAnnouncement;
use crate::report::multicast::Multicast;
use crate::report::names::error_code;
use crate::run::asking::Asking;
use crate::run::guest_asker;
use crate::run::host::Host;
use crate::run::interests::Interest;
use crate::run::lacking::{Lacking, Unsent};
use crate::run::link_query;
use crate::run::observer::Observer;
use crate::run::order::Order;
use crate::run::showing::Shown;
use crate::run::signals::{Direction, Signals, Stop};
use crate::run::waiting::Waiting;
use crate::run::wall_clock;

mod asking_guest;
mod patience;
mod preparing;
mod proving;
mod querying;
mod sending;
#[cfg(test)]
mod tests;

/// A round that is overdue for so long when its time is noticed: this process, or the host, stood still.
const STANDSTILL: Duration = Duration::from_millis(100);
/// What has happened meanwhile, the guest's departure perhaps, is heard before a round is sent.
const HEARING_TIME: Duration = Duration::from_millis(20);

/// Carries out an order for an event at `began`, until it is announced or cannot be.
pub(crate) async fn announce(host: Arc<Host>, signals: Signals, began: Instant) -> Box<Report> {
    let mut waiting = Waiting::new(&host, signals, began);
    while let Some(until) = waiting.look(&host) {
        waiting.pause(until).await;
    }
    carry_out(host, waiting).await
}

/// The same from when there is more to do than to wait for the port to exist.
pub(crate) async fn carry_out(host: Arc<Host>, waiting: Waiting) -> Box<Report> {
    waiting.signals.leave_queue();
    let mut run = Run::new(&waiting);
    let Waiting { signals, mut interest, shown, .. } = waiting;
    run.shown = shown;
    run.must_have_frames();
    loop {
        // Boxed, so that announcements that wait, perhaps thousands, reserve no space for all that it may do.
        match Box::pin(run.go_on(&host, &mut interest, &signals)).await {
            Next::Wait(until) => run.wait(until, &host, &signals).await,
            Next::End(report) => return report,
        }
    }
}

/// What follows when nothing is due any more.
enum Next {
    /// Another look at the host at this moment, or when something changes.
    Wait(Duration),
    End(Box<Report>),
}

struct Run {
    order: Arc<Order>,
    machine: Announcement,
    frames: Arc<[Frame]>,
    way: Option<Way>,
    /// The methods on offer when `way` was chosen, best first.
    offered: Vec<Way>,
    /// The preparation of one of them.
    preparing: Option<Preparing>,
    /// The look for which a method was prepared and its path is watched.
    prepared_for: Option<Arc<Assessment>>,
    /// The best method, or every one, could not be prepared, or has failed.
    lacking: Option<Lacking>,
    unsent: Option<Unsent>,
    /// Captures the frames.
    observer: Option<Box<Observer>>,
    /// The FDB entry of the guest, and when it was looked up.
    learned: Option<(Learned, Duration)>,
    tally: Tally,
    asking: Asking,
    queries: Queries,
    multicast: Multicast,
    /// The request to have the guest announce itself, and the answer that is to come.
    guest_announcement: Option<GuestAnnouncement>,
    guest_answer: Option<guest_asker::Answer>,
    /// Tells of changes to the flows on the way, while something is lost or the best method does not work.
    flows: Option<Monitored>,
    /// The next round may be sent.
    has_turn: bool,
    /// The last look, if it found the port ready.
    last_look: Option<Look>,
    /// What was shown last.
    shown: Shown,
    /// Why rounds were lost, and when that was found out.
    lost_why: Option<(String, Duration)>,
    /// Whether the guest's link is up by now.
    link: Option<link_query::Answer>,
    /// The last look for a route of this host to the guest.
    routes_at: Option<Duration>,
    began: Instant,
    /// The simulated time of a dry run, once the port is ready.
    supposed: Option<Duration>,
}

/// A look at the host.
struct Look {
    seen: Arc<Assessment>,
    /// What it was for.
    guest: GuestState,
    order: Arc<Order>,
    /// How often something that concerns it had changed then.
    changes: u64,
}

type Preparing = Pin<Box<dyn Future<Output = Result<Way, InjectorError>> + Send>>;

impl Run {
    fn new(waiting: &Waiting) -> Run {
        let order = waiting.signals.order();
        Run {
            frames: order.round().into(),
            machine: waiting.machine(&order),
            order,
            way: None,
            offered: Vec::new(),
            preparing: None,
            prepared_for: None,
            lacking: None,
            unsent: None,
            observer: None,
            learned: None,
            tally: Tally::default(),
            asking: Asking::default(),
            queries: Queries::default(),
            multicast: Multicast::default(),
            guest_announcement: None,
            guest_answer: None,
            flows: None,
            has_turn: false,
            last_look: None,
            shown: Shown::default(),
            lost_why: None,
            link: None,
            routes_at: None,
            began: waiting.began,
            supposed: None,
        }
    }

    /// Takes a reason to end, or a new order; returns the guest's state.
    fn heed(&mut self, signals: &Signals) -> GuestState {
        let Direction { order, guest, stop } = signals.take();
        match stop {
            Some(Stop::Interrupted) => self.machine.cancel(Some(Failure::Interrupted), "interrupted"),
            Some(Stop::Superseded) => self.machine.supersede(),
            Some(Stop::LeftOut) => self
                .machine
                .cancel(Some(Failure::Excluded), "the configuration excludes it (announce = false)"),
            Some(Stop::Relieved) => self.machine.relieve(),
            Some(Stop::Kept) => self.machine.cancel(Some(Failure::Kept), "it runs on at its source"),
            None => {}
        }
        if let Some(order) = order {
            self.follow(order);
        }
        guest
    }

    /// Does all that is due.
    async fn go_on(&mut self, host: &Host, interest: &mut Interest, signals: &Signals) -> Next {
        loop {
            if let Some(next) = self.look_and_act(host, interest, signals).await {
                return next;
            }
        }
    }

    /// Looks at the host, and does what is due; returns what follows, if it is not another look.
    async fn look_and_act(
        &mut self,
        host: &Host,
        interest: &mut Interest,
        signals: &Signals,
    ) -> Option<Next> {
        let guest = self.heed(signals);
        let seen = self.look(host, guest, interest);
        self.machine.observe(self.now(), &seen);
        self.leave_out(&seen);
        if !self.machine.is_ready() {
            self.observer.iter_mut().for_each(|observer| observer.found.proof.suspend());
            self.unsent = None;
        }
        self.suppose_now();
        self.heed_foreign(host, &seen).await;
        self.show(&seen, signals);
        self.ask_for_the_link(&seen);
        self.look_for_routes(host, &seen).await;
        self.prepare(host, &seen).await;
        self.query_guest(host, &seen, signals).await;
        self.ask_guest(host);
        self.heed_silence();
        match self.machine.step(self.now()) {
            Step::Send if self.lacks_a_way() => return Some(Next::Wait(self.next_attempt())),
            // Much may change before its turn: observe again then.
            Step::Send if !self.has_turn => self.take_turn(host, signals).await,
            Step::Send => {
                if self.send(host, &seen, signals).await {
                    self.ask_routers(host, &seen, signals).await;
                }
                self.look_up_learned(host, &seen).await;
            }
            Step::WaitUntil(at) => {
                return Some(Next::Wait(self.next_query().map_or(at, |due| due.min(at))));
            }
            Step::Warn(overdue) => self.warn(overdue, host, &seen).await,
            Step::Done => return Some(Next::End(Box::new(self.report(host, &seen).await))),
        }
        None
    }

    /// Looks at the host. What a look has found ready stays so until something that concerns it changes.
    fn look(&mut self, host: &Host, guest: GuestState, interest: &mut Interest) -> Arc<Assessment> {
        let changes = interest.changes(&host.links.borrow(), &host.ovs.borrow());
        let is_same = |last: &&Look| {
            last.guest == guest && Some(last.changes) == changes && Arc::ptr_eq(&last.order, &self.order)
        };
        if let Some(last) = self.last_look.as_ref().filter(is_same) {
            return last.seen.clone();
        }
        let seen = Arc::new(self.order.look(host, guest));
        interest.follow(&self.order.target, &seen);
        self.last_look = changes.filter(|_| seen.is_ready()).map(|changes| Look {
            seen: seen.clone(),
            guest,
            order: self.order.clone(),
            changes,
        });
        seen
    }

    fn now(&self) -> Duration {
        self.supposed.unwrap_or_else(|| self.began.elapsed())
    }

    /// Leaves the real clock in a dry run, so that no round is late.
    fn suppose_now(&mut self) {
        if self.order.settings.dry_run && self.supposed.is_none() {
            self.supposed = self.machine.progress().ready_at;
        }
    }

    async fn wait(&mut self, until: Duration, host: &Host, signals: &Signals) {
        if self.supposed.is_some() {
            self.supposed = Some(until);
            return;
        }
        let deadline = match &host.pace {
            Some(pace) if self.machine.progress().rounds > 0 => pace.with_others(self.began + until),
            _ => self.began + until,
        };
        let mut has_changed = false;
        tokio::select! {
            () = signals.woken() => {}
            () = flows_change(&mut self.flows) => has_changed = true,
            () = see(&mut self.observer) => {}
            prepared = made_ready(&mut self.preparing) => {
                let is_ready = self.machine.is_ready();
                self.prepared(prepared, is_ready);
            }
            is_up = told(&mut self.link) => self.link_is(is_up),
            answer = asking_guest::answered(&mut self.guest_answer) => self.guest_answered(answer),
            () = tokio::time::sleep_until(deadline) => {}
        }
        if deadline.elapsed() >= STANDSTILL {
            tokio::time::sleep(HEARING_TIME).await;
        }
        if signals.take_host_change() || has_changed {
            let now = self.now();
            self.machine.changed(now);
        }
        if host.links.has_changed().is_err() {
            self.machine.give_up(Failure::Netlink, "lost sight of the host's devices".into());
        }
    }

    async fn report(&mut self, host: &Host, seen: &Assessment) -> Report {
        let (order, progress) = (&self.order, self.machine.progress());
        let sent = progress.first_frame_at.is_some();
        let evidence = match self.observer.as_mut().filter(|_| sent) {
            Some(observer) => observer.evidence(host, seen, order).await.with_learned(self.learned.as_ref()),
            None => Evidence::default(),
        };
        let multicast = (order.queries > 0 && progress.rounds > 0).then(|| self.multicast.clone());
        let by_itself = self.observer.as_ref().and_then(|observer| observer.by_itself());
        let guest_announcement = self.guest_announcement.clone().map(|asked| match by_itself {
            Some(own) => asked.with_own(own.first().map(millis), own.addresses()),
            None => asked,
        });
        let evidence = Evidence { guest_announcement, ..evidence.with_multicast(multicast) };
        let lost = progress.outcome == Some(Outcome::Failed) && progress.error.is_none();
        let lost = lost.then(|| match evidence.stuck.join("; ") {
            // The frames may have left after we stopped watching.
            stuck if stuck.is_empty() => "no frame was seen to leave the host in time".into(),
            stuck => format!("no frame left the host: {stuck}"),
        });
        let report = Report {
            frames: self.tally,
            evidence: Evidence { lost_rounds: progress.lost, ..evidence },
            injector: self.way.as_ref().map(Way::method),
            dry_run: order.settings.dry_run,
            error: progress.error.clone().or(lost),
            event_at: Some(wall_clock::at(self.began)),
            ended_at: Some(wall_clock::now()),
            source_stopped_after_ms: order.source_stopped.map(|before| -millis(before)),
            ..Report::new(&order.target, order.addresses.to_vec(), order.cause, seen, progress)
        };
        let notes = report.notes();
        Report { notes, ..report }.named(error_code(progress))
    }
}

/// Waits for a change to the flows on the way, where they are monitored.
async fn flows_change(flows: &mut Option<Monitored>) {
    match flows {
        Some(flows) => flows.changed().await,
        None => std::future::pending().await,
    }
}

/// Waits for the answer to a question, if there is one.
async fn told(answer: &mut Option<link_query::Answer>) -> Option<bool> {
    match answer {
        Some(answer) => answer.await,
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

/// Lets the observer record frames between two rounds; returns when one may be of another host.
async fn see(observer: &mut Option<Box<Observer>>) {
    match observer {
        // Most announcements that wait have none yet.
        Some(observer) => Box::pin(observer.see_others()).await,
        None => std::future::pending().await,
    }
}
