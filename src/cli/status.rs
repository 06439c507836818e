//! `announce status`: what the daemon did and is doing.

use std::io::{self, BufReader};

use crate::cli::exit::{Problem, Status};
use crate::cli::output::{json, print};
use crate::daemon::serve;
use crate::report::snapshot::Snapshot;
use crate::report::timeline;

/// Asks the daemon, and prints its answer; of `vm`, only what is remembered of that guest.
///
/// # Errors
///
/// The daemon does not answer, or remembers nothing of `vm`.
pub(super) fn run(vm: Option<String>, as_json: bool, prometheus: bool) -> Result<Status, Problem> {
    let status = ask().map_err(|error| {
        (Status::Failed, format!("the daemon does not answer: {error} (does announced run?)"))
    })?;
    if let Some(vm) = vm {
        let mut reports = status.of(&vm).peekable();
        if reports.peek().is_none() {
            return Err((Status::NoVm, format!("the daemon remembers no announcement of {vm}")));
        }
        let printed = reports.map(|ended| {
            print(&if as_json { json(ended) } else { ended.to_string() + &timeline::draw(&ended.report) })
        });
        return Ok(printed.max().unwrap_or(Status::Announced));
    }
    Ok(match (as_json, prometheus) {
        (true, _) => print(&json(&status)),
        (_, true) => print(status.metrics.text(&status.gauges).trim_end()),
        _ => print(&status.to_string()),
    })
}

fn ask() -> io::Result<Snapshot> {
    Ok(serde_json::from_reader(BufReader::new(serve::connect()?))?)
}
