//! Prepares the injection methods of an announcement, and prepares them again after a failure.

use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use super::Run;
use crate::announcement::failure::Failure;
use crate::announcement::injection::{self, Method, Way};
use crate::host::injector::InjectorError;
use crate::path::readiness::Assessment;
use crate::run::host::Host;
use crate::run::lacking::{Lacking, Unsent};

/// Longer than any preparation, which has a time-out of its own.
const PREPARE_TIMEOUT: Duration = Duration::from_secs(60);

impl Run {
    /// Prepares a method for this look, and watches its path.
    pub(super) async fn prepare(&mut self, host: &Host, seen: &Arc<Assessment>) {
        if !self.is_prepared_for(seen) {
            self.prepare_way(host, seen).await;
            self.watch_path(self.way.as_ref().map(Way::method), host, seen);
            self.prepared_for = Some(seen.clone());
        }
    }

    /// Prepares a method as soon as the path is known, so that no work is left when the port is ready. Does not wait for a
    /// bridge.
    async fn prepare_way(&mut self, host: &Host, seen: &Assessment) {
        let ways = injection::ways(seen, self.order.settings.inject);
        if let (Some(method), true, true) = (self.order.settings.inject, seen.is_ready(), ways.is_empty()) {
            let others = injection::ways(seen, None);
            let others: Vec<&str> = others.iter().map(|way| way.method().word()).collect();
            let why = InjectorError::NoSuchWay(method);
            let why = format!("{why}; it takes {}", others.join(", "));
            return self.machine.give_up(Failure::Injector, why);
        }
        if self.order.settings.dry_run || self.frames.is_empty() {
            return;
        }
        let is_ready = self.machine.is_ready();
        let is_lacking = self.way.is_none() || self.lacking.is_some();
        let is_due = is_ready && self.preparing.is_none() && self.now() >= self.next_attempt();
        if ways != self.offered {
            self.offered.clone_from(&ways);
            self.way = None;
            self.watch_path(ways.first().map(Way::method), host, seen);
            self.start_preparing(host);
        } else if is_lacking && is_due {
            self.start_preparing(host);
        }
        // Mostly it is ready at once.
        let now = std::future::poll_fn(|context| {
            Poll::Ready(match &mut self.preparing {
                Some(preparing) => preparing.as_mut().poll(context),
                None => Poll::Pending,
            })
        });
        if let Poll::Ready(prepared) = now.await {
            self.prepared(prepared, is_ready);
        }
    }

    /// A method was prepared for this look, its path is watched, and no better one is being prepared.
    fn is_prepared_for(&self, seen: &Arc<Assessment>) -> bool {
        let is_same = self.prepared_for.as_ref().is_some_and(|last| Arc::ptr_eq(last, seen));
        is_same && self.way.is_some() && self.preparing.is_none() && self.lacking.is_none()
    }

    pub(super) fn start_preparing(&mut self, host: &Host) {
        let (injectors, ways, inject) =
            (host.injectors.clone(), self.offered.clone(), self.order.settings.inject);
        self.preparing = Some(Box::pin(async move { injectors.prepare(&ways, inject).await }));
    }

    pub(super) fn prepared(&mut self, prepared: Result<Way, InjectorError>, is_ready: bool) {
        self.preparing = None;
        let now = self.now();
        let rank = |way: &Way| self.offered.iter().position(|offered| offered == way);
        match (prepared, &self.way) {
            (Ok(way), Some(current)) if rank(&way) >= rank(current) => match &mut self.lacking {
                // The better method is tried again later.
                Some(lacking) if rank(current) > Some(0) => lacking.pause(now),
                lacking => *lacking = None,
            },
            (Ok(way), current) => {
                // Its path is another one.
                self.prepared_for = None;
                let was_held_up = current.is_none() && self.lacking.is_some();
                // Another one is best as soon as ovs-vswitchd answers.
                let better = self.offered.iter().take_while(|offered| **offered != way);
                let may_answer = better.map(Way::method).any(|method| method == Method::PacketOut);
                self.lacking = may_answer.then(|| Lacking::new(now));
                self.lacking.iter_mut().for_each(|lacking| lacking.pause(now));
                self.way = Some(way);
                if was_held_up {
                    self.machine.has_a_way_again(now);
                }
            }
            // A missing socket may still appear before the port is ready.
            (Err(_), None) if !is_ready => {}
            (Err(error), _) => self.lack(&error),
        }
    }

    /// No method works: preparation is repeated for as long as a port may take to become ready, if that can help.
    pub(super) fn lack(&mut self, error: &InjectorError) {
        let now = self.now();
        let lacking = self.lacking.get_or_insert_with(|| Lacking::new(now));
        let unsent = self.unsent.get_or_insert_with(|| Unsent::new(now));
        match self.way {
            Some(_) => lacking.pause(now),
            None => lacking.pause_without_any(now, unsent),
        }
        let why = error.to_string();
        if lacking.why != why {
            tracing::debug!(target: crate::log::WAITING, "{}: waiting: {why}", self.order.target.mac);
            lacking.why.clone_from(&why);
        }
        let is_late = now.saturating_sub(unsent.since) >= self.order.settings.wait;
        if !error.is_transient() || (is_late && !self.order.settings.endless) {
            self.machine.give_up(Failure::Injector, why);
        } else if is_late && !std::mem::replace(&mut unsent.is_warned_of, true) {
            self.warn_of(&format!("{why}; still trying"));
        }
    }

    pub(super) fn lacks_a_way(&self) -> bool {
        self.way.is_none() && !self.order.settings.dry_run
    }

    /// When the methods are tried next, unless the one in preparation reports earlier.
    pub(super) fn next_attempt(&self) -> Duration {
        match (&self.preparing, &self.lacking) {
            // The preparation has a time-out of its own.
            (Some(_), _) => self.now().saturating_add(PREPARE_TIMEOUT),
            (None, Some(lacking)) => lacking.retry_at,
            (None, None) => Duration::ZERO,
        }
    }
}
