//! Why frames cannot be injected, each in one line that names the remedy.

use std::fmt::Write;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::announcement::injection::Method;

/// Why a round cannot be injected.
#[derive(Debug, thiserror::Error)]
pub enum InjectorError {
    /// The attachment does not offer the forced method.
    #[error("--inject {0} does not work with this attachment")]
    NoSuchWay(Method),
    /// No method could be prepared; the reason for each.
    #[error("no way to inject frames: {}", list(.0))]
    Unavailable(Vec<(Method, WayError)>),
    /// A method that worked has failed.
    #[error("cannot send by {0}: {1}")]
    Send(Method, WayError),
}

/// The fault of one method.
#[derive(Debug, thiserror::Error)]
pub enum WayError {
    /// The kernel refuses a request; with the capabilities that it needs.
    #[error("cannot {doing}: {error}{}", remedy(.error, .needs))]
    Kernel {
        /// The request.
        doing: &'static str,
        /// The kernel's answer.
        error: io::Error,
        /// The required capabilities.
        needs: &'static str,
    },
    /// A kernel before 5.18, without backports.
    #[error("this kernel has no XDP live frames (Linux 5.18)")]
    NoLiveFrames,
    /// It failed at the start, and no capability is left to try it again.
    #[error("{0}")]
    AtStart(Arc<WayError>),
    /// Every helper tap was deleted, and a new one cannot be made.
    #[error(
        "the helper taps announce0 and announce1 were deleted or set down, and no new one can be made: {0}"
    )]
    TakenAway(Box<WayError>),
    /// The kernel does not accept a frame.
    #[error("{0}")]
    Write(io::Error),
    /// A name that would lead to another directory.
    #[error("{0:?} is not the name of a bridge")]
    BridgeName(String),
    /// The bridge's management socket, which ovs-vswitchd creates.
    #[error("cannot connect to {}: {error}", .socket.display())]
    Connect {
        /// Its path.
        socket: PathBuf,
        /// The error of connect(2), or the message received instead of HELLO.
        error: io::Error,
    },
    /// ovs-vswitchd is busy or hangs.
    #[error("{0} does not answer")]
    NoAnswer(String),
    /// The bridge refuses the frames, or closed the connection.
    #[error("{0}")]
    PacketOut(io::Error),
    /// It was not prepared.
    #[error("it was not prepared")]
    NotReady,
}

impl InjectorError {
    /// Whether trying again helps: ovs-vswitchd may be starting.
    pub fn is_transient(&self) -> bool {
        match self {
            InjectorError::NoSuchWay(_) => false,
            InjectorError::Unavailable(reasons) => reasons.iter().any(|(_, why)| why.is_transient()),
            InjectorError::Send(_, why) => why.is_transient(),
        }
    }

    /// The reasons alone, where methods could not be prepared.
    pub fn reasons(&self) -> String {
        match self {
            InjectorError::Unavailable(reasons) => {
                let reasons: Vec<String> = reasons.iter().map(|(_, why)| why.to_string()).collect();
                reasons.join("; ")
            }
            other => other.to_string(),
        }
    }

    /// Whether a method that was prepared is refused for want of a capability: every other round would be, too.
    pub fn is_refused(&self) -> bool {
        matches!(self, InjectorError::Send(_, why) if why.is_refused())
    }
}

impl WayError {
    fn is_transient(&self) -> bool {
        match self {
            WayError::Connect { .. } | WayError::NoAnswer(_) | WayError::PacketOut(_) => true,
            // Devices have not transmitted earlier frames yet.
            WayError::Write(error) => {
                error.kind() == io::ErrorKind::WouldBlock || error.raw_os_error() == Some(libc::ENOBUFS)
            }
            _ => false,
        }
    }

    /// Whether the kernel wants a capability for it.
    pub(super) fn is_refused(&self) -> bool {
        matches!(self, WayError::Kernel { error, .. } if error.kind() == io::ErrorKind::PermissionDenied)
    }
}

fn list(reasons: &[(Method, WayError)]) -> String {
    let mut list = String::new();
    for (method, why) in reasons {
        let separator = if list.is_empty() { "" } else { "; " };
        // Writing to a string cannot fail.
        let _ = write!(list, "{separator}{method}: {why}");
    }
    list
}

fn remedy(error: &io::Error, needs: &str) -> String {
    match error.kind() {
        io::ErrorKind::PermissionDenied => format!(" (needs {needs})"),
        _ => String::new(),
    }
}
