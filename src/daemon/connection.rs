//! One libvirt of this host.

use std::sync::Arc;

use tokio::sync::mpsc::UnboundedSender;

use crate::daemon::state::Ledgers;
use crate::guest::ledger::Ledger;
use crate::host::libvirt::watch_guests::{Libvirt, Notice};

/// A libvirt, and its guests.
pub(super) struct Connection {
    /// Its URI, empty for the default.
    pub name: String,
    /// Where they are known.
    pub libvirt: Arc<Libvirt>,
    /// Who they are, and who must still be announced.
    pub ledger: Ledger,
    /// A guest that is not in the ledger has come since somebody last looked.
    pub known: bool,
    /// It was reached, or it was found that it could not be.
    pub heard: bool,
    /// It is listened to.
    pub connected: bool,
    /// Its guests are being listed.
    pub listing: bool,
    /// What has happened meanwhile: newer than the list, or in it already.
    pub early: Vec<Notice>,
}

impl Connection {
    /// Follows the guests of the libvirt at `uri`, whose ledger is among `ledgers` if somebody kept it; notices come with
    /// `number`.
    pub(super) fn follow(
        number: usize,
        uri: Option<String>,
        ledgers: &mut Ledgers,
        notices: UnboundedSender<(usize, Notice)>,
    ) -> Result<Connection, String> {
        let libvirt = Libvirt::follow(uri.clone(), move |notice| drop(notices.send((number, notice))))?;
        let name = uri.unwrap_or_default();
        let ledger = ledgers.remove(&name);
        let known = ledger.is_some();
        let (libvirt, ledger) = (Arc::new(libvirt), ledger.unwrap_or_default());
        Ok(Connection {
            name,
            libvirt,
            ledger,
            known,
            heard: false,
            connected: false,
            listing: false,
            early: vec![],
        })
    }

    /// What it is called in the log.
    pub(super) fn title(&self) -> String {
        if self.name.is_empty() { "libvirt".into() } else { format!("libvirt at {}", self.name) }
    }

    /// It has not answered in time: go on without it, until it does.
    pub(super) fn give_up_hearing(&mut self) {
        if !std::mem::replace(&mut self.heard, true) {
            tracing::warn!("{} does not answer; still trying", self.title());
        }
    }
}
