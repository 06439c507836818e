//! The guests of this host: which are here, which must still be announced, and which announcements are under way.
//!
//! One ledger per libvirt. It takes events and returns actions for the daemon to carry out. Pending announcements outlive
//! the daemon: a guest that arrived paused is announced when it runs, and a burst that a restart of the daemon interrupts is
//! announced again.
//!
//! Time is a [`Duration`] since any fixed moment.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound::Included;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::guest::GuestState;
use crate::guest::event::{Cause, Change};
use crate::guest::target::Nic;

mod action;
mod guest;
pub mod handover;
mod kept;

pub use action::{Action, Ended};
use guest::{Begin, Guest, Life};
use handover::Word;
pub use kept::Kept;

/// libvirt's name for the state of a guest that may resume.
const PAUSED: GuestState = GuestState::Paused("paused");
/// libvirt's name for the state of a guest that is no longer here.
const LEFT: GuestState = GuestState::Left("shut off");

/// Every guest of a libvirt, by UUID.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Ledger {
    guests: BTreeMap<Arc<str>, Box<Guest>>,
    /// The number of the most recent reading or announcement.
    #[serde(skip)]
    last: u64,
    /// The guests of which the part that is kept for the next daemon has changed.
    #[serde(skip)]
    changed: BTreeSet<Arc<str>>,
    /// What the NICs of every guest are is kept in mind.
    #[serde(skip)]
    remembers: bool,
    /// The guests of which [`Ledger::here`] may have changed.
    #[serde(skip)]
    renewed: BTreeSet<Arc<str>>,
}

/// A guest that libvirt lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Present {
    /// Its UUID.
    pub uuid: String,
    /// Its name.
    pub name: String,
    /// libvirt's id.
    pub id: Option<u32>,
    /// It runs; otherwise it is paused.
    pub runs: bool,
    /// How it came to this host, if libvirt's reason for its state names that.
    pub cause: Option<Cause>,
}

impl Ledger {
    /// A guest changed at `at`. Only the causes in `announced` ask for announcements.
    pub fn change(
        &mut self,
        uuid: &str,
        id: Option<u32>,
        change: &Change,
        announced: &[Cause],
        at: Duration,
    ) -> Vec<Action> {
        let wanted = |cause: Cause| Some(cause).filter(|cause| announced.contains(cause));
        let mut actions = Vec::new();
        match change {
            Change::Arriving(cause) => self.arrive(uuid, id, wanted(*cause), PAUSED, &mut actions),
            Change::Booted => {
                self.arrive(uuid, id, wanted(Cause::Started), GuestState::Running, &mut actions)
            }
            // A guest whose arrival was not seen came while the connection was down. A known guest with nothing pending is
            // already announced: post-copy reports twice that the guest runs.
            Change::Runs(cause) if !self.knows(uuid) => {
                self.arrive(uuid, id, cause.and_then(wanted), GuestState::Running, &mut actions);
            }
            Change::Runs(_) => self.state(uuid, GuestState::Running, &mut actions),
            Change::Paused => self.state(uuid, PAUSED, &mut actions),
            Change::Stops => {
                self.state(uuid, PAUSED, &mut actions);
                if wanted(Cause::Kept).is_some() {
                    self.hand_over(uuid, &mut actions);
                }
            }
            Change::Left => self.leave(uuid, &mut actions),
            Change::Plugged(alias) => {
                if wanted(Cause::Plugged).is_some() {
                    self.plug(uuid, id, (Cause::Plugged, alias), at, &mut actions);
                }
            }
            Change::Touched(cause, nic) => {
                if wanted(*cause).is_some() && self.knows(uuid) {
                    self.plug(uuid, id, (*cause, nic), at, &mut actions);
                }
            }
        }
        self.go_on(uuid, at, &mut actions);
        actions
    }

    /// Compares with the guests that libvirt lists at `at`, after a connection was made.
    ///
    /// With `strangers`, unknown guests have arrived in the meantime. Without it, this is the first list, and unknown guests
    /// were here before the daemon started.
    pub fn reconcile(
        &mut self,
        present: &[Present],
        strangers: bool,
        announced: &[Cause],
        at: Duration,
    ) -> Vec<Action> {
        let mut actions = Vec::new();
        let here: BTreeSet<&str> = present.iter().map(|guest| &*guest.uuid).collect();
        let gone: Vec<Arc<str>> =
            self.guests.keys().filter(|uuid| !here.contains(&***uuid)).cloned().collect();
        gone.iter().for_each(|uuid| self.leave(uuid, &mut actions));
        for guest in present {
            let came = guest.cause.filter(|cause| strangers && announced.contains(cause));
            let state = if guest.runs { GuestState::Running } else { PAUSED };
            match self.guests.get_mut(&*guest.uuid) {
                Some(known) if known.is_of(guest.id) => {
                    if known.id != guest.id {
                        known.id = guest.id;
                        self.changed.insert(guest.uuid.as_str().into());
                    }
                    self.state(&guest.uuid, state, &mut actions);
                }
                // Any announcement still under way belongs to its previous life.
                _ => self.arrive(&guest.uuid, guest.id, came, state, &mut actions),
            }
            self.name(&guest.uuid, &guest.name);
            // One that the last daemon knew is new to this one.
            self.renewed.insert(guest.uuid.as_str().into());
            self.go_on(&guest.uuid, at, &mut actions);
        }
        actions
    }

    /// The guest is called so; returns the name as it is kept.
    pub fn name(&mut self, uuid: &str, name: &str) -> Arc<str> {
        let Some(guest) = self.guests.get_mut(uuid) else {
            return name.into();
        };
        match &guest.name {
            Some(known) if **known == *name => known.clone(),
            _ => {
                self.changed.insert(uuid.into());
                self.renewed.insert(uuid.into());
                guest.name.insert(name.into()).clone()
            }
        }
    }

    /// The name of a guest that is here, or its UUID while that is not known, and whether it runs.
    pub fn here<'a>(&'a self, uuid: &'a str) -> Option<(&'a str, bool)> {
        let guest = self.guests.get(uuid)?;
        Some((guest.name.as_deref().unwrap_or(uuid), guest.life.state == GuestState::Running))
    }

    /// The guests of which [`Ledger::here`] may have changed since the last call.
    pub fn take_renewed(&mut self) -> BTreeSet<Arc<str>> {
        std::mem::take(&mut self.renewed)
    }

    /// The result of the reading with this number at `at`; `None` if the guest could not be read. The next event of the
    /// guest reads it again.
    pub fn read(&mut self, uuid: &str, reading: u64, known: Option<Vec<Nic>>, at: Duration) -> Vec<Action> {
        let mut actions = Vec::new();
        let guest = self.guests.get_mut(uuid);
        if let Some(guest) = guest.filter(|guest| guest.life.reading == Some(reading)) {
            guest.life.reading = None;
            guest.life.is_unreadable = known.is_none();
            let known = known.map(Vec::into_boxed_slice);
            if self.remembers {
                guest.life.nics.clone_from(&known);
            }
            guest.life.known = known.filter(|_| guest.is_anything_owed());
            self.go_on(uuid, at, &mut actions);
        }
        actions
    }

    /// The announcement with this number ended at `at`.
    pub fn ended(&mut self, uuid: &str, run: u64, how: Ended, at: Duration) -> Vec<Action> {
        let mut actions = Vec::new();
        let Some(guest) = self.guests.get_mut(uuid) else {
            return actions;
        };
        let Some((nic, ended)) = guest.life.runs.take(run) else {
            // A newer announcement has replaced it.
            return actions;
        };
        match how {
            Ended::BrokenOff => {
                guest.life.has_begun &= !ended.of_all;
                return actions;
            }
            // It is announced when the guest resumes, which may already have happened.
            Ended::Paused => guest.life.has_begun &= !ended.of_all,
            Ended::Done => {
                guest.plugged.remove(&nic);
                guest.settle();
                self.changed.insert(uuid.into());
            }
        }
        self.go_on(uuid, at, &mut actions);
        actions
    }

    /// libvirt has not answered the reading with this number by `at`: a guest that runs is announced by what else is known of
    /// its NICs, once, until it can be read.
    pub fn unanswered(&mut self, uuid: &str, reading: u64, nics: Vec<Nic>, at: Duration) -> Vec<Action> {
        let mut actions = Vec::new();
        let is_it = |guest: &Guest| {
            let life = &guest.life;
            life.reading == Some(reading) && life.state == GuestState::Running && !life.is_provisional
        };
        if let Some((uuid, guest)) = entry(&mut self.guests, uuid).filter(|(_, guest)| is_it(guest)) {
            let mut begin = Begin { uuid, last: &mut self.last, actions: &mut actions };
            guest.announce_provisionally(nics.into(), at, &mut begin);
        }
        actions
    }

    /// Other sources of addresses count from `at` on: what was read of guests that arrive, or is being read, does not any more.
    pub fn read_again(&mut self, at: Duration) -> Vec<Action> {
        let mut actions = Vec::new();
        let is_read = |life: &Life| life.known.is_some() || life.reading.is_some() || life.nics.is_some();
        let read = self.guests.iter_mut().filter(|(_, guest)| is_read(&guest.life));
        let read: Vec<Arc<str>> = read
            .map(|(uuid, guest)| {
                (guest.life.known, guest.life.reading, guest.life.nics) = (None, None, None);
                uuid.clone()
            })
            .collect();
        read.iter().for_each(|uuid| self.go_on(uuid, at, &mut actions));
        actions
    }

    /// The guests that run.
    pub fn running(&self) -> impl Iterator<Item = &Arc<str>> {
        let run = self.guests.iter().filter(|(_, guest)| guest.life.state == GuestState::Running);
        run.map(|(uuid, _)| uuid)
    }

    /// An announcement is pending and can still be made.
    pub fn is_anything_pending(&self) -> bool {
        let is_pending = |guest: &Guest| {
            !guest.life.is_unreadable && (guest.pending.is_some() || !guest.plugged.is_empty())
        };
        self.guests.values().any(|guest| is_pending(guest))
    }

    /// The guest's state; one that is not known may run.
    pub fn state_of(&self, uuid: &str) -> GuestState {
        self.guests.get(uuid).map(|guest| guest.life.state).unwrap_or_default()
    }

    /// The guest is here.
    pub fn knows(&self, uuid: &str) -> bool {
        self.guests.contains_key(uuid)
    }

    /// The number of guests.
    pub(crate) fn len(&self) -> usize {
        self.guests.len()
    }

    /// A guest is here, perhaps in a new life; `pending` is why it must be announced.
    fn arrive(
        &mut self,
        uuid: &str,
        id: Option<u32>,
        pending: Option<Cause>,
        state: GuestState,
        actions: &mut Vec<Action>,
    ) {
        if let Some(known) = self.guests.get_mut(uuid).filter(|known| known.is_of(id)) {
            // The list, which is newer, named it already; or libvirt reports the boot after the resume. The event is exact. A
            // list's reason is not: while libvirt restores a guest, it is "paused, migration".
            if !known.life.has_begun && known.pending != pending {
                known.pending = pending;
                self.changed.insert(uuid.into());
            }
            return;
        }
        self.leave(uuid, actions);
        let life = Life { state, ..Life::default() };
        let uuid: Arc<str> = uuid.into();
        self.guests.insert(uuid.clone(), Box::new(Guest { id, pending, life, ..Guest::default() }));
        self.changed.insert(uuid.clone());
        self.renewed.insert(uuid.clone());
        actions.push(Action::State { uuid, state });
    }

    fn leave(&mut self, uuid: &str, actions: &mut Vec<Action>) {
        if let Some(guest) = self.guests.remove(uuid) {
            self.changed.insert(uuid.into());
            self.renewed.insert(uuid.into());
            actions.extend(guest.handed_over.then(|| Action::Tell { uuid: uuid.into(), word: Word::Left }));
            actions.push(Action::State { uuid: uuid.into(), state: LEFT });
        }
    }

    fn state(&mut self, uuid: &str, state: GuestState, actions: &mut Vec<Action>) {
        if let Some(guest) = self.guests.get_mut(uuid) {
            guest.life.is_unreadable = false;
            if std::mem::replace(&mut guest.life.state, state) != state {
                self.renewed.insert(uuid.into());
                actions.push(Action::State { uuid: uuid.into(), state });
            }
        }
        if state == GuestState::Running {
            self.runs_here(uuid, actions);
        }
    }

    /// A NIC must be announced, alone, and why.
    fn plug(
        &mut self,
        uuid: &str,
        id: Option<u32>,
        (cause, alias): (Cause, &str),
        at: Duration,
        actions: &mut Vec<Action>,
    ) {
        if !self.knows(uuid) {
            self.arrive(uuid, id, None, GuestState::Running, actions);
        }
        let Some(guest) = self.guests.get_mut(uuid) else {
            return;
        };
        let life = &mut guest.life;
        // An earlier reading lacks this NIC, or has the previous NIC of this alias.
        (life.known, life.reading, life.is_unreadable) = (None, None, false);
        actions.extend(life.runs.remove(alias).map(|run| Action::Supersede(run.number)));
        actions.push(Action::Event(cause));
        if guest.owed().is_some() {
            // It is announced with the other NICs.
            return;
        }
        guest.plugged.insert(alias, cause, at);
        self.changed.insert(uuid.into());
        guest.settle();
    }

    /// Starts what can be started for a guest at `now`.
    fn go_on(&mut self, uuid: &str, now: Duration, actions: &mut Vec<Action>) {
        self.go_on_early(uuid, now, actions);
        let remembers = self.remembers;
        let is_wanted = |guest: &Guest| guest.is_anything_owed() || (remembers && guest.life.nics.is_none());
        let Some((uuid, guest)) = entry(&mut self.guests, uuid).filter(|(_, guest)| is_wanted(guest)) else {
            return;
        };
        let runs = guest.life.state == GuestState::Running;
        if let (Some(cause), true, None) = (guest.owed(), runs, guest.life.runs_since) {
            guest.life.runs_since = Some(now);
            actions.push(Action::Event(cause));
        }
        if let Some(known) = guest.life.known.take_if(|_| runs) {
            guest.announce(known, now, &mut Begin { uuid, last: &mut self.last, actions });
            self.changed.insert(uuid.clone());
        } else if guest.life.wants_reading() {
            self.last += 1;
            guest.life.reading = Some(self.last);
            actions.push(Action::Read { uuid: uuid.clone(), reading: self.last });
        }
    }
}

/// A guest, and its UUID as it is kept.
fn entry<'a>(
    guests: &'a mut BTreeMap<Arc<str>, Box<Guest>>,
    uuid: &str,
) -> Option<(&'a Arc<str>, &'a mut Guest)> {
    let (uuid, guest) = guests.range_mut::<str, _>((Included(uuid), Included(uuid))).next()?;
    Some((uuid, guest))
}

#[cfg(test)]
pub(super) mod tests;
