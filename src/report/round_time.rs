//! The times of rounds in a report.

use serde::{Deserialize, Serialize};

use crate::announcement::spell::Spell;
use crate::report::evidence::millis;

/// A round that was sent, or successive rounds of which no frame left the host.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RoundTime {
    /// Some frames of it left the host, or the host cannot see whether they did.
    pub left: bool,
    /// The number of rounds.
    pub rounds: u32,
    /// From the event to the first of them.
    pub after_ms: f64,
    /// From the event to the last of them.
    pub until_ms: f64,
}

impl From<&Spell> for RoundTime {
    fn from(spell: &Spell) -> RoundTime {
        let Spell { left, rounds, from, to } = *spell;
        RoundTime { left, rounds, after_ms: millis(from), until_ms: millis(to) }
    }
}
