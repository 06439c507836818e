//! How an announcement stands.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::order::Order;
use super::wall_clock;
use crate::announcement::machine::Announcement;
use crate::path::condition::Condition;
use crate::path::owner::Owner;
use crate::path::readiness::Assessment;
use crate::proof::departure::Departure;
use crate::report::standing::Standing;
use crate::report::unmet::Unmet;

/// How an announcement stands, without the words: most are never read.
#[derive(Debug)]
pub(super) struct Stage {
    /// The host's end of the NIC, where it was found.
    device: Option<Box<str>>,
    owner: Owner,
    pub(super) unmet: Arc<[Condition]>,
    condition: Option<&'static str>,
    is_ready: bool,
    /// Since when what is unmet is the same.
    since: SystemTime,
    until: Option<SystemTime>,
    pub(super) rounds: u32,
    pub(super) lost: u32,
    pub(super) why: Option<Box<str>>,
}

/// An announcement at one moment.
pub(super) struct View<'a> {
    pub order: &'a Order,
    pub seen: &'a Assessment,
    pub machine: &'a Announcement,
    /// The kind of what it waits for.
    pub condition: Option<&'static str>,
    /// How the first frame left the host, if one was seen to.
    pub departure: Option<Departure>,
    /// Why rounds are lost or cannot be sent.
    pub why: Option<&'a str>,
    pub began: Instant,
    pub now: Duration,
}

impl Stage {
    /// What `view` makes of how it stood last, if that is anything new.
    pub(super) fn after(last: Option<&Stage>, view: &View<'_>) -> Option<Stage> {
        match last {
            Some(last) if last.is_of(view) => None,
            Some(last) if last.waits_as(view) => Some(Stage::of(view, Some(last.since))),
            _ => Some(Stage::of(view, None)),
        }
    }

    /// Of `view`, in which what is unmet has been the same since then, or since now.
    fn of(view: &View<'_>, since: Option<SystemTime>) -> Stage {
        let moment = |at: Duration| wall_clock::after(view.began, at);
        let progress = view.machine.progress();
        // Mostly they are the same, and thousands may wait.
        let is_noted = *progress.unmet == *view.seen.unmet;
        Stage {
            device: view.seen.attachment.as_ref().map(|attachment| attachment.entry.name.as_str().into()),
            owner: view.seen.in_charge.0,
            unmet: if is_noted { progress.unmet.clone() } else { view.seen.unmet.as_slice().into() },
            condition: view.condition,
            is_ready: view.machine.is_ready(),
            since: since.unwrap_or_else(|| moment(view.now)),
            until: view.machine.deadline().map(moment),
            rounds: progress.rounds,
            lost: progress.lost,
            why: view.why.map(Into::into),
        }
    }

    /// So many rounds have left, or this is waited for.
    #[cfg(test)]
    pub(super) fn at(condition: Option<&'static str>, rounds: u32) -> Stage {
        let (owner, unmet, since) = (Owner::Nobody, Arc::default(), SystemTime::UNIX_EPOCH);
        let (device, is_ready, until, lost, why) = (None, rounds > 0, None, 0, None);
        Stage { device, owner, unmet, condition, is_ready, since, until, rounds, lost, why }
    }

    fn is_of(&self, view: &View<'_>) -> bool {
        let progress = view.machine.progress();
        self.waits_as(view)
            && (self.rounds, self.lost, self.why.as_deref()) == (progress.rounds, progress.lost, view.why)
    }

    fn waits_as(&self, view: &View<'_>) -> bool {
        *self.unmet == *view.seen.unmet && self.is_ready == view.machine.is_ready()
    }

    /// In words.
    pub(super) fn standing(&self, order: &Order) -> Standing {
        Standing {
            device: self.device.as_deref().map(str::to_owned).or_else(|| order.target.plug.device.clone()),
            ready: self.is_ready,
            condition: self.condition.map(str::to_owned),
            unmet: Unmet::all(&self.unmet, &order.target, self.owner),
            since: Some(wall_clock::text(self.since)),
            until: self.until.map(wall_clock::text),
            round: self.rounds,
            rounds: order.settings.schedule.count,
            lost: self.lost,
            why: self.why.as_deref().map(str::to_owned),
        }
    }
}
