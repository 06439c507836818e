//! Standard output and standard error of announce(1).

use std::io::{self, Write};

use crate::cli::args::Output;
use crate::cli::exit::Status;

/// `value` as JSON: one line, or indented with --pretty.
pub(super) fn json<T: serde::Serialize>(value: &T, output: &Output) -> String {
    let text = if output.pretty { serde_json::to_string_pretty(value) } else { serde_json::to_string(value) };
    text.unwrap_or_default()
}

/// Prints `text` and a line feed to standard output.
///
/// A reader that has closed the pipe is no error; a full disk is one.
pub(super) fn print(text: &str) -> Status {
    // Names from outside might contain control sequences for the terminal.
    let text = text.replace(|c: char| c.is_control() && c != '\n', " ");
    match writeln!(io::stdout().lock(), "{text}") {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            complain(&format!("cannot write to standard output: {error}"));
            Status::Failed
        }
        _ => Status::Announced,
    }
}

/// Prints one line to standard error.
pub(super) fn complain(text: &str) {
    // Names and reasons from OVSDB and libvirt may contain anything; the output stays one safe line.
    let line = text.replace(char::is_control, " ");
    let _ = writeln!(io::stderr().lock(), "announce: {line}");
}
