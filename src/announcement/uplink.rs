//! How guests are announced after a change of an uplink: seldom, and late enough for a spanning tree.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use crate::announcement::schedule::Schedule;

/// From the change to the first round.
const FIRST_ROUND: Duration = Duration::from_secs(1);
/// The longest delay of a NIC beyond that: many guests are behind one uplink.
pub(crate) const MAX_JITTER: Duration = Duration::from_secs(5);
/// EVPN takes a MAC address that moves five times in 180 s for a duplicate, and freezes it (RFC 7432 section 15.1).
const WINDOW: Duration = Duration::from_secs(180);
const MAX_IN_WINDOW: usize = 3;

/// Three rounds, 1, 5 and 35 s after the change: the last when a spanning tree has converged (IEEE 802.1D: twice 15 s).
pub(crate) fn schedule() -> Schedule {
    let (interval, max_interval) = (Duration::from_secs(4), Duration::from_secs(30));
    Schedule { count: 3, interval, backoff: 7.5, max_interval }
}

/// When the announcements of each NIC began, or will begin.
#[derive(Debug)]
pub(crate) struct Pace<K> {
    starts: HashMap<K, Vec<Duration>>,
    /// When those that are over are forgotten: each of thousands that a change concerns does not look at all of them.
    forgets_at: Duration,
}

impl<K> Default for Pace<K> {
    fn default() -> Self {
        Pace { starts: HashMap::new(), forgets_at: Duration::ZERO }
    }
}

impl<K: Eq + Hash> Pace<K> {
    /// How long the announcement of a NIC for a change at `now` must wait. It replaces one that has not begun.
    pub(crate) fn wait(&mut self, nic: K, now: Duration, jitter: Duration) -> Duration {
        let counts = |start: Duration| start + WINDOW > now;
        if now >= self.forgets_at {
            self.starts.retain(|_, starts| starts.iter().any(|start| counts(*start)));
            self.forgets_at = now + WINDOW;
        }
        let starts = self.starts.entry(nic).or_default();
        starts.retain(|start| counts(*start) && *start <= now);
        let first = now + FIRST_ROUND + jitter;
        let freed = starts.len().checked_sub(MAX_IN_WINDOW).map(|at| starts[at] + WINDOW);
        let start = freed.map_or(first, |freed| freed.max(first));
        starts.push(start);
        start - now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: fn(u64) -> Duration = Duration::from_secs;

    #[test]
    fn the_rounds_are_at_1_5_and_35_seconds() {
        let rounds: Vec<u64> = schedule().offsets().map(|at| (FIRST_ROUND + at).as_secs()).collect();
        assert_eq!(rounds, [1, 5, 35]);
    }

    #[test]
    fn three_announcements_in_180_seconds_and_the_last_change_later() {
        let mut pace = Pace::default();
        for at in [0, 10, 20] {
            assert_eq!(pace.wait("tap0", S(at), S(0)), S(1));
        }
        assert_eq!(pace.wait("tap1", S(20), S(2)), S(3), "another NIC");
        assert_eq!(pace.wait("tap0", S(30), S(0)), S(151), "when the first is 180 s ago");
        assert_eq!(pace.wait("tap0", S(100), S(0)), S(81), "in place of that");
        assert_eq!(pace.wait("tap0", S(500), S(0)), S(1));
    }

    #[test]
    fn what_is_over_is_forgotten() {
        let mut pace = Pace::default();
        for at in 0..1000 {
            pace.wait(at, S(at), S(0));
        }
        assert!(pace.starts.len() < 400, "{}", pace.starts.len());
    }

    #[test]
    fn changes_in_quick_succession_are_one() {
        let mut pace = Pace::default();
        let waits: Vec<Duration> = (0..10).map(|tenth| pace.wait(0, S(1) * tenth / 10, S(0))).collect();
        assert!(waits.iter().all(|wait| *wait == S(1)), "{waits:?}");
        assert_eq!(pace.wait(0, S(5), S(0)), S(1), "one has begun");
    }
}
