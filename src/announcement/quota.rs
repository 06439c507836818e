//! The frame rate of the whole host, and the order of those that wait: guests that do not run yet before all others, first attempts
//! before second ones, and within an attempt announcements before questions.
//!
//! A first round is sent as soon as the debt is zero, and paid for afterwards. A later round is paid for beforehand, and
//! leaves a reserve for first rounds, which may come at any moment.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

/// The frames that may be sent at once after an idle time, as the time that they take at the steady rate.
const BURST: Duration = Duration::from_millis(100);
/// The part of the burst that is reserved for first rounds.
const RESERVE: Duration = Duration::from_millis(50);

/// While the rate is exceeded, turns are given in groups: frames that leave together cost the host less.
const GROUP: Duration = Duration::from_millis(20);

/// A steady rate of frames, and the queue of requests.
///
/// Time is a [`Duration`] since any fixed moment.
#[derive(Debug)]
pub(crate) struct Quota<T> {
    per_frame: Duration,
    /// When all frames sent so far would have been sent at the steady rate.
    paid_until: Duration,
    waiting: BinaryHeap<Reverse<Waiting<T>>>,
    /// The frames of the largest later round since the queue was last empty: it may cost more than a burst.
    saving_for: u32,
    arrivals: u64,
    /// No turn is given before this moment.
    held_until: Duration,
    /// The earliest moments of the next turn of a first round and of a later one, since the rate was exceeded.
    next_groups: [Duration; 2],
}

/// A part of a round. Parts are sent in this order if they cannot all be sent at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Part {
    /// It is of an announcement that cannot wait until the guest runs: false sorts first.
    pub is_usual: bool,
    /// The number of the attempt at a round, from 0.
    pub attempt: u32,
    /// Its questions; otherwise its announcements.
    pub is_questions: bool,
}

impl Part {
    /// The announcements of a round before the guest runs: packets for it are lost until then.
    pub(crate) fn early(attempt: u32) -> Part {
        Part { is_usual: false, attempt, is_questions: false }
    }

    /// The announcements of a round.
    pub(crate) fn announcements(attempt: u32) -> Part {
        Part { is_usual: true, attempt, is_questions: false }
    }

    /// The questions of a round.
    pub(crate) fn questions(attempt: u32) -> Part {
        Part { is_usual: true, attempt, is_questions: true }
    }

    /// Anything but first announcements.
    pub(crate) fn is_later(self) -> bool {
        self > Part::announcements(0)
    }
}

#[derive(Debug)]
struct Waiting<T> {
    /// The part, then the order of requests.
    turn: (Part, u64),
    frames: u32,
    key: T,
}

impl<T> PartialEq for Waiting<T> {
    fn eq(&self, other: &Self) -> bool {
        self.turn == other.turn
    }
}

impl<T> Eq for Waiting<T> {}

impl<T> PartialOrd for Waiting<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Waiting<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.turn.cmp(&other.turn)
    }
}

impl<T> Quota<T> {
    /// A rate of at least one frame a second.
    pub(crate) fn new(per_second: u32) -> Self {
        Quota {
            per_frame: per_frame(per_second),
            paid_until: Duration::ZERO,
            waiting: BinaryHeap::new(),
            saving_for: 0,
            arrivals: 0,
            held_until: Duration::ZERO,
            next_groups: [Duration::ZERO; 2],
        }
    }

    /// Gives no turn for so long from `now` on; not at all ends what holds turns back.
    pub(crate) fn hold(&mut self, lasts: Duration, now: Duration) {
        self.held_until = if lasts.is_zero() { self.held_until.min(now) } else { now.saturating_add(lasts) };
    }

    /// Whether turns were held back after this moment.
    pub(crate) fn was_held_after(&self, moment: Duration) -> bool {
        self.held_until > moment
    }

    /// Sets another rate from `now` on, also for waiting requests and the present debt.
    pub(crate) fn change(&mut self, per_second: u32, now: Duration) {
        let owed = self.paid_until.saturating_sub(now).div_duration_f64(self.per_frame);
        self.per_frame = per_frame(per_second);
        self.paid_until = now + self.per_frame.mul_f64(owed);
    }

    /// Requests `frames` for `part` of a round of `key`.
    pub(crate) fn ask(&mut self, part: Part, frames: u32, key: T) {
        self.arrivals += 1;
        let turn = (part, self.arrivals);
        if part.is_later() {
            self.saving_for = self.saving_for.max(frames);
        }
        self.waiting.push(Reverse(Waiting { turn, frames, key }));
    }

    /// The next request that may be sent now.
    pub(crate) fn next(&mut self, now: Duration) -> Option<T> {
        if self.pause(now)? > Duration::ZERO {
            self.gather(now);
            return None;
        }
        let Reverse(first) = self.waiting.pop()?;
        let saved = (self.per_frame * self.saving_for).saturating_sub(BURST - RESERVE);
        self.paid_until = self.paid_until.max(now.saturating_sub(saved)) + self.per_frame * first.frames;
        if self.waiting.is_empty() {
            self.saving_for = 0;
        }
        Some(first.key)
    }

    /// The rate is exceeded: the next turn comes with a group.
    fn gather(&mut self, now: Duration) {
        if let Some(Reverse(first)) = self.waiting.peek() {
            let next_group = &mut self.next_groups[first.group()];
            if (*next_group).max(self.held_until) <= now {
                *next_group = now + GROUP;
            }
        }
    }

    /// The time until the next turn; `None` if the queue is empty.
    pub(crate) fn pause(&self, now: Duration) -> Option<Duration> {
        let Reverse(first) = self.waiting.peek()?;
        let cost = self.per_frame * first.frames;
        let (owed_after, limit) = match first.is_later() {
            true => (self.paid_until.max(now.saturating_sub(cost)) + cost, BURST - RESERVE),
            // A round that costs more than a burst is sent at zero debt, and leaves a debt.
            false => (self.paid_until.max(now) + cost.min(BURST), BURST),
        };
        let not_before = self.held_until.max(self.next_groups[first.group()]);
        Some(owed_after.saturating_sub(now + limit).max(not_before.saturating_sub(now)))
    }
}

impl<T> Waiting<T> {
    fn is_later(&self) -> bool {
        self.turn.0.is_later()
    }

    /// First rounds are not gathered with later ones, for which less of the burst is left.
    fn group(&self) -> usize {
        usize::from(self.is_later())
    }
}

fn per_frame(per_second: u32) -> Duration {
    // Not zero: it is a divisor.
    (Duration::from_secs(1) / per_second.max(1)).max(Duration::from_nanos(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn a_tenth_of_a_second_may_go_at_once_and_then_the_rate_holds() {
        let mut quota = Quota::new(100);
        (0..20).for_each(|n| quota.ask(Part::announcements(0), 1, n));
        let at_once = std::iter::from_fn(|| quota.next(ms(0))).count();
        assert_eq!(at_once, 10);
        assert_eq!(quota.pause(ms(0)), Some(ms(20)));
        let two = [quota.next(ms(19)), quota.next(ms(20)), quota.next(ms(20)), quota.next(ms(20))];
        assert_eq!(two, [None, Some(10), Some(11), None]);
    }

    #[test]
    fn turns_beyond_the_rate_are_given_in_groups_that_delay_no_first_round_within_it() {
        let mut quota = Quota::new(1000);
        (0..200).for_each(|n| quota.ask(Part::announcements(1), 1, n));
        assert_eq!(std::iter::from_fn(|| quota.next(ms(0))).count(), 50, "the reserve is left");
        assert_eq!((quota.next(ms(10)), quota.pause(ms(10))), (None, Some(ms(10))));
        quota.ask(Part::announcements(0), 1, 1000);
        assert_eq!(quota.next(ms(11)), Some(1000));
        assert_eq!(std::iter::from_fn(|| quota.next(ms(20))).count(), 19);
        assert_eq!(quota.pause(ms(20)), Some(GROUP));
    }

    #[test]
    fn first_rounds_go_before_questions_and_those_before_second_rounds() {
        let mut quota = Quota::new(1000);
        quota.ask(Part::announcements(1), 4, "second round of a");
        quota.ask(Part::questions(0), 2, "questions of a");
        quota.ask(Part::announcements(0), 4, "first round of b");
        quota.ask(Part::announcements(0), 4, "first round of c");
        quota.ask(Part::early(1), 4, "of d, before it runs");
        let order: Vec<&str> = std::iter::from_fn(|| quota.next(ms(0))).collect();
        assert_eq!(
            order,
            [
                "of d, before it runs",
                "first round of b",
                "first round of c",
                "questions of a",
                "second round of a"
            ]
        );
    }

    #[test]
    fn a_round_larger_than_a_burst_is_sent_at_zero_debt_and_leaves_a_debt() {
        let mut quota = Quota::new(10);
        quota.ask(Part::announcements(0), 5, "large");
        quota.ask(Part::announcements(0), 1, "small");
        assert_eq!(quota.next(ms(0)), Some("large"));
        assert_eq!(quota.next(ms(400)), None);
        assert_eq!(quota.next(ms(500)), Some("small"));
    }

    #[test]
    fn another_rate_holds_for_waiting_requests() {
        let mut quota = Quota::new(10);
        (0..3).for_each(|n| quota.ask(Part::announcements(0), 5, n));
        assert_eq!((quota.next(ms(0)), quota.pause(ms(0))), (Some(0), Some(ms(500))));
        quota.change(100, ms(0));
        assert_eq!(
            (quota.pause(ms(0)), quota.next(ms(50)), quota.pause(ms(50))),
            (Some(ms(0)), Some(1), Some(ms(0)))
        );
    }

    #[test]
    fn a_first_round_does_not_wait_for_a_large_later_one() {
        let mut quota = Quota::new(1000);
        quota.ask(Part::announcements(1), 200, "later");
        assert_eq!(quota.pause(ms(1000)), Some(ms(0)), "it was idle for long enough");
        assert_eq!(quota.next(ms(1000)), Some("later"));
        quota.ask(Part::announcements(0), 4, "first");
        assert_eq!(quota.next(ms(1000)), Some("first"));
        quota.ask(Part::announcements(1), 200, "later");
        assert_eq!(quota.pause(ms(1000)), Some(ms(204)), "it is paid for beforehand");
        quota.ask(Part::announcements(0), 4, "first");
        assert_eq!(quota.next(ms(1100)), Some("first"), "which delays no first round");
        assert_eq!(quota.pause(ms(1100)), Some(ms(108)));
    }

    /// When the last of 500 guests' first announcements is sent, at 1000 frames a second; each guest requests its questions
    /// as soon as it is announced.
    fn last_first_announcement(questions: u32) -> Duration {
        let mut quota = Quota::new(1000);
        (0..500).for_each(|guest| quota.ask(Part::announcements(0), 4, (guest, false)));
        let (mut now, mut to_come) = (ms(0), 500);
        while to_come > 0 {
            match quota.next(now) {
                Some((_, true)) => {}
                Some((guest, false)) => {
                    to_come -= 1;
                    if questions > 0 {
                        quota.ask(Part::questions(0), questions, (guest, true));
                    }
                }
                None => now += quota.pause(now).unwrap(),
            }
        }
        now
    }

    #[test]
    fn questions_delay_no_first_announcement() {
        let without = last_first_announcement(0);
        assert!(without > ms(1500), "{without:?}");
        for questions in [1, 2, 8] {
            assert_eq!(last_first_announcement(questions), without, "{questions} each");
        }
    }

    #[test]
    fn the_rate_holds_for_all_requests() {
        let mut quota = Quota::new(1000);
        let mut sent = 0;
        for now in 0..10_000 {
            let part = Part { is_usual: now % 5 > 0, attempt: now % 3, is_questions: now % 2 == 1 };
            quota.ask(part, 1 + now % 7, 1 + now % 7);
            sent += std::iter::from_fn(|| quota.next(ms(now.into()))).sum::<u32>();
        }
        assert!((9900..10_107).contains(&sent), "{sent}");
    }

    #[test]
    fn no_turn_is_given_while_they_are_held_back_and_those_that_wait_go_on_in_their_order() {
        let mut quota = Quota::new(100);
        quota.hold(ms(1000), ms(0));
        quota.ask(Part::announcements(1), 1, "second round");
        quota.ask(Part::announcements(0), 1, "first round");
        assert_eq!((quota.next(ms(999)), quota.pause(ms(400))), (None, Some(ms(600))));
        assert_eq!((quota.next(ms(1000)), quota.next(ms(1000))), (Some("first round"), Some("second round")));
        assert!(quota.was_held_after(ms(999)) && !quota.was_held_after(ms(1000)));

        quota.hold(ms(1000), ms(2000));
        quota.ask(Part::announcements(0), 1, "early");
        quota.hold(Duration::ZERO, ms(2500));
        assert_eq!(quota.next(ms(2500)), Some("early"));
        assert!(quota.was_held_after(ms(2499)) && !quota.was_held_after(ms(2500)));
    }

    #[test]
    fn an_empty_request_does_not_wait() {
        assert_eq!(Quota::<()>::new(10).pause(ms(0)), None);
    }
}
