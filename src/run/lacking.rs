//! The time without a working injection method, and the pauses between the attempts to prepare one.

use std::time::Duration;

use crate::host::backoff::Backoff;

/// The pauses between attempts to prepare an injection method while none works.
const MIN_RETRY: Duration = Duration::from_millis(1);
const MAX_RETRY: Duration = Duration::from_millis(100);
/// The same while another one works.
const MIN_RETRY_OF_BETTER: Duration = Duration::from_millis(100);
const MAX_RETRY_OF_BETTER: Duration = Duration::from_secs(1);

/// The best method, or every one, does not work now but may work later: ovs-vswitchd may be starting.
pub(super) struct Lacking {
    /// The last error.
    pub why: String,
    /// When it began.
    pub since: Duration,
    /// When the methods are tried next.
    pub retry_at: Duration,
    backoff: Backoff,
    another_works: bool,
    /// The operator was warned.
    pub is_warned_of: bool,
}

impl Lacking {
    /// From `now` on; the next attempt is due at once.
    pub(super) fn new(now: Duration) -> Lacking {
        Lacking::with(Backoff::new(MIN_RETRY, MAX_RETRY), now)
    }

    /// From `now` on, only the best method does not work; the next attempt is due after a pause.
    pub(super) fn of_better(now: Duration) -> Lacking {
        let mut lacking = Lacking::with(Backoff::new(MIN_RETRY_OF_BETTER, MAX_RETRY_OF_BETTER), now);
        lacking.another_works = true;
        lacking.pause(now);
        lacking
    }

    /// The attempt at `now` failed, and no other method works.
    pub(super) fn pause_without_any(&mut self, now: Duration) {
        if std::mem::take(&mut self.another_works) {
            (self.since, self.backoff) = (now, Backoff::new(MIN_RETRY, MAX_RETRY));
        }
        self.pause(now);
    }

    fn with(backoff: Backoff, now: Duration) -> Lacking {
        Lacking {
            why: String::new(),
            since: now,
            retry_at: now,
            backoff,
            another_works: false,
            is_warned_of: false,
        }
    }

    /// An attempt failed at `now`.
    pub(super) fn pause(&mut self, now: Duration) {
        self.retry_at = now.saturating_add(self.backoff.pause());
    }
}
