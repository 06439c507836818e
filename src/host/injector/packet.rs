//! A packet socket, for devices whose transmit side leads out of the host, or to a guest.

use std::io;
use std::os::fd::OwnedFd;

use super::WayError;
use crate::host::sys::packet;

/// A packet socket that sends on any device, and receives nothing.
#[derive(Debug)]
pub(super) struct Socket(OwnedFd);

impl Socket {
    /// Opens it.
    pub(super) fn open() -> Result<Self, WayError> {
        let (doing, needs) = ("open a packet socket", "CAP_NET_RAW");
        packet::sender().map(Socket).map_err(|error| WayError::Kernel { doing, error, needs })
    }

    /// Transmits frames on the device `ifindex`, in order; `NetworkDown` if it is down.
    pub(super) fn send(&self, ifindex: u32, frames: &[&[u8]]) -> io::Result<()> {
        frames.iter().try_for_each(|frame| packet::transmit(&self.0, ifindex, frame))
    }
}
