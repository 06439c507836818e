//! Open vSwitch's verdicts on frames, requested one at a time and at a limited rate, so that its main loop hardly notices.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

/// Requests per second in the long run.
const MAX_PER_SECOND: u32 = 10;
/// Requests at once: the kinds of frames of two guests.
const MAX_AT_ONCE: u32 = 8;

/// The rate limit of all announcements of a host.
#[derive(Debug, Clone, Default)]
pub(crate) struct Traces(Arc<Mutex<Budget>>);

/// When the requests so far would have been made at the long-run rate.
#[derive(Debug, Default)]
struct Budget(Option<Instant>);

impl Traces {
    /// Asks, unless the rate is exhausted; waits for a previous request's answer.
    pub(crate) async fn ask<T>(&self, question: impl Future<Output = Option<T>>) -> Option<T> {
        let mut budget = self.0.lock().await;
        if !budget.take(Instant::now()) {
            return None;
        }
        question.await
    }
}

impl Budget {
    fn take(&mut self, now: Instant) -> bool {
        let each = Duration::from_secs(1) / MAX_PER_SECOND;
        let paid = self.0.map_or(now, |paid| paid.max(now)) + each;
        let is_free = paid <= now + each * MAX_AT_ONCE;
        if is_free {
            self.0 = Some(paid);
        }
        is_free
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_requests_pass_at_once_and_then_ten_a_second() {
        let (mut budget, began) = (Budget::default(), Instant::now());
        let asked = |budget: &mut Budget, ms: u64| {
            let now = began + Duration::from_millis(ms);
            (0..100).filter(|_| budget.take(now)).count()
        };
        assert_eq!(asked(&mut budget, 0), 8);
        assert_eq!((asked(&mut budget, 99), asked(&mut budget, 100), asked(&mut budget, 200)), (0, 1, 1));
        let later: usize = (1..=100).map(|tenth| asked(&mut budget, 200 + tenth * 100)).sum();
        assert_eq!(later, 100);
    }
}
