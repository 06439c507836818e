//! The daemon at one moment: what its status socket sends, and `announce status` reads.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::report::metrics::{Gauges, Metrics};
use crate::report::record::Report;

/// The daemon at one moment.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Snapshot {
    /// [`crate::report::VERSION`].
    pub version: u32,
    /// Guests of this host.
    pub guests: usize,
    /// What is true now.
    pub gauges: Gauges,
    /// The NICs that are being announced.
    pub in_progress: Vec<String>,
    /// The last reports, the latest last.
    pub recent: Vec<Ended>,
    /// What was counted.
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

impl Snapshot {
    /// The reports that are remembered of a guest, by its name or UUID, or by the MAC or the device of a NIC.
    pub fn of(&self, guest: &str) -> impl Iterator<Item = &Ended> {
        let is = move |ended: &&Ended| {
            let Report { domain, device, mac, .. } = &ended.report;
            let domain = domain.iter().any(|domain| domain.name == guest || domain.uuid == guest);
            domain || device.as_deref() == Some(guest) || mac.is_some_and(|mac| mac.to_string() == guest)
        };
        self.recent.iter().filter(is)
    }
}

impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = |up: bool| if up { "connected" } else { "not connected" };
        let Gauges { libvirt, ovsdb, in_progress } = self.gauges;
        write!(f, "libvirt {}, OVSDB {}; {} guests", word(libvirt), word(ovsdb), self.guests)?;
        write!(f, "; {in_progress} announcements under way")?;
        self.in_progress.iter().try_for_each(|subject| write!(f, "\n  {subject}"))?;
        self.recent.iter().try_for_each(|ended| write!(f, "\n{ended}"))
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.at, self.report.line())
    }
}
