//! Where diagnostics go.

use std::io::{self, IsTerminal};

use tracing_subscriber::filter::LevelFilter;

/// Diagnostics on standard error: warnings; also what is waited for, to a person at a terminal; or everything.
pub fn to_stderr(verbose: bool) {
    let level = match (verbose, io::stderr().is_terminal()) {
        (true, _) => LevelFilter::DEBUG,
        (false, true) => LevelFilter::INFO,
        (false, false) => LevelFilter::WARN,
    };
    let subscriber = tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_ansi(false)
        .with_target(false)
        .with_level(verbose)
        .without_time()
        .with_max_level(level);
    // Only fails where somebody has set one before; then that one stays.
    let _ = subscriber.try_init();
}
