//! Why frames cannot be injected, each in one line that names the remedy.

use std::fmt::Write;
use std::io;
use std::path::PathBuf;

use crate::announcement::injection::Method;

/// Why a round cannot be injected.
#[derive(Debug, thiserror::Error)]
pub enum InjectorError {
    /// The attachment offers no such way.
    #[error("--inject {0} is no way into this attachment")]
    NoSuchWay(Method),
    /// No way could be made ready; each with its reason.
    #[error("no way to inject frames: {}", list(.0))]
    Unavailable(Vec<(Method, WayError)>),
    /// A way that had worked does so no more.
    #[error("cannot send by {0}: {1}")]
    Send(Method, WayError),
}

/// What is wrong with one way in.
#[derive(Debug, thiserror::Error)]
pub enum WayError {
    /// The kernel refuses what it needs; with the capabilities for that.
    #[error("cannot {doing}: {error}{}", remedy(.error, .needs))]
    Kernel {
        /// What it was asked for.
        doing: &'static str,
        /// Its answer.
        error: io::Error,
        /// The capabilities.
        needs: &'static str,
    },
    /// A kernel before 5.18, without backports.
    #[error("this kernel has no XDP live frames (Linux 5.18)")]
    NoLiveFrames,
    /// Every helper tap was deleted, and a new one cannot be made.
    #[error(
        "the helper taps announce0 and announce1 were deleted or set down, and no new one can be made: {0}"
    )]
    TakenAway(Box<WayError>),
    /// The kernel does not take a frame.
    #[error("{0}")]
    Write(io::Error),
    /// A name that would lead to another directory.
    #[error("{0:?} is no name of a bridge")]
    BridgeName(String),
    /// The bridge's management socket, which ovs-vswitchd makes.
    #[error("cannot connect to {}: {error}", .socket.display())]
    Connect {
        /// Its path.
        socket: PathBuf,
        /// What connect(2) said, or what came instead of HELLO.
        error: io::Error,
    },
    /// ovs-vswitchd is busy, or hangs.
    #[error("{0} does not answer")]
    NoAnswer(String),
    /// The bridge refuses the frames, or closed the connection.
    #[error("{0}")]
    PacketOut(io::Error),
    /// It was not prepared.
    #[error("it was not made ready")]
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
}

impl WayError {
    fn is_transient(&self) -> bool {
        matches!(self, WayError::Connect { .. } | WayError::NoAnswer(_) | WayError::PacketOut(_))
    }
}

fn list(reasons: &[(Method, WayError)]) -> String {
    let mut list = String::new();
    for (method, why) in reasons {
        let separator = if list.is_empty() { "" } else { "; " };
        // To a string, this cannot fail.
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
