//! The whole daemon over a fake libvirt and a fake host, through random histories: guests arrive, leave, pause and get NICs; taps
//! come late; ports lose and regain their VLAN; ovs-vswitchd and libvirt hang, rounds are lost, the daemon is killed.
//!
//! `ANNOUNCED_SEED=7 cargo test --lib simulation` replays one history; `ANNOUNCED_HISTORIES=100000` sets their number, for which
//! `--profile simulation` is ten times as fast.

use std::collections::BTreeMap;
use std::num::NonZero;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pnet_base::MacAddr;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::{Engine, hangups};
use crate::config::Config;
use crate::daemon::connection::{Connection, ReadGuest};
use crate::daemon::state::StateFile;
use crate::guest::Known;
use crate::guest::domain::{Domain, Interface};
use crate::guest::event::{Cause, Change};
use crate::guest::ledger::Present;
use crate::host::libvirt::LibvirtError;
use crate::host::libvirt::watch_guests::Notice;
use crate::run::fake::World;
use crate::run::guest_asker::GuestAsker;

mod handover;

const HISTORIES: u64 = 300;
const GUESTS: usize = 3;
/// Per guest; the second NIC is plugged in later, or exists from the start.
const NICS: usize = 2;
const TAG: u16 = 100;
/// The time after which every pending announcement must have been made.
const SETTLING_TIME: Duration = Duration::from_secs(120);
const CONFIGURATION: &str = r#"
    [schedule]
    count = 3
    [ports]
    wait = "1s"
    [libvirt]
    ask-guest = true
    [limits]
    frames-per-second = 100
"#;
/// At this rate: a burst, the loan of first rounds, and a round.
const MAX_AT_ONCE: f64 = 10.0 + 5.0 + 2.0 * 3.0;

/// SplitMix64: the same numbers for the same seed, on any version of any library.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn millis(&mut self, limit: u64) -> Duration {
        Duration::from_millis(1 + self.below(limit))
    }
}

/// A guest in libvirt.
#[derive(Clone, Default)]
struct Guest {
    here: bool,
    runs: bool,
    /// It came from another host, and the switch-over is still to come.
    incoming: bool,
    id: u32,
    nics: usize,
    /// By NIC: since when a frame of it must leave.
    owed: BTreeMap<usize, Instant>,
}

type Guests = Arc<Mutex<Vec<Guest>>>;
type Notices = mpsc::UnboundedSender<(usize, Notice)>;
type Daemon = JoinHandle<Result<(), String>>;

fn tap(guest: usize, nic: usize) -> String {
    format!("tap{guest}-{nic}")
}

pub(super) fn uuid(guest: usize) -> String {
    format!("{guest:08x}-0000-4000-8000-000000000000")
}

/// libvirt's answer about a guest. The NICs of the last guest have the same MAC.
pub(super) fn domain(guest: usize, nics: usize) -> Known {
    let nic = |n: usize| Interface {
        kind: "ethernet".into(),
        mac: Some(MacAddr(0x52, 0x54, 0, 0, guest as u8, if guest == GUESTS - 1 { 0 } else { n as u8 })),
        alias: Some(format!("net{n}")),
        device: Some(tap(guest, n)),
        filter_ips: vec![[192, 0, 2, 1 + n as u8].into()],
        ..Interface::default()
    };
    let interfaces = (0..nics).map(nic).collect();
    let domain = Domain {
        name: format!("web{guest}").into(),
        uuid: uuid(guest).into(),
        interfaces,
        nova_ports: Some(Vec::new()),
        ..Domain::default()
    };
    Known { domain, addresses: vec![Vec::new(); nics], gateways: Vec::new() }
}

struct History {
    random: Random,
    world: Arc<World>,
    guests: Guests,
    kept: Arc<Mutex<Vec<u8>>>,
    config: Config,
    notices: Notices,
    daemon: Daemon,
    told: Vec<String>,
    began: Instant,
}

impl History {
    fn new(seed: u64) -> History {
        let taps: Vec<String> =
            (0..GUESTS).flat_map(|guest| (0..NICS).map(move |nic| tap(guest, nic))).collect();
        let config = Config::parse("simulation.toml".as_ref(), CONFIGURATION).unwrap();
        let (world, guests, kept) = (World::new(&taps), Guests::default(), Arc::default());
        *guests.lock().unwrap() = vec![Guest::default(); GUESTS];
        taps.iter().for_each(|tap| world.forbid(tap, Some("no guest was there")));
        let (notices, daemon) = start(&world, &guests, &kept, &config, seed);
        let (random, told) = (Random(seed), Vec::new());
        History { random, world, guests, kept, config, notices, daemon, told, began: Instant::now() }
    }

    fn tell(&mut self, what: String) {
        self.told.push(format!("{:?} {what}", self.began.elapsed()));
    }

    fn present(&self) -> Vec<Present> {
        let guests = self.guests.lock().unwrap();
        let here = guests.iter().enumerate().filter(|(_, guest)| guest.here);
        let present = here.map(|(n, guest)| Present {
            uuid: uuid(n),
            name: format!("web{n}"),
            id: Some(guest.id),
            runs: guest.runs,
            cause: Some(Cause::Migrated),
        });
        present.collect()
    }

    fn list(&mut self) {
        let _ = self.notices.send((0, Notice::Listing));
        let _ = self.notices.send((0, Notice::Present(self.present())));
    }

    fn change(&mut self, guest: usize, change: Change) {
        self.tell(format!("guest {guest}: {change:?}"));
        let id = Some(self.guests.lock().unwrap()[guest].id);
        let notice = Notice::Changed { uuid: uuid(guest), id, change, at: Instant::now() };
        let _ = self.notices.send((0, notice));
    }

    /// Sets what may be sent for a guest in its present state.
    fn permit(&mut self, guest: usize) {
        let Guest { here, runs, nics, .. } = self.guests.lock().unwrap()[guest];
        for nic in 0..NICS {
            let why = match (here && nic < nics, runs) {
                (false, _) => Some("the guest left"),
                (true, false) => Some("the guest was paused"),
                (true, true) => None,
            };
            // Another reason begins a new period.
            self.world.forbid(&tap(guest, nic), None);
            self.world.forbid(&tap(guest, nic), why);
        }
    }

    /// An action of a guest or of a migration.
    fn guest_event(&mut self) {
        let n = self.random.below(GUESTS as u64) as usize;
        let mut guest = self.guests.lock().unwrap()[n].clone();
        let action = self.random.below(6);
        let now = Instant::now();
        let change = match (guest.here, action) {
            (false, 0..4) => {
                let nics = 1 + self.random.below(NICS as u64) as usize;
                self.plug_late(n);
                guest = Guest { here: true, id: guest.id + 1, incoming: true, nics, ..Guest::default() };
                Change::Arriving(Cause::Migrated)
            }
            (true, 0) => {
                guest.here = false;
                guest.owed.clear();
                Change::Left
            }
            (true, 1) if guest.runs => {
                guest.runs = false;
                Change::Paused
            }
            (true, 2) if guest.runs && guest.nics < NICS => {
                guest.owed.insert(guest.nics, now);
                guest.nics += 1;
                Change::Plugged(format!("net{}", guest.nics - 1))
            }
            (true, _) if !guest.runs => {
                guest.runs = true;
                // NICs without a departed frame must be announced from now on.
                let nics = if guest.incoming { (0..guest.nics).collect() } else { self.unsent(n, &guest) };
                guest.owed = nics.into_iter().map(|nic| (nic, now)).collect();
                let cause = std::mem::take(&mut guest.incoming).then_some(Cause::Migrated);
                Change::Runs(cause)
            }
            _ => return,
        };
        self.guests.lock().unwrap()[n] = guest;
        self.permit(n);
        self.change(n, change);
    }

    /// The taps of a guest that arrives may come after it.
    fn plug_late(&mut self, guest: usize) {
        for tap in (0..NICS).map(|nic| tap(guest, nic)) {
            if self.random.one_in(2) {
                continue;
            }
            let (world, after) = (self.world.clone(), self.random.millis(2000));
            self.tell(format!("{tap}: comes after {after:?}"));
            world.plug(&tap, false);
            tokio::spawn(async move {
                sleep(after).await;
                world.plug(&tap, true);
                world.carry_out();
            });
        }
    }

    /// The NICs of which no frame has left since it was due.
    fn unsent(&self, number: usize, guest: &Guest) -> Vec<usize> {
        let sent = self.world.sent();
        let has_left = |nic: usize, since: Instant| {
            sent.iter().any(|sent| sent.tap == tap(number, nic) && sent.left.is_some() && sent.at >= since)
        };
        guest.owed.iter().filter(|(nic, since)| !has_left(**nic, **since)).map(|(nic, _)| *nic).collect()
    }

    /// An action of neutron's agent or ovs-vswitchd.
    fn port_event(&mut self) {
        let tap = tap(self.random.below(GUESTS as u64) as usize, self.random.below(NICS as u64) as usize);
        let tag = match self.random.below(6) {
            0 => None,
            1 => Some(4095),
            _ => Some(TAG),
        };
        let counted = self.random.one_in(2);
        self.tell(format!("{tap}: tag {tag:?}{}", if counted { "" } else { ", not counted" }));
        self.commit(&tap, tag, counted);
    }

    fn commit(&mut self, tap: &str, tag: Option<u16>, counted: bool) {
        self.world.commit(tap, tag, counted);
        // The time that ovs-vswitchd takes to carry out a change without `next_cfg`.
        let (world, after) = (self.world.clone(), self.random.millis(15));
        tokio::spawn(async move {
            sleep(after).await;
            world.carry_out();
        });
    }

    async fn trouble(&mut self) {
        match self.random.below(6) {
            0 => {
                let rounds = 1 + self.random.below(3) as u32;
                self.tell(format!("{rounds} rounds will be lost"));
                self.world.lose(rounds);
            }
            1 => {
                let rounds = 1 + self.random.below(3) as u32;
                self.tell(format!("{rounds} rounds will be refused"));
                self.world.refuse(rounds);
            }
            2 => {
                let (world, time) = (self.world.clone(), self.random.millis(2500));
                self.tell(format!("the bridge hangs for {time:?}"));
                world.hang(true);
                tokio::spawn(async move {
                    sleep(time).await;
                    world.hang(false);
                });
            }
            3 => {
                self.tell("libvirt closes the connection".into());
                let _ = self.notices.send((0, Notice::Lost("closed".into())));
                self.list();
            }
            4 => {
                self.tell("the daemon is killed".into());
                self.daemon.abort();
                let _ = (&mut self.daemon).await;
                sleep(self.random.millis(1000)).await;
                let seed = self.random.next();
                (self.notices, self.daemon) =
                    start(&self.world, &self.guests, &self.kept, &self.config, seed);
                self.list();
            }
            _ => self.list(),
        }
    }

    async fn run(&mut self) {
        self.list();
        for _ in 0..12 + self.random.below(24) {
            let longest = [5, 50, 500][self.random.below(3) as usize];
            sleep(self.random.millis(longest)).await;
            match self.random.below(8) {
                0..4 => self.guest_event(),
                4..7 => self.port_event(),
                _ => self.trouble().await,
            }
        }
        self.heal();
        sleep(SETTLING_TIME).await;
    }

    /// Removes every fault, and lets guests run.
    fn heal(&mut self) {
        self.tell("all is well".into());
        self.world.lose(0);
        self.world.refuse(0);
        self.world.hang(false);
        for (guest, nic) in (0..GUESTS).flat_map(|guest| (0..NICS).map(move |nic| (guest, nic))) {
            self.world.plug(&tap(guest, nic), true);
            self.commit(&tap(guest, nic), Some(TAG), true);
        }
        for n in 0..GUESTS {
            let mut guest = self.guests.lock().unwrap()[n].clone();
            if guest.here && !guest.runs {
                let nics = if guest.incoming { (0..guest.nics).collect() } else { self.unsent(n, &guest) };
                guest.owed = nics.into_iter().map(|nic| (nic, Instant::now())).collect();
                let cause = std::mem::take(&mut guest.incoming).then_some(Cause::Migrated);
                guest.runs = true;
                self.guests.lock().unwrap()[n] = guest;
                self.permit(n);
                self.change(n, Change::Runs(cause));
            }
        }
    }

    /// The faults: frames that must not have been sent, and NICs that were not announced.
    fn violations(&self) -> Vec<String> {
        let mut violations = self.world.violations();
        if self.daemon.is_finished() {
            violations.push("the daemon has ended".into());
        }
        let guests = self.guests.lock().unwrap();
        for (n, guest) in guests.iter().enumerate().filter(|(_, guest)| guest.here) {
            let unsent = self.unsent(n, guest).into_iter();
            violations.extend(unsent.map(|nic| format!("{} was not announced", tap(n, nic))));
        }
        violations.extend(self.excess());
        violations
    }

    /// Where the quota was exceeded. Rounds that are held up by a bridge that hangs leave together, and are paid for before.
    fn excess(&self) -> Option<String> {
        let mut sent = self.world.sent();
        sent.sort_by_key(|sent| sent.began);
        let (mut level, mut last) = (0.0f64, self.began);
        sent.iter().find_map(|sent| {
            level = (level - (sent.began - last).as_secs_f64() * 100.0).max(0.0) + sent.frames as f64;
            last = sent.began;
            (level > MAX_AT_ONCE)
                .then(|| format!("{level:.1} frames at once at {:?}", sent.began - self.began))
        })
    }
}

/// Starts a daemon with the state that the previous one saved.
fn start(
    world: &Arc<World>,
    guests: &Guests,
    kept: &Arc<Mutex<Vec<u8>>>,
    config: &Config,
    seed: u64,
) -> (Notices, Daemon) {
    let state_file = StateFile::in_memory(kept.clone());
    let mut ledgers = state_file.load().unwrap_or_default();
    let (guests, random) = (guests.clone(), Arc::new(Mutex::new(Random(seed))));
    let read: ReadGuest = Arc::new(move |of, _| {
        let (guests, random) = (guests.clone(), random.clone());
        Box::pin(async move {
            let (time, fails) = {
                let mut random = random.lock().unwrap();
                (random.millis(30), random.one_in(6))
            };
            sleep(time).await;
            let number = (0..GUESTS).find(|n| *uuid(*n) == *of).ok_or("no such guest")?;
            let guest = guests.lock().unwrap()[number].clone();
            if fails || !guest.here { Err("cannot be read".into()) } else { Ok(domain(number, guest.nics)) }
        })
    });
    let (notices, heard) = mpsc::unbounded_channel();
    let asker = Some(asker(seed));
    let connection = Connection { asker, ..Connection::new("test".into(), read, &mut ledgers) };
    let host = world.host(config.limits.frames_per_second);
    let engine = Engine::of(config.clone(), host, vec![connection], heard, Arc::default());
    let engine = Engine { state_file: Some(state_file), ..engine };
    (notices, tokio::spawn(engine.run(hangups().unwrap())))
}

/// A libvirt that has guests announce themselves, refuses to, or never answers.
fn asker(seed: u64) -> GuestAsker {
    let random = Mutex::new(Random(seed));
    GuestAsker::new(move |_, _| {
        let mut random = random.lock().unwrap();
        let (time, hangs, fails) = (random.millis(30), random.one_in(4), random.one_in(3));
        Box::pin(async move {
            sleep(if hangs { Duration::MAX } else { time }).await;
            if fails { Err(LibvirtError::NotConnected) } else { Ok(()) }
        })
    })
}

/// The history of a seed: its events, and its faults.
fn history(seed: u64) -> (Vec<String>, Vec<String>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    runtime.unwrap().block_on(async {
        let mut history = History::new(seed);
        history.run().await;
        let violations = history.violations();
        (std::mem::take(&mut history.told), violations)
    })
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().expect("a number"))
}

/// Runs this share of the histories, on every core, or that of the seed that is asked for.
fn all(share: u64, history: fn(u64) -> (Vec<String>, Vec<String>)) {
    let seeds = match number("ANNOUNCED_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("ANNOUNCED_HISTORIES").unwrap_or(HISTORIES) / share,
    };
    let next = AtomicU64::new(seeds.start);
    let run = || {
        while let Some(seed) = Some(next.fetch_add(1, Ordering::Relaxed)).filter(|seed| seeds.contains(seed))
        {
            let (told, violations) = history(seed);
            if !violations.is_empty() {
                next.store(seeds.end, Ordering::Relaxed);
            }
            assert!(
                violations.is_empty(),
                "{violations:#?}\n{}\nANNOUNCED_SEED={seed} cargo test --lib simulation",
                told.join("\n")
            );
        }
    };
    std::thread::scope(|threads| {
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        (0..cores).for_each(|_| drop(threads.spawn(run)));
    });
}

#[test]
fn in_any_history_no_wrong_frame_is_sent_and_no_guest_is_forgotten() {
    all(1, history);
}
