//! `announced`: announces each guest that begins to run here.
//!
//! One loop waits for libvirt's events, the results of announcements, and signals. The
//! [`Ledger`](crate::guest::ledger::Ledger) decides, and is saved so that the next daemon can continue.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use caps::Capability;
use tokio::sync::mpsc;

use crate::announcement::injection::Method;
use crate::config::{Config, DEFAULT_FILE};
use crate::daemon::state::StateFile;
use crate::host::injector::Injectors;
use crate::host::{privileges, sys};
use crate::log::DaemonLog;
use crate::report::count;
use crate::report::handed_over::Handovers;
use crate::report::snapshot::{Daemon, MissingInjector};
use crate::run::guest_asker::MAX_ASKERS;
use crate::run::host::Host;
use crate::run::wall_clock;

mod board;
mod connection;
pub(crate) mod control;
mod engine;
pub(crate) mod history;
mod pause;
mod peers;
mod publish;
mod reading;
pub(crate) mod serve;
mod source;
mod state;
mod systemd;

use board::Board;
use engine::{Engine, hangups};
use peers::Peers;
use source::ConfigSource;

/// sysexits(3), EX_CONFIG.
const BAD_CONFIGURATION: i32 = 78;
/// How long the announcements under way may take to end when the daemon ends.
const FINISH_TIMEOUT: Duration = Duration::from_secs(2);
/// Threads for blocking work other than requests to libvirt: closing descriptors and looking up devices.
const MAX_OTHER_THREADS: usize = 16;

/// Runs announced(8) with the configuration `file`.
pub fn main(file: Option<PathBuf>) -> ! {
    sys::share_memory();
    let log = crate::log::for_daemon();
    let status = start(file, &log);
    log.finish();
    // A hanging libvirt may occupy one of our threads, beside which the destructors of its libraries must not run.
    sys::leave(status)
}

fn start(file: Option<PathBuf>, log: &DaemonLog) -> i32 {
    let source = ConfigSource::look(file.as_deref());
    let config = match Config::load(file.as_deref()) {
        Ok(config) => config,
        Err(error) => {
            tracing::error!("{error}");
            return BAD_CONFIGURATION;
        }
    };
    if let Err(error) = config.peers.keys() {
        tracing::error!("{error}");
        return BAD_CONFIGURATION;
    }
    advise(file.as_deref(), &config);
    let libvirts = 1 + config.libvirt.more_uris.len();
    match block_on(libvirts, run(file, source, config, log)) {
        Ok(()) => 0,
        Err(why) => {
            tracing::error!("{why}");
            1
        }
    }
}

/// Announces one guest that begins to run here, for the libvirt hook with the process id `hook`.
///
/// Leaves the guest to the daemon if that runs. Returns when the guest is announced, has left, or needs no announcement.
pub fn for_hook(guest: String, hook: i32, mut config: Config) -> Result<(), String> {
    if serve::is_served() {
        return Ok(());
    }
    // The hook belongs to the first libvirt; the others need not run.
    config.libvirt.more_uris.clear();
    block_on(1, async {
        // libvirt waits for the hook, and must not be asked anything until then.
        sys::ended(hook).await.map_err(|error| format!("cannot wait for the hook: {error}"))?;
        let (host, _) = host(&config).await?;
        let _ = std::fs::create_dir_all(state::runtime_directory());
        Engine::for_one(guest, config, host)?.run(hangups()?).await
    })
}

/// Logs the unwise values of the configuration.
fn advise(file: Option<&Path>, config: &Config) {
    let file = file.unwrap_or(Path::new(DEFAULT_FILE)).display();
    config.advice().iter().for_each(|advice| tracing::warn!("{file}: {advice}"));
}

/// Runs the daemon's work with this number of libvirt connections.
fn block_on(libvirts: usize, work: impl Future<Output = Result<(), String>>) -> Result<(), String> {
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let threads = libvirts * (connection::MAX_READERS + MAX_ASKERS) + MAX_OTHER_THREADS;
    let runtime = runtime.enable_all().max_blocking_threads(threads).build();
    let runtime = runtime.map_err(|error| format!("cannot start: {error}"))?;
    let done = runtime.block_on(work);
    runtime.shutdown_timeout(FINISH_TIMEOUT);
    done
}

async fn run(
    file: Option<PathBuf>,
    source: ConfigSource,
    config: Config,
    log: &DaemonLog,
) -> Result<(), String> {
    let hangup = hangups()?;
    let directory = state::runtime_directory();
    let keep = StateFile::open(&directory)?;
    let (host, injectors) = host(&config).await?;
    let missing = injectors.warm_up().await.into_iter();
    let missing =
        missing.map(|(method, why)| MissingInjector { injector: method.word().into(), why: why.to_string() });
    let missing: Vec<MissingInjector> = missing.collect();
    for MissingInjector { injector, why } in &missing {
        tracing::warn!("the injection method {injector} is not available: {why}");
    }
    give_up_privileges(&config, &injectors)?;
    log.start();
    let board = Arc::new(Board::of(host.sent.clone()));
    // Guests are announced all the same.
    let peers = Peers::open(&config, &board).await.unwrap_or_else(|why| {
        tracing::warn!("{why}; no peer is told or heard until announced is restarted");
        None
    });
    board.describe(|daemon| {
        source.describe(daemon);
        (daemon.pid, daemon.started_at) = (std::process::id(), wall_clock::now());
        daemon.version = env!("CARGO_PKG_VERSION").into();
        daemon.missing_injectors = missing;
        daemon.handover = peers.as_ref().map(|peers| handovers(peers, &config));
        tracing::info!("{}", starting(daemon, &config, &host));
    });
    let (requests, asked) = mpsc::unbounded_channel();
    serve::start(directory, config.metrics.clone(), board.clone(), requests);
    Engine::new(file, config, host, keep, board, peers)?.asked_by(asked).run(hangup).await
}

/// The peers as they are shown.
fn handovers(peers: &Peers, config: &Config) -> Handovers {
    let names = config.peers.addresses.iter().map(ToString::to_string).collect();
    Handovers { listen: peers.listens_at(), peers: names, ..Handovers::default() }
}

/// `announced 0.1.0 starts: configuration /etc/announced/announced.toml; OVSDB …; ways in …`.
fn starting(daemon: &Daemon, config: &Config, host: &Host) -> String {
    let file = daemon.config.as_deref().map_or("the defaults, no file".to_owned(), str::to_owned);
    let socket = host.ovs_socket.display();
    let ovsdb = match &host.ovs.borrow().error {
        None => format!("OVSDB connected at {socket}"),
        Some(error) if error.is_absence => "no Open vSwitch".to_owned(),
        Some(error) => format!("OVSDB NOT connected: {}", error.why),
    };
    let is_missing =
        |method: &&Method| daemon.missing_injectors.iter().any(|missing| missing.injector == method.word());
    let ways: Vec<&str> = [Method::Redirect, Method::Xdp, Method::PacketOut, Method::Packet]
        .iter()
        .filter(|method| !is_missing(method))
        .map(|method| method.word())
        .collect();
    let metrics = config.metrics.listen.map(|listen| format!("; metrics at {listen}")).unwrap_or_default();
    let handover = daemon.handover.as_ref();
    let handover = handover.map(|shown| {
        format!("; {} told of migrations, and heard at {}", count(shown.peers.len(), "peer"), shown.listen)
    });
    let handover = handover.unwrap_or_default();
    format!(
        "announced {} starts: configuration {file}; {ovsdb}; ways in {}{metrics}{handover}",
        daemon.version,
        ways.join(", ")
    )
}

async fn host(config: &Config) -> Result<(Host, Arc<Injectors>), String> {
    Host::watch(config).await.map_err(|error| error.to_string())
}

fn give_up_privileges(config: &Config, injectors: &Injectors) -> Result<(), String> {
    // CAP_NET_ADMIN is kept only for writing the FDB.
    let fdb = (config.ports.inject == Some(Method::Fdb)).then_some(Capability::CAP_NET_ADMIN);
    let kept: Vec<Capability> = fdb.into_iter().chain([Capability::CAP_NET_RAW]).collect();
    privileges::drop_all_but(&kept, || injectors.is_usable()).map_err(|error| error.to_string())
}
