//! Answers every HTTP request with one text: for Prometheus, and only where it is configured.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::task::Context;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::clients;

/// A client that is slower than this is none that asks for metrics.
const PATIENCE: Duration = Duration::from_secs(2);
/// The longest request that is read.
const LONGEST: usize = 8192;
/// An address that is not this host's yet may be so after this long.
const RETRY: Duration = Duration::from_secs(10);

/// Listens at `address`, as soon as that can be had, and answers with what `text` says at the time.
pub async fn serve(address: SocketAddr, text: impl Fn() -> String) -> io::Result<()> {
    let mut is_told = false;
    let listener = loop {
        match TcpListener::bind(address).await {
            Err(error) if matches!(error.kind(), ErrorKind::AddrNotAvailable | ErrorKind::AddrInUse) => {
                if !std::mem::replace(&mut is_told, true) {
                    tracing::warn!("no metrics can be asked for at {address} yet: {error}; trying again");
                }
                tokio::time::sleep(RETRY).await;
            }
            listener => break listener?,
        }
    };
    let accept = |context: &mut Context<'_>| listener.poll_accept(context).map_ok(|(stream, _)| stream);
    clients::serve(accept, PATIENCE, |stream| answer(stream, text())).await
}

async fn answer(mut stream: TcpStream, body: String) -> io::Result<()> {
    let mut request = Vec::new();
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        if request.len() > LONGEST || stream.read_buf(&mut request).await? == 0 {
            return Ok(());
        }
    }
    let head =
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\nConnection: close\r\n";
    let response = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
    stream.write_all(response.as_bytes()).await?;
    stream.shutdown().await
}
