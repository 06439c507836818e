//! How long an operator may hold back what the host sends.

use std::time::Duration;

/// A forgotten pause must not outlast a night shift.
pub(crate) const MAX: Duration = Duration::from_secs(4 * 3600);

/// A pause of no length, or of too much.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a pause lasts from 1s to 4h, not {0:?}; it can be renewed before it ends")]
pub(crate) struct BadPause(Duration);

/// Checks that a pause can be so long.
pub(crate) fn check(pause: Duration) -> Result<Duration, BadPause> {
    if (Duration::from_secs(1)..=MAX).contains(&pause) { Ok(pause) } else { Err(BadPause(pause)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_has_bounds() {
        assert_eq!(check(MAX), Ok(MAX));
        let words = check(MAX + Duration::from_secs(1)).unwrap_err().to_string();
        assert_eq!(words, "a pause lasts from 1s to 4h, not 14401s; it can be renewed before it ends");
        assert!(check(Duration::ZERO).is_err());
    }
}
