//! Who is on this host, and who must still be announced: what survives a restart of the daemon.
//!
//! A guest that arrives is noted as pending until its announcement is done. So one that arrived paused is announced when it
//! is unpaused at last, and one that was in mid-burst when the daemon died is announced by the next daemon.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::guest::event::{Cause, Change};

/// Every guest of this host, by UUID.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Ledger {
    guests: BTreeMap<String, Entry>,
}

/// A guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    /// libvirt's id: another one is another life of the guest.
    id: Option<u32>,
    /// Why it must still be announced.
    pending: Option<Cause>,
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

/// What to do about a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing but to remember.
    Nothing,
    /// It will run soon: read its XML now.
    Prepare,
    /// Announce it, unless that is under way.
    Announce(Cause),
    /// Whatever is under way for it must end.
    Forget,
}

impl Ledger {
    /// Takes a change into account; only the causes in `announced` are.
    pub(crate) fn change(
        &mut self,
        uuid: &str,
        id: Option<u32>,
        change: &Change,
        announced: &[Cause],
    ) -> Verdict {
        let wanted = |cause: Cause| Some(cause).filter(|cause| announced.contains(cause));
        match change {
            Change::Arriving(cause) => {
                let pending = wanted(*cause);
                self.guests.insert(uuid.into(), Entry { id, pending });
                if pending.is_some() { Verdict::Prepare } else { Verdict::Nothing }
            }
            Change::Booted => {
                let pending = wanted(Cause::Started);
                self.guests.insert(uuid.into(), Entry { id, pending });
                pending.map_or(Verdict::Nothing, Verdict::Announce)
            }
            Change::Runs(cause) => {
                // Who was not seen arriving came while nobody listened. Who was, and is not pending any more, has been
                // announced: post-copy says a second time that the guest runs.
                let unseen = Entry { id, pending: cause.and_then(wanted) };
                let entry = self.guests.entry(uuid.into()).or_insert(unseen);
                entry.pending.map_or(Verdict::Nothing, Verdict::Announce)
            }
            Change::Paused => Verdict::Nothing,
            Change::Left => {
                self.guests.remove(uuid);
                Verdict::Forget
            }
            Change::Plugged(_) => {
                let cause = wanted(Cause::Plugged);
                if let Some(entry) = self.guests.get_mut(uuid) {
                    entry.pending = entry.pending.or(cause);
                }
                cause.map_or(Verdict::Nothing, Verdict::Announce)
            }
        }
    }

    /// Compares with whom libvirt lists, after a time in which nobody listened.
    ///
    /// With `strangers`, guests that are not known have arrived meanwhile; without, this is the first look of all, and
    /// they were here before.
    pub(crate) fn reconcile(
        &mut self,
        present: &[Present],
        strangers: bool,
        announced: &[Cause],
    ) -> Vec<(String, Verdict)> {
        let here: BTreeSet<&String> = present.iter().map(|guest| &guest.uuid).collect();
        let gone = self.guests.keys().filter(|uuid| !here.contains(uuid)).cloned();
        let mut verdicts: Vec<_> = gone.map(|uuid| (uuid, Verdict::Forget)).collect();
        self.guests.retain(|uuid, _| here.contains(uuid));
        for guest in present {
            let came = guest.cause.filter(|cause| strangers && announced.contains(cause));
            let entry = self.guests.entry(guest.uuid.clone());
            let entry = entry.or_insert(Entry { id: guest.id, pending: came });
            if entry.id.is_some() && entry.id != guest.id {
                entry.pending = came;
                // Whatever is still under way was for its last life.
                verdicts.push((guest.uuid.clone(), Verdict::Forget));
            }
            entry.id = guest.id;
            let verdict = match entry.pending {
                Some(cause) if guest.runs => Verdict::Announce(cause),
                Some(_) => Verdict::Prepare,
                None => Verdict::Nothing,
            };
            verdicts.push((guest.uuid.clone(), verdict));
        }
        verdicts
    }

    /// The guest's announcement is done.
    pub(crate) fn done(&mut self, uuid: &str) {
        if let Some(entry) = self.guests.get_mut(uuid) {
            entry.pending = None;
        }
    }

    /// Somebody must still be announced.
    pub(crate) fn is_anybody_pending(&self) -> bool {
        self.guests.values().any(|entry| entry.pending.is_some())
    }

    /// The guest is here.
    pub(crate) fn knows(&self, uuid: &str) -> bool {
        self.guests.contains_key(uuid)
    }

    /// How many guests there are.
    pub(crate) fn len(&self) -> usize {
        self.guests.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::event::lifecycle;

    const CAUSES: [Cause; 3] = [Cause::Migrated, Cause::Restored, Cause::Plugged];
    const ANNOUNCE: Verdict = Verdict::Announce(Cause::Migrated);

    /// What becomes of a guest to which libvirt's events happen, each its number and detail.
    fn verdicts(ledger: &mut Ledger, events: &[(i32, i32)]) -> Vec<Verdict> {
        let changes = events.iter().filter_map(|(event, detail)| lifecycle(*event, *detail));
        changes.map(|change| ledger.change("u", Some(1), &change, &CAUSES)).collect()
    }

    fn present(id: u32, runs: bool, cause: Option<Cause>) -> Present {
        Present { uuid: "u".into(), name: "n".into(), id: Some(id), runs, cause }
    }

    #[test]
    fn pre_copy_is_announced_when_the_guest_runs() {
        let mut ledger = Ledger::default();
        assert_eq!(verdicts(&mut ledger, &[(2, 1), (4, 1)]), [Verdict::Prepare, ANNOUNCE]);
    }

    #[test]
    fn post_copy_is_announced_at_the_switch_over_and_not_again_at_its_end() {
        let mut ledger = Ledger::default();
        assert_eq!(verdicts(&mut ledger, &[(2, 1), (4, 3)]), [Verdict::Prepare, ANNOUNCE]);
        ledger.done("u");
        assert_eq!(verdicts(&mut ledger, &[(4, 1)]), [Verdict::Nothing]);
    }

    #[test]
    fn a_guest_that_arrived_paused_is_announced_when_it_is_unpaused() {
        let mut ledger = Ledger::default();
        let expected = [Verdict::Prepare, Verdict::Nothing, ANNOUNCE];
        assert_eq!(verdicts(&mut ledger, &[(2, 1), (3, 0), (4, 0)]), expected);
    }

    #[test]
    fn a_guest_that_is_paused_in_mid_burst_is_announced_again_when_it_goes_on() {
        let mut ledger = Ledger::default();
        verdicts(&mut ledger, &[(2, 1), (4, 1)]);
        assert_eq!(verdicts(&mut ledger, &[(3, 0), (4, 0)]), [Verdict::Nothing, ANNOUNCE]);
    }

    #[test]
    fn a_restored_guest_is_announced() {
        let mut ledger = Ledger::default();
        let expected = [Verdict::Prepare, Verdict::Announce(Cause::Restored)];
        assert_eq!(verdicts(&mut ledger, &[(2, 2), (4, 2)]), expected);
    }

    #[test]
    fn a_failed_migration_announces_nothing() {
        let mut ledger = Ledger::default();
        assert_eq!(verdicts(&mut ledger, &[(2, 1), (5, 5)]), [Verdict::Prepare, Verdict::Forget]);
        assert!(ledger.len() == 0);
    }

    #[test]
    fn a_cold_start_and_a_resume_are_not_announced_unless_asked_for() {
        let mut ledger = Ledger::default();
        assert_eq!(verdicts(&mut ledger, &[(4, 0), (2, 0)]), [Verdict::Nothing, Verdict::Nothing]);
        assert_eq!(verdicts(&mut ledger, &[(3, 0), (4, 0)]), [Verdict::Nothing, Verdict::Nothing]);
        let started = ledger.change("u", Some(1), &Change::Booted, &[Cause::Started]);
        assert_eq!(started, Verdict::Announce(Cause::Started));
    }

    #[test]
    fn who_was_here_before_the_first_look_is_not_announced() {
        let mut ledger = Ledger::default();
        let here = [present(1, true, Some(Cause::Migrated))];
        assert_eq!(ledger.reconcile(&here, false, &CAUSES), [("u".into(), Verdict::Nothing)]);
        assert_eq!(ledger.reconcile(&here, true, &CAUSES), [("u".into(), Verdict::Nothing)]);
    }

    #[test]
    fn who_arrived_while_nobody_listened_is_announced() {
        let mut ledger = Ledger::default();
        let here = [present(1, true, Some(Cause::Migrated))];
        assert_eq!(ledger.reconcile(&here, true, &CAUSES), [("u".into(), ANNOUNCE)]);
    }

    #[test]
    fn who_left_and_came_back_while_nobody_listened_is_announced() {
        let mut ledger = Ledger::default();
        ledger.reconcile(&[present(1, true, None)], false, &CAUSES);
        let back = [present(2, true, Some(Cause::Migrated))];
        let expected = [("u".into(), Verdict::Forget), ("u".into(), ANNOUNCE)];
        assert_eq!(ledger.reconcile(&back, true, &CAUSES), expected, "nothing of its last life goes on");
    }

    #[test]
    fn who_was_booted_here_and_came_back_later_is_announced() {
        let mut ledger = Ledger::default();
        verdicts(&mut ledger, &[(4, 0), (2, 0)]);
        let back = [present(2, true, Some(Cause::Migrated))];
        let expected = [("u".into(), Verdict::Forget), ("u".into(), ANNOUNCE)];
        assert_eq!(ledger.reconcile(&back, true, &CAUSES), expected);
    }

    #[test]
    fn a_guest_that_sleeps_in_mid_burst_is_announced_again_when_it_wakes_up() {
        let mut ledger = Ledger::default();
        verdicts(&mut ledger, &[(2, 1), (4, 1)]);
        assert_eq!(verdicts(&mut ledger, &[(7, 0), (2, 4)]), [Verdict::Nothing, ANNOUNCE]);
    }

    #[test]
    fn what_was_under_way_when_the_daemon_died_is_finished_by_the_next() {
        let mut ledger = Ledger::default();
        verdicts(&mut ledger, &[(2, 1), (4, 1)]);
        let saved = serde_json::to_string(&ledger).unwrap();
        let mut next: Ledger = serde_json::from_str(&saved).unwrap();
        let here = [present(1, true, Some(Cause::Migrated))];
        assert_eq!(next.reconcile(&here, true, &CAUSES), [("u".into(), ANNOUNCE)]);
        next.done("u");
        assert_eq!(next.reconcile(&here, true, &CAUSES), [("u".into(), Verdict::Nothing)]);
    }

    #[test]
    fn a_plugged_nic_is_announced_by_the_next_daemon_if_need_be() {
        let mut ledger = Ledger::default();
        ledger.reconcile(&[present(1, true, None)], false, &CAUSES);
        let plugged = Change::Plugged("net1".into());
        let verdict = Verdict::Announce(Cause::Plugged);
        assert_eq!(ledger.change("u", Some(1), &plugged, &CAUSES), verdict);
        assert_eq!(ledger.reconcile(&[present(1, true, None)], true, &CAUSES), [("u".into(), verdict)]);
    }

    #[test]
    fn who_left_while_nobody_listened_is_forgotten() {
        let mut ledger = Ledger::default();
        verdicts(&mut ledger, &[(2, 1), (4, 1)]);
        assert_eq!(ledger.reconcile(&[], true, &CAUSES), [("u".into(), Verdict::Forget)]);
        assert!(ledger.len() == 0);
    }
}
