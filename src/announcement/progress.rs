//! What an announcement has come to, and how it ended.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::announcement::failure::Failure;
use crate::announcement::spell::Spell;
use crate::path::condition::Condition;
use crate::path::readiness::Assessment;

/// How an announcement ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Every round was sent.
    Announced,
    /// The port did not become ready in time.
    NotReady,
    /// The guest left, or the announcement was stopped.
    Cancelled,
    /// Another announcement of the same NIC replaced it.
    Superseded,
    /// The frames could not be sent.
    Failed,
}

impl Outcome {
    /// Every outcome.
    pub const ALL: [Outcome; 5] =
        [Outcome::Announced, Outcome::NotReady, Outcome::Cancelled, Outcome::Superseded, Outcome::Failed];

    /// The name of this outcome in output.
    pub fn word(self) -> &'static str {
        match self {
            Outcome::Announced => "announced",
            Outcome::NotReady => "not-ready",
            Outcome::Cancelled => "cancelled",
            Outcome::Superseded => "superseded",
            Outcome::Failed => "failed",
        }
    }
}

/// The state of an announcement so far.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Progress {
    /// When the guest was first seen to run.
    pub runs_at: Option<Duration>,
    /// When its NIC was first seen attached.
    pub plugged_at: Option<Duration>,
    /// When the port's VLAN was first correct.
    pub tagged_at: Option<Duration>,
    /// When the port was first ready.
    pub ready_at: Option<Duration>,
    /// When the first frame was sent.
    pub first_frame_at: Option<Duration>,
    /// Rounds that were sent and not seen to be lost.
    pub rounds: u32,
    /// Rounds of which no frame left the host, and first ones that were sent again since only the RARP left.
    pub lost: u32,
    /// When these were sent.
    pub spells: Vec<Spell>,
    /// Rounds that could not be sent.
    pub send_errors: u32,
    /// The unmet conditions at the last observation.
    pub unmet: Arc<[Condition]>,
    /// The error, if any.
    pub error: Option<String>,
    /// Its kind, where it is none of the unmet conditions.
    pub failure: Option<Failure>,
    /// How it ended, if it has.
    pub outcome: Option<Outcome>,
}

impl Progress {
    /// Rounds that were sent or could not be sent.
    pub fn attempts(&self) -> u32 {
        self.rounds + self.lost + self.send_errors
    }

    /// Records what is seen for the first time.
    pub(super) fn note(&mut self, now: Duration, seen: &Assessment) {
        if !seen.unmet.iter().any(Condition::is_of_the_guest) {
            self.runs_at.get_or_insert(now);
        }
        if seen.attachment.is_some() {
            self.plugged_at.get_or_insert(now);
            if !seen.unmet.iter().any(Condition::is_of_the_vlan) {
                self.tagged_at.get_or_insert(now);
            }
        }
    }
}
