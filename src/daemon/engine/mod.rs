//! The daemon's loop: what is heard, what is decided, what is under way.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::time::Duration;

use pnet_base::MacAddr;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::{self, AbortHandle, JoinSet};
use tokio::time::Instant;

use super::publish::{Teller, Watchdog};
use super::site::Site;
use super::{FAREWELL, advise};
use crate::config::Config;
use crate::daemon::state::{Keep, Rosters};
use crate::daemon::status::Status;
use crate::guest::GuestState;
use crate::guest::Known;
use crate::guest::event::{Cause, Change};
use crate::guest::ledger::{Present, Verdict};
use crate::host::libvirt::watch_guests::Notice;
use crate::report::Report;
use crate::report::metrics::Gauges;
use crate::run::announcer::Stop;
use crate::run::order::Host;

mod announcing;

/// A libvirt that has not answered by then is not waited for any more.
const UNHEARD: Duration = Duration::from_secs(10);
/// libvirt's word for a guest that may go on.
const PAUSED: &str = "paused";

/// A guest of this host.
struct Guest {
    state: watch::Sender<GuestState>,
    /// Read while it was arriving.
    prepared: Option<Known>,
    /// It is being read.
    reading: Option<AbortHandle>,
    /// NICs of it are still to be announced for which nothing is under way: it does not run yet, it has not been read yet,
    /// or it was paused in mid-burst.
    owed: bool,
}

/// An announcement under way.
struct Running {
    subject: String,
    stop: watch::Sender<Option<Stop>>,
    /// Tells it from one of the same NIC that it superseded, or whose guest has left.
    task: task::Id,
}

/// A NIC: the guest's UUID and the MAC.
type Nic = (String, MacAddr);
/// What was read of a guest, and what for.
type Read = (usize, String, Option<(Cause, Instant)>, Option<String>, Result<Known, String>);

/// The daemon's loop, and all that it knows.
pub struct Engine {
    file: Option<PathBuf>,
    /// The one guest that is meant, by name; the loop ends when nothing is left to be done for it.
    only: Option<String>,
    config: Config,
    /// That of the start, of which some keys hold until the end.
    first: Config,
    host: Host,
    sites: Vec<Site>,
    /// Where what is under way is kept, and told.
    keep: Option<Keep>,
    /// Something is under way, or done, that is not kept yet.
    changed: bool,
    /// It could not be kept when that was tried last.
    unkept: bool,
    guests: HashMap<String, Guest>,
    running: BTreeMap<Nic, Running>,
    tasks: JoinSet<(usize, Nic, Report)>,
    reads: JoinSet<Read>,
    heard: mpsc::UnboundedReceiver<(usize, Notice)>,
    teller: Teller,
}

impl Engine {
    /// For every guest; goes on with what `keep` has.
    pub fn new(
        file: Option<PathBuf>,
        config: Config,
        host: Host,
        keep: Keep,
        status: watch::Sender<Status>,
    ) -> Result<Self, String> {
        let rosters = keep.load().unwrap_or_default();
        let engine = Self::follow(config, host, rosters, status)?;
        Ok(Engine { file, keep: Some(keep), ..engine })
    }

    /// For one guest, by name.
    pub fn for_one(guest: String, config: Config, host: Host) -> Result<Self, String> {
        let mut engine = Self::follow(config, host, Rosters::new(), watch::channel(Status::default()).0)?;
        // Whoever asks knows that it has just come.
        engine.sites.iter_mut().for_each(|site| site.known = true);
        Ok(Engine { only: Some(guest), ..engine })
    }

    fn follow(
        config: Config,
        host: Host,
        mut rosters: Rosters,
        status: watch::Sender<Status>,
    ) -> Result<Self, String> {
        let (notices, heard) = mpsc::unbounded_channel();
        let uris = std::iter::once(config.libvirt.uri.clone());
        let uris = uris.chain(config.libvirt.more_uris.iter().cloned().map(Some)).enumerate();
        let sites = uris.map(|(number, uri)| Site::follow(number, uri, &mut rosters, notices.clone()));
        let sites = sites.collect::<Result<_, _>>()?;
        Ok(Engine {
            file: None,
            only: None,
            first: config.clone(),
            config,
            host,
            sites,
            keep: None,
            changed: false,
            unkept: false,
            guests: HashMap::new(),
            running: BTreeMap::new(),
            tasks: JoinSet::new(),
            reads: JoinSet::new(),
            heard,
            teller: Teller::new(status),
        })
    }

    /// Runs until a signal ends it, or nothing is left to be done for the one guest that is meant.
    pub async fn run(mut self) -> Result<(), String> {
        let on = |kind| signal(kind).map_err(|error| format!("cannot listen to signals: {error}"));
        let (mut hangup, mut terminate) = (on(SignalKind::hangup())?, on(SignalKind::terminate())?);
        let mut interrupt = on(SignalKind::interrupt())?;
        let mut watchdog = Watchdog::new();
        let mut links = self.host.links.clone();
        let unheard = tokio::time::sleep(UNHEARD);
        tokio::pin!(unheard);
        let mut waiting = true;
        while !self.is_done() {
            tokio::select! {
                Some((site, notice)) = self.heard.recv() => self.notice(site, notice),
                Some(read) = self.reads.join_next() => self.read(read),
                Some(ended) = self.tasks.join_next_with_id() => self.ended(ended),
                _ = hangup.recv() => self.reload(),
                () = watchdog.due() => {}
                () = &mut unheard, if waiting => {
                    waiting = false;
                    self.sites.iter_mut().for_each(Site::give_up_hearing);
                }
                Err(_) = links.changed() => return Err("lost sight of the host's devices".into()),
                () = ends(&mut interrupt, &mut terminate) => break,
            }
            self.catch_up();
            self.save();
            self.show();
        }
        self.end().await;
        Ok(())
    }

    /// Takes in what has come at the same time: guests that arrive together are kept and shown together.
    fn catch_up(&mut self) {
        while let Ok((site, notice)) = self.heard.try_recv() {
            self.notice(site, notice);
        }
        while let Some(read) = self.reads.try_join_next() {
            self.read(read);
        }
        while let Some(ended) = self.tasks.try_join_next_with_id() {
            self.ended(ended);
        }
    }

    fn show(&mut self) {
        let gauges = Gauges {
            in_progress: self.running.len(),
            libvirt: self.sites.iter().all(|site| site.connected),
            ovsdb: self.host.ovs.borrow().error.is_none(),
        };
        let guests = self.sites.iter().map(|site| site.roster.len()).sum();
        let under_way = self.running.values().map(|running| running.subject.as_str());
        self.teller.show(gauges, guests, under_way);
        if self.sites.iter().all(|site| site.heard) {
            self.teller.ready();
        }
    }

    fn is_done(&self) -> bool {
        let idle = self.running.is_empty() && self.reads.is_empty();
        let settled = |site: &Site| site.connected && !site.roster.is_anybody_pending();
        self.only.is_some() && idle && self.sites.iter().all(settled)
    }

    fn notice(&mut self, number: usize, notice: Notice) {
        let site = &mut self.sites[number];
        match notice {
            Notice::Listing => site.listing = true,
            Notice::Present(present) => {
                self.present(number, present);
                let early = std::mem::take(&mut self.sites[number].early);
                early.into_iter().for_each(|notice| self.notice(number, notice));
            }
            Notice::Changed { .. } if site.listing => site.early.push(notice),
            Notice::Changed { uuid, id, change, at } => self.changed(number, uuid, id, &change, at),
            Notice::Lost(why) => {
                site.heard = true;
                site.listing = false;
                site.early.clear();
                if std::mem::take(&mut site.connected) || !self.teller.is_ready() {
                    tracing::warn!("{why}; trying again");
                }
            }
        }
    }

    /// These guests are here.
    fn present(&mut self, number: usize, mut present: Vec<Present>) {
        present.retain(|guest| self.only.as_ref().is_none_or(|name| *name == guest.name));
        let site = &mut self.sites[number];
        (site.heard, site.listing) = (true, false);
        if !std::mem::replace(&mut site.connected, true) {
            tracing::info!("listening to {}: {} guests are here", site.title(), present.len());
        }
        let verdicts = site.roster.reconcile(&present, site.known, &self.config.libvirt.events);
        site.known = true;
        let now = Instant::now();
        verdicts.into_iter().for_each(|(uuid, verdict)| self.act(number, uuid, verdict, None, now));
        for guest in &present {
            let state = if guest.runs { GuestState::Running } else { GuestState::Paused(PAUSED) };
            self.note_state(&guest.uuid, state);
        }
        self.changed = true;
    }

    fn changed(&mut self, number: usize, uuid: String, id: Option<u32>, change: &Change, at: Instant) {
        if self.only.is_some() && !self.sites[number].roster.knows(&uuid) {
            return;
        }
        match change {
            Change::Runs(_) | Change::Booted => self.note_state(&uuid, GuestState::Running),
            Change::Arriving(_) | Change::Paused => self.note_state(&uuid, GuestState::Paused(PAUSED)),
            Change::Left => self.note_state(&uuid, GuestState::Left("shut off")),
            Change::Plugged(_) => {}
        }
        let verdict = self.sites[number].roster.change(&uuid, id, change, &self.config.libvirt.events);
        let plugged = match change {
            Change::Plugged(alias) => Some(alias.clone()),
            _ => None,
        };
        self.act(number, uuid, verdict, plugged, at);
        self.changed |= verdict != Verdict::Nothing;
    }

    fn reload(&mut self) {
        match Config::load(self.file.as_deref()) {
            Ok(config) => {
                advise(self.file.as_deref(), &config);
                for key in config.needs_restart(&self.first) {
                    tracing::warn!("{key} has changed, which holds from the next start: restart announced");
                }
                if let Some(pace) = &self.host.pace {
                    pace.change(config.limits.frames_per_second);
                }
                self.config = config;
                tracing::info!("the configuration is loaded anew, for the announcements to come");
            }
            Err(error) => tracing::error!("the configuration stays as it was: {error}"),
        }
    }

    /// Keeps what is under way, if that has changed. Whatever follows from a change is done after this.
    fn save(&mut self) {
        let Some(keep) = self.keep.as_ref().filter(|_| self.changed) else {
            return;
        };
        let saved = keep.save(self.sites.iter().map(|site| (site.name.as_str(), &site.roster)));
        // What could not be saved is tried again with whatever happens next, and told of once.
        self.changed = saved.is_err();
        match (saved, std::mem::replace(&mut self.unkept, self.changed)) {
            (Err(error), false) => tracing::warn!(
                "cannot keep what is under way: {error}; if this daemon ends now, the next one does not finish it"
            ),
            (Ok(()), true) => tracing::info!("what is under way is kept again"),
            _ => {}
        }
    }

    /// Ends what is under way; the next daemon goes on with it.
    async fn end(mut self) {
        self.teller.stopping();
        self.changed = true;
        self.save();
        if !self.running.is_empty() {
            tracing::info!("{} announcements are left to the next daemon", self.running.len());
        }
        for running in self.running.values() {
            running.stop.send_replace(Some(Stop::Interrupted));
        }
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(FAREWELL, ended).await;
    }
}

async fn ends(interrupt: &mut Signal, terminate: &mut Signal) {
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}
