//! The daemon's loop: receives events, asks the ledgers for actions, and carries them out.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use pnet_base::MacAddr;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::{self, JoinSet};
use tokio::time::Instant;

use super::FINISH_TIMEOUT;
use super::board::{Board, Now};
use super::connection::Connection;
use super::publish::{Publisher, Watchdog};
use crate::announcement::uplink::Pace;
use crate::config::Config;
use crate::daemon::control::Asked;
use crate::daemon::history::History;
use crate::daemon::peers::Peers;
use crate::daemon::state::{Ledgers, StateFile};
use crate::guest::GuestState;
use crate::guest::ledger::handover::Word;
use crate::host::libvirt::watch_guests::Notice;
use crate::host::openvswitch::ovsdb;
use crate::path::port_events::PortEvent;
use crate::path::uplink_events::Wanted;
use crate::report::metrics::Gauges;
use crate::report::page::Here;
use crate::report::snapshot::{Paused, Peer};
use crate::report::{Report, count};
use crate::run::host::Host;
use crate::run::settings::SharedSettings;
use crate::run::signals::{Number, Signals, Stop};
use crate::run::{self, ports};

mod announcing;
mod handing_over;
mod listening;
mod locating;
mod pausing;
mod reloading;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
mod uplinks;
mod waiting;

/// How long a libvirt may take to answer at the start before the daemon goes on without it.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two times that pending announcements are saved, so many times as long passes as that took.
const SAVING_PAUSE: u32 = 9;
/// The log line for exhausted injection methods; pending announcements are left to the next daemon.
const NO_METHOD_LEFT: &str = "the helper taps announce0 and announce1 were deleted or set down, no other way into Linux bridges \
    works, and the capabilities to make new ones are given up: restart announced, which then announces what it still owes";

/// An announcement under way.
struct Running {
    /// Of the guest.
    uuid: Arc<str>,
    signals: Signals,
    /// What carries it out, unless its port is still to exist.
    task: Option<task::Id>,
}

impl Running {
    /// It is one before the guest runs.
    fn is_early(&self) -> bool {
        self.signals.order().settings.early
    }
}

/// The daemon's loop with its state.
pub(super) struct Engine {
    file: Option<PathBuf>,
    /// The name of the single guest to announce; the loop ends when nothing is pending for it.
    only: Option<String>,
    config: Config,
    /// The configuration at the start: some keys take effect only then.
    first: Config,
    host: Arc<Host>,
    /// OVSDB, as it was heard of last.
    ovsdb: Peer,
    connections: Vec<Connection>,
    /// The file for pending announcements.
    state_file: Option<StateFile>,
    /// The pending announcements have changed since they were last saved.
    changed: bool,
    /// The last attempt to save them failed.
    unkept: bool,
    /// They are not saved again before.
    save_at: Instant,
    /// The single guest cannot be read.
    given_up: bool,
    /// The moment from which the ledgers count time.
    epoch: Instant,
    /// The states of the guests that are being read, by connection and UUID.
    states: HashMap<(usize, Arc<str>), watch::Sender<GuestState>>,
    running: BTreeMap<Number, Running>,
    /// The running announcements of each guest.
    by_guest: BTreeSet<(Arc<str>, Number)>,
    /// An uplink has changed during these: the NIC of this name is announced again afterwards.
    then_uplink: BTreeMap<Number, String>,
    waiters: waiting::Waiters,
    /// The settings that orders share.
    settings: SharedSettings,
    tasks: JoinSet<(Number, Box<Report>)>,
    reads: JoinSet<announcing::Read>,
    /// Readings that libvirt has not answered in time.
    silences: JoinSet<announcing::Silence>,
    /// What happens to guests' ports, and the guests that are read for it.
    port_events: mpsc::UnboundedReceiver<Vec<PortEvent>>,
    searches: JoinSet<locating::Found>,
    /// What happens to the host's uplinks, which of them count, and the guests that are read for it.
    uplink_events: mpsc::UnboundedReceiver<BTreeSet<String>>,
    wanted_uplinks: watch::Sender<Wanted>,
    behind: JoinSet<uplinks::Behind>,
    /// The announcements for that, by connection, guest and MAC.
    uplink_pace: Pace<(usize, Arc<str>, MacAddr)>,
    /// Guests that are read again for a new configuration.
    again: JoinSet<reloading::ReadAgain>,
    heard: mpsc::UnboundedReceiver<(usize, Notice)>,
    /// The daemons of other hosts.
    peers: Option<Peers>,
    /// What they are to be told.
    words: Vec<(Arc<str>, Word)>,
    publisher: Publisher,
    /// What operators ask for.
    requests: mpsc::UnboundedReceiver<Asked>,
    /// Nothing is sent until then.
    paused: Option<(Paused, Instant)>,
}

impl Engine {
    /// For every guest; continues with the ledgers in `state_file`.
    pub(super) fn new(
        file: Option<PathBuf>,
        config: Config,
        host: Host,
        state_file: StateFile,
        board: Arc<Board>,
        peers: Option<Peers>,
    ) -> Result<Self, String> {
        let ledgers = state_file.load().unwrap_or_default();
        let engine = Self::follow(config, host, ledgers, board)?;
        engine.wanted_uplinks.send_replace(engine.wanted_uplinks());
        let wanted = engine.wanted_uplinks.subscribe();
        let uplink_events = run::uplinks::watch(engine.host.links.clone(), engine.host.ovs.clone(), wanted);
        let port_events = ports::watch(engine.host.links.clone(), engine.host.ovs.clone());
        let publisher = engine.publisher.with_history(History::here());
        let engine =
            Engine { port_events, uplink_events, file, state_file: Some(state_file), publisher, ..engine };
        Ok(engine.with_peers(peers).held_as_before())
    }

    /// For one guest, by name.
    pub(super) fn for_one(guest: String, config: Config, host: Host) -> Result<Self, String> {
        let mut engine = Self::follow(config, host, Ledgers::new(), Arc::default())?;
        // The hook runs because the guest has just arrived.
        engine.connections.iter_mut().for_each(|connection| connection.known = true);
        let publisher = engine.publisher.with_history(History::here());
        Ok(Engine { only: Some(guest), publisher, ..engine })
    }

    fn follow(config: Config, host: Host, mut ledgers: Ledgers, board: Arc<Board>) -> Result<Self, String> {
        let (notices, heard) = mpsc::unbounded_channel();
        let uris = std::iter::once(config.libvirt.uri.clone());
        let uris = uris.chain(config.libvirt.more_uris.iter().cloned().map(Some)).enumerate();
        let connections =
            uris.map(|(number, uri)| Connection::follow(number, uri, &mut ledgers, notices.clone()));
        let connections = connections.collect::<Result<_, _>>()?;
        Ok(Engine::of(config, host, connections, heard, board))
    }

    fn of(
        config: Config,
        host: Host,
        connections: Vec<Connection>,
        heard: mpsc::UnboundedReceiver<(usize, Notice)>,
        board: Arc<Board>,
    ) -> Self {
        let ovsdb = {
            let address = Some(host.ovs_socket.display().to_string());
            let unknown = Peer { peer: "ovsdb".into(), address, ..Peer::default() };
            listening::ovsdb_peer(&unknown, host.ovs.borrow().error.as_ref())
        };
        Engine {
            file: None,
            only: None,
            first: config.clone(),
            config,
            host: Arc::new(host),
            ovsdb,
            connections,
            state_file: None,
            changed: false,
            unkept: false,
            save_at: Instant::now(),
            given_up: false,
            epoch: Instant::now(),
            states: HashMap::new(),
            running: BTreeMap::new(),
            by_guest: BTreeSet::new(),
            then_uplink: BTreeMap::new(),
            waiters: waiting::Waiters::new(),
            settings: SharedSettings::default(),
            tasks: JoinSet::new(),
            reads: JoinSet::new(),
            silences: JoinSet::new(),
            port_events: mpsc::unbounded_channel().1,
            searches: JoinSet::new(),
            uplink_events: mpsc::unbounded_channel().1,
            wanted_uplinks: watch::channel(Wanted::default()).0,
            behind: JoinSet::new(),
            uplink_pace: Pace::default(),
            again: JoinSet::new(),
            heard,
            peers: None,
            words: Vec::new(),
            publisher: Publisher::new(board),
            requests: mpsc::unbounded_channel().1,
            paused: None,
        }
    }

    /// Runs until a signal ends it, or nothing is pending for the single guest.
    pub(super) async fn run(mut self, mut hangup: Signal) -> Result<(), String> {
        let (mut terminate, mut interrupt) =
            (listen_to(SignalKind::terminate())?, listen_to(SignalKind::interrupt())?);
        let mut watchdog = Watchdog::new();
        let mut links = self.host.links.clone();
        let lost = async { while links.changed().await.is_ok() {} };
        tokio::pin!(lost);
        let mut ovs = self.host.ovs.clone();
        let connect_timeout = tokio::time::sleep(CONNECT_TIMEOUT);
        tokio::pin!(connect_timeout);
        let mut waiting = true;
        while !self.is_done() {
            tokio::select! {
                Some((connection, notice)) = self.heard.recv() => self.notice(connection, notice),
                heard = handing_over::heard(&mut self.peers) => self.heed(heard),
                Some(read) = self.reads.join_next() => self.read(read),
                Some(Ok(silence)) = self.silences.join_next() => self.is_silent(silence),
                Some(events) = self.port_events.recv() => self.locate(events),
                Some(Ok(found)) = self.searches.join_next() => self.located(found),
                Some(uplinks) = self.uplink_events.recv() => self.uplinks_changed(&uplinks),
                Some(Ok(behind)) = self.behind.join_next() => self.is_behind(behind),
                Some(Ok(read)) = self.again.join_next() => self.read_again(read),
                Some(ended) = self.tasks.join_next_with_id() => self.ended(ended),
                run = self.waiters.next() => self.look_again(run),
                _ = hangup.recv() => self.reload(),
                Some(asked) = self.requests.recv() => self.asked(asked),
                () = pausing::ends(self.paused.as_ref().map(|(_, end)| *end)) => self.end_of_pause(),
                () = watchdog.due() => {}
                () = tokio::time::sleep_until(self.save_at), if self.is_to_be_saved() => {}
                () = &mut connect_timeout, if waiting => {
                    waiting = false;
                    self.connections.iter_mut().for_each(Connection::give_up_hearing);
                }
                () = changes(&mut ovs, self.ovsdb.connected) => self.note_ovsdb(),
                () = &mut lost => return Err("lost sight of the host's devices".into()),
                signal = ends(&mut interrupt, &mut terminate) => {
                    self.publisher.ends(&format!("{signal} came"));
                    break;
                }
            }
            self.catch_up();
            if !self.words.is_empty() {
                // What a peer is told, the next daemon must know.
                self.save_now();
                self.tell_peers();
            }
            // Actions come first: a frame may be due.
            task::yield_now().await;
            self.save();
            self.show();
            if self.host.injectors.is_exhausted() && self.running.is_empty() {
                self.end().await;
                return Err(NO_METHOD_LEFT.into());
            }
        }
        self.end().await;
        Ok(())
    }

    /// Takes all events that are available: guests that arrive together are saved and shown together.
    fn catch_up(&mut self) {
        while let Ok((connection, notice)) = self.heard.try_recv() {
            self.notice(connection, notice);
        }
        while let Some(read) = self.reads.try_join_next() {
            self.read(read);
        }
        while let Some(ended) = self.tasks.try_join_next_with_id() {
            self.ended(ended);
        }
    }

    /// Shows which guests are here, where a page does: of thousands, those that have changed.
    fn show_here(&mut self) {
        for (number, connection) in self.connections.iter_mut().enumerate() {
            let renewed = connection.ledger.take_renewed();
            for uuid in renewed.into_iter().filter(|_| self.first.metrics.page) {
                let here = connection.ledger.here(&uuid);
                let here = here.map(|(name, runs)| Here { name: name.into(), runs });
                self.publisher.here((number, uuid), here);
            }
        }
    }

    fn show(&mut self) {
        self.show_here();
        let gauges = Gauges {
            in_progress: self.running.len(),
            libvirt: self.connections.iter().all(|connection| connection.connected),
            ovsdb: self.ovsdb.connected,
            ..Gauges::default()
        };
        self.publisher.show(Now {
            guests: self.connections.iter().map(|connection| connection.ledger.len()).sum(),
            gauges,
            peers: self
                .connections
                .iter()
                .map(|connection| &connection.peer)
                .chain([&self.ovsdb])
                .cloned()
                .collect(),
            paused: self.paused.as_ref().map(|(paused, _)| paused.clone()),
        });
        if self.connections.iter().all(|connection| connection.heard) {
            self.publisher.ready();
        }
    }

    fn is_done(&self) -> bool {
        let idle = self.running.is_empty() && self.reads.is_empty();
        let settled =
            |connection: &Connection| connection.connected && !connection.ledger.is_anything_pending();
        self.only.is_some() && idle && (self.given_up || self.connections.iter().all(settled))
    }

    /// Saves pending announcements if they have changed. A frame does not wait for it: if the daemon is killed in between, the next
    /// one sends that again. Those of thousands of guests that change together take milliseconds, of which there are pauses between two
    /// times.
    fn save(&mut self) {
        let now = Instant::now();
        if self.changed && now >= self.save_at {
            self.save_now();
            self.save_at = Instant::now() + SAVING_PAUSE * now.elapsed();
        }
    }

    /// What failed is tried again with the next event.
    fn is_to_be_saved(&self) -> bool {
        self.changed && !self.unkept && self.state_file.is_some()
    }

    fn save_now(&mut self) {
        let Some(state_file) = self.state_file.as_mut().filter(|_| self.changed) else {
            return;
        };
        let ledgers = self.connections.iter_mut();
        let mut ledgers: Vec<_> =
            ledgers.map(|connection| (connection.name.as_str(), &mut connection.ledger)).collect();
        let saved = state_file.save(&mut ledgers);
        // A failed save is repeated with the next event, and logged once.
        self.changed = saved.is_err();
        match (saved, std::mem::replace(&mut self.unkept, self.changed)) {
            (Err(error), false) => tracing::warn!(
                "cannot save pending announcements: {error}; if this daemon ends now, the next one does not finish them"
            ),
            (Ok(()), true) => tracing::info!("pending announcements are saved again"),
            _ => {}
        }
    }

    /// Ends the announcements under way; the next daemon makes them.
    async fn end(mut self) {
        self.publisher.stopping();
        self.changed = true;
        self.state_file.iter_mut().for_each(StateFile::save_all_next);
        self.save_now();
        if !self.running.is_empty() {
            let announcements = count(self.running.len(), "announcement");
            tracing::info!("left to the next daemon: {announcements}");
        }
        for running in self.running.values() {
            running.signals.stop(Stop::Interrupted);
        }
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(FINISH_TIMEOUT, ended).await;
    }
}

/// Listens to SIGHUP from now on, which by default ends a process.
pub(super) fn hangups() -> Result<Signal, String> {
    listen_to(SignalKind::hangup())
}

fn listen_to(kind: SignalKind) -> Result<Signal, String> {
    signal(kind).map_err(|error| format!("cannot listen to signals: {error}"))
}

async fn ends(interrupt: &mut Signal, terminate: &mut Signal) -> &'static str {
    tokio::select! {
        _ = interrupt.recv() => "SIGINT",
        _ = terminate.recv() => "SIGTERM",
    }
}

/// Waits until OVSDB is lost, or there again.
async fn changes(ovs: &mut watch::Receiver<ovsdb::State>, was_connected: bool) {
    if ovs.wait_for(|state| state.error.is_none() != was_connected).await.is_err() {
        std::future::pending().await
    }
}
