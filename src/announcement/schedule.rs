//! When each round is due, counted from readiness.

use std::time::Duration;

/// The number of rounds and their distances.
///
/// The default is ten rounds at 0, 50, 150, 350, 750 ms, 1.55, 3.15, 5.15, 7.15 and 9.15 s: some on either side of the
/// second in which Linux ignores a changed neighbour (`locktime`), and some later than the 500 ms that Open vSwitch may take
/// to learn from a frame that hits a cached flow.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    /// Rounds in all, at least 1.
    pub count: u32,
    /// The gap between the first and the second round.
    pub interval: Duration,
    /// The factor from each gap to the next, at least 1.
    pub backoff: f64,
    /// The longest gap.
    pub max_interval: Duration,
}

impl Default for Schedule {
    fn default() -> Self {
        Schedule {
            count: 10,
            interval: Duration::from_millis(50),
            backoff: 2.0,
            max_interval: Duration::from_secs(2),
        }
    }
}

impl Schedule {
    /// The offset of each round from readiness. The first is zero.
    pub fn offsets(&self) -> impl Iterator<Item = Duration> + use<> {
        self.endless().take(self.count as usize)
    }

    /// The gap that would follow the last round.
    pub fn last_gap(&self) -> Duration {
        let mut after = self.endless().skip(self.count.saturating_sub(1) as usize);
        let last = after.next().unwrap_or_default();
        after.next().unwrap_or(last).saturating_sub(last)
    }

    fn endless(&self) -> impl Iterator<Item = Duration> + use<> {
        let (max, backoff) = (self.max_interval, self.backoff);
        let mut gap = self.interval.min(max);
        let mut due = Duration::ZERO;
        std::iter::repeat_with(move || {
            let this = due;
            due = due.saturating_add(gap);
            gap = Duration::try_from_secs_f64(gap.as_secs_f64() * backoff).unwrap_or(max).min(max);
            this
        })
    }

    /// The offset of round `n` (from 0), or `None` if the schedule has no such round.
    pub fn offset(&self, n: u32) -> Option<Duration> {
        self.offsets().nth(n as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(schedule: &Schedule) -> Vec<u128> {
        schedule.offsets().map(|d| d.as_millis()).collect()
    }

    #[test]
    fn the_default_has_rounds_on_both_sides_of_a_second() {
        assert_eq!(millis(&Schedule::default()), [0, 50, 150, 350, 750, 1550, 3150, 5150, 7150, 9150]);
    }

    #[test]
    fn a_backoff_of_one_keeps_the_gap() {
        let schedule =
            Schedule { count: 4, interval: Duration::from_millis(200), backoff: 1.0, ..Schedule::default() };
        assert_eq!(millis(&schedule), [0, 200, 400, 600]);
    }

    #[test]
    fn an_interval_above_the_maximum_is_cut_to_it() {
        let schedule = Schedule { count: 3, interval: Duration::from_secs(10), ..Schedule::default() };
        assert_eq!(millis(&schedule), [0, 2000, 4000]);
    }

    #[test]
    fn no_backoff_panics() {
        for backoff in [f64::NAN, f64::INFINITY, -1.0] {
            let schedule = Schedule { count: 3, backoff, ..Schedule::default() };
            assert_eq!(millis(&schedule), [0, 50, 2050]);
        }
        let forever = Schedule {
            count: 3,
            interval: Duration::MAX,
            max_interval: Duration::MAX,
            ..Schedule::default()
        };
        assert_eq!(forever.offset(2), Some(Duration::MAX));
    }

    #[test]
    fn the_largest_backoff_and_count_do_not_overflow() {
        let schedule = Schedule {
            count: 1000,
            interval: Duration::from_secs(1),
            backoff: f64::MAX,
            max_interval: Duration::from_secs(3600),
        };
        assert_eq!(schedule.offset(999), Some(Duration::from_secs(1 + 998 * 3600)));
        assert_eq!(schedule.offset(1000), None);
    }
}
