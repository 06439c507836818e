//! libvirt's errors, each in one line.

use std::io;

use virt::error::Error;

use crate::guest::domain::DomainError;
use crate::host::sys::libvirt::EventLoopError;

/// What we were doing, and libvirt's error.
#[derive(Debug, thiserror::Error)]
pub enum LibvirtError {
    /// The event loop does not run.
    #[error(transparent)]
    EventLoop(#[from] EventLoopError),
    /// No thread could be started.
    #[error("cannot start a thread for libvirt: {0}")]
    Thread(io::Error),
    /// libvirt does not run, or refuses the connection.
    #[error("cannot connect to libvirt at {uri}: {}", .error.message())]
    Connect {
        /// The URI.
        uri: String,
        /// libvirt's error.
        error: Error,
    },
    /// The connection was lost, and may be restored.
    #[error("there is no connection to libvirt")]
    NotConnected,
    /// Events of guests cannot be received.
    #[error("cannot listen to libvirt: {}", .0.message())]
    Listen(Error),
    /// The guests cannot be listed.
    #[error("cannot list the VMs: {}", .0.message())]
    List(Error),
    /// libvirt refuses a request about a guest.
    #[error("{}", .0.message())]
    Guest(Error),
    /// libvirt does not know a guest's state.
    #[error("libvirt does not know its state")]
    State,
    /// A guest's XML cannot be used.
    #[error(transparent)]
    Domain(#[from] DomainError),
}
