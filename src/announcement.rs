//! One announcement as a state machine: it is told what is seen and done, and says what to do next.
//!
//! Time is a [`Duration`] since the event that asked for the announcement. Nothing here waits, sends or looks at a
//! clock: the announcer does, and reports back.
//!
//! ```text
//!            ready                    last round sent
//! Waiting ──────────► Announcing ─────────────────────► Done(announced | failed)
//!    │                   │ gone ─────────────────────► Done(cancelled)
//!    └─ deadline ────────┴─ not ready for too long ───► Done(not-ready)
//! ```

use std::collections::VecDeque;
use std::time::Duration;

use serde::Serialize;

use crate::readiness::{Assessment, Condition};
use crate::schedule::Schedule;

/// How long a port that became ready is left alone when its change did not say when ovs-vswitchd has carried it out.
///
/// It takes about 1.5 ms on an idle host (facts/injection.md section 18). A frame that is sent before would leave untagged, or
/// be lost.
pub const UNCOUNTED_CHANGE: Duration = Duration::from_millis(20);

/// How an announcement ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Every round was sent.
    Announced,
    /// The port did not become ready in time.
    NotReady,
    /// The guest left, or somebody stopped us.
    Cancelled,
    /// Another announcement of the same NIC took its place.
    Superseded,
    /// The frames could not be sent.
    Failed,
}

impl Outcome {
    /// Every outcome.
    pub const ALL: [Outcome; 5] =
        [Outcome::Announced, Outcome::NotReady, Outcome::Cancelled, Outcome::Superseded, Outcome::Failed];

    /// The word for it in output.
    pub fn word(self) -> &'static str {
        match self {
            Outcome::Announced => "announced",
            Outcome::NotReady => "not-ready",
            Outcome::Cancelled => "cancelled",
            Outcome::Superseded => "superseded",
            Outcome::Failed => "failed",
        }
    }
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Nothing before this moment, unless something is observed.
    WaitUntil(Duration),
    /// Send a round now, and tell by [`Announcement::sent`] or [`Announcement::failed`].
    Send,
    /// Nothing any more.
    Done,
}

/// What an announcement has come to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Progress {
    /// When the port was first ready.
    pub ready_at: Option<Duration>,
    /// When the first frame was sent.
    pub first_frame_at: Option<Duration>,
    /// Rounds that were sent.
    pub rounds: u32,
    /// What was missing when it was last looked at.
    pub unmet: Vec<Condition>,
    /// What went wrong.
    pub error: Option<String>,
    /// How it ended, once it has.
    pub outcome: Option<Outcome>,
}

/// One announcement.
#[derive(Debug)]
pub struct Announcement {
    schedule: Schedule,
    patience: Duration,
    /// The last moment at which it may become ready.
    deadline: Duration,
    /// Rounds to come; empty until ready.
    due: VecDeque<Duration>,
    waited: bool,
    progress: Progress,
}

impl Announcement {
    /// An announcement that sends by `schedule` once the port is ready, and waits at most `patience` for that.
    pub fn new(schedule: Schedule, patience: Duration) -> Self {
        Announcement {
            schedule,
            patience,
            deadline: patience,
            due: VecDeque::new(),
            waited: false,
            progress: Progress::default(),
        }
    }

    /// What it has come to.
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// The host or the guest was looked at.
    pub fn observe(&mut self, now: Duration, seen: &Assessment) {
        if self.progress.outcome.is_some() {
            return;
        }
        let was_ready = self.progress.unmet.is_empty();
        self.progress.unmet = seen.unmet.clone();
        match self.progress.ready_at {
            _ if seen.has_left() => self.cancel(&words(&seen.unmet)),
            None if seen.is_ready() => self.become_ready(now, seen.counted),
            None => self.waited = true,
            Some(_) if seen.is_gone() => self.cancel(&words(&seen.unmet)),
            Some(_) => {
                // Without OVSDB, or before ovs-vswitchd has followed it, nothing new can be said of a port that was ready.
                self.progress
                    .unmet
                    .retain(|c| !matches!(c, Condition::NoOvsdb { .. } | Condition::NotApplied { .. }));
                if was_ready {
                    self.deadline = now.saturating_add(self.patience);
                } else if self.progress.unmet.is_empty() {
                    self.resume(now);
                }
            }
        }
    }

    /// The rest of the schedule goes on from here: rounds that were missed are not sent all at once.
    fn resume(&mut self, now: Duration) {
        let late = self.due.front().map_or(Duration::ZERO, |due| now.saturating_sub(*due));
        self.due.iter_mut().for_each(|due| *due = due.saturating_add(late));
    }

    fn become_ready(&mut self, now: Duration, counted: bool) {
        let hold = if self.waited && !counted { UNCOUNTED_CHANGE } else { Duration::ZERO };
        self.progress.ready_at = Some(now);
        self.due = self.schedule.offsets().map(|offset| now.saturating_add(hold + offset)).collect();
    }

    /// A round was sent.
    pub fn sent(&mut self, now: Duration) {
        self.due.pop_front();
        self.progress.first_frame_at.get_or_insert(now);
        self.progress.rounds += 1;
        self.progress.error = None;
        if self.due.is_empty() {
            self.progress.outcome = Some(Outcome::Announced);
        }
    }

    /// A round could not be sent; the next one is tried all the same.
    pub fn failed(&mut self, why: String) {
        self.due.pop_front();
        self.progress.error = Some(why);
        if self.due.is_empty() {
            self.progress.outcome = Some(Outcome::Failed);
        }
    }

    /// No round can ever be sent.
    pub fn give_up(&mut self, why: String) {
        if self.progress.outcome.is_none() {
            self.progress.error = Some(why);
            self.progress.outcome = Some(Outcome::Failed);
        }
    }

    /// The guest left, or somebody wants it to end.
    pub fn cancel(&mut self, why: &str) {
        if self.progress.outcome.is_none() {
            let rounds = (self.progress.rounds, self.schedule.count);
            self.progress.error = Some(format!("{why} (after {} of {} rounds)", rounds.0, rounds.1));
            self.progress.outcome = Some(Outcome::Cancelled);
        }
    }

    /// Another announcement takes its place.
    pub fn supersede(&mut self) {
        self.progress.outcome.get_or_insert(Outcome::Superseded);
    }

    /// What to do at `now`.
    pub fn step(&mut self, now: Duration) -> Step {
        if self.progress.outcome.is_some() {
            return Step::Done;
        }
        if self.progress.ready_at.is_none() || !self.progress.unmet.is_empty() {
            if now < self.deadline {
                return Step::WaitUntil(self.deadline);
            }
            self.progress.outcome = Some(Outcome::NotReady);
            return Step::Done;
        }
        match self.due.front() {
            Some(due) if now < *due => Step::WaitUntil(*due),
            Some(_) => Step::Send,
            None => Step::Done,
        }
    }
}

fn words(conditions: &[Condition]) -> String {
    conditions.iter().map(Condition::to_string).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::readiness::InCharge;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    fn seen(unmet: Vec<Condition>, ofport: Option<u32>) -> Assessment {
        Assessment {
            attachment: None,
            ofport,
            counted: true,
            in_charge: (InCharge::Nobody, String::new()),
            vlan: None,
            unmet,
        }
    }

    fn ready() -> Assessment {
        seen(vec![], None)
    }

    fn no_tag() -> Assessment {
        let port = "tap0".into();
        let tag = Condition::Tag { port, tag: None, wanted: None };
        seen(vec![tag], Some(1))
    }

    fn gone() -> Assessment {
        seen(vec![Condition::NoDevice { device: "tap0".into() }], None)
    }

    fn two_rounds() -> Announcement {
        let schedule = Schedule { count: 2, ..Schedule::default() };
        Announcement::new(schedule, ms(1000))
    }

    #[test]
    fn a_ready_port_is_announced_at_once_and_by_schedule() {
        let mut it = two_rounds();
        it.observe(ms(1), &ready());
        assert_eq!(it.step(ms(1)), Step::Send);
        it.sent(ms(2));
        assert_eq!(it.step(ms(2)), Step::WaitUntil(ms(51)));
        assert_eq!(it.step(ms(51)), Step::Send);
        it.sent(ms(51));
        assert_eq!(it.step(ms(51)), Step::Done);
        let progress = it.progress();
        assert_eq!((progress.outcome, progress.rounds), (Some(Outcome::Announced), 2));
        assert_eq!((progress.ready_at, progress.first_frame_at), (Some(ms(1)), Some(ms(2))));
    }

    #[test]
    fn nothing_is_sent_before_the_port_is_ready() {
        let mut it = two_rounds();
        it.observe(ms(0), &no_tag());
        assert_eq!(it.step(ms(0)), Step::WaitUntil(ms(1000)));
        it.observe(ms(700), &seen(vec![], Some(1)));
        assert_eq!(it.step(ms(700)), Step::Send);
    }

    #[test]
    fn past_the_deadline_it_says_what_is_unmet() {
        let mut it = two_rounds();
        it.observe(ms(0), &no_tag());
        assert_eq!(it.step(ms(1000)), Step::Done);
        assert_eq!(it.progress().outcome, Some(Outcome::NotReady));
        assert_eq!(it.progress().unmet[0].to_string(), "the port tap0 has no VLAN tag yet");
    }

    #[test]
    fn without_patience_one_look_decides() {
        let mut it = Announcement::new(Schedule::default(), Duration::ZERO);
        it.observe(ms(0), &no_tag());
        assert_eq!(it.step(ms(0)), Step::Done);
    }

    #[test]
    fn a_change_that_nobody_counts_is_given_time_to_be_carried_out() {
        let mut it = two_rounds();
        it.observe(ms(0), &no_tag());
        it.observe(ms(10), &Assessment { counted: false, ..ready() });
        assert_eq!(it.step(ms(10)), Step::WaitUntil(ms(30)));
        let mut it = two_rounds();
        it.observe(ms(10), &Assessment { counted: false, ..ready() });
        assert_eq!(it.step(ms(10)), Step::Send, "it has been so for long");
    }

    #[test]
    fn a_guest_that_leaves_ends_the_burst() {
        let mut it = two_rounds();
        it.observe(ms(0), &ready());
        it.sent(ms(0));
        it.observe(ms(20), &gone());
        assert_eq!(it.step(ms(50)), Step::Done);
        assert_eq!(it.progress().outcome, Some(Outcome::Cancelled));
        let why = it.progress().error.as_deref();
        assert_eq!(why, Some("tap0 does not exist (after 1 of 2 rounds)"));
    }

    #[test]
    fn a_guest_that_leaves_while_its_port_is_waited_for_ends_the_wait() {
        let mut it = two_rounds();
        it.observe(ms(0), &no_tag());
        it.observe(ms(20), &seen(vec![Condition::Left("shut off")], None));
        assert_eq!(it.step(ms(20)), Step::Done);
        assert_eq!(it.progress().outcome, Some(Outcome::Cancelled));
    }

    #[test]
    fn a_guest_that_is_paused_while_its_port_is_waited_for_may_go_on() {
        let mut it = two_rounds();
        it.observe(ms(0), &seen(vec![Condition::Paused("paused")], None));
        it.observe(ms(20), &ready());
        assert_eq!(it.step(ms(20)), Step::Send);
    }

    #[test]
    fn a_port_that_loses_its_tag_is_waited_for_again() {
        let mut it = two_rounds();
        it.observe(ms(0), &ready());
        it.sent(ms(0));
        it.observe(ms(20), &no_tag());
        assert_eq!(it.step(ms(60)), Step::WaitUntil(ms(1020)), "held, with the same patience");
        it.observe(ms(80), &ready());
        assert_eq!(it.step(ms(80)), Step::Send);
    }

    #[test]
    fn rounds_that_were_missed_are_not_sent_all_at_once() {
        let schedule = Schedule { count: 4, ..Schedule::default() };
        let mut it = Announcement::new(schedule, ms(1000));
        it.observe(ms(0), &ready());
        it.sent(ms(0));
        it.observe(ms(20), &no_tag());
        it.observe(ms(900), &ready());
        assert_eq!(it.step(ms(900)), Step::Send);
        it.sent(ms(900));
        assert_eq!(it.step(ms(900)), Step::WaitUntil(ms(1000)), "the gap of the schedule");
    }

    #[test]
    fn losing_ovsdb_does_not_stop_a_burst() {
        let mut it = two_rounds();
        it.observe(ms(0), &ready());
        it.sent(ms(0));
        let why = "closed".into();
        it.observe(ms(20), &seen(vec![Condition::NoOvsdb { why }], Some(1)));
        assert_eq!(it.step(ms(50)), Step::Send);
    }

    #[test]
    fn a_round_that_fails_costs_only_itself() {
        let mut it = two_rounds();
        it.observe(ms(0), &ready());
        it.failed("no buffer".into());
        assert_eq!(it.step(ms(50)), Step::Send);
        it.sent(ms(50));
        assert_eq!((it.progress().outcome, it.progress().rounds), (Some(Outcome::Announced), 1));
    }

    #[test]
    fn a_last_round_that_fails_is_a_failure() {
        let mut it = two_rounds();
        it.observe(ms(0), &ready());
        it.sent(ms(0));
        it.failed("no buffer".into());
        assert_eq!(it.progress().outcome, Some(Outcome::Failed));
        assert_eq!(it.progress().error.as_deref(), Some("no buffer"));
    }
}
