//! Where diagnostics go.

use std::io;

use tracing_subscriber::filter::LevelFilter;

/// Diagnostics on standard error: warnings, or everything.
pub fn to_stderr(verbose: bool) {
    let level = if verbose { LevelFilter::DEBUG } else { LevelFilter::WARN };
    let subscriber = tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_ansi(false)
        .with_target(false)
        .without_time()
        .with_max_level(level);
    // Only fails where somebody has set one before; then that one stays.
    let _ = subscriber.try_init();
}
