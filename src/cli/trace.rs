//! `announce trace`: sends one round and follows it hop by hop, as traceroute(8) does.

use std::fmt;
use std::time::Duration;

use pnet_base::MacAddr;
use serde::Serialize;
use tokio::time::Instant;

use crate::announcement::frame::Frame;
use crate::announcement::{frame_names, injection};
use crate::cli::args::Output;
use crate::cli::exit::{Problem, Status};
use crate::cli::output::{json, print};
use crate::cli::select::Start;
use crate::guest::GuestState;
use crate::guest::target::{DomainId, subject};
use crate::host::openvswitch::packet_outs::Submission;
use crate::path::condition::Condition;
use crate::path::readiness::Assessment;
use crate::proof::capture_point::CapturePath;
use crate::proof::delivery::{Delivery, RoundFate};
use crate::report::evidence::Evidence;
use crate::report::evidence::millis;
use crate::report::note::Note;
use crate::report::unmet::{self, Unmet};
use crate::report::{Path, VERSION};
use crate::run::asking::gateways_here;
use crate::run::diagnose;
use crate::run::host::Host;
use crate::run::observer::Observer;
use crate::run::order::Order;
use crate::run::routed;

/// How long to wait for frames from the network to the guest, and for late frames of a busy host.
const REPLY_TIMEOUT: Duration = Duration::from_secs(1);

/// Traces a round of each selected NIC.
///
/// # Errors
///
/// The host or libvirt cannot be read.
pub(super) async fn run(start: Start, output: &Output) -> Result<Status, Problem> {
    let (mut host, orders) = start.gather().await?;
    let mut status = orders.print_absent();
    for (order, guest) in &orders.orders {
        let guest = *guest.borrow();
        let trace = Trace::run(order, &mut host, guest).await;
        let ended = match trace.end() {
            End::Left => Status::Announced,
            End::NotReady => Status::NotReady,
            End::Stuck => Status::Failed,
        };
        let text = if output.json { json(&trace, output) } else { trace.to_string() };
        status = status.max(ended).max(print(&text));
    }
    Ok(status.max(orders.print_refused(output)))
}

/// The path of one round.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Trace {
    version: u32,
    domain: Option<DomainId>,
    vm: Option<String>,
    uuid: Option<String>,
    device: Option<String>,
    mac: MacAddr,
    attachment: Option<Path>,
    unmet: Vec<String>,
    conditions: Vec<Unmet>,
    injector: Option<&'static str>,
    /// The frames of the round, in order.
    frames: Vec<String>,
    /// The same, as objects.
    round: Vec<frame_names::Named>,
    /// The point of injection, and the hops that frames reached from there.
    path: Vec<Passage>,
    /// Open vSwitch's verdicts on them.
    ofproto: Vec<Verdict>,
    #[serde(flatten)]
    evidence: Evidence,
    notes: Vec<Note>,
    error: Option<String>,
}

/// One hop of a round.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Passage {
    hop: String,
    /// From the injection to the first frame there.
    after_ms: Option<f64>,
    vlan: Option<u16>,
    /// The frames that passed.
    frames: Vec<String>,
    /// The kernel does not show frames there.
    unseen: bool,
}

/// Open vSwitch's verdict on some frames.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct Verdict {
    frames: Vec<String>,
    /// The deciding flow with its actions.
    deciding: String,
    /// The flows drop them.
    dropped: bool,
}

/// The end of a trace, for the exit status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// Some frame of each address left the host, as far as that can be seen.
    Left,
    /// No frame of some address left.
    Stuck,
    /// Nothing was sent, since it would have done harm.
    NotReady,
}

impl Trace {
    /// Sends one round for `order` in the present state of the host, and follows it.
    ///
    /// If the port is not ready, the round is sent only if it cannot leave the host, as in neutron's dead VLAN.
    pub(super) async fn run(order: &Order, host: &mut Host, guest: GuestState) -> Trace {
        let mut seen = order.look(host, guest);
        while let Some(left) = seen.settles_in.filter(|_| seen.unmet.is_empty()) {
            // ovs-vswitchd may answer before that.
            let _ = tokio::time::timeout(left, host.ovs.changed()).await;
            seen = order.look(host, guest);
        }
        let mut trace = Trace::new(order, &seen);
        trace.error = routed::by_host(host, order, &seen).await;
        if trace.error.is_none() && Condition::all_keep_frames_in(&seen.unmet) {
            trace.error = trace.send(order, host, &seen).await.err();
        }
        trace
    }

    fn new(order: &Order, seen: &Assessment) -> Trace {
        Trace {
            version: VERSION,
            domain: order.target.domain.clone(),
            vm: order.target.domain.as_ref().map(|domain| domain.name.to_string()),
            uuid: order.target.domain.as_ref().map(|domain| domain.uuid.to_string()),
            device: seen.device(&order.target),
            mac: order.target.mac,
            attachment: Path::of(seen),
            unmet: seen.unmet.iter().map(ToString::to_string).collect(),
            conditions: Unmet::all(&seen.unmet, &order.target, seen.in_charge.0),
            injector: None,
            frames: order.round().iter().map(frame_names::name).collect(),
            round: order.round().iter().map(frame_names::Named::of).collect(),
            path: Vec::new(),
            ofproto: Vec::new(),
            evidence: Evidence::default(),
            notes: Vec::new(),
            error: None,
        }
    }

    async fn send(&mut self, order: &Order, host: &Host, seen: &Assessment) -> Result<(), String> {
        let attachment = seen.attachment.as_ref().ok_or("it is not attached")?;
        let ways = injection::ways(seen, order.settings.inject);
        let way =
            host.injectors.prepare(&ways, order.settings.inject).await.map_err(|error| error.to_string())?;
        self.injector = Some(way.method().word());
        let (mac, frames) = (order.target.mac, order.round());
        let path = CapturePath::of(attachment, way.method());
        let sent = Instant::now();
        let mut observer = Observer::new(host.witness.clone(), sent, mac, &frames, path);
        observer.look_everywhere();
        observer.begin();
        host.injectors
            .send(&way, &frames, &Submission::new(true))
            .await
            .map_err(|error| error.to_string())?;
        if !matches!(observer.judge_by_verdicts(host, seen).await, RoundFate::Left | RoundFate::Lost) {
            // A trace sends no second round, but late frames are shown.
            observer.look_on();
        }
        let questions = order.questions(&gateways_here(order, host, seen).await);
        let asked: Vec<Frame> = questions.iter().filter_map(|question| question.frame(mac)).collect();
        if !asked.is_empty() {
            observer.ask(&questions, attachment.entry.ifindex);
            host.injectors
                .send(&way, &asked, &Submission::new(false))
                .await
                .map_err(|error| error.to_string())?;
            self.frames.extend(asked.iter().map(frame_names::name));
            self.round.extend(asked.iter().map(frame_names::Named::of));
        }
        let learned = match frames.first() {
            Some(frame) => diagnose::learned(host, seen, mac, frame).await,
            None => None,
        };
        let learned = learned.map(|learned| (learned, sent.elapsed()));
        if observer.unseen().is_none() {
            let all = async {
                while !observer.is_answered() || observer.found.proof.fate() != RoundFate::Left {
                    observer.see().await;
                }
            };
            let _ = tokio::time::timeout(REPLY_TIMEOUT, all).await;
        }
        self.evidence = observer.evidence(host, seen, order).await.with_learned(learned.as_ref());
        self.notes = self.evidence.notes();
        self.path = passages(&observer);
        self.ofproto = verdicts(host, seen, &[frames, asked].concat()).await;
        Ok(())
    }

    /// Its end.
    pub(super) fn end(&self) -> End {
        match (&self.error, self.injector) {
            (None, None) => End::NotReady,
            (None, Some(_)) if !self.evidence.is_lacking() && self.unmet.is_empty() => End::Left,
            _ => End::Stuck,
        }
    }
}

async fn verdicts(host: &Host, seen: &Assessment, frames: &[Frame]) -> Vec<Verdict> {
    let lines = diagnose::ofproto(host, seen, frames).await;
    let is_new = |(number, line): &(usize, &(String, bool))| !lines[..*number].contains(line);
    let verdicts = lines.iter().enumerate().filter(is_new).map(|(_, line)| Verdict {
        frames: frame_names::names(frames, |number| lines.get(number) == Some(line)),
        deciding: line.0.clone(),
        dropped: line.1,
    });
    verdicts.collect()
}

fn passages(observer: &Observer) -> Vec<Passage> {
    let passed = |proof: &Delivery, seen: &[Option<Duration>]| {
        frame_names::names(proof.frames(), |number| seen[number].is_some())
    };
    let passages = observer.found.proof.hops().map(|(hop, vlan, seen)| Passage {
        hop: hop.label(),
        after_ms: seen.iter().flatten().min().map(|at| millis(*at)),
        vlan,
        frames: passed(&observer.found.proof, seen),
        unseen: !observer.is_seen(hop),
    });
    let mut passages: Vec<Passage> = passages.collect();
    if let Some(questions) = observer.found.inquiry.as_ref().map(|inquiry| &inquiry.passage) {
        for (passage, (_, vlan, seen)) in passages.iter_mut().zip(questions.hops()) {
            let after_ms = seen.iter().flatten().min().map(|at| millis(*at));
            (passage.after_ms, passage.vlan) = (passage.after_ms.or(after_ms), passage.vlan.or(vlan));
            passage.frames.extend(passed(questions, seen));
        }
    }
    passages
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&subject(self.domain.as_ref(), self.device.as_deref(), Some(self.mac)))?;
        match self.injector {
            Some(injector) => write!(f, ": one round by {injector}: {}", self.frames.join(", "))?,
            None => f.write_str(": nothing was sent")?,
        }
        let width = self.path.iter().map(|passage| passage.hop.len()).max().unwrap_or_default();
        for (number, Passage { hop, after_ms, vlan, frames, unseen }) in (1..).zip(&self.path) {
            write!(f, "\n  {number:>2}  {hop:<width$}  ")?;
            match after_ms {
                Some(after) => write!(f, "{after:>8.3} ms  ")?,
                None if *unseen => write!(f, "       -     not observable here")?,
                None => write!(f, "       *     nothing passed")?,
            }
            vlan.map_or(Ok(()), |vlan| write!(f, "VLAN {vlan}  "))?;
            f.write_str(&frames.join(" "))?;
        }
        let not_ready =
            (!self.unmet.is_empty()).then(|| format!("not ready: {}", unmet::words(&self.conditions)));
        // An unmet condition explains stuck frames.
        for Verdict { frames, deciding, .. } in &self.ofproto {
            write!(f, "\n  ofproto/trace: {}: {deciding}", frames.join(", "))?;
        }
        self.evidence.lines().iter().try_for_each(|line| write!(f, "\n  {line}"))?;
        self.evidence.lines_of_questions().try_for_each(|line| write!(f, "\n  {line}"))?;
        let lines = [not_ready.filter(|_| self.evidence.stuck.is_empty()), self.error.clone()];
        lines.iter().flatten().try_for_each(|line| write!(f, "\n  {line}"))
    }
}
