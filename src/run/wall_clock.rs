//! Moments by the wall clock, as JSON has them: RFC 3339, UTC, milliseconds.

use std::time::{Duration, SystemTime};

use tokio::time::Instant;

/// Now.
pub(crate) fn now() -> String {
    text(SystemTime::now())
}

/// A moment that was, or that is to come.
pub(crate) fn at(moment: Instant) -> String {
    text(of(moment))
}

/// The same, by the wall clock of now.
pub(crate) fn of(moment: Instant) -> SystemTime {
    let now = Instant::now();
    let ahead = moment.saturating_duration_since(now);
    let wall = SystemTime::now() - now.saturating_duration_since(moment);
    wall.checked_add(ahead).unwrap_or(wall)
}

/// So long after the moment `began`.
pub(crate) fn after(began: Instant, delay: Duration) -> SystemTime {
    let began = of(began);
    began.checked_add(delay).unwrap_or(began)
}

/// A time of a file, say.
pub(crate) fn text(time: SystemTime) -> String {
    jiff::Timestamp::try_from(time).map(|at| format!("{at:.3}")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_have_milliseconds_whatever_they_are() {
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_764_107_646);
        assert_eq!(text(time), "2025-11-25T21:54:06.000Z");
        assert_eq!(now().len(), text(time).len());
    }

    #[test]
    fn a_moment_to_come_is_later_than_one_that_was() {
        let now = Instant::now();
        assert!(after(now, Duration::from_secs(60)) > of(now));
    }
}
