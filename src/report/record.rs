//! One announcement, from event to outcome, as one record: an object of JSON, read back by the same type.

use pnet_base::MacAddr;
use serde::{Deserialize, Serialize};

use crate::announcement::injection::Method;
use crate::announcement::machine::{Outcome, Progress};
use crate::guest::address::Address;
use crate::guest::event::Cause;
use crate::guest::target::{DomainId, Target, Unannounceable, subject};
use crate::path::condition::Condition;
use crate::path::readiness::Assessment;
use crate::proof::answer::AnsweredBy;
use crate::report::evidence::{Evidence, Tally, millis};
use crate::report::inquiry::Inquired;

/// The version of the JSON form: it changes when a key changes its meaning or goes.
pub const VERSION: u32 = 1;

/// What came of one announcement: one line of JSON, or a few lines for a person.
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
    /// Where it is plugged.
    pub attachment: Option<Path>,
    /// What was announced, and who vouches for it.
    pub addresses: Vec<Address>,
    /// Why.
    pub cause: Cause,
    /// When that happened, by the wall clock (RFC 3339, UTC, milliseconds).
    #[serde(default)]
    pub event_at: Option<String>,
    /// When the announcement ended, likewise.
    #[serde(default)]
    pub ended_at: Option<String>,
    /// How it ended.
    pub outcome: Outcome,
    /// What was missing at the end, in words.
    pub unmet: Vec<String>,
    /// From the event to when the guest was seen to run.
    pub runs_after_ms: Option<f64>,
    /// From the event to when its NIC was seen to be plugged in.
    pub plugged_after_ms: Option<f64>,
    /// From the event to when the port was seen to be in its VLAN.
    pub tagged_after_ms: Option<f64>,
    /// From the event to readiness.
    pub ready_after_ms: Option<f64>,
    /// From the event to the first frame.
    pub first_frame_after_ms: Option<f64>,
    /// Rounds that were sent.
    pub rounds: u32,
    /// Frames that were sent.
    pub frames: Tally,
    /// What became of them.
    #[serde(flatten)]
    pub evidence: Evidence,
    /// The way in that was used.
    pub injector: Option<Method>,
    /// Nothing was sent: it was asked what would be.
    pub dry_run: bool,
    /// What went wrong.
    pub error: Option<String>,
    /// Rounds that could not be sent.
    #[serde(default)]
    pub send_errors: u32,
    /// The guest was paused in the middle of it.
    #[serde(skip)]
    pub held_up_by_pause: bool,
}

/// Where a NIC is plugged, as a report tells it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Path {
    /// Its shape.
    pub kind: crate::path::attachment::Kind,
    /// The bridge that decides the VLAN.
    pub bridge: String,
    /// The port there.
    pub port: String,
    /// The VLAN of the guest's untagged frames.
    pub vlan: Option<u16>,
    /// From the host's end of the NIC to the uplinks.
    pub hops: Vec<String>,
}

impl Path {
    /// The path that was seen, if there is one.
    pub fn of(seen: &Assessment) -> Option<Path> {
        seen.attachment.as_ref().map(|attachment| Path {
            kind: attachment.kind,
            bridge: attachment.bridge.clone(),
            port: attachment.port.clone(),
            vlan: seen.vlan,
            hops: attachment.way.names().map(str::to_owned).collect(),
        })
    }
}

impl Report {
    /// The report of an announcement that was run; `seen` is the last look at the host.
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
            runs_after_ms: progress.runs_at.map(millis),
            plugged_after_ms: progress.plugged_at.map(millis),
            tagged_after_ms: progress.tagged_at.map(millis),
            ready_after_ms: progress.ready_at.map(millis),
            first_frame_after_ms: progress.first_frame_at.map(millis),
            rounds: progress.rounds,
            frames: Tally::default(),
            evidence: Evidence::default(),
            injector: None,
            dry_run: false,
            error: progress.error.clone(),
            send_errors: progress.send_errors,
            held_up_by_pause: matches!(progress.outcome, Some(Outcome::Cancelled | Outcome::NotReady))
                && progress.unmet.iter().any(|condition| matches!(condition, Condition::Paused(_))),
        }
    }

    /// The report of a NIC that the host cannot speak for.
    pub fn refused(nic: &Unannounceable, cause: Cause) -> Report {
        Report {
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
            runs_after_ms: None,
            plugged_after_ms: None,
            tagged_after_ms: None,
            ready_after_ms: None,
            first_frame_after_ms: None,
            rounds: 0,
            frames: Tally::default(),
            evidence: Evidence::default(),
            injector: None,
            dry_run: false,
            error: Some(nic.reason.clone()),
            send_errors: 0,
            held_up_by_pause: false,
        }
    }

    /// It left the host, and no frame for the guest came in, nor an answer to its questions, as long as the schedule lasted: that of one round is over at once.
    pub fn is_unanswered(&self) -> bool {
        let Evidence { departure, returned_after_ms, gateways, .. } = &self.evidence;
        let is_over = self.outcome == Outcome::Announced && self.rounds > 1;
        let by_network = |asked: &Inquired| asked.answer.is_some_and(|a| a.by == Some(AnsweredBy::Network));
        is_over && departure.is_some() && returned_after_ms.is_none() && !gateways.iter().any(by_network)
    }

    /// Whom it is about: domain, device and MAC.
    pub fn subject(&self) -> String {
        subject(self.domain.as_ref(), self.device.as_deref(), self.mac)
    }
}
