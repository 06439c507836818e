//! What comes from outside is hostile: broken domain XML, broken OVSDB, broken netlink, broken OpenFlow, broken
//! answers of ovs-vswitchd.
//!
//! Whatever arrives, nothing panics, everything ends, errors are one line, and a port that must wait is never ready.
//! The cases are the same in every run; `ANNOUNCED_TEST_SEED=7 cargo test --test hostile` tries others.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a broken test world is a failed test")]

mod bytes;
mod command;
mod domain;
mod netlink;
mod ofproto;
mod openflow;
mod ovsdb;
mod server;
mod tree;

use std::time::Duration;

use proptest::strategy::Strategy;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestRng, TestRunner};
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

/// A program that takes this long hangs: nothing here takes a second on an idle machine.
const DEADLINE: Duration = Duration::from_secs(60);

/// Checks `holds` on `cases` random values, and shows the simplest one for which it does not hold.
fn always<S: Strategy>(cases: u32, values: S, holds: impl Fn(S::Value) -> Result<(), TestCaseError>) {
    let seed = std::env::var("ANNOUNCED_TEST_SEED").unwrap_or_else(|_| "1".into());
    let number: u64 = seed.parse().expect("ANNOUNCED_TEST_SEED is a number");
    let mut bytes = [1; 16];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::XorShift, &bytes));
    if let Err(error) = runner.run(&values, holds) {
        panic!("with ANNOUNCED_TEST_SEED={seed}: {error}");
    }
}

/// One line, and nothing that a terminal would obey.
fn is_one_line(words: &str) -> bool {
    !words.is_empty() && !words.contains(char::is_control)
}

/// What `future` comes to; nothing if it hangs.
fn ended<F: Future>(future: F) -> Option<F::Output> {
    thread_local! {
        static RUNTIME: Runtime = Builder::new_current_thread().enable_all().build().unwrap();
    }
    RUNTIME.with(|runtime| runtime.block_on(async { timeout(DEADLINE, future).await.ok() }))
}

/// How long this thread has used a processor, to a hundredth of a second: however busy the machine is, that is the same.
fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/thread-self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    // utime and stime, the fields 14 and 15 of proc(5), in hundredths of a second.
    let ticks: u64 = fields[11..13].iter().map(|ticks| ticks.parse::<u64>().unwrap()).sum();
    Duration::from_millis(10 * ticks)
}
