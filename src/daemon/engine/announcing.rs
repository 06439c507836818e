//! Carries out the ledgers' actions for a guest: reads it, announces it, and forgets it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task;
use tokio::time::Instant;

use super::{Engine, Running};
use crate::announcement::progress::Outcome;
use crate::daemon::connection::Connection;
use crate::daemon::reading::patiently;
use crate::guest::event::Cause;
use crate::guest::ledger::{Action, Ended};
use crate::guest::target::Target;
use crate::guest::{GuestState, Known};
use crate::report::Report;
use crate::run::announcer;
use crate::run::order::Order;
use crate::run::signals::{Number, Signals, Stop};
use crate::run::{pacer, targets};

/// The result of reading a guest: the connection, the guest, the number of the reading.
pub(super) type Read = (usize, Arc<str>, u64, Result<Known, String>);

/// libvirt has not answered: the connection, the guest, the reading, and whether the guest runs.
pub(super) type Silence = (usize, Arc<str>, u64, bool);

/// A libvirt that takes longer to describe a guest that runs is not waited for: a post-copy migration may hold it up for seconds.
const UNANSWERED: Duration = Duration::from_millis(300);

/// An announcement that begins.
pub(super) struct Start {
    pub run: Number,
    pub uuid: Arc<str>,
    pub order: Arc<Order>,
    /// When its event was.
    pub at: Instant,
    /// The guest's state, as the announcement heeds it.
    pub guest: GuestState,
}

impl Engine {
    pub(super) fn act(&mut self, connection: usize, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::State { uuid, state } => self.note_state(connection, uuid, state),
                Action::Read { uuid, reading } => self.start_reading(connection, uuid, reading),
                Action::Event(cause) => self.publisher.event(cause),
                Action::Announce { uuid, run, target, cause, at, source_stopped } => {
                    let stopped = source_stopped.map(|stopped| at.saturating_sub(stopped));
                    let at = self.epoch + at;
                    self.announce(Number::new(connection, run), uuid, *target, (cause, at), stopped);
                }
                Action::Early { uuid, run, target, at } => {
                    let at = self.epoch + at;
                    self.announce_early(Number::new(connection, run), uuid, *target, at);
                }
                Action::EndEarly { run, runs_here } => {
                    self.end_early(Number::new(connection, run), runs_here);
                }
                Action::Tell { uuid, word } => self.words.push((uuid, word)),
                Action::Supersede(number) => {
                    if let Some(old) = self.take_running(Number::new(connection, number)) {
                        old.signals.stop(Stop::Superseded);
                    }
                }
                Action::CannotSpeakFor(nic) => self.publisher.cannot_speak_for(&nic),
            }
        }
        self.changed |= self.connections[connection].ledger.has_changed();
    }

    fn note_state(&mut self, connection: usize, uuid: Arc<str>, state: GuestState) {
        let has_left = matches!(state, GuestState::Left(_));
        for run in self.runs_of(connection, &uuid) {
            // Of one before the guest runs, it counts only whether it leaves.
            let running = self.running.get(&run).filter(|running| has_left || !running.is_early());
            running.into_iter().for_each(|running| running.signals.guest_is(state));
            if has_left {
                // It ends by itself, and its result no longer matters.
                self.take_running(run);
            }
        }
        let reading = (connection, uuid);
        if let Some(sender) = self.states.get(&reading) {
            sender.send_replace(state);
        }
        if has_left {
            self.states.remove(&reading);
        }
    }

    /// The announcements under way of a guest.
    pub(super) fn runs_of(&self, connection: usize, uuid: &str) -> Vec<Number> {
        let (first, end) = (Number::new(connection, 0), Number::new(connection + 1, 0));
        let uuid: Arc<str> = uuid.into();
        let its = self.by_guest.range((uuid.clone(), first)..(uuid, end));
        its.map(|(_, run)| *run).collect()
    }

    /// The state of a guest that is read.
    pub(super) fn state_of(&mut self, connection: usize, uuid: &str) -> watch::Receiver<GuestState> {
        let now = self.connections[connection].ledger.state_of(uuid);
        let sender = self.states.entry((connection, uuid.into()));
        sender.or_insert_with(|| watch::channel(now).0).subscribe()
    }

    /// A reading of the guest has ended.
    pub(super) fn was_read(&mut self, connection: usize, uuid: &str) {
        let reading = (connection, uuid.into());
        if self.states.get(&reading).is_some_and(watch::Sender::is_closed) {
            self.states.remove(&reading);
        }
    }

    /// Reads a guest's XML, which may take libvirt a while.
    fn start_reading(&mut self, number: usize, uuid: Arc<str>, reading: u64) {
        let state = self.state_of(number, &uuid);
        let (mut running, silent) = (state.clone(), uuid.clone());
        self.silences.spawn(async move {
            tokio::time::sleep(UNANSWERED).await;
            let runs = running.wait_for(|state| *state == GuestState::Running).await.is_ok();
            drop(running);
            (number, silent, reading, runs)
        });
        let (read, sources) = (self.connections[number].read.clone(), self.config.addresses.sources.clone());
        self.reads.spawn(async move {
            let known = patiently(|| read(uuid.clone(), sources.clone()), state).await;
            (number, uuid, reading, known)
        });
    }

    /// The guest runs, and libvirt does not describe it.
    pub(super) fn is_silent(&mut self, (number, uuid, reading, runs): Silence) {
        self.was_read(number, &uuid);
        if !runs {
            return;
        }
        let nics = targets::of_ovsdb(&uuid, &self.config, &self.host.ovs.borrow().ovs);
        let ledger = &mut self.connections[number].ledger;
        let actions = ledger.unanswered(&uuid, reading, nics, self.epoch.elapsed());
        if !actions.is_empty() {
            tracing::warn!(
                "libvirt does not describe the VM {uuid}, which runs here: what Open vSwitch knows of it is announced, and its \
                 addresses when libvirt answers"
            );
        }
        self.act(number, actions);
    }

    pub(super) fn read(&mut self, read: Result<Read, task::JoinError>) {
        let (number, uuid, reading, known) = match read {
            Ok(read) => read,
            Err(error) => return tracing::error!("reading a VM was interrupted: {error}"),
        };
        self.was_read(number, &uuid);
        let ledger = &mut self.connections[number].ledger;
        match &known {
            Ok(_) => {}
            // A guest that has left in the meantime needs no announcement.
            Err(why) if !ledger.knows(&uuid) => tracing::debug!("cannot read the VM {uuid}: {why}"),
            Err(why) => tracing::warn!(
                "cannot read the VM {uuid}: {why}; it is tried again with the next connection to libvirt, or by announce --vm"
            ),
        }
        // The hook has no next connection.
        self.given_up = known.is_err();
        let nics = known.ok().map(|mut known| {
            // The texts are kept once.
            (known.domain.name, known.domain.uuid) = (ledger.name(&uuid, &known.domain.name), uuid.clone());
            targets::of(known, &self.config, &self.host.ovs.borrow().ovs)
        });
        let actions = ledger.read(&uuid, reading, nics, self.epoch.elapsed());
        self.act(number, actions);
    }

    /// What the configuration makes of an announcement for `cause`.
    pub(super) fn order(&mut self, connection: usize, target: impl Into<Arc<Target>>, cause: Cause) -> Order {
        let Connection { link_query, asker, .. } = &self.connections[connection];
        let order = Order::new(target, &self.config, &[], None).with(|settings| {
            settings.endless = self.only.is_none();
            settings.link_query = Some(link_query.clone());
            settings.ask_guest = asker.clone().filter(|_| self.config.libvirt.ask_guest);
        });
        let order = match cause {
            Cause::Handover => order.before_it_runs(),
            Cause::Uplink => Order { cause, ..order }.after_uplink_change(),
            _ => Order { cause, ..order },
        };
        Order { settings: self.settings.share(order.settings), ..order }
    }

    /// Announces a NIC for a cause at its time; `stopped` so long before that, its source had stopped the guest.
    fn announce(
        &mut self,
        run: Number,
        uuid: Arc<str>,
        target: Target,
        (cause, at): (Cause, Instant),
        stopped: Option<Duration>,
    ) {
        let order = self.order(run.connection(), target, cause);
        let order = Arc::new(Order { source_stopped: stopped, ..order });
        let guest = self.connections[run.connection()].ledger.state_of(&uuid);
        self.start(Start { run, uuid, order, at, guest });
    }

    pub(super) fn start(&mut self, Start { run, uuid, order, at, guest }: Start) {
        let (mac, jitter) = (order.target.mac, self.config.limits.jitter);
        let signals = Signals::new(order.clone(), guest, at);
        let jitter = match order.cause {
            Cause::Handover => Duration::ZERO,
            Cause::Uplink => self.wait_for_uplink(run.connection(), &uuid, mac),
            _ => pacer::jitter(mac, jitter),
        };
        // That delay is not one of the port or the network.
        let at = if order.cause == Cause::Uplink { Instant::now() + jitter } else { at };
        self.publisher.begun(run, signals.clone());
        self.by_guest.insert((uuid.clone(), run));
        let running = Running { uuid, signals: signals.clone(), task: None };
        self.running.insert(run, running);
        if jitter.is_zero() {
            return self.begin(run, signals, at);
        }
        let host = self.host.clone();
        let task = self.tasks.spawn(async move {
            tokio::time::sleep(jitter).await;
            (run, announcer::announce(host, signals, at).await)
        });
        self.running.entry(run).and_modify(|running| running.task = Some(task.id()));
    }

    /// The announcement is not under way any more.
    fn take_running(&mut self, run: Number) -> Option<Running> {
        self.publisher.over(run);
        self.then_uplink.remove(&run);
        let running = self.running.remove(&run)?;
        self.by_guest.remove(&(running.uuid.clone(), run));
        Some(running)
    }

    pub(super) fn ended(&mut self, ended: Result<(task::Id, (Number, Box<Report>)), task::JoinError>) {
        let (run, how) = match ended {
            Ok((_, (run, report))) => {
                self.publisher.finished(&report);
                self.count_early(&report);
                let lacks_a_way = report.outcome == Outcome::Failed && self.host.injectors.is_exhausted();
                let how = match report.held_up_by_pause {
                    true => Ended::Paused,
                    // The next daemon prepares the injection methods anew.
                    false if lacks_a_way => Ended::BrokenOff,
                    false => Ended::Done,
                };
                (run, how)
            }
            Err(error) => {
                tracing::error!("an announcement was interrupted: {error}");
                let mut running = self.running.iter();
                let Some((run, _)) = running.find(|(_, running)| running.task == Some(error.id())) else {
                    return;
                };
                (*run, Ended::BrokenOff)
            }
        };
        // A superseded announcement, or one whose guest has left, has no consequences.
        let then_uplink = self.then_uplink.remove(&run);
        if let Some(Running { uuid, .. }) = self.take_running(run) {
            let now = self.epoch.elapsed();
            let actions = self.connections[run.connection()].ledger.ended(&uuid, run.in_ledger(), how, now);
            self.act(run.connection(), actions);
            if let (Some(name), Ended::Done) = (then_uplink, how) {
                self.touched(run.connection(), &uuid, Cause::Uplink, name);
            }
        }
    }
}
