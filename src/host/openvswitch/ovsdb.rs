//! Watches Open vSwitch's database, and keeps an [`Ovs`] up to date (RFC 7047; `vswitch.ovsschema`).
//!
//! The connection only reads. On a host without Open vSwitch its absence is normal. A broken connection is made again, with
//! a new dump of all rows.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout};

use super::jsonrpc::Connection;
use super::{arrival, carried_out, rows};
use crate::host::backoff::Backoff;
use crate::path::ovs::{Ovs, Unreachable};

const DATABASE: &str = "Open_vSwitch";
/// The directories of OVSDB's socket, in the order of searching, after `$OVS_RUNDIR`.
const RUN_DIRECTORIES: [&str; 2] = ["/run/openvswitch", "/var/run/openvswitch"];
const SOCKET: &str = "db.sock";
const MIN_RETRY: Duration = Duration::from_millis(100);
const MAX_RETRY: Duration = Duration::from_secs(5);
/// How long a server may take to list its rows.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// The minimum of that time, even if the caller does not want to wait.
const MIN_ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// The inactivity probe of OVSDB's own clients (`inactivity_probe`).
const INACTIVITY_PROBE: Duration = Duration::from_secs(5);

/// The state of Open vSwitch.
#[derive(Debug, Clone)]
pub(crate) struct State {
    /// The rows at the last update.
    pub ovs: Ovs,
    /// Why OVSDB does not answer now.
    pub error: Option<Unreachable>,
    /// The moment from which the times in it are counted.
    pub epoch: Instant,
}

impl State {
    pub(super) fn now(&self) -> Duration {
        self.epoch.elapsed()
    }

    /// Has ovs-vswitchd asked about changes that are not counted, if there are new ones.
    fn ask(&self, due: &Notify) {
        if self.ovs.answers.is_due() {
            due.notify_one();
        }
    }
}

/// Why OVSDB cannot be used.
#[derive(Debug, thiserror::Error)]
enum OvsdbError {
    #[error("cannot connect to {0}: {1}")]
    Connect(PathBuf, io::Error),
    #[error("lost the connection to {0}: {1}")]
    Lost(PathBuf, io::Error),
    #[error("no answer from {0}")]
    NoAnswer(PathBuf),
    #[error("{0} refuses to be monitored: {1}")]
    Refused(PathBuf, Value),
}

impl OvsdbError {
    /// The server does not exist.
    fn is_absence(&self) -> bool {
        matches!(self, OvsdbError::Connect(_, error) if error.kind() == io::ErrorKind::NotFound)
    }
}

/// The default socket: the first that exists, else the most usual one.
pub(crate) fn default_socket() -> PathBuf {
    let from_environment = std::env::var_os("OVS_RUNDIR").map(PathBuf::from);
    let directories = from_environment.into_iter().chain(RUN_DIRECTORIES.map(PathBuf::from));
    let mut sockets = directories.map(|directory| directory.join(SOCKET));
    sockets.find(|socket| socket.exists()).unwrap_or_else(|| Path::new(RUN_DIRECTORIES[0]).join(SOCKET))
}

/// Whether the directory of the socket has anything else, as it does while ovs-vswitchd runs.
fn has_other_sockets(socket: &Path) -> bool {
    let entries = socket.parent().and_then(|directory| std::fs::read_dir(directory).ok());
    entries.is_some_and(|mut entries| entries.next().is_some())
}

/// Connects, and keeps the state up to date for as long as a receiver exists.
///
/// Returns when the rows are known, or the reason why they are not; the latter after about `wait`.
pub(crate) async fn watch(socket: PathBuf, wait: Duration) -> watch::Receiver<State> {
    let mut state = State { ovs: Ovs::default(), error: None, epoch: Instant::now() };
    let first = start(&socket, &mut state, wait.clamp(MIN_ANSWER_TIMEOUT, ANSWER_TIMEOUT)).await;
    let unreachable = |error: &OvsdbError| Unreachable {
        why: error.to_string(),
        since: state.now(),
        is_absence: error.is_absence() && !has_other_sockets(&socket),
    };
    state.error = first.as_ref().err().map(unreachable);
    let due = Notify::new();
    state.ask(&due);
    let (sender, receiver) = watch::channel(state);
    let directory = socket.parent().map(PathBuf::from).unwrap_or_default();
    tokio::spawn(async move {
        tokio::select! {
            () = keep(&socket, first, &due, &sender) => {}
            () = carried_out::keep(&directory, &due, &sender) => {}
            () = sender.closed() => {}
        }
    });
    receiver
}

/// Follows the connection. If it is lost or refused, connects again after growing pauses, and as soon as a server appears.
async fn keep(socket: &Path, first: Result<Connection, OvsdbError>, due: &Notify, to: &watch::Sender<State>) {
    let mut connection = first;
    let mut backoff = Backoff::new(MIN_RETRY, MAX_RETRY);
    let mut is_loss_told = false;
    loop {
        match connection {
            Ok(connection) => {
                let since = Instant::now();
                let error = follow(socket, connection, due, to).await.to_string();
                if since.elapsed() > MAX_RETRY {
                    backoff.reset();
                }
                // Warn once about a server that accepts and then closes connections.
                is_loss_told = backoff.is_first();
                match is_loss_told {
                    true => tracing::warn!("{error}"),
                    false => tracing::debug!("{error}"),
                }
                to.send_modify(|state| {
                    state.error = Some(Unreachable { why: error, since: state.now(), is_absence: false });
                });
            }
            Err(error) => {
                tracing::debug!("{error}");
                // A host without Open vSwitch must not be woken up periodically.
                if error.is_absence() && arrival::of(socket).await.is_ok() {
                    backoff.reset();
                }
            }
        }
        tokio::time::sleep(backoff.pause()).await;
        let mut state = to.borrow().clone();
        connection = start(socket, &mut state, ANSWER_TIMEOUT).await;
        if connection.is_ok() {
            state.ask(due);
            to.send_replace(State { error: None, ..state });
            if std::mem::take(&mut is_loss_told) {
                tracing::info!("connected to OVSDB at {} again", socket.display());
            }
        }
    }
}

/// Connects and reads every row.
async fn start(socket: &Path, state: &mut State, wait: Duration) -> Result<Connection, OvsdbError> {
    let lost = |error| OvsdbError::Lost(socket.into(), error);
    let attempt = async {
        let opened = Connection::open(socket).await;
        let mut connection = opened.map_err(|error| OvsdbError::Connect(socket.into(), error))?;
        let id = json!(0);
        let monitor = json!({"id": id, "method": "monitor", "params": [DATABASE, null, rows::columns()]});
        connection.send(&monitor).await.map_err(lost)?;
        loop {
            let message = connection.receive().await.map_err(lost)?;
            if message["id"] != id || message.get("result").is_none() {
                answer(&mut connection, message).await.map_err(lost)?;
                continue;
            }
            if !message["error"].is_null() {
                return Err(OvsdbError::Refused(socket.into(), message["error"].clone()));
            }
            state.ovs = rows::listed(&message["result"], &state.ovs, state.now());
            return Ok(connection);
        }
    };
    let in_time = timeout(wait, attempt).await;
    in_time.unwrap_or_else(|_| Err(OvsdbError::NoAnswer(socket.into())))
}

async fn follow(
    socket: &Path,
    mut connection: Connection,
    due: &Notify,
    to: &watch::Sender<State>,
) -> OvsdbError {
    loop {
        let step = match next(&mut connection, INACTIVITY_PROBE).await {
            Ok(message) => match updates(&message) {
                Some(updates) => {
                    to.send_if_modified(|state| {
                        let now = state.now();
                        let has_changed = rows::apply(&mut state.ovs, updates, now);
                        state.ask(due);
                        has_changed
                    });
                    Ok(())
                }
                None => answer(&mut connection, message).await,
            },
            Err(error) => Err(error),
        };
        if let Err(error) = step {
            return OvsdbError::Lost(socket.into(), error);
        }
    }
}

/// The next message. A server that sends nothing for `probe` gets an echo request (RFC 7047 section 4.1.11), and the same
/// time to answer.
async fn next(connection: &mut Connection, probe: Duration) -> io::Result<Value> {
    if let Ok(message) = timeout(probe, connection.receive()).await {
        return message;
    }
    let answered = timeout(probe, async {
        connection.send(&json!({"id": "echo", "method": "echo", "params": []})).await?;
        connection.receive().await
    });
    let hangs = || io::Error::new(io::ErrorKind::TimedOut, format!("no answer to an echo within {probe:?}"));
    answered.await.unwrap_or_else(|_| Err(hangs()))
}

/// The rows of an update notification.
fn updates(message: &Value) -> Option<&Value> {
    (message["method"] == "update").then(|| &message["params"][1])
}

/// Answers the server's echo request.
async fn answer(connection: &mut Connection, mut message: Value) -> io::Result<()> {
    if message["method"] == "echo" {
        let reply = json!({"id": message["id"].take(), "result": message["params"].take(), "error": null});
        connection.send(&reply).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixListener;

    use super::*;

    const PROBE: Duration = Duration::from_millis(20);

    #[tokio::test]
    async fn a_silent_server_is_probed_and_lost_if_it_does_not_answer() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("db.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let mut client = Connection::open(&socket).await.unwrap();
        let mut server = Connection::over(listener.accept().await.unwrap().0);
        let answers = async {
            let mut question = server.receive().await.unwrap();
            assert_eq!(question["method"], "echo");
            answer(&mut server, question.take()).await.unwrap();
        };
        let (message, ()) = tokio::join!(next(&mut client, PROBE * 50), answers);
        assert_eq!(message.unwrap(), json!({"id": "echo", "result": [], "error": null}));

        let error = next(&mut client, PROBE).await.unwrap_err();
        assert_eq!(error.to_string(), "no answer to an echo within 20ms");
        assert_eq!(server.receive().await.unwrap()["method"], "echo");
    }
}
