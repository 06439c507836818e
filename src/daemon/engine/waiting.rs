//! The announcements that wait for their port to exist: a table, and no task for each of them.

use std::collections::{BTreeSet, HashMap};

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::Engine;
use crate::run::announcer;
use crate::run::signals::{Number, Signals};
use crate::run::waiting::Waiting;

/// So many are looked at before other things have their turn: a change of a bridge wakes thousands.
const MAX_LOOKS: usize = 32;

/// The announcements that wait.
pub(super) struct Waiters {
    all: HashMap<Number, Box<(Waiting, Instant)>>,
    /// When each is looked at without a change.
    due: BTreeSet<(Instant, Number)>,
    /// Those that something has changed for.
    woken: mpsc::UnboundedReceiver<Number>,
    to_woken: mpsc::UnboundedSender<Number>,
}

impl Waiters {
    /// None.
    pub(super) fn new() -> Waiters {
        let (to_woken, woken) = mpsc::unbounded_channel();
        Waiters { all: HashMap::new(), due: BTreeSet::new(), woken, to_woken }
    }

    /// Returns when one is to be looked at.
    pub(super) async fn next(&mut self) -> Number {
        let due = self.due.first().map(|(at, run)| (*at, *run));
        let is_due = async {
            match due {
                Some((at, run)) => {
                    tokio::time::sleep_until(at).await;
                    run
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Some(run) = self.woken.recv() => run,
            run = is_due => run,
        }
    }

    fn insert(&mut self, run: Number, waiting: Waiting, until: Instant) {
        self.due.insert((until, run));
        self.all.insert(run, Box::new((waiting, until)));
    }

    fn remove(&mut self, run: Number) -> Option<Waiting> {
        let (waiting, until) = *self.all.remove(&run)?;
        self.due.remove(&(until, run));
        Some(waiting)
    }
}

impl Engine {
    /// An announcement begins for an event at `began`.
    pub(super) fn begin(&mut self, run: Number, signals: Signals, began: Instant) {
        signals.queue(self.waiters.to_woken.clone(), run);
        let waiting = Waiting::new(&self.host, signals, began);
        self.look(run, waiting);
    }

    /// Looks at the host for this announcement, and for others that are woken.
    pub(super) fn look_again(&mut self, run: Number) {
        let mut next = Some(run);
        for looks in 1.. {
            let Some(run) = next else { return };
            if let Some(waiting) = self.waiters.remove(run) {
                self.look(run, waiting);
            }
            next = (looks < MAX_LOOKS).then(|| self.waiters.woken.try_recv().ok()).flatten();
        }
    }

    /// It waits on, or there is more to do for it, which is a task.
    fn look(&mut self, run: Number, mut waiting: Waiting) {
        if let Some(until) = waiting.look(&self.host) {
            return self.waiters.insert(run, waiting, until);
        }
        let host = self.host.clone();
        let task = self.tasks.spawn(async move { (run, announcer::carry_out(host, waiting).await) });
        if let Some(running) = self.running.get_mut(&run) {
            running.task = Some(task.id());
        }
    }
}
