//! What the announcements under way wait for: each says so itself, and what shows the host's state reads it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::report::waiting::Waiting;

/// Those that wait, in the order in which they began.
#[derive(Debug, Clone, Default)]
pub(crate) struct Waits(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    waiting: BTreeMap<u64, Waiting>,
    last: u64,
    changes: u64,
}

impl Waits {
    /// A place for one announcement.
    pub(crate) fn enter(&self) -> Place {
        let mut inner = self.lock();
        inner.last += 1;
        Place { number: inner.last, waits: self.clone() }
    }

    /// Those that wait now.
    pub(crate) fn now(&self) -> Vec<Waiting> {
        self.lock().waiting.values().cloned().collect()
    }

    /// Counts the changes.
    pub(crate) fn changes(&self) -> u64 {
        self.lock().changes
    }

    /// What is behind the lock is whole between any two statements.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The place of one announcement; empty again when it is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    number: u64,
    waits: Waits,
}

impl Place {
    /// It waits for this, or for nothing.
    pub(crate) fn waits_for(&self, what: Option<Waiting>) {
        let mut inner = self.waits.lock();
        if inner.waiting.get(&self.number) != what.as_ref() {
            inner.changes += 1;
            match what {
                Some(what) => inner.waiting.insert(self.number, what),
                None => inner.waiting.remove(&self.number),
            };
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.waits_for(None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_there_until_it_goes_on_or_ends() {
        let waits = Waits::default();
        let reasons = || waits.now().into_iter().map(|waiting| waiting.reason).collect::<Vec<_>>();
        let for_a = |reason: &str| {
            Some(Waiting { subject: "a".into(), condition: "vlan".into(), reason: reason.into() })
        };
        let (first, second) = (waits.enter(), waits.enter());
        second.waits_for(for_a("2"));
        first.waits_for(for_a("1"));
        assert_eq!((reasons(), waits.changes()), (vec!["1".to_owned(), "2".to_owned()], 2));
        first.waits_for(for_a("1"));
        assert_eq!(waits.changes(), 2, "nothing is new");
        first.waits_for(None);
        assert_eq!(reasons(), ["2"]);
        drop(second);
        assert_eq!((reasons(), waits.changes()), (Vec::new(), 4));
    }
}
