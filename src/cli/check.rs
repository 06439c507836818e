//! `announce check`: whether a configuration can be used, and whether everything works on this host.

use std::fmt;
use std::path::Path;

use crate::announcement::injection;
use crate::cli::exit::{Problem, Status};
use crate::cli::output::{complain, print};
use crate::cli::select::Start;
use crate::cli::status;
use crate::config::{self, Config};
use crate::guest::GuestState;
use crate::guest::target::subject;
use crate::report::unmet::Unmet;
use crate::report::{count, unmet};
use crate::run::diagnose;
use crate::run::order::{Host, Order};

/// Checks a configuration file, and prints what is wrong with it or unwise in it.
///
/// # Errors
///
/// None: a file that cannot be used is told in a line for each mistake.
pub(super) fn file(file: Option<&Path>) -> Result<Status, Problem> {
    let config = match Config::load(file) {
        Ok(config) => config,
        Err(error) => {
            error.lines().iter().for_each(|line| complain(line));
            return Ok(Status::Config);
        }
    };
    let file = file.unwrap_or(Path::new(config::DEFAULT_FILE));
    let text = std::fs::read_to_string(file).unwrap_or_default();
    for advice in config.advice() {
        let place = config::place_of(&text, &advice).map(|(line, column)| format!(":{line}:{column}"));
        complain(&format!("{}{}: warning: {advice}", file.display(), place.unwrap_or_default()));
    }
    let words = if file.exists() { "is good" } else { "does not exist: the defaults apply" };
    Ok(print(&format!("{} {words}", file.display())))
}

/// What a check came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Pass,
    Warn,
    Fail,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Verdict::Pass => "PASS",
            Verdict::Warn => "WARN",
            Verdict::Fail => "FAIL",
        })
    }
}

/// Checks what announcements on this host need: libvirt, Open vSwitch, the ways in, the path of each running VM's NIC, the daemon.
/// Nothing is sent.
///
/// # Errors
///
/// The host's devices cannot be read.
pub(super) async fn host(start: Start) -> Result<Status, Problem> {
    let mut status = Status::Announced;
    let mut tell = |verdict: Verdict, what: &str, words: &str| {
        let printed = print(&format!("{verdict}  {what}: {words}"));
        let failed = if verdict == Verdict::Fail { Status::Failed } else { Status::Announced };
        status = status.max(failed).max(printed);
    };
    let (mut host, selection) = match start.gather().await {
        Ok(gathered) => gathered,
        Err((status, why)) => {
            tell(Verdict::Fail, "libvirt", &why);
            return Ok(status);
        }
    };
    let vms: std::collections::BTreeSet<_> =
        selection.orders.iter().filter_map(|(order, _)| Some(&order.target.domain.as_ref()?.uuid)).collect();
    let nics = count(selection.orders.len(), "NIC");
    tell(Verdict::Pass, "libvirt", &format!("{} with {nics} to announce", count(vms.len(), "running VM")));
    let (verdict, words) = ovsdb(&host);
    tell(verdict, "OVSDB", &words);
    let missing = host.injectors.warm_up().await;
    for method in [injection::Method::Redirect, injection::Method::Xdp] {
        match missing.iter().find(|(missing, _)| *missing == method) {
            Some((_, why)) => tell(Verdict::Warn, method.word(), &why.to_string()),
            None => tell(Verdict::Pass, method.word(), "can be used"),
        }
    }
    for (order, guest) in &selection.orders {
        let guest = *guest.borrow();
        let (verdict, name, words) = nic(order, &mut host, guest).await;
        tell(verdict, &name, &words);
    }
    for refused in &selection.refused {
        let name = subject(refused.domain.as_ref(), refused.device.as_deref(), refused.mac);
        tell(Verdict::Warn, &name, &format!("not announced: {}", refused.reason));
    }
    let (verdict, words) = match status::health() {
        Ok((words, true)) => (Verdict::Pass, words),
        Ok((words, false)) => (Verdict::Warn, words),
        Err(why) => (Verdict::Warn, why),
    };
    tell(verdict, "announced", &words);
    Ok(status)
}

fn ovsdb(host: &Host) -> (Verdict, String) {
    let state = host.ovs.borrow();
    match &state.error {
        None => {
            let bridges = count(state.ovs.bridges.len(), "bridge");
            (Verdict::Pass, format!("{bridges} at {}", host.ovs_socket.display()))
        }
        Some(error) if error.is_absence => {
            (Verdict::Pass, "this host has no Open vSwitch; Linux bridges need none".into())
        }
        Some(error) => (Verdict::Fail, error.why.clone()),
    }
}

/// Whether a NIC could be announced now, and how.
async fn nic(order: &Order, host: &mut Host, guest: GuestState) -> (Verdict, String, String) {
    let seen = order.look(host, guest);
    let name = order.target.subject(seen.device(&order.target));
    if !seen.unmet.is_empty() {
        let unmet = Unmet::all(&seen.unmet, &order.target, &seen);
        return (Verdict::Warn, name, format!("not ready: {}", unmet::words(&unmet)));
    }
    if let Some(why) = seen.attachment.as_ref().and_then(|attachment| attachment.way.nowhere()) {
        return (Verdict::Fail, name, why);
    }
    let kept_in = diagnose::kept_in(host, &seen, order).await;
    let no_frame_leaves =
        order.round().iter().all(|frame| kept_in.iter().any(|(kind, _)| *kind == frame.kind));
    if let Some((_, why)) = kept_in.first() {
        let kinds: Vec<String> = kept_in.iter().map(|(kind, _)| kind.to_string()).collect();
        return match no_frame_leaves {
            true => (Verdict::Fail, name, format!("no frame would leave the host: {why}")),
            false => (Verdict::Warn, name, format!("{} would not leave the host: {why}", kinds.join(", "))),
        };
    }
    let way = host.injectors.prepare(&injection::ways(&seen, order.inject), order.inject).await;
    let path = seen.attachment.iter().flat_map(|attachment| attachment.way.names());
    let path = path.collect::<Vec<_>>().join(" -> ");
    match way {
        Err(error) => (Verdict::Fail, name, error.to_string()),
        Ok(way) if order.addresses.is_empty() => {
            (Verdict::Warn, name, format!("{path}, by {}; RARP only: no address is known", way.method()))
        }
        Ok(way) => (Verdict::Pass, name, format!("{path}, by {}", way.method())),
    }
}
