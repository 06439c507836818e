//! The time without a working injection method, and the pauses between the attempts to prepare one.

use std::time::Duration;

use crate::host::backoff::Backoff;

/// The pauses between attempts to prepare an injection method while none works.
const MIN_RETRY: Duration = Duration::from_millis(1);
const MAX_RETRY: Duration = Duration::from_millis(100);

/// The best method, or every one, does not work now but may work later: ovs-vswitchd may be starting.
pub(super) struct Lacking {
    /// The last error.
    pub why: String,
    /// When it began.
    pub since: Duration,
    /// When the methods are tried next.
    pub retry_at: Duration,
    backoff: Backoff,
    /// The operator was warned.
    pub is_warned_of: bool,
}

impl Lacking {
    /// From `now` on; the next attempt is due at once.
    pub(super) fn new(now: Duration) -> Lacking {
        let backoff = Backoff::new(MIN_RETRY, MAX_RETRY);
        Lacking { why: String::new(), since: now, retry_at: now, backoff, is_warned_of: false }
    }

    /// An attempt failed at `now`.
    pub(super) fn pause(&mut self, now: Duration) {
        self.retry_at = now.saturating_add(self.backoff.pause());
    }
}
