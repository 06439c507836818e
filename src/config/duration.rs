//! Durations with units: `50ms`, `2s`, `1m 30s`.

use std::time::Duration;

use jiff::SignedDuration;

/// The upper bound, so that adding a duration to an instant cannot overflow.
const MAX_DURATION: Duration = Duration::from_secs(365 * 24 * 3600);

/// Why a text is no duration that can be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadDuration {
    /// It is longer than a year.
    #[error("{0:?} is longer than a year")]
    TooLong(String),
    /// It is not a duration.
    #[error("{0:?} is not a duration: write a number and a unit, such as 50ms or 2s")]
    Unreadable(String),
}

/// Reads a duration of up to a year: numbers with units, or a number of seconds.
pub fn parse(text: &str) -> Result<Duration, BadDuration> {
    let text = text.trim();
    let seconds = text.parse::<u32>().ok().map(|seconds| SignedDuration::from_secs(seconds.into()));
    let parsed = seconds.or_else(|| text.parse::<SignedDuration>().ok());
    match parsed.and_then(|d| Duration::try_from(d).ok()) {
        Some(duration) if duration <= MAX_DURATION => Ok(duration),
        Some(_) => Err(BadDuration::TooLong(text.into())),
        None => Err(BadDuration::Unreadable(text.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_read() {
        assert_eq!(parse("50ms"), Ok(Duration::from_millis(50)));
        assert_eq!(parse("2s"), Ok(Duration::from_secs(2)));
        assert_eq!(parse("1m 30s"), Ok(Duration::from_secs(90)));
        assert_eq!(parse("0"), Ok(Duration::ZERO));
        assert_eq!(parse("60"), Ok(Duration::from_secs(60)), "as timeout(1) and virsh(1) read it");
    }

    #[test]
    fn a_duration_beyond_a_year_is_refused() {
        assert!(parse("8760h").is_ok());
        for text in ["8761h", "9223372036854775807s"] {
            assert_eq!(parse(text), Err(BadDuration::TooLong(text.into())));
        }
    }

    #[test]
    fn a_text_that_is_no_duration_is_refused_with_the_remedy() {
        for text in ["-1", "-1s", "1.5", "", "soon", "1e9999s", "99999999999999999999s"] {
            assert_eq!(parse(text), Err(BadDuration::Unreadable(text.into())));
        }
    }
}
