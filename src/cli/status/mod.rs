//! `announce status`: what the daemon did and is doing.

use std::io::{self, BufReader};
use std::time::{Duration, SystemTime};

use jiff::Timestamp;

use crate::announcement::progress::Outcome;
use crate::cli::args::{self, Output};
use crate::cli::exit::{Problem, Status};
use crate::cli::output::{complain, json, print};
use crate::daemon::history::History;
use crate::daemon::serve;
use crate::guest::target::printable;
use crate::report::snapshot::{Ended, Snapshot};
use crate::report::svg;

mod text;
mod watch;

/// The last announcements that are printed where no number is given.
const DEFAULT_LINES: usize = 10;

/// Asks the daemon, and prints its answer and what is kept of before.
///
/// # Errors
///
/// The daemon does not answer and nothing is kept, or nothing is known of the VM that is meant.
pub(super) fn run(args: &args::Status) -> Result<Status, Problem> {
    let earlier = History::here().read();
    let status = match ask() {
        Ok(status) => status,
        Err(problem) if args.prometheus || earlier.is_empty() => return Err(problem),
        Err(problem) if args.json && vm(args).is_none() => return Err(problem),
        Err((failed, why)) if args.svg || vm(args).is_some() => {
            complain(&why);
            let status = Snapshot { recent: earlier, ..Snapshot::default() };
            return told(status, args).map(|status| status.max(failed));
        }
        Err((status, why)) => {
            complain(&why);
            let kept = chosen(earlier, args);
            print(&text::table(&kept));
            return Ok(status);
        }
    };
    if args.prometheus {
        return Ok(print(status.metrics.text(&status.gauges, &status.waiting).trim_end()));
    }
    told(with_earlier(status, earlier), args)
}

/// Shows the status again and again.
///
/// # Errors
///
/// It cannot be watched.
pub(super) async fn watch(args: &args::Status) -> Result<Status, Problem> {
    let ask = || {
        let mut status = with_earlier(ask().map_err(|(_, why)| why)?, History::here().read());
        status.recent = merged(&mut status);
        Ok(status)
    };
    watch::run(args, ask).await
}

/// Adds what is not the daemon's own.
fn with_earlier(mut status: Snapshot, earlier: Vec<Ended>) -> Snapshot {
    status.earlier = earlier;
    let Snapshot { earlier, recent, .. } = &mut status;
    earlier.retain(|ended| !recent.iter().any(|other| other.is_same(ended)));
    status
}

/// The VM that is meant, if it is one.
fn vm(args: &args::Status) -> Option<&String> {
    args.vm.as_ref().or(args.of.as_ref())
}

fn told(status: Snapshot, args: &args::Status) -> Result<Status, Problem> {
    match vm(args) {
        Some(vm) => of_vm(status, vm, args),
        None => Ok(all(status, args)),
    }
}

/// How the daemon is, in words, and whether that is well.
///
/// # Errors
///
/// It does not answer, in words.
pub(super) fn health() -> Result<(String, bool), String> {
    let status = ask().map_err(|(_, why)| why)?;
    let is_same = status.daemon.version == env!("CARGO_PKG_VERSION");
    let lost = status.peers.iter().any(|peer| !peer.connected && !peer.absent);
    Ok((
        text::head(&status).join("; "),
        is_same && !lost && status.paused.is_none() && text::is_current(&status.daemon),
    ))
}

fn all(mut status: Snapshot, args: &args::Status) -> Status {
    if args.json {
        status.recent = chosen(status.recent, args);
        status.earlier = chosen(status.earlier, args);
        return print(&json(&status, &output(args)));
    }
    let recent = chosen(merged(&mut status), args);
    print(&if args.svg { picture(&recent) } else { text::status(&status, &recent) })
}

fn of_vm(mut status: Snapshot, vm: &str, args: &args::Status) -> Result<Status, Problem> {
    status.announcements.retain(|under_way| under_way.is_of(vm));
    let mut ended = merged(&mut status);
    ended.retain(|ended| ended.is_of(vm));
    if ended.is_empty() && status.announcements.is_empty() {
        let vm = printable(vm);
        let why = format!(
            "no announcement of {vm} is remembered on this host; the journal may have older ones: \
             journalctl -u announced ANNOUNCE_DOMAIN={vm}"
        );
        return Err((Status::NoVm, why));
    }
    if args.svg {
        return of_vm_as_picture(ended, vm, args);
    }
    let ended = chosen(ended, args);
    let output = output(args);
    let of_ended = |ended: &Ended| if args.json { json(ended, &output) } else { text::with_timeline(ended) };
    let lines = ended.iter().map(of_ended);
    let under_way = status
        .announcements
        .iter()
        .map(|under_way| if args.json { json(under_way, &output) } else { text::under_way(under_way) });
    let printed = lines.chain(under_way).map(|line| print(&line));
    Ok(printed.max().unwrap_or(Status::Announced))
}

/// The announcements of one VM.
fn of_vm_as_picture(mut ended: Vec<Ended>, vm: &str, args: &args::Status) -> Result<Status, Problem> {
    if ended.is_empty() {
        let vm = printable(vm);
        let why = format!(
            "no announcement of {vm} has ended yet, and only those have a picture: announce status {vm}"
        );
        return Err((Status::NoVm, why));
    }
    if args.lines.is_none() && args.since.is_none() {
        ended = latest_of_each_nic(ended);
    }
    Ok(print(&picture(&chosen(ended, args))))
}

/// The last announcement of each NIC, in their order.
fn latest_of_each_nic(ended: Vec<Ended>) -> Vec<Ended> {
    let mut latest: Vec<Ended> = Vec::new();
    let nic = |ended: &Ended| (ended.report.mac, ended.report.device.clone());
    for ended in ended.into_iter().rev() {
        if !latest.iter().any(|later| nic(later) == nic(&ended)) {
            latest.push(ended);
        }
    }
    latest.reverse();
    latest
}

fn picture(ended: &[Ended]) -> String {
    svg::document(&ended.iter().map(|ended| &ended.report).collect::<Vec<_>>())
}

/// All announcements that ended, the latest last.
fn merged(status: &mut Snapshot) -> Vec<Ended> {
    let mut all = [std::mem::take(&mut status.earlier), std::mem::take(&mut status.recent)].concat();
    all.sort_by(|a, b| a.at.cmp(&b.at));
    all
}

fn output(args: &args::Status) -> Output {
    Output { json: args.json, pretty: args.pretty, verbose: false }
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

/// The reports that `args` ask for: the last ones.
fn chosen(mut recent: Vec<Ended>, args: &args::Status) -> Vec<Ended> {
    if args.failed {
        recent.retain(|ended| ended.report.outcome != Outcome::Announced);
    }
    if let Some(since) = args.since {
        recent.retain(|ended| age(&ended.at).is_some_and(|age| age <= since));
    }
    // A program that reads the JSON gets all that is remembered, unless it asks for less.
    let all = if args.json || args.since.is_some() { usize::MAX } else { DEFAULT_LINES };
    let surplus = recent.len().saturating_sub(args.lines.unwrap_or(all));
    recent.drain(..surplus);
    recent
}

fn age(at: &str) -> Option<Duration> {
    let at: Timestamp = at.parse().ok()?;
    Some(SystemTime::now().duration_since(at.into()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::event::Cause;
    use crate::guest::target::{DomainId, Unannounceable};
    use crate::report::Report;

    pub(in crate::cli::status) fn ended(name: &str, outcome: Outcome) -> Ended {
        let domain = DomainId { name: name.into(), uuid: "".into() };
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
    fn the_last_ones_are_shown_unless_others_are_asked_for() {
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
            let recent = chosen(all.clone(), &args(arguments));
            let name = recent.first().map_or("", |ended| &ended.report.domain.as_ref().unwrap().name);
            assert_eq!((name, recent.len()), (first, count), "{arguments:?}");
        }
    }
}
