//! When a program of the lab is to end: with SIGTERM, SIGINT or its standard input, so that whoever holds the other end
//! of that, and dies, takes it along. `/dev/null` as standard input means nobody.

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
    if !nobody_on_stdin() {
        thread::spawn(move || {
            // What comes does not matter, and an error is an end, too.
            let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
            end();
        });
    }
    Ok(())
}

fn nobody_on_stdin() -> bool {
    let device = |path| std::fs::metadata(path).ok().map(|file| file.rdev());
    device("/proc/self/fd/0") == device("/dev/null")
}
