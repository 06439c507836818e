//! Serves the daemon's state: to `announce status` on a unix socket, and to Prometheus over HTTP if configured.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io::{self, ErrorKind, Read};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::Semaphore;
use tokio::sync::mpsc::UnboundedSender;

use crate::config::MetricsTable;
use crate::daemon::board::Board;
use crate::daemon::control::{self, Asked};
use crate::daemon::state::runtime_directory;
use crate::report::page;
use crate::run::wall_clock;

/// The status socket in the runtime directory.
const SOCKET: &str = "status.sock";
/// How long a client may take to read the status.
const STATUS_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a client may take to send its HTTP request and to read the answer.
const HTTP_TIMEOUT: Duration = Duration::from_secs(2);
/// How long the daemon may take to answer a client of [`connect`].
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// The maximum size of an HTTP request head, in bytes.
const MAX_REQUEST: usize = 8192;
/// The exposition format's media type.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
/// The number of clients of one listener that are answered at the same time; others wait.
const MAX_CLIENTS: usize = 16;
/// The pause after a failed accept(2), mostly for lack of file descriptors.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// The pause before binding again to an address that this host does not have yet.
const BIND_RETRY: Duration = Duration::from_secs(10);

/// Answers clients on a thread of its own, with the present capabilities: requests cost the daemon's loop nothing.
pub(super) fn start(
    directory: PathBuf,
    metrics: MetricsTable,
    board: Arc<Board>,
    requests: UnboundedSender<Asked>,
) {
    let run = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let serve = async {
            {
                tokio::join!(
                    status(&directory, &board),
                    control(&directory, requests),
                    http(&metrics, &board)
                )
            }
        };
        match runtime {
            Ok(runtime) => drop(runtime.block_on(serve)),
            Err(error) => tracing::warn!("the status is not served: {error}"),
        }
    };
    if let Err(error) = std::thread::Builder::new().name("status".into()).spawn(run) {
        tracing::warn!("the status is not served: {error}");
    }
}

/// Sends the status to each client of the socket in `directory`, without reading a request.
async fn status(directory: &Path, board: &Arc<Board>) {
    let listener = match listen(directory) {
        Ok(listener) => listener,
        Err(error) => return tracing::warn!("the status is not served: {error}"),
    };
    let accept = |context: &mut Context<'_>| listener.poll_accept(context).map_ok(|(stream, _)| stream);
    let send = |mut stream: tokio::net::UnixStream| {
        let board = board.clone();
        async move { drop(stream.write_all(&board.status(Instant::now())).await) }
    };
    clients(accept, STATUS_TIMEOUT, send).await
}

/// Passes requests of root to the loop.
async fn control(directory: &Path, requests: UnboundedSender<Asked>) {
    let listener = match control::listen(directory) {
        Ok(listener) => listener,
        Err(error) => return tracing::warn!("the daemon cannot be paused: {error}"),
    };
    let accept = |context: &mut Context<'_>| listener.poll_accept(context).map_ok(|(stream, _)| stream);
    clients(accept, STATUS_TIMEOUT, |stream| control::serve(stream, requests.clone())).await
}

fn listen(directory: &Path) -> io::Result<UnixListener> {
    let path = directory.join(SOCKET);
    // A daemon that was killed leaves its socket behind.
    let _ = std::fs::remove_file(&path);
    let listener = UnixListener::bind(&path)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666))?;
    Ok(listener)
}

/// The path of the daemon's status socket.
pub(crate) fn socket() -> PathBuf {
    runtime_directory().join(SOCKET)
}

/// A connection to the daemon's status socket, with a timeout for reading.
///
/// # Errors
///
/// No daemon listens there.
pub(crate) fn connect() -> io::Result<UnixStream> {
    let stream = UnixStream::connect(socket())?;
    stream.set_read_timeout(Some(ANSWER_TIMEOUT))?;
    Ok(stream)
}

/// Whether a daemon of any version answers.
pub(crate) fn is_served() -> bool {
    connect().is_ok_and(|mut stream| stream.read_exact(&mut [0]).is_ok())
}

/// Serves the metrics and the page, as they are configured.
async fn http(metrics: &MetricsTable, board: &Arc<Board>) {
    let (Some(address), has_page) = (metrics.listen, metrics.page) else { return };
    let listener = match bind(address).await {
        Ok(listener) => listener,
        Err(error) => return tracing::warn!("the metrics are not served at {address}: {error}"),
    };
    let accept = |context: &mut Context<'_>| listener.poll_accept(context).map_ok(|(stream, _)| stream);
    clients(accept, HTTP_TIMEOUT, |stream| answer(stream, board.clone(), has_page)).await
}

/// Listens at `address` as soon as this host has it and the port is free.
async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let mut is_told = false;
    loop {
        match TcpListener::bind(address).await {
            Err(error) if matches!(error.kind(), ErrorKind::AddrNotAvailable | ErrorKind::AddrInUse) => {
                if !std::mem::replace(&mut is_told, true) {
                    tracing::warn!("the metrics are not served at {address} yet: {error}; trying again");
                }
                tokio::time::sleep(BIND_RETRY).await;
            }
            listener => return listener,
        }
    }
}

/// Answers one request.
async fn answer(stream: TcpStream, board: Arc<Board>, has_page: bool) {
    let service = service_fn(|request: Request<Incoming>| {
        let response = match *request.method() {
            Method::GET | Method::HEAD if has_page => of_page(request.uri().path(), &board),
            Method::GET | Method::HEAD => of_metrics(&board),
            _ => not_allowed(),
        };
        async { Ok::<_, Infallible>(response) }
    });
    let mut server = http1::Builder::new();
    // A client that disconnects or sends no request needs no answer.
    let _ = server
        .keep_alive(false)
        .max_buf_size(MAX_REQUEST)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

/// The page, its style, and at any other path the metrics.
fn of_page(path: &str, board: &Board) -> Response<Full<Bytes>> {
    let mut response = match path.strip_prefix('/') {
        Some("") => content("text/html; charset=utf-8", board.page(&host_name(), &wall_clock::now())),
        Some(page::STYLE_PATH) => content("text/css; charset=utf-8", page::style()),
        _ => return of_metrics(board),
    };
    for (name, value) in [
        (CONTENT_SECURITY_POLICY, page::POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        (CACHE_CONTROL, "no-store"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

/// The metrics, whatever the path.
fn of_metrics(board: &Board) -> Response<Full<Bytes>> {
    content(METRICS_TYPE, board.metrics())
}

fn content(kind: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(text.into());
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

fn not_allowed() -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
    response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    response
}

fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    name.trim().to_owned()
}

/// Answers each client that `accept` returns with `answer`, within `timeout`.
async fn clients<C, A>(
    mut accept: impl FnMut(&mut Context<'_>) -> Poll<io::Result<C>>,
    timeout: Duration,
    answer: impl Fn(C) -> A,
) where
    A: Future<Output = ()> + Send + 'static,
{
    let room = Arc::new(Semaphore::new(MAX_CLIENTS));
    loop {
        let place = room.clone().acquire_owned().await;
        match poll_fn(&mut accept).await {
            Ok(client) => {
                let answered = tokio::time::timeout(timeout, answer(client));
                tokio::spawn(async move {
                    // A client that disconnects or does not read needs no answer.
                    let _ = answered.await;
                    drop(place);
                });
            }
            Err(_) => tokio::time::sleep(ACCEPT_RETRY).await,
        }
    }
}
