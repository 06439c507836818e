//! When a lost round is sent again: soon at first, since the change that lets it pass mostly follows within milliseconds,
//! then ever more slowly, since that change may take minutes.

use std::time::Duration;

const MIN_PAUSE: Duration = Duration::from_millis(1);
const MAX_PAUSE_AT_FIRST: Duration = Duration::from_millis(25);
/// The pause between tries up to each time after the first loss.
const PAUSES: [(Duration, Duration); 2] = [
    (Duration::from_secs(10), Duration::from_millis(100)),
    (Duration::from_secs(60), Duration::from_secs(1)),
];
const MAX_PAUSE: Duration = Duration::from_secs(10);
/// How long every frame is sent again; after that, only the fewest that announce each address.
pub(super) const FULL_ROUNDS_TIME: Duration = Duration::from_secs(1);
/// The number of tries after a change of the host, with pauses from [`MIN_PAUSE`] on: a flow table takes effect in the datapath some
/// milliseconds later.
const MAX_TRIES_AFTER_CHANGE: u32 = 6;
/// The least time between the beginnings of two such series, unless this share of the pause without a change is longer.
const MIN_GAP: Duration = Duration::from_millis(100);
const MAX_SHARE: u32 = 10;

/// Consecutive lost rounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lost {
    /// When the first one was sent.
    pub since: Duration,
    /// When the last one was.
    last: Duration,
    tries: u32,
    after_change: Option<AfterChange>,
}

/// The tries that follow a change of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct AfterChange {
    /// The first one is due.
    at: Duration,
    tries: u32,
    /// There has been another change since.
    has_changed_again: bool,
}

impl AfterChange {
    fn at(at: Duration) -> AfterChange {
        AfterChange { at, tries: 0, has_changed_again: false }
    }

    fn due(&self, last: Duration) -> Option<Duration> {
        match self.tries.checked_sub(1) {
            _ if self.is_over() => None,
            None => Some(self.at.max(last.saturating_add(MIN_PAUSE))),
            Some(before) => Some(last.saturating_add(MIN_PAUSE.saturating_mul(2u32.saturating_pow(before)))),
        }
    }

    fn is_over(&self) -> bool {
        self.tries >= MAX_TRIES_AFTER_CHANGE
    }
}

impl Lost {
    /// The first lost round, sent at `at`.
    pub(super) fn new(at: Duration) -> Lost {
        Lost { since: at, last: at, tries: 0, after_change: None }
    }

    /// One more lost round, sent at `at`.
    pub(super) fn again(mut self, at: Duration) -> Lost {
        (self.last, self.tries) = (at, self.tries.saturating_add(1));
        let gap = self.gap();
        self.after_change = self.after_change.map(|change| {
            let tries = change.tries.saturating_add(u32::from(at >= change.at));
            let next = AfterChange { tries, ..change };
            match next.is_over() && next.has_changed_again {
                true => AfterChange::at(at.max(next.at.saturating_add(gap))),
                false => next,
            }
        });
        self
    }

    /// The host changed at `now`: lost frames may now leave.
    pub(super) fn changed(mut self, now: Duration) -> Lost {
        let change = match self.after_change {
            Some(change) if !change.is_over() => AfterChange { has_changed_again: true, ..change },
            Some(change) => AfterChange::at(now.max(change.at.saturating_add(self.gap()))),
            None => AfterChange::at(now),
        };
        self.after_change = Some(change);
        self
    }

    /// The time between the first and the last.
    pub(super) fn lasts(&self) -> Duration {
        self.last.saturating_sub(self.since)
    }

    /// When the next try is due.
    pub(super) fn due(&self) -> Duration {
        let without_change = self.last.saturating_add(self.pause());
        let after_change = self.after_change.and_then(|change| change.due(self.last));
        after_change.map_or(without_change, |due| due.min(without_change))
    }

    /// When it is due at the latest.
    pub(super) fn latest(&self) -> Duration {
        self.last.saturating_add(MAX_PAUSE)
    }

    fn gap(&self) -> Duration {
        MIN_GAP.max(self.pause() / MAX_SHARE)
    }

    /// Between two tries, where nothing changes.
    fn pause(&self) -> Duration {
        if self.lasts() < FULL_ROUNDS_TIME {
            return MAX_PAUSE_AT_FIRST.min(MIN_PAUSE.saturating_mul(2u32.saturating_pow(self.tries)));
        }
        let later = PAUSES.iter().find(|(until, _)| self.lasts() < *until);
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
    fn after_a_change_it_is_tried_at_once_and_some_more_times() {
        let ms = Duration::from_millis;
        let late = Lost::new(ms(0)).again(ms(70_000));
        assert_eq!(late.due(), ms(80_000));
        let mut lost = late.changed(ms(75_000));
        let mut tries = Vec::new();
        for _ in 0..7 {
            tries.push(lost.due().as_millis());
            lost = lost.again(lost.due());
        }
        assert_eq!(tries, [75_000, 75_001, 75_003, 75_007, 75_015, 75_031, 85_031]);
    }

    #[test]
    fn a_change_right_after_a_try_is_not_passed_over_and_a_storm_of_them_costs_little() {
        let ms = Duration::from_millis;
        let mut lost = Lost::new(ms(0)).again(ms(70_000)).changed(ms(70_000));
        let mut tries = 0;
        for now in 70_000..80_000 {
            lost = lost.changed(ms(now));
            if lost.due() <= ms(now) {
                (lost, tries) = (lost.again(ms(now)), tries + 1);
            }
        }
        assert!((54..=66).contains(&tries), "{tries} tries in ten seconds");
    }
}
