//! The status in words: what is connected, what is under way, a table of what has ended.

use std::path::Path;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::announcement::progress::Outcome;
use crate::guest::target::printable;
use crate::report::handed_over::Handovers;
use crate::report::snapshot::{Daemon, Ended, Paused, Peer, Snapshot};
use crate::report::standing::UnderWay;
use crate::report::{Report, count, timeline};
use crate::run::wall_clock;

const HEAD: [&str; 8] = ["TIME", "VM", "DEVICE", "EVENT", "OUTCOME", "READY", "FRAME", ""];

/// The daemon and its configuration; its peers and what it does now.
pub(super) fn head(status: &Snapshot) -> Vec<String> {
    let peers: Vec<String> = status.peers.iter().map(peer).collect();
    let (guests, under_way) = (status.guests, status.announcements.len());
    let now = format!("{}; {} under way", count(guests, "VM"), count(under_way, "announcement"));
    let mut lines = vec![daemon(&status.daemon), format!("{}; {now}", peers.join(", "))];
    lines.extend(status.daemon.handover.as_ref().map(handover));
    lines.extend(status.paused.as_ref().map(paused));
    lines
}

/// The same, without what changes with each announcement.
pub(super) fn parts(status: &Snapshot) -> Vec<String> {
    let parts = std::iter::once(daemon(&status.daemon)).chain(status.peers.iter().map(peer));
    let parts = parts.chain(status.daemon.handover.as_ref().map(handover));
    parts.chain(status.paused.as_ref().map(paused)).collect()
}

/// How a line of a live view looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    Plain,
    /// Something is waited for.
    Waits,
    /// Something is wrong.
    Bad,
}

/// The lines of a live view that has so many rows: the head, what is under way, those that wait first, and what ended last.
pub(super) fn view(status: &Snapshot, rows: usize) -> Vec<(Look, String)> {
    let is_lost = status.peers.iter().any(|peer| !peer.connected && !peer.absent);
    let look = |is_bad: bool| if is_bad { Look::Bad } else { Look::Plain };
    let head = head(status);
    let paused_at = status.paused.as_ref().map(|_| head.len() - 1);
    let is_bad = |line: usize| match line {
        0 => !is_current(&status.daemon),
        1 => is_lost,
        line => paused_at == Some(line),
    };
    let mut lines: Vec<_> =
        head.into_iter().enumerate().map(|(number, line)| (look(is_bad(number)), line)).collect();
    let waits = |one: &&UnderWay| one.standing.condition.is_some() || !one.standing.unmet.is_empty();
    let (waiting, sending): (Vec<_>, Vec<_>) = status.announcements.iter().partition(waits);
    let waiting = waiting.iter().map(|one| (Look::Waits, format!("  {}", under_way(one))));
    let under_way = waiting.chain(sending.iter().map(|one| (Look::Plain, format!("  {}", under_way(one)))));
    // What has ended gets what is left, and at least a few rows.
    let room = rows.saturating_sub(lines.len());
    let most = room.saturating_sub((room / 3).min(status.recent.len() + 1));
    let (shown, all) = (status.announcements.len().min(most), status.announcements.len());
    if shown < all {
        lines.extend(under_way.take(shown.saturating_sub(1)));
        lines.push((Look::Waits, format!("  and {} more", all - shown.saturating_sub(1))));
    } else {
        lines.extend(under_way);
    }
    let room = rows.saturating_sub(lines.len() + 1);
    let latest = &status.recent[status.recent.len().saturating_sub(room)..];
    if !latest.is_empty() {
        let looks = latest.iter().map(|ended| look(ended.report.is_a_failure()));
        let table = table(latest);
        lines.extend(std::iter::once(Look::Plain).chain(looks).zip(table.lines().map(str::to_owned)));
    }
    lines
}

/// `PAUSED since 2026-11-25 17:33:01 until 17:48:01: switch replaced; nothing is sent: announce resume ends that`.
fn paused(paused: &Paused) -> String {
    let Paused { since, until, reason, by_uid } = paused;
    let reason = reason.as_deref().map(|reason| format!(": {}", printable(reason))).unwrap_or_default();
    let (since, until) = (seconds(since), seconds(until));
    format!(
        "PAUSED since {since} until {until} by the user {by_uid}{reason}; nothing is sent: announce resume ends that"
    )
}

/// Whether the configuration in use is the one on disk.
pub(super) fn is_current(daemon: &Daemon) -> bool {
    daemon.config_error.is_none() && !has_changed(daemon)
}

/// The daemon, what is under way, and these announcements that have ended.
pub(super) fn status(status: &Snapshot, recent: &[Ended]) -> String {
    let mut lines = head(status);
    let missing = status.daemon.missing_injectors.iter();
    lines.extend(missing.map(|missing| format!("way in {} is missing: {}", missing.injector, missing.why)));
    lines.extend(status.announcements.iter().map(|announcement| format!("  {}", under_way(announcement))));
    if !recent.is_empty() {
        lines.push(table(recent));
    }
    lines.join("\n")
}

/// `announced 0.1.0 since 2026-11-25 17:33:01, configuration /etc/announced/announced.toml`, and what is wrong with that.
fn daemon(daemon: &Daemon) -> String {
    let Daemon { version, started_at, config, config_loaded_at, config_error, .. } = daemon;
    let file = match config {
        Some(file) => format!("configuration {file} as of {}", seconds(config_loaded_at)),
        None => "default configuration".to_owned(),
    };
    let remedy = match (config_error, has_changed(daemon)) {
        (Some(error), _) => format!("; LAST RELOAD FAILED: {error}"),
        (None, true) => "; THE FILE HAS CHANGED SINCE: systemctl reload announced".to_owned(),
        (None, false) => String::new(),
    };
    format!("announced {version} since {}; {file}{remedy}", seconds(started_at))
}

/// Whether the file on disk is not what the daemon has read.
fn has_changed(daemon: &Daemon) -> bool {
    let file = daemon.config.as_deref().unwrap_or(crate::config::DEFAULT_FILE);
    let modified = std::fs::metadata(Path::new(file)).and_then(|data| data.modified()).ok();
    modified.map(wall_clock::text) != daemon.config_modified_at
}

/// `handover: 3 peers, listening at [::]:9892; last: 5f3a8c12-… kept by 192.0.2.2 at 17:34:34`.
fn handover(shown: &Handovers) -> String {
    let last = shown.recent.back().map(|note| {
        let by = note.from.as_deref().map(|from| format!(" by {from}")).unwrap_or_default();
        format!("; last: {} {}{by} at {}", printable(&note.uuid), printable(&note.notice), seconds(&note.at))
    });
    let peers = count(shown.peers.len(), "peer");
    format!("handover: {peers}, listening at {}{}", shown.listen, last.unwrap_or_default())
}

/// `OVSDB NOT connected since 2026-11-25 17:40:38: no such file; trying again`.
fn peer(peer: &Peer) -> String {
    if peer.absent {
        return "no Open vSwitch".to_owned();
    }
    let name = match (peer.peer.as_str(), &peer.address) {
        ("ovsdb", _) => "OVSDB".to_owned(),
        (name, Some(address)) => format!("{name} at {address}"),
        (name, None) => name.to_owned(),
    };
    let since = peer.since.as_deref().map(|since| format!(" since {}", seconds(since))).unwrap_or_default();
    let why = peer.why.as_deref().map(|why| format!(" ({why}; trying again)")).unwrap_or_default();
    format!("{name} {}{since}{why}", if peer.connected { "connected" } else { "NOT connected" })
}

/// `web1 tap0 fa:16:3e:00:00:11: restored at 17:34:34, waiting for 2.1 s of 60.0 s: the port tap0 has no VLAN tag yet`.
pub(super) fn under_way(under_way: &UnderWay) -> String {
    let (cause, event_at) = (under_way.cause.word(), seconds(&under_way.event_at));
    format!("{}: {cause} at {event_at}, {}", under_way.subject(), under_way.how(&wall_clock::now()))
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

/// How the frames left, or why they did not; and what is amiss.
fn result(report: &Report) -> String {
    let departure = report.evidence.departure.as_ref().map(ToString::to_string);
    let why = match report.outcome {
        Outcome::Announced => None,
        // The remedies are with the VM's own announcements.
        Outcome::NotReady => Some(report.unmet.join("; ")),
        _ => report.error.clone(),
    };
    let evidence = &report.evidence;
    let amiss = evidence.unseen.iter().map(|why| format!("departure not observable: {why}"));
    // A failure names what is stuck already.
    let has_reason = why.is_some();
    let stuck = evidence.stuck.iter().filter(|_| !has_reason).cloned();
    let amiss = amiss.chain(stuck).chain(evidence.stale.clone());
    let rarp_only = report.is_rarp_only().then(|| "RARP only: no address known".to_owned());
    why.into_iter().chain(departure).chain(amiss).chain(rarp_only).collect::<Vec<_>>().join("; ")
}

/// A time (RFC 3339) in this host's time zone, to the millisecond.
fn local(at: &str) -> String {
    in_zone(at, "%Y-%m-%d %H:%M:%S%.3f")
}

/// The same, to the second.
fn seconds(at: &str) -> String {
    in_zone(at, "%Y-%m-%d %H:%M:%S")
}

fn in_zone(at: &str, format: &str) -> String {
    match at.parse::<Timestamp>() {
        Ok(at) => at.to_zoned(TimeZone::system()).strftime(format).to_string(),
        Err(_) => at.to_owned(),
    }
}

/// A line for each announcement, with a head.
pub(super) fn table(ended: &[Ended]) -> String {
    let rows: Vec<[String; 8]> =
        std::iter::once(HEAD.map(str::to_owned)).chain(ended.iter().map(row)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths: [usize; 8] = std::array::from_fn(width);
    let line = |row: &[String; 8]| {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    rows.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// The announcement in a line, and when what happened in it.
pub(super) fn with_timeline(ended: &Ended) -> String {
    let at = local(ended.report.event_at.as_deref().unwrap_or(&ended.at));
    format!("{at} {}{}", ended.report.line(), timeline::draw(&ended.report))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::status::tests::ended;
    use crate::guest::event::Cause;
    use crate::report::standing::Standing;
    use crate::report::unmet::Unmet;

    #[test]
    fn a_failure_stands_with_its_reason() {
        let lines = table(&[ended("web1", Outcome::NotReady)]);
        let line = lines.lines().nth(1).unwrap();
        assert!(line.contains("web1  tap0    migrated  not-ready  -"), "{lines}");
        assert!(line.contains("the port tap0 has no VLAN tag yet"), "{lines}");
    }

    #[test]
    fn what_is_under_way_tells_what_it_waits_for_and_how_far_it_is() {
        let tag = Unmet { code: "tag".into(), text: "no tag yet".into(), remedy: Some("look".into()) };
        let event_at = wall_clock::now();
        let standing = Standing {
            device: Some("tap0".into()),
            unmet: vec![tag],
            since: Some(event_at.clone()),
            rounds: 10,
            ..Standing::default()
        };
        let told = |standing: Standing| {
            let (mac, cause) = (pnet_base::MacAddr(2, 0, 0, 0, 0, 1), Cause::Restored);
            let (vm, event_at) = (Some("web1".to_owned()), event_at.clone());
            under_way(&UnderWay { vm, uuid: None, mac, cause, event: None, event_at, standing })
        };
        let waiting = told(standing.clone());
        assert!(waiting.starts_with("web1 tap0 02:00:00:00:00:01: restored at "), "{waiting}");
        assert!(waiting.ends_with("s, for as long as the VM is here: no tag yet (look)"), "{waiting}");
        let ready = Standing { ready: true, unmet: Vec::new(), ..standing };
        let sent = told(Standing { round: 3, lost: 1, ..ready.clone() });
        assert!(sent.ends_with("round 3 of 10 has left the host; 1 round lost"), "{sent}");
        let lost = told(Standing { lost: 14, why: Some("up0 is down".into()), ..ready });
        assert!(lost.ends_with("no round has left the host; 14 rounds lost: up0 is down"), "{lost}");
    }

    #[test]
    fn a_peer_that_is_lost_stands_out() {
        let lost = Peer {
            peer: "ovsdb".into(),
            since: Some("2026-11-25T17:40:38.000Z".into()),
            why: Some("no such file".into()),
            ..Peer::default()
        };
        let told = peer(&lost);
        assert!(told.starts_with("OVSDB NOT connected since 20"), "{told}");
        assert!(told.ends_with(" (no such file; trying again)"), "{told}");
    }
}
