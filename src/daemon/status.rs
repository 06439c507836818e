//! What the daemon did and is doing: told by it, read by `announce status`.

use std::fmt;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::task::Context;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixListener;
use tokio::sync::watch;

use crate::daemon::clients;
use crate::guest::target::printable;
use crate::report::metrics::{Gauges, Metrics};

/// The daemon's directory when systemd names none.
const RUNTIME_DIRECTORY: &str = "/run/announced";
/// The socket in it.
pub const SOCKET: &str = "status.sock";
/// A client that is slower than this does not read.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long the daemon may take to answer.
const ANSWER: Duration = Duration::from_secs(5);

/// The daemon at one moment.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Status {
    /// [`crate::report::VERSION`].
    pub version: u32,
    /// Guests of this host.
    pub guests: usize,
    /// What is true now.
    pub gauges: Gauges,
    /// Who is being announced.
    pub in_progress: Vec<String>,
    /// The last reports, the latest last.
    pub recent: Vec<Value>,
    /// What was counted.
    pub metrics: Metrics,
}

/// The daemon's directory: `$RUNTIME_DIRECTORY`, as systemd sets it.
pub fn runtime_directory() -> PathBuf {
    std::env::var_os("RUNTIME_DIRECTORY").map_or_else(|| RUNTIME_DIRECTORY.into(), PathBuf::from)
}

/// Tells whoever connects to the socket what `status` says, and reads nothing.
pub async fn serve(directory: &Path, status: watch::Receiver<Status>) -> io::Result<()> {
    let path = directory.join(SOCKET);
    // A daemon that was killed has left it behind.
    let _ = std::fs::remove_file(&path);
    let listener = UnixListener::bind(&path)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666))?;
    let accept = |context: &mut Context<'_>| listener.poll_accept(context).map_ok(|(stream, _)| stream);
    let tell = |mut stream: tokio::net::UnixStream| {
        let text = serde_json::to_vec(&*status.borrow()).unwrap_or_default();
        async move { stream.write_all(&text).await }
    };
    clients::serve(accept, PATIENCE, tell).await
}

/// Asks the daemon.
pub fn ask() -> io::Result<Status> {
    Ok(serde_json::from_reader(BufReader::new(connect()?))?)
}

/// A daemon answers, of whatever version it is.
pub fn is_served() -> bool {
    connect().is_ok_and(|mut stream| stream.read_exact(&mut [0]).is_ok())
}

fn connect() -> io::Result<UnixStream> {
    let stream = UnixStream::connect(runtime_directory().join(SOCKET))?;
    stream.set_read_timeout(Some(ANSWER))?;
    Ok(stream)
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = |up: bool| if up { "connected" } else { "not connected" };
        let Gauges { libvirt, ovsdb, in_progress } = self.gauges;
        write!(f, "libvirt {}, OVSDB {}; {} guests", word(libvirt), word(ovsdb), self.guests)?;
        write!(f, "; {in_progress} announcements under way")?;
        self.in_progress.iter().try_for_each(|subject| write!(f, "\n  {subject}"))?;
        self.recent.iter().try_for_each(|report| write!(f, "\n{}", line(report)))
    }
}

impl Status {
    /// The reports that are remembered of a guest, by its name or UUID, or by the MAC or the device of a NIC.
    pub fn of(&self, guest: &str) -> impl Iterator<Item = &Value> {
        let is = move |report: &&Value| {
            let names =
                [&report["domain"]["name"], &report["domain"]["uuid"], &report["mac"], &report["device"]];
            names.iter().any(|name| name.as_str() == Some(guest))
        };
        self.recent.iter().filter(is)
    }
}

/// A report that is remembered, in one line.
pub fn line(report: &Value) -> String {
    let text = |key: &str| report[key].as_str().unwrap_or_default();
    let name = printable(report["domain"]["name"].as_str().unwrap_or_default());
    let mut line = format!("{} {name} {} {}: ", text("at"), text("device"), text("mac"));
    line += &format!("{} ({})", text("outcome"), text("cause"));
    if let Some(first) = report["first_frame_after_ms"].as_f64() {
        line += &format!(", first frame after {first} ms, {} rounds", report["rounds"]);
    }
    let (departure, reply) = (&report["departure"], &report["returned_after_ms"]);
    if let (Some(device), Some(after)) = (departure["device"].as_str(), report["left_host_after_ms"].as_f64())
    {
        line += &format!(", left by {device} after {after} ms");
        line += &reply
            .as_f64()
            .map_or(", no frame for it yet".into(), |at| format!(", first frame for it after {at} ms"));
    }
    let troubles = [&report["error"], &report["unseen"], &report["stale"]];
    let stuck = report["stuck"].as_array().into_iter().flatten();
    for trouble in troubles.into_iter().chain(stuck).filter_map(Value::as_str) {
        line += &format!(": {trouble}");
    }
    line
}
