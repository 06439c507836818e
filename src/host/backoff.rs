//! Pauses between repeated attempts: each twice as long as the previous one, up to a limit.

use std::time::Duration;

/// The pauses, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Backoff {
    first: Duration,
    longest: Duration,
    next: Duration,
}

impl Backoff {
    /// Pauses from `first`, doubled each time, up to `longest`.
    pub(crate) const fn new(first: Duration, longest: Duration) -> Backoff {
        Backoff { first, longest, next: first }
    }

    /// The next pause.
    pub(crate) fn pause(&mut self) -> Duration {
        let pause = self.next.min(self.longest);
        self.next = pause.saturating_mul(2);
        pause
    }

    /// Whether no pause has been made yet.
    pub(crate) fn is_first(&self) -> bool {
        self.next == self.first
    }

    /// Whether the longest pause has been made.
    pub(crate) fn is_spent(&self) -> bool {
        self.next > self.longest
    }

    /// An attempt has succeeded: start again with the first pause.
    pub(crate) fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_begin_anew() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_millis(350));
        assert!(backoff.is_first());
        let pauses = [(); 4].map(|()| backoff.pause().as_millis());
        assert_eq!(pauses, [100, 200, 350, 350]);
        assert!(backoff.is_spent() && !backoff.is_first());
        backoff.reset();
        assert_eq!(backoff.pause(), Duration::from_millis(100));
    }
}
