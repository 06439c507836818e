//! Guests that are between two hosts: the source tells its peers that one has stopped, and what became of it; the destination
//! announces one before it runs.

use std::time::Duration;

use super::guest::Begin;
use super::{Action, Ledger, entry};
use crate::guest::GuestState;
use crate::guest::event::Cause;

/// What the source tells its peers about a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    /// It has stopped here.
    Stops,
    /// It runs on here.
    Kept,
    /// It is no longer here.
    Left,
}

/// What the destination makes of the word that a guest has stopped at its source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heed {
    /// The guest is not on this host.
    Elsewhere,
    /// It is here, and is not one that arrives: it runs, or was paused here.
    NotArriving,
    /// It is announced, or as soon as it has been read and its port is ready, if it does not run before.
    Early,
}

impl Ledger {
    /// Keeps in mind what the NICs of every guest are: libvirt does not describe a guest while it migrates.
    pub fn remember(&mut self) {
        self.remembers = true;
    }

    /// The guest has stopped at the source of its migration, as its daemon says at `at`.
    pub fn source_stopped(&mut self, uuid: &str, at: Duration) -> (Heed, Vec<Action>) {
        let mut actions = Vec::new();
        let Some(guest) = self.guests.get_mut(uuid) else {
            return (Heed::Elsewhere, actions);
        };
        let is_paused = matches!(guest.life.state, GuestState::Paused(_));
        let was_early = guest.life.early.as_ref().is_some_and(|early| early.has_begun);
        if !is_paused || guest.owed() != Some(Cause::Migrated) || guest.handed_over || was_early {
            return (Heed::NotArriving, actions);
        }
        guest.life.early.get_or_insert_default().source_stopped = Some(at);
        self.go_on(uuid, at, &mut actions);
        (Heed::Early, actions)
    }

    /// The guest runs on at the source of its migration: it is not to be announced here.
    pub fn source_kept(&mut self, uuid: &str) -> Vec<Action> {
        let early = self.guests.get_mut(uuid).and_then(|guest| guest.life.early.as_mut());
        let runs = early.map(|early| {
            early.source_stopped = None;
            std::mem::take(&mut early.runs)
        });
        let runs = runs.unwrap_or_default().into_iter();
        runs.map(|run| Action::EndEarly { run, runs_here: false }).collect()
    }

    /// The guest stops here for the switch-over of its migration.
    pub(super) fn hand_over(&mut self, uuid: &str, actions: &mut Vec<Action>) {
        let guest = self.guests.get_mut(uuid).filter(|guest| !guest.handed_over);
        if let Some(guest) = guest {
            guest.handed_over = true;
            self.changed.insert(uuid.into());
            actions.push(Action::Tell { uuid: uuid.into(), word: Word::Stops });
        }
    }

    /// The guest runs here, whatever it was about to do.
    pub(super) fn runs_here(&mut self, uuid: &str, actions: &mut Vec<Action>) {
        let Some(guest) = self.guests.get_mut(uuid) else {
            return;
        };
        let early = guest.life.early.iter_mut().flat_map(|early| early.runs.drain(..));
        actions.extend(early.map(|run| Action::EndEarly { run, runs_here: true }));
        if !std::mem::take(&mut guest.handed_over) {
            return;
        }
        actions.push(Action::Tell { uuid: uuid.into(), word: Word::Kept });
        let life = &mut guest.life;
        life.runs.retain(|run| {
            actions.extend(run.of_all.then_some(Action::Supersede(run.number)));
            !run.of_all
        });
        (life.has_begun, life.is_provisional, life.runs_since, life.known) = (false, false, None, None);
        guest.pending = Some(Cause::Kept);
        self.changed.insert(uuid.into());
    }

    /// Announces an arriving guest before it runs, once, if its source has stopped it; one that was kept, by what its NICs were.
    pub(super) fn go_on_early(&mut self, uuid: &str, now: Duration, actions: &mut Vec<Action>) {
        let Some((uuid, guest)) = entry(&mut self.guests, uuid) else {
            return;
        };
        let runs = guest.life.state == GuestState::Running;
        let mut begin = Begin { uuid, last: &mut self.last, actions };
        let early = guest.life.early.as_mut().filter(|early| !runs && !early.has_begun);
        if let Some((early, at)) = early.and_then(|early| early.source_stopped.map(|at| (early, at))) {
            let targets = guest.life.known.iter().flatten().filter_map(|nic| nic.target.clone().ok());
            let mut targets = targets.peekable();
            begin.actions.extend(targets.peek().map(|_| Action::Event(Cause::Handover)));
            for target in targets {
                let run = begin.next_number();
                early.runs.push(run);
                begin.actions.push(Action::Early { uuid: uuid.clone(), run, target: Box::new(target), at });
            }
            early.has_begun = guest.life.known.is_some();
        }
        let is_unread = guest.life.known.is_none() && !guest.life.is_provisional;
        let is_kept = runs && is_unread && guest.owed() == Some(Cause::Kept);
        if let Some(nics) = guest.life.nics.clone().filter(|_| is_kept) {
            guest.announce_provisionally(nics, now, &mut begin);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::ledger::tests::Desk;

    const STARTED: i32 = 2;
    const SUSPENDED: i32 = 3;
    const RESUMED: i32 = 4;
    const STOPPED: i32 = 5;
    const MIGRATED: i32 = 1;
    const POSTCOPY: i32 = 7;

    fn desk() -> Desk {
        let mut desk = Desk::default();
        desk.ledger.remember();
        desk
    }

    /// Migrates to this host, and has been read.
    fn arriving() -> Desk {
        let mut desk = desk();
        assert_eq!(desk.event(STARTED, MIGRATED), ["read"]);
        assert_eq!(desk.read(&["net0", "net1"]), [""; 0]);
        desk
    }

    /// Runs here, and nothing is pending.
    fn resident() -> Desk {
        let mut desk = desk();
        assert_eq!(desk.list(&[(1, true, None)], false), ["read"]);
        assert_eq!(desk.read(&["net0"]), [""; 0]);
        desk
    }

    #[test]
    fn an_arriving_guest_is_announced_early_once_and_as_usual_when_it_runs() {
        let mut desk = arriving();
        assert_eq!(
            desk.source_stopped(),
            (
                Heed::Early,
                ["event handover", "early net0 since 3", "early net1 since 3"].map(str::to_owned).to_vec()
            )
        );
        assert_eq!(desk.source_stopped(), (Heed::NotArriving, Vec::new()), "never twice");
        let runs = ["relieve", "relieve", "event migrated", "migrated net0 since 5", "migrated net1 since 5"];
        assert_eq!(desk.event(RESUMED, MIGRATED), runs);
        assert_eq!(desk.source_stopped(), (Heed::NotArriving, Vec::new()), "it runs");
    }

    #[test]
    fn a_guest_that_is_read_after_its_source_has_stopped_is_announced_early_then() {
        let mut desk = desk();
        assert_eq!(desk.event(STARTED, MIGRATED), ["read"]);
        assert_eq!(desk.source_stopped(), (Heed::Early, Vec::new()));
        assert_eq!(desk.read(&["net0"]), ["event handover", "early net0 since 2"]);
        assert_eq!(desk.change(&crate::guest::event::Change::Left), ["left"]);
    }

    #[test]
    fn only_a_guest_that_migrates_to_this_host_is_announced_early() {
        assert_eq!(desk().source_stopped(), (Heed::Elsewhere, Vec::new()));
        assert_eq!(resident().source_stopped(), (Heed::NotArriving, Vec::new()));
        let mut paused = resident();
        paused.event(SUSPENDED, 0);
        assert_eq!(paused.source_stopped(), (Heed::NotArriving, Vec::new()));
        let mut leaving = resident();
        assert_eq!(leaving.event(SUSPENDED, MIGRATED), ["tell Stops"]);
        assert_eq!(leaving.source_stopped(), (Heed::NotArriving, Vec::new()));
        let mut restored = desk();
        restored.event(STARTED, 2);
        restored.read(&["net0"]);
        assert_eq!(restored.source_stopped(), (Heed::NotArriving, Vec::new()));
    }

    #[test]
    fn a_guest_that_its_source_keeps_is_not_announced_any_more() {
        let mut desk = arriving();
        desk.source_stopped();
        assert_eq!(desk.source_kept(), ["abandon", "abandon"]);
        assert_eq!(desk.source_kept(), [""; 0]);
        assert_eq!(desk.source_stopped().1, [""; 0], "of this life, never twice");
        assert_eq!(desk.event(STOPPED, 5), ["left"]);
        // The next try is another life.
        assert_eq!(desk.event(STARTED, MIGRATED), ["read"]);
        desk.read(&["net0"]);
        assert_eq!(desk.source_stopped().1.len(), 2);
    }

    #[test]
    fn the_source_tells_that_its_guest_stops_once_and_that_it_has_left() {
        let mut desk = resident();
        assert_eq!(desk.event(SUSPENDED, MIGRATED), ["tell Stops"]);
        assert_eq!(desk.event(SUSPENDED, POSTCOPY), [""; 0]);
        assert_eq!(desk.event(STOPPED, 3), ["tell Left", "left"]);
        // A guest that is paused or saved is not told of.
        let mut desk = resident();
        assert_eq!(desk.event(SUSPENDED, 0), [""; 0]);
        assert_eq!(desk.event(RESUMED, 0), [""; 0]);
        assert_eq!(desk.event(STOPPED, 0), ["left"]);
    }

    #[test]
    fn a_guest_that_is_kept_is_announced_by_what_is_known_and_again_when_it_has_been_read() {
        let mut desk = resident();
        for _ in 0..2 {
            desk.event(SUSPENDED, MIGRATED);
            let at_once = desk.event(RESUMED, MIGRATED);
            assert_eq!(at_once[0], "tell Kept");
            assert!(at_once[1].starts_with("kept net0 since "), "{at_once:?}");
            assert_eq!(at_once[at_once.len() - 2..], ["event kept", "read"]);
            let read = desk.read(&["net0", "net1"]);
            let read: Vec<&str> = read.iter().map(|words| words.split(" since").next().unwrap()).collect();
            assert_eq!(read[read.len() - 3..], ["supersede", "kept net0", "kept net1"]);
            desk.ended("net0", crate::guest::ledger::Ended::Done);
            desk.ended("net1", crate::guest::ledger::Ended::Done);
            assert_eq!(desk.event(RESUMED, 0), [""; 0], "not again");
        }
    }

    #[test]
    fn the_next_daemon_keeps_what_the_previous_one_handed_over() {
        let next = || {
            let mut desk = resident();
            desk.event(SUSPENDED, MIGRATED);
            let mut next = desk.restarted();
            next.ledger.remember();
            next
        };
        let mut kept = next();
        assert_eq!(kept.list(&[(1, false, None)], true), ["read"]);
        assert_eq!(kept.list(&[(1, true, None)], true), ["tell Kept", "event kept"]);
        assert_eq!(kept.read(&["net0"]), ["kept net0 since 2"]);
        let mut gone = next();
        assert_eq!(gone.list(&[], true), ["tell Left", "left"]);
    }
}
