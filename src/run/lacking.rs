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
    /// When the methods are tried next.
    pub retry_at: Duration,
    backoff: Backoff,
}

impl Lacking {
    /// At `now`; the next attempt is due at once.
    pub(super) fn new(now: Duration) -> Lacking {
        let backoff = Backoff::new(MIN_RETRY_OF_BETTER, MAX_RETRY_OF_BETTER);
        Lacking { why: String::new(), retry_at: now, backoff }
    }

    /// The attempt at `now` to use a better method failed, and another one works.
    pub(super) fn pause(&mut self, now: Duration) {
        self.retry_at = now.saturating_add(self.backoff.pause());
    }

    /// The same where no method works.
    pub(super) fn pause_without_any(&mut self, now: Duration, unsent: &mut Unsent) {
        self.retry_at = now.saturating_add(unsent.backoff.pause());
    }
}

/// No round can be sent, also where a method could be prepared again.
pub(super) struct Unsent {
    /// Since when.
    pub since: Duration,
    /// The operator was warned.
    pub is_warned_of: bool,
    backoff: Backoff,
}

impl Unsent {
    /// From `now` on.
    pub(super) fn new(now: Duration) -> Unsent {
        Unsent { since: now, is_warned_of: false, backoff: Backoff::new(MIN_RETRY, MAX_RETRY) }
    }
}
