//! An announcement under way: what it waits for, and what it has come to so far.

use pnet_base::MacAddr;
use serde::{Deserialize, Serialize};

use crate::guest::event::Cause;
use crate::report::unmet::Unmet;

/// An announcement under way, as `announce status` tells it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UnderWay {
    /// The VM's name, if libvirt knows it.
    pub vm: Option<String>,
    /// Its UUID, likewise.
    pub uuid: Option<String>,
    /// The NIC's MAC.
    pub mac: MacAddr,
    /// Why it is announced.
    pub cause: Cause,
    /// The same.
    #[serde(default)]
    pub event: Option<Cause>,
    /// When that happened, by the wall clock (RFC 3339, UTC, milliseconds).
    pub event_at: String,
    /// What it has come to.
    #[serde(flatten)]
    pub standing: Standing,
}

/// What an announcement has come to so far.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Standing {
    /// The host's end of the NIC.
    pub device: Option<String>,
    /// The port is ready: rounds are sent.
    pub ready: bool,
    /// The kind of what it waits for, one of [`crate::report::waiting::waited_for`]; null where it goes on.
    pub condition: Option<String>,
    /// What the port waits for.
    pub unmet: Vec<Unmet>,
    /// Since when it waits for this, or is ready (RFC 3339); null before the host was looked at.
    pub since: Option<String>,
    /// When waiting for the port ends (RFC 3339); null where it does not.
    pub until: Option<String>,
    /// Rounds that were sent, and are not known to be lost.
    pub round: u32,
    /// Rounds of the schedule.
    pub rounds: u32,
    /// Rounds of which no frame left the host.
    pub lost: u32,
    /// Why rounds are lost or cannot be sent.
    pub why: Option<String>,
}

impl Standing {
    /// What it waits for, in words.
    pub fn reason(&self) -> String {
        let unmet: Vec<&str> = self.unmet.iter().map(|unmet| unmet.text.as_str()).collect();
        match (unmet.is_empty(), &self.why) {
            (false, _) => unmet.join("; "),
            (true, Some(why)) => why.clone(),
            (true, None) => "no frame leaves the host".into(),
        }
    }
}

impl UnderWay {
    /// Whether it is of a VM with this name or UUID, or of a NIC with this MAC (in any case) or device.
    pub fn is_of(&self, guest: &str) -> bool {
        self.vm.as_deref() == Some(guest)
            || self.uuid.as_deref().is_some_and(|uuid| uuid.eq_ignore_ascii_case(guest))
            || self.standing.device.as_deref() == Some(guest)
            || self.mac.to_string().eq_ignore_ascii_case(guest)
    }
}
