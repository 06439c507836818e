//! Reports as text: one line for the log and `announce status`, several for a terminal.

use std::fmt;

use crate::announcement::injection::Method;
use crate::announcement::progress::Outcome;
use crate::guest::event::Cause;
use crate::report::evidence::{Evidence, Tally};
use crate::report::guest_announcement::GuestAnnouncement;
use crate::report::note::Note;
use crate::report::record::Report;
use crate::report::unmet;

/// The guest is quiet, or the network has not heard: both look the same from here.
const UNANSWERED: &str = "no frame for it has come in since it was announced: no host sends it any, or the network has not learned where it is";

/// Why no address is announced on a trunk without a native VLAN.
pub(crate) const TRUNK: &str = "RARP only: its port is a trunk without a native VLAN, and no source tells in which of the VLANs an address is";

/// `1 guest`, `2 guests`.
pub(crate) fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

impl Report {
    /// The faults that an operator should look at. For an announcement that ended early, only the frames that did not leave
    /// the host.
    pub fn warnings(&self) -> Vec<String> {
        let Evidence { stuck, stale, .. } = &self.evidence;
        let mut warnings = if self.evidence.is_lacking() { stuck.clone() } else { Vec::new() };
        warnings.extend(self.ceased());
        warnings.extend(stale.clone().filter(|_| self.outcome == Outcome::Announced));
        warnings
    }

    /// What is worth a line, and no warning: most VMs that are quiet have it.
    pub fn notices(&self) -> Vec<String> {
        self.unanswered().into_iter().chain(self.evidence.lines_of_foreign()).collect()
    }

    /// Everything that is worth knowing about it.
    pub fn notes(&self) -> Vec<Note> {
        let one = |code: &str, text: Option<String>| text.map(|text| Note { code: code.into(), text });
        let of_all = [
            one("ceased", self.ceased()),
            one("unanswered", self.unanswered()),
            one("guest-not-told", self.not_told()),
            one("rarp-only", self.is_rarp_only().then(|| self.rarp_only())),
        ];
        self.evidence.notes().into_iter().chain(of_all.into_iter().flatten()).collect()
    }

    /// That frames for the guest have ceased.
    fn ceased(&self) -> Option<String> {
        let last = self.evidence.last_returned_after_ms.unwrap_or_default();
        self.evidence.ceased.then(|| format!(
            "frames for it entered until {last} ms and none since, and no gateway answers it: other subnets may not reach it"
        ))
    }

    /// That no frame for the guest has come in.
    fn unanswered(&self) -> Option<String> {
        self.is_unanswered().then(|| UNANSWERED.to_owned())
    }

    /// That libvirt was to have the guest announce itself, and has not. The daemon logs it once.
    fn not_told(&self) -> Option<String> {
        let announcement = self.evidence.guest_announcement.as_ref();
        announcement.filter(|announcement| announcement.error.is_some()).map(GuestAnnouncement::line)
    }

    /// That no address is known, and the remedy.
    pub fn rarp_only(&self) -> String {
        if self.trunk {
            return TRUNK.into();
        }
        let mac = self.mac.map(|mac| mac.to_string()).unwrap_or_default();
        format!("RARP only: no address is known; give it with --ip, or as addresses under [nic.{mac:?}]")
    }

    /// The VM was not announced, and that is no consequence of what became of the VM; it need not be before it runs.
    pub fn is_a_failure(&self) -> bool {
        matches!(self.outcome, Outcome::NotReady | Outcome::Failed) && self.cause != Cause::Handover
    }

    /// The result in one line.
    pub fn line(&self) -> String {
        if self.outcome != Outcome::Announced {
            return self.failure();
        }
        let vlan = self.attachment.as_ref().and_then(|path| path.vlan);
        let vlan = vlan.map(|vlan| format!(" in VLAN {vlan}")).unwrap_or_default();
        let first = self.first_frame_after_ms.unwrap_or_default();
        let by = self.injector.map(Method::word).unwrap_or_default();
        let (subject, rounds, cause) = (self.subject(), self.rounds, self.cause.word());
        let rarp_only = if self.is_rarp_only() { format!("; {}", self.rarp_only()) } else { String::new() };
        let evidence: String = self.evidence.lines().iter().map(|words| format!("; {words}")).collect();
        let lost = match self.evidence.lost_rounds {
            0 => String::new(),
            lost => format!(" and {lost} lost"),
        };
        format!(
            "{subject}: announced{vlan}, first frame after {first} ms, {rounds} rounds{lost} by {by} ({cause}){evidence}{rarp_only}"
        )
    }

    /// The addresses that were not announced, if others were, in one line.
    pub fn unheard(&self) -> Option<String> {
        let Evidence { not_left, stuck, .. } = &self.evidence;
        let ips: Vec<String> = not_left.iter().map(ToString::to_string).collect();
        let is_partly = self.outcome == Outcome::Announced && !ips.is_empty();
        is_partly.then(|| {
            format!("{}: of {} no frame left the host: {}", self.subject(), ips.join(", "), stuck.join("; "))
        })
    }

    /// The error in one line.
    pub fn failure(&self) -> String {
        let why = match (self.outcome, &self.error) {
            (Outcome::NotReady, _) => self.why_not_ready(),
            (_, Some(error)) => error.clone(),
            (_, None) => String::new(),
        };
        format!("{}: {}: {why}", self.subject(), self.outcome.word())
    }

    /// What the port lacks, with the remedies.
    pub fn why_not_ready(&self) -> String {
        if self.conditions.is_empty() { self.unmet.join("; ") } else { unmet::words(&self.conditions) }
    }
}

impl Evidence {
    /// What is worth knowing about the frames.
    pub fn notes(&self) -> Vec<Note> {
        let note = |code: &str, text: &String| Note { code: code.into(), text: text.clone() };
        let not_left: Vec<String> = self.not_left.iter().map(ToString::to_string).collect();
        let elsewhere: Vec<String> = self.lines_of_foreign().collect();
        let of_each = [
            ("stuck", &self.stuck),
            ("not-left", &not_left),
            ("stuck-question", &self.stuck_questions),
            ("seen-elsewhere", &elsewhere),
        ];
        let of_each =
            of_each.into_iter().flat_map(|(code, texts)| texts.iter().map(move |text| note(code, text)));
        let of_all = [("by-design", &self.by_design), ("unseen", &self.unseen), ("stale", &self.stale)];
        let of_all = of_all.into_iter().filter_map(|(code, text)| Some(note(code, text.as_ref()?)));
        of_each.chain(of_all).collect()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.outcome {
            Outcome::Announced => write!(f, "{}: announced", self.subject())?,
            // What has left before the end stays true.
            Outcome::Cancelled if self.rounds > 0 => write!(f, "{}: before its end", self.subject())?,
            _ => return f.write_str(&self.failure()),
        }
        if let (Some(vlan), Outcome::Announced) =
            (self.attachment.as_ref().and_then(|path| path.vlan), self.outcome)
        {
            write!(f, " in VLAN {vlan}")?;
        }
        f.write_str(if self.dry_run { " (dry run: nothing was sent)" } else { "" })?;
        if let Some(path) = &self.attachment {
            path.lines().iter().try_for_each(|line| write!(f, "\n  {line}"))?;
        }
        let addresses = self.addresses.iter().map(|a| format!("{} ({})", a.ip, a.source));
        let addresses = addresses.collect::<Vec<_>>().join(", ");
        write!(f, "\n  {}", if addresses.is_empty() { self.rarp_only() } else { addresses })?;
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
        // The daemon logs silent gateways at most once an hour.
        let silent = self.evidence.silent();
        silent.iter().try_for_each(|gateway| write!(f, "\n  {gateway} was asked, and has not answered"))?;
        self.evidence.lines_of_questions().try_for_each(|line| write!(f, "\n  {line}"))?;
        self.not_told().map_or(Ok(()), |line| write!(f, "\n  {line}"))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::event::Cause;
    use crate::guest::target::{DomainId, Unannounceable};
    use crate::proof::departure::Departure;
    use crate::report::metrics::{Gauges, Metrics};

    fn ended(outcome: Outcome, evidence: Evidence) -> Report {
        let nic = Unannounceable {
            domain: Some(DomainId { name: "web1".into(), uuid: "".into() }),
            device: None,
            mac: None,
            reason: String::new(),
            by_representor: None,
        };
        Report { outcome, evidence, rounds: 2, ..Report::refused(&nic, Cause::Migrated) }
    }

    fn left() -> Evidence {
        let departure =
            Departure { device: "up0".into(), bridge: None, port: None, vlan: None, edge: None, vni: None };
        let stale = Some("not learned".into());
        let (stuck, not_left) = (vec!["arp".into()], vec!["192.0.2.1".parse().unwrap()]);
        Evidence { departure: Some(departure), stuck, not_left, stale, ..Evidence::default() }
    }

    #[test]
    fn faults_are_reported_if_the_announcement_ran_to_its_end() {
        let warnings = |outcome| ended(outcome, left()).warnings();
        assert_eq!(warnings(Outcome::Announced), ["arp", "not learned"]);
        let announced = ended(Outcome::Announced, left());
        assert_eq!(announced.notices(), [UNANSWERED], "a quiet VM is no warning");
        assert!(
            announced.line().contains("; RARP only: no address is known; give it with --ip"),
            "{}",
            announced.line()
        );
        for early in [Outcome::Cancelled, Outcome::Superseded, Outcome::NotReady] {
            assert_eq!(warnings(early), ["arp"], "{early:?}");
        }
        let answered = Evidence { returned_after_ms: Some(1.0), not_left: Vec::new(), stale: None, ..left() };
        let nothing_left = Evidence { departure: None, not_left: Vec::new(), ..left() };
        assert_eq!(
            ended(Outcome::Announced, answered).warnings(),
            [""; 0],
            "the stuck frame announces no address"
        );
        assert_eq!(ended(Outcome::Failed, nothing_left).warnings(), ["arp"]);
    }

    #[test]
    fn announcements_without_an_answer_are_counted() {
        let mut metrics = Metrics::default();
        metrics.ended(&ended(Outcome::Announced, left()));
        metrics.ended(&ended(Outcome::Superseded, left()));
        metrics.ended(&Report { rounds: 1, ..ended(Outcome::Announced, left()) });
        let text = metrics.text(&Gauges::default(), &[]);
        assert!(text.contains("\nannounced_unanswered_total 1\n"), "{text}");
    }
}
