//! `announce status`: what the daemon did and is doing.

use std::io::{self, BufReader};
use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::announcement::machine::Outcome;
use crate::cli::args::{self, Output};
use crate::cli::exit::{Problem, Status};
use crate::cli::output::{json, print};
use crate::daemon::serve;
use crate::guest::target::printable;
use crate::report::Report;
use crate::report::metrics::Gauges;
use crate::report::snapshot::{Ended, Snapshot};
use crate::report::timeline;

/// The number of announcements printed by default.
const DEFAULT_LINES: usize = 10;
const HEAD: [&str; 8] = ["TIME", "VM", "DEVICE", "CAUSE", "OUTCOME", "READY", "FRAME", ""];

/// Asks the daemon, and prints its answer.
///
/// # Errors
///
/// The daemon does not answer, or has no record of the VM.
pub(super) fn run(args: &args::Status) -> Result<Status, Problem> {
    let mut status = ask()?;
    if args.prometheus {
        return Ok(print(status.metrics.text(&status.gauges, &status.waiting).trim_end()));
    }
    let output = Output { json: args.json, pretty: args.pretty, verbose: false };
    let vm = args.vm.as_ref().or(args.of.as_ref());
    if let Some(vm) = vm {
        status.recent.retain(|ended| ended.is_of(vm));
        if status.recent.is_empty() {
            return Err((Status::NoVm, unknown(&status, vm)));
        }
    }
    filter(&mut status.recent, args);
    Ok(match (vm, output.json) {
        (None, true) => print(&json(&status, &output)),
        (None, false) => print(&text(&status)),
        (Some(_), as_json) => {
            let printed = status
                .recent
                .iter()
                .map(|ended| print(&if as_json { json(ended, &output) } else { with_timeline(ended) }));
            printed.max().unwrap_or(Status::Announced)
        }
    })
}

fn ask() -> Result<Snapshot, Problem> {
    let failed = |error: io::Error| {
        let socket = serve::socket();
        (
            Status::Failed,
            format!("announced does not answer at {}: {error}: systemctl status announced", socket.display()),
        )
    };
    let stream = serve::connect().map_err(failed)?;
    serde_json::from_reader(BufReader::new(stream)).map_err(|error| failed(error.into()))
}

fn unknown(status: &Snapshot, vm: &str) -> String {
    let vm = printable(vm);
    match status.in_progress.iter().find(|subject| subject.split(' ').any(|word| word == vm)) {
        Some(subject) => format!("{subject} is being announced; none of its announcements has ended yet"),
        None => format!(
            "the daemon has no announcement of {vm}; for earlier ones: journalctl -u announced ANNOUNCE_DOMAIN={vm}"
        ),
    }
}

/// Keeps the reports that `args` select, the last ones.
fn filter(recent: &mut Vec<Ended>, args: &args::Status) {
    if args.failed {
        recent.retain(|ended| ended.report.outcome != Outcome::Announced);
    }
    if let Some(since) = args.since {
        recent.retain(|ended| age(&ended.at).is_some_and(|age| age <= since));
    }
    // A program that reads the JSON gets everything unless it asks for less.
    let all = if args.json || args.since.is_some() { usize::MAX } else { DEFAULT_LINES };
    let surplus = recent.len().saturating_sub(args.lines.unwrap_or(all));
    recent.drain(..surplus);
}

fn age(at: &str) -> Option<Duration> {
    let at: Timestamp = at.parse().ok()?;
    Some(SystemTime::now().duration_since(at.into()).unwrap_or_default())
}

fn text(status: &Snapshot) -> String {
    let word = |up: bool| if up { "connected" } else { "NOT connected" };
    let Gauges { libvirt, ovsdb, in_progress, .. } = status.gauges;
    let mut text = format!(
        "libvirt {}, OVSDB {}; {}; {} under way",
        word(libvirt),
        word(ovsdb),
        count(status.guests, "guest"),
        count(in_progress, "announcement"),
    );
    for subject in &status.in_progress {
        let waiting = status.waiting.iter().find(|waiting| waiting.subject == *subject);
        let reason = waiting.map(|waiting| format!(": waiting: {}", waiting.reason)).unwrap_or_default();
        text += &format!("\n  {subject}{reason}");
    }
    if !status.recent.is_empty() {
        text += &format!("\n{}", table(status.recent.iter().map(row)));
    }
    text
}

/// `1 guest`, `2 guests`.
fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

fn row(ended: &Ended) -> [String; 8] {
    let report = &ended.report;
    let time = |ms: Option<f64>| ms.map_or_else(|| "-".to_owned(), |ms| format!("{ms:.1} ms"));
    [
        local(report.event_at.as_deref().unwrap_or(&ended.at)),
        report.domain.as_ref().map_or_else(|| "-".into(), |domain| printable(&domain.name)),
        report.device.clone().unwrap_or_else(|| "-".into()),
        report.cause.word().into(),
        report.outcome.word().into(),
        time(report.ready_after_ms),
        time(report.first_frame_after_ms),
        result(report),
    ]
}

/// How the frames left, or why they did not, and each fault.
fn result(report: &Report) -> String {
    let departure = report.evidence.departure.as_ref().map(ToString::to_string);
    let why = match report.outcome {
        Outcome::Announced => None,
        Outcome::NotReady => Some(report.unmet.join("; ")),
        _ => report.error.clone(),
    };
    let evidence = &report.evidence;
    let amiss = evidence.unseen.iter().map(|why| format!("departure not observable: {why}"));
    // The text of a failure already has the reason for stuck frames.
    let has_reason = why.is_some();
    let stuck = evidence.stuck.iter().filter(|_| !has_reason).cloned();
    let amiss = amiss.chain(stuck).chain(evidence.stale.clone());
    let rarp_only = report.addresses.is_empty().then(|| "RARP only: no address known".to_owned());
    why.into_iter().chain(departure).chain(amiss).chain(rarp_only).collect::<Vec<_>>().join("; ")
}

/// A time (RFC 3339) in this host's time zone, to the millisecond.
fn local(at: &str) -> String {
    match at.parse::<Timestamp>() {
        Ok(at) => at.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S%.3f").to_string(),
        Err(_) => at.to_owned(),
    }
}

fn table(rows: impl Iterator<Item = [String; 8]>) -> String {
    let rows: Vec<[String; 8]> = std::iter::once(HEAD.map(str::to_owned)).chain(rows).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths: [usize; 8] = std::array::from_fn(width);
    let line = |row: &[String; 8]| {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn with_timeline(ended: &Ended) -> String {
    let at = local(ended.report.event_at.as_deref().unwrap_or(&ended.at));
    format!("{at} {}{}", ended.report.line(), timeline::draw(&ended.report))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::event::Cause;
    use crate::guest::target::{DomainId, Unannounceable};

    fn ended(name: &str, outcome: Outcome) -> Ended {
        let domain = DomainId { name: name.into(), uuid: String::new() };
        let nic = Unannounceable {
            domain: Some(domain),
            device: Some("tap0".into()),
            mac: None,
            reason: String::new(),
            by_representor: None,
        };
        let report = Report::refused(&nic, Cause::Migrated);
        let unmet = vec!["the port tap0 has no VLAN tag yet".to_owned()];
        Ended { at: "2026-11-25T17:42:10.625Z".into(), report: Report { outcome, unmet, ..report } }
    }

    #[test]
    fn a_failure_is_listed_with_its_reason() {
        let lines = table([ended("web1", Outcome::NotReady)].iter().map(row));
        let line = lines.lines().nth(1).unwrap();
        assert!(line.contains("web1  tap0    migrated  not-ready  -"), "{lines}");
        assert!(line.contains("the port tap0 has no VLAN tag yet"), "{lines}");
    }

    #[test]
    fn the_last_ones_are_shown_by_default() {
        let all: Vec<Ended> = (0..12).map(|n| ended(&format!("web{n}"), Outcome::Announced)).collect();
        let args = |arguments: &[&str]| {
            let words = [&["announce", "status"], arguments].concat();
            match <args::Cli as clap::Parser>::try_parse_from(words).unwrap().command {
                Some(args::Command::Status(args)) => args,
                _ => panic!(),
            }
        };
        for (arguments, first, count) in [
            (&[][..], "web2", 10),
            (&["-n", "2"], "web10", 2),
            (&["--json"], "web0", 12),
            (&["--failed"], "", 0),
        ] {
            let mut recent = all.clone();
            filter(&mut recent, &args(arguments));
            let name = recent.first().map_or("", |ended| &ended.report.domain.as_ref().unwrap().name);
            assert_eq!((name, recent.len()), (first, count), "{arguments:?}");
        }
    }
}
