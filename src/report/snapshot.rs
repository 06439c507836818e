//! The daemon at one moment: the answer of its status socket, which `announce status` reads.

use serde::{Deserialize, Serialize};

use crate::report::metrics::{Gauges, Metrics};
use crate::report::record::Report;
use crate::report::waiting::Waiting;

/// The daemon at one moment.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Snapshot {
    /// [`crate::report::VERSION`].
    pub version: u32,
    /// The number of guests of this host.
    pub guests: usize,
    /// The gauges.
    pub gauges: Gauges,
    /// The NICs whose announcement is under way.
    pub in_progress: Vec<String>,
    /// Those of them that wait, and for what.
    #[serde(default)]
    pub waiting: Vec<Waiting>,
    /// The last reports, latest last.
    pub recent: Vec<Ended>,
    /// The counters.
    pub metrics: Metrics,
}

/// An announcement that has ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ended {
    /// When it ended (RFC 3339).
    pub at: String,
    /// Its report.
    #[serde(flatten)]
    pub report: Report,
}

impl Ended {
    /// Whether it is of a guest with this name or UUID, or of a NIC with this MAC (in any case) or device.
    pub(crate) fn is_of(&self, guest: &str) -> bool {
        let Report { domain, device, mac, .. } = &self.report;
        let is_domain =
            domain.iter().any(|domain| domain.name == guest || domain.uuid.eq_ignore_ascii_case(guest));
        let is_mac = mac.is_some_and(|mac| mac.to_string().eq_ignore_ascii_case(guest));
        is_domain || is_mac || device.as_deref() == Some(guest)
    }
}
