//! A packet socket, what the announcements that share it look for, and its filter.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use pnet_base::MacAddr;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::Instant;

use super::reception::{Buffer, Clocks, Seen, receive};
use crate::host::sys::packet;
use crate::path::tunnel::Encapsulation;
use crate::proof::capture_filter::{self, Guests};
use crate::proof::capture_point::{CapturePoint, Direction};
use crate::proof::decapsulation::decapsulated;
use crate::proof::sighting::Sighting;

/// The number of frames for a guest that are reported until the next re-arming: only the first one after a departure
/// matters, and whether later ones arrive.
pub(super) const MAX_REPLIES: u32 = 32;

/// The number of frames from a guest that are reported per device and round: more than any round has. A guest that floods
/// the network with announcements of its own costs no more.
const MAX_ANNOUNCEMENTS: u32 = 512;
/// The same with their copies to other hosts.
const MAX_COPIES: u32 = 16 * MAX_ANNOUNCEMENTS;

/// The number of frames read from a socket at once.
const MAX_BATCH: usize = 64;
const MAX_TUNNEL_BATCH: usize = 512;

/// Setting a filter of 64 guests takes the kernel about a millisecond, as long as all other work of an announcement. So it is set
/// once for all guests that have come within this time, or when a round of one begins.
const LACK_TIME: Duration = Duration::from_millis(20);
/// The same for guests that have gone: their frames are ignored until then.
const EXCESS_TIME: Duration = Duration::from_secs(1);

/// A packet socket on one device, and the announcements that share it.
#[derive(Debug)]
pub(super) struct Socket {
    pub(super) number: u64,
    pub(super) fd: OwnedFd,
    pub(super) watched: Vec<Watched>,
    /// When it had no frame, the last time that it was read.
    pub(super) emptied: Instant,
    /// The last reading ended before it had no frame.
    pub(super) is_behind: bool,
    /// The filter does not pass all that is wanted.
    pub(super) lacks: bool,
    /// When the filter is to be set.
    pub(super) due: Option<Instant>,
    /// Tells the task that waits for frames of an earlier `due`.
    pub(super) hastened: Arc<Notify>,
    /// Dropping this ends the task that waits for frames.
    pub(super) _reader: oneshot::Sender<()>,
}

/// What one announcement looks for at one capture point.
#[derive(Debug)]
pub(super) struct Watched {
    pub(super) watch: u64,
    pub(super) mac: MacAddr,
    /// A round is under way, and transmitted frames are captured here.
    pub(super) outward: bool,
    /// The number of frames from the guest still to be reported.
    pub(super) left: u32,
    /// The number of frames for the guest still to be reported.
    pub(super) inward: u32,
    /// Answers for the guest are reported as well, in either direction.
    pub(super) answers: bool,
    /// This is the guest's own device, which transmits the frames for the guest.
    pub(super) is_guests: bool,
    /// Only frames inside such tunnels are reported, and of copies to several hosts the first.
    pub(super) tunnel: Option<Encapsulation>,
    /// The last such frame.
    pub(super) last: Option<Sighting>,
    /// Frames were not reported since the round began.
    pub(super) missed: bool,
    pub(super) began: Instant,
    pub(super) to: mpsc::Sender<Sighting>,
}

impl Watched {
    /// Reports more frames for the guest.
    pub(super) fn rearm(&mut self, point: &CapturePoint) {
        // A remainder above half suffices, and saves a change of the filter.
        if point.is_uplink && self.inward < MAX_REPLIES / 2 {
            self.inward = MAX_REPLIES;
        }
    }

    /// Whether the filter passes frames for the guest, and announcements of it.
    pub(super) fn passes(&self) -> (bool, bool) {
        (self.inward > 0, self.left > 0)
    }

    /// Whether this is the frame that was reported last, on its way to another host.
    fn is_copy(&mut self, sighting: &Sighting) -> bool {
        if sighting.outside.is_none() || sighting.direction == Direction::In {
            return false;
        }
        let is_same = |last: &Sighting| (&last.frame, last.vlan) == (&sighting.frame, sighting.vlan);
        let is_copy = self.last.as_ref().is_some_and(is_same);
        self.last = Some(sighting.clone());
        is_copy
    }
}

impl Socket {
    /// Passes the frames received to their announcements, up to a batch; returns whether there may be more.
    pub(super) fn collect(&mut self, ifindex: u32, clocks: Clocks) -> bool {
        let tunnels = tunnels(&self.watched);
        let batch = if tunnels.is_empty() { MAX_BATCH } else { MAX_TUNNEL_BATCH };
        let (mut read, mut has_failed, mut buffer) = (0, false, Buffer::new());
        while read < batch {
            match receive(&self.fd, clocks, self.emptied, &mut buffer) {
                Ok(Some(seen)) => self.tell(ifindex, &seen, &tunnels),
                Ok(None) => {
                    self.emptied = clocks.ours();
                    break;
                }
                // A device that goes down causes one error, which does not matter here.
                Err(_) if !has_failed => {
                    has_failed = true;
                    continue;
                }
                Err(_) => break,
            }
            read += 1;
        }
        self.is_behind = read == batch;
        self.is_behind
    }

    /// Passes a frame to the announcements that it is for.
    fn tell(&mut self, ifindex: u32, seen: &Seen<'_>, tunnels: &[Encapsulation]) {
        let mut is_enough = false;
        let inside = decapsulated(seen.frame, tunnels);
        for watched in &mut self.watched {
            let (frame, vlan, outside) = match (watched.tunnel, inside) {
                (None, _) => (seen.frame, seen.vlan, None),
                (Some(tunnel), Some((outside, frame))) if tunnel == outside.encapsulation => {
                    (frame, None, Some(outside))
                }
                (Some(_), _) => continue,
            };
            let mac = watched.mac.octets();
            if frame.get(..6) == Some(&mac) {
                // The filter has passed it for at least one of the guests.
                match watched.inward {
                    0 if !watched.answers => continue,
                    0 => {}
                    _ => {
                        watched.inward -= 1;
                        is_enough |= watched.inward == 0;
                    }
                }
            } else if frame.get(6..12) == Some(&mac) && watched.left > 0 {
                watched.left -= 1;
                watched.missed |= watched.left == 0;
                is_enough |= watched.left == 0;
            } else {
                continue;
            }
            let at = seen.at.saturating_duration_since(watched.began);
            let sighting = Sighting::new(ifindex, seen.direction, at, vlan, frame);
            let sighting = Sighting { outside, ..sighting };
            if watched.is_copy(&sighting) {
                continue;
            }
            // The receiver may be gone.
            watched.missed |= watched.to.try_send(sighting).is_err();
        }
        if is_enough {
            let _ = self.refilter();
        }
    }

    /// Asks the kernel for the frames that the socket could not hold. Each answer is of the time since the last one, so that it
    /// is of all announcements that share the socket.
    pub(super) fn count_losses(&mut self) {
        let is_lossy = packet::dropped(&self.fd).is_ok_and(|dropped| dropped > 0);
        self.watched.iter_mut().for_each(|watched| watched.missed |= is_lossy);
    }

    /// Frames that the device transmits are wanted.
    pub(super) fn hears_outgoing(&self) -> bool {
        self.watched.iter().any(|watched| watched.outward || watched.is_guests)
    }

    /// More is wanted, from the next round on at the latest.
    pub(super) fn lacks(&mut self) {
        self.lacks = true;
        self.due_within(LACK_TIME);
    }

    /// Less is wanted.
    pub(super) fn exceeds(&mut self) {
        self.due_within(EXCESS_TIME);
    }

    fn due_within(&mut self, time: Duration) {
        let at = Instant::now() + time;
        if self.due.is_none_or(|due| at < due) {
            self.due = Some(at);
            self.hastened.notify_one();
        }
    }

    /// Sets the filter if that is due; returns when it will be.
    pub(super) fn refilter_if_due(&mut self) -> Option<Instant> {
        if self.due? > Instant::now() {
            return self.due;
        }
        // What a filter lacks is tried again when a round begins.
        let _ = self.refilter();
        None
    }

    /// Sets the filter for what is wanted now.
    pub(super) fn refilter(&mut self) -> io::Result<()> {
        self.due = None;
        packet::filter(&self.fd, &program(&self.watched))?;
        self.lacks = false;
        Ok(())
    }
}

/// The number of frames from a guest that are reported at a capture point, per round.
pub(super) fn announcements(tunnel: Option<Encapsulation>) -> u32 {
    if tunnel.is_some() { MAX_COPIES } else { MAX_ANNOUNCEMENTS }
}

/// The tunnels inside which frames are looked for.
fn tunnels(watched: &[Watched]) -> Vec<Encapsulation> {
    let tunnels: BTreeSet<Encapsulation> = watched.iter().filter_map(|watched| watched.tunnel).collect();
    tunnels.into_iter().collect()
}

/// The filter for these.
pub(super) fn program(watched: &[Watched]) -> Vec<capture_filter::Instruction> {
    let those = |is_one: fn(&Watched) -> bool| {
        let those = watched.iter().filter(|watched| is_one(watched));
        those.map(|watched| watched.mac).collect::<Vec<MacAddr>>()
    };
    let outward = those(|watched| watched.left > 0 && !watched.is_guests);
    let reports = those(|watched| watched.left > 0 && watched.is_guests);
    let inward = those(|watched| watched.inward > 0);
    let answers = those(|watched| watched.answers);
    let tunnels = tunnels(watched);
    capture_filter::program(Guests {
        outward: &outward,
        reports: &reports,
        inward: &inward,
        answers: &answers,
        tunnels: &tunnels,
    })
}
