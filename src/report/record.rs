//! One announcement, from event to outcome, as one record: an object of JSON, read back by the same type.

use pnet_base::MacAddr;
use serde::{Deserialize, Serialize};

use crate::announcement::failure::Failure;
use crate::announcement::injection::Method;
use crate::announcement::progress::{Outcome, Progress};
use crate::guest::address::Address;
use crate::guest::event::Cause;
use crate::guest::target::{DomainId, Target, Unannounceable, subject};
use crate::path::condition::Condition;
use crate::path::readiness::Assessment;
use crate::proof::answer::AnsweredBy;
use crate::report::evidence::{Evidence, Tally, millis};
use crate::report::inquiry::Inquired;
use crate::report::names::Names;
use crate::report::note::Note;
use crate::report::path::Path;
use crate::report::round_time::RoundTime;
use crate::report::unmet::Unmet;

/// The version of the JSON form. It changes if a key changes its meaning or is removed.
pub const VERSION: u32 = 1;

/// The result of one announcement: one line of JSON, or a few lines of text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`VERSION`].
    pub version: u32,
    /// The guest, if libvirt knows it.
    pub domain: Option<DomainId>,
    /// The host's end of its NIC.
    pub device: Option<String>,
    /// The NIC's MAC.
    pub mac: Option<MacAddr>,
    /// Its attachment.
    pub attachment: Option<Path>,
    /// The announced addresses with their sources.
    pub addresses: Vec<Address>,
    /// Why.
    pub cause: Cause,
    /// When the event happened, by the wall clock (RFC 3339, UTC, milliseconds).
    #[serde(default)]
    pub event_at: Option<String>,
    /// When the announcement ended, likewise.
    #[serde(default)]
    pub ended_at: Option<String>,
    /// How it ended.
    pub outcome: Outcome,
    /// The unmet conditions at the end, as text.
    pub unmet: Vec<String>,
    /// The same, each with its code and the remedy.
    #[serde(default)]
    pub conditions: Vec<Unmet>,
    /// From the event to when the guest was seen to run.
    pub runs_after_ms: Option<f64>,
    /// From the event to when the source's daemon was heard to say that the guest has stopped there: negative. `None` if it was not.
    #[serde(default)]
    pub source_stopped_after_ms: Option<f64>,
    /// From the event to when its NIC was seen attached.
    pub plugged_after_ms: Option<f64>,
    /// From the event to when the port was seen to be in its VLAN.
    pub tagged_after_ms: Option<f64>,
    /// From the event to readiness.
    pub ready_after_ms: Option<f64>,
    /// From the event to the first frame.
    pub first_frame_after_ms: Option<f64>,
    /// Rounds that were sent.
    pub rounds: u32,
    /// When these and lost ones were sent.
    #[serde(default)]
    pub round_times: Vec<RoundTime>,
    /// Frames that were sent.
    pub frames: Tally,
    /// The proof of their departure.
    #[serde(flatten)]
    pub evidence: Evidence,
    /// The injection method that was used.
    pub injector: Option<Method>,
    /// A dry run: nothing was sent.
    pub dry_run: bool,
    /// What is worth knowing about it, each with a code.
    #[serde(default)]
    pub notes: Vec<Note>,
    /// The error, if any.
    pub error: Option<String>,
    /// The same things under the names that they have elsewhere.
    #[serde(flatten)]
    pub names: Names,
    /// Rounds that could not be sent.
    #[serde(default)]
    pub send_errors: u32,
    /// The port is a trunk without a native VLAN.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub trunk: bool,
    /// The guest was paused during the announcement.
    #[serde(skip)]
    pub held_up_by_pause: bool,
}

impl Report {
    /// The report of an announcement; `seen` is the last observation of the host.
    pub fn new(
        target: &Target,
        addresses: Vec<Address>,
        cause: Cause,
        seen: &Assessment,
        progress: &Progress,
    ) -> Report {
        Report {
            version: VERSION,
            domain: target.domain.clone(),
            device: seen.device(target),
            mac: Some(target.mac),
            attachment: Path::of(seen),
            addresses,
            cause,
            event_at: None,
            ended_at: None,
            outcome: progress.outcome.unwrap_or(Outcome::Cancelled),
            unmet: progress.unmet.iter().map(ToString::to_string).collect(),
            conditions: Unmet::all(&progress.unmet, target, seen.in_charge.0),
            // One that is early does not run yet.
            runs_after_ms: progress.runs_at.filter(|_| cause != Cause::Handover).map(millis),
            source_stopped_after_ms: None,
            plugged_after_ms: progress.plugged_at.map(millis),
            tagged_after_ms: progress.tagged_at.map(millis),
            ready_after_ms: progress.ready_at.map(millis),
            first_frame_after_ms: progress.first_frame_at.map(millis),
            rounds: progress.rounds,
            round_times: progress.spells.iter().map(RoundTime::from).collect(),
            frames: Tally::default(),
            evidence: Evidence::default(),
            injector: None,
            dry_run: false,
            notes: Vec::new(),
            error: progress.error.clone(),
            names: Names::default(),
            send_errors: progress.send_errors,
            trunk: target.vlan.as_ref().is_some_and(|vlan| vlan.tagged_only().is_some()),
            held_up_by_pause: matches!(progress.outcome, Some(Outcome::Cancelled | Outcome::NotReady))
                && progress.unmet.iter().any(|condition| matches!(condition, Condition::Paused(_))),
        }
    }

    /// The report of a NIC that the host cannot announce.
    pub fn refused(nic: &Unannounceable, cause: Cause) -> Report {
        let report = Report {
            version: VERSION,
            domain: nic.domain.clone(),
            device: nic.device.clone(),
            mac: nic.mac,
            attachment: None,
            addresses: Vec::new(),
            cause,
            event_at: None,
            ended_at: None,
            outcome: Outcome::Failed,
            unmet: Vec::new(),
            conditions: Vec::new(),
            runs_after_ms: None,
            source_stopped_after_ms: None,
            plugged_after_ms: None,
            tagged_after_ms: None,
            ready_after_ms: None,
            first_frame_after_ms: None,
            rounds: 0,
            round_times: Vec::new(),
            frames: Tally::default(),
            evidence: Evidence::default(),
            injector: None,
            dry_run: false,
            notes: Vec::new(),
            error: Some(nic.reason.clone()),
            names: Names::default(),
            send_errors: 0,
            trunk: false,
            held_up_by_pause: false,
        };
        report.named(Some(Failure::Unannounceable.code()))
    }

    /// The same, with its other names; `error_code` is the kind of its error.
    pub fn named(self, error_code: Option<&str>) -> Report {
        let names = Names {
            vm: self.domain.as_ref().map(|domain| domain.name.to_string()),
            uuid: self.domain.as_ref().map(|domain| domain.uuid.to_string()),
            event: Some(self.cause),
            departure_after_ms: self.evidence.left_host_after_ms,
            reply_after_ms: self.evidence.returned_after_ms,
            rounds_lost: self.evidence.lost_rounds,
            error_code: error_code.map(str::to_owned),
        };
        Report { names, ..self }
    }

    /// It left the host, but no frame for the guest and no answer entered while the schedule lasted. A single round is over
    /// at once and does not count.
    pub fn is_unanswered(&self) -> bool {
        let Evidence { departure, returned_after_ms, gateways, .. } = &self.evidence;
        // What comes in for a guest that does not run yet waits, and one that does has another announcement.
        let is_over = self.outcome == Outcome::Announced && self.rounds > 1 && self.cause != Cause::Handover;
        let by_network = |asked: &Inquired| asked.answer.is_some_and(|a| a.by == Some(AnsweredBy::Network));
        is_over && departure.is_some() && returned_after_ms.is_none() && !gateways.iter().any(by_network)
    }

    /// No address of the NIC is known, so that nothing but RARP was sent.
    pub fn is_rarp_only(&self) -> bool {
        self.addresses.is_empty() && self.rounds > 0
    }

    /// Whether conditions of this code are all that is unmet.
    pub fn lacks_only(&self, code: &str) -> bool {
        !self.conditions.is_empty() && self.conditions.iter().all(|unmet| unmet.code == code)
    }

    /// The name of the NIC in messages: domain, device and MAC.
    pub fn subject(&self) -> String {
        subject(self.domain.as_ref(), self.device.as_deref(), self.mac)
    }
}
