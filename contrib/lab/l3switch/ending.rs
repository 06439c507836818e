//! The end of a program of the lab: SIGTERM, SIGINT, or the end of its standard input, so that it ends with the process that holds
//! the other end. `/dev/null` as standard input means no such process.

use std::os::unix::fs::MetadataExt;
use std::thread;

use nix::sys::signal::{SigSet, Signal};

/// Calls `end` once or more, from other threads. To be called before any other thread is started: these inherit that the
/// signals are blocked.
pub fn on_end(end: impl Fn() + Clone + Send + 'static) -> nix::Result<()> {
    let signals = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT]);
    signals.thread_block()?;
    let on_signal = end.clone();
    thread::spawn(move || {
        if signals.wait().is_ok() {
            on_signal();
        }
    });
    if !stdin_is_null() {
        thread::spawn(move || {
            // What comes does not matter, and an error is an end, too.
            let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
            end();
        });
    }
    Ok(())
}

fn stdin_is_null() -> bool {
    let device = |path| std::fs::metadata(path).ok().map(|file| file.rdev());
    device("/proc/self/fd/0") == device("/dev/null")
}
