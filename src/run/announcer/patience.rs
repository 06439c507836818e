//! An announcement that waits: its unmet conditions, the warning after a while, and a new order.

use std::sync::Arc;
use std::time::Duration;

use super::Run;
use crate::announcement::failure::Failure;
use crate::announcement::frame::Kind;
use crate::announcement::machine::Overdue;
use crate::path::condition::Condition;
use crate::path::readiness::Assessment;
use crate::report::waiting::{DEPARTURE, INJECTOR};
use crate::run::host::Host;
use crate::run::order::Order;
use crate::run::routed;
use crate::run::signals::Signals;
use crate::run::stage::View;
use crate::run::waiting;

/// The least time between two questions why nothing leaves.
const EXPLAIN_INTERVAL: Duration = Duration::from_secs(10);

/// How often it is looked for a route to a guest that is on no bridge.
const ROUTES_PAUSE: Duration = Duration::from_millis(500);

impl Run {
    /// Shows how it stands, where that has changed.
    pub(super) fn show(&mut self, seen: &Assessment, to: &Signals) {
        let lacking =
            self.lacking.as_ref().filter(|_| self.lacks_a_way()).map(|lacking| lacking.why.as_str());
        let lost = self.lost_why.as_ref().map(|(why, _)| why.as_str());
        let error = self.machine.progress().error.as_deref();
        let condition = match seen.unmet.first() {
            Some(condition) => Some(condition.code()),
            None if lacking.is_some() => Some(INJECTOR),
            None => self.machine.is_lost().then_some(DEPARTURE),
        };
        let view = View {
            order: &self.order,
            seen,
            machine: &self.machine,
            condition,
            departure: self
                .observer
                .as_ref()
                .and_then(|o| Some(o.found.proof.departure()?.departure.clone())),
            why: error.or(lacking.filter(|why| !why.is_empty())).or(lost),
            began: self.began,
            now: self.now(),
        };
        self.shown.update(&view, to);
    }

    /// Finds out why nothing leaves, when that has lasted a second, and again now and then: until then a question to Open vSwitch
    /// would hold up the next try.
    pub(super) async fn explain_loss(&mut self, host: &Host, seen: &Assessment) {
        if !self.machine.is_sparing() {
            self.lost_why = None;
            return;
        }
        let now = self.now();
        let is_due = self.lost_why.as_ref().is_none_or(|(_, at)| now.saturating_sub(*at) >= EXPLAIN_INTERVAL);
        if let (true, Some(observer)) = (is_due, &mut self.observer) {
            let stuck = observer.evidence(host, seen, &self.order).await.stuck.join("; ");
            self.lost_why = Some((stuck, now));
        }
    }

    /// Asks for the guest's link while that is down.
    pub(super) fn ask_for_the_link(&mut self, seen: &Assessment) {
        let is_down = seen.unmet.contains(&Condition::GuestLinkDown);
        match (is_down, &self.link) {
            (true, None) => {
                let waited = self.now();
                self.link = self
                    .order
                    .settings
                    .link_query
                    .as_ref()
                    .map(|query| query.ask(self.order.target.clone(), waited));
            }
            (true, Some(_)) => {}
            (false, _) => self.link = None,
        }
    }

    /// Ends it where this host routes to the guest by its device: that is on no bridge, and will not be.
    pub(super) async fn look_for_routes(&mut self, host: &Host, seen: &Assessment) {
        let now = self.now();
        let is_due = self.routes_at.is_none_or(|at| now.saturating_sub(at) >= ROUTES_PAUSE);
        if !is_due || self.machine.has_ended() || routed::lone(seen).is_none() {
            return;
        }
        self.routes_at = Some(now);
        if let Some(why) = routed::by_host(host, &self.order, seen).await {
            self.machine.give_up(Failure::NoNetwork, why);
        }
    }

    pub(super) fn link_is(&mut self, up: Option<bool>) {
        self.link = None;
        if up == Some(true) {
            let order = Arc::make_mut(&mut self.order);
            Arc::make_mut(&mut order.target).link_up = true;
        }
    }

    /// Ends an early announcement on a port for which it is no gain.
    pub(super) fn leave_out(&mut self, seen: &Assessment) {
        if let Some(why) = self.order.why_not_early(seen) {
            self.machine.cancel(Some(Failure::NotEarly), why);
        }
    }

    /// Warns about a wait beyond `ports.wait`; the announcement continues.
    pub(super) async fn warn(&mut self, overdue: Overdue, host: &Host, seen: &Assessment) {
        match overdue {
            Overdue::NotReady => {
                waiting::warn_of_wait(&self.order, seen);
            }
            Overdue::NotLeft => {
                let evidence = match &mut self.observer {
                    Some(observer) => observer.evidence(host, seen, &self.order).await,
                    None => return,
                };
                let wait = self.order.settings.wait;
                let why = match evidence.stuck.join("; ") {
                    stuck if stuck.is_empty() => String::new(),
                    stuck => format!(": {stuck}"),
                };
                self.warn_of(&format!("nothing of it has left the host for {wait:?}{why}; still trying"));
            }
        }
    }

    pub(super) fn warn_of(&self, why: &str) {
        waiting::warn_of(&self.order, why);
    }

    /// Applies a new order. Once frames have left, they and their schedule stay.
    pub(super) fn follow(&mut self, order: Arc<Order>) {
        let now = self.now();
        let settings = &order.settings;
        self.machine.change(now, settings.schedule.clone(), settings.wait, settings.proof.more_rounds);
        if self.machine.progress().rounds > 0 {
            let (in_charge, untagged, wait) = (order.in_charge, order.untagged, settings.wait);
            let uplinks = settings.uplinks.clone();
            let order = Order { in_charge, untagged, ..(*self.order).clone() };
            self.order = Arc::new(order.with(|settings| (settings.wait, settings.uplinks) = (wait, uplinks)));
            return;
        }
        self.frames = order.round().into();
        self.order = order;
        // Every method is prepared anew, and the captures follow.
        (self.way, self.preparing, self.lacking, self.observer) = (None, None, None, None);
        self.offered.clear();
        self.must_have_frames();
    }

    pub(super) fn must_have_frames(&mut self) {
        if self.frames.is_empty() {
            let has_announcements =
                self.order.settings.style.send.iter().any(|kind| Kind::ANNOUNCEMENTS.contains(kind));
            let why = match has_announcements {
                true => "there is nothing to send: the NIC has no address for the kinds of --send",
                false => "there is nothing to send: questions go with announcements; add rarp to --send",
            };
            self.machine.give_up(Failure::NothingToSend, why.into());
        }
    }
}
