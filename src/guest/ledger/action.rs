//! What the ledger has the daemon do, and how that ended.

use std::sync::Arc;
use std::time::Duration;

use super::handover::Word;
use crate::guest::GuestState;
use crate::guest::event::Cause;
use crate::guest::target::{Target, Unannounceable};

/// An action for the daemon.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Report the state of a guest to its announcements; after [`GuestState::Left`], forget the guest.
    State {
        /// The guest.
        uuid: Arc<str>,
        /// Its state.
        state: GuestState,
    },
    /// Read a guest's XML and addresses, and pass them to [`Ledger::read`](super::Ledger::read).
    Read {
        /// The guest.
        uuid: Arc<str>,
        /// The number to pass.
        reading: u64,
    },
    /// Count an event that asks for announcements.
    Event(Cause),
    /// Announce a NIC, and report its end to [`Ledger::ended`](super::Ledger::ended).
    Announce {
        /// The guest.
        uuid: Arc<str>,
        /// The number to pass.
        run: u64,
        /// The NIC.
        target: Box<Target>,
        /// Why.
        cause: Cause,
        /// When the guest began to run, or the NIC was plugged in.
        at: Duration,
        /// When the guest's source was heard to have stopped it, if it was.
        source_stopped: Option<Duration>,
    },
    /// Announce a NIC of a guest that has stopped at its source and does not run here yet.
    Early {
        /// The guest.
        uuid: Arc<str>,
        /// The announcement's number.
        run: u64,
        /// The NIC.
        target: Box<Target>,
        /// When the guest was heard to have stopped.
        at: Duration,
    },
    /// End an early announcement.
    EndEarly {
        /// Its number.
        run: u64,
        /// The guest runs here, so that the usual announcement follows; otherwise it runs on at its source.
        runs_here: bool,
    },
    /// Tell the peers what becomes of a guest.
    Tell {
        /// The guest.
        uuid: Arc<str>,
        /// What.
        word: Word,
    },
    /// End an announcement: another one replaces it.
    Supersede(u64),
    /// Report a NIC that the host cannot announce.
    CannotSpeakFor(Unannounceable),
}

/// How an announcement ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It is complete, or cannot be completed.
    Done,
    /// The guest was paused during the announcement.
    Paused,
    /// It was interrupted: the next event of the guest, or the next daemon, starts it again.
    BrokenOff,
}
