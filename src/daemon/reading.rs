//! Reads a guest, repeatedly if that fails: libvirt may be busy, or its connection lost.

use std::time::Duration;

use tokio::sync::watch;

use crate::guest::GuestState;
use crate::host::backoff::Backoff;

const MIN_PAUSE: Duration = Duration::from_millis(100);
/// After this pause the reading has failed. All pauses together take 12.7 s; by then a lost connection has been restored,
/// and a new connection reads all guests.
const MAX_PAUSE: Duration = Duration::from_millis(6400);

/// Calls `read` until it succeeds, the guest has left, or the pauses are used up; then the error is that of the last
/// attempt.
pub(super) async fn patiently<T, R: Future<Output = Result<T, String>>>(
    read: impl Fn() -> R,
    mut guest: watch::Receiver<GuestState>,
) -> Result<T, String> {
    let mut backoff = Backoff::new(MIN_PAUSE, MAX_PAUSE);
    loop {
        let why = match read().await {
            Ok(known) => return Ok(known),
            Err(why) if backoff.is_spent() => return Err(why),
            Err(why) => why,
        };
        let left = guest.wait_for(|state| matches!(state, GuestState::Left(_)));
        if tokio::time::timeout(backoff.pause(), left).await.is_ok() {
            return Err(why);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::{Ready, ready};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

    use super::*;

    /// Succeeds at the attempt with this number, from 1.
    fn reader(success: u32) -> (Arc<AtomicU32>, impl Fn() -> Ready<Result<u32, String>>) {
        let attempts = Arc::new(AtomicU32::new(0));
        let count = attempts.clone();
        let read = move || {
            let attempt = count.fetch_add(1, SeqCst) + 1;
            ready(if attempt == success { Ok(attempt) } else { Err(format!("attempt {attempt}")) })
        };
        (attempts, read)
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_reading_is_repeated() {
        let (_guest, state) = watch::channel(GuestState::Running);
        let (_, read) = reader(3);
        assert_eq!(patiently(read, state).await, Ok(3));
    }

    #[tokio::test(start_paused = true)]
    async fn a_reading_that_always_fails_ends() {
        let (_guest, state) = watch::channel(GuestState::Running);
        let (attempts, read) = reader(0);
        assert_eq!(patiently(read, state).await, Err("attempt 8".into()));
        assert_eq!(attempts.load(SeqCst), 8);
    }

    #[tokio::test(start_paused = true)]
    async fn a_guest_that_has_left_is_not_read_again() {
        let (_guest, state) = watch::channel(GuestState::Left("shut off"));
        let (attempts, read) = reader(0);
        assert_eq!(patiently(read, state).await, Err("attempt 1".into()));
        assert_eq!(attempts.load(SeqCst), 1);
    }
}
