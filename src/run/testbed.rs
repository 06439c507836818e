//! Where the tests of announcements and of the daemon's loop run: on the fake host in simulated time, and on Open vSwitch in a
//! namespace in real time. One test body runs on both.
//!
//! Either has one tap on br-int, without a tag, and the uplink `up0`.

use std::panic::resume_unwind;
use std::sync::Arc;
use std::time::Duration;

use pnet_base::MacAddr;
use tokio::time::{Instant, sleep};

use super::fake::World;
use super::host::Host;
use crate::config::Config;

mod real;

pub(crate) use real::has;

/// The guest's tap, its MAC, and the VLAN of its network.
pub(crate) const TAP: &str = "tap0-0";
pub(crate) const MAC: MacAddr = MacAddr(0x52, 0x54, 0, 0, 0, 0);
pub(crate) const TAG: u16 = 100;
/// Longer than anything takes on a slow, busy machine.
const DEADLINE: Duration = Duration::from_secs(60);

/// A host of either kind.
pub(crate) enum Testbed {
    Fake(Arc<World>),
    Real(real::Node),
}

/// Runs a test's body on both.
pub(crate) fn on_both<T: Future<Output = ()>>(body: impl Fn(Arc<Testbed>) -> T + Sync) {
    let run = |paused: bool, bed: Testbed| {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_all().start_paused(paused).build().unwrap();
        runtime.block_on(body(Arc::new(bed)));
    };
    run(true, Testbed::Fake(World::new(&[TAP.into()])));
    if !has(&["lab", "ovs", "tcpdump"]) {
        return;
    }
    let node = real::Node::start();
    // A thread's network namespace is its own, and that of the threads which it starts.
    let inside = || {
        let node = node.entered();
        run(false, Testbed::Real(node));
    };
    std::thread::scope(|scope| scope.spawn(inside).join()).unwrap_or_else(|panic| resume_unwind(panic));
}

impl Testbed {
    /// The configuration with which both hosts work: three rounds, one each 50 ms.
    pub(crate) fn config(&self, more: &str) -> Config {
        let text = format!(
            "[path]\nuplinks = [\"up*\"]\n[schedule]\ncount = 3\ninterval = \"50ms\"\nmax-interval = \"50ms\"\n{more}"
        );
        let mut config = Config::parse("testbed.toml".as_ref(), &text).unwrap();
        if let Testbed::Real(node) = self {
            config.ovs.socket = Some(node.ovsdb());
        }
        config
    }

    /// The host as announcements see it.
    pub(crate) async fn host(&self, config: &Config) -> Host {
        match self {
            Testbed::Fake(world) => world.host(config.limits.frames_per_second),
            Testbed::Real(_) => Host::watch(config).await.unwrap().0,
        }
    }

    /// A transaction that sets the port's tag, `counted` if it increments `next_cfg`; ovs-vswitchd does not carry it out yet.
    pub(crate) async fn commit(&self, tag: Option<u16>, counted: bool) {
        match self {
            Testbed::Fake(world) => world.commit(TAP, tag, counted),
            Testbed::Real(node) => node.commit(tag, counted).await,
        }
    }

    /// ovs-vswitchd carries out all commits.
    pub(crate) async fn carry_out(&self) {
        match self {
            Testbed::Fake(world) => world.carry_out(),
            Testbed::Real(node) => node.carry_out().await,
        }
    }

    /// The port is in this VLAN, and works.
    pub(crate) async fn bind(&self, tag: u16) {
        self.commit(Some(tag), true).await;
        self.carry_out().await;
    }

    /// Loses the guest's frames inside the host from now on, or no longer.
    pub(crate) async fn lose(&self, loses: bool) {
        match self {
            Testbed::Fake(world) => world.lose(if loses { u32::MAX } else { 0 }),
            Testbed::Real(node) => node.lose(loses).await,
        }
    }

    /// Makes the bridge hang, or answer again.
    pub(crate) async fn hang(&self, hangs: bool) {
        match self {
            Testbed::Fake(world) => world.hang(hangs),
            Testbed::Real(node) => node.hang(hangs).await,
        }
    }

    /// The VLAN of each frame of the guest that has left the host until now.
    pub(crate) fn left(&self) -> Vec<Option<u16>> {
        match self {
            Testbed::Fake(world) => {
                assert_eq!(world.violations(), Vec::<String>::new());
                let sent = world.sent().into_iter().filter(|sent| sent.left.is_some());
                sent.flat_map(|sent| std::iter::repeat_n(sent.left, sent.frames)).collect()
            }
            Testbed::Real(node) => node.left(),
        }
    }

    /// Waits until so many frames have left, or more; returns the VLAN of each.
    pub(crate) async fn await_left(&self, frames: usize) -> Vec<Option<u16>> {
        self.eventually(&format!("{frames} frames"), || Some(self.left()).filter(|left| left.len() >= frames))
            .await
    }

    /// Looks again and again until there is something to see.
    pub(crate) async fn eventually<T>(&self, what: &str, look: impl Fn() -> Option<T>) -> T {
        let began = Instant::now();
        loop {
            if let Some(seen) = look() {
                return seen;
            }
            assert!(began.elapsed() < DEADLINE, "waited in vain for {what}; left: {:?}", self.left());
            sleep(Duration::from_millis(2)).await;
        }
    }
}
