//! The control socket: requests of root to the daemon, one JSON object each, and the answers.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::unistd::geteuid;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};

use crate::announcement::hold;
use crate::daemon::state::runtime_directory;

/// The socket in the runtime directory.
const SOCKET: &str = "control.sock";
/// The longest request, in bytes.
const MAX_REQUEST: u64 = 4096;
/// How long the daemon may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// What the daemon shall do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) enum Request {
    /// Send nothing for a time; in place of the pause that there is.
    Pause {
        /// For so many milliseconds.
        for_ms: u64,
        /// Why.
        reason: Option<String>,
    },
    /// Send again.
    Resume,
}

/// The answer: a line for the operator, or why it cannot be done.
pub(crate) type Answer = Result<String, String>;

/// A request, and where its answer goes.
pub(super) struct Asked {
    pub request: Request,
    /// Whose it is.
    pub uid: u32,
    pub answer: oneshot::Sender<Answer>,
}

impl Request {
    fn check(&self) -> Result<(), String> {
        match self {
            Request::Pause { for_ms, .. } => {
                hold::check(Duration::from_millis(*for_ms)).map(drop).map_err(|why| why.to_string())
            }
            Request::Resume => Ok(()),
        }
    }
}

/// A listener in `directory` that only the daemon's own user and root can connect to.
pub(super) fn listen(directory: &Path) -> io::Result<UnixListener> {
    let path = directory.join(SOCKET);
    // A daemon that was killed leaves its socket behind.
    let _ = std::fs::remove_file(&path);
    let listener = UnixListener::bind(&path)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Passes the request of a client to the daemon's loop, and answers.
pub(super) async fn serve(mut client: UnixStream, to: mpsc::UnboundedSender<Asked>) {
    let answer = ask_the_loop(&mut client, &to).await;
    let mut line = serde_json::to_vec(&answer).unwrap_or_default();
    line.push(b'\n');
    // A client that does not read needs no answer.
    let _ = client.write_all(&line).await;
}

async fn ask_the_loop(client: &mut UnixStream, to: &mpsc::UnboundedSender<Asked>) -> Answer {
    let uid = client.peer_cred().map_err(|error| error.to_string())?.uid();
    // The mode of the socket says the same.
    if uid != 0 && uid != geteuid().as_raw() {
        return Err("only root may do that".into());
    }
    let mut line = Vec::new();
    let mut reader = tokio::io::BufReader::new(client).take(MAX_REQUEST);
    reader.read_until(b'\n', &mut line).await.map_err(|error| error.to_string())?;
    let request: Request =
        serde_json::from_slice(&line).map_err(|error| format!("the request is not understood: {error}"))?;
    request.check()?;
    let (answer, answered) = oneshot::channel();
    let ending = |_| "the daemon is ending".to_owned();
    to.send(Asked { request, uid, answer }).map_err(|_| ending(()))?;
    answered.await.map_err(|_| ending(()))?
}

/// The path of the socket.
pub(crate) fn socket() -> PathBuf {
    runtime_directory().join(SOCKET)
}

/// Asks the daemon, and waits for its answer.
///
/// # Errors
///
/// It cannot be asked, or does not answer.
pub(crate) fn ask(request: &Request) -> io::Result<Answer> {
    let mut stream = std::os::unix::net::UnixStream::connect(socket())?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer)?;
    Ok(serde_json::from_str(&answer)?)
}
