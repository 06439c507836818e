//! Captures frames with packet sockets on the capture points of all announcements. Their filters pass only the frames that
//! are looked for.
//!
//! A socket is shared by up to [`MAX_GUESTS`] announcements, so that an evacuation adds a few filters to an uplink's traffic, not
//! hundreds. It is open only while an announcement uses it.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use pnet_base::MacAddr;
use tokio::io::unix::AsyncFd;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

use super::sys::{packet, readable};
use crate::proof::capture_filter::MAX_GUESTS;
use crate::proof::capture_point::{CapturePoint, Direction};
use crate::proof::sighting::Sighting;

mod closers;
mod reception;
mod socket;

use closers::Closers;
use reception::Clocks;
use socket::{MAX_REPLIES, Socket, Watched, announcements, program};

/// The receive buffer of a socket: about fifty frames.
const RECEIVE_BUFFER: usize = 64 * 1024;
/// The same where a frame of a round leaves in as many copies as its network has other hosts, as far as
/// `net.core.rmem_max` admits.
const TUNNEL_RECEIVE_BUFFER: usize = 1024 * 1024;
/// The time between two readings: frames that come one by one are read together, and a guest that floods the network with
/// announcements of its own delays nothing else. A round that is waited for is read without a pause.
const PAUSE: Duration = Duration::from_millis(1);
/// The number of sightings that may be queued; later ones are dropped.
const MAX_SIGHTINGS: usize = 1024;
/// Why frames cannot be captured.
#[derive(Debug, thiserror::Error)]
#[error("cannot see frames pass: {0}{remedy}", remedy = remedy(.0))]
pub(crate) struct WitnessError(#[from] io::Error);

fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => " (needs CAP_NET_RAW)",
        _ => "",
    }
}

/// Captures frames for announcements.
#[derive(Debug, Clone)]
pub(crate) struct Witness {
    sockets: Arc<Mutex<Sockets>>,
    /// Started late: a thread keeps the capabilities that the process had at its start.
    closers: Arc<OnceLock<Closers>>,
}

#[derive(Debug, Default)]
struct Sockets {
    on: HashMap<u32, Vec<Socket>>,
    /// The number of the last watch, and of the last socket.
    last: u64,
}

/// The captures of one announcement. Dropping it closes the sockets that no other announcement uses.
#[derive(Debug)]
pub(crate) struct Watch {
    witness: Witness,
    number: u64,
    /// Each with the number of its socket.
    points: Vec<(CapturePoint, u64)>,
    sightings: mpsc::Receiver<Sighting>,
}

impl Witness {
    /// No capture yet.
    pub(crate) fn new() -> Witness {
        Witness { sockets: Arc::default(), closers: Arc::default() }
    }

    /// Captures the announcements of `mac` at `points`; sightings have their time since `began`.
    pub(crate) fn watch(
        &self,
        points: Vec<CapturePoint>,
        mac: MacAddr,
        began: Instant,
    ) -> Result<Watch, WitnessError> {
        self.open(points, mac, began, false)
    }

    /// Captures answers at the guest's own device.
    pub(crate) fn watch_guest(
        &self,
        ifindex: u32,
        mac: MacAddr,
        began: Instant,
    ) -> Result<Watch, WitnessError> {
        let point = CapturePoint { ifindex, outward: Direction::In, is_uplink: false, tunnel: None };
        self.open(vec![point], mac, began, true)
    }

    fn open(
        &self,
        points: Vec<CapturePoint>,
        mac: MacAddr,
        began: Instant,
        is_guests: bool,
    ) -> Result<Watch, WitnessError> {
        let (to, sightings) = mpsc::channel(MAX_SIGHTINGS);
        let mut sockets = self.lock();
        sockets.last += 1;
        let number = sockets.last;
        let mut watch = Watch { witness: self.clone(), number, points: Vec::new(), sightings };
        for point in points {
            // Set from the start: changing a filter takes as long as all other work when the port is ready.
            let inward = if point.is_uplink { MAX_REPLIES } else { 0 };
            let answers = is_guests || point.is_uplink;
            let (tunnel, to) = (point.tunnel, to.clone());
            let watched = Watched {
                watch: number,
                mac,
                outward: false,
                left: announcements(tunnel),
                inward,
                answers,
                is_guests,
                tunnel,
                last: None,
                missed: false,
                began,
                to,
            };
            match self.add(&mut sockets, point.ifindex, watched) {
                Ok(socket) => watch.points.push((point, socket)),
                Err(error) => {
                    sockets.on.retain(|_, on| !on.is_empty());
                    // Dropping the watch takes the lock.
                    drop(sockets);
                    return Err(error.into());
                }
            }
        }
        drop(sockets);
        Ok(watch)
    }

    /// Returns the number of the socket.
    fn add(&self, sockets: &mut Sockets, ifindex: u32, watched: Watched) -> io::Result<u64> {
        let on = sockets.on.entry(ifindex).or_default();
        if let Some(socket) = on.iter_mut().find(|socket| socket.watched.len() < MAX_GUESTS) {
            let hears = socket.hears_outgoing();
            if watched.tunnel.is_some() {
                // As much as the host admits.
                let _ = setsockopt(&socket.fd, sockopt::RcvBuf, &TUNNEL_RECEIVE_BUFFER);
            }
            socket.watched.push(watched);
            if socket.hears_outgoing() != hears {
                let _ = packet::ignore_outgoing(&socket.fd, hears);
            }
            if socket.watched.iter().any(|watched| watched.is_guests) {
                socket.refilter().inspect_err(|_| drop(socket.watched.pop()))?;
            } else {
                socket.lacks();
            }
            return Ok(socket.number);
        }
        let is_guests = watched.is_guests;
        let buffer = if watched.tunnel.is_some() { TUNNEL_RECEIVE_BUFFER } else { RECEIVE_BUFFER };
        let watched = vec![watched];
        let emptied = Instant::now();
        // Since Linux 4.20. Before, each frame that the host transmits is copied to the socket while it is open.
        let fd = packet::listener(ifindex, &program(&watched), !is_guests)?;
        setsockopt(&fd, sockopt::ReceiveTimestampns, &true)?;
        setsockopt(&fd, sockopt::RcvBuf, &buffer)?;
        let (reader, stopped) = oneshot::channel();
        let hastened = Arc::new(Notify::new());
        let waiting = readable(fd.try_clone()?)?;
        sockets.last += 1;
        let number = sockets.last;
        tokio::spawn(self.clone().read((ifindex, number), waiting, hastened.clone(), stopped));
        let (is_behind, lacks, due) = (false, false, None);
        on.push(Socket { number, fd, watched, emptied, is_behind, lacks, due, hastened, _reader: reader });
        Ok(number)
    }

    async fn read(
        self,
        (ifindex, number): (u32, u64),
        waiting: AsyncFd<OwnedFd>,
        hastened: Arc<Notify>,
        mut stopped: oneshot::Receiver<()>,
    ) {
        let mut read_at = Instant::now();
        loop {
            let due = self.lock().socket(ifindex, number).and_then(Socket::refilter_if_due);
            tokio::select! {
                _ = &mut stopped => break,
                () = hastened.notified() => {}
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
                ready = waiting.readable() => match ready {
                    Ok(_) => {
                        sleep_until(read_at).await;
                        // This one is of the frames that have come meanwhile, too.
                        let Ok(mut ready) = waiting.readable().await else { break };
                        ready.clear_ready();
                        while self.lock().collect(ifindex, number) {
                            tokio::time::sleep(PAUSE).await;
                        }
                        read_at = Instant::now() + PAUSE;
                    }
                    Err(_) => break,
                },
            }
        }
        self.closers.get_or_init(Closers::start).close(waiting.into_inner());
    }

    fn lock(&self) -> MutexGuard<'_, Sockets> {
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Witness {
    fn default() -> Self {
        Self::new()
    }
}

impl Sockets {
    /// Passes frames that a socket has received to their announcements; returns whether there may be more.
    fn collect(&mut self, ifindex: u32, number: u64) -> bool {
        self.socket(ifindex, number).is_some_and(|socket| socket.collect(ifindex, Clocks::now()))
    }

    fn socket(&mut self, ifindex: u32, number: u64) -> Option<&mut Socket> {
        self.on.get_mut(&ifindex)?.iter_mut().find(|socket| socket.number == number)
    }
}

impl Watch {
    /// A watch fed by `sightings`, without sockets.
    #[cfg(test)]
    pub(crate) fn fed(points: Vec<CapturePoint>, sightings: mpsc::Receiver<Sighting>) -> Watch {
        let points = points.into_iter().map(|point| (point, 0)).collect();
        Watch { witness: Witness::new(), number: 0, points, sightings }
    }

    /// The sightings not returned yet, without waiting.
    pub(crate) fn so_far(&mut self) -> Vec<Sighting> {
        let mut sockets = self.witness.lock();
        let clocks = Clocks::now();
        for (point, socket) in &self.points {
            if let Some(socket) = sockets.socket(point.ifindex, *socket) {
                socket.collect(point.ifindex, clocks);
            }
        }
        drop(sockets);
        std::iter::from_fn(|| self.sightings.try_recv().ok()).collect()
    }

    /// The edges at which frames were not reported since the round began: there were more than the socket could hold, or
    /// than are read at once.
    pub(crate) fn missed(&self) -> Vec<u32> {
        let mut sockets = self.witness.lock();
        let mut missed = Vec::new();
        for (point, socket) in self.points.iter().filter(|(point, _)| point.is_uplink) {
            let is_lossy = sockets.socket(point.ifindex, *socket).is_some_and(|socket| {
                socket.count_losses();
                let mut own = socket.watched.iter().filter(|watched| watched.watch == self.number);
                socket.is_behind || own.any(|watched| watched.missed)
            });
            missed.extend(is_lossy.then_some(point.ifindex));
        }
        missed
    }

    /// Waits for the next sighting.
    pub(crate) async fn next(&mut self) -> Sighting {
        match self.sightings.recv().await {
            Some(sighting) => sighting,
            // The sockets have failed: no further sighting.
            None => std::future::pending().await,
        }
    }

    /// A round is about to be sent: captures its frames, and frames for the guest, from now on.
    pub(crate) fn begin(&mut self) {
        // What was lost until now is of an earlier round.
        self.missed();
        self.change(|watched, point| {
            watched.missed = false;
            watched.rearm(point);
            watched.outward = point.outward == Direction::Out;
            watched.left = announcements(point.tunnel);
            watched.last = None;
        });
    }

    /// Reports more frames for the guest, if the previous ones have arrived.
    pub(crate) fn rearm(&mut self) {
        self.change(Watched::rearm);
    }

    /// The round is over: transmitted frames are no longer captured.
    pub(crate) fn end(&mut self) {
        self.change(|watched, _| watched.outward = false);
    }

    fn change(&mut self, change: impl Fn(&mut Watched, &CapturePoint)) {
        let mut sockets = self.witness.lock();
        for (point, socket) in &self.points {
            let Some(socket) = sockets.socket(point.ifindex, *socket) else { continue };
            let hears = socket.hears_outgoing();
            let is_it =
                |watched: &&mut Watched| (watched.watch, watched.tunnel) == (self.number, point.tunnel);
            let mut must_refilter = socket.lacks;
            for watched in socket.watched.iter_mut().filter(is_it) {
                let passes = watched.passes();
                change(watched, point);
                must_refilter |= watched.passes() != passes;
            }
            // A failure here only makes the capture less complete.
            if socket.hears_outgoing() != hears {
                let _ = packet::ignore_outgoing(&socket.fd, hears);
            }
            if must_refilter && socket.refilter().is_err() {
                let own = socket.watched.iter_mut().filter(is_it);
                own.for_each(|watched| watched.missed = true);
            }
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut sockets = self.witness.lock();
        for (point, socket) in &self.points {
            if let Some(socket) = sockets.socket(point.ifindex, *socket) {
                socket.watched.retain(|watched| watched.watch != self.number);
                if !socket.watched.is_empty() {
                    socket.exceeds();
                }
            }
            let Some(on) = sockets.on.get_mut(&point.ifindex) else {
                continue;
            };
            // Its reader has another descriptor of the socket, and closes that last.
            on.retain(|socket| !socket.watched.is_empty());
            if on.is_empty() {
                sockets.on.remove(&point.ifindex);
            }
        }
    }
}
