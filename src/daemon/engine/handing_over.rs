//! What is told to other hosts' daemons about guests that migrate, and what is made of what they tell.

use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;

use tokio::time::Instant;

use super::{Engine, announcing::Start};
use crate::announcement::handover::{Kind, Notice, Uuid};
use crate::announcement::progress::Outcome;
use crate::daemon::peers::Peers;
use crate::guest::GuestState;
use crate::guest::event::Cause;
use crate::guest::ledger::handover::{Heed, Word};
use crate::guest::target::Target;
use crate::report::Report;
use crate::report::handed_over::{HandedOver, HandoverNote};
use crate::run::signals::{Number, Stop};
use crate::run::wall_clock;

/// What comes from the peers; never anything without peers.
pub(super) async fn heard(peers: &mut Option<Peers>) -> (Notice, SocketAddr) {
    match peers {
        Some(peers) => match peers.heard.recv().await {
            Some(heard) => heard,
            None => std::future::pending().await,
        },
        None => std::future::pending().await,
    }
}

impl Engine {
    /// The causes of announcements.
    pub(super) fn events(&self) -> Vec<Cause> {
        let of_peers = self.peers.as_ref().map(|_| [Cause::Handover, Cause::Kept]);
        [&self.config.libvirt.events[..], of_peers.as_ref().map_or(&[], |causes| &causes[..])].concat()
    }

    /// Exchanges notices with these peers from now on.
    pub(super) fn with_peers(mut self, peers: Option<Peers>) -> Engine {
        if peers.is_some() {
            self.connections.iter_mut().for_each(|connection| connection.ledger.remember());
        }
        Engine { peers, ..self }
    }

    /// Tells the peers what the ledgers want told, once that is saved: if this daemon ends then, the next one knows.
    pub(super) fn tell_peers(&mut self) {
        for (uuid, word) in std::mem::take(&mut self.words) {
            let (Some(peers), Ok(guest)) = (&mut self.peers, Uuid::from_str(&uuid)) else {
                continue;
            };
            let (kind, outcome, words) = match word {
                Word::Stops => {
                    (Kind::Stops, HandedOver::Told, "it stops here for its migration, and the peers are told")
                }
                Word::Kept => (Kind::Kept, HandedOver::Kept, "its migration failed, and it runs on here"),
                Word::Left => (Kind::Left, HandedOver::Left, "it has left"),
            };
            peers.tell(kind, guest);
            tracing::info!(uuid = &*uuid, handover = kind.word(), "the VM {uuid}: {words}");
            self.publisher.handed_over(outcome);
            self.note(uuid.to_string(), kind, None);
        }
    }

    /// A peer tells what becomes of a guest.
    pub(super) fn heed(&mut self, (notice, from): (Notice, SocketAddr)) {
        let (uuid, now, kind) = (notice.guest.to_string(), self.epoch.elapsed(), notice.kind);
        let here = self.connections.iter().position(|connection| connection.ledger.knows(&uuid));
        let Some(number) = here else {
            if kind == Kind::Stops {
                self.publisher.handed_over(HandedOver::Elsewhere);
            }
            return;
        };
        self.note(uuid.clone(), kind, Some(from));
        let ledger = &mut self.connections[number].ledger;
        let actions = match kind {
            Kind::Stops => {
                let (heed, actions) = ledger.source_stopped(&uuid, now);
                let words = match heed {
                    Heed::Early => "it is announced here before it runs",
                    Heed::NotArriving | Heed::Elsewhere => "it does not wait here to run: nothing is done",
                };
                tracing::info!(
                    uuid,
                    handover = kind.word(),
                    "the VM {uuid} has stopped at its source ({from}): {words}"
                );
                actions
            }
            Kind::Kept => {
                tracing::info!(uuid, handover = kind.word(), "the VM {uuid} runs on at its source ({from})");
                ledger.source_kept(&uuid)
            }
            Kind::Left => Vec::new(),
        };
        self.act(number, actions);
    }

    fn note(&self, uuid: String, kind: Kind, from: Option<SocketAddr>) {
        let from = from.map(|from| from.ip().to_string());
        let note = HandoverNote { at: wall_clock::now(), uuid, notice: kind.word().into(), from };
        self.publisher
            .describe(|daemon| daemon.handover.iter_mut().for_each(|shown| shown.note(note.clone())));
    }

    /// Announces a guest that does not run here yet, for as long as it does not.
    pub(super) fn announce_early(&mut self, run: Number, uuid: Arc<str>, target: Target, at: Instant) {
        let order = Arc::new(self.order(run.connection(), target, Cause::Handover));
        // Whether it runs here counts no more; whether it leaves does.
        self.start(Start { run, uuid, order, at, guest: GuestState::Running });
    }

    pub(super) fn end_early(&mut self, run: Number, runs_here: bool) {
        if let Some(running) = self.running.get(&run) {
            let why = if runs_here { Stop::Relieved } else { Stop::Kept };
            running.signals.stop(why);
        }
    }

    /// Counts what became of an early announcement.
    pub(super) fn count_early(&mut self, report: &Report) {
        if report.cause == Cause::Handover {
            let was_early = report.outcome == Outcome::Announced;
            self.publisher.handed_over(if was_early { HandedOver::Early } else { HandedOver::NotEarly });
        }
    }
}
