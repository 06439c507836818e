//! What passed a device, by tcpdump's word.

use std::time::{Duration, Instant};

use super::dissect::{Frame, dissect, packets};
use super::host::Place;
use super::running::{DEADLINE, Running, eventually};
use nix::sys::signal::Signal;

#[derive(Clone, Copy, Debug)]
pub enum Direction {
    /// What the device received; of a tap: what the guest sent.
    In,
    /// What the device transmitted; of a tap: what the guest was given.
    Out,
    Both,
}

/// A capture that is going on.
pub struct Capture {
    tcpdump: Running,
}

impl Capture {
    /// Returns when frames are really being captured. `filter` is in tcpdump's language; without `vlan`, please: the kernel
    /// strips tags before filters look.
    pub fn start(place: &impl Place, device: &str, direction: Direction, filter: &str) -> Self {
        let direction = match direction {
            Direction::In => "in",
            Direction::Out => "out",
            Direction::Both => "inout",
        };
        let mut command = place.command("tcpdump");
        command.args(["-i", device, "-Q", direction, "-n", "-w", "-", "-U", "--immediate-mode"]);
        // A short snapshot makes room for many frames in the ring. Root stays root: Debian's tcpdump would become another
        // user, which has no access to anything here.
        command.args(["--time-stamp-precision", "nano", "-s", "512", "-B", "8192", "-Z", "root", filter]);
        let tcpdump = Running::start(&mut command);
        tcpdump.stderr.line_with("listening on");
        Self { tcpdump }
    }

    /// How many frames were seen so far.
    pub fn count(&self) -> usize {
        self.tcpdump.stdout.wait(|pcap, _| Some(packets(pcap).len())).unwrap()
    }

    /// Waits until that many frames were seen; false: they did not come in this time.
    pub fn sees(&self, count: usize, within: Duration) -> bool {
        let start = Instant::now();
        self.tcpdump
            .stdout
            .wait_until(start + within, |pcap, _| (packets(pcap).len() >= count).then_some(()))
            .is_some()
    }

    /// The same, of the frames of that ethertype.
    pub fn sees_of(&self, ethertype: u16, count: usize, within: Duration) -> bool {
        let is_such = |packet: &&[u8]| {
            let [kind, behind_a_tag] = [12, 16].map(|at| packet.get(at..at + 2));
            let tag = 0x8100_u16.to_be_bytes();
            let kind = if kind == Some(&tag[..]) { behind_a_tag } else { kind };
            kind == Some(&ethertype.to_be_bytes()[..])
        };
        let came = |pcap: &[u8]| packets(pcap).iter().filter(|packet| is_such(packet)).count();
        let deadline = Instant::now() + within;
        self.tcpdump.stdout.wait_until(deadline, |pcap, _| (came(pcap) >= count).then_some(())).is_some()
    }

    /// All frames that passed until now.
    pub fn stop(self) -> Vec<Frame> {
        // When tcpdump sleeps, it has read all that the kernel had for it: each frame wakes it.
        let status = format!("/proc/{}/stat", self.tcpdump.pid());
        eventually("tcpdump's rest", || {
            std::fs::read_to_string(&status).unwrap().contains(") S ").then_some(())
        });
        self.tcpdump.signal(Signal::SIGTERM);
        let pcap = self.tcpdump.stdout.whole_bytes();
        let summary = self.tcpdump.stderr.whole();
        assert!(summary.contains("0 packets dropped by kernel"), "the capture has gaps:\n{summary}");
        dissect(&pcap)
    }
}

/// What tcpdump says of the frames that come in there.
pub fn told_by_tcpdump(place: &impl Place, device: &str, filter: &str) -> Running {
    let mut tcpdump = place.command("tcpdump");
    tcpdump.args(["-i", device, "-Q", "in", "-lnne", "--immediate-mode", "-Z", "root", filter]);
    let tcpdump = Running::start(&mut tcpdump);
    tcpdump.stderr.line_with("listening on");
    tcpdump
}
