//! What announcements wait for, as the status and the metrics tell it.

use pnet_base::MacAddr;
use serde::{Deserialize, Serialize};

use crate::path::condition::Condition;

/// An announcement that cannot go on at present.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// Of which NIC.
    pub subject: String,
    /// The kind of what it waits for, one of [`waited_for`].
    pub condition: String,
    /// The same in words.
    pub reason: String,
    /// `condition`.
    #[serde(default)]
    pub code: String,
    /// `reason`.
    #[serde(default)]
    pub text: String,
    /// The VM's name, if libvirt knows it.
    #[serde(default)]
    pub vm: Option<String>,
    /// The host's end of the NIC.
    #[serde(default)]
    pub device: Option<String>,
    /// The NIC's MAC.
    #[serde(default)]
    pub mac: Option<MacAddr>,
}

/// Every kind of what announcements wait for: conditions of the port, a way into the bridge, and that frames leave the host.
pub fn waited_for() -> impl Iterator<Item = &'static str> {
    Condition::CODES.into_iter().chain([INJECTOR, DEPARTURE])
}

/// No way in works.
pub const INJECTOR: &str = "injector";
/// Frames are sent, and do not leave the host.
pub const DEPARTURE: &str = "departure";
