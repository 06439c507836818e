//! What systemd is told, without ever waiting for it (sd_notify(3)).

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use sd_notify::NotifyState;

/// Whoever started the daemon, if that wants to be told.
pub(super) struct Systemd(Option<UnixDatagram>);

impl Systemd {
    /// As `$NOTIFY_SOCKET` asks for.
    pub(super) fn new() -> Self {
        Systemd(std::env::var("NOTIFY_SOCKET").ok().and_then(|name| connect(&name)))
    }

    /// Tells something that systemd can do without: nothing is told while the last messages have not been read. A write that
    /// waits for the reader would hold up all announcements.
    pub(super) fn mention(&self, state: &NotifyState<'_>) {
        if let Some(socket) = &self.0 {
            let _ = socket.send(state.to_string().as_bytes());
        }
    }
}

fn connect(name: &str) -> Option<UnixDatagram> {
    let address = match name.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(name),
    };
    let socket = UnixDatagram::unbound().ok()?;
    socket.set_nonblocking(true).ok()?;
    socket.connect_addr(&address.ok()?).ok()?;
    Some(socket)
}
