//! An announcement whose port does not exist yet. Nothing can be prepared for it, and little of it is kept: thousands may wait.

use std::time::Duration;

use tokio::time::Instant;

use super::host::Host;
use super::interests::Interest;
use super::order::Order;
use super::showing::Shown;
use super::signals::Signals;
use super::stage::View;
use crate::announcement::machine::{Announcement, Step};
use crate::path::condition::Condition;
use crate::path::readiness::Assessment;
use crate::report::unmet::{self, Unmet};

/// All that is kept of it: the rest is made anew at each look.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(super) signals: Signals,
    pub(super) began: Instant,
    pub(super) interest: Interest,
    pub(super) shown: Shown,
    /// When the guest was first seen to run.
    runs_at: Option<Duration>,
    /// The operator was warned that it takes long.
    is_warned_of: bool,
}

impl Waiting {
    /// For an event at `began`.
    pub(crate) fn new(host: &Host, signals: Signals, began: Instant) -> Waiting {
        let interest = host.interests.begin(&signals.order().settings.uplinks, signals.woken_by_host());
        Waiting { signals, began, interest, shown: Shown::default(), runs_at: None, is_warned_of: false }
    }

    /// Looks at the host. Until this moment there is nothing to do but to wait for a change; `None`: there is.
    pub(crate) fn look(&mut self, host: &Host) -> Option<Instant> {
        let (direction, _) = (self.signals.take(), self.signals.take_host_change());
        let order = self.signals.order();
        let seen = order.look(host, direction.guest);
        self.interest.follow(&order.target, &seen);
        let is_possible = direction.stop.is_none() && host.links.has_changed().is_ok();
        if !is_possible || !may_wait(&order, &seen) {
            return None;
        }
        let now = self.began.elapsed();
        let mut machine = self.machine(&order);
        machine.observe(now, &seen);
        self.runs_at = machine.progress().runs_at;
        let condition = seen.unmet.first().map(Condition::code);
        let (departure, why, began) = (None, None, self.began);
        let view =
            View { order: &order, seen: &seen, machine: &machine, condition, departure, why, began, now };
        self.shown.update(&view, &self.signals);
        loop {
            match machine.step(now) {
                Step::WaitUntil(at) => return Some(began + at),
                Step::Warn(_) => {
                    warn_of_wait(&order, &seen);
                    self.is_warned_of = true;
                }
                Step::Send | Step::Done => return None,
            }
        }
    }

    /// Waits until then, or for a change.
    pub(super) async fn pause(&self, until: Instant) {
        tokio::select! {
            () = self.signals.woken() => {}
            () = tokio::time::sleep_until(until) => {}
        }
    }

    /// Its state machine, which has waited until now.
    pub(super) fn machine(&self, order: &Order) -> Announcement {
        let settings = &order.settings;
        Announcement::new(settings.schedule.clone(), settings.wait)
            .insisting(settings.proof.more_rounds)
            .endless(settings.endless)
            .having_waited(self.runs_at, self.is_warned_of)
    }
}

/// There is nothing that could be prepared, asked or sent.
fn may_wait(order: &Order, seen: &Assessment) -> bool {
    let is_asked_about =
        |unmet: &Condition| matches!(unmet, Condition::GuestLinkDown | Condition::NotPlugged { .. });
    let is_nowhere = seen.attachment.is_none() && !seen.has_left() && !seen.unmet.iter().any(is_asked_about);
    is_nowhere && !order.settings.early && !order.settings.dry_run && !order.round().is_empty()
}

/// Warns of a port that has not been ready for long.
pub(super) fn warn_of_wait(order: &Order, seen: &Assessment) {
    let why = unmet::words(&Unmet::all(&seen.unmet, &order.target, seen.in_charge.0));
    warn_of(order, &format!("{why}; still waiting after {:?}", order.settings.wait));
}

/// Warns of what keeps a NIC from being announced.
pub(super) fn warn_of(order: &Order, why: &str) {
    let target = &order.target;
    let domain = target.domain.as_ref().map(|domain| &*domain.name);
    let (device, mac) = (target.plug.device.as_deref(), target.mac.to_string());
    let subject = target.subject(target.plug.device.clone());
    tracing::warn!(domain, vm = domain, device, mac, "{subject}: not announced yet: {why}");
}
