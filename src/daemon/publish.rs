//! Publishes results and state: the log, the counters, the status, and systemd.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::time::Instant;

use super::board::{Board, Now};
use super::history::{self, History};
use super::systemd::Systemd;
use crate::announcement::injection::Method;
use crate::announcement::progress::Outcome;
use crate::guest::event::Cause;
use crate::guest::target::{Unannounceable, subject};
use crate::proof::answer::AnsweredBy;
use crate::report::handed_over::HandedOver;
use crate::report::page::Here;
use crate::report::snapshot::Daemon;
use crate::report::{Report, count};
use crate::run::signals::{Number, Signals};

/// The interval between log lines about a gateway that does not answer, and the number of gateways remembered for that.
const SILENCE_INTERVAL: Duration = Duration::from_secs(3600);
const MAX_SILENCES: usize = 1000;

/// Publishes events and results: to the log, the status, the metrics and systemd.
pub(super) struct Publisher {
    board: Arc<Board>,
    ready: bool,
    /// The state was sent to systemd.
    has_shown: bool,
    systemd: Systemd,
    silences: Silences,
    /// Why guests were not told to announce themselves, as it was logged last.
    not_told: Option<String>,
    /// What has ended, for the next daemon and `announce status`.
    history: Option<History>,
    /// That it cannot be written has been told.
    is_history_lost: bool,
}

/// The gateways about which a line was logged recently.
#[derive(Default)]
struct Silences(HashMap<IpAddr, Instant>);

impl Silences {
    /// Whether no line about this gateway was logged for [`SILENCE_INTERVAL`]; if so, one counts as logged now.
    fn is_due(&mut self, gateway: IpAddr, now: Instant) -> bool {
        self.0.retain(|_, told| now.duration_since(*told) < SILENCE_INTERVAL);
        let is_due = !self.0.contains_key(&gateway) && self.0.len() < MAX_SILENCES;
        if is_due {
            self.0.insert(gateway, now);
        }
        is_due
    }
}

impl Publisher {
    /// Nothing has happened yet; `board` is read by clients.
    pub(super) fn new(board: Arc<Board>) -> Self {
        Publisher {
            board,
            ready: false,
            has_shown: false,
            systemd: Systemd::new(),
            silences: Silences::default(),
            not_told: None,
            history: None,
            is_history_lost: false,
        }
    }

    /// A guest, by the number of its libvirt and its UUID, is here for the page, or no longer.
    pub(super) fn here(&self, guest: (usize, Arc<str>), here: Option<Here>) {
        self.board.here(guest, here);
    }

    /// The same, which keeps what has ended.
    pub(super) fn with_history(self, history: History) -> Self {
        Publisher { history: Some(history), ..self }
    }

    /// An event that asks for announcements.
    pub(super) fn event(&mut self, cause: Cause) {
        self.board.count(|metrics| metrics.event(cause));
    }

    /// What became of a migration between peers.
    pub(super) fn handed_over(&mut self, outcome: HandedOver) {
        self.board.count(|metrics| metrics.handed_over(outcome));
    }

    /// Logs, counts and keeps an announcement that ended.
    pub(super) fn finished(&mut self, report: &Report) {
        log(report);
        self.log_silent_gateways(report);
        self.log_not_told(report);
        self.board.count(|metrics| metrics.ended(report));
        let ended = history::ended(report);
        let kept = self.history.as_ref().map_or(Ok(()), |history| history.add(&ended));
        if let (Err(error), false) = (&kept, std::mem::replace(&mut self.is_history_lost, kept.is_err())) {
            tracing::warn!("cannot keep the history of announcements: {error}");
        }
        self.board.remember(ended);
    }

    /// Each gateway that has not answered, at most once an hour.
    fn log_silent_gateways(&mut self, report: &Report) {
        let silent = report.evidence.silent();
        for gateway in silent.into_iter().filter(|_| report.outcome == Outcome::Announced) {
            if self.silences.is_due(gateway, Instant::now()) {
                let (subject, device) = (report.subject(), report.device.as_deref());
                let domain = report.domain.as_ref().map(|domain| &*domain.name);
                let mac = report.mac.map(|mac| mac.to_string());
                let words = "was asked, and has not answered";
                tracing::info!(domain, vm = domain, device, mac, "{subject}: the gateway {gateway} {words}");
            }
        }
    }

    /// A guest was not told to announce itself: one line, until there is another reason.
    fn log_not_told(&mut self, report: &Report) {
        let announcement = report.evidence.guest_announcement.as_ref();
        let error = announcement.and_then(|announcement| announcement.error.as_ref());
        if let Some(why) = error.filter(|why| self.not_told.as_ref() != Some(why)) {
            tracing::warn!("VMs cannot be told to announce themselves ([libvirt] ask-guest): {why}");
            self.not_told = Some(why.clone());
        }
    }

    /// A NIC that the host cannot announce. Its arrival is no failure and needs no action.
    pub(super) fn cannot_speak_for(&self, nic: &Unannounceable) {
        let (domain, device) = (nic.domain.as_ref().map(|d| &*d.name), nic.device.as_deref());
        let mac = nic.mac.map(|mac| mac.to_string());
        let subject = subject(nic.domain.as_ref(), device, nic.mac);
        tracing::info!(domain, vm = domain, device, mac, "{subject}: not announced: {}", nic.reason);
    }

    /// An announcement is under way.
    pub(super) fn begun(&self, run: Number, signals: Signals) {
        self.board.begun(run, signals);
    }

    /// It is not any more.
    pub(super) fn over(&self, run: Number) {
        self.board.over(run);
    }

    /// How things stand.
    pub(super) fn show(&mut self, now: Now) {
        let (guests, under_way) = (now.guests, now.gauges.in_progress);
        let peers = now.peers.iter().filter(|peer| !peer.connected && !peer.absent);
        let lost: String = peers.map(|peer| format!("; {} NOT connected", peer.peer)).collect();
        let paused = now.paused.as_ref().map(|paused| format!("; PAUSED until {}", paused.until));
        let paused = paused.unwrap_or_default();
        let has_changed = self.board.show(now);
        if has_changed || !std::mem::replace(&mut self.has_shown, true) {
            let (guests, under_way) = (count(guests, "VM"), count(under_way, "announcement"));
            let words = format!("watching {guests}; {under_way} under way{lost}{paused}");
            self.systemd.mention(&NotifyState::Status(&words));
        }
    }

    /// Every peer was reached or found unreachable.
    pub(super) fn ready(&mut self) {
        if !std::mem::replace(&mut self.ready, true) {
            let _ = sd_notify::notify(&[NotifyState::Ready]);
        }
    }

    /// Whether [`Publisher::ready`] was called.
    pub(super) fn is_ready(&self) -> bool {
        self.ready
    }

    /// The daemon ends, and why.
    pub(super) fn ends(&self, why: &str) {
        tracing::info!("announced {} stops: {why}", env!("CARGO_PKG_VERSION"));
    }

    /// Changes what is shown of the daemon and its configuration.
    pub(super) fn describe(&self, change: impl FnOnce(&mut Daemon)) {
        self.board.describe(change);
    }

    /// Tells systemd that the daemon ends.
    pub(super) fn stopping(&self) {
        self.systemd.mention(&NotifyState::Stopping);
    }
}

/// One line for an announcement that ended, then its warnings and notices.
fn log(report: &Report) {
    let domain = report.domain.as_ref().map(|domain| &*domain.name);
    let (device, outcome, cause) = (report.device.as_deref(), report.outcome.word(), report.cause.word());
    let mac = report.mac.map(|mac| mac.to_string());
    let (line, evidence) = (report.line(), &report.evidence);
    let multicast = evidence.multicast.as_ref();
    macro_rules! log {
        ($level:ident) => {
            tracing::$level!(
                domain,
                vm = domain,
                device,
                mac,
                outcome,
                error_code = report.names.error_code,
                cause,
                event = cause,
                injector = report.injector.map(Method::word),
                runs_after_ms = report.runs_after_ms,
                source_stopped_after_ms = report.source_stopped_after_ms,
                plugged_after_ms = report.plugged_after_ms,
                tagged_after_ms = report.tagged_after_ms,
                ready_after_ms = report.ready_after_ms,
                first_frame_after_ms = report.first_frame_after_ms,
                left_host_after_ms = evidence.left_host_after_ms,
                learned_after_ms = evidence.learned_after_ms,
                returned_after_ms = evidence.returned_after_ms,
                last_returned_after_ms = evidence.last_returned_after_ms,
                answered_after_ms = evidence.answered_after_ms,
                answered_by = evidence.answered_by.map(AnsweredBy::word),
                answered_from = evidence.answered_from.map(|gateway| gateway.to_string()),
                guest_told_after_ms = evidence.guest_announcement.as_ref().and_then(|it| it.told_after_ms),
                membership_queries = multicast.map(|multicast| multicast.queries),
                igmp_left_after_ms = multicast.and_then(|multicast| multicast.igmp_left_after_ms),
                mld_left_after_ms = multicast.and_then(|multicast| multicast.mld_left_after_ms),
                last_hop = evidence.last_hop,
                lost_rounds = evidence.lost_rounds,
                rounds_lost = evidence.lost_rounds,
                departure_after_ms = evidence.left_host_after_ms,
                reply_after_ms = evidence.returned_after_ms,
                "{line}"
            )
        };
    }
    if report.is_a_failure() {
        log!(warn)
    } else {
        log!(info)
    }
    for warning in report.warnings() {
        tracing::warn!(domain, vm = domain, device, mac, "{}: {warning}", report.subject());
    }
    for notice in report.notices() {
        tracing::info!(domain, vm = domain, device, mac, "{}: {notice}", report.subject());
    }
}

/// Reports to systemd that the loop runs, as often as it requires.
pub(super) struct Watchdog {
    interval: Option<tokio::time::Interval>,
    systemd: Systemd,
}

impl Watchdog {
    /// As `$WATCHDOG_USEC` requires.
    pub(super) fn new() -> Self {
        let interval = sd_notify::watchdog_enabled().map(|every| tokio::time::interval(every / 2));
        Watchdog { interval, systemd: Systemd::new() }
    }

    /// Reports when due; never without a watchdog.
    pub(super) async fn due(&mut self) {
        match &mut self.interval {
            Some(interval) => {
                interval.tick().await;
                self.systemd.mention(&NotifyState::Watchdog);
            }
            None => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateways_silence_is_news_once_an_hour() {
        let mut silences = Silences::default();
        let (now, gateway) = (Instant::now(), |n: u16| IpAddr::from([10, 0, (n >> 8) as u8, n as u8]));
        let minutes = |n: u64| now + Duration::from_secs(60 * n);
        assert!(silences.is_due(gateway(1), now));
        assert!(!silences.is_due(gateway(1), minutes(59)), "not logged, and the interval is not extended");
        assert!(silences.is_due(gateway(2), minutes(59)));
        assert!(silences.is_due(gateway(1), minutes(60)));
        let told = (0..2000).filter(|n| silences.is_due(gateway(*n), minutes(61))).count();
        assert_eq!(told, MAX_SILENCES - 2);
    }
}
