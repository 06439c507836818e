//! What the engine hears of libvirt and OVSDB, and whether they are connected.

use tokio::time::Instant;

use super::Engine;
use crate::guest::event::Change;
use crate::guest::ledger::Present;
use crate::host::libvirt::watch_guests::Notice;
use crate::path::ovs::Unreachable;
use crate::report::count;
use crate::report::snapshot::Peer;
use crate::run::wall_clock;

impl Engine {
    pub(super) fn notice(&mut self, number: usize, notice: Notice) {
        let connection = &mut self.connections[number];
        match notice {
            Notice::Listing => connection.listing = true,
            Notice::Present(present) => {
                self.present(number, present);
                let early = std::mem::take(&mut self.connections[number].early);
                early.into_iter().for_each(|notice| self.notice(number, notice));
            }
            Notice::Changed { .. } if connection.listing => connection.early.push(notice),
            Notice::Changed { uuid, id, change, at } => self.changed(number, &uuid, id, &change, at),
            Notice::Lost(why) => {
                connection.heard = true;
                connection.listing = false;
                connection.early.clear();
                if connection.connected || connection.peer.since.is_none() {
                    connection.peer = peer(&connection.peer, Some(&why));
                }
                if std::mem::take(&mut connection.connected) || !self.publisher.is_ready() {
                    tracing::warn!("{why}; trying again");
                }
            }
        }
    }

    /// libvirt's list of guests.
    fn present(&mut self, number: usize, mut present: Vec<Present>) {
        present.retain(|guest| self.only.as_ref().is_none_or(|name| *name == guest.name));
        let connection = &mut self.connections[number];
        (connection.heard, connection.listing) = (true, false);
        if !std::mem::replace(&mut connection.connected, true) {
            connection.peer = peer(&connection.peer, None);
            let guests = count(present.len(), "VM");
            tracing::info!("listening to {}, with {guests}", connection.title());
        }
        let now = self.epoch.elapsed();
        let events = self.events();
        let connection = &mut self.connections[number];
        let actions = connection.ledger.reconcile(&present, connection.known, &events, now);
        connection.known = true;
        self.changed = true;
        self.act(number, actions);
    }

    fn changed(&mut self, number: usize, uuid: &str, id: Option<u32>, change: &Change, at: Instant) {
        if self.only.is_some() && !self.connections[number].ledger.knows(uuid) {
            return;
        }
        let (at, events) = (at.saturating_duration_since(self.epoch), self.events());
        let ledger = &mut self.connections[number].ledger;
        let actions = ledger.change(uuid, id, change, &events, at);
        self.act(number, actions);
    }

    /// OVSDB was lost, or is there again: what shows that is shown at once.
    pub(super) fn note_ovsdb(&mut self) {
        let state = self.host.ovs.borrow();
        self.ovsdb = ovsdb_peer(&self.ovsdb, state.error.as_ref());
    }
}

pub(super) fn ovsdb_peer(before: &Peer, error: Option<&Unreachable>) -> Peer {
    let absent = error.is_some_and(|error| error.is_absence);
    Peer { absent, ..peer(before, error.map(|error| error.why.as_str())) }
}

/// The same peer from now on: connected, or not, and why.
fn peer(before: &Peer, why: Option<&str>) -> Peer {
    Peer {
        connected: why.is_none(),
        since: Some(wall_clock::now()),
        why: why.map(str::to_owned),
        ..before.clone()
    }
}
