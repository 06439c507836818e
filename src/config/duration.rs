//! Durations as people write them: `50ms`, `2s`, `1m 30s`.

use std::time::Duration;

use jiff::SignedDuration;

/// Nobody waits for longer, and clocks can count that far.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

/// Reads a duration of up to a year; every number needs a unit, but for a lone zero.
pub fn parse(text: &str) -> Result<Duration, String> {
    if text.trim() == "0" {
        return Ok(Duration::ZERO);
    }
    let parsed = text.trim().parse::<SignedDuration>().ok();
    match parsed.and_then(|d| Duration::try_from(d).ok()) {
        Some(duration) if duration <= LONGEST => Ok(duration),
        Some(_) => Err(format!("{text:?} is longer than a year")),
        None => Err(format!("{text:?} is no duration: write a number and a unit, such as 50ms or 2s")),
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
    }

    #[test]
    fn what_no_clock_can_count_is_refused() {
        assert!(parse("8760h").is_ok());
        for text in ["8761h", "9223372036854775807s"] {
            assert!(parse(text).unwrap_err().ends_with("is longer than a year"), "{text}");
        }
    }

    #[test]
    fn a_number_without_a_unit_and_a_negative_one_are_refused_with_the_remedy() {
        for text in ["50", "-1s", "", "soon", "1e9999s", "99999999999999999999s"] {
            assert!(parse(text).unwrap_err().contains("such as 50ms"), "{text}");
        }
    }
}
