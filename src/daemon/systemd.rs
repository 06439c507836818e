//! Notifications to systemd, without ever waiting for it (sd_notify(3)).

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use sd_notify::NotifyState;

/// The `$NOTIFY_SOCKET`, if set.
pub(super) struct Systemd(Option<UnixDatagram>);

impl Systemd {
    /// Connects to `$NOTIFY_SOCKET`.
    pub(super) fn new() -> Self {
        Systemd(std::env::var("NOTIFY_SOCKET").ok().and_then(|name| connect(&name)))
    }

    /// Sends a notification that systemd can do without. It is dropped while previous ones are unread: a blocking write
    /// would delay all announcements.
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
