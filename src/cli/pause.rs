//! `announce pause` and `announce resume`.

use std::io::ErrorKind;
use std::time::Duration;

use crate::cli::exit::{Problem, Status};
use crate::cli::output::{complain, print};
use crate::daemon::control::{self, Request};
use crate::report::snapshot::Paused;

/// Lets the daemon send nothing for so long.
///
/// # Errors
///
/// It cannot be asked, or refuses.
pub(super) fn pause(lasts: Duration, reason: Option<String>) -> Result<Status, Problem> {
    let for_ms = u64::try_from(lasts.as_millis()).unwrap_or(u64::MAX);
    ask(&Request::Pause { for_ms, reason })
}

/// Lets the daemon send again.
///
/// # Errors
///
/// It cannot be asked, or refuses.
pub(super) fn resume() -> Result<Status, Problem> {
    ask(&Request::Resume)
}

fn ask(request: &Request) -> Result<Status, Problem> {
    let socket = control::socket();
    let answer = control::ask(request).map_err(|error| {
        let remedy = match error.kind() {
            ErrorKind::PermissionDenied => "only root may do that: sudo announce pause",
            _ => "systemctl status announced",
        };
        (Status::Failed, format!("announced does not answer at {}: {error}: {remedy}", socket.display()))
    })?;
    answer.map(|told| print(&told)).map_err(|why| (Status::Failed, why))
}

/// Tells that the daemon is paused, which holds back nothing that is announced by hand.
pub(super) fn tell_of_pause() {
    if let Some(paused) = Paused::here() {
        let until = paused.until;
        complain(&format!(
            "announced is paused on this host until {until}; what is announced by hand is sent all the same"
        ));
    }
}
