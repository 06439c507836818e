//! Refuses notices that were recorded and sent again, that are late, or that another one has overtaken.
//!
//! A sender numbers its notices and tells the time since its start. A notice is refused if its number was taken before, is below
//! all of the last [`WINDOW`], or if a later one about the same guest was taken: reordered notices about different guests are
//! not. It is late if it took [`MAX_DELAY`] longer than the fastest of the sender's notices: the hosts' clocks are not compared for
//! that. The wall clocks matter only for a sender that is not known any more, as after a restart of this daemon: what was
//! recorded then has an effect for [`MAX_CLOCK_DIFFERENCE`] at most, and only on a guest that arrives at the same time.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::{Notice, Refusal, Sender, Uuid};

/// The notices of a sender among which the order is free.
const WINDOW: u64 = 64;
/// What may lie between two wall clocks: hosts without NTP drift by seconds a day, and Kerberos (RFC 4120) tolerates as much.
const MAX_CLOCK_DIFFERENCE: Duration = Duration::from_secs(300);
/// A switch-over lasts seconds at most, and a failed migration is not tried again within one.
const MAX_DELAY: Duration = Duration::from_secs(1);
/// For so long two clocks run alike: at 100 ppm, they differ by a third of a second after an hour.
const MAX_REFERENCE_AGE: Duration = Duration::from_secs(3600);
/// The senders that are remembered: processes of daemons that have the key.
const MAX_SENDERS: usize = 1024;

/// The notices that were taken.
#[derive(Debug)]
pub struct Guard {
    /// This daemon, whose own notices come back from a group, or where all hosts have the same list of peers.
    own: Sender,
    senders: BTreeMap<Sender, Known>,
}

#[derive(Debug, Default)]
struct Known {
    heard_at: Duration,
    recent: VecDeque<Taken>,
}

#[derive(Debug)]
struct Taken {
    counter: u64,
    guest: Uuid,
    at: Duration,
    /// By the two hosts' own clocks: what matters is how it differs from others.
    transit: i128,
}

impl Guard {
    /// Nothing was taken yet.
    pub fn new(own: Sender) -> Guard {
        Guard { own, senders: BTreeMap::new() }
    }

    /// Whether this daemon has sent the notice.
    pub fn is_own(&self, notice: &Notice) -> bool {
        notice.sender == self.own
    }

    /// Takes a notice at `now`, which counts from any fixed moment; `wall` is this host's wall clock since 1970.
    pub fn take(&mut self, notice: &Notice, now: Duration, wall: Duration) -> Result<(), Refusal> {
        let sent_at = Duration::from_millis(notice.sent_at);
        if wall.abs_diff(sent_at) > MAX_CLOCK_DIFFERENCE {
            return Err(Refusal::Clock);
        }
        if !self.senders.contains_key(&notice.sender) {
            self.make_room();
        }
        self.senders.entry(notice.sender).or_default().take(notice, now)
    }

    /// Forgets the sender that has been silent for longest, if there is no room for another.
    fn make_room(&mut self) {
        if self.senders.len() < MAX_SENDERS {
            return;
        }
        let oldest = self.senders.iter().min_by_key(|(_, known)| known.heard_at).map(|(sender, _)| *sender);
        oldest.iter().for_each(|sender| drop(self.senders.remove(sender)));
    }
}

impl Known {
    fn take(&mut self, notice: &Notice, now: Duration) -> Result<(), Refusal> {
        let Notice { counter, guest, .. } = *notice;
        let newest = self.recent.iter().map(|taken| taken.counter).max().unwrap_or_default();
        let is_overtaken =
            |taken: &Taken| taken.counter == counter || (taken.guest == guest && taken.counter > counter);
        if newest.saturating_sub(counter) >= WINDOW || self.recent.iter().any(is_overtaken) {
            return Err(Refusal::Replayed);
        }
        let transit = now.as_millis() as i128 - i128::from(notice.uptime);
        let is_young = |taken: &&Taken| now.saturating_sub(taken.at) < MAX_REFERENCE_AGE;
        let least = self.recent.iter().filter(is_young).map(|taken| taken.transit).min();
        if least.is_some_and(|least| transit > least + MAX_DELAY.as_millis() as i128) {
            return Err(Refusal::Late);
        }
        self.heard_at = now;
        self.recent.push_back(Taken { counter, guest, at: now, transit });
        let newest = newest.max(counter);
        self.recent.retain(|taken| newest - taken.counter < WINDOW);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::announcement::handover::Kind;

    const WALL: Duration = Duration::from_secs(1_764_000_000);

    fn notice(counter: u64, guest: u8, uptime: u64) -> Notice {
        Notice {
            kind: Kind::Stops,
            guest: Uuid([guest; 16]),
            sender: Uuid([7; 16]),
            counter,
            sent_at: WALL.as_millis() as u64,
            uptime,
        }
    }

    fn guard() -> Guard {
        Guard::new(Uuid([0; 16]))
    }

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn each_notice_counts_once_and_in_the_order_of_its_guest() {
        let mut guard = guard();
        let mut take = |counter, guest| guard.take(&notice(counter, guest, 0), ms(0), WALL);
        assert_eq!(take(10, 1), Ok(()));
        assert_eq!(take(10, 1), Err(Refusal::Replayed));
        assert_eq!(take(12, 2), Ok(()));
        assert_eq!(take(11, 3), Ok(()), "of another guest, overtaken by 12");
        assert_eq!(take(9, 1), Err(Refusal::Replayed), "of a guest of which 10 is known");
        assert_eq!(take(200, 4), Ok(()));
        assert_eq!(take(136, 5), Err(Refusal::Replayed), "below the window");
        assert_eq!(take(137, 5), Ok(()));
    }

    #[test]
    fn the_greatest_numbers_count_once_too() {
        let mut guard = guard();
        for counter in [u64::MAX - 1, u64::MAX] {
            let notice = notice(counter, 1, 0);
            assert_eq!(guard.take(&notice, ms(0), WALL), Ok(()));
            assert_eq!(guard.take(&notice, ms(0), WALL), Err(Refusal::Replayed), "{counter}");
        }
    }

    #[test]
    fn a_notice_is_late_by_the_fastest_one_and_whatever_the_clocks_say() {
        let mut guard = guard();
        // The sender started long before this daemon.
        let uptime = 10_000_000;
        assert_eq!(guard.take(&notice(1, 1, uptime), ms(5000), WALL), Ok(()));
        assert_eq!(guard.take(&notice(2, 2, uptime + 1000), ms(7000), WALL), Ok(()));
        assert_eq!(guard.take(&notice(3, 3, uptime + 1000), ms(7001), WALL), Err(Refusal::Late));
        // After an hour, the two clocks may have drifted apart.
        assert_eq!(guard.take(&notice(4, 4, uptime + 3_700_000), ms(3_707_000), WALL), Ok(()));
    }

    #[test]
    fn wall_clocks_may_differ_by_minutes() {
        let mut guard = guard();
        for (counter, wall, taken) in [
            (1, WALL + ms(299_000), Ok(())),
            (2, WALL - ms(299_000), Ok(())),
            (3, WALL + ms(301_000), Err(Refusal::Clock)),
            (4, WALL - ms(301_000), Err(Refusal::Clock)),
        ] {
            assert_eq!(guard.take(&notice(counter, 1, 0), ms(0), wall), taken, "{counter}");
        }
    }

    #[test]
    fn memory_is_bounded_and_the_sender_that_was_silent_longest_is_forgotten() {
        let mut guard = guard();
        let of = |sender: usize, counter| {
            let mut number = [1; 16];
            number[..8].copy_from_slice(&(sender as u64).to_be_bytes());
            Notice { sender: Uuid(number), ..notice(counter, 1, 0) }
        };
        for sender in 0..3 * MAX_SENDERS {
            assert_eq!(guard.take(&of(sender, 1), ms(sender as u64 / 100), WALL), Ok(()));
        }
        assert_eq!(guard.senders.len(), MAX_SENDERS);
        assert_eq!(guard.take(&of(3 * MAX_SENDERS - 1, 1), ms(31), WALL), Err(Refusal::Replayed));
        for counter in 2..1000 {
            assert_eq!(guard.take(&of(3 * MAX_SENDERS - 1, counter), ms(31), WALL), Ok(()));
        }
        assert!(guard.senders.values().all(|known| known.recent.len() <= WINDOW as usize));
    }
}
