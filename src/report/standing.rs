//! An announcement under way: what it waits for, and what it has come to so far.

use jiff::Timestamp;
use pnet_base::MacAddr;
use serde::{Deserialize, Serialize};

use crate::guest::event::Cause;
use crate::guest::target::printable;
use crate::report::count;
use crate::report::unmet::{self, Unmet};

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
    /// The name of the NIC in messages: VM, device and MAC.
    pub fn subject(&self) -> String {
        let (vm, mac) = (self.vm.as_deref().map(printable), self.mac.to_string());
        let names = [vm.as_deref(), self.standing.device.as_deref(), Some(&mac)];
        names.into_iter().flatten().collect::<Vec<_>>().join(" ")
    }

    /// What it waits for and for how long at `now` (RFC 3339), or which round is on: `waiting for 2.1 s of 60.0 s: no VLAN tag yet`.
    pub fn how(&self, now: &str) -> String {
        let standing = &self.standing;
        let (round, rounds, lost) = (standing.round, standing.rounds, standing.lost);
        let mut how = match (&standing.since, standing.unmet.is_empty()) {
            (None, _) => "not looked at yet".to_owned(),
            (Some(since), false) => {
                let span = |to: &str| format!("{:.1} s", seconds_between(since, to));
                let of = standing.until.as_deref().map(|until| format!(" of {}", span(until)));
                let of = of.unwrap_or_else(|| ", for as long as the VM is here".to_owned());
                format!("waiting for {}{of}: {}", span(now), unmet::words(&standing.unmet))
            }
            (Some(_), true) if round == 0 && lost > 0 => "no round has left the host".to_owned(),
            (Some(_), true) => format!("round {round} of {rounds} has left the host"),
        };
        if lost > 0 {
            how += &format!("; {} lost", count(lost as usize, "round"));
        }
        if let Some(why) = &standing.why {
            how += &format!(": {why}");
        }
        how
    }

    /// Whether it is of a VM with this name or UUID, or of a NIC with this MAC (in any case) or device.
    pub fn is_of(&self, guest: &str) -> bool {
        self.vm.as_deref() == Some(guest)
            || self.uuid.as_deref().is_some_and(|uuid| uuid.eq_ignore_ascii_case(guest))
            || self.standing.device.as_deref() == Some(guest)
            || self.mac.to_string().eq_ignore_ascii_case(guest)
    }
}

/// From one time (RFC 3339) to another, or 0.
fn seconds_between(from: &str, to: &str) -> f64 {
    let at = |text: &str| text.parse::<Timestamp>().map_or(0, Timestamp::as_millisecond);
    (at(to) - at(from)).max(0) as f64 / 1e3
}
