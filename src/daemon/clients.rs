//! Takes on the clients of a listener for as long as the process lives, whatever they do.

use std::future::poll_fn;
use std::io;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::sync::Semaphore;

/// So many clients are answered at the same time, and the others after them.
const ROOM: usize = 16;
/// When no client can be taken on, mostly for want of file descriptors, it is tried again after this long.
const RETRY: Duration = Duration::from_millis(100);

/// Lets `answer` answer each client that the listener's `accept` brings, within `patience`.
pub async fn serve<C, A>(
    mut accept: impl FnMut(&mut Context<'_>) -> Poll<io::Result<C>>,
    patience: Duration,
    answer: impl Fn(C) -> A,
) -> !
where
    A: Future<Output = io::Result<()>> + Send + 'static,
{
    let room = Arc::new(Semaphore::new(ROOM));
    loop {
        let place = room.clone().acquire_owned().await;
        match poll_fn(&mut accept).await {
            Ok(client) => {
                let answered = tokio::time::timeout(patience, answer(client));
                tokio::spawn(async move {
                    // A client that has gone away, or does not read, has what it deserves.
                    let _ = answered.await;
                    drop(place);
                });
            }
            Err(_) => tokio::time::sleep(RETRY).await,
        }
    }
}
