//! When a lost round is sent again: soon at first, since the change that lets it pass mostly follows within milliseconds,
//! then ever more slowly, since that change may take minutes.

use std::time::Duration;

const MIN_PAUSE: Duration = Duration::from_millis(1);
const MAX_PAUSE_AT_FIRST: Duration = Duration::from_millis(25);
/// The pause between tries up to each time after the first loss.
const LATER: [(Duration, Duration); 2] = [
    (Duration::from_secs(10), Duration::from_millis(100)),
    (Duration::from_secs(60), Duration::from_secs(1)),
];
const MAX_PAUSE: Duration = Duration::from_secs(10);
/// How long every frame is sent again; after that, only the fewest that announce each address.
pub(super) const AT_FIRST: Duration = Duration::from_secs(1);
/// How many times sooner a change of the host permits the next try.
const NOTIFIED: u32 = 10;

/// Consecutive lost rounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lost {
    /// When the first one was sent.
    pub since: Duration,
    /// When the last one was.
    last: Duration,
    tries: u32,
}

impl Lost {
    /// The first lost round, sent at `at`.
    pub(super) fn new(at: Duration) -> Lost {
        Lost { since: at, last: at, tries: 0 }
    }

    /// One more lost round, sent at `at`.
    pub(super) fn again(self, at: Duration) -> Lost {
        Lost { last: at, tries: self.tries.saturating_add(1), ..self }
    }

    /// The time between the first and the last.
    pub(super) fn lasts(&self) -> Duration {
        self.last.saturating_sub(self.since)
    }

    /// When the next try is due.
    pub(super) fn due(&self) -> Duration {
        self.last.saturating_add(self.pause())
    }

    /// When the next try is due after a change of the host at `now`.
    pub(super) fn due_after_change(&self, now: Duration) -> Duration {
        now.max(self.last.saturating_add(self.pause() / NOTIFIED)).min(self.due())
    }

    fn pause(&self) -> Duration {
        if self.lasts() < AT_FIRST {
            return MAX_PAUSE_AT_FIRST.min(MIN_PAUSE.saturating_mul(2u32.saturating_pow(self.tries)));
        }
        let later = LATER.iter().find(|(until, _)| self.lasts() < *until);
        later.map_or(MAX_PAUSE, |(_, pause)| *pause)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tries in milliseconds after the first loss, up to `end`.
    fn tries(end: Duration) -> Vec<u128> {
        let mut lost = Lost::new(Duration::ZERO);
        let mut tries = Vec::new();
        while lost.due() <= end {
            lost = lost.again(lost.due());
            tries.push(lost.last.as_millis());
        }
        tries
    }

    #[test]
    fn the_pauses_grow_from_a_millisecond_to_ten_seconds() {
        let tries = tries(Duration::from_secs(200));
        assert_eq!(tries[..8], [1, 3, 7, 15, 31, 56, 81, 106]);
        let pauses_in = |from: u128, to: u128| {
            let in_time = tries.windows(2).filter(|pair| (from..to).contains(&pair[0]));
            in_time.map(|pair| pair[1] - pair[0]).collect::<std::collections::BTreeSet<_>>()
        };
        assert_eq!(pauses_in(31, 1_000), [25].into());
        assert_eq!(pauses_in(1_000, 10_000), [100].into());
        assert_eq!(pauses_in(10_000, 60_000), [1_000].into());
        assert_eq!(pauses_in(60_000, 180_000), [10_000].into());
        let a_minute_later = tries.iter().filter(|at| (70_000..130_000).contains(*at)).count();
        assert!(a_minute_later <= 6, "{a_minute_later}");
    }

    #[test]
    fn a_change_brings_the_next_try_forward_and_a_storm_of_them_does_not() {
        let ms = Duration::from_millis;
        let late = Lost::new(ms(0)).again(ms(70_000));
        assert_eq!(late.due(), ms(80_000));
        assert_eq!(late.due_after_change(ms(70_100)), ms(71_000));
        assert_eq!(late.due_after_change(ms(75_000)), ms(75_000));
        assert_eq!(late.due_after_change(ms(90_000)), ms(80_000));
    }
}
