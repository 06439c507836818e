//! What goes wrong with libvirt, each in one line.

use std::io;

use virt::error::Error;

use crate::guest::domain;
use crate::host::sys::libvirt::EventLoopError;

/// What was being done, and libvirt's word for what was wrong.
#[derive(Debug, thiserror::Error)]
pub enum LibvirtError {
    /// Nothing can be heard.
    #[error(transparent)]
    EventLoop(#[from] EventLoopError),
    /// There is no thread to follow guests on.
    #[error("cannot start a thread for libvirt: {0}")]
    Thread(io::Error),
    /// It does not run, or refuses.
    #[error("cannot connect to libvirt at {uri}: {}", .error.message())]
    Connect {
        /// Where.
        uri: String,
        /// Why.
        error: Error,
    },
    /// It may come back.
    #[error("there is no connection to libvirt")]
    NotConnected,
    /// What happens to guests cannot be heard.
    #[error("cannot listen to libvirt: {}", .0.message())]
    Listen(Error),
    /// The guests cannot be listed.
    #[error("cannot list the VMs: {}", .0.message())]
    List(Error),
    /// It does not tell of a guest.
    #[error("{}", .0.message())]
    Guest(Error),
    /// It does not tell a guest's state.
    #[error("libvirt does not tell its state")]
    State,
    /// Its description of a guest cannot be used.
    #[error(transparent)]
    Domain(#[from] domain::Error),
}
