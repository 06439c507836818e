//! Serves the daemon's state: to `announce status` on a unix socket, and to Prometheus by HTTP where that is configured.

use std::future::poll_fn;
use std::io::{self, ErrorKind, Read};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::{Semaphore, watch};

use crate::daemon::state::runtime_directory;
use crate::report::snapshot::Snapshot;

/// The status socket in the runtime directory.
const SOCKET: &str = "status.sock";
/// How long a client may take to read the status.
const STATUS_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a client may take to send its HTTP request and to read the answer.
const HTTP_TIMEOUT: Duration = Duration::from_secs(2);
/// How long the daemon may take to answer [`connect`]'s client.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest HTTP request that is read, in bytes.
const MAX_REQUEST: usize = 8192;
/// The clients of one listener that are answered at the same time; the others wait.
const MAX_CLIENTS: usize = 16;
/// The pause after a failed accept(2), mostly for want of file descriptors.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// The pause before an address that is not this host's yet is tried again.
const BIND_RETRY: Duration = Duration::from_secs(10);

/// Sends what `snapshot` holds to each client of the status socket in `directory`, and reads nothing.
///
/// # Errors
///
/// The socket cannot be made.
pub(crate) async fn status(directory: &Path, snapshot: watch::Receiver<Snapshot>) -> io::Result<()> {
    let path = directory.join(SOCKET);
    // A daemon that was killed has left it behind.
    let _ = std::fs::remove_file(&path);
    let listener = UnixListener::bind(&path)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666))?;
    let accept = |context: &mut Context<'_>| listener.poll_accept(context).map_ok(|(stream, _)| stream);
    let send = |mut stream: tokio::net::UnixStream| {
        let text = serde_json::to_vec(&*snapshot.borrow()).unwrap_or_default();
        async move { stream.write_all(&text).await }
    };
    clients(accept, STATUS_TIMEOUT, send).await
}

/// The path of the daemon's status socket.
pub(crate) fn socket() -> PathBuf {
    runtime_directory().join(SOCKET)
}

/// A connection to the daemon's status socket, with a time-out for reading.
///
/// # Errors
///
/// No daemon listens there.
pub(crate) fn connect() -> io::Result<UnixStream> {
    let stream = UnixStream::connect(socket())?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    Ok(stream)
}

/// Whether a daemon answers, of whatever version.
pub(crate) fn is_served() -> bool {
    connect().is_ok_and(|mut stream| stream.read_exact(&mut [0]).is_ok())
}

/// Listens at `address`, as soon as that can be had, and answers with what `text` says at the time.
pub(crate) async fn metrics(address: SocketAddr, text: impl Fn() -> String) -> io::Result<()> {
    let mut is_told = false;
    let listener = loop {
        match TcpListener::bind(address).await {
            Err(error) if matches!(error.kind(), ErrorKind::AddrNotAvailable | ErrorKind::AddrInUse) => {
                if !std::mem::replace(&mut is_told, true) {
                    tracing::warn!("no metrics can be asked for at {address} yet: {error}; trying again");
                }
                tokio::time::sleep(BIND_RETRY).await;
            }
            listener => break listener?,
        }
    };
    let accept = |context: &mut Context<'_>| listener.poll_accept(context).map_ok(|(stream, _)| stream);
    clients(accept, HTTP_TIMEOUT, |stream| answer(stream, text())).await
}

async fn answer(mut stream: TcpStream, body: String) -> io::Result<()> {
    let mut request = Vec::new();
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        if request.len() > MAX_REQUEST || stream.read_buf(&mut request).await? == 0 {
            return Ok(());
        }
    }
    let head =
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\nConnection: close\r\n";
    let response = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
    stream.write_all(response.as_bytes()).await?;
    stream.shutdown().await
}

/// Lets `answer` answer each client that the listener's `accept` brings, within `timeout`.
async fn clients<C, A>(
    mut accept: impl FnMut(&mut Context<'_>) -> Poll<io::Result<C>>,
    timeout: Duration,
    answer: impl Fn(C) -> A,
) -> !
where
    A: Future<Output = io::Result<()>> + Send + 'static,
{
    let room = Arc::new(Semaphore::new(MAX_CLIENTS));
    loop {
        let place = room.clone().acquire_owned().await;
        match poll_fn(&mut accept).await {
            Ok(client) => {
                let answered = tokio::time::timeout(timeout, answer(client));
                tokio::spawn(async move {
                    // A client that has gone away, or does not read, has what it deserves.
                    let _ = answered.await;
                    drop(place);
                });
            }
            Err(_) => tokio::time::sleep(ACCEPT_RETRY).await,
        }
    }
}
