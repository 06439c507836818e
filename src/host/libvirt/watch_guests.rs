//! Follows the guests of a libvirt for as long as the process runs: connects, receives events, and reconnects.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use virt::connect::Connect;
use virt::domain::{Domain as Handle, DomainRunningReason, DomainState, DomainStateReason};
use virt::enumutil::Enum;

use super::LibvirtError;
use super::look::Looker;
use crate::guest::Known;
use crate::guest::address::Source;
use crate::guest::event::{Cause, Change};
use crate::guest::ledger::Present;
use crate::host::backoff::Backoff;
use crate::host::sys::libvirt::{CloseCallback, EventLoop, Subscription};

const MIN_RETRY: Duration = Duration::from_millis(100);
/// The longest pause before a reconnection, which delays a guest that arrives in it.
const MAX_RETRY: Duration = Duration::from_secs(2);
/// The pauses before the lists of the guests. A libvirtd that has just started lists guests that have ended, and removes
/// them later without an event.
const LIST_PAUSES: [Duration; 3] = [Duration::ZERO, Duration::from_secs(2), Duration::from_secs(30)];
/// How long the thread may take to end.
const JOIN_TIMEOUT: Duration = Duration::from_secs(1);

/// News about a libvirt's guests.
#[derive(Debug)]
pub(crate) enum Notice {
    /// The guests are being listed: events from now on may be included in the list.
    Listing,
    /// The connection is made, and libvirt lists these guests.
    Present(Vec<Present>),
    /// A guest changed.
    Changed {
        /// Its UUID.
        uuid: String,
        /// Its libvirt id.
        id: Option<u32>,
        /// The change.
        change: Change,
        /// When libvirt reported it.
        at: Instant,
    },
    /// The connection is lost, for this reason.
    Lost(String),
}

/// A libvirt whose guests are followed until this is dropped.
pub(crate) struct Libvirt {
    uri: Option<String>,
    connection: Shared,
    /// Ends the thread, or its connection.
    control: Sender<Control>,
    /// The thread closes this when it ends.
    ended: Mutex<Receiver<()>>,
}

type Shared = Arc<Mutex<Option<Connect>>>;

enum Control {
    Closed,
    Stop,
}

impl Libvirt {
    /// Follows the libvirt at `uri`. `to` is called on other threads, and must not block.
    pub(crate) fn follow(
        uri: Option<String>,
        to: impl Fn(Notice) + Clone + Send + Sync + 'static,
    ) -> Result<Self, LibvirtError> {
        let event_loop = EventLoop::start()?;
        let connection = Shared::default();
        let (control, controlled) = channel();
        let session = Session {
            uri: uri.clone(),
            shared: connection.clone(),
            closer: control.clone(),
            to,
            _event_loop: event_loop,
        };
        let (ending, ended) = channel();
        let run = move || {
            session.run(&controlled);
            drop(ending);
        };
        let thread = std::thread::Builder::new().name("libvirt guests".into());
        thread.spawn(run).map_err(LibvirtError::Thread)?;
        Ok(Libvirt { uri, connection, control, ended: Mutex::new(ended) })
    }

    /// Reads a guest. Blocks.
    pub(crate) fn read(&self, uuid: &str, sources: &[Source]) -> Result<Known, LibvirtError> {
        let connection = lock(&self.connection).clone().ok_or(LibvirtError::NotConnected)?;
        let handle = connection.lookup_domain_by_uuid_string(uuid);
        let handle = handle.map_err(LibvirtError::Guest)?;
        let mut looker =
            Looker { connection: &connection, sources, privileged: None, uri: self.uri.as_deref() };
        looker.read(&handle)
    }
}

impl Drop for Libvirt {
    fn drop(&mut self) {
        let _ = self.control.send(Control::Stop);
        // A libvirtd that does not answer blocks the thread.
        let ended = self.ended.get_mut().unwrap_or_else(PoisonError::into_inner);
        let _ = ended.recv_timeout(JOIN_TIMEOUT);
    }
}

struct Session<F> {
    uri: Option<String>,
    shared: Shared,
    closer: Sender<Control>,
    to: F,
    /// Last, so that it outlives the connection.
    _event_loop: EventLoop,
}

impl<F: Fn(Notice) + Clone + Send + Sync + 'static> Session<F> {
    fn run(self, controlled: &Receiver<Control>) {
        let mut backoff = Backoff::new(MIN_RETRY, MAX_RETRY);
        loop {
            let since = Instant::now();
            match self.listen(controlled) {
                Ok(Control::Stop) => return,
                Ok(Control::Closed) => {
                    // A connection that ends at once, again and again, must not be retried ten times a second.
                    if since.elapsed() > MAX_RETRY {
                        backoff.reset();
                    }
                    let place = self.uri.as_ref().map(|uri| format!(" at {uri}")).unwrap_or_default();
                    (self.to)(Notice::Lost(format!("libvirt{place} closed the connection")));
                }
                Err(error) => (self.to)(Notice::Lost(error.to_string())),
            }
            if must_stop(controlled, backoff.pause()) {
                return;
            }
        }
    }

    /// The life of one connection.
    fn listen(&self, controlled: &Receiver<Control>) -> Result<Control, LibvirtError> {
        let connection = super::open(self.uri.as_deref())?;
        let failed = LibvirtError::Listen;
        let closer = self.closer.clone();
        let closed = move || drop(closer.send(Control::Closed));
        let _close = CloseCallback::new(&connection, closed).map_err(failed)?;
        let handler = || {
            let to = self.to.clone();
            move |uuid: &str, id, change| {
                to(Notice::Changed { uuid: uuid.into(), id, change, at: Instant::now() });
            }
        };
        // Subscribe before listing the guests, so that no change is missed.
        let _lifecycle = Subscription::lifecycle(&connection, handler()).map_err(failed)?;
        let _devices = Subscription::device_added(&connection, handler()).map_err(failed)?;
        *lock(&self.shared) = Some(connection.clone());
        let control = self.attend(&connection, controlled);
        *lock(&self.shared) = None;
        control.map_err(failed)
    }

    /// Lists the guests, now and twice later, until the connection ends.
    fn attend(
        &self,
        connection: &Connect,
        controlled: &Receiver<Control>,
    ) -> Result<Control, virt::error::Error> {
        for pause in LIST_PAUSES {
            match controlled.recv_timeout(pause) {
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Ok(Control::Stop),
                Ok(control) => return Ok(control),
            }
            (self.to)(Notice::Listing);
            let guests = connection.list_all_domains(virt::sys::VIR_CONNECT_LIST_DOMAINS_ACTIVE)?;
            let present = guests.iter().filter_map(present).collect();
            // A list from a broken connection lacks guests whose state could not be read; they have not left.
            if !connection.is_alive().unwrap_or(false) {
                return Ok(Control::Closed);
            }
            (self.to)(Notice::Present(present));
        }
        Ok(controlled.recv().unwrap_or(Control::Stop))
    }
}

/// Pauses; returns whether the program ends. Events of the previous connection are ignored.
fn must_stop(controlled: &Receiver<Control>, pause: Duration) -> bool {
    let until = Instant::now() + pause;
    loop {
        match controlled.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(Control::Closed) => {}
            Err(RecvTimeoutError::Timeout) => return false,
            Ok(Control::Stop) | Err(RecvTimeoutError::Disconnected) => return true,
        }
    }
}

fn present(handle: &Handle) -> Option<Present> {
    use virt::domain::DomainPausedReason::StartingUp;
    let uuid = handle.uuid_string().ok()?;
    let (state, reason) = handle.state().ok()?;
    let (runs, cause) = match (state, reason) {
        (Enum::Known(DomainState::Running | DomainState::Blocked), Enum::Known(reason)) => {
            (true, running_cause(reason))
        }
        // libvirt is about to start its QEMU, and does not say yet what for. Its events will.
        (
            Enum::Known(DomainState::Paused),
            Enum::Known(DomainStateReason::Paused(Enum::Known(StartingUp))),
        ) => {
            return None;
        }
        (Enum::Known(DomainState::Paused), Enum::Known(reason)) => (false, paused_cause(reason)),
        _ => return None,
    };
    let name = handle.name().ok()?;
    Some(Present { uuid, name, id: handle.id(), runs, cause })
}

fn running_cause(reason: DomainStateReason) -> Option<Cause> {
    use DomainRunningReason::*;
    match reason {
        DomainStateReason::Running(Enum::Known(Migrated | PostCopy | PostCopyFailed)) => {
            Some(Cause::Migrated)
        }
        DomainStateReason::Running(Enum::Known(Restored | FromSnapshot)) => Some(Cause::Restored),
        // It may have arrived paused; one announcement too many does no harm.
        DomainStateReason::Running(Enum::Known(Unpaused)) => Some(Cause::Migrated),
        DomainStateReason::Running(Enum::Known(Booted)) => Some(Cause::Started),
        _ => None,
    }
}

fn paused_cause(reason: DomainStateReason) -> Option<Cause> {
    use virt::domain::DomainPausedReason::*;
    match reason {
        // Paused by the user: it may have been migrated with --suspend.
        DomainStateReason::Paused(Enum::Known(Migration | PostCopy | User)) => Some(Cause::Migrated),
        DomainStateReason::Paused(Enum::Known(FromSnapshot)) => Some(Cause::Restored),
        _ => None,
    }
}

fn lock(connection: &Shared) -> MutexGuard<'_, Option<Connect>> {
    connection.lock().unwrap_or_else(PoisonError::into_inner)
}
