//! The daemon's public state: written by its loop, read by the thread that serves it.

use std::collections::VecDeque;
use std::mem::replace;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::report::VERSION;
use crate::report::metrics::{Gauges, Metrics};
use crate::report::snapshot::{Ended, Snapshot};
use crate::run::waits::Waits;

/// The number of reports that `announce status` shows.
const MAX_REPORTS: usize = 50;

/// The daemon's present state. The loop writes only what changes; text is made when a client asks.
#[derive(Debug, Default)]
pub(crate) struct Board {
    shown: Mutex<Shown>,
    /// What announcements wait for.
    waits: Waits,
    /// The last status sent.
    text: Mutex<Text>,
}

#[derive(Debug, Default)]
struct Text {
    /// The changes that it includes: of the state, and of the waits.
    changes: (u64, u64),
    bytes: Arc<[u8]>,
}

#[derive(Debug, Clone, Default)]
struct Shown {
    /// Counts the changes from 1; 0 is a status without any.
    changes: u64,
    guests: usize,
    gauges: Gauges,
    in_progress: Vec<Arc<str>>,
    /// The last reports.
    recent: VecDeque<Arc<Ended>>,
    metrics: Metrics,
}

impl Board {
    /// Nothing has happened; `waits` is what announcements wait for.
    pub(super) fn new(waits: Waits) -> Board {
        Board { waits, ..Board::default() }
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

    /// Sets the present state; returns whether it is new.
    pub(super) fn show(&self, gauges: Gauges, guests: usize, in_progress: Vec<Arc<str>>) -> bool {
        let mut shown = lock(&self.shown);
        let is_new = (shown.guests, &shown.gauges, &shown.in_progress) != (guests, &gauges, &in_progress);
        if is_new {
            shown.changes += 1;
            (shown.guests, shown.gauges, shown.in_progress) = (guests, gauges, in_progress);
        }
        is_new
    }

    /// The status as JSON: made on request, and kept until the state changes.
    pub(super) fn status(&self) -> Arc<[u8]> {
        let mut text = lock(&self.text);
        let shown = lock(&self.shown).clone();
        let changes = (shown.changes + 1, self.waits.changes());
        if replace(&mut text.changes, changes) != changes {
            let snapshot = Snapshot { waiting: self.waits.now(), ..Snapshot::from(shown) };
            text.bytes = serde_json::to_vec(&snapshot).unwrap_or_default().into();
        }
        text.bytes.clone()
    }

    /// The metrics in Prometheus's format.
    pub(super) fn metrics(&self) -> String {
        let shown = lock(&self.shown);
        let (metrics, gauges) = (shown.metrics.clone(), shown.gauges);
        drop(shown);
        metrics.text(&gauges, &self.waits.now())
    }
}

impl From<Shown> for Snapshot {
    fn from(shown: Shown) -> Snapshot {
        Snapshot {
            version: VERSION,
            guests: shown.guests,
            gauges: shown.gauges,
            waiting: Vec::new(),
            in_progress: shown.in_progress.iter().map(|subject| subject.as_ref().to_owned()).collect(),
            recent: shown.recent.iter().map(|ended| Ended::clone(ended)).collect(),
            metrics: shown.metrics,
        }
    }
}

/// The locked data is consistent between any two statements, so a panic elsewhere has not broken it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use crate::guest::event::Cause;

    use super::*;

    fn read(board: &Board) -> Snapshot {
        serde_json::from_slice(&board.status()).unwrap()
    }

    #[test]
    fn the_status_is_made_once_per_change() {
        let board = Board::default();
        assert_eq!(read(&board).version, VERSION);
        assert!(Arc::ptr_eq(&board.status(), &board.status()));
        let before = board.status();
        board.count(|metrics| metrics.event(Cause::Migrated));
        assert!(!Arc::ptr_eq(&before, &board.status()));
        assert!(board.show(Gauges::default(), 1, vec!["web1 tap0".into()]));
        assert!(!board.show(Gauges::default(), 1, vec!["web1 tap0".into()]));
        assert_eq!((read(&board).guests, read(&board).in_progress), (1, vec!["web1 tap0".to_owned()]));
    }
}
