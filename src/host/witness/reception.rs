//! A frame received by a packet socket, with its direction, time and VLAN (packet(7)).

use std::io::{self, IoSliceMut};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, SystemTime};

use nix::sys::socket::{ControlMessageOwned, LinkAddr, MsgFlags, recvmsg};
use tokio::time::Instant;

use crate::proof::capture_filter::SNAPLEN;
use crate::proof::capture_point::Direction;

/// Two clocks read within this time count as read at the same moment.
const AT_ONCE: Duration = Duration::from_micros(50);
// include/uapi/linux/if_packet.h
const TP_STATUS_VLAN_VALID: u32 = 1 << 4;

/// The memory into which frames are received, one after the other.
pub(super) struct Buffer {
    frame: [u8; SNAPLEN],
    control: Vec<u8>,
}

impl Buffer {
    /// For a frame and what the kernel tells of it.
    pub(super) fn new() -> Buffer {
        Buffer { frame: [0; SNAPLEN], control: nix::cmsg_space!([u8; 64], nix::sys::time::TimeSpec) }
    }
}

/// A frame as a socket received it.
pub(super) struct Seen<'a> {
    /// Its bytes, perhaps truncated.
    pub frame: &'a [u8],
    /// The direction in which it passed.
    pub direction: Direction,
    /// The VLAN tag that the kernel has removed from it.
    pub vlan: Option<u16>,
    /// When.
    pub at: Instant,
}

/// One moment on two clocks: that of sightings, and that of the kernel's timestamps.
///
/// Frames collected together are timed by the same pair, so that their order is kept.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clocks {
    ours: Instant,
    kernels: SystemTime,
}

impl Clocks {
    /// This moment.
    pub(super) fn now() -> Clocks {
        let read = || Clocks { ours: Instant::now(), kernels: SystemTime::now() };
        // Repeat if the thread was descheduled between the two reads.
        (0..3).map(|_| read()).find(|clocks| clocks.ours.elapsed() < AT_ONCE).unwrap_or_else(read)
    }

    /// The time of a timestamp of a frame that was received after `earliest`; neither before that nor in the future, even if
    /// the wall clock was set in between.
    fn at(self, stamp: SystemTime, earliest: Instant) -> Instant {
        match self.kernels.duration_since(stamp) {
            Ok(age) => self.ours.checked_sub(age).unwrap_or(self.ours).max(earliest),
            Err(since) => self.ours + since.duration().min(self.ours.elapsed()),
        }
    }

    /// The moment on the clock of sightings.
    pub(super) fn ours(self) -> Instant {
        self.ours
    }
}

/// The next frame that a socket has received, if any; it was empty at `emptied`.
pub(super) fn receive<'a>(
    fd: &OwnedFd,
    clocks: Clocks,
    emptied: Instant,
    Buffer { frame, control }: &'a mut Buffer,
) -> io::Result<Option<Seen<'a>>> {
    let mut parts = [IoSliceMut::new(frame)];
    let message = recvmsg::<LinkAddr>(fd.as_raw_fd(), &mut parts, Some(control), MsgFlags::empty());
    let message = match message {
        Err(nix::errno::Errno::EAGAIN) => return Ok(None),
        message => message?,
    };
    let outgoing = message.address.is_some_and(|address| address.pkttype() == libc::PACKET_OUTGOING);
    let (mut vlan, mut at) = (None, clocks.ours);
    for control in message.cmsgs()? {
        match control {
            ControlMessageOwned::ScmTimestampns(stamp) => {
                at = clocks.at(SystemTime::UNIX_EPOCH + Duration::from(stamp), emptied);
            }
            ControlMessageOwned::Unknown(auxdata) => vlan = tag(&auxdata.data_bytes),
            _ => {}
        }
    }
    let direction = if outgoing { Direction::Out } else { Direction::In };
    let length = message.bytes;
    Ok(Some(Seen { frame: &frame[..length], direction, vlan, at }))
}

/// The VLAN in `struct tpacket_auxdata`.
fn tag(auxdata: &[u8]) -> Option<u16> {
    let status = u32::from_ne_bytes(auxdata.get(..4)?.try_into().ok()?);
    let tci = u16::from_ne_bytes(auxdata.get(16..18)?.try_into().ok()?);
    (status & TP_STATUS_VLAN_VALID != 0).then_some(tci & 0x0fff)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wall_clock_that_is_set_moves_no_frame_before_the_socket_was_empty_nor_into_the_future() {
        let (emptied, hour) = (Instant::now() - Duration::from_millis(20), Duration::from_secs(3600));
        let clocks = Clocks::now();
        let stamp = clocks.kernels - Duration::from_millis(5);
        assert_eq!(clocks.at(stamp, emptied), clocks.ours - Duration::from_millis(5));
        let ahead = Clocks { kernels: clocks.kernels + hour, ..clocks };
        assert_eq!(ahead.at(stamp, emptied), emptied);
        let behind = Clocks { kernels: clocks.kernels - hour, ..clocks };
        let at = behind.at(stamp, emptied);
        assert!(clocks.ours <= at && at <= Instant::now());
    }
}
