//! Threads that close packet sockets: closing waits some milliseconds until no CPU uses the socket.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};

/// The number of threads, which wait for the kernel at the same time. One closes some sixty a second, and an evacuation leaves more.
const CLOSERS: usize = 8;

/// The threads, each with its own queue: a queue that they shared would wake several of them for each socket.
#[derive(Debug)]
pub(super) struct Closers {
    queues: [Sender<OwnedFd>; CLOSERS],
    next: AtomicUsize,
}

impl Closers {
    /// Starts the threads, with the capabilities that the process has now.
    pub(super) fn start() -> Closers {
        Closers { queues: [(); CLOSERS].map(|()| queue()), next: AtomicUsize::new(0) }
    }

    /// Closes a descriptor on the next thread.
    pub(super) fn close(&self, fd: OwnedFd) {
        let next = self.next.fetch_add(1, Ordering::Relaxed) % CLOSERS;
        let _ = self.queues[next].send(fd);
    }
}

fn queue() -> Sender<OwnedFd> {
    let (queue, closed) = channel::<OwnedFd>();
    let closer = move || closed.iter().for_each(drop);
    // Without the thread, descriptors are closed as they are sent, which only takes longer.
    let _ = std::thread::Builder::new().name("closing".into()).spawn(closer);
    queue
}
