//! A guest of the ledger: its pending announcements, and those under way.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize};

use super::Action;
use crate::guest::GuestState;
use crate::guest::event::Cause;
use crate::guest::target::{Nic, Target};

/// Before the number of a run that no NIC's alias names yet.
const PROVISIONAL: &str = "unread/";

/// A guest.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Guest {
    /// libvirt's id. A different id means a new life of the guest.
    pub id: Option<u32>,
    /// Its name, once libvirt has told it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Arc<str>>,
    /// Why all of its NICs must still be announced.
    #[serde(default, deserialize_with = "lenient")]
    pub pending: Option<Cause>,
    /// The plugged-in NICs that must still be announced.
    #[serde(default, skip_serializing_if = "Plugged::is_empty")]
    pub plugged: Plugged,
    /// It has stopped here for its migration: if it runs on here, its traffic is called back.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub handed_over: bool,
    #[serde(skip)]
    pub life: Life,
}

/// The part that is not kept for the next daemon.
#[derive(Debug, Clone, Default)]
pub(super) struct Life {
    pub state: GuestState,
    /// When the guest began to run, while an announcement of all its NICs is pending.
    pub runs_since: Option<Duration>,
    /// Its NICs, read while it was arriving.
    pub known: Option<Box<[Nic]>>,
    /// The number of the reading under way.
    pub reading: Option<u64>,
    /// The last reading failed, and no event has followed.
    pub is_unreadable: bool,
    /// The announcements for `pending` have begun.
    pub has_begun: bool,
    /// Without its XML, what else is known of it was announced.
    pub is_provisional: bool,
    /// By NIC.
    pub runs: Runs,
    /// Its NICs as they were read last, if they are kept in mind.
    pub nics: Option<Box<[Nic]>>,
    /// It arrives, and its source was heard to have stopped it.
    pub early: Option<Box<Early>>,
}

/// What is announced before the guest runs.
#[derive(Debug, Clone, Default)]
pub(super) struct Early {
    /// When its source was heard to have stopped it, unless it runs on there.
    pub source_stopped: Option<Duration>,
    /// The announcements were begun.
    pub has_begun: bool,
    /// The numbers of those under way.
    pub runs: Vec<u64>,
}

/// NICs by alias, and what happened to each and when, until it is announced: one map, kept as the list of the aliases.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(from = "BTreeSet<String>", into = "BTreeSet<String>")]
pub(super) struct Plugged(BTreeMap<String, Option<(Cause, Duration)>>);

impl From<BTreeSet<String>> for Plugged {
    fn from(aliases: BTreeSet<String>) -> Plugged {
        Plugged(aliases.into_iter().map(|alias| (alias, None)).collect())
    }
}

impl From<Plugged> for BTreeSet<String> {
    fn from(plugged: Plugged) -> BTreeSet<String> {
        plugged.0.into_keys().collect()
    }
}

impl Plugged {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// This happened to the NIC.
    pub(super) fn insert(&mut self, alias: &str, cause: Cause, at: Duration) {
        self.0.insert(alias.into(), Some((cause, at)));
    }

    pub(super) fn remove(&mut self, alias: &str) {
        self.0.remove(alias);
    }
}

/// An announcement under way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Run {
    pub number: u64,
    /// It is for `pending`.
    pub of_all: bool,
    /// The guest's XML was not known when it began.
    pub is_provisional: bool,
}

/// The announcements of a guest that are under way, by NIC, sorted: mostly one, for which a map would reserve room for eleven.
#[derive(Debug, Clone, Default)]
pub(super) struct Runs(Vec<(Box<str>, Run)>);

impl Runs {
    fn place(&self, nic: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|(name, _)| (**name).cmp(nic))
    }

    fn contains(&self, nic: &str) -> bool {
        self.place(nic).is_ok()
    }

    /// Returns the one that this replaces.
    fn insert(&mut self, nic: &str, run: Run) -> Option<Run> {
        match self.place(nic) {
            Ok(at) => Some(std::mem::replace(&mut self.0[at].1, run)),
            Err(at) => {
                if self.0.is_empty() {
                    self.0.reserve_exact(1);
                }
                self.0.insert(at, (nic.into(), run));
                None
            }
        }
    }

    pub(super) fn remove(&mut self, nic: &str) -> Option<Run> {
        self.place(nic).ok().map(|at| self.0.remove(at).1)
    }

    /// Removes the one of this number, and returns its NIC.
    pub(super) fn take(&mut self, number: u64) -> Option<(Box<str>, Run)> {
        let at = self.0.iter().position(|(_, run)| run.number == number)?;
        Some(self.0.remove(at))
    }

    pub(super) fn retain(&mut self, mut is_kept: impl FnMut(&Run) -> bool) {
        self.0.retain(|(_, run)| is_kept(run));
    }

    fn any(&self, is_so: impl Fn(&Run) -> bool) -> bool {
        self.0.iter().any(|(_, run)| is_so(run))
    }
}

impl Life {
    pub(super) fn wants_reading(&self) -> bool {
        self.known.is_none() && self.reading.is_none() && !self.is_unreadable
    }

    /// When its source was heard to have stopped it.
    pub(super) fn source_stopped(&self) -> Option<Duration> {
        self.early.as_ref().and_then(|early| early.source_stopped)
    }
}

impl Guest {
    /// Its life has this id, as far as ids are known.
    pub(super) fn is_of(&self, id: Option<u32>) -> bool {
        self.id.is_none() || id.is_none() || self.id == id
    }

    /// Why all of its NICs must be announced, unless those announcements are under way.
    pub(super) fn owed(&self) -> Option<Cause> {
        self.pending.filter(|_| !self.life.has_begun)
    }

    /// The NIC was plugged in, and no announcement of it is under way.
    fn is_owed(&self, alias: &str) -> bool {
        self.plugged.0.contains_key(alias) && !self.life.runs.contains(alias)
    }

    pub(super) fn is_anything_owed(&self) -> bool {
        self.owed().is_some() || self.plugged.0.keys().any(|alias| self.is_owed(alias))
    }

    /// Begins the pending announcement of each NIC.
    pub(super) fn announce(&mut self, nics: Box<[Nic]>, now: Duration, begin: &mut Begin<'_>) {
        let all = self.owed();
        let since = self.life.runs_since.take().unwrap_or(now);
        self.life.runs.retain(|run| {
            begin.actions.extend(run.is_provisional.then_some(Action::Supersede(run.number)));
            !run.is_provisional
        });
        for (number, nic) in nics.into_iter().enumerate() {
            let name = nic.name.unwrap_or_else(|| number.to_string());
            let (cause, at) = match all {
                Some(cause) => (cause, since),
                None if self.is_owed(&name) => {
                    self.plugged.0.get(&name).copied().flatten().unwrap_or((Cause::Plugged, now))
                }
                None => continue,
            };
            match nic.target {
                Ok(target) => {
                    let number = begin.next_number();
                    let run = Run { number, of_all: all.is_some(), is_provisional: false };
                    let superseded = self.life.runs.insert(&name, run);
                    begin.actions.extend(superseded.map(|run| Action::Supersede(run.number)));
                    begin.announce(number, target, (cause, at), self.life.source_stopped());
                }
                Err(nic) => begin.actions.push(Action::CannotSpeakFor(nic)),
            }
        }
        self.life.has_begun |= all.is_some();
        // A plugged NIC that is gone, or that the host cannot announce, is no longer pending.
        let runs = &self.life.runs;
        self.plugged.0.retain(|alias, happened| {
            *happened = None;
            runs.contains(alias)
        });
        self.settle();
    }

    /// Begins announcements by what is known without the guest's XML; it is owed as before.
    pub(super) fn announce_provisionally(&mut self, nics: Box<[Nic]>, now: Duration, begin: &mut Begin<'_>) {
        let (Some(cause), at) = (self.owed(), self.life.runs_since.unwrap_or(now)) else {
            return;
        };
        for (nth, target) in nics.into_iter().filter_map(|nic| nic.target.ok()).enumerate() {
            self.life.is_provisional = true;
            let number = begin.next_number();
            let run = Run { number, of_all: false, is_provisional: true };
            self.life.runs.insert(&format!("{PROVISIONAL}{nth}"), run);
            begin.announce(number, target, (cause, at), None);
        }
    }

    /// Clears `pending` when every announcement begun for it has ended.
    pub(super) fn settle(&mut self) {
        if self.life.has_begun && !self.life.runs.any(|run| run.of_all) {
            self.pending = None;
            self.life.has_begun = false;
        }
    }
}

/// Where announcements of a guest begin.
pub(super) struct Begin<'a> {
    pub uuid: &'a Arc<str>,
    /// The number of the ledger's last announcement or reading.
    pub last: &'a mut u64,
    pub actions: &'a mut Vec<Action>,
}

impl Begin<'_> {
    pub(super) fn next_number(&mut self) -> u64 {
        *self.last += 1;
        *self.last
    }

    fn announce(
        &mut self,
        run: u64,
        target: Target,
        (cause, at): (Cause, Duration),
        stopped: Option<Duration>,
    ) {
        let (uuid, target) = (self.uuid.clone(), Box::new(target));
        self.actions.push(Action::Announce { uuid, run, target, cause, at, source_stopped: stopped });
    }
}

/// A cause; an unknown one, written by a later version, counts as migrated.
fn lenient<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Cause>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Word {
        Known(Cause),
        Unknown(serde::de::IgnoredAny),
    }
    Ok(Option::<Word>::deserialize(from)?.map(|word| match word {
        Word::Known(cause) => cause,
        Word::Unknown(_) => Cause::Migrated,
    }))
}
