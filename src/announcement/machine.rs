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

use crate::announcement::failure::Failure;
use crate::announcement::progress::{Outcome, Progress};
use crate::announcement::retry::{self, Lost};
use crate::announcement::schedule::Schedule;
use crate::announcement::spell;
use crate::path::readiness::Assessment;

/// An announcement that waits for a change only is looked at again after this time, which every clock can count to.
const MAX_WAIT: Duration = Duration::from_secs(3600);
/// How long the first round is sent again while only its RARP leaves. A port that OVN activates by the first RARP lets all else
/// pass some milliseconds after it; a filter of addresses never does.
const ONLY_RARP_TIME: Duration = Duration::from_millis(100);
/// The least time between two rounds that are added because another host uses the guest's MAC.
const MIN_EXTRA_INTERVAL: Duration = Duration::from_secs(10);

/// What takes longer than it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Overdue {
    /// The port is not ready.
    NotReady,
    /// The port is ready, and what is sent does not leave the host.
    NotLeft,
}

/// The next step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    /// Do nothing before this moment, unless something is observed.
    WaitUntil(Duration),
    /// Warn the operator, and go on.
    Warn(Overdue),
    /// Send a round now, and report it to [`Announcement::sent`] or [`Announcement::failed`].
    Send,
    /// The announcement has ended.
    Done,
}

/// A round that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Round {
    /// When.
    pub at: Duration,
    /// Some of its frames left the host, or the host cannot see whether they did.
    pub left: bool,
    /// Of those that left, none has an address, and the others are proved lost.
    pub only_rarp: bool,
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
pub(crate) struct Announcement {
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
    /// When a round was last added.
    hurried: Option<Duration>,
    progress: Progress,
}

impl Announcement {
    /// An announcement that sends by `schedule` once the port is ready, and waits for that for at most `patience`.
    pub(crate) fn new(schedule: Schedule, patience: Duration) -> Self {
        Announcement {
            lost: None,
            endless: false,
            warned: Vec::new(),
            more: 0,
            hurried: None,
            schedule,
            patience,
            unmet_since: Duration::ZERO,
            due: VecDeque::new(),
            port: Port::Unmet,
            progress: Progress::default(),
        }
    }

    /// Adds up to `more` rounds while the network does not answer.
    pub(crate) fn insisting(self, more: u32) -> Self {
        Announcement { more, ..self }
    }

    /// The port is waited for, and what is proved lost is tried again, for as long as the guest is here; the patience is the time
    /// after which that is warned of.
    pub(crate) fn endless(self, endless: bool) -> Self {
        Announcement { endless, ..self }
    }

    /// It has waited: when the guest was first seen to run, and whether it was warned of that it takes long.
    pub(crate) fn having_waited(mut self, runs_at: Option<Duration>, is_warned_of: bool) -> Self {
        self.progress.runs_at = runs_at;
        self.warned.extend(is_warned_of.then_some(Overdue::NotReady));
        self
    }

    /// Goes on by another schedule, if nothing has left yet, and with another patience.
    pub(crate) fn change(&mut self, now: Duration, schedule: Schedule, patience: Duration, more: u32) {
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
    pub(crate) fn is_sparing(&self) -> bool {
        self.lost.is_some_and(|lost| lost.lasts() >= retry::FULL_ROUNDS_TIME)
    }

    /// Whether the last round was lost.
    pub(crate) fn is_lost(&self) -> bool {
        self.lost.is_some() && self.progress.outcome.is_none()
    }

    /// The host changed at `now`: lost frames may now leave.
    pub(crate) fn changed(&mut self, now: Duration) {
        if let (Some(lost), Some(due)) = (&mut self.lost, self.due.front_mut()) {
            *lost = lost.changed(now);
            *due = (*due).min(lost.due());
        }
    }

    /// A bridge on the way does not answer: what is sent meanwhile waits in its queues. The lost round is due when the bridge does, which
    /// counts as a change of the host, or after the longest pause.
    pub(crate) fn stands_still(&mut self) {
        let persistence = self.persistence();
        if let (Some(lost), Some(due)) = (&self.lost, self.due.front_mut()) {
            let end = if self.endless { Duration::MAX } else { lost.since.saturating_add(persistence) };
            *due = (*due).max(lost.latest().min(end));
        }
    }

    /// Another host used the guest's MAC at `now`: one more round is sent at once, and the schedule stays.
    pub(crate) fn hurry(&mut self, now: Duration) {
        let is_early = self.hurried.is_some_and(|last| now < last.saturating_add(MIN_EXTRA_INTERVAL));
        // A lost round is sent again at once as it is.
        let is_between_rounds = self.progress.rounds > 0 && self.lost.is_none() && !self.due.is_empty();
        if is_between_rounds && !is_early {
            self.hurried = Some(now);
            self.due.push_front(now);
        }
    }

    /// The state so far.
    pub(crate) fn progress(&self) -> &Progress {
        &self.progress
    }

    /// An observation of the host or the guest.
    pub(crate) fn observe(&mut self, now: Duration, seen: &Assessment) {
        if self.progress.outcome.is_some() {
            return;
        }
        self.progress.note(now, seen);
        if *self.progress.unmet != *seen.unmet {
            self.progress.unmet = seen.unmet.as_slice().into();
        }
        if seen.has_left() || (self.progress.ready_at.is_some() && seen.is_gone()) {
            let unmet: Vec<String> = seen.unmet.iter().map(ToString::to_string).collect();
            return self.cancel(None, &unmet.join("; "));
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
        self.forget_loss(now);
        if self.progress.ready_at.is_none() {
            self.progress.ready_at = Some(now);
            self.due = self.schedule.offsets().map(|offset| now.saturating_add(offset)).collect();
        }
        self.resume(now);
    }

    /// Whether it has ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.progress.outcome.is_some()
    }

    /// When waiting for the port ends, while a condition is unmet.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        let is_awaited = self.port == Port::Unmet && !self.endless;
        is_awaited.then(|| self.patience_ends())
    }

    /// When the port has been unready for as long as the patience.
    fn patience_ends(&self) -> Duration {
        self.unmet_since.saturating_add(self.patience)
    }

    /// Whether all conditions were met at the last observation.
    pub(crate) fn is_ready(&self) -> bool {
        self.port == Port::Ready
    }

    /// An injection method works again after rounds could not be sent.
    pub(crate) fn has_a_way_again(&mut self, now: Duration) {
        self.forget_loss(now);
        self.resume(now);
    }

    /// The round that was lost is due at once.
    fn forget_loss(&mut self, now: Duration) {
        if self.lost.take().is_some() {
            self.due.iter_mut().take(1).for_each(|due| *due = (*due).min(now));
        }
    }

    /// Nothing could be sent for a while, until `now`.
    pub(crate) fn held_up(&mut self, now: Duration) {
        self.resume(now);
    }

    /// Continues the schedule from `now`: missed rounds are not sent all at once.
    fn resume(&mut self, now: Duration) {
        let late = self.due.front().map_or(Duration::ZERO, |due| now.saturating_sub(*due));
        self.due.iter_mut().for_each(|due| *due = due.saturating_add(late));
    }

    /// A round was sent.
    pub(crate) fn sent(&mut self, round: Round) {
        self.progress.first_frame_at.get_or_insert(round.at);
        self.progress.error = None;
        spell::add(&mut self.progress.spells, round.at, round.left);
        if !round.left || self.may_soon_be_whole(round) {
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

    /// It is the first round, and what was lost of it may pass within milliseconds.
    fn may_soon_be_whole(&self, round: Round) -> bool {
        let is_early = |lost: Lost| round.at < lost.since.saturating_add(ONLY_RARP_TIME);
        round.only_rarp && self.progress.rounds == 0 && self.lost.is_none_or(is_early)
    }

    /// A round could not be sent at `at`, because of `why`.
    pub(crate) fn failed(&mut self, at: Duration, why: String) {
        self.lacks_a_way(why);
        self.lost(at);
    }

    /// No method can send a round, because of `why`; it stays due until [`Announcement::has_a_way_again`].
    pub(crate) fn lacks_a_way(&mut self, why: String) {
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
        let failure = if error.is_some() { Failure::Injector } else { Failure::Departure };
        self.progress.failure = (outcome == Outcome::Failed).then_some(failure);
        (self.progress.outcome, self.progress.error) = (Some(outcome), error);
    }

    /// No round can ever be sent.
    pub(crate) fn give_up(&mut self, failure: Failure, why: String) {
        if self.progress.outcome.is_none() {
            (self.progress.failure, self.progress.error) = (Some(failure), Some(why));
            self.progress.outcome = Some(Outcome::Failed);
        }
    }

    /// The guest left, or the announcement is stopped, which is a `failure`.
    pub(crate) fn cancel(&mut self, failure: Option<Failure>, why: &str) {
        if self.progress.outcome.is_none() {
            self.progress.failure = failure;
            let rounds = (self.progress.rounds, self.schedule.count);
            self.progress.error = Some(format!("{why} (after {} of {} rounds)", rounds.0, rounds.1));
            self.progress.outcome = Some(Outcome::Cancelled);
        }
    }

    /// Another announcement replaces it.
    pub(crate) fn supersede(&mut self) {
        self.progress.outcome.get_or_insert(Outcome::Superseded);
    }

    /// The guest of an early announcement runs: the usual one follows.
    pub(crate) fn relieve(&mut self) {
        let is_early = self.progress.rounds > 0;
        self.progress.outcome.get_or_insert(if is_early { Outcome::Announced } else { Outcome::Superseded });
    }

    /// The next step at `now`, after an observation at `now`.
    pub(crate) fn step(&mut self, now: Duration) -> Step {
        if self.progress.outcome.is_some() {
            return Step::Done;
        }
        if let Some(overdue) = self.overdue(now) {
            self.warned.push(overdue);
            return Step::Warn(overdue);
        }
        match self.port {
            Port::Ready => match self.due.front() {
                Some(due) if now < *due => Step::WaitUntil(*due),
                Some(_) => Step::Send,
                None => Step::Done,
            },
            // Settling is short; the deadline does not apply.
            Port::Settling(until) => Step::WaitUntil(until),
            Port::Unmet if now < self.patience_ends() => Step::WaitUntil(self.patience_ends()),
            Port::Unmet if self.endless => Step::WaitUntil(now.saturating_add(MAX_WAIT)),
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

#[cfg(test)]
mod tests;
