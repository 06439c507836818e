//! Waits for others, though not for ever.

use std::time::Duration;

use tokio::time::timeout;

/// What `work` comes to; `None` when it takes longer than `patience`.
///
/// When this machine stands still for a while, as a virtual machine that its host suspends, so does whoever is waited for: all of
/// that time costs half of the wait at most.
pub(super) async fn within<T>(patience: Duration, work: impl Future<Output = T>) -> Option<T> {
    tokio::pin!(work);
    for _ in 0..2 {
        if let Ok(done) = timeout(patience / 2, &mut work).await {
            return Some(done);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;
    use tokio::time::{Instant, advance};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_waited_for_and_no_longer_than_patience_lasts() {
        assert_eq!(within(Duration::from_secs(1), async { 7 }).await, Some(7));
        let asked = Instant::now();
        assert_eq!(within(Duration::from_secs(1), std::future::pending::<()>()).await, None);
        assert!((1000..1100).contains(&asked.elapsed().as_millis()), "{:?}", asked.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn who_stood_still_with_the_machine_may_still_answer() {
        let (answer, answered) = oneshot::channel();
        let waiting = tokio::spawn(within(Duration::from_secs(1), answered));
        tokio::task::yield_now().await;
        advance(Duration::from_secs(60)).await;
        answer.send(()).unwrap();
        assert_eq!(waiting.await.unwrap(), Some(Ok(())));
    }
}
