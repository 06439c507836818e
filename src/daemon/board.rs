//! The daemon's public state: written by its loop, read by the thread that serves it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::ser::{Serialize, Serializer};

use crate::report::VERSION;
use crate::report::metrics::{Gauges, Metrics};
use crate::report::page::{self, Here};
use crate::report::snapshot::{Daemon, Ended, Paused, Peer, Snapshot};
use crate::report::standing::UnderWay;
use crate::report::waiting::Waiting;
use crate::run::sent_frames::SentFrames;
use crate::run::signals::{Number, Signals};

/// The number of reports that `announce status` shows.
const MAX_REPORTS: usize = 50;
/// The longest text that is kept for the next client, in bytes.
const MAX_KEPT: usize = 256 * 1024;
/// How long the status may lag behind how announcements stand: each of hundreds changes several times a second.
const STANDING_PAUSE: Duration = Duration::from_millis(10);

/// The daemon's present state. The loop writes only what changes; text is made when a client asks.
#[derive(Debug, Default)]
pub(crate) struct Board {
    shown: Mutex<Shown>,
    text: Mutex<Text>,
    /// The guests, where a page shows them: each by the number of its libvirt and its UUID.
    here: Mutex<BTreeMap<(usize, Arc<str>), Here>>,
    sent: SentFrames,
}

/// The status as it was sent last.
#[derive(Debug, Default)]
struct Text {
    json: Arc<[u8]>,
    /// Of which change; 0 for none.
    change: u64,
    made_at: Option<Instant>,
}

impl Text {
    /// Whether an announcement stands otherwise than the text says, which is looked at once per [`STANDING_PAUSE`].
    fn is_outdated(&self, entries: &Mutex<Shown>, now: Instant) -> bool {
        let is_young = self.made_at.is_some_and(|at| now.saturating_duration_since(at) < STANDING_PAUSE);
        !is_young && lock(entries).entries.values().any(Signals::is_unread)
    }
}

#[derive(Debug, Clone, Default)]
struct Shown {
    /// Counts the changes from 1; 0 is a status without any.
    changes: u64,
    now: Now,
    /// What is being announced.
    entries: BTreeMap<Number, Signals>,
    daemon: Daemon,
    /// The last reports.
    recent: VecDeque<Arc<Ended>>,
    metrics: Metrics,
}

/// What is true at one moment.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Now {
    /// How many guests are here.
    pub guests: usize,
    /// For the metrics.
    pub gauges: Gauges,
    /// libvirt and OVSDB.
    pub peers: Vec<Peer>,
    /// An operator's pause.
    pub paused: Option<Paused>,
}

impl Board {
    /// A board without any news yet, with the counts of the frames that are sent.
    pub(super) fn of(sent: SentFrames) -> Board {
        Board { sent, ..Board::default() }
    }

    /// Changes a counter.
    pub(super) fn count(&self, count: impl FnOnce(&mut Metrics)) {
        let mut shown = lock(&self.shown);
        shown.changes += 1;
        count(&mut shown.metrics);
    }

    /// Records an announcement that has ended.
    pub(super) fn remember(&self, ended: Ended) {
        let mut shown = lock(&self.shown);
        shown.changes += 1;
        shown.recent.push_back(Arc::new(ended));
        if shown.recent.len() > MAX_REPORTS {
            shown.recent.pop_front();
        }
    }

    /// Shows what is true now; returns whether that is new.
    pub(super) fn show(&self, now: Now) -> bool {
        let mut shown = lock(&self.shown);
        let is_new = shown.now != now;
        if is_new {
            shown.changes += 1;
            shown.now = now;
        }
        is_new
    }

    /// A guest is here, or no longer.
    pub(super) fn here(&self, guest: (usize, Arc<str>), here: Option<Here>) {
        let mut all = lock(&self.here);
        match here {
            Some(here) => drop(all.insert(guest, here)),
            None => drop(all.remove(&guest)),
        }
    }

    /// An announcement is under way.
    pub(super) fn begun(&self, run: Number, signals: Signals) {
        let mut shown = lock(&self.shown);
        shown.changes += 1;
        shown.entries.insert(run, signals);
    }

    /// It is not any more.
    pub(super) fn over(&self, run: Number) {
        let mut shown = lock(&self.shown);
        shown.changes += u64::from(shown.entries.remove(&run).is_some());
    }

    /// Changes what is shown of the daemon and its configuration.
    pub(super) fn describe(&self, change: impl FnOnce(&mut Daemon)) {
        let mut shown = lock(&self.shown);
        shown.changes += 1;
        change(&mut shown.daemon);
    }

    /// The status as JSON at `now`: made when it is asked for, and kept until something changes. How announcements stand changes all
    /// the time, and is up to [`STANDING_PAUSE`] old.
    pub(super) fn status(&self, now: Instant) -> Arc<[u8]> {
        let mut text = lock(&self.text);
        let change = lock(&self.shown).changes + 1;
        if text.change == change && !text.is_outdated(&self.shown, now) {
            return text.json.clone();
        }
        // The loop does not wait until it is written.
        let shown = self.shown();
        let change = shown.changes + 1;
        shown.entries.values().for_each(Signals::has_been_read);
        let json = serde_json::to_vec(&shown).unwrap_or_default().into();
        let made = Text { json, change, made_at: Some(now) };
        let json = made.json.clone();
        // That of thousands is megabytes, which are not kept for a client that may never come.
        *text = if json.len() <= MAX_KEPT { made } else { Text::default() };
        json
    }

    /// The page of the host with this name, at `now` (RFC 3339).
    pub(super) fn page(&self, host: &str, now: &str) -> String {
        let mut here: Vec<Here> = lock(&self.here).values().cloned().collect();
        here.sort();
        let told: Snapshot = serde_json::from_slice(&self.status(Instant::now())).unwrap_or_default();
        page::draw(host, now, &told, &here)
    }

    /// The metrics in Prometheus's format.
    pub(super) fn metrics(&self) -> String {
        let shown = self.shown();
        shown.metrics.text(&shown.gauges(), &waiting(&shown.entries).collect::<Vec<_>>())
    }

    /// What is shown now. Frames are counted where they are sent.
    fn shown(&self) -> Shown {
        let mut shown = lock(&self.shown).clone();
        shown.metrics.take_sent(&self.sent.so_far());
        shown
    }
}

/// Those that wait, and what for.
fn waiting(entries: &BTreeMap<Number, Signals>) -> impl Iterator<Item = Waiting> {
    let of = |signals: &Signals| {
        let UnderWay { vm, mac, standing, .. } = signals.under_way();
        let (condition, reason) = (standing.condition.clone()?, standing.reason());
        Some(Waiting {
            subject: signals.subject(),
            code: condition.clone(),
            condition,
            text: reason.clone(),
            reason,
            vm,
            device: standing.device,
            mac: Some(mac),
        })
    };
    entries.values().filter_map(of)
}

impl Shown {
    /// Those of the loop, and those that are known here.
    fn gauges(&self) -> Gauges {
        let started: Option<jiff::Timestamp> = self.daemon.started_at.parse().ok();
        Gauges {
            in_progress: self.entries.len(),
            start_time: started.map_or(0, |at| u64::try_from(at.as_second()).unwrap_or_default()),
            reload_failed: self.daemon.config_error.is_some(),
            paused_seconds: self.now.paused.as_ref().map_or(0, |paused| paused.left().as_secs()),
            ..self.now.gauges
        }
    }
}

/// A [`Snapshot`] of which each announcement's part is made when it is written: there may be thousands.
impl Serialize for Shown {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let entries = || self.entries.values();
        let snapshot = Snapshot {
            version: VERSION,
            guests: self.now.guests,
            vms: self.now.guests,
            gauges: self.gauges(),
            in_progress: Each(|| entries().map(Signals::subject)),
            waiting: Each(|| waiting(&self.entries)),
            announcements: Each(|| entries().map(Signals::under_way)),
            peers: self.now.peers.clone(),
            paused: self.now.paused.clone(),
            daemon: self.daemon.clone(),
            recent: Each(|| self.recent.iter().map(|ended| &**ended)),
            earlier: Vec::new(),
            metrics: self.metrics.clone(),
        };
        snapshot.serialize(serializer)
    }
}

/// A list of what the function yields.
struct Each<F>(F);

impl<I: Iterator<Item: Serialize>, F: Fn() -> I> Serialize for Each<F> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq((self.0)())
    }
}

/// The locked data is consistent between any two statements, so a panic elsewhere has not broken it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use pnet_base::MacAddr;

    use super::*;
    use crate::announcement::frame;
    use crate::config::Config;
    use crate::guest::GuestState;
    use crate::guest::event::Cause;
    use crate::guest::target::{Plug, Target};
    use crate::run::order::Order;

    fn read(board: &Board) -> Snapshot {
        serde_json::from_slice(&board.status(Instant::now())).unwrap()
    }

    fn signals(device: &str) -> Signals {
        let plug = Plug { device: Some(device.into()), ..Plug::default() };
        let target = Target::of_device(plug, MacAddr(2, 0, 0, 0, 0, 1));
        let order = Order::new(target, &Config::default(), &[], None);
        Signals::new(Arc::new(order), GuestState::Running, tokio::time::Instant::now())
    }

    #[test]
    fn what_is_written_is_what_is_read_key_by_key() {
        let board = Board::default();
        let waits = signals("tap0");
        waits.stands(Some("tag"), 0);
        board.begun(Number::new(0, 1), waits);
        board.count(|metrics| metrics.event(Cause::Migrated));
        let told = read(&board);
        assert_eq!((told.in_progress.len(), told.waiting.len(), told.announcements.len()), (1, 1, 1));
        assert_eq!(told.gauges.in_progress, 1);
        let text = String::from_utf8(board.status(Instant::now()).to_vec()).unwrap();
        assert_eq!(serde_json::to_string(&told).unwrap(), text);
    }

    #[test]
    fn the_status_is_made_once_per_change() {
        let (board, at) = (Board::default(), Instant::now());
        let status = || board.status(at);
        assert_eq!(read(&board).version, VERSION);
        assert!(Arc::ptr_eq(&status(), &status()));
        let before = status();
        board.count(|metrics| metrics.event(Cause::Migrated));
        assert!(!Arc::ptr_eq(&before, &status()));
        let now = Now { guests: 1, ..Now::default() };
        assert!(board.show(now.clone()));
        assert!(!board.show(now));
        assert_eq!(read(&board).guests, 1);
    }

    #[test]
    fn the_page_names_the_guests_that_are_here_in_the_order_of_their_names() {
        let board = Board::default();
        let here = |name: &str, runs| Some(Here { name: name.into(), runs });
        board.here((0, "u".into()), here("web2", true));
        board.here((0, "v".into()), here("db1", true));
        board.here((1, "u".into()), here("web1", false));
        board.here((0, "v".into()), None);
        let page = board.page("host1", "");
        let of = |name: &str| page.find(name);
        assert!(page.contains("2 VMs here") && of("db1").is_none());
        assert!(of("web1 (paused)").unwrap() < of("web2").unwrap());
    }

    #[test]
    fn frames_count_as_they_are_sent_and_not_when_the_announcement_ends() {
        let sent = SentFrames::default();
        let board = Board::of(sent.clone());
        let counted = || {
            let text = board.metrics();
            text.lines()
                .find_map(|line| line.strip_prefix("announced_frames_sent_total{kind=\"rarp\"} "))
                .map(str::to_owned)
        };
        assert_eq!(counted().as_deref(), Some("0"));
        sent.add(&frame::round(MacAddr(2, 0, 0, 0, 0, 1), &[], &frame::Style::default()));
        assert_eq!(counted().as_deref(), Some("1"));
    }

    #[test]
    fn what_is_under_way_is_shown_as_it_stands_ten_milliseconds_later_at_most() {
        let (board, signals) = (Board::default(), signals("tap0"));
        board.begun(Number::new(0, 1), signals.clone());
        let began = Instant::now();
        let round = |ms: u64| {
            let status = board.status(began + Duration::from_millis(ms));
            let status: Snapshot = serde_json::from_slice(&status).unwrap();
            (status.in_progress.concat(), status.announcements[0].standing.round)
        };
        assert_eq!(round(0), ("tap0 02:00:00:00:00:01".into(), 0));
        signals.stands(None, 3);
        assert_eq!((round(9).1, round(10).1), (0, 3));
        let at = |ms: u64| board.status(began + Duration::from_millis(ms));
        assert!(Arc::ptr_eq(&at(10), &at(10_000)), "nothing has changed since");
        let before = at(10_000);
        signals.stands(None, 4);
        board.count(|metrics| metrics.event(Cause::Migrated));
        assert!(!Arc::ptr_eq(&before, &at(10_000)), "another change shows at once");
        assert_eq!(round(10_000).1, 4);
    }
}
