//! XDP live frames: injects a frame as received by a device (Linux 5.18, backported to RHEL 9's 5.14).
//!
//! Not the first choice: since some kernel after 6.1, a frame that stays unread in a paused guest's tap for a minute makes
//! the kernel log `page_pool_release_retry() stalled pool shutdown`.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use super::WayError;
use crate::host::sys::bpf::{self, Instruction, ProgramType};

/// The ifindex of the loopback device in every network namespace.
const LOOPBACK: u32 = 1;

/// A loaded program that passes every frame to the stack.
#[derive(Debug)]
pub(super) struct LiveFrames {
    program: OwnedFd,
}

impl LiveFrames {
    /// Loads the program, and tests whether the kernel supports live frames.
    pub(super) fn open() -> Result<Self, WayError> {
        // return XDP_PASS
        let program = [Instruction::new(0xb7, 0, 0, 0, 2), Instruction::new(0x95, 0, 0, 0, 0)];
        let needs = "CAP_BPF and CAP_NET_ADMIN";
        let failed = |doing| move |error| WayError::Kernel { doing, error, needs };
        let program = bpf::load(ProgramType::Xdp, &program).map_err(failed("load the XDP program"))?;
        // An empty frame without a protocol, which the loopback device drops.
        bpf::run_live(program.as_fd(), LOOPBACK, &[0; 60]).map_err(|error| match error.kind() {
            io::ErrorKind::InvalidInput => WayError::NoLiveFrames,
            _ => failed("run the XDP program")(error),
        })?;
        Ok(LiveFrames { program })
    }

    /// Injects `frames` as received by the device `ifindex`.
    ///
    /// A device that is down drops them silently.
    pub(super) fn send(&self, ifindex: u32, frames: &[&[u8]]) -> Result<(), WayError> {
        let send = |frame: &&[u8]| bpf::run_live(self.program.as_fd(), ifindex, frame);
        frames.iter().try_for_each(send).map_err(WayError::Write)
    }
}
