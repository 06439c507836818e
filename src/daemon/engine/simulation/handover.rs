//! Two daemons and a bad network between them, through random migrations: some fail in the switch-over, notices are lost, doubled,
//! late and overtaken, daemons are killed.
//!
//! `ANNOUNCED_SEED` and `ANNOUNCED_HISTORIES` as for the simulation of one daemon.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use super::{Daemon, GUESTS, Notices, Random, SETTLING_TIME, TAG, domain, hangups, tap, uuid};
use crate::announcement::handover::{Keys, Kind, Uuid};
use crate::config::Config;
use crate::daemon::connection::{Connection, ReadGuest};
use crate::daemon::engine::Engine;
use crate::daemon::peers::{Judge, Peers, Transport};
use crate::daemon::state::StateFile;
use crate::guest::event::{Cause, Change};
use crate::guest::ledger::Present;
use crate::host::libvirt::watch_guests::Notice;
use crate::run::fake::World;

const KEY: &str = "0123456789abcdef0123456789abcdef";
const CONFIGURATION: &str = "[schedule]\ncount = 3\n";
/// Where a notice has its sender.
const SENDER: std::ops::Range<usize> = 8..24;
/// The rounds before a guest runs.
const MAX_EARLY: usize = 2;

/// A guest on a host.
#[derive(Clone, Copy, Default)]
struct Guest {
    here: bool,
    runs: bool,
    id: u32,
}

type Guests = Arc<Mutex<Vec<Guest>>>;

/// Where datagrams arrive: the judge of the daemon that runs, and its number.
type Port = Arc<Mutex<(u64, Option<Judge>)>>;

struct Host {
    world: Arc<World>,
    guests: Guests,
    kept: Arc<Mutex<Vec<u8>>>,
    port: Port,
    notices: Notices,
    daemon: Daemon,
    /// What its daemon has sent since the last look.
    sent: mpsc::UnboundedReceiver<Vec<u8>>,
}

impl Host {
    fn start(number: u8, seed: u64) -> Host {
        Host::of(GUESTS, number, seed)
    }

    /// With room for so many guests.
    fn of(size: usize, number: u8, seed: u64) -> Host {
        let taps: Vec<String> = (0..size).map(|guest| tap(guest, 0)).collect();
        let (world, guests, kept) = (World::new(&taps), Guests::default(), Arc::default());
        *guests.lock().unwrap() = vec![Guest::default(); size];
        taps.iter().for_each(|tap| world.forbid(tap, Some("no guest was there")));
        let (notices, daemon) = (mpsc::unbounded_channel().0, tokio::spawn(async { Ok(()) }));
        let (port, sent) = (Port::default(), mpsc::unbounded_channel().1);
        let mut host = Host { world, guests, kept, port, notices, daemon, sent };
        host.restart(number, seed);
        host
    }

    /// Starts a daemon with the state that the previous one saved.
    fn restart(&mut self, number: u8, seed: u64) {
        let config = Config::parse("simulation.toml".as_ref(), CONFIGURATION).unwrap();
        let state_file = StateFile::in_memory(self.kept.clone());
        let mut ledgers = state_file.load().unwrap_or_default();
        let (guests, random) = (self.guests.clone(), Arc::new(Mutex::new(Random(seed))));
        let read: ReadGuest = Arc::new(move |of, _| {
            let (guests, random) = (guests.clone(), random.clone());
            Box::pin(async move {
                let time = random.lock().unwrap().millis(30);
                sleep(time).await;
                let size = guests.lock().unwrap().len();
                let number = (0..size).find(|n| *uuid(*n) == *of).ok_or("no such guest")?;
                let is_here = guests.lock().unwrap()[number].here;
                if is_here { Ok(domain(number, 1)) } else { Err("no such guest".into()) }
            })
        });
        let (notices, heard) = mpsc::unbounded_channel();
        let connection = Connection::new("test".into(), read, &mut ledgers);
        let host = self.world.host(config.limits.frames_per_second);
        let engine = Engine::of(config, host, vec![connection], heard, Arc::default());
        let (network, sent) = mpsc::unbounded_channel();
        let own: Uuid = format!("{number:016x}{seed:016x}").parse().unwrap();
        let (peers, judge) =
            Peers::new(own, Keys::parse(KEY).unwrap(), Transport::Fake(network), Arc::default());
        let engine = Engine { state_file: Some(state_file), ..engine }.with_peers(Some(peers));
        {
            let mut port = self.port.lock().unwrap();
            *port = (port.0 + 1, Some(judge));
        }
        (self.notices, self.sent, self.daemon) =
            (notices, sent, tokio::spawn(engine.run(hangups().unwrap())));
        self.list();
    }

    fn list(&self) {
        let guests = self.guests.lock().unwrap();
        let here = guests.iter().enumerate().filter(|(_, guest)| guest.here);
        let present = here.map(|(n, guest)| Present {
            uuid: uuid(n),
            name: format!("web{n}"),
            id: Some(guest.id),
            runs: guest.runs,
            cause: Some(Cause::Migrated),
        });
        let _ = self.notices.send((0, Notice::Listing));
        let _ = self.notices.send((0, Notice::Present(present.collect())));
    }

    fn change(&self, guest: usize, now: Guest, change: Change) {
        let id = {
            let mut guests = self.guests.lock().unwrap();
            guests[guest] = Guest { id: guests[guest].id.max(now.id), ..now };
            guests[guest].id
        };
        let notice = Notice::Changed { uuid: uuid(guest), id: Some(id), change, at: Instant::now() };
        let _ = self.notices.send((0, notice));
    }

    fn permit(&self, guest: usize, why_not: Option<&'static str>) {
        self.world.forbid(&tap(guest, 0), None);
        self.world.forbid(&tap(guest, 0), why_not);
    }

    /// How many rounds of a guest have left since then.
    fn left_since(&self, guest: usize, since: Instant) -> usize {
        let is_its = |sent: &&crate::run::fake::Sent| {
            sent.tap == tap(guest, 0) && sent.left.is_some() && sent.at >= since
        };
        self.world.sent().iter().filter(is_its).count()
    }
}

struct History {
    random: Random,
    hosts: [Host; 2],
    /// By guest: where it runs.
    homes: Vec<usize>,
    /// By guest: since when a round must leave its home.
    owed: Vec<Option<Instant>>,
    /// The receivers, by their daemon's number, and the senders of whom a notice has arrived in time, so that a late one is known
    /// as such.
    punctual: BTreeSet<(usize, u64, Vec<u8>)>,
    told: Vec<String>,
    violations: Vec<String>,
    began: Instant,
}

impl History {
    fn new(seed: u64) -> History {
        let mut random = Random(seed);
        let hosts = [Host::start(0, random.next()), Host::start(1, random.next())];
        let history = History {
            random,
            hosts,
            homes: vec![0; GUESTS],
            owed: vec![None; GUESTS],
            punctual: BTreeSet::new(),
            told: Vec::new(),
            violations: Vec::new(),
            began: Instant::now(),
        };
        for guest in 0..GUESTS {
            history.hosts[0].change(guest, Guest { here: true, runs: true, id: 1 }, Change::Booted);
            history.hosts[0].permit(guest, None);
        }
        history
    }

    fn tell(&mut self, what: String) {
        self.told.push(format!("{:?} {what}", self.began.elapsed()));
    }

    fn deliver(&mut self, to: usize, datagram: Vec<u8>) {
        let copies = [1, 1, 1, 0, 2, 3][self.random.below(6) as usize];
        self.tell(format!("a notice to host {to}, {copies} times"));
        let incarnation = self.hosts[to].port.lock().unwrap().0;
        let pair = (to, incarnation, datagram[SENDER].to_vec());
        for _ in 0..copies {
            // What is late can be told from a notice that was not.
            let may_be_late = self.punctual.contains(&pair);
            let delay = match self.random.below(4) {
                0 if may_be_late => 1500 + self.random.below(4000),
                1 => self.random.below(300),
                _ => self.random.below(3),
            };
            if delay < 3 {
                self.punctual.insert(pair.clone());
            }
            let (port, mut datagram) = (self.hosts[to].port.clone(), datagram.clone());
            let is_forged = self.random.one_in(5);
            tokio::spawn(async move {
                sleep(Duration::from_millis(delay)).await;
                let mut port = port.lock().unwrap();
                // A daemon that has just started cannot know what the one before has heard.
                if let (true, Some(judge)) = (port.0 == incarnation, &mut port.1) {
                    let from: SocketAddr = "192.0.2.1:9892".parse().unwrap();
                    judge.judge(&datagram, from);
                    if is_forged {
                        datagram[50] ^= 1;
                        judge.judge(&datagram, from);
                    }
                }
            });
        }
    }

    /// Lets so many milliseconds pass, in which a daemon is killed now and then.
    async fn pass(&mut self, millis: u64) {
        let dies_after = self.random.below(3000);
        if dies_after < millis {
            self.wait(dies_after).await;
            self.kill().await;
            return self.wait(millis - dies_after).await;
        }
        self.wait(millis).await;
    }

    /// Waits, and carries what the daemons send.
    async fn wait(&mut self, millis: u64) {
        let end = sleep(Duration::from_millis(millis));
        tokio::pin!(end);
        loop {
            let [first, second] = &mut self.hosts;
            let (to, datagram) = tokio::select! {
                Some(datagram) = first.sent.recv() => (1, datagram),
                Some(datagram) = second.sent.recv() => (0, datagram),
                () = &mut end => return,
            };
            self.deliver(to, datagram);
        }
    }

    async fn kill(&mut self) {
        let host = self.random.below(2) as usize;
        self.tell(format!("the daemon of host {host} is killed"));
        self.hosts[host].daemon.abort();
        let _ = (&mut self.hosts[host].daemon).await;
        self.hosts[host].port.lock().unwrap().1 = None;
        let pause = self.random.below(200);
        self.wait(pause).await;
        let seed = self.random.next();
        self.hosts[host].restart(host as u8, seed);
    }

    /// A migration to the other host, which may fail in the switch-over.
    async fn migrate(&mut self, guest: usize) {
        let (from, to) = (self.homes[guest], 1 - self.homes[guest]);
        let fails = self.random.one_in(3);
        self.tell(format!("guest {guest} migrates to host {to}, {}", if fails { "in vain" } else { "well" }));
        self.hosts[to].world.commit(&tap(guest, 0), None, true);
        let id = self.hosts[to].guests.lock().unwrap()[guest].id + 1;
        self.hosts[to].permit(guest, Some("it runs at its source"));
        self.hosts[to].change(
            guest,
            Guest { here: true, runs: false, id },
            Change::Arriving(Cause::Migrated),
        );
        let bind = self.random.below(900);
        let stop = 200 + self.random.below(400);
        let over = stop + 5 + self.random.below(500);
        if bind < stop {
            self.pass(bind).await;
            self.bind(to, guest);
        }
        self.pass(stop.saturating_sub(bind.min(stop))).await;
        let stopped = Instant::now();
        self.owed[guest] = None;
        self.hosts[from].permit(guest, Some("the guest was paused"));
        self.hosts[to].permit(guest, None);
        let id_here = self.hosts[from].guests.lock().unwrap()[guest].id;
        self.hosts[from].change(guest, Guest { here: true, runs: false, id: id_here }, Change::Stops);
        if (stop..over).contains(&bind) {
            self.pass(bind - stop).await;
            self.bind(to, guest);
        }
        self.pass(over - bind.clamp(stop, over)).await;
        let early = self.hosts[to].left_since(guest, stopped);
        self.tell(format!("guest {guest}: {early} early rounds"));
        if early > MAX_EARLY {
            self.violations.push(format!("guest {guest}: {early} early rounds"));
        }
        let now = Instant::now();
        if fails {
            self.hosts[to].permit(guest, Some("the guest left"));
            self.hosts[to].change(guest, Guest::default(), Change::Left);
            self.hosts[from].permit(guest, None);
            let id = self.hosts[from].guests.lock().unwrap()[guest].id;
            self.hosts[from].change(
                guest,
                Guest { here: true, runs: true, id },
                Change::Runs(Some(Cause::Migrated)),
            );
            // A daemon that did not run when the guest stopped has told no peer, and owes nothing.
            self.owed[guest] = (early > 0).then_some(now);
        } else {
            self.homes[guest] = to;
            self.hosts[to].change(
                guest,
                Guest { here: true, runs: true, id },
                Change::Runs(Some(Cause::Migrated)),
            );
            self.owed[guest] = Some(now);
            self.pass(20).await;
            self.hosts[from].permit(guest, Some("the guest left"));
            self.hosts[from].change(guest, Guest::default(), Change::Left);
        }
        self.bind(to, guest);
    }

    fn bind(&self, host: usize, guest: usize) {
        let world = self.hosts[host].world.clone();
        world.commit(&tap(guest, 0), Some(TAG), true);
        world.carry_out();
    }

    async fn run(&mut self) {
        for guest in 0..GUESTS {
            self.bind(0, guest);
        }
        self.pass(100).await;
        for _ in 0..4 + self.random.below(5) {
            let guest = self.random.below(GUESTS as u64) as usize;
            self.migrate(guest).await;
            // libvirt cleans up after a migration that has failed.
            let pause = 1000 + self.random.below(2000);
            self.pass(pause).await;
        }
        self.wait(SETTLING_TIME.as_millis() as u64).await;
    }

    fn violations(&self) -> Vec<String> {
        let mut violations = self.violations.clone();
        for (number, host) in self.hosts.iter().enumerate() {
            violations.extend(host.world.violations().iter().map(|why| format!("host {number}: {why}")));
            if host.daemon.is_finished() {
                violations.push(format!("the daemon of host {number} has ended"));
            }
        }
        for guest in 0..GUESTS {
            let home = &self.hosts[self.homes[guest]];
            if self.owed[guest].is_some_and(|since| home.left_since(guest, since) == 0) {
                violations.push(format!("guest {guest} was not announced at host {}", self.homes[guest]));
            }
        }
        violations
    }
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

#[test]
fn in_any_history_of_two_hosts_a_guest_is_announced_only_where_its_packets_may_go() {
    super::all(10, history);
}

#[test]
fn in_most_histories_of_two_hosts_a_guest_is_announced_before_it_runs() {
    let is_early = |seed: &u64| history(*seed).0.iter().any(|line| line.ends_with("2 early rounds"));
    let early = (0..10).filter(is_early).count();
    assert!(early > 5, "{early} of 10");
}

/// 200 guests come from another host at once, and stop there at once.
#[tokio::test(start_paused = true)]
async fn an_evacuated_hosts_guests_are_all_announced_before_they_run_and_within_the_budget() {
    const EVACUATED: usize = 200;
    let host = Host::of(EVACUATED, 0, 1);
    let (network, mut sent) = mpsc::unbounded_channel();
    let own = "00000000-0000-4000-8000-000000000001".parse().unwrap();
    let (mut source, _) =
        Peers::new(own, Keys::parse(KEY).unwrap(), Transport::Fake(network), Arc::default());
    for guest in 0..EVACUATED {
        host.change(guest, Guest { here: true, runs: false, id: 1 }, Change::Arriving(Cause::Migrated));
        host.world.commit(&tap(guest, 0), Some(TAG), true);
    }
    host.world.carry_out();
    sleep(Duration::from_secs(10)).await;
    let stopped = Instant::now();
    for guest in 0..EVACUATED {
        host.permit(guest, None);
        source.tell(Kind::Stops, uuid(guest).parse().unwrap());
        let datagram = sent.recv().await.unwrap();
        host.port.lock().unwrap().1.as_mut().unwrap().judge(&datagram, "192.0.2.1:9892".parse().unwrap());
    }
    sleep(Duration::from_secs(3)).await;
    let early = host.world.sent();
    assert!((0..EVACUATED).all(|guest| (1..=MAX_EARLY).contains(&host.left_since(guest, stopped))));
    // Each has three frames: with a thousand a second, and a tenth of that at once, the first rounds of all take half a second.
    let firsts = &early[..EVACUATED];
    assert_eq!(
        firsts.iter().map(|sent| &sent.tap).collect::<std::collections::BTreeSet<_>>().len(),
        EVACUATED
    );
    let last = firsts[EVACUATED - 1].at - stopped;
    assert!((Duration::from_millis(480)..Duration::from_millis(600)).contains(&last), "{last:?}");
    let runs = Instant::now();
    for guest in 0..EVACUATED {
        host.change(guest, Guest { here: true, runs: true, id: 1 }, Change::Runs(Some(Cause::Migrated)));
    }
    sleep(SETTLING_TIME).await;
    assert!((0..EVACUATED).all(|guest| host.left_since(guest, runs) >= 3));
    assert_eq!(host.world.violations(), [""; 0]);
}
