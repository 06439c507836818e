//! A guest with a kernel of its own: the namespace `guest` of the host, whose `eth0` is the guest's end of a [`Stand`]'s tap.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use announced::for_tests::sys;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, setns};
use nix::unistd::{read, write};

use super::host::{Namespace, Place};
use super::stand::Stand;

pub struct KernelGuest {
    is_over: Arc<AtomicBool>,
    relay: Option<JoinHandle<()>>,
}

impl KernelGuest {
    /// Its NIC is up, with an address of its own. `before` is a script for the guest before that.
    pub fn behind(stand: &Stand, before: &str) -> Self {
        let host = &stand.host;
        host.sh("ip netns add guest");
        let network = File::open(format!("/proc/{}/root/run/netns/guest", host.pid())).unwrap();
        let inner = move || {
            // Of this thread only.
            setns(network, CloneFlags::CLONE_NEWNET).unwrap();
            sys::tap("eth0").unwrap().0
        };
        let ends = [std::thread::spawn(inner).join().unwrap(), stand.guests_end()];
        Self::place(stand).sh(&format!(
            "sysctl -qw net.ipv6.conf.eth0.disable_ipv6=0 net.ipv6.conf.eth0.accept_dad=0
             ip link set lo up; ip link set eth0 address {}
             {before}
             ip link set eth0 up; ip address add 192.0.2.10/24 dev eth0",
            stand.nic.mac
        ));
        let is_over = Arc::new(AtomicBool::new(false));
        let stop = is_over.clone();
        let relay = std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                pass_on(&ends);
            }
        });
        Self { is_over, relay: Some(relay) }
    }

    /// Where its programs run.
    pub fn place(stand: &Stand) -> Namespace<'_> {
        stand.host.namespace("guest")
    }
}

impl Drop for KernelGuest {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        let _ = self.relay.take().map(JoinHandle::join);
    }
}

/// Passes frames from each end to the other, for as long as some come.
fn pass_on(ends: &[OwnedFd; 2]) {
    let mut waiting = ends.each_ref().map(|end| PollFd::new(end.as_fd(), PollFlags::POLLIN));
    let _ = poll(&mut waiting, PollTimeout::from(50_u8));
    let mut frame = [0; 2048];
    for (from, to) in [(&ends[0], &ends[1]), (&ends[1], &ends[0])] {
        while let Ok(length) = read(from, &mut frame) {
            // A device that is down takes none.
            let _ = write(to, &frame[..length]);
        }
    }
}
