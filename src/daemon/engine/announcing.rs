//! What is done about a guest: it is read, announced, and let go.

use pnet_base::MacAddr;
use tokio::sync::watch;
use tokio::time::Instant;

use super::{Engine, Guest, Nic, Read, Running};
use crate::announcement::Outcome;
use crate::announcer::{self, Signals, Stop};
use crate::daemon::reading::patiently;
use crate::event::Cause;
use crate::guest::Known;
use crate::orders;
use crate::pace;
use crate::readiness::GuestState;
use crate::report::Report;
use crate::roster::Verdict;
use crate::target;

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
            Verdict::Forget => {
                if let Some(guest) = self.guests.remove(&uuid) {
                    guest.state.send_replace(GuestState::Left("shut off"));
                }
            }
            Verdict::Prepare => {
                self.guest(&uuid);
                self.start_reading(number, uuid, None, None);
            }
            Verdict::Announce(cause) => {
                if self.is_under_way(&uuid) && plugged.is_none() {
                    return;
                }
                self.teller.event(cause);
                let prepared = self.guest(&uuid).prepared.take();
                match prepared {
                    Some(known) => self.launch(number, &uuid, known, (cause, at), None),
                    None => self.start_reading(number, uuid, Some((cause, at)), plugged),
                }
            }
        }
    }

    pub(super) fn guest(&mut self, uuid: &str) -> &mut Guest {
        let state = || watch::channel(GuestState::Running).0;
        let new = || Guest { state: state(), prepared: None, reading: None };
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
        let libvirt = self.sites[number].libvirt.clone();
        let sources = self.config.addresses.sources.clone();
        let state = self.guest(&uuid).state.subscribe();
        let (whom, whole) = (uuid.clone(), plugged.is_none());
        let reading = self.reads.spawn(async move {
            let of = uuid.clone();
            let known = patiently(move || libvirt.read(&of, &sources), state).await;
            (number, uuid, wanted, plugged, known)
        });
        // An older one that still tries is not needed any more: this one knows better what for.
        if whole && let Some(older) = self.guest(&whom).reading.replace(reading) {
            older.abort();
        }
    }

    pub(super) fn read(&mut self, read: Result<Read, tokio::task::JoinError>) {
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
        let Some(guest) = self.guests.get(uuid) else {
            return;
        };
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
                    let order = orders::order(target, &self.config, &[], None);
                    self.start(number, uuid, announcer::Order { cause, ..order }, state.clone(), at);
                }
                Err(refused) => self.teller.finished(&Report::refused(&refused, cause)),
            }
        }
        if !self.is_under_way(uuid) {
            self.sites[number].roster.done(uuid);
        }
        self.changed = true;
    }

    fn start(
        &mut self,
        number: usize,
        uuid: &str,
        order: announcer::Order,
        guest: watch::Receiver<GuestState>,
        at: Instant,
    ) {
        let nic = (uuid.to_owned(), order.target.mac);
        let (stop, stopped) = watch::channel(None);
        let subject = order.target.subject(order.target.plug.device.clone());
        let began = Instant::now();
        if let Some(old) = self.running.insert(nic.clone(), Running { subject, stop, began }) {
            old.stop.send_replace(Some(Stop::Superseded));
        }
        let host = self.host.clone();
        let signals = Signals { guest, stop: stopped };
        let jitter = pace::jitter(order.target.mac, self.config.limits.jitter);
        self.tasks.spawn(async move {
            if !jitter.is_zero() {
                tokio::time::sleep(jitter).await;
            }
            let report = announcer::announce(order, host, signals, at).await;
            (number, nic, began, report)
        });
    }

    pub(super) fn ended(&mut self, ended: Result<(usize, Nic, Instant, Report), tokio::task::JoinError>) {
        let (number, nic, began, report) = match ended {
            Ok(ended) => ended,
            Err(error) => return tracing::error!("an announcement broke off: {error}"),
        };
        self.teller.finished(&report);
        if self.running.get(&nic).is_some_and(|running| running.began == began) {
            self.running.remove(&nic);
        }
        let uuid = &nic.0;
        let state = self.guests.get(uuid).map(|guest| *guest.state.borrow());
        // One that was paused in mid-burst is announced when it goes on.
        let goes_on = report.outcome == Outcome::Cancelled && matches!(state, Some(GuestState::Paused(_)));
        if !goes_on && !self.is_under_way(uuid) {
            self.sites[number].roster.done(uuid);
            self.changed = true;
        }
    }
}
