//! Where diagnostics go.

use std::io::{self, IsTerminal};

use tracing_journald::{Priority, PriorityMappings};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::prelude::*;

/// What is waited for is told by events of this target.
pub(crate) const WAITING: &str = "announced::waiting";

/// Diagnostics on standard error: warnings; also what is waited for, to a person at a terminal; or everything.
pub(crate) fn to_stderr(verbose: bool) {
    let told = match (verbose, io::stderr().is_terminal()) {
        (true, _) => Targets::new().with_default(LevelFilter::DEBUG),
        (false, true) => {
            Targets::new().with_default(LevelFilter::WARN).with_target(WAITING, LevelFilter::DEBUG)
        }
        (false, false) => Targets::new().with_default(LevelFilter::WARN),
    };
    let subscriber = tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_ansi(false)
        .with_target(false)
        .with_level(verbose)
        .without_time()
        .with_max_level(LevelFilter::DEBUG);
    // Only fails where somebody has set one before; then that one stays.
    let _ = subscriber.finish().with(told).try_init();
}

/// Diagnostics of the daemon: to the journal with fields (`ANNOUNCE_DOMAIN=web1`) under systemd, else on standard error.
pub(crate) fn for_daemon() {
    let journal = std::env::var_os("JOURNAL_STREAM").and_then(|_| tracing_journald::layer().ok());
    if let Some(journal) = journal {
        let priorities = PriorityMappings {
            info: Priority::Informational,
            debug: Priority::Debug,
            ..PriorityMappings::new()
        };
        let journal = journal.with_field_prefix(Some("ANNOUNCE".into())).with_priority_mappings(priorities);
        let subscriber = tracing_subscriber::registry().with(LevelFilter::INFO).with(journal);
        let _ = subscriber.try_init();
        return;
    }
    let fields = tracing_subscriber::fmt::format::debug_fn(|writer, field, value| match field.name() {
        // The line says it all; the fields are for the journal.
        "message" => write!(writer, "{value:?}"),
        _ => Ok(()),
    });
    let subscriber = tracing_subscriber::fmt().fmt_fields(fields).with_writer(io::stderr).with_ansi(false);
    let subscriber = subscriber.with_target(false).without_time().with_max_level(LevelFilter::INFO);
    let _ = subscriber.try_init();
}
