//! Waiting with the precision that the first milliseconds after readiness need.

use std::time::Duration;

use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use tokio::time::Instant;

use super::sys;

/// The runtime's own timer counts whole milliseconds.
const COARSE: Duration = Duration::from_millis(2);

/// Waits until `deadline`, to about fifty microseconds when it is near.
pub async fn sleep_until(deadline: Instant) {
    if let Some(coarse) = deadline.checked_duration_since(Instant::now() + COARSE) {
        tokio::time::sleep(coarse).await;
    }
    let rest = deadline.saturating_duration_since(Instant::now());
    if rest.is_zero() || fine(rest).await.is_some() {
        return;
    }
    tokio::time::sleep_until(deadline).await;
}

async fn fine(rest: Duration) -> Option<()> {
    let timer =
        TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC).ok()?;
    timer.set(Expiration::OneShot(rest.into()), TimerSetTimeFlags::empty()).ok()?;
    let timer = sys::readable(timer.into()).ok()?;
    timer.readable().await.ok().map(drop)
}
