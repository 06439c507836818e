//! What is done about a guest: it is read, announced, and let go.

use pnet_base::MacAddr;
use tokio::sync::watch;
use tokio::task;
use tokio::time::Instant;

use super::{Engine, Guest, Nic, PAUSED, Read, Running};
use crate::announcement::machine::Outcome;
use crate::daemon::reading::patiently;
use crate::guest::GuestState;
use crate::guest::Known;
use crate::guest::event::Cause;
use crate::guest::ledger::Verdict;
use crate::guest::target;
use crate::path::condition::Condition;
use crate::report::Report;
use crate::run::announcer::{self, Signals, Stop};
use crate::run::order::Order;
use crate::run::pacer;

impl Engine {
    pub(super) fn note_state(&mut self, uuid: &str, state: GuestState) {
        self.guest(uuid).state.send_replace(state);
    }

    pub(super) fn act(
        &mut self,
        number: usize,
        uuid: String,
        verdict: Verdict,
        plugged: Option<String>,
        at: Instant,
    ) {
        match verdict {
            Verdict::Nothing => {}
            Verdict::Forget => self.forget(&uuid),
            Verdict::Prepare => {
                self.guest(&uuid).owed = true;
                self.start_reading(number, uuid, None, None);
            }
            Verdict::Announce(cause) if plugged.is_some() => {
                self.publisher.event(cause);
                let guest = self.guest(&uuid);
                // What was read before lacks this NIC, which is announced with all the others when the guest runs.
                guest.prepared = None;
                let is_owed = guest.owed && *guest.state.borrow() == GuestState::Paused(PAUSED);
                let (wanted, plugged) = if is_owed { (None, None) } else { (Some((cause, at)), plugged) };
                self.start_reading(number, uuid, wanted, plugged);
            }
            Verdict::Announce(cause) => {
                let is_under_way = self.is_under_way(&uuid);
                let guest = self.guest(&uuid);
                if is_under_way && !guest.owed {
                    return;
                }
                guest.owed = true;
                let prepared = guest.prepared.take();
                self.publisher.event(cause);
                match prepared {
                    Some(known) => self.launch(number, &uuid, known, (cause, at), None),
                    None => self.start_reading(number, uuid, Some((cause, at)), None),
                }
            }
        }
    }

    /// The guest has left: nothing that is still under way for it counts any more, should it come back.
    fn forget(&mut self, uuid: &str) {
        if let Some(guest) = self.guests.remove(uuid) {
            guest.state.send_replace(GuestState::Left("shut off"));
            if let Some(reading) = guest.reading {
                reading.abort();
            }
        }
        self.running.retain(|(guest, _), _| guest != uuid);
    }

    pub(super) fn guest(&mut self, uuid: &str) -> &mut Guest {
        let state = || watch::channel(GuestState::Running).0;
        let new = || Guest { state: state(), prepared: None, reading: None, owed: false };
        self.guests.entry(uuid.to_owned()).or_insert_with(new)
    }

    fn is_under_way(&self, uuid: &str) -> bool {
        let mut from_there = self.running.range((uuid.to_owned(), MacAddr::zero())..);
        from_there.next().is_some_and(|((guest, _), _)| guest == uuid)
    }

    /// Reads a guest's XML, which may take libvirt a while.
    fn start_reading(
        &mut self,
        number: usize,
        uuid: String,
        wanted: Option<(Cause, Instant)>,
        plugged: Option<String>,
    ) {
        let libvirt = self.connections[number].libvirt.clone();
        let sources = self.config.addresses.sources.clone();
        let state = self.guest(&uuid).state.subscribe();
        let (whom, whole) = (uuid.clone(), plugged.is_none());
        let reading = self.reads.spawn(async move {
            let of = uuid.clone();
            let known = patiently(move || libvirt.read(&of, &sources), state).await;
            (number, uuid, wanted, plugged, known)
        });
        // An older one that still tries is not needed any more: this one knows better what for.
        let older = if whole { self.guest(&whom).reading.replace(reading) } else { None };
        if let Some(older) = older {
            older.abort();
        }
    }

    pub(super) fn read(&mut self, read: Result<Read, task::JoinError>) {
        match read {
            Ok((number, uuid, Some(wanted), plugged, Ok(known))) => {
                self.launch(number, &uuid, known, wanted, plugged);
            }
            Ok((_, uuid, None, _, Ok(known))) => {
                if let Some(guest) = self.guests.get_mut(&uuid) {
                    guest.prepared = Some(known);
                }
            }
            // Who has left meanwhile needs no announcement.
            Ok((_, uuid, _, _, Err(why))) if !self.guests.contains_key(&uuid) => {
                tracing::debug!("cannot read the VM {uuid}: {why}");
            }
            Ok((_, uuid, _, _, Err(why))) => tracing::warn!(
                "cannot read the VM {uuid}: {why}; it is tried again with the next connection to libvirt, or by announce --vm"
            ),
            Err(error) if error.is_cancelled() => {}
            Err(error) => tracing::error!("reading a VM broke off: {error}"),
        }
    }

    /// Starts an announcement of every NIC of a guest, or of the one that was plugged.
    fn launch(
        &mut self,
        number: usize,
        uuid: &str,
        known: Known,
        (cause, at): (Cause, Instant),
        plugged: Option<String>,
    ) {
        let Some(guest) = self.guests.get_mut(uuid) else {
            return;
        };
        guest.owed &= plugged.is_some();
        let state = guest.state.subscribe();
        let meant = |alias: &Option<String>| plugged.is_none() || *alias == plugged;
        let mut addresses = known.addresses.into_iter();
        let nics = target::of(&known.domain).into_iter().zip(&known.domain.interfaces);
        for (nic, interface) in nics {
            let learned = addresses.next().unwrap_or_default();
            match nic {
                _ if !meant(&interface.alias) => {}
                Ok(mut target) => {
                    target.addresses.extend(learned);
                    let order = Order::new(target, &self.config, &[], None);
                    self.start(number, uuid, Order { cause, ..order }, state.clone(), at);
                }
                Err(nic) => self.publisher.cannot_speak_for(&nic),
            }
        }
        self.settle(number, uuid);
    }

    fn start(
        &mut self,
        number: usize,
        uuid: &str,
        order: Order,
        guest: watch::Receiver<GuestState>,
        at: Instant,
    ) {
        let nic = (uuid.to_owned(), order.target.mac);
        let (stop, stopped) = watch::channel(None);
        let subject = order.target.subject(order.target.plug.device.clone());
        let (host, whose) = (self.host.clone(), nic.clone());
        let signals = Signals { guest, stop: stopped };
        let jitter = pacer::jitter(order.target.mac, self.config.limits.jitter);
        let task = self.tasks.spawn(async move {
            if !jitter.is_zero() {
                tokio::time::sleep(jitter).await;
            }
            (number, whose, announcer::announce(order, host, signals, at).await)
        });
        if let Some(old) = self.running.insert(nic, Running { subject, stop, task: task.id() }) {
            old.stop.send_replace(Some(Stop::Superseded));
        }
    }

    pub(super) fn ended(&mut self, ended: Result<(task::Id, (usize, Nic, Report)), task::JoinError>) {
        let (task, (number, nic, report)) = match ended {
            Ok(ended) => ended,
            Err(error) => {
                // It stays pending, so that it is tried again with the next connection to libvirt.
                self.running.retain(|_, running| running.task != error.id());
                return tracing::error!("an announcement broke off: {error}");
            }
        };
        self.publisher.finished(&report);
        if self.running.get(&nic).is_none_or(|running| running.task != task) {
            return;
        }
        self.running.remove(&nic);
        let (uuid, _) = nic;
        let Some(guest) = self.guests.get_mut(&uuid) else {
            return;
        };
        if was_held_up_by_a_pause(&report) {
            // It is announced again when it goes on, which it may have done meanwhile.
            guest.owed = true;
            if *guest.state.borrow() == GuestState::Running {
                let again = Verdict::Announce(report.cause);
                return self.act(number, uuid, again, None, Instant::now());
            }
        }
        self.settle(number, &uuid);
    }

    /// With nothing under way and nothing owed, a guest is done.
    fn settle(&mut self, number: usize, uuid: &str) {
        let is_owed = self.guests.get(uuid).is_some_and(|guest| guest.owed);
        if !is_owed && !self.is_under_way(uuid) {
            self.connections[number].ledger.done(uuid);
        }
        self.changed = true;
    }
}

fn was_held_up_by_a_pause(report: &Report) -> bool {
    let pause = Condition::Paused(PAUSED).to_string();
    matches!(report.outcome, Outcome::Cancelled | Outcome::NotReady) && report.unmet.contains(&pause)
}
