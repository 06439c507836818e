//! The daemon at one moment: the answer of its status socket, which `announce status` reads.

use serde::{Deserialize, Serialize};

use crate::report::handed_over::Handovers;
use crate::report::metrics::{Gauges, Metrics};
use crate::report::record::Report;
use crate::report::standing::UnderWay;
use crate::report::waiting::Waiting;

/// The daemon at one moment. The lists are such that the daemon can write them without making them: there may be thousands of entries.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Snapshot<Names = Vec<String>, Waits = Vec<Waiting>, Runs = Vec<UnderWay>, Ends = Vec<Ended>> {
    /// [`crate::report::VERSION`].
    pub version: u32,
    /// The number of guests of this host.
    pub guests: usize,
    /// The same.
    #[serde(default)]
    pub vms: usize,
    /// The gauges.
    pub gauges: Gauges,
    /// The NICs whose announcement is under way.
    pub in_progress: Names,
    /// Those of them that wait, and for what.
    #[serde(default)]
    pub waiting: Waits,
    /// The same announcements, and what they have come to.
    #[serde(default)]
    pub announcements: Runs,
    /// libvirt and OVSDB.
    #[serde(default)]
    pub peers: Vec<Peer>,
    /// An operator has paused what is sent.
    #[serde(default)]
    pub paused: Option<Paused>,
    /// The program that tells this.
    #[serde(default)]
    pub daemon: Daemon,
    /// The last reports, the latest last.
    pub recent: Ends,
    /// Reports of before the daemon's start, of the hook and of announcements by hand, as far as they are kept; the daemon itself
    /// leaves that to `announce status`.
    #[serde(default)]
    pub earlier: Vec<Ended>,
    /// The counters.
    pub metrics: Metrics,
}

/// A program that the daemon listens to.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Peer {
    /// `libvirt` or `ovsdb`.
    pub peer: String,
    /// libvirt's URI, if one is configured, or OVSDB's socket.
    pub address: Option<String>,
    /// It is listened to.
    pub connected: bool,
    /// Since when that is so (RFC 3339).
    pub since: Option<String>,
    /// Why it is not connected.
    pub why: Option<String>,
    /// It is OVSDB, and the host has no Open vSwitch.
    #[serde(default)]
    pub absent: bool,
}

/// An operator's pause: nothing is sent until it ends.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Paused {
    /// Since when (RFC 3339).
    pub since: String,
    /// Until when, unless an operator ends it before (RFC 3339).
    pub until: String,
    /// The operator's reason.
    pub reason: Option<String>,
    /// The user that asked for it.
    pub by_uid: u32,
}

/// The daemon, and its configuration.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Daemon {
    /// Its version.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// When it started (RFC 3339).
    pub started_at: String,
    /// The configuration file; null where there is none, so that the defaults hold.
    pub config: Option<String>,
    /// When that was read (RFC 3339).
    pub config_loaded_at: String,
    /// When the file that was read had been written last (RFC 3339).
    pub config_modified_at: Option<String>,
    /// Why the last reload left the configuration as it was.
    pub config_error: Option<String>,
    /// The exchange with other hosts' daemons; null without `[peers]`.
    pub handover: Option<Handovers>,
    /// The ways in that the host lacks, each with the reason.
    pub missing_injectors: Vec<MissingInjector>,
}

/// A way in that cannot be used on this host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MissingInjector {
    /// Its word.
    pub injector: String,
    /// Why not.
    pub why: String,
}

/// An announcement that has ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ended {
    /// When it ended (RFC 3339, UTC, milliseconds).
    pub at: String,
    /// Its report.
    #[serde(flatten)]
    pub report: Report,
}

impl Ended {
    /// Whether both are of the same announcement.
    pub(crate) fn is_same(&self, other: &Ended) -> bool {
        let key = |ended: &Ended| (ended.at.clone(), ended.report.mac, ended.report.device.clone());
        key(self) == key(other)
    }

    /// Whether it is of a guest with this name or UUID, or of a NIC with this MAC (in any case) or device.
    pub(crate) fn is_of(&self, guest: &str) -> bool {
        let Report { domain, device, mac, .. } = &self.report;
        let is_domain =
            domain.iter().any(|domain| *domain.name == *guest || domain.uuid.eq_ignore_ascii_case(guest));
        let is_mac = mac.is_some_and(|mac| mac.to_string().eq_ignore_ascii_case(guest));
        is_domain || is_mac || device.as_deref() == Some(guest)
    }
}
