//! When the network sends frames to the guest.
//!
//! Time is a [`Duration`] since the event.

use std::time::Duration;

/// Frames within one of these count once.
const WINDOW: Duration = Duration::from_millis(100);
/// So many windows with frames are no coincidence.
const MIN_WINDOWS: u32 = 3;
/// Frames have ceased after so long without any.
const MIN_SILENCE: Duration = Duration::from_secs(3);

/// When frames for the guest entered that are no answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Returned {
    /// The first.
    pub first: Option<Duration>,
    /// The last one captured: of many, only some per [`WINDOW`] are.
    pub last: Option<Duration>,
    windows: u32,
}

impl Returned {
    /// Records a frame.
    pub fn saw(&mut self, at: Duration) {
        let window = |at: Duration| at.as_nanos() / WINDOW.as_nanos();
        self.windows += u32::from(self.last.is_none_or(|last| window(last) < window(at)));
        self.first = Some(self.first.map_or(at, |first| first.min(at)));
        self.last = self.last.max(Some(at));
    }

    /// Frames entered for a while, and have ceased at `now`.
    pub fn has_ceased(&self, now: Duration) -> bool {
        self.windows >= MIN_WINDOWS && self.last.is_some_and(|last| now.saturating_sub(last) >= MIN_SILENCE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn frames_have_ceased_after_three_windows_with_some_and_three_seconds_without() {
        let returned = |times: &[u64]| {
            let mut returned = Returned::default();
            times.iter().for_each(|at| returned.saw(ms(*at)));
            returned
        };
        let some = returned(&[113, 150, 210, 265, 301]);
        assert_eq!((some.first, some.last), (Some(ms(113)), Some(ms(301))));
        assert!(!some.has_ceased(ms(3300)) && some.has_ceased(ms(3301)));
        assert!(!returned(&[113, 150, 210, 265]).has_ceased(ms(9000)), "two windows");
    }
}
