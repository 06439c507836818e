//! A packet socket on a device whose transmit side leads out of the host.

use std::io;
use std::os::fd::OwnedFd;

use nix::unistd::write;

use super::WayError;
use crate::host::sys::packet;

/// A packet socket bound to one device.
#[derive(Debug)]
pub(super) struct Socket(OwnedFd);

impl Socket {
    /// Binds to the device `ifindex`.
    pub(super) fn open(ifindex: u32) -> Result<Self, WayError> {
        let (doing, needs) = ("open a packet socket", "CAP_NET_RAW");
        packet::sender(ifindex).map(Socket).map_err(|error| WayError::Kernel { doing, error, needs })
    }

    /// Transmits `frame` on the device; `NetworkDown` if it is down.
    pub(super) fn send(&self, frame: &[u8]) -> io::Result<()> {
        write(&self.0, frame)?;
        Ok(())
    }
}
