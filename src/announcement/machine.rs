//! One announcement as a state machine: it takes observations and results, and returns the next step.
//!
//! Time is a [`Duration`] since the event that asked for the announcement. The machine does not wait, send or read a clock:
//! the announcer does, and reports the results.
//!
//! ```text
//!            ready                    last round sent
//! Waiting ◄─────────► Announcing ─────────────────────► Done(announced | failed)
//!    │    not ready      │
//!    │                   └─ gone ────────────────────► Done(cancelled)
//!    └─ not ready for too long ──────────────────────► Done(not-ready)
//! ```
//!
//! An endless one waits, and sends what gets lost, for as long as the guest is here; of either it warns once.

use std::collections::VecDeque;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::announcement::retry::{self, Lost};
use crate::announcement::schedule::Schedule;
use crate::path::condition::Condition;
use crate::path::readiness::Assessment;

/// One that waits for nothing but a change is looked at again then: a moment that clocks can count to.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

/// How an announcement ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Every round was sent.
    Announced,
    /// The port did not become ready in time.
    NotReady,
    /// The guest left, or the announcement was stopped.
    Cancelled,
    /// Another announcement of the same NIC replaced it.
    Superseded,
    /// The frames could not be sent.
    Failed,
}

impl Outcome {
    /// Every outcome.
    pub const ALL: [Outcome; 5] =
        [Outcome::Announced, Outcome::NotReady, Outcome::Cancelled, Outcome::Superseded, Outcome::Failed];

    /// The name of this outcome in output.
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

/// What takes longer than it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overdue {
    /// The port is not ready.
    NotReady,
    /// The port is ready, and what is sent does not leave the host.
    NotLeft,
}

/// The next step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Do nothing before this moment, unless something is observed.
    WaitUntil(Duration),
    /// Warn the operator, and go on.
    Warn(Overdue),
    /// Send a round now, and report it to [`Announcement::sent`] or [`Announcement::failed`].
    Send,
    /// The announcement has ended.
    Done,
}

/// The state of an announcement so far.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Progress {
    /// When the guest was first seen to run.
    pub runs_at: Option<Duration>,
    /// When its NIC was first seen attached.
    pub plugged_at: Option<Duration>,
    /// When the port's VLAN was first correct.
    pub tagged_at: Option<Duration>,
    /// When the port was first ready.
    pub ready_at: Option<Duration>,
    /// When the first frame was sent.
    pub first_frame_at: Option<Duration>,
    /// Rounds that were sent and not seen to be lost.
    pub rounds: u32,
    /// Rounds of which no frame left the host.
    pub lost: u32,
    /// Rounds that could not be sent.
    pub send_errors: u32,
    /// The unmet conditions at the last observation.
    pub unmet: Vec<Condition>,
    /// The error, if any.
    pub error: Option<String>,
    /// How it ended, if it has.
    pub outcome: Option<Outcome>,
}

/// A round that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Round {
    /// When.
    pub at: Duration,
    /// Some of its frames left the host, or the host cannot see whether they did.
    pub left: bool,
    /// The network answered, or the host cannot see whether it did.
    pub answered: bool,
}

/// The port at the last observation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Port {
    /// Some condition is unmet.
    Unmet,
    /// All conditions are met; until this moment a frame might still meet the port's previous state.
    Settling(Duration),
    Ready,
}

/// One announcement.
#[derive(Debug)]
pub struct Announcement {
    schedule: Schedule,
    patience: Duration,
    /// Since when the port has not been ready.
    unmet_since: Duration,
    /// Rounds to come; empty until the port is ready.
    due: VecDeque<Duration>,
    port: Port,
    /// The due round was lost, in one or several tries.
    lost: Option<Lost>,
    /// It waits and is tried for as long as the guest is here.
    endless: bool,
    /// What was warned of.
    warned: Vec<Overdue>,
    /// Rounds that may follow the schedule while the network does not answer.
    more: u32,
    progress: Progress,
}

impl Announcement {
    /// An announcement that sends by `schedule` once the port is ready, and waits for that for at most `patience`.
    pub fn new(schedule: Schedule, patience: Duration) -> Self {
        Announcement {
            lost: None,
            endless: false,
            warned: Vec::new(),
            more: 0,
            schedule,
            patience,
            unmet_since: Duration::ZERO,
            due: VecDeque::new(),
            port: Port::Unmet,
            progress: Progress::default(),
        }
    }

    /// Adds up to `more` rounds while the network does not answer.
    pub fn insisting(self, more: u32) -> Self {
        Announcement { more, ..self }
    }

    /// The port is waited for, and what is proved lost is tried again, for as long as the guest is here; the patience is the time
    /// after which that is warned of.
    pub fn endless(self, endless: bool) -> Self {
        Announcement { endless, ..self }
    }

    /// Goes on by another schedule, if nothing has left yet, and with another patience.
    pub fn change(&mut self, now: Duration, schedule: Schedule, patience: Duration, more: u32) {
        self.patience = patience;
        if self.progress.rounds > 0 {
            return;
        }
        (self.schedule, self.more) = (schedule, more);
        if self.progress.ready_at.is_some() {
            self.due = self.schedule.offsets().map(|offset| now.saturating_add(offset)).collect();
        }
    }

    /// Nothing has left for so long that only the fewest frames that announce each address are sent.
    pub fn is_sparing(&self) -> bool {
        self.lost.is_some_and(|lost| lost.lasts() >= retry::FULL_ROUNDS_TIME)
    }

    /// Whether the last round was lost.
    pub fn is_lost(&self) -> bool {
        self.lost.is_some() && self.progress.outcome.is_none()
    }

    /// The host changed at `now`: lost frames may now leave.
    pub fn changed(&mut self, now: Duration) {
        if let (Some(lost), Some(due)) = (&mut self.lost, self.due.front_mut()) {
            *lost = lost.changed(now);
            *due = (*due).min(lost.due());
        }
    }

    /// The state so far.
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// An observation of the host or the guest.
    pub fn observe(&mut self, now: Duration, seen: &Assessment) {
        if self.progress.outcome.is_some() {
            return;
        }
        self.progress.note(now, seen);
        self.progress.unmet.clone_from(&seen.unmet);
        if seen.has_left() || (self.progress.ready_at.is_some() && seen.is_gone()) {
            return self.cancel(&words(&seen.unmet));
        }
        let port = match seen.settles_in {
            _ if !seen.unmet.is_empty() => Port::Unmet,
            Some(left) => Port::Settling(now.saturating_add(left)),
            None => Port::Ready,
        };
        match (std::mem::replace(&mut self.port, port), port) {
            (Port::Ready, Port::Ready) => {}
            (_, Port::Ready) => self.become_ready(now),
            (Port::Ready, _) => self.unmet_since = now,
            _ => {}
        }
    }

    /// A port that becomes ready again is treated as a new one.
    fn become_ready(&mut self, now: Duration) {
        self.lost = None;
        if self.progress.ready_at.is_none() {
            self.progress.ready_at = Some(now);
            self.due = self.schedule.offsets().map(|offset| now.saturating_add(offset)).collect();
        }
        self.resume(now);
    }

    /// Whether it has ended.
    pub fn has_ended(&self) -> bool {
        self.progress.outcome.is_some()
    }

    /// When waiting for the port ends, while a condition is unmet.
    pub fn deadline(&self) -> Option<Duration> {
        let is_awaited = self.port == Port::Unmet && !self.endless;
        is_awaited.then(|| self.unmet_since.saturating_add(self.patience))
    }

    /// Whether all conditions were met at the last observation.
    pub fn is_ready(&self) -> bool {
        self.port == Port::Ready
    }

    /// An injection method works again after rounds could not be sent.
    pub fn has_a_way_again(&mut self, now: Duration) {
        if self.lost.take().is_some() {
            self.due.iter_mut().take(1).for_each(|due| *due = (*due).min(now));
        }
        self.resume(now);
    }

    /// Continues the schedule from `now`: missed rounds are not sent all at once.
    fn resume(&mut self, now: Duration) {
        let late = self.due.front().map_or(Duration::ZERO, |due| now.saturating_sub(*due));
        self.due.iter_mut().for_each(|due| *due = due.saturating_add(late));
    }

    /// A round was sent.
    pub fn sent(&mut self, round: Round) {
        self.progress.first_frame_at.get_or_insert(round.at);
        self.progress.error = None;
        if !round.left {
            self.progress.lost += 1;
            return self.lost(round.at);
        }
        self.progress.rounds += 1;
        if let (false, 1, Some(more)) = (round.answered, self.due.len(), self.more.checked_sub(1)) {
            self.more = more;
            self.prolong();
        }
        let was_lost = self.lost.take().is_some();
        self.next();
        if was_lost {
            // Missed rounds are not sent all at once.
            let next = round.at.saturating_add(self.schedule.interval);
            let late = self.due.front().filter(|due| **due < round.at).map(|due| next.saturating_sub(*due));
            self.due.iter_mut().for_each(|due| *due = due.saturating_add(late.unwrap_or_default()));
        }
    }

    /// A round could not be sent at `at`, because of `why`.
    pub fn failed(&mut self, at: Duration, why: String) {
        self.lacks_a_way(why);
        self.lost(at);
    }

    /// No method can send a round, because of `why`; it stays due until [`Announcement::has_a_way_again`].
    pub fn lacks_a_way(&mut self, why: String) {
        self.progress.send_errors += 1;
        self.progress.error = Some(why);
    }

    /// The try at `at` did not leave the host: it is repeated.
    fn lost(&mut self, at: Duration) {
        let lost = self.lost.map_or_else(|| Lost::new(at), |lost| lost.again(at));
        self.lost = Some(lost);
        if !self.endless && lost.due() > lost.since.saturating_add(self.persistence()) {
            self.due.clear();
            return self.end();
        }
        self.due.iter_mut().take(1).for_each(|due| *due = lost.due());
    }

    /// How long tries are repeated: as long as a port is waited for, but at least as long as the schedule.
    fn persistence(&self) -> Duration {
        let schedule = self.schedule.offsets().last().unwrap_or_default();
        self.patience.max(schedule).max(retry::FULL_ROUNDS_TIME)
    }

    /// Adds one round after the last.
    fn prolong(&mut self) {
        let gap = self.schedule.last_gap();
        self.due.extend(self.due.back().map(|last| last.saturating_add(gap)));
    }

    /// Goes on to the next round.
    fn next(&mut self) {
        self.due.pop_front();
        if self.due.is_empty() {
            self.end();
        }
    }

    /// Ends with the outcome that the sent rounds justify.
    fn end(&mut self) {
        let (outcome, error) = match self.progress.rounds {
            0 => (Outcome::Failed, self.progress.error.take()),
            _ => (Outcome::Announced, None),
        };
        (self.progress.outcome, self.progress.error) = (Some(outcome), error);
    }

    /// No round can ever be sent.
    pub fn give_up(&mut self, why: String) {
        if self.progress.outcome.is_none() {
            self.progress.error = Some(why);
            self.progress.outcome = Some(Outcome::Failed);
        }
    }

    /// The guest left, or the announcement is stopped.
    pub fn cancel(&mut self, why: &str) {
        if self.progress.outcome.is_none() {
            let rounds = (self.progress.rounds, self.schedule.count);
            self.progress.error = Some(format!("{why} (after {} of {} rounds)", rounds.0, rounds.1));
            self.progress.outcome = Some(Outcome::Cancelled);
        }
    }

    /// Another announcement replaces it.
    pub fn supersede(&mut self) {
        self.progress.outcome.get_or_insert(Outcome::Superseded);
    }

    /// The next step at `now`, after an observation at `now`.
    pub fn step(&mut self, now: Duration) -> Step {
        if self.progress.outcome.is_some() {
            return Step::Done;
        }
        if let Some(overdue) = self.overdue(now) {
            self.warned.push(overdue);
            return Step::Warn(overdue);
        }
        let deadline = self.unmet_since.saturating_add(self.patience);
        match self.port {
            Port::Ready => match self.due.front() {
                Some(due) if now < *due => Step::WaitUntil(*due),
                Some(_) => Step::Send,
                None => Step::Done,
            },
            // Settling is short; the deadline does not apply.
            Port::Settling(until) => Step::WaitUntil(until),
            Port::Unmet if now < deadline => Step::WaitUntil(deadline),
            Port::Unmet if self.endless => Step::WaitUntil(now.saturating_add(LONGEST_WAIT)),
            Port::Unmet => {
                self.progress.outcome = Some(Outcome::NotReady);
                Step::Done
            }
        }
    }

    /// What has taken longer than the patience, if that was not warned of.
    fn overdue(&self, now: Duration) -> Option<Overdue> {
        let (overdue, since) = match (self.port, &self.lost) {
            (Port::Unmet, _) => (Overdue::NotReady, self.unmet_since),
            (Port::Ready, Some(lost)) => (Overdue::NotLeft, lost.since),
            _ => return None,
        };
        let is_late = now >= since.saturating_add(self.patience);
        Some(overdue).filter(|overdue| self.endless && is_late && !self.warned.contains(overdue))
    }
}

impl Progress {
    /// Rounds that were sent or could not be sent.
    pub fn attempts(&self) -> u32 {
        self.rounds + self.lost + self.send_errors
    }

    /// Records what is seen for the first time.
    fn note(&mut self, now: Duration, seen: &Assessment) {
        if !seen.unmet.iter().any(Condition::is_of_the_guest) {
            self.runs_at.get_or_insert(now);
        }
        if seen.attachment.is_some() {
            self.plugged_at.get_or_insert(now);
            if !seen.unmet.iter().any(Condition::is_of_the_vlan) {
                self.tagged_at.get_or_insert(now);
            }
        }
    }
}

fn words(conditions: &[Condition]) -> String {
    conditions.iter().map(Condition::to_string).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path::owner::Owner;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    fn seen(unmet: Vec<Condition>, ofport: Option<u32>) -> Assessment {
        Assessment {
            attachment: None,
            ofport,
            settles_in: None,
            in_charge: (Owner::Nobody, String::new()),
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

    /// A round that was sent at `at` and answered.
    fn left(at: u64) -> Round {
        Round { at: ms(at), left: true, answered: true }
    }

    fn lost(at: u64) -> Round {
        Round { left: false, ..left(at) }
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
        it.sent(left(2));
        assert_eq!(it.step(ms(2)), Step::WaitUntil(ms(51)));
        assert_eq!(it.step(ms(51)), Step::Send);
        it.sent(left(51));
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
    fn past_the_deadline_it_names_what_is_unmet() {
        let mut it = two_rounds();
        it.observe(ms(0), &no_tag());
        assert_eq!(it.step(ms(1000)), Step::Done);
        assert_eq!(it.progress().outcome, Some(Outcome::NotReady));
        assert_eq!(it.progress().unmet[0].to_string(), "the port tap0 has no VLAN tag yet");
    }

    #[test]
    fn without_a_wait_one_observation_decides() {
        let mut it = Announcement::new(Schedule::default(), Duration::ZERO);
        it.observe(ms(0), &no_tag());
        assert_eq!(it.step(ms(0)), Step::Done);
    }

    fn settling(left: u64) -> Assessment {
        Assessment { settles_in: Some(ms(left)), ..ready() }
    }

    #[test]
    fn a_settling_port_is_observed_again_when_it_has_settled() {
        let mut it = two_rounds();
        it.observe(ms(10), &settling(20));
        assert_eq!(it.step(ms(10)), Step::WaitUntil(ms(30)));
        it.observe(ms(30), &ready());
        assert_eq!(it.step(ms(30)), Step::Send);
        assert_eq!(it.progress().ready_at, Some(ms(30)));
    }

    #[test]
    fn a_settling_port_is_waited_for_even_without_a_wait() {
        let mut it = Announcement::new(Schedule::default(), Duration::ZERO);
        it.observe(ms(0), &settling(20));
        assert_eq!(it.step(ms(0)), Step::WaitUntil(ms(20)));
    }

    #[test]
    fn a_guest_that_leaves_ends_the_burst() {
        let mut it = two_rounds();
        it.observe(ms(0), &ready());
        it.sent(left(0));
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
    fn a_guest_that_is_paused_while_its_port_is_waited_for_may_resume() {
        let mut it = two_rounds();
        it.observe(ms(0), &seen(vec![Condition::Paused("paused")], None));
        it.observe(ms(20), &ready());
        assert_eq!(it.step(ms(20)), Step::Send);
    }

    #[test]
    fn a_port_that_loses_its_tag_is_waited_for_again() {
        let mut it = two_rounds();
        it.observe(ms(0), &ready());
        it.sent(left(0));
        it.observe(ms(20), &no_tag());
        assert_eq!(it.step(ms(60)), Step::WaitUntil(ms(1020)), "held, with the same wait");
        it.observe(ms(80), &ready());
        assert_eq!(it.step(ms(80)), Step::Send);
    }

    #[test]
    fn rounds_that_were_missed_are_not_sent_all_at_once() {
        let schedule = Schedule { count: 4, ..Schedule::default() };
        let mut it = Announcement::new(schedule, ms(1000));
        it.observe(ms(0), &ready());
        it.sent(left(0));
        it.observe(ms(20), &no_tag());
        it.observe(ms(900), &ready());
        assert_eq!(it.step(ms(900)), Step::Send);
        it.sent(left(900));
        assert_eq!(it.step(ms(900)), Step::WaitUntil(ms(1000)), "the gap of the schedule");
    }

    #[test]
    fn a_port_that_comes_back_settles_and_is_tried_like_a_new_one() {
        let mut it = two_rounds();
        it.observe(ms(0), &ready());
        it.sent(left(0));
        it.observe(ms(20), &no_tag());
        it.observe(ms(80), &settling(20));
        assert_eq!(it.step(ms(80)), Step::WaitUntil(ms(100)));
        it.observe(ms(100), &ready());
        assert_eq!(it.step(ms(100)), Step::Send);
        it.sent(lost(100));
        assert_eq!(it.step(ms(100)), Step::WaitUntil(ms(101)));
        it.sent(left(101));
        assert_eq!((it.progress().outcome, it.progress().rounds), (Some(Outcome::Announced), 2));
    }

    #[test]
    fn a_round_that_could_not_be_sent_is_tried_like_one_that_was_lost() {
        let mut it = two_rounds();
        it.observe(ms(0), &ready());
        it.failed(ms(0), "no buffer".into());
        assert_eq!(it.step(ms(0)), Step::WaitUntil(ms(1)));
        it.sent(left(1));
        it.failed(ms(50), "no buffer".into());
        assert_eq!(it.step(ms(50)), Step::WaitUntil(ms(51)));
        it.sent(left(51));
        let progress = it.progress();
        assert_eq!((progress.outcome, progress.rounds), (Some(Outcome::Announced), 2));
        assert_eq!((progress.lost, progress.send_errors, progress.error.as_deref()), (0, 2, None));
    }

    #[test]
    fn a_first_round_that_is_lost_is_sent_again_at_once_until_it_leaves() {
        let mut it = two_rounds();
        it.observe(ms(0), &ready());
        it.sent(lost(0));
        assert_eq!(it.step(ms(5)), Step::Send, "the loss was noticed late");
        it.sent(lost(5));
        assert_eq!(it.step(ms(6)), Step::WaitUntil(ms(7)));
        it.sent(lost(7));
        assert_eq!(it.step(ms(8)), Step::WaitUntil(ms(11)));
        it.sent(left(11));
        assert_eq!((it.progress().rounds, it.progress().lost), (1, 3));
        assert_eq!(it.step(ms(11)), Step::WaitUntil(ms(50)), "the schedule is what it was");
        it.sent(left(50));
        assert_eq!(it.progress().outcome, Some(Outcome::Announced));
    }

    #[test]
    fn any_round_that_is_lost_is_sent_again_until_it_leaves() {
        let mut it = two_rounds();
        it.observe(ms(0), &ready());
        it.sent(left(0));
        it.sent(lost(50));
        assert_eq!(it.step(ms(50)), Step::WaitUntil(ms(51)));
        it.sent(left(51));
        assert_eq!((it.progress().outcome, it.progress().rounds), (Some(Outcome::Announced), 2));
    }

    /// When an announcement whose frames never leave ends, and the tries of its last minute.
    fn never_leaves(mut it: Announcement, until: Duration) -> (Option<Outcome>, Duration, usize) {
        it.observe(ms(0), &ready());
        let (mut now, mut tries) = (ms(0), Vec::new());
        while now < until {
            match it.step(now) {
                Step::WaitUntil(at) => now = at,
                Step::Warn(_) => {}
                Step::Send => {
                    tries.push(now);
                    it.sent(Round { at: now, left: false, answered: false });
                }
                Step::Done => break,
            }
        }
        let last = tries.iter().filter(|at| **at + Duration::from_secs(60) >= now).count();
        (it.progress().outcome, now, last)
    }

    #[test]
    fn rounds_that_never_leave_are_a_failure_at_the_deadline() {
        let (outcome, at, _) = never_leaves(Announcement::new(Schedule::default(), ms(60_000)), ms(600_000));
        assert_eq!(outcome, Some(Outcome::Failed));
        assert!((ms(58_000)..=ms(60_000)).contains(&at), "{at:?}");
        // The schedule may run to its end, and the first second costs little.
        let (_, at, _) = never_leaves(Announcement::new(Schedule::default(), ms(0)), ms(600_000));
        assert!((ms(9_000)..=ms(9_150)).contains(&at), "{at:?}");
        let (_, at, _) = never_leaves(two_rounds(), ms(600_000));
        assert!((ms(900)..=ms(1_000)).contains(&at), "{at:?}");
    }

    #[test]
    fn an_endless_one_waits_on_and_warns_once() {
        let mut it = two_rounds().endless(true);
        it.observe(ms(0), &no_tag());
        assert_eq!(it.step(ms(0)), Step::WaitUntil(ms(1_000)));
        assert_eq!(it.step(ms(1_000)), Step::Warn(Overdue::NotReady));
        assert!(matches!(it.step(ms(1_000)), Step::WaitUntil(at) if at > ms(1_000)));
        it.observe(ms(600_000), &ready());
        assert_eq!(it.step(ms(600_000)), Step::Send);
        it.sent(lost(600_000));
        it.sent(lost(601_000));
        assert_eq!(it.step(ms(601_000)), Step::Warn(Overdue::NotLeft));
        assert!(matches!(it.step(ms(601_000)), Step::WaitUntil(_)));
        it.observe(ms(601_001), &no_tag());
        assert!(matches!(it.step(ms(700_000)), Step::WaitUntil(_)), "that was said");
        it.observe(ms(700_001), &ready());
        it.sent(left(700_001));
        it.sent(left(700_051));
        assert_eq!(it.progress().outcome, Some(Outcome::Announced));
    }

    #[test]
    fn another_schedule_and_patience_hold_for_one_that_waits() {
        let mut it = two_rounds();
        it.observe(ms(0), &no_tag());
        let schedule = Schedule { count: 1, ..Schedule::default() };
        it.change(ms(500), schedule.clone(), ms(3_000), 0);
        assert_eq!(it.step(ms(1_500)), Step::WaitUntil(ms(3_000)));
        it.observe(ms(2_000), &ready());
        it.sent(left(2_000));
        assert_eq!(it.progress().outcome, Some(Outcome::Announced), "it is one round");

        let mut it = two_rounds();
        it.observe(ms(0), &ready());
        it.sent(left(0));
        it.change(ms(10), schedule, ms(3_000), 0);
        assert_eq!(it.step(ms(10)), Step::WaitUntil(ms(50)), "one that has begun keeps its schedule");
    }

    #[test]
    fn a_daemon_goes_on_for_as_long_as_the_guest_is_here_ever_more_slowly() {
        let it = Announcement::new(Schedule::default(), ms(1000)).endless(true);
        let (outcome, _, tries_of_a_minute) = never_leaves(it, ms(3_600_000));
        assert_eq!(outcome, None);
        assert!(tries_of_a_minute <= 7, "{tries_of_a_minute}");
    }

    #[test]
    fn a_long_lost_round_leaves_when_the_host_changes() {
        let mut it = two_rounds().endless(true);
        it.observe(ms(0), &ready());
        it.sent(lost(0));
        it.sent(lost(100_000));
        assert!(it.is_sparing());
        assert_eq!(it.step(ms(100_000)), Step::Warn(Overdue::NotLeft));
        assert_eq!(it.step(ms(100_000)), Step::WaitUntil(ms(110_000)));
        it.changed(ms(104_000));
        assert_eq!(it.step(ms(104_000)), Step::Send);
        it.sent(left(104_000));
        assert!(!it.is_sparing());
        assert_eq!(it.step(ms(104_000)), Step::WaitUntil(ms(104_050)), "the gap of the schedule");
    }

    #[test]
    fn it_continues_while_the_network_does_not_answer_if_configured() {
        let mut it = two_rounds().insisting(2);
        it.observe(ms(0), &ready());
        it.sent(left(0));
        it.sent(Round { answered: false, ..left(50) });
        assert_eq!(it.step(ms(50)), Step::WaitUntil(ms(150)));
        it.sent(left(150));
        assert_eq!((it.progress().outcome, it.progress().rounds), (Some(Outcome::Announced), 3));
    }

    #[test]
    fn the_first_time_of_each_state_is_kept() {
        let mut it = two_rounds();
        let paused = Condition::Paused("paused");
        it.observe(ms(0), &seen(vec![paused], None));
        it.observe(ms(10), &no_tag());
        let attachment = crate::path::attachment::tests::tap_on_br_int();
        it.observe(ms(20), &Assessment { attachment: Some(attachment.clone()), ..no_tag() });
        it.observe(ms(30), &Assessment { attachment: Some(attachment), ..ready() });
        let progress = it.progress();
        let times = [progress.runs_at, progress.plugged_at, progress.tagged_at, progress.ready_at];
        assert_eq!(times, [Some(ms(10)), Some(ms(20)), Some(ms(30)), Some(ms(30))]);
    }

    /// The outcome if only the first round is sent, or only the others.
    fn outcome(first_is_sent: bool) -> (Option<Outcome>, Option<String>) {
        let mut it = two_rounds();
        it.observe(ms(0), &ready());
        let mut now = ms(0);
        for n in 0.. {
            match it.step(now) {
                Step::Done | Step::Warn(_) => break,
                Step::WaitUntil(at) => now = at,
                Step::Send if (n == 0) == first_is_sent => it.sent(Round { at: now, ..left(0) }),
                Step::Send => it.failed(now, "no buffer".into()),
            }
        }
        (it.progress().outcome, it.progress().error.clone())
    }

    #[test]
    fn the_rounds_that_left_decide_the_outcome_not_the_last_one() {
        assert_eq!(outcome(true), (Some(Outcome::Announced), None));
        assert_eq!(outcome(false), (Some(Outcome::Announced), None));
        let mut it = two_rounds();
        it.observe(ms(0), &ready());
        (0..100).for_each(|n| it.failed(ms(20 * n), "no buffer".into()));
        assert_eq!(it.progress().outcome, Some(Outcome::Failed));
        assert_eq!(it.progress().error.as_deref(), Some("no buffer"));
    }
}
