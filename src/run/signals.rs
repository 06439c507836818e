//! What directs an announcement while it is under way, and how it stands. The announcement and the loop that began it share this.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use super::interests::Woken;
use super::order::Order;
use super::stage::Stage;
use super::wall_clock;
use crate::guest::GuestState;
use crate::report::standing::{Standing, UnderWay};

/// Why an announcement must end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// The program ends.
    Interrupted,
    /// Another announcement replaces it.
    Superseded,
    /// The configuration leaves the NIC out.
    LeftOut,
    /// The guest runs, so that its usual announcement follows this early one.
    Relieved,
    /// The guest runs on at the source of its migration.
    Kept,
}

/// An announcement of the daemon: the connection of its guest, and its number in the connection's ledger. One word, which stands in
/// several tables: thousands may wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Number(u64);

impl Number {
    /// A ledger that counts a million a second does so for nine years.
    const BITS_IN_LEDGER: u32 = 48;

    /// The first of this connection has the number 0.
    pub(crate) fn new(connection: usize, in_ledger: u64) -> Number {
        Number((connection as u64) << Number::BITS_IN_LEDGER | in_ledger)
    }

    /// The connection of its guest.
    pub(crate) fn connection(self) -> usize {
        (self.0 >> Number::BITS_IN_LEDGER) as usize
    }

    /// The number in the connection's ledger.
    pub(crate) fn in_ledger(self) -> u64 {
        self.0 & ((1 << Number::BITS_IN_LEDGER) - 1)
    }
}

/// The inputs that direct, end or pause an announcement, and where it shows how it stands. One allocation: thousands may wait.
#[derive(Debug, Clone)]
pub(crate) struct Signals(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// When the event was, by the wall clock of that moment.
    event_at: SystemTime,
    state: Mutex<State>,
    /// The task that carries it out waits here.
    woken: Notify,
}

#[derive(Debug)]
struct State {
    /// Where it is told that there is something to heed, while no task carries it out.
    queue: Option<(mpsc::UnboundedSender<Number>, Number)>,
    order: Arc<Order>,
    guest: GuestState,
    stop: Option<Stop>,
    /// The order is another one than the announcement knows.
    is_new_order: bool,
    /// Order, guest or stop have changed since the announcement looked.
    is_directed: bool,
    /// The host has changed since then.
    has_host_changed: bool,
    /// How often it has.
    host_changes: u64,
    /// How it stands; none before its first look at the host.
    stage: Option<Stage>,
    /// That has changed since it was last read.
    is_unread: bool,
}

/// What the announcement has to heed.
pub(crate) struct Direction {
    /// Another order.
    pub order: Option<Arc<Order>>,
    /// The guest's state.
    pub guest: GuestState,
    /// The reason to end, if any.
    pub stop: Option<Stop>,
}

impl Signals {
    /// For an announcement by `order`, whose guest is in this state, for an event at `began`.
    pub(crate) fn new(order: Arc<Order>, guest: GuestState, began: Instant) -> Signals {
        let state = State {
            queue: None,
            order,
            guest,
            stop: None,
            is_new_order: false,
            is_directed: false,
            has_host_changed: false,
            host_changes: 0,
            stage: None,
            is_unread: true,
        };
        let event_at = wall_clock::of(began);
        Signals(Arc::new(Shared { event_at, state: Mutex::new(state), woken: Notify::new() }))
    }

    /// The order.
    pub(crate) fn order(&self) -> Arc<Order> {
        self.lock().order.clone()
    }

    /// Another order, which applies while the announcement waits.
    pub(crate) fn reorder(&self, order: Arc<Order>) {
        self.direct(|state| (state.order, state.is_new_order) = (order, true));
    }

    /// The guest's state.
    pub(crate) fn guest_is(&self, guest: GuestState) {
        self.direct(|state| state.guest = guest);
    }

    /// The announcement must end.
    pub(crate) fn stop(&self, why: Stop) {
        self.direct(|state| state.stop = Some(why));
    }

    fn direct(&self, change: impl FnOnce(&mut State)) {
        self.wake(|state| {
            change(state);
            state.is_directed = true;
        });
    }

    fn wake(&self, change: impl FnOnce(&mut State)) {
        self.0.wake(change);
    }

    /// Receives the changes of the host.
    pub(super) fn woken_by_host(&self) -> Arc<dyn Woken> {
        self.0.clone()
    }

    /// No task carries it out: its number goes to this queue when there is something to heed.
    pub(crate) fn queue(&self, queue: mpsc::UnboundedSender<Number>, number: Number) {
        self.lock().queue = Some((queue, number));
    }

    /// A task carries it out from now on.
    pub(super) fn leave_queue(&self) {
        self.lock().queue = None;
    }

    /// What the announcement has to heed now.
    pub(super) fn take(&self) -> Direction {
        let mut state = self.lock();
        state.is_directed = false;
        let is_new = std::mem::take(&mut state.is_new_order);
        Direction { order: is_new.then(|| state.order.clone()), guest: state.guest, stop: state.stop }
    }

    /// Whether the host has changed since the last call.
    pub(super) fn take_host_change(&self) -> bool {
        std::mem::take(&mut self.lock().has_host_changed)
    }

    /// Returns when there is anything to heed, or the host has changed.
    pub(super) async fn woken(&self) {
        self.until(|state| state.is_directed || state.has_host_changed).await;
    }

    /// Returns when there is anything to heed.
    pub(super) async fn directed(&self) {
        self.until(|state| state.is_directed).await;
    }

    /// Returns when the guest does not run or the announcement must end.
    pub(super) async fn must_stop(&self) {
        self.until(State::must_stop).await;
    }

    /// Returns true when the guest does not run or the announcement must end, and false when the host has changed since this count of its
    /// changes, which is brought up to date.
    pub(super) async fn must_stop_or_changed(&self, host_changes: &mut u64) -> bool {
        self.until(|state| state.must_stop() || state.host_changes != *host_changes).await;
        let state = self.lock();
        *host_changes = state.host_changes;
        state.must_stop()
    }

    /// Only the announcement waits for anything, and for one thing at a time.
    async fn until(&self, is_so: impl Fn(&State) -> bool) {
        while !is_so(&self.lock()) {
            self.0.woken.notified().await;
        }
    }

    /// It stands as `next` makes of how it stood last, if that is anything new; returns how it stood last in that case.
    pub(super) fn show(&self, next: impl FnOnce(Option<&Stage>) -> Option<Stage>) -> Option<Option<Stage>> {
        let mut state = self.lock();
        let next = next(state.stage.as_ref())?;
        state.is_unread = true;
        Some(state.stage.replace(next))
    }

    /// It stands like this.
    #[cfg(test)]
    pub(crate) fn stands(&self, condition: Option<&'static str>, rounds: u32) {
        self.show(|_| Some(Stage::at(condition, rounds)));
    }

    /// How it stands has changed since [`Signals::has_been_read`].
    pub(crate) fn is_unread(&self) -> bool {
        self.lock().is_unread
    }

    /// How it stands is read now.
    pub(crate) fn has_been_read(&self) {
        self.lock().is_unread = false;
    }

    /// How it stands.
    pub(crate) fn standing(&self) -> Standing {
        let state = self.lock();
        let target = &state.order.target;
        match &state.stage {
            Some(stage) => stage.standing(&state.order),
            None => Standing { device: target.plug.device.clone(), ..Standing::default() },
        }
    }

    /// The NIC in words.
    pub(crate) fn subject(&self) -> String {
        let target = self.order().target.clone();
        target.subject(target.plug.device.clone())
    }

    /// The announcement, as the status tells it.
    pub(crate) fn under_way(&self) -> UnderWay {
        let order = self.order();
        let domain = order.target.domain.as_ref();
        UnderWay {
            vm: domain.map(|domain| domain.name.to_string()),
            uuid: domain.map(|domain| domain.uuid.to_string()),
            mac: order.target.mac,
            cause: order.cause,
            event: Some(order.cause),
            event_at: wall_clock::text(self.0.event_at),
            standing: self.standing(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock()
    }
}

impl State {
    fn must_stop(&self) -> bool {
        self.guest != GuestState::Running || self.stop.is_some()
    }
}

impl Shared {
    fn wake(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.lock();
        let is_woken = state.is_directed || state.has_host_changed;
        change(&mut state);
        match &state.queue {
            // It is there already.
            Some(_) if is_woken => {}
            // Nothing is heeded any more where it is not received.
            Some((queue, number)) => drop(queue.send(*number)),
            None => self.woken.notify_one(),
        }
    }

    /// The state is consistent between any two statements, so a panic elsewhere has not broken it.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Woken for Shared {
    fn host_has_changed(&self) {
        self.wake(|state| {
            state.has_host_changed = true;
            state.host_changes += 1;
        });
    }

    fn host_changes(&self) -> u64 {
        self.lock().host_changes
    }
}
