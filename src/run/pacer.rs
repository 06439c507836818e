//! Makes announcements wait for their turn in the host's frame quota.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pnet_base::MacAddr;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use crate::announcement::quota::{Part, Quota};

/// A later round may be late by one part in so many of the pause before it.
const DELAY: u32 = 8;
/// The longest delay of a later round, however long the pause is.
const LONGEST_DELAY: Duration = Duration::from_millis(16);

/// The host's quota, shared by all announcements.
#[derive(Debug, Clone)]
pub(crate) struct Pacer(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    quota: Mutex<Quota<oneshot::Sender<()>>>,
    began: Instant,
    asked: Notify,
    changed: Notify,
}

impl Pacer {
    /// A pacer for so many frames per second. It gives turns for as long as the runtime lives.
    pub(crate) fn start(frames_per_second: u32) -> Self {
        let quota = Mutex::new(Quota::new(frames_per_second));
        let (asked, changed) = (Notify::new(), Notify::new());
        let shared = Arc::new(Shared { quota, began: Instant::now(), asked, changed });
        tokio::spawn(give_turns(shared.clone()));
        Pacer(shared)
    }

    /// Sets another rate from now on.
    pub(crate) fn change(&self, frames_per_second: u32) {
        self.0.lock().change(frames_per_second, self.0.began.elapsed());
        self.0.changed.notify_one();
    }

    /// Gives no turn for so long from now on; zero gives turns again.
    pub(crate) fn hold(&self, lasts: Duration) {
        self.0.lock().hold(lasts, self.0.began.elapsed());
        self.0.changed.notify_one();
    }

    /// The moment at which a round after the first is sent that is due then. Rounds of several guests that are due at about the same time
    /// are sent together, which costs the host less; each is late by a part of the pause before it, at most.
    pub(crate) fn with_others(&self, due: Instant) -> Instant {
        let (began, left) = (self.0.began, due.saturating_duration_since(Instant::now()));
        began + with_others(due.saturating_duration_since(began), left)
    }

    /// Waits until `frames` may be sent for this part of a round; returns whether turns were held back meanwhile.
    pub(crate) async fn turn(&self, part: Part, frames: usize) -> bool {
        let asked_at = self.0.began.elapsed();
        let polite = part.is_later();
        // While this task was not scheduled, others may have become ready that could not ask for their first round yet…
        after_others_if(polite).await;
        let (give, given) = oneshot::channel();
        {
            let mut quota = self.0.lock();
            quota.ask(part, frames as u32, give);
            // Mostly the queue is empty, and the turn is immediate.
            self.0.give(&mut quota);
        }
        self.0.asked.notify_one();
        let _ = given.await;
        // … or that have been given their turn and could not use it.
        after_others_if(polite).await;
        self.0.lock().was_held_after(asked_at)
    }
}

/// Lets all runnable tasks run first.
async fn after_others_if(polite: bool) {
    if polite {
        tokio::task::yield_now().await;
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Quota<oneshot::Sender<()>>> {
        self.quota.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn give(&self, quota: &mut Quota<oneshot::Sender<()>>) {
        while let Some(turn) = quota.next(self.began.elapsed()) {
            // A requester that has gone away does not need its turn.
            let _ = turn.send(());
        }
    }
}

/// When a later round is sent that is due then, after a pause of `left`: at the next moment of a grid that all announcements share, if that
/// is soon. The grid begins where `due` is zero.
fn with_others(due: Duration, left: Duration) -> Duration {
    // A power of two, so that the moments of short pauses are also some of long ones.
    let grid = match (left / DELAY).min(LONGEST_DELAY).as_millis().checked_ilog2() {
        Some(bits) => Duration::from_millis(1 << bits),
        None => return due,
    };
    let moments = due.as_nanos().div_ceil(grid.as_nanos());
    u32::try_from(moments).map_or(due, |moments| grid * moments)
}

async fn give_turns(shared: Arc<Shared>) {
    loop {
        let pause = {
            let mut quota = shared.lock();
            shared.give(&mut quota);
            quota.pause(shared.began.elapsed())
        };
        match pause {
            Some(pause) => tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = shared.changed.notified() => {}
                // It may have a turn before those that wait.
                () = shared.asked.notified() => {}
            },
            None => shared.asked.notified().await,
        }
    }
}

/// The delay of a NIC's announcement after the event, at most `longest`: constant for a NIC, and evenly spread over NICs.
pub(crate) fn jitter(mac: MacAddr, longest: Duration) -> Duration {
    let mixed = mac
        .octets()
        .iter()
        .fold(0u32, |sum, byte| (sum ^ u32::from(*byte)).wrapping_mul(0x9e37_79b1).rotate_left(13));
    longest.mul_f64(f64::from(mixed) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[test]
    fn later_rounds_of_several_guests_are_due_at_the_same_moments() {
        let ms = Duration::from_millis;
        let due = |at, left| with_others(Duration::from_micros(at), ms(left)).as_millis();
        assert_eq!([1_000_001, 1_007_900, 1_008_000].map(|at| due(at, 200)), [1008, 1008, 1008]);
        assert_eq!([1_000_001, 1_007_900].map(|at| due(at, 3_000)), [1008, 1008]);
        assert_eq!(due(1_001_500, 50), 1_004, "late by an eighth of its pause at most");
        assert_eq!(with_others(Duration::from_micros(1_001_500), ms(5)), Duration::from_micros(1_001_500));
    }

    #[tokio::test]
    async fn a_second_round_that_is_due_at_once_waits_for_first_rounds_that_are_ready() {
        let pace = Pacer::start(1_000_000);
        let sent = Arc::new(Mutex::new(Vec::new()));
        let announcements = (0..3).map(|_| {
            let (pace, sent) = (pace.clone(), sent.clone());
            tokio::spawn(async move {
                for round in 0..2 {
                    pace.turn(Part::announcements(round), 1).await;
                    sent.lock().unwrap().push(round);
                }
            })
        });
        for announcement in announcements.collect::<Vec<_>>() {
            announcement.await.unwrap();
        }
        let rounds: Vec<u32> = sent.lock().unwrap().clone();
        assert_eq!(rounds, [0, 0, 0, 1, 1, 1]);
    }

    #[tokio::test(start_paused = true)]
    async fn turns_that_are_held_back_come_when_that_ends() {
        let pace = Pacer::start(1000);
        assert!(!pace.turn(Part::announcements(0), 1).await);
        let began = Instant::now();
        pace.hold(Duration::from_secs(900));
        assert!(pace.turn(Part::announcements(0), 1).await, "it was held back");
        assert!(began.elapsed() >= Duration::from_secs(900));

        pace.hold(Duration::from_secs(900));
        let again = Instant::now();
        let waiting = tokio::spawn({
            let pace = pace.clone();
            async move { pace.turn(Part::announcements(0), 1).await }
        });
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!waiting.is_finished());
        pace.hold(Duration::ZERO);
        assert!(waiting.await.unwrap());
        assert!(again.elapsed() < Duration::from_secs(2), "{:?}", again.elapsed());
        assert!(!pace.turn(Part::announcements(0), 1).await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_first_round_does_not_wait_for_the_pause_of_a_later_one() {
        let pace = Pacer::start(10);
        pace.turn(Part::announcements(0), 1).await;
        let later = tokio::spawn({
            let pace = pace.clone();
            async move { pace.turn(Part::announcements(1), 60).await }
        });
        tokio::time::sleep(Duration::from_millis(1)).await;
        let began = Instant::now();
        pace.turn(Part::announcements(0), 1).await;
        assert!(began.elapsed() < Duration::from_millis(200), "{:?}", began.elapsed());
        assert!(!later.is_finished());
        later.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn a_raised_rate_applies_to_waiting_requests_at_once() {
        let pace = Pacer::start(1);
        pace.turn(Part::announcements(0), 1000).await;
        let began = Instant::now();
        let waiting = tokio::spawn({
            let pace = pace.clone();
            async move { pace.turn(Part::announcements(0), 1).await }
        });
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert!(!waiting.is_finished());
        pace.change(1000);
        pace.turn(Part::announcements(0), 1).await;
        waiting.await.unwrap();
        assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    }
}
