//! The guests of this host: which are here, which must still be announced, and what is under way for them.
//!
//! One machine per libvirt. It is told what happens, and returns what to do; the daemon carries that out. What must still be
//! announced outlives the daemon: a guest that arrived paused is announced when it runs at last, and one that was in mid-burst
//! when the daemon died is announced by the next one.
//!
//! Time is a [`Duration`] since any moment that stays the same.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::guest::GuestState;
use crate::guest::event::{Cause, Change};
use crate::guest::target::{Nic, Target, Unannounceable};

mod guest;

use guest::{Guest, Life, Run};

/// libvirt's word for a guest that may go on.
const PAUSED: GuestState = GuestState::Paused("paused");
/// libvirt's word for a guest that is not here any more.
const LEFT: GuestState = GuestState::Left("shut off");

/// Every guest of a libvirt, by UUID.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Ledger {
    guests: BTreeMap<String, Guest>,
    /// The number of the last reading or announcement.
    #[serde(skip)]
    last: u64,
    /// What is kept for the next daemon has changed.
    #[serde(skip)]
    changed: bool,
}

/// A guest that libvirt lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Present {
    /// Its UUID.
    pub uuid: String,
    /// Its name.
    pub name: String,
    /// libvirt's id.
    pub id: Option<u32>,
    /// It runs; otherwise it is paused.
    pub runs: bool,
    /// How it came to be here, as far as libvirt's reason for its state tells.
    pub cause: Option<Cause>,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Action {
    /// Tell the announcements of a guest what it does; after [`GuestState::Left`], forget it.
    State {
        /// The guest.
        uuid: String,
        /// What it does.
        state: GuestState,
    },
    /// Read what is known of a guest, and tell by [`Ledger::read`].
    Read {
        /// The guest.
        uuid: String,
        /// The number to tell.
        reading: u64,
    },
    /// Something asked for announcements.
    Event(Cause),
    /// Announce a NIC, and tell by [`Ledger::ended`].
    Announce {
        /// The guest.
        uuid: String,
        /// The number to tell.
        run: u64,
        /// The NIC.
        target: Box<Target>,
        /// Why.
        cause: Cause,
        /// When the guest came to run, or the NIC was plugged.
        at: Duration,
    },
    /// End an announcement: another one takes its place.
    Supersede(u64),
    /// A NIC for which no host can speak.
    CannotSpeakFor(Unannounceable),
}

/// How an announcement ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// It is done, or cannot be done.
    Done,
    /// The guest was paused in the middle of it.
    Paused,
    /// It broke off: it is tried again when something is heard of the guest, or by the next daemon.
    BrokenOff,
}

impl Ledger {
    /// Something happened to a guest at `at`; only the causes in `announced` ask for announcements.
    pub(crate) fn change(
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
            // A guest that was not seen arriving came while there was no connection. One that was, and is not pending any more, has been
            // announced: post-copy says a second time that the guest runs.
            Change::Runs(cause) if !self.knows(uuid) => {
                self.arrive(uuid, id, cause.and_then(wanted), GuestState::Running, &mut actions);
            }
            Change::Runs(_) => self.state(uuid, GuestState::Running, &mut actions),
            Change::Paused => self.state(uuid, PAUSED, &mut actions),
            Change::Left => self.leave(uuid, &mut actions),
            Change::Plugged(alias) => {
                if wanted(Cause::Plugged).is_some() {
                    self.plug(uuid, id, alias, at, &mut actions);
                }
            }
        }
        self.go_on(uuid, at, &mut actions);
        actions
    }

    /// Compares with the guests that libvirt lists at `at`, after a time in which nothing was heard.
    ///
    /// With `strangers`, guests that are not known have arrived meanwhile; without, this is the first list of all, and
    /// they were here before.
    pub(crate) fn reconcile(
        &mut self,
        present: &[Present],
        strangers: bool,
        announced: &[Cause],
        at: Duration,
    ) -> Vec<Action> {
        let mut actions = Vec::new();
        let here: BTreeSet<&String> = present.iter().map(|guest| &guest.uuid).collect();
        let gone: Vec<String> = self.guests.keys().filter(|uuid| !here.contains(uuid)).cloned().collect();
        gone.iter().for_each(|uuid| self.leave(uuid, &mut actions));
        for guest in present {
            let came = guest.cause.filter(|cause| strangers && announced.contains(cause));
            let state = if guest.runs { GuestState::Running } else { PAUSED };
            match self.guests.get_mut(&guest.uuid) {
                Some(known) if known.is_of(guest.id) => {
                    self.changed |= known.id != guest.id;
                    known.id = guest.id;
                    self.state(&guest.uuid, state, &mut actions);
                }
                // Whatever is still under way was for its last life.
                _ => self.arrive(&guest.uuid, guest.id, came, state, &mut actions),
            }
            self.go_on(&guest.uuid, at, &mut actions);
        }
        actions
    }

    /// What the reading with this number found at `at`; `None` if the guest could not be read, which is tried again when
    /// something is heard of it.
    pub(crate) fn read(
        &mut self,
        uuid: &str,
        reading: u64,
        known: Option<Vec<Nic>>,
        at: Duration,
    ) -> Vec<Action> {
        let mut actions = Vec::new();
        let guest = self.guests.get_mut(uuid);
        if let Some(guest) = guest.filter(|guest| guest.life.reading == Some(reading)) {
            guest.life.reading = None;
            guest.life.is_unreadable = known.is_none();
            guest.life.known = known;
            self.go_on(uuid, at, &mut actions);
        }
        actions
    }

    /// The announcement with this number has ended at `at`.
    pub(crate) fn ended(&mut self, uuid: &str, run: u64, how: Ended, at: Duration) -> Vec<Action> {
        let mut actions = Vec::new();
        let Some(guest) = self.guests.get_mut(uuid) else {
            return actions;
        };
        let is_it = |(nic, it): (&String, &Run)| (it.number == run).then(|| (nic.clone(), *it));
        let Some((nic, ended)) = guest.life.runs.iter().find_map(is_it) else {
            // Another one has taken its place.
            return actions;
        };
        guest.life.runs.remove(&nic);
        match how {
            Ended::BrokenOff => {
                guest.life.has_begun &= !ended.of_all;
                return actions;
            }
            // It is announced when it goes on, which it may have done meanwhile.
            Ended::Paused => guest.life.has_begun &= !ended.of_all,
            Ended::Done => {
                guest.plugged.remove(&nic);
                guest.settle();
                self.changed = true;
            }
        }
        self.go_on(uuid, at, &mut actions);
        actions
    }

    /// Something must still be announced, and may yet be.
    pub(crate) fn is_anything_pending(&self) -> bool {
        let is_pending = |guest: &Guest| {
            !guest.life.is_unreadable && (guest.pending.is_some() || !guest.plugged.is_empty())
        };
        self.guests.values().any(is_pending)
    }

    /// The guest is here.
    pub(crate) fn knows(&self, uuid: &str) -> bool {
        self.guests.contains_key(uuid)
    }

    /// How many guests there are.
    pub(crate) fn len(&self) -> usize {
        self.guests.len()
    }

    /// Whether what is kept for the next daemon has changed since this was asked last.
    pub(crate) fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// A guest is here, or another life of one: `pending` is why it must be announced.
    fn arrive(
        &mut self,
        uuid: &str,
        id: Option<u32>,
        pending: Option<Cause>,
        state: GuestState,
        actions: &mut Vec<Action>,
    ) {
        if let Some(known) = self.guests.get_mut(uuid).filter(|known| known.is_of(id)) {
            // It was on the list already, which is newer: or else it is said to be booted after it is said to run.
            self.changed |= known.pending.is_none() && pending.is_some();
            known.pending = known.pending.or(pending);
            return;
        }
        self.leave(uuid, actions);
        let life = Life { state, ..Life::default() };
        self.guests.insert(uuid.into(), Guest { id, pending, life, plugged: BTreeSet::new() });
        self.changed = true;
        actions.push(Action::State { uuid: uuid.into(), state });
    }

    fn leave(&mut self, uuid: &str, actions: &mut Vec<Action>) {
        if self.guests.remove(uuid).is_some() {
            self.changed = true;
            actions.push(Action::State { uuid: uuid.into(), state: LEFT });
        }
    }

    fn state(&mut self, uuid: &str, state: GuestState, actions: &mut Vec<Action>) {
        if let Some(guest) = self.guests.get_mut(uuid) {
            guest.life.is_unreadable = false;
            if std::mem::replace(&mut guest.life.state, state) != state {
                actions.push(Action::State { uuid: uuid.into(), state });
            }
        }
    }

    fn plug(&mut self, uuid: &str, id: Option<u32>, alias: &str, at: Duration, actions: &mut Vec<Action>) {
        if !self.knows(uuid) {
            self.arrive(uuid, id, None, GuestState::Running, actions);
        }
        let Some(guest) = self.guests.get_mut(uuid) else {
            return;
        };
        let life = &mut guest.life;
        // Whatever was read before lacks this NIC, or has the one that had its place.
        (life.known, life.reading, life.is_unreadable) = (None, None, false);
        actions.extend(life.runs.remove(alias).map(|run| Action::Supersede(run.number)));
        actions.push(Action::Event(Cause::Plugged));
        if guest.owed().is_some() {
            // It is announced with all the others.
            return;
        }
        guest.plugged.insert(alias.into());
        self.changed = true;
        guest.life.plugged_at.insert(alias.into(), at);
        guest.settle();
    }

    /// Does what can be done for a guest at `now`.
    fn go_on(&mut self, uuid: &str, now: Duration, actions: &mut Vec<Action>) {
        let Some(guest) = self.guests.get_mut(uuid).filter(|guest| guest.is_anything_owed()) else {
            return;
        };
        let runs = guest.life.state == GuestState::Running;
        if let (Some(cause), true, None) = (guest.owed(), runs, guest.life.runs_since) {
            guest.life.runs_since = Some(now);
            actions.push(Action::Event(cause));
        }
        if let Some(known) = guest.life.known.take_if(|_| runs) {
            guest.announce(uuid, known, now, &mut self.last, actions);
            self.changed = true;
        } else if guest.life.wants_reading() {
            self.last += 1;
            guest.life.reading = Some(self.last);
            actions.push(Action::Read { uuid: uuid.into(), reading: self.last });
        }
    }
}

#[cfg(test)]
mod tests;
