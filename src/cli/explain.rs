//! `announce explain`: what an announcement would do, and why.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use pnet_base::MacAddr;
use serde::Serialize;

use crate::announcement::frame::Frame;
use crate::announcement::{frame_names, injection};
use crate::cli::args::Output;
use crate::cli::exit::{Problem, Status};
use crate::cli::output::{json, print};
use crate::cli::select::Start;
use crate::guest::GuestState;
use crate::guest::address::{self, Address};
use crate::guest::gateway::{Gateway, Source};
use crate::guest::target::{DomainId, subject};
use crate::path::owner::Owner;
use crate::path::readiness::Assessment;
use crate::report::note::Note;
use crate::report::snapshot::MissingInjector;
use crate::report::unmet::Unmet;
use crate::report::{Path, TRUNK, count};
use crate::run::asking::{gateways_here, settings_here};
use crate::run::host::Host;
use crate::run::inward;
use crate::run::order::Order;
use crate::run::routed;

mod held;

use held::{Held, held};

/// Explains each selected NIC.
///
/// # Errors
///
/// The host or libvirt cannot be read.
pub(super) async fn run(start: Start, output: &Output) -> Result<Status, Problem> {
    let cannot_ask = start.cannot_ask().await;
    let sources = start.sources();
    let (host, orders) = start.gather().await?;
    let mut status = orders.print_absent();
    for (order, _) in &orders.orders {
        let seen = order.look(&host, GuestState::Running);
        let here = gateways_here(order, &host, &seen).await;
        let to_guest = inward::to_guest(&order.target, &host, &seen);
        let holds = held(order, &host, &seen).await;
        let explanation = Explanation {
            sources: sources.clone(),
            missing_injectors: missing_injectors(order, &host, &seen).await,
            error: routed::by_host(&host, order, &seen).await,
            held: holds.iter().map(ToString::to_string).collect(),
            holds,
            notes: hairpin(&host, &seen).into_iter().collect(),
            queried_by: to_guest.as_ref().ok().map(inward::word),
            query_error: to_guest.as_ref().err().map(ToString::to_string),
            ask_guest_error: cannot_ask.clone(),
            router_settings: settings_here(order, &host, &seen, &here).into_iter().collect(),
            ..Explanation::new(order, &seen, &here)
        };
        let text = if output.json { json(&explanation, output) } else { explanation.to_string() };
        let cannot_tell =
            seen.unmet.iter().any(|condition| condition.code() == "no-ovsdb") && seen.attachment.is_none();
        let ended = if cannot_tell { Status::Failed } else { Status::Announced };
        status = status.max(ended).max(print(&text));
    }
    Ok(status.max(orders.print_refused(output)))
}

/// Everything that an announcement depends on, at one moment.
#[derive(Debug, Serialize)]
pub(super) struct Explanation {
    version: u32,
    domain: Option<DomainId>,
    vm: Option<String>,
    uuid: Option<String>,
    device: Option<String>,
    mac: MacAddr,
    attachment: Option<Path>,
    in_charge: Owner,
    owner: Owner,
    evidence: String,
    unmet: Vec<String>,
    /// The same, with codes and remedies.
    conditions: Vec<Unmet>,
    /// Why it cannot be announced on this host at all.
    error: Option<String>,
    /// The settings that keep frames from every edge, by kinds of frames.
    held: Vec<String>,
    /// The same, as objects.
    holds: Vec<Held>,
    addresses: Vec<Address>,
    /// Known addresses that are not announced: their source is not trusted, or the configuration excludes them.
    disbelieved: Vec<Address>,
    /// Its port is a trunk without a native VLAN.
    #[serde(skip)]
    is_trunk: bool,
    ignored_addresses: Vec<Address>,
    /// The sources of addresses that were asked.
    sources: Vec<address::Source>,
    gateways: Vec<Asks>,
    /// What else is worth knowing of its port.
    notes: Vec<Note>,
    /// Where this host is the router: the settings for announcements.
    router_settings: BTreeMap<String, String>,
    frames: Vec<String>,
    /// The same, as objects.
    round: Vec<frame_names::Named>,
    schedule_ms: Vec<u128>,
    /// How often the guest is queried for its multicast groups.
    queries: u32,
    /// By what it is queried, or why it cannot be.
    queried_by: Option<String>,
    query_error: Option<String>,
    /// The guest is told to announce itself, too, and why it cannot be.
    ask_guest: bool,
    ask_guest_error: Option<String>,
    injectors: Vec<&'static str>,
    /// Those of them that this process cannot use, each with the reason.
    missing_injectors: Vec<MissingInjector>,
}

/// The gateways that an address asks.
#[derive(Debug, Serialize)]
struct Asks {
    gateway: IpAddr,
    #[serde(rename = "for")]
    guest: IpAddr,
    source: Source,
}

impl Explanation {
    /// Explains `order` for an observation of the host.
    pub(super) fn new(order: &Order, seen: &Assessment, here: &[Gateway]) -> Self {
        let target = &order.target;
        // Every MAC implies an address, which no source has named.
        let claims = target.addresses.iter().filter(|a| a.source != address::Source::Implied);
        let claimed = claims.filter(|a| order.addresses.iter().all(|b| b.ip != a.ip));
        let claimed: Vec<Address> = claimed.copied().collect();
        let questions = order.questions(here);
        let asked = questions.iter().filter_map(|question| question.frame(target.mac));
        let round: Vec<Frame> = order.round().into_iter().chain(asked).collect();
        let asks = questions.iter().map(|q| Asks { gateway: q.to, guest: q.from, source: q.source });
        let ways = injection::ways(seen, order.settings.inject);
        Explanation {
            version: crate::report::VERSION,
            domain: target.domain.clone(),
            vm: target.domain.as_ref().map(|domain| domain.name.to_string()),
            uuid: target.domain.as_ref().map(|domain| domain.uuid.to_string()),
            device: seen.device(target),
            mac: target.mac,
            attachment: Path::of(seen),
            in_charge: seen.in_charge.0,
            owner: seen.in_charge.0,
            evidence: seen.in_charge.1.clone(),
            unmet: seen.unmet.iter().map(ToString::to_string).collect(),
            conditions: Unmet::all(&seen.unmet, target, seen.in_charge.0),
            error: None,
            sources: Vec::new(),
            held: Vec::new(),
            holds: Vec::new(),
            addresses: order.addresses.to_vec(),
            is_trunk: order.is_tagged_only(),
            disbelieved: claimed.clone(),
            ignored_addresses: claimed,
            gateways: asks.collect(),
            notes: Vec::new(),
            router_settings: BTreeMap::new(),
            frames: round.iter().map(frame_names::name).collect(),
            round: round.iter().map(frame_names::Named::of).collect(),
            queries: order.queries,
            queried_by: None,
            query_error: None,
            ask_guest: order.settings.ask_guest.is_some(),
            ask_guest_error: None,
            schedule_ms: order.settings.schedule.offsets().map(|at| at.as_millis()).collect(),
            injectors: ways.iter().map(|way| way.method().word()).collect(),
            missing_injectors: Vec::new(),
        }
    }
}

impl Explanation {
    /// Those that work, best first, and a line for each that does not.
    fn ways_in(&self) -> Vec<String> {
        let is_missing =
            |word: &&&str| self.missing_injectors.iter().any(|missing| missing.injector == **word);
        let works: Vec<&str> = self.injectors.iter().filter(|word| !is_missing(word)).copied().collect();
        let first = match (works.is_empty(), self.injectors.is_empty()) {
            (false, _) => works.join(", else "),
            (true, true) => "none yet".to_owned(),
            (true, false) => "none that works here".to_owned(),
        };
        let missing = self.missing_injectors.iter();
        std::iter::once(first)
            .chain(missing.map(|missing| format!("not {}: {}", missing.injector, missing.why)))
            .collect()
    }

    /// The membership queries.
    fn queries(&self) -> String {
        match (self.queries, &self.queried_by, &self.query_error) {
            (0, ..) => "none: [multicast] queries is 0, or router is true".into(),
            (count, Some(by), _) => {
                format!("{count}, a second apart, to the VM by {by}: its reports move its multicast groups")
            }
            (_, None, why) => format!("none: {}", why.as_deref().unwrap_or_default()),
        }
    }

    /// The guest's own announcement, where it is wanted.
    fn itself(&self) -> Vec<String> {
        let told = || "the VM is told to announce itself when the first round has left".to_owned();
        let words = self.ask_guest_error.as_ref().map_or_else(told, |why| format!("not told: {why}"));
        self.ask_guest.then_some(words).into_iter().collect()
    }

    fn rarp_only(&self) -> String {
        if self.is_trunk {
            return format!("none: {TRUNK}");
        }
        let sources: Vec<&str> = self.sources.iter().map(|source| source.word()).collect();
        let (asked, mac) = (sources.join(", "), self.mac);
        format!("none: RARP only; asked: {asked}; give one with --ip, or as addresses under [nic.\"{mac}\"]")
    }
}

/// The methods on offer that cannot be prepared here and now: each is tried.
async fn missing_injectors(order: &Order, host: &Host, seen: &Assessment) -> Vec<MissingInjector> {
    let mut missing = Vec::new();
    for way in injection::ways(seen, order.settings.inject) {
        if let Err(why) = host.injectors.prepare(std::slice::from_ref(&way), order.settings.inject).await {
            let injector = way.method().word().to_owned();
            missing.push(MissingInjector { injector, why: why.reasons() });
        }
    }
    missing
}

/// A guest behind a hairpin port receives what it sends to all.
fn hairpin(host: &Host, seen: &Assessment) -> Option<Note> {
    let links = host.links.borrow();
    let device = links.get(seen.attachment.as_ref()?.entry.ifindex?)?;
    let bridge = links.get(device.master?)?;
    let is_hairpin = device.port.is_some_and(|port| port.hairpin);
    let text = || {
        format!(
            "{} is a hairpin port of {}: the guest receives its own announcements",
            device.name, bridge.name
        )
    };
    is_hairpin.then(|| Note { code: "hairpin".into(), text: text() })
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&subject(self.domain.as_ref(), self.device.as_deref(), Some(self.mac)))?;
        for (name, lines) in self.rows() {
            let names = std::iter::once(name).chain(std::iter::repeat(""));
            names.zip(lines).try_for_each(|(name, line)| write!(f, "\n  {name:<12}{line}"))?;
        }
        Ok(())
    }
}

/// The text, by rows of one or several lines.
impl Explanation {
    fn rows(&self) -> [(&'static str, Vec<String>); 14] {
        let path = self.attachment.iter().flat_map(Path::lines);
        let mut next: Vec<String> = self.conditions.iter().filter_map(|unmet| unmet.remedy.clone()).collect();
        next.dedup();
        [
            ("path", path.collect()),
            ("in charge", vec![self.in_charge()]),
            ("ready", self.readiness()),
            ("next", next),
            ("held", self.held.clone()),
            ("note", self.notes.iter().map(|note| note.text.clone()).collect()),
            ("addresses", self.candidates()),
            ("asks", self.asked()),
            ("router", self.router()),
            ("frames", self.frames.clone()),
            ("schedule", vec![self.schedule()]),
            ("queries", vec![self.queries()]),
            ("itself", self.itself()),
            ("ways in", self.ways_in()),
        ]
    }

    fn in_charge(&self) -> String {
        let is_unknown =
            self.attachment.is_none() && self.conditions.iter().any(|unmet| unmet.code == "no-ovsdb");
        let owner = if is_unknown { "unknown".to_owned() } else { self.in_charge.to_string() };
        format!("{owner}: {}", self.evidence)
    }

    fn readiness(&self) -> Vec<String> {
        let vlan = self.attachment.as_ref().and_then(|path| path.vlan);
        match &self.error {
            _ if self.unmet.is_empty() => {
                vec![vlan.map_or("yes".to_owned(), |vlan| format!("yes, in VLAN {vlan}"))]
            }
            Some(why) => vec![format!("no: {why}")],
            None => self.conditions.iter().map(|unmet| format!("no: {}", unmet.text)).collect(),
        }
    }

    fn candidates(&self) -> Vec<String> {
        let believed = self.addresses.iter().map(|a| format!("{} ({})", a.ip, a.source));
        let disbelieved = self.disbelieved.iter().map(|a| format!("{} ({}, not announced)", a.ip, a.source));
        let all: Vec<String> = believed.chain(disbelieved).collect();
        if all.is_empty() { vec![self.rarp_only()] } else { all }
    }

    fn asked(&self) -> Vec<String> {
        let mut gateways: Vec<String> = Vec::new();
        for Asks { gateway, source, .. } in &self.gateways {
            let line = format!("{gateway} ({source})");
            if !gateways.contains(&line) {
                gateways.push(line);
            }
        }
        let none = || vec!["none: no gateway is known (name one with --ask)".into()];
        if gateways.is_empty() { none() } else { gateways }
    }

    fn router(&self) -> Vec<String> {
        let settings = self.router_settings.iter().map(|(name, value)| match value.as_str() {
            "0" => format!("{name} is 0: only a question makes a neighbour entry here"),
            _ => format!("{name} is {value}: announcements make neighbour entries here, too"),
        });
        settings.collect()
    }

    fn schedule(&self) -> String {
        let times = self.schedule_ms.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        format!("{}, at {times} ms", count(self.schedule_ms.len(), "round"))
    }
}
