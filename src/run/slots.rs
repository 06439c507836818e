//! Blocking requests on threads of their own, a few at a time.

use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::JoinError;

/// The threads for requests of one kind.
#[derive(Debug, Clone)]
pub(crate) struct Slots(Arc<Semaphore>);

impl Slots {
    /// So many requests at the same time; others wait.
    pub(crate) fn new(number: usize) -> Slots {
        Slots(Arc::new(Semaphore::new(number)))
    }

    /// Makes a request. One that hangs occupies its slot even after its answer is no longer wanted.
    ///
    /// # Errors
    ///
    /// It was interrupted.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        request: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, JoinError> {
        let slot = self.0.clone().acquire_owned().await;
        let request = move || {
            let _slot = slot;
            request()
        };
        tokio::task::spawn_blocking(request).await
    }
}
