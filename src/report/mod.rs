//! What happened, in one record with several renderings.

pub mod evidence;
pub mod metrics;
pub mod timeline;

use std::fmt;
use std::time::Duration;

use pnet_base::MacAddr;
use serde::Serialize;

use crate::announcement::frame;
use crate::announcement::machine::{Outcome, Progress};
use crate::guest::address::Address;
use crate::guest::event::Cause;
use crate::guest::target::{DomainId, Target, Unannounceable, subject};
use crate::path::readiness::Assessment;
use crate::report::evidence::Evidence;

/// The version of the JSON form: it changes when a key changes its meaning or goes.
pub const VERSION: u32 = 1;

/// What came of one announcement: one line of JSON, or a few lines for a person.
#[derive(Debug, Clone, PartialEq, Serialize)]
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
    pub injector: Option<&'static str>,
    /// Nothing was sent: it was asked what would be.
    pub dry_run: bool,
    /// What went wrong.
    pub error: Option<String>,
}

/// Where a NIC is plugged, as a report tells it.
#[derive(Debug, Clone, PartialEq, Serialize)]
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
            hops: attachment.hops.iter().map(|hop| hop.name.clone()).collect(),
        })
    }
}

/// Frames by kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Tally {
    rarp: u64,
    arp_request: u64,
    arp_reply: u64,
    na: u64,
}

impl Tally {
    /// The counts, by kind.
    pub fn by_kind(&self) -> impl Iterator<Item = (frame::Kind, u64)> + use<> {
        let counts = [self.arp_request, self.arp_reply, self.na, self.rarp];
        frame::Kind::ALL.into_iter().zip(counts)
    }

    /// Counts a frame.
    pub fn add(&mut self, kind: frame::Kind) {
        *self.of(kind) += 1;
    }

    fn of(&mut self, kind: frame::Kind) -> &mut u64 {
        match kind {
            frame::Kind::Rarp => &mut self.rarp,
            frame::Kind::ArpRequest => &mut self.arp_request,
            frame::Kind::ArpReply => &mut self.arp_reply,
            frame::Kind::Na => &mut self.na,
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = self.by_kind().filter(|(_, n)| *n > 0);
        let words: Vec<String> = counts.map(|(kind, n)| format!("{n} {kind}")).collect();
        f.write_str(if words.is_empty() { "no frames" } else { "" })?;
        f.write_str(&words.join(", "))
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
        }
    }

    /// The report of a NIC that the host cannot speak for.
    pub fn refused(nic: &Unannounceable, cause: Cause) -> Report {
        Report {
            version: VERSION,
            domain: Some(nic.domain.clone()),
            device: nic.device.clone(),
            mac: nic.mac,
            attachment: None,
            addresses: Vec::new(),
            cause,
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
        }
    }

    /// It left the host, and no frame for the guest came in as long as the schedule lasted: that of one round is over at once.
    pub fn is_unanswered(&self) -> bool {
        let Evidence { departure, returned_after_ms, .. } = &self.evidence;
        let is_over = self.outcome == Outcome::Announced && self.rounds > 1;
        is_over && departure.is_some() && returned_after_ms.is_none()
    }

    /// What somebody should look at. Of an announcement that ended before its time, only what has not left the host.
    pub fn warnings(&self) -> Vec<String> {
        let Evidence { stuck, stale, .. } = &self.evidence;
        let mut warnings = stuck.clone();
        if self.is_unanswered() {
            // Both look the same from here.
            let words = "no frame for it has come in since it was announced: nobody sends it any, or the network has not heard";
            warnings.push(words.into());
        }
        warnings.extend(stale.clone().filter(|_| self.outcome == Outcome::Announced));
        warnings
    }

    /// Whom it is about: domain, device and MAC.
    pub fn subject(&self) -> String {
        subject(self.domain.as_ref(), self.device.as_deref(), self.mac)
    }

    /// What came of it, in one line.
    pub fn line(&self) -> String {
        if self.outcome != Outcome::Announced {
            return self.failure();
        }
        let vlan = self.attachment.as_ref().and_then(|path| path.vlan);
        let vlan = vlan.map(|vlan| format!(" in VLAN {vlan}")).unwrap_or_default();
        let first = self.first_frame_after_ms.unwrap_or_default();
        let by = self.injector.unwrap_or_default();
        let (subject, rounds, cause) = (self.subject(), self.rounds, self.cause.word());
        let evidence: String = self.evidence.lines().iter().map(|words| format!("; {words}")).collect();
        let lost = match self.evidence.lost_rounds {
            0 => String::new(),
            lost => format!(" and {lost} lost"),
        };
        format!(
            "{subject}: announced{vlan}, first frame after {first} ms, {rounds} rounds{lost} by {by} ({cause}){evidence}"
        )
    }

    /// What went wrong, in one line.
    pub fn failure(&self) -> String {
        let unmet = self.unmet.join("; ");
        let why = match (self.outcome, &self.error) {
            (Outcome::NotReady, _) => &unmet,
            (_, Some(error)) => error,
            (_, None) => "",
        };
        format!("{}: {}: {why}", self.subject(), self.outcome.word())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.outcome != Outcome::Announced {
            return f.write_str(&self.failure());
        }
        write!(f, "{}: announced", self.subject())?;
        if let Some(vlan) = self.attachment.as_ref().and_then(|path| path.vlan) {
            write!(f, " in VLAN {vlan}")?;
        }
        f.write_str(if self.dry_run { ", or would be: a dry run sends nothing" } else { "" })?;
        if let Some(path) = &self.attachment {
            write!(f, "\n  {}: {}", path.kind.word(), path.hops.join(" → "))?;
        }
        let addresses = self.addresses.iter().map(|a| format!("{} ({})", a.ip, a.source));
        let addresses = addresses.collect::<Vec<_>>().join(", ");
        let none = "no address that anybody but the guest vouches for: RARP only (add one with --ip)";
        write!(f, "\n  {}", if addresses.is_empty() { none } else { &addresses })?;
        let rounds = if self.rounds == 1 { "round" } else { "rounds" };
        write!(f, "\n  {} {rounds}: {}", self.rounds, self.frames)?;
        if let Some(injector) = self.injector {
            write!(f, "; by {injector}")?;
        }
        if self.evidence.lost_rounds > 0 {
            write!(f, "; {} more were lost", self.evidence.lost_rounds)?;
        }
        if let (Some(ready), Some(first)) = (self.ready_after_ms, self.first_frame_after_ms) {
            write!(f, "\n  ready after {ready} ms, first frame after {first} ms")?;
        }
        self.evidence.lines().iter().try_for_each(|line| write!(f, "\n  {line}"))?;
        Ok(())
    }
}

impl FromIterator<(frame::Kind, u64)> for Tally {
    fn from_iter<I: IntoIterator<Item = (frame::Kind, u64)>>(counts: I) -> Self {
        let mut tally = Tally::default();
        for (kind, count) in counts {
            *tally.of(kind) += count;
        }
        tally
    }
}

/// Milliseconds with microseconds behind the point.
pub fn millis(d: Duration) -> f64 {
    (d.as_micros() as f64) / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::evidence::Departure;
    use crate::report::metrics::{Gauges, Metrics};

    const UNANSWERED: &str = "no frame for it has come in since it was announced: nobody sends it any, or the network has not heard";

    fn ended(outcome: Outcome, evidence: Evidence) -> Report {
        let nic = Unannounceable {
            domain: DomainId { name: "web1".into(), uuid: String::new() },
            device: None,
            mac: None,
            reason: String::new(),
        };
        Report { outcome, evidence, rounds: 2, ..Report::refused(&nic, Cause::Migrated) }
    }

    fn left() -> Evidence {
        let departure =
            Departure { device: "up0".into(), bridge: None, port: None, vlan: None, words: String::new() };
        let stale = Some("not learned".into());
        Evidence { departure: Some(departure), stuck: vec!["rarp".into()], stale, ..Evidence::default() }
    }

    #[test]
    fn what_is_missing_in_the_end_is_warned_of_if_the_end_was_waited_for() {
        let warnings = |outcome| ended(outcome, left()).warnings();
        assert_eq!(warnings(Outcome::Announced), ["rarp", UNANSWERED, "not learned"]);
        for early in [Outcome::Cancelled, Outcome::Superseded, Outcome::NotReady] {
            assert_eq!(warnings(early), ["rarp"], "{early:?}");
        }
        let answered = Evidence { returned_after_ms: Some(1.0), stuck: Vec::new(), stale: None, ..left() };
        let nothing_left = Evidence { departure: None, ..left() };
        assert_eq!(ended(Outcome::Announced, answered).warnings(), Vec::<String>::new());
        assert_eq!(ended(Outcome::Failed, nothing_left).warnings(), ["rarp"]);
    }

    #[test]
    fn what_is_not_answered_is_counted() {
        let mut metrics = Metrics::default();
        metrics.ended(&ended(Outcome::Announced, left()));
        metrics.ended(&ended(Outcome::Superseded, left()));
        metrics.ended(&Report { rounds: 1, ..ended(Outcome::Announced, left()) });
        let text = metrics.text(&Gauges::default());
        assert!(text.contains("\nannounced_unanswered_total 1\n"), "{text}");
    }
}
