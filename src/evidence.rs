//! What a report tells of the proof: how far the frames came, whether they left, who has learned of the guest.

use std::time::Duration;

use serde::Serialize;

use crate::attachment::Via;
use crate::proof::Proof;
use crate::report::{Tally, millis};

/// The keys that a report has with a witness.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Evidence {
    /// From the event to the first frame's departure from the host.
    pub left_host_after_ms: Option<f64>,
    /// How it left.
    pub departure: Option<Departure>,
    /// The last hop at which a frame of the last round showed.
    pub last_hop: Option<String>,
    /// Frames that left the host; none where that cannot be seen.
    pub frames_left: Option<Tally>,
    /// Rounds of which no frame left the host.
    pub lost_rounds: u32,
    /// What never left, how far it came, and why.
    pub stuck: Vec<String>,
    /// Why it cannot be seen whether frames leave the host.
    pub unseen: Option<String>,
    /// From the event to the first frame for the guest that came in after that.
    pub returned_after_ms: Option<f64>,
    /// From the event to when the bridge was found to know the guest's MAC behind the guest's port.
    pub learned_after_ms: Option<f64>,
    /// The port behind which the bridge knew the guest's MAC, when it was last asked.
    pub learned_on: Option<String>,
    /// What is wrong with that.
    pub stale: Option<String>,
}

/// How the first frame left the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Departure {
    /// The last device.
    pub device: String,
    /// The last bridge on the way.
    pub bridge: Option<String>,
    /// The bridge's port that led to the device.
    pub port: Option<String>,
    /// The VLAN tag on the frame.
    pub vlan: Option<u16>,
    /// The same in words.
    #[serde(skip)]
    pub words: String,
}

/// Where the deciding bridge has learned the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Learned {
    /// Behind the guest's own port.
    Here(String),
    /// Behind another port: what is sent to the guest from this host goes astray.
    Elsewhere(String),
    /// Nowhere: what is sent to it is flooded.
    Nowhere,
}

impl Evidence {
    /// What `proof` tells; of what got stuck, `why` may know the reason.
    pub fn of(proof: &Proof, unseen: Option<String>, why: Option<&str>) -> Evidence {
        let departure = proof.departure();
        // Who is blind knows of nothing that it got stuck.
        let stuck = if unseen.is_none() { proof.stuck() } else { Vec::new() };
        let because = why.map(|why| format!(": {why}")).unwrap_or_default();
        Evidence {
            left_host_after_ms: departure.map(|departure| millis(departure.at)),
            departure: departure.map(|departure| {
                let (bridge, port) = departure.via.clone().map(|Via { bridge, port }| (bridge, port)).unzip();
                let (device, vlan) = (departure.device.clone(), departure.vlan);
                Departure { device, bridge, port, vlan, words: departure.to_string() }
            }),
            last_hop: proof.last_hop().map(|hop| hop.name.clone()),
            frames_left: proof.left().filter(|_| unseen.is_none()).map(Tally::from_iter),
            stuck: stuck.iter().map(|stuck| format!("{stuck}{because}")).collect(),
            unseen,
            returned_after_ms: proof.returned().map(millis),
            ..Evidence::default()
        }
    }

    /// With where the bridge had learned the guest when it was last asked, and when that was.
    pub fn with_learned(mut self, learned: Option<&(Learned, Duration)>) -> Evidence {
        match learned {
            Some((Learned::Here(port), at)) => {
                (self.learned_on, self.learned_after_ms) = (Some(port.clone()), Some(millis(*at)));
            }
            Some((Learned::Elsewhere(port), _)) => {
                self.stale = Some(format!("this host's bridge still has it behind {port}"));
                self.learned_on = Some(port.clone());
            }
            Some((Learned::Nowhere, _)) => self.stale = Some("this host's bridge has not learned it".into()),
            None => {}
        }
        self
    }

    /// It left the host, and no frame for the guest came in.
    pub fn is_unanswered(&self) -> bool {
        self.departure.is_some() && self.returned_after_ms.is_none()
    }

    /// What somebody should look at, although the announcement has left the host.
    pub fn warnings(&self) -> impl Iterator<Item = String> {
        let unanswered =
            self.is_unanswered().then(|| "no frame for it has come in since it was announced".into());
        let stuck = self.stuck.iter().filter(|_| self.departure.is_some());
        unanswered.into_iter().chain(stuck.chain(&self.stale).cloned())
    }

    /// `left br-int by bond0 (eth1) in VLAN 100 after 1.9 ms; first frame for it after 4.2 ms`.
    pub fn words(&self) -> Option<String> {
        let mut words = match (&self.departure, self.left_host_after_ms, &self.unseen) {
            (Some(departure), Some(after), _) => format!("{} after {after} ms", departure.words),
            (_, _, Some(why)) => format!("whether it left the host cannot be seen: {why}"),
            _ => return None,
        };
        if let Some(after) = self.returned_after_ms {
            words += &format!("; first frame for it after {after} ms");
        } else if self.departure.is_some() {
            words += "; no frame for it yet";
        }
        for trouble in self.stuck.iter().chain(&self.stale) {
            words += &format!("; {trouble}");
        }
        Some(words)
    }
}
