//! The daemon's counters, and their text for Prometheus (the exposition format, version 0.0.4).

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::{Deserialize, Serialize};

use crate::announcement::frame::Kind;
use crate::announcement::handover::Refusal;
use crate::announcement::progress::Outcome;
use crate::announcement::query::Protocol;
use crate::guest::event::Cause;
use crate::proof::answer::AnsweredBy;
use crate::report::Report;
use crate::report::evidence::Tally;
use crate::report::handed_over::HandedOver;
use crate::report::waiting::{Waiting, waited_for};

/// Bucket bounds in seconds, from the fastest path to an outage.
const BOUNDS: [f64; 17] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 20.0, 60.0, 300.0];

/// What may become of a request to have a guest announce itself.
const GUEST_REQUESTS: [&str; 2] = ["told", "failed"];

/// The counters since the daemon started.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Metrics {
    events: BTreeMap<String, u64>,
    announcements: BTreeMap<String, u64>,
    frames: BTreeMap<String, u64>,
    frames_left: BTreeMap<String, u64>,
    injection_errors: u64,
    lost_rounds: u64,
    /// Announcements of which some address did not leave the host, and others did.
    partial: u64,
    /// Announcements of NICs without a known address.
    rarp_only: u64,
    /// Announcements that left the host, after which no frame for the guest entered.
    unanswered: u64,
    /// Announcements whose departure cannot be seen.
    unseen: u64,
    stale: u64,
    /// First answers to the questions of an announcement.
    gateway_answers: BTreeMap<String, u64>,
    /// Gateways that did not answer the questions of an announcement.
    gateways_silent: u64,
    /// What became of migrations between peers.
    handovers: BTreeMap<String, u64>,
    /// Datagrams at the port of peers that had no effect.
    notices_refused: BTreeMap<String, u64>,
    membership_queries: u64,
    /// Requests to have a guest announce itself, by whether libvirt has done so.
    guest_requests: BTreeMap<String, u64>,
    /// By protocol: announcements after whose queries a report left the host.
    membership_reports: BTreeMap<String, u64>,
    readiness_wait: Histogram,
    first_frame_delay: Histogram,
    departure_delay: Histogram,
    reply_delay: Histogram,
    gateway_answer: Histogram,
}

impl Default for Metrics {
    /// Every label value exists from the start: Prometheus's `rate()` does not see the first count of a new series.
    fn default() -> Self {
        let zero = |word: &str| (word.to_owned(), 0);
        Metrics {
            events: Cause::EVENTS.iter().map(|cause| zero(cause.word())).collect(),
            announcements: Outcome::ALL.iter().map(|outcome| zero(outcome.word())).collect(),
            frames: Kind::ALL.iter().map(|kind| zero(kind.word())).collect(),
            frames_left: Kind::ALL.iter().map(|kind| zero(kind.word())).collect(),
            injection_errors: 0,
            lost_rounds: 0,
            partial: 0,
            rarp_only: 0,
            unanswered: 0,
            unseen: 0,
            stale: 0,
            gateway_answers: AnsweredBy::ALL.iter().map(|by| zero(by.word())).collect(),
            gateways_silent: 0,
            handovers: HandedOver::ALL.iter().map(|outcome| zero(outcome.word())).collect(),
            notices_refused: Refusal::ALL.iter().map(|refusal| zero(refusal.word())).collect(),
            membership_queries: 0,
            guest_requests: GUEST_REQUESTS.map(zero).into(),
            membership_reports: Protocol::ALL.iter().map(|protocol| zero(protocol.word())).collect(),
            readiness_wait: Histogram::default(),
            first_frame_delay: Histogram::default(),
            departure_delay: Histogram::default(),
            reply_delay: Histogram::default(),
            gateway_answer: Histogram::default(),
        }
    }
}

/// The number of times below each of [`BOUNDS`], and above the last.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
struct Histogram {
    buckets: [u64; BOUNDS.len() + 1],
    sum: f64,
}

/// The state at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Gauges {
    /// Announcements under way.
    pub in_progress: usize,
    /// libvirt is connected.
    pub libvirt: bool,
    /// OVSDB is connected.
    pub ovsdb: bool,
    /// When the daemon started, in seconds since 1970.
    #[serde(default)]
    pub start_time: u64,
    /// The last reload left the configuration as it was.
    #[serde(default)]
    pub reload_failed: bool,
    /// For how many seconds nothing is sent yet, because an operator has paused it; 0 otherwise.
    #[serde(default)]
    pub paused_seconds: u64,
}

impl Metrics {
    /// Counts an event that asked for announcements.
    pub fn event(&mut self, cause: Cause) {
        *self.events.entry(cause.word().into()).or_default() += 1;
    }

    /// Takes these counts of the frames that were sent, also by announcements that are under way.
    pub fn take_sent(&mut self, frames: &Tally) {
        self.frames = frames.by_kind().map(|(kind, count)| (kind.word().to_owned(), count)).collect();
    }

    /// Counts what became of a migration between peers.
    pub(crate) fn handed_over(&mut self, outcome: HandedOver) {
        *self.handovers.entry(outcome.word().into()).or_default() += 1;
    }

    /// Counts a datagram at the port of peers that has no effect.
    pub(crate) fn refused(&mut self, refusal: Refusal) {
        *self.notices_refused.entry(refusal.word().into()).or_default() += 1;
    }

    /// Counts an announcement that ended.
    pub fn ended(&mut self, report: &Report) {
        self.injection_errors += u64::from(report.send_errors);
        let evidence = &report.evidence;
        for (kind, count) in evidence.frames_left.iter().flat_map(Tally::by_kind) {
            *self.frames_left.entry(kind.word().into()).or_default() += count;
        }
        if report.cause == Cause::Handover {
            // The usual one follows, and decides whether the guest was announced.
            return;
        }
        *self.announcements.entry(report.outcome.word().into()).or_default() += 1;
        self.partial += u64::from(report.unheard().is_some());
        self.rarp_only += u64::from(report.outcome == Outcome::Announced && report.is_rarp_only());
        self.lost_rounds += u64::from(evidence.lost_rounds);
        self.unanswered += u64::from(report.is_unanswered());
        self.unseen += u64::from(evidence.unseen.is_some());
        self.stale += u64::from(evidence.stale.is_some());
        if let Some(by) = evidence.answered_by {
            *self.gateway_answers.entry(by.word().into()).or_default() += 1;
        }
        if let Some(announcement) = &evidence.guest_announcement {
            let [told, failed] = GUEST_REQUESTS;
            let result = if announcement.error.is_none() { told } else { failed };
            *self.guest_requests.entry(result.into()).or_default() += 1;
        }
        if let Some(multicast) = &evidence.multicast {
            self.membership_queries += u64::from(multicast.queries);
            for (protocol, _) in multicast.left_after_ms().into_iter().filter(|(_, at)| at.is_some()) {
                *self.membership_reports.entry(protocol.word().into()).or_default() += 1;
            }
        }
        if report.outcome == Outcome::Announced {
            self.gateways_silent += evidence.silent().len() as u64;
        }
        for (histogram, ms) in [
            (&mut self.readiness_wait, report.ready_after_ms),
            (&mut self.first_frame_delay, report.first_frame_after_ms),
            (&mut self.departure_delay, evidence.left_host_after_ms),
            (&mut self.reply_delay, evidence.returned_after_ms),
            (&mut self.gateway_answer, evidence.answered_after_ms),
        ] {
            ms.into_iter().for_each(|ms| histogram.add(ms / 1000.0));
        }
    }

    /// The text for Prometheus.
    pub fn text(&self, gauges: &Gauges, waiting: &[Waiting]) -> String {
        let mut text = Exposition::default();
        let version = label("version", env!("CARGO_PKG_VERSION"));
        text.family("build_info", "gauge", "The version.", [(version, 1.0)]);
        text.counters("events_total", "What asked for announcements.", "cause", &self.events);
        let ended = &self.announcements;
        text.counters("announcements_total", "Announcements that ended, a NIC each.", "outcome", ended);
        text.one("announcements_in_progress", "gauge", "Announcements under way.", gauges.in_progress as f64);
        let waits = waited_for().map(|kind| {
            let count = waiting.iter().filter(|waiting| waiting.condition == kind).count();
            (label("condition", kind), count as f64)
        });
        text.family("waiting", "gauge", "Announcements that wait, by what they wait for.", waits);
        text.counters("frames_sent_total", "Frames that were sent.", "kind", &self.frames);
        let left = &self.frames_left;
        text.counters("frames_left_total", "Frames that were seen to leave the host.", "kind", left);
        for (name, help, count) in self.totals() {
            text.one(name, "counter", help, count as f64);
        }
        let answers = &self.gateway_answers;
        text.counters("gateway_answers_total", "Announcements whose questions were answered.", "by", answers);
        let help = "VMs that stop for their migration, as the source tells and the destination hears.";
        text.counters("handovers_total", help, "outcome", &self.handovers);
        let help = "Datagrams at the port of peers that had no effect.";
        text.counters("handover_notices_refused_total", help, "reason", &self.notices_refused);
        let (name, reports) = ("membership_reports_total", &self.membership_reports);
        let help = "Announcements after whose queries the guest's membership reports left the host.";
        text.counters(name, help, "protocol", reports);
        let help = "Requests to libvirt to have a guest announce itself.";
        text.counters("guest_requests_total", help, "result", &self.guest_requests);
        gauges.write(&mut text);
        for (name, help, histogram) in self.histograms() {
            text.histogram(name, help, histogram);
        }
        text.0
    }

    /// The counters without a label: name, help, value.
    fn totals(&self) -> [(&'static str, &'static str, u64); 9] {
        [
            ("injection_errors_total", "Rounds that could not be injected.", self.injection_errors),
            ("rounds_lost_total", "Rounds of which no frame left the host.", self.lost_rounds),
            ("partial_total", "Announcements of which some address did not leave the host.", self.partial),
            ("rarp_only_total", "Announcements of NICs without a known address.", self.rarp_only),
            (
                "unanswered_total",
                "Announcements that left the host and brought no frame for the guest.",
                self.unanswered,
            ),
            ("unseen_total", "Announcements whose departure from the host cannot be seen.", self.unseen),
            (
                "stale_total",
                "Announcements after which the local bridge had not learned the VM behind its port.",
                self.stale,
            ),
            (
                "gateways_silent_total",
                "Gateways that an announcement asked and that did not answer.",
                self.gateways_silent,
            ),
            (
                "membership_queries_total",
                "How often guests were queried for their multicast groups.",
                self.membership_queries,
            ),
        ]
    }

    /// The times: name, help, buckets.
    fn histograms(&self) -> [(&'static str, &'static str, &Histogram); 5] {
        [
            ("readiness_wait_seconds", "From the event to the port's readiness.", &self.readiness_wait),
            ("first_frame_delay_seconds", "From the event to the first frame.", &self.first_frame_delay),
            (
                "departure_delay_seconds",
                "From the event to the first frame's departure from the host.",
                &self.departure_delay,
            ),
            (
                "reply_delay_seconds",
                "From the event to the first frame that came in for the guest.",
                &self.reply_delay,
            ),
            (
                "gateway_answer_seconds",
                "From the event to the first answer to a question.",
                &self.gateway_answer,
            ),
        ]
    }
}

impl Gauges {
    fn write(&self, text: &mut Exposition) {
        let started = "When the daemon started, in seconds since 1970.";
        text.one("start_time_seconds", "gauge", started, self.start_time as f64);
        let reloaded = "Whether the last reload of the configuration succeeded.";
        text.one("config_last_reload_successful", "gauge", reloaded, f64::from(!self.reload_failed));
        let paused = "For how long an operator has paused what is sent: the seconds left, or 0.";
        text.one("paused_seconds", "gauge", paused, self.paused_seconds as f64);
        let peers = [("libvirt", self.libvirt), ("ovsdb", self.ovsdb)];
        let peers = peers.map(|(peer, up)| (label("peer", peer), f64::from(up)));
        text.family("connected", "gauge", "Whether the peer is listened to.", peers);
    }
}

/// A label as the exposition format writes it: the snapshot may be another program's.
fn label(name: &str, value: &str) -> String {
    let value = value.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n");
    format!("{{{name}=\"{value}\"}}")
}

/// Families of samples in the exposition format. Each name goes without its prefix, `announced_`.
#[derive(Default)]
struct Exposition(String);

impl Exposition {
    fn family(
        &mut self,
        name: &str,
        kind: &str,
        help: &str,
        samples: impl IntoIterator<Item = (String, f64)>,
    ) {
        self.head(name, kind, help);
        for (labels, value) in samples {
            let _ = writeln!(self.0, "announced_{name}{labels} {value}");
        }
    }

    fn one(&mut self, name: &str, kind: &str, help: &str, value: f64) {
        self.family(name, kind, help, [(String::new(), value)]);
    }

    fn counters(&mut self, name: &str, help: &str, by: &str, counts: &BTreeMap<String, u64>) {
        let samples = counts.iter().map(|(value, count)| (label(by, value), *count as f64));
        self.family(name, "counter", help, samples);
    }

    fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) {
        self.head(name, "histogram", help);
        let mut total = 0;
        let bounds = BOUNDS.iter().map(f64::to_string).chain(["+Inf".to_owned()]);
        for (bound, count) in bounds.zip(histogram.buckets) {
            // The snapshot may be another program's.
            total = u64::saturating_add(total, count);
            let _ = writeln!(self.0, "announced_{name}_bucket{{le=\"{bound}\"}} {total}");
        }
        let sum = histogram.sum;
        let _ = writeln!(self.0, "announced_{name}_sum {sum}\nannounced_{name}_count {total}");
    }

    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.0, "# HELP announced_{name} {help}\n# TYPE announced_{name} {kind}");
    }
}

impl Histogram {
    fn add(&mut self, seconds: f64) {
        let bucket = BOUNDS.iter().position(|bound| seconds <= *bound).unwrap_or(BOUNDS.len());
        self.buckets[bucket] += 1;
        self.sum += seconds;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_of_another_program_stays_within_its_line() {
        let mut metrics = Metrics::default();
        metrics.events.insert("a\"} 1\n\\".into(), 7);
        let text = metrics.text(&Gauges::default(), &[]);
        let line = r#"announced_events_total{cause="a\"} 1\n\\"} 7"#;
        assert!(text.lines().any(|l| l == line), "{text}");
    }

    #[test]
    fn times_fall_into_cumulative_buckets() {
        let mut metrics = Metrics::default();
        metrics.first_frame_delay.add(0.002);
        metrics.first_frame_delay.add(100.0);
        let text = metrics.text(&Gauges::default(), &[]);
        for line in [
            "announced_first_frame_delay_seconds_bucket{le=\"0.001\"} 0",
            "announced_first_frame_delay_seconds_bucket{le=\"0.0025\"} 1",
            "announced_first_frame_delay_seconds_bucket{le=\"60\"} 1",
            "announced_first_frame_delay_seconds_bucket{le=\"+Inf\"} 2",
            "announced_first_frame_delay_seconds_count 2",
            "announced_connected{peer=\"libvirt\"} 0",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        }
    }
}
