//! What is exchanged with the daemons of other hosts, as it is shown.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

/// The handovers that are shown.
const MAX_RECENT: usize = 20;

/// What became of a migration, as the daemon of one of its hosts sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HandedOver {
    /// At the source: the guest stopped, and the peers were told.
    Told,
    /// At the source: the guest is gone.
    Left,
    /// At the source: the guest runs on, and is announced here.
    Kept,
    /// At the destination: a NIC was announced before its guest ran.
    Early,
    /// At the destination: a NIC was not, since its port was not ready in time, or is left out.
    NotEarly,
    /// A guest of other hosts.
    Elsewhere,
}

impl HandedOver {
    /// Every outcome.
    pub(crate) const ALL: [HandedOver; 6] = [
        HandedOver::Told,
        HandedOver::Left,
        HandedOver::Kept,
        HandedOver::Early,
        HandedOver::NotEarly,
        HandedOver::Elsewhere,
    ];

    /// The name of this outcome in output.
    pub(crate) fn word(self) -> &'static str {
        match self {
            HandedOver::Told => "told",
            HandedOver::Left => "left",
            HandedOver::Kept => "kept",
            HandedOver::Early => "early",
            HandedOver::NotEarly => "not-early",
            HandedOver::Elsewhere => "elsewhere",
        }
    }
}

/// The exchange with other hosts' daemons.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Handovers {
    /// Where this daemon listens.
    pub listen: String,
    /// The peers as they are configured.
    pub peers: Vec<String>,
    /// What was told and heard last, the latest last.
    pub recent: VecDeque<HandoverNote>,
}

/// A notice that was sent or taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandoverNote {
    /// When (RFC 3339).
    pub at: String,
    /// The guest.
    pub uuid: String,
    /// `stops`, `kept` or `left`.
    pub notice: String,
    /// The peer that sent it; null for one of this daemon.
    pub from: Option<String>,
}

impl Handovers {
    /// Adds a notice that was sent or taken.
    pub(crate) fn note(&mut self, note: HandoverNote) {
        self.recent.push_back(note);
        if self.recent.len() > MAX_RECENT {
            self.recent.pop_front();
        }
    }
}
