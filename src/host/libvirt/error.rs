//! libvirt's errors, each in one line.

use std::io;
use std::time::Duration;

use tokio::task::JoinError;
use virt::error::Error;

use crate::guest::domain::DomainError;
use crate::host::sys::libvirt::EventLoopError;

/// What we were doing, and libvirt's error.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LibvirtError {
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
    /// This version of libvirt cannot have a guest announce itself.
    #[error("libvirt {} cannot have a guest announce itself, 12.5 and newer can", version(*.0))]
    CannotAsk(u32),
    /// libvirt, or the monitor of the guest, does not answer.
    #[error("libvirt does not answer within {0:?}")]
    NoAnswer(Duration),
    /// A request was interrupted.
    #[error("the request to libvirt was interrupted: {0}")]
    Interrupted(JoinError),
    /// libvirt does not know a guest's state.
    #[error("libvirt does not know its state")]
    State,
    /// A guest's XML cannot be used.
    #[error(transparent)]
    Domain(#[from] DomainError),
}

/// `12.8.0`, from libvirt's number for it.
fn version(number: u32) -> String {
    format!("{}.{}.{}", number / 1_000_000, number / 1000 % 1000, number % 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_libvirt_that_is_too_old_is_named() {
        assert_eq!(
            LibvirtError::CannotAsk(9_000_000).to_string(),
            "libvirt 9.0.0 cannot have a guest announce itself, 12.5 and newer can"
        );
        assert_eq!(version(11_003_010), "11.3.10");
    }
}
