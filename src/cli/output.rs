//! Standard output and standard error of announce(1).

use std::io::{self, Write};

use crate::cli::args::Output;
use crate::cli::exit::Status;

/// `value` as JSON: one line, or indented where that is asked for.
pub(super) fn json<T: serde::Serialize>(value: &T, output: &Output) -> String {
    let text = if output.pretty { serde_json::to_string_pretty(value) } else { serde_json::to_string(value) };
    text.unwrap_or_default()
}

/// Prints `text` and an end of line on standard output.
///
/// A reader that has gone away is no error: it has what it wanted. A full disk is one.
pub(super) fn print(text: &str) -> Status {
    // Names come from elsewhere, and might steer the terminal.
    let text = text.replace(|c: char| c.is_control() && c != '\n', " ");
    match writeln!(io::stdout().lock(), "{text}") {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            complain(&format!("cannot write to standard output: {error}"));
            Status::Failed
        }
        _ => Status::Announced,
    }
}

/// Prints one line on standard error.
pub(super) fn complain(text: &str) {
    // Names and reasons come from OVSDB and libvirt: whatever they hold, this stays one line that is safe to show.
    let line = text.replace(char::is_control, " ");
    let _ = writeln!(io::stderr().lock(), "announce: {line}");
}
