//! `announce doctor`: whether everything that announcements need works on this host, and what to do where it does not.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Instant;

use caps::{CapSet, Capability};
use pnet_base::MacAddr;
use serde::Serialize;

use crate::announcement::frame::Frame;
use crate::announcement::frame_names;
use crate::announcement::injection::{self, Method, Way};
use crate::cli::args::Output;
use crate::cli::exit::{Problem, Status};
use crate::cli::output::{json, print};
use crate::cli::select::{Selection, Start};
use crate::cli::status;
use crate::config::{self, Config};
use crate::guest::GuestState;
use crate::guest::target::subject;
use crate::proof::capture_point::{CapturePoint, Direction};
use crate::report::unmet::Unmet;
use crate::report::{VERSION, count};
use crate::run::diagnose::{self, KeptIn};
use crate::run::host::Host;
use crate::run::order::Order;

/// The capabilities that ways in and captures need.
const CAPABILITIES: [Capability; 3] =
    [Capability::CAP_NET_ADMIN, Capability::CAP_BPF, Capability::CAP_NET_RAW];

/// What a check came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Verdict {
    Pass,
    Warn,
    Fail,
}

impl Verdict {
    fn word(self) -> &'static str {
        match self {
            Verdict::Pass => "PASS",
            Verdict::Warn => "WARN",
            Verdict::Fail => "FAIL",
        }
    }
}

/// One check.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Finding {
    verdict: Verdict,
    /// What was checked: `libvirt`, a way in, a NIC, …
    what: String,
    text: String,
    /// What to look at or to run next.
    remedy: Option<String>,
}

impl Finding {
    fn new(verdict: Verdict, what: &str, text: impl Into<String>) -> Finding {
        Finding { verdict, what: what.into(), text: text.into(), remedy: None }
    }

    fn pass(what: &str, text: impl Into<String>) -> Finding {
        Finding::new(Verdict::Pass, what, text)
    }

    fn remedied(self, remedy: &str) -> Finding {
        Finding { remedy: Some(remedy.into()), ..self }
    }

    fn line(&self) -> String {
        let remedy = self.remedy.as_ref().map(|remedy| format!(" ({remedy})")).unwrap_or_default();
        format!("{}  {}: {}{remedy}", self.verdict.word(), self.what, self.text)
    }
}

/// All checks of a host.
#[derive(Debug, Serialize)]
struct Diagnosis {
    version: u32,
    findings: Vec<Finding>,
}

/// Checks the host, prints a line for each check, and sends nothing. `findings` are those of the configuration.
///
/// # Errors
///
/// The host's devices cannot be read.
pub(super) async fn run(start: Start, output: &Output, findings: Vec<Finding>) -> Result<Status, Problem> {
    let mut findings = findings;
    let (mut host, selection) = start.look_around().await?;
    findings.push(libvirt(&selection));
    findings.extend(open_vswitch(&host).await);
    findings.extend(ways_in(&host).await);
    findings.push(captures(&host));
    for selection in selection.iter() {
        for (order, guest) in &selection.orders {
            let guest = *guest.borrow();
            findings.push(nic(order, &mut host, guest).await);
        }
        findings.extend(selection.refused.iter().map(|refused| {
            let name = subject(refused.domain.as_ref(), refused.device.as_deref(), refused.mac);
            Finding::new(Verdict::Warn, &name, format!("not announced: {}", refused.reason))
        }));
    }
    findings.push(match status::health() {
        Ok((words, true)) => Finding::pass("announced", words),
        Ok((words, false)) => Finding::new(Verdict::Warn, "announced", words),
        Err(why) => Finding::new(Verdict::Warn, "announced", why),
    });
    let has_failed = findings.iter().any(|finding| finding.verdict == Verdict::Fail);
    let printed = match output.json {
        true => print(&json(&Diagnosis { version: VERSION, findings }, output)),
        false => findings.iter().map(|finding| print(&finding.line())).max().unwrap_or(Status::Announced),
    };
    Ok(printed.max(if has_failed { Status::Failed } else { Status::Announced }))
}

/// Whether the configuration can be used, and its unwise values.
pub(super) fn configuration(file: Option<&Path>) -> (Config, Vec<Finding>) {
    let path = file.unwrap_or(Path::new(config::DEFAULT_FILE));
    match Config::load(file) {
        Ok(config) => {
            let words = if path.exists() { "is good" } else { "does not exist: the defaults apply" };
            let good = Finding::pass("configuration", format!("{} {words}", path.display()));
            let advice = config.advice();
            let advice =
                advice.iter().map(|advice| Finding::new(Verdict::Warn, "configuration", advice.to_string()));
            let findings = std::iter::once(good).chain(advice).collect();
            (config, findings)
        }
        Err(error) => {
            let mistakes = error.lines().into_iter();
            let mistakes = mistakes.map(|line| {
                Finding::new(Verdict::Fail, "configuration", line)
                    .remedied("the defaults are checked in its place")
            });
            (Config::default(), mistakes.collect())
        }
    }
}

fn libvirt(selection: &Result<Selection, Problem>) -> Finding {
    match selection {
        Ok(selection) => {
            let domains = selection.orders.iter().filter_map(|(order, _)| order.target.domain.as_ref());
            let vms: BTreeSet<&str> = domains.map(|domain| &*domain.uuid).collect();
            let nics = count(selection.orders.len(), "NIC");
            Finding::pass("libvirt", format!("{} with {nics} to announce", count(vms.len(), "running VM")))
        }
        Err((_, why)) => Finding::new(Verdict::Fail, "libvirt", why)
            .remedied("systemctl status libvirtd virtqemud; virsh -r list"),
    }
}

/// OVSDB, and the management sockets of the bridges.
async fn open_vswitch(host: &Host) -> Vec<Finding> {
    let (error, bridges) = {
        let state = host.ovs.borrow();
        let bridges: Vec<String> = state.ovs.bridges.values().map(|bridge| bridge.name.clone()).collect();
        (state.error.clone(), bridges)
    };
    match error {
        None => {}
        Some(error) if error.is_absence => {
            return vec![Finding::pass("OVSDB", "this host has no Open vSwitch; Linux bridges need none")];
        }
        Some(error) => {
            let remedy = "run as root; systemctl status ovsdb-server openvswitch-switch";
            return vec![Finding::new(Verdict::Fail, "OVSDB", error.why).remedied(remedy)];
        }
    }
    let words = format!("{} at {}", count(bridges.len(), "bridge"), host.ovs_socket.display());
    let mut findings = vec![Finding::pass("OVSDB", words)];
    let mut answering = 0;
    for bridge in &bridges {
        let way = Way::PacketOut { bridge: bridge.clone(), in_port: 1 };
        match host.injectors.prepare(&[way], None).await {
            Ok(_) => answering += 1,
            Err(why) => {
                let words = format!("{bridge}: {}", why.reasons());
                let remedy = "run as root; systemctl status ovs-vswitchd";
                findings.push(Finding::new(Verdict::Warn, "packet-out", words).remedied(remedy));
            }
        }
    }
    if answering > 0 {
        findings.push(Finding::pass("packet-out", format!("can be used on {}", count(answering, "bridge"))));
    }
    findings
}

/// The ways in that need capabilities, each tried with a device of its own.
async fn ways_in(host: &Host) -> Vec<Finding> {
    let held = caps::read(None, CapSet::Effective).unwrap_or_default();
    let missing = CAPABILITIES.iter().filter(|capability| !held.contains(capability));
    let missing: Vec<String> = missing.map(ToString::to_string).collect();
    let all: Vec<String> = CAPABILITIES.iter().map(ToString::to_string).collect();
    let mut findings = vec![match missing.is_empty() {
        true => Finding::pass("capabilities", all.join(", ")),
        false => Finding::new(Verdict::Warn, "capabilities", format!("{} missing", missing.join(", ")))
            .remedied("run as root"),
    }];
    let failed = host.injectors.warm_up().await;
    for method in [Method::Redirect, Method::Xdp] {
        findings.push(match failed.iter().find(|(failed, _)| *failed == method) {
            Some((_, why)) => Finding::new(Verdict::Warn, method.word(), why.to_string()),
            None => Finding::pass(method.word(), "can be used"),
        });
    }
    findings
}

/// Whether frames can be seen to leave: without, nothing is proved.
fn captures(host: &Host) -> Finding {
    let loopback = host.links.borrow().named("lo").map_or(1, |link| link.index);
    let point = CapturePoint { ifindex: loopback, outward: Direction::In, is_uplink: false, tunnel: None };
    match host.witness.watch(vec![point], MacAddr::zero(), Instant::now().into()) {
        Ok(_) => Finding::pass("proof", "frames can be seen to leave"),
        Err(why) => Finding::new(Verdict::Warn, "proof", why.to_string()).remedied("run as root"),
    }
}

/// Whether a NIC could be announced now, and how.
async fn nic(order: &Order, host: &mut Host, guest: GuestState) -> Finding {
    let seen = order.look(host, guest);
    let name = order.target.subject(seen.device(&order.target));
    if !seen.unmet.is_empty() {
        let unmet = Unmet::all(&seen.unmet, &order.target, seen.in_charge.0);
        let texts: Vec<&str> = unmet.iter().map(|unmet| unmet.text.as_str()).collect();
        let mut remedies: Vec<&str> = unmet.iter().filter_map(|unmet| unmet.remedy.as_deref()).collect();
        remedies.dedup();
        let finding = Finding::new(Verdict::Warn, &name, format!("not ready: {}", texts.join("; ")));
        return if remedies.is_empty() { finding } else { finding.remedied(&remedies.join("; ")) };
    }
    if let Some(why) = seen.attachment.as_ref().and_then(|attachment| attachment.way.nowhere()) {
        return Finding::new(Verdict::Fail, &name, why);
    }
    let kept_in = diagnose::kept_in(host, &seen, order).await;
    let is_kept = |frame: &Frame| {
        kept_in.iter().any(|kept| (kept.frame.kind, kept.frame.vlan) == (frame.kind, frame.vlan))
    };
    let no_frame_leaves = order.round().iter().all(is_kept);
    if let Some(KeptIn { why, .. }) = kept_in.first() {
        let kinds: Vec<String> = kept_in.iter().map(|kept| frame_names::of_kind(&kept.frame)).collect();
        return match no_frame_leaves {
            true => Finding::new(Verdict::Fail, &name, format!("no frame would leave the host: {why}")),
            false => {
                let words = format!("{} would not leave the host: {why}", kinds.join(", "));
                Finding::new(Verdict::Warn, &name, words)
            }
        };
    }
    let way =
        host.injectors.prepare(&injection::ways(&seen, order.settings.inject), order.settings.inject).await;
    let path = seen.attachment.iter().flat_map(|attachment| attachment.way.names());
    let path = path.collect::<Vec<_>>().join(" -> ");
    match way {
        Err(error) => Finding::new(Verdict::Fail, &name, error.to_string()),
        Ok(way) if order.addresses.is_empty() => {
            let words = format!("{path}, by {}; RARP only: no address is known", way.method());
            Finding::new(Verdict::Warn, &name, words).remedied("announce explain has the sources")
        }
        Ok(way) => Finding::pass(&name, format!("{path}, by {}", way.method())),
    }
}
