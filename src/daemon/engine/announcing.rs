//! Carries out the ledgers' actions for a guest: reads it, announces it, and forgets it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task;
use tokio::time::Instant;

use super::{Engine, Run, Running};
use crate::announcement::progress::Outcome;
use crate::daemon::board::Entry;
use crate::daemon::reading::patiently;
use crate::guest::event::Cause;
use crate::guest::ledger::{Action, Ended};
use crate::guest::target::Target;
use crate::guest::{GuestState, Known};
use crate::report::Report;
use crate::report::standing::Standing;
use crate::run::announcer::{self, Signals, Stop};
use crate::run::link_query::{self, LinkQuery};
use crate::run::order::Order;
use crate::run::{pacer, targets, wall_clock};

/// The result of reading a guest: the connection, the guest, the number of the reading.
pub(super) type Read = (usize, String, u64, Result<Known, String>);

/// libvirt has not answered: the connection, the guest, the reading. None where the guest left before.
pub(super) type Silence = Option<(usize, String, u64)>;

/// A libvirt that takes longer to describe a guest that runs is not waited for: a post-copy migration may hold it up for seconds.
const UNANSWERED: Duration = Duration::from_millis(300);

/// An announcement that begins.
pub(super) struct Start {
    pub run: Run,
    pub uuid: String,
    pub order: Arc<Order>,
    /// When its event was.
    pub at: Instant,
    /// The guest's state, as the announcement heeds it.
    pub guest: watch::Receiver<GuestState>,
    /// Of one before the guest runs: where it is told that the guest has left.
    pub early: Option<watch::Sender<GuestState>>,
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
                    self.announce(Run { connection, number: run }, uuid, *target, (cause, at), stopped);
                }
                Action::Early { uuid, run, target, at } => {
                    let at = self.epoch + at;
                    self.announce_early(Run { connection, number: run }, uuid, *target, at);
                }
                Action::EndEarly { run, runs_here } => {
                    self.end_early(Run { connection, number: run }, runs_here);
                }
                Action::Tell { uuid, word } => self.words.push((uuid, word)),
                Action::Supersede(number) => {
                    if let Some(old) = self.take_running(Run { connection, number }) {
                        old.stop.send_replace(Some(Stop::Superseded));
                    }
                }
                Action::CannotSpeakFor(nic) => self.publisher.cannot_speak_for(&nic),
            }
        }
        self.changed |= self.connections[connection].ledger.has_changed();
    }

    fn note_state(&mut self, connection: usize, uuid: String, state: GuestState) {
        let guest = (connection, uuid);
        if let GuestState::Left(_) = state {
            // Its announcements end by themselves, and their results no longer matter.
            let is_its =
                |run: &Run, running: &Running| (run.connection, &running.uuid) == (guest.0, &guest.1);
            let its = self.running.iter().filter(|(run, running)| is_its(run, running));
            for early in its.filter_map(|(_, running)| running.early.as_ref()) {
                early.send_replace(state);
            }
            let its = self.running.iter().filter(|(run, running)| is_its(run, running));
            let its: Vec<Run> = its.map(|(run, _)| *run).collect();
            its.into_iter().for_each(|run| drop(self.take_running(run)));
            if let Some(sender) = self.states.remove(&guest) {
                sender.send_replace(state);
            }
        } else {
            self.states.entry(guest).or_insert_with(|| watch::channel(state).0).send_replace(state);
        }
    }

    pub(super) fn state_of(&mut self, connection: usize, uuid: &str) -> watch::Receiver<GuestState> {
        let unknown = || watch::channel(GuestState::Running).0;
        self.states.entry((connection, uuid.to_owned())).or_insert_with(unknown).subscribe()
    }

    /// Reads a guest's XML, which may take libvirt a while.
    fn start_reading(&mut self, number: usize, uuid: String, reading: u64) {
        let state = self.state_of(number, &uuid);
        let (mut running, silent) = (state.clone(), uuid.clone());
        self.silences.spawn(async move {
            tokio::time::sleep(UNANSWERED).await;
            let runs = running.wait_for(|state| *state == GuestState::Running).await.is_ok();
            runs.then_some((number, silent, reading))
        });
        let (read, sources) = (self.connections[number].read.clone(), self.config.addresses.sources.clone());
        self.reads.spawn(async move {
            let known = patiently(|| read(uuid.clone(), sources.clone()), state).await;
            (number, uuid, reading, known)
        });
    }

    /// The guest runs, and libvirt does not describe it.
    pub(super) fn is_silent(&mut self, silence: Silence) {
        let Some((number, uuid, reading)) = silence else {
            return;
        };
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
        let ledger = &mut self.connections[number].ledger;
        match &known {
            Ok(known) => ledger.name(&uuid, &known.domain.name),
            // A guest that has left in the meantime needs no announcement.
            Err(why) if !ledger.knows(&uuid) => tracing::debug!("cannot read the VM {uuid}: {why}"),
            Err(why) => tracing::warn!(
                "cannot read the VM {uuid}: {why}; it is tried again with the next connection to libvirt, or by announce --vm"
            ),
        }
        // The hook has no next connection.
        self.given_up = known.is_err();
        let nics = known.ok().map(|known| targets::of(known, &self.config, &self.host.ovs.borrow().ovs));
        let actions = ledger.read(&uuid, reading, nics, self.epoch.elapsed());
        self.act(number, actions);
    }

    /// What the configuration makes of an announcement for `cause`.
    pub(super) fn order(
        &self,
        connection: usize,
        target: impl Into<Arc<Target>>,
        cause: Cause,
    ) -> Arc<Order> {
        let target = target.into();
        let endless = self.only.is_none();
        let (read, asked) = (self.connections[connection].read.clone(), target.clone());
        let link_query = LinkQuery::new(move || {
            let (asked, uuid) = (asked.clone(), asked.domain.as_ref().map(|domain| domain.uuid.clone()));
            let known = read(uuid.unwrap_or_default(), Vec::new());
            Box::pin(async move { link_query::is_up(&known.await.ok()?.domain, &asked) })
        });
        let order = Order::new(target, &self.config, &[], None);
        if cause == Cause::Handover {
            return Arc::new(order.before_it_runs());
        }
        let asker = self.connections[connection].asker.clone().filter(|_| self.config.libvirt.ask_guest);
        let order = Order { cause, endless, link_query: Some(link_query), ask_guest: asker, ..order };
        Arc::new(if cause == Cause::Uplink { order.after_uplink_change() } else { order })
    }

    /// Announces a NIC for a cause at its time; `stopped` so long before that, its source had stopped the guest.
    fn announce(
        &mut self,
        run: Run,
        uuid: String,
        target: Target,
        (cause, at): (Cause, Instant),
        stopped: Option<Duration>,
    ) {
        let order = self.order(run.connection, target, cause);
        let order = match stopped {
            Some(_) => Arc::new(Order { source_stopped: stopped, ..Order::clone(&order) }),
            None => order,
        };
        let guest = self.state_of(run.connection, &uuid);
        self.start(Start { run, uuid, order, at, guest, early: None });
    }

    pub(super) fn start(&mut self, Start { run, uuid, order, at, guest, early }: Start) {
        let (target, cause) = (order.target.clone(), order.cause);
        let (mac, device) = (target.mac, target.plug.device.clone());
        let (stop, stopped) = watch::channel(None);
        let (order, orders) = watch::channel(order);
        let (standing, shown) = watch::channel(Standing { device, ..Standing::default() });
        let entry =
            Arc::new(Entry { target: target.clone(), cause, event_at: wall_clock::at(at), standing: shown });
        let signals = Signals { order: orders, guest, stop: stopped, standing };
        let jitter = self.config.limits.jitter;
        let jitter = match cause {
            _ if early.is_some() => Duration::ZERO,
            Cause::Uplink => self.wait_for_uplink(run.connection, &uuid, mac),
            _ => pacer::jitter(mac, jitter),
        };
        // That delay is not one of the port or the network.
        let at = if cause == Cause::Uplink { Instant::now() + jitter } else { at };
        let host = self.host.clone();
        let whose = uuid.clone();
        let task = self.tasks.spawn(async move {
            if !jitter.is_zero() {
                tokio::time::sleep(jitter).await;
            }
            (run, whose, announcer::announce(host, signals, at).await)
        });
        self.publisher.begun((run.connection, run.number), entry.clone());
        self.running.insert(
            run,
            Running { uuid, entry, target, order, stop, early, task: task.id(), then_uplink: None },
        );
    }

    /// The announcement is not under way any more.
    fn take_running(&mut self, run: Run) -> Option<Running> {
        self.publisher.over((run.connection, run.number));
        self.running.remove(&run)
    }

    pub(super) fn ended(&mut self, ended: Result<(task::Id, (Run, String, Report)), task::JoinError>) {
        let (run, uuid, how) = match ended {
            Ok((_, (run, uuid, report))) => {
                self.publisher.finished(&report);
                self.count_early(&report);
                let lacks_a_way = report.outcome == Outcome::Failed && self.host.injectors.is_exhausted();
                let how = match report.held_up_by_pause {
                    true => Ended::Paused,
                    // The next daemon prepares the injection methods anew.
                    false if lacks_a_way => Ended::BrokenOff,
                    false => Ended::Done,
                };
                (run, uuid, how)
            }
            Err(error) => {
                tracing::error!("an announcement was interrupted: {error}");
                let mut running = self.running.iter();
                let Some((run, running)) = running.find(|(_, running)| running.task == error.id()) else {
                    return;
                };
                (*run, running.uuid.clone(), Ended::BrokenOff)
            }
        };
        // A superseded announcement, or one whose guest has left, has no consequences.
        if let Some(running) = self.take_running(run) {
            let now = self.epoch.elapsed();
            let actions = self.connections[run.connection].ledger.ended(&uuid, run.number, how, now);
            self.act(run.connection, actions);
            if let (Some(name), Ended::Done) = (running.then_uplink, how) {
                self.touched(run.connection, &uuid, Cause::Uplink, name);
            }
        }
    }
}
