//! The part of the ledger that is kept for the next daemon, guest by guest.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Ledger;
use super::guest::Guest;

/// A guest, or that it has left, as it is kept for the next daemon.
#[derive(Debug, Serialize, Deserialize)]
pub struct Kept<'a> {
    uuid: Cow<'a, str>,
    guest: Option<Cow<'a, Guest>>,
}

impl Ledger {
    /// The part that is kept for the next daemon has changed since [`Ledger::take_changed`].
    pub fn has_changed(&self) -> bool {
        !self.changed.is_empty()
    }

    /// The guests of which that part has changed since the last call.
    pub fn take_changed(&mut self) -> BTreeSet<Arc<str>> {
        std::mem::take(&mut self.changed)
    }

    /// What is kept of a guest.
    pub fn kept<'a>(&'a self, uuid: &'a str) -> Kept<'a> {
        Kept { uuid: uuid.into(), guest: self.guests.get(uuid).map(|guest| Cow::Borrowed(&**guest)) }
    }

    /// A guest became this, after the rest of the ledger was kept.
    pub fn restore(&mut self, Kept { uuid, guest }: Kept<'_>) {
        match guest {
            Some(guest) => drop(self.guests.insert(uuid.into(), Box::new(guest.into_owned()))),
            None => drop(self.guests.remove(&*uuid)),
        }
    }
}
