//! The keys of a report under the names that the options, the metrics and the journal use for the same things.

use serde::{Deserialize, Serialize};

use crate::announcement::failure::Failure;
use crate::announcement::progress::{Outcome, Progress};
use crate::guest::event::Cause;

/// What older keys of a report have under other names, and the code of its error.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Names {
    /// The VM's name, if libvirt knows it: `domain.name`.
    pub vm: Option<String>,
    /// Its UUID: `domain.uuid`.
    pub uuid: Option<String>,
    /// Why it was announced: `cause`.
    pub event: Option<Cause>,
    /// `left_host_after_ms`.
    pub departure_after_ms: Option<f64>,
    /// `returned_after_ms`.
    pub reply_after_ms: Option<f64>,
    /// `lost_rounds`.
    pub rounds_lost: u32,
    /// The kind of `error`, or of the first condition of a port that was not ready; null where it was announced.
    pub error_code: Option<String>,
}

/// The kind of what kept an announcement from success; `None` where it had some, or was replaced.
pub(crate) fn error_code(progress: &Progress) -> Option<&'static str> {
    let condition = || progress.unmet.first().map(|condition| condition.code());
    match progress.outcome.unwrap_or(Outcome::Cancelled) {
        Outcome::Announced | Outcome::Superseded => None,
        Outcome::NotReady => condition(),
        Outcome::Cancelled | Outcome::Failed => progress.failure.map(Failure::code).or_else(condition),
    }
}
