//! When the rounds of an announcement were sent, and what became of them.

use std::time::Duration;

/// The entries of one announcement: rounds beyond them are counted only.
const MAX_SPELLS: usize = 200;

/// A round that was sent, or successive rounds of which no frame left the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spell {
    /// Some frames of it left the host, or the host cannot see whether they did.
    pub left: bool,
    /// The number of rounds: 1 where they left.
    pub rounds: u32,
    /// When the first one was sent.
    pub from: Duration,
    /// When the last one was sent.
    pub to: Duration,
}

/// Adds the round that was sent at `at`.
pub(super) fn add(spells: &mut Vec<Spell>, at: Duration, left: bool) {
    let has_room = spells.len() < MAX_SPELLS;
    match spells.last_mut() {
        Some(last) if !last.left && !left => (last.rounds, last.to) = (last.rounds.saturating_add(1), at),
        _ if has_room => spells.push(Spell { left, rounds: 1, from: at, to: at }),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn successive_lost_rounds_are_one_spell_and_others_one_each() {
        let mut spells = Vec::new();
        for (ms, left) in [(0, false), (1, false), (3, false), (10, true), (60, true)] {
            add(&mut spells, Duration::from_millis(ms), left);
        }
        let told = spells.iter().map(|s| (s.left, s.rounds, s.from.as_millis(), s.to.as_millis()));
        assert_eq!(told.collect::<Vec<_>>(), [(false, 3, 0, 3), (true, 1, 10, 10), (true, 1, 60, 60)]);
    }

    #[test]
    fn their_number_is_bounded() {
        let mut spells = Vec::new();
        for ms in 0..1000 {
            add(&mut spells, Duration::from_millis(ms), ms % 2 == 0);
        }
        assert_eq!(spells.len(), MAX_SPELLS);
    }
}
