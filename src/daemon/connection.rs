//! One libvirt of this host.

use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::sync::mpsc::UnboundedSender;

use crate::daemon::state::Ledgers;
use crate::guest::Known;
use crate::guest::address::Source;
use crate::guest::ledger::Ledger;
use crate::host::libvirt::ask_guest;
use crate::host::libvirt::watch_guests::{Libvirt, Notice};
use crate::report::snapshot::Peer;
use crate::run::guest_asker::GuestAsker;
use crate::run::link_query::{self, LinkQuery};
use crate::run::slots::Slots;
use crate::run::wall_clock;

/// The number of guests read at the same time: libvirtd answers five requests of a client at once (`max_client_requests`).
pub(super) const MAX_READERS: usize = 5;
/// Of these, so many read guests that were here before, perhaps thousands: one that arrives does not wait for them.
const MAX_SEARCHERS: usize = 3;

/// Reads the guest with this UUID, with addresses from these sources.
pub(super) type ReadGuest = Arc<dyn Fn(Arc<str>, Vec<Source>) -> Reading + Send + Sync>;
pub(super) type Reading = Pin<Box<dyn Future<Output = Result<Known, String>> + Send>>;

/// A libvirt, and its guests.
pub(super) struct Connection {
    /// Its URI, empty for the default.
    pub name: String,
    /// Reads a guest. Its guests are followed for as long as this exists.
    pub read: ReadGuest,
    /// Reads guests that were here before, for something that may concern any of them.
    pub search: ReadGuest,
    /// Asks whether a NIC's link is up.
    pub link_query: LinkQuery,
    /// Has its guests announce themselves.
    pub asker: Option<GuestAsker>,
    /// Its guests, with pending announcements and those under way.
    pub ledger: Ledger,
    /// A guest that is not in the ledger has arrived since the last list.
    pub known: bool,
    /// It was reached, or found unreachable.
    pub heard: bool,
    /// It is connected.
    pub connected: bool,
    /// Its guests are being listed.
    pub listing: bool,
    /// Events that arrived during the listing: they are newer than the list, or included in it.
    pub early: Vec<Notice>,
    /// Whether and since when it is connected, as it is shown.
    pub peer: Peer,
}

impl Connection {
    /// Follows the guests of the libvirt at `uri`, with its ledger from `ledgers` if one was saved; notices carry `number`.
    pub(super) fn follow(
        number: usize,
        uri: Option<String>,
        ledgers: &mut Ledgers,
        notices: UnboundedSender<(usize, Notice)>,
    ) -> Result<Connection, String> {
        let libvirt = Libvirt::follow(uri.clone(), move |notice| drop(notices.send((number, notice))))
            .map_err(|error| error.to_string())?;
        let asker = Some(GuestAsker::of_libvirt(ask_guest, uri.clone()));
        Ok(Connection { asker, ..Connection::new(uri.unwrap_or_default(), reader(libvirt), ledgers) })
    }

    /// The libvirt of this name, whose guests `read` reads.
    pub(super) fn new(name: String, read: ReadGuest, ledgers: &mut Ledgers) -> Connection {
        let ledger = ledgers.remove(&name);
        let known = ledger.is_some();
        let ledger = ledger.unwrap_or_default();
        let early = Vec::new();
        let address = Some(name.clone()).filter(|name| !name.is_empty());
        let peer = Peer { peer: "libvirt".into(), address, ..Peer::default() };
        let asked = read.clone();
        let link_query = LinkQuery::new(move |target| {
            let uuid = target.domain.as_ref().map(|domain| domain.uuid.clone());
            let known = asked(uuid.unwrap_or_else(|| "".into()), Vec::new());
            Box::pin(async move { link_query::is_up(&known.await.ok()?.domain, &target) })
        });
        Connection {
            name,
            search: in_turn(read.clone(), MAX_SEARCHERS),
            read,
            link_query,
            asker: None,
            ledger,
            known,
            heard: false,
            connected: false,
            listing: false,
            early,
            peer,
        }
    }

    /// Its name in the log.
    pub(super) fn title(&self) -> String {
        if self.name.is_empty() { "libvirt".into() } else { format!("libvirt at {}", self.name) }
    }

    /// It has not answered in time: the daemon continues without it until it answers.
    pub(super) fn give_up_hearing(&mut self) {
        if !std::mem::replace(&mut self.heard, true) {
            tracing::warn!("{} does not answer; still trying", self.title());
            self.peer.since.get_or_insert_with(wall_clock::now);
            self.peer.why = Some("it does not answer".into());
        }
    }
}

/// The same, so many at a time.
fn in_turn(read: ReadGuest, number: usize) -> ReadGuest {
    let turns = Arc::new(Semaphore::new(number));
    Arc::new(move |uuid, sources| {
        let (read, turns) = (read.clone(), turns.clone());
        Box::pin(async move {
            let _turn = turns.acquire().await;
            read(uuid, sources).await
        })
    })
}

/// Reads guests of a libvirt on threads of their own, a few at a time: other blocking work has other threads.
fn reader(libvirt: Libvirt) -> ReadGuest {
    let (libvirt, slots) = (Arc::new(libvirt), Slots::new(MAX_READERS));
    Arc::new(move |uuid, sources| {
        let (libvirt, slots) = (libvirt.clone(), slots.clone());
        Box::pin(async move {
            let read = move || libvirt.read(&uuid, &sources).map_err(|error| error.to_string());
            let read = slots.run(read).await;
            read.unwrap_or_else(|error| Err(format!("reading was interrupted: {error}")))
        })
    })
}
