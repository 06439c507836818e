//! Sees frames pass the devices of this host: packet sockets on those that are on somebody's way out, whose filters let
//! nothing pass but what is looked for.
//!
//! A socket is shared by up to [`ROOM`] announcements, so that an evacuation costs the traffic of an uplink a few
//! filters, not hundreds; and it is there only while somebody looks.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use pnet_base::MacAddr;
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

use super::sys::{packet, readable};
use crate::proof::capture_filter::{self, Guests, ROOM};
use crate::proof::capture_point::{CapturePoint, Direction};
use crate::proof::delivery::Sighting;

mod reception;

use reception::{Clocks, Seen, receive};

/// What a socket holds that is not read yet: some fifty frames.
const BUFFER: usize = 64 * 1024;
/// So many frames are read from a socket at once, and then no more for a while: a guest that floods the network with
/// announcements of its own keeps nobody from anything else.
const BATCH: usize = 64;
const PAUSE: Duration = Duration::from_millis(1);
/// So many sightings are kept that nobody has asked for yet; what comes then is not told.
const KEPT: usize = 1024;
/// So many frames for a guest are told, at most, until more are asked for: only the first after a departure matters, and
/// whether any come in later.
const REPLIES: u32 = 32;

/// So many frames from a guest are told of a device, at most, from one round to the next: more than any round has, and a guest
/// that floods the network with announcements of its own costs no more.
const ANNOUNCEMENTS: u32 = 512;

/// Why frames cannot be seen.
#[derive(Debug, thiserror::Error)]
#[error("cannot see frames pass: {0}{remedy}", remedy = remedy(.0))]
pub(crate) struct WitnessError(#[from] io::Error);

fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => " (needs CAP_NET_RAW)",
        _ => "",
    }
}

/// Lets announcements see frames pass.
#[derive(Debug, Clone)]
pub(crate) struct Witness {
    sockets: Arc<Mutex<Sockets>>,
    /// Closing a packet socket waits until no CPU may be using it, for some milliseconds: elsewhere.
    closing: Arc<OnceLock<std::sync::mpsc::Sender<OwnedFd>>>,
}

#[derive(Debug, Default)]
struct Sockets {
    on: HashMap<u32, Vec<Socket>>,
    /// The number of the last watch.
    last: u64,
}

#[derive(Debug)]
struct Socket {
    fd: OwnedFd,
    watched: Vec<Watched>,
    /// Ends the task that waits for frames, when dropped.
    _reader: oneshot::Sender<()>,
}

#[derive(Debug)]
struct Watched {
    watch: u64,
    mac: MacAddr,
    /// A round is under way, which shows here when it is transmitted.
    outward: bool,
    /// How many frames from the guest are still told.
    left: u32,
    /// How many frames for the guest are still told.
    inward: u32,
    /// Answers for the guest are told as well, whichever way they pass.
    answers: bool,
    /// This is the guest's own device, which transmits what the guest is sent.
    is_guests: bool,
    began: Instant,
    to: mpsc::Sender<Sighting>,
}

/// What one announcement sees; the sockets that it alone has open are closed when it is dropped.
#[derive(Debug)]
pub(crate) struct Watch {
    witness: Witness,
    number: u64,
    points: Vec<CapturePoint>,
    sightings: mpsc::Receiver<Sighting>,
}

impl Witness {
    /// Nothing is looked at yet.
    pub(crate) fn new() -> Witness {
        Witness { sockets: Arc::default(), closing: Arc::default() }
    }

    /// Looks at `points` for the announcements of `mac`; tells their time since `began`.
    pub(crate) fn watch(
        &self,
        points: Vec<CapturePoint>,
        mac: MacAddr,
        began: Instant,
    ) -> Result<Watch, WitnessError> {
        self.open(points, mac, began, false)
    }

    /// Looks at the guest's own device for answers that come to it.
    pub(crate) fn watch_guest(
        &self,
        ifindex: u32,
        mac: MacAddr,
        began: Instant,
    ) -> Result<Watch, WitnessError> {
        let point = CapturePoint { ifindex, outward: Direction::In, is_uplink: false };
        self.open(vec![point], mac, began, true)
    }

    fn open(
        &self,
        points: Vec<CapturePoint>,
        mac: MacAddr,
        began: Instant,
        is_guests: bool,
    ) -> Result<Watch, WitnessError> {
        let (to, sightings) = mpsc::channel(KEPT);
        let mut sockets = self.lock();
        sockets.last += 1;
        let number = sockets.last;
        let watch = Watch { witness: self.clone(), number, points, sightings };
        for point in &watch.points {
            // From the start: to change a filter takes as long as all else that is left to do when the port is ready.
            let inward = if point.is_uplink { REPLIES } else { 0 };
            let answers = is_guests || point.is_uplink;
            let (watch, left, to) = (number, ANNOUNCEMENTS, to.clone());
            let watched = Watched { watch, mac, outward: false, left, inward, answers, is_guests, began, to };
            if let Err(error) = self.add(&mut sockets, point.ifindex, watched) {
                // Dropping the watch takes the lock.
                drop(sockets);
                return Err(error.into());
            }
        }
        drop(sockets);
        Ok(watch)
    }

    fn add(&self, sockets: &mut Sockets, ifindex: u32, watched: Watched) -> io::Result<()> {
        let on = sockets.on.entry(ifindex).or_default();
        if let Some(socket) = on.iter_mut().find(|socket| socket.watched.len() < ROOM) {
            let hears = socket.hears_outgoing();
            socket.watched.push(watched);
            if socket.hears_outgoing() != hears {
                let _ = packet::ignore_outgoing(&socket.fd, hears);
            }
            return socket.refilter();
        }
        let is_guests = watched.is_guests;
        let watched = vec![watched];
        let fd = packet::listener(ifindex, &program(&watched))?;
        setsockopt(&fd, sockopt::ReceiveTimestampns, &true)?;
        setsockopt(&fd, sockopt::RcvBuf, &BUFFER)?;
        // From Linux 4.20 on; before, what the host transmits costs it a copy for as long as somebody looks.
        let _ = packet::ignore_outgoing(&fd, !is_guests);
        let (reader, stopped) = oneshot::channel();
        let waiting = readable(fd.try_clone()?)?;
        tokio::spawn(self.clone().read(ifindex, waiting, stopped));
        on.push(Socket { fd, watched, _reader: reader });
        Ok(())
    }

    async fn read(self, ifindex: u32, waiting: AsyncFd<OwnedFd>, mut stopped: oneshot::Receiver<()>) {
        loop {
            tokio::select! {
                _ = &mut stopped => break,
                ready = waiting.readable() => match ready {
                    Ok(mut ready) => {
                        ready.clear_ready();
                        while self.lock().collect(ifindex, Clocks::now()) {
                            tokio::time::sleep(PAUSE).await;
                        }
                    }
                    Err(_) => break,
                },
            }
        }
        self.close(waiting.into_inner());
    }

    fn close(&self, fd: OwnedFd) {
        // Not before: a thread keeps the capabilities that the process had when it was started.
        let closing = self.closing.get_or_init(|| {
            let (closing, closed) = std::sync::mpsc::channel();
            let closer = move || closed.into_iter().for_each(drop::<OwnedFd>);
            // Without that thread what is sent is dropped here, which only takes longer.
            let _ = std::thread::Builder::new().name("closing".into()).spawn(closer);
            closing
        });
        let _ = closing.send(fd);
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

impl Watched {
    fn rearm(&mut self, point: &CapturePoint) {
        // A little less is as good, and spares a filter.
        if point.is_uplink && self.inward < REPLIES / 2 {
            self.inward = REPLIES;
        }
    }
}

impl Sockets {
    /// Hands what the sockets on a device have received to whom it concerns; returns whether there may be more.
    fn collect(&mut self, ifindex: u32, clocks: Clocks) -> bool {
        let mut is_more = false;
        for socket in self.on.get_mut(&ifindex).into_iter().flatten() {
            // That the device went down is told once, as an error, and not our business.
            for _ in 0..2 {
                let mut read = 0;
                while read < BATCH {
                    let Ok(Some(seen)) = receive(&socket.fd, clocks) else { break };
                    socket.tell(ifindex, &seen);
                    read += 1;
                }
                is_more |= read == BATCH;
            }
        }
        is_more
    }

    fn of(&mut self, ifindex: u32, number: u64) -> impl Iterator<Item = &mut Socket> {
        let sockets = self.on.get_mut(&ifindex).into_iter().flatten();
        sockets.filter(move |socket| socket.watched.iter().any(|watched| watched.watch == number))
    }
}

impl Socket {
    fn tell(&mut self, ifindex: u32, seen: &Seen) {
        let mut is_enough = false;
        for watched in &mut self.watched {
            let mac = watched.mac.octets();
            if seen.frame().get(..6) == Some(&mac) {
                // The filter has let it pass for one of the guests, at least.
                match watched.inward {
                    0 if !watched.answers => continue,
                    0 => {}
                    _ => {
                        watched.inward -= 1;
                        is_enough |= watched.inward == 0;
                    }
                }
            } else if seen.frame().get(6..12) == Some(&mac) && watched.left > 0 {
                watched.left -= 1;
                is_enough |= watched.left == 0;
            } else {
                continue;
            }
            let at = seen.at.saturating_duration_since(watched.began);
            let sighting = Sighting::new(ifindex, seen.direction, at, seen.vlan, seen.frame());
            // Who does not look any more need not be told.
            let _ = watched.to.try_send(sighting);
        }
        if is_enough {
            let _ = self.refilter();
        }
    }

    fn hears_outgoing(&self) -> bool {
        self.watched.iter().any(|watched| watched.outward || watched.is_guests)
    }

    /// How many guests wait for their first frame here, and of how many announcements are told.
    fn awaiting(&self) -> (usize, usize) {
        let count = |is_one: fn(&&Watched) -> bool| self.watched.iter().filter(is_one).count();
        (count(|watched| watched.inward > 0), count(|watched| watched.left > 0))
    }

    fn refilter(&self) -> io::Result<()> {
        packet::filter(&self.fd, &program(&self.watched))
    }
}

fn program(watched: &[Watched]) -> Vec<capture_filter::Instruction> {
    let those = |is_one: fn(&Watched) -> bool| {
        let those = watched.iter().filter(|watched| is_one(watched));
        those.map(|watched| watched.mac).collect::<Vec<MacAddr>>()
    };
    let outward = those(|watched| watched.left > 0);
    let inward = those(|watched| watched.inward > 0);
    let answers = those(|watched| watched.answers);
    capture_filter::program(Guests { outward: &outward, inward: &inward, answers: &answers })
}

impl Watch {
    /// What `sightings` brings, and nothing of this host.
    #[cfg(test)]
    pub(crate) fn fed(points: Vec<CapturePoint>, sightings: mpsc::Receiver<Sighting>) -> Watch {
        Watch { witness: Witness::new(), number: 0, points, sightings }
    }

    /// What has been seen and not been told yet; does not wait.
    pub(crate) fn so_far(&mut self) -> Vec<Sighting> {
        let mut sockets = self.witness.lock();
        let clocks = Clocks::now();
        for point in &self.points {
            sockets.collect(point.ifindex, clocks);
        }
        drop(sockets);
        std::iter::from_fn(|| self.sightings.try_recv().ok()).collect()
    }

    /// Waits for the next sighting.
    pub(crate) async fn next(&mut self) -> Sighting {
        match self.sightings.recv().await {
            Some(sighting) => sighting,
            // Its sockets have broken: nothing is ever seen.
            None => std::future::pending().await,
        }
    }

    /// A round is about to be sent: its frames are seen from now on. So is what comes in for the guest.
    pub(crate) fn begin(&mut self) {
        self.change(|watched, point| {
            watched.rearm(point);
            watched.outward = point.outward == Direction::Out;
            watched.left = ANNOUNCEMENTS;
        });
    }

    /// More frames for the guest are told, where those that were to be told have come.
    pub(crate) fn rearm(&mut self) {
        self.change(Watched::rearm);
    }

    /// The round is over: what the host transmits is not looked at any more.
    pub(crate) fn end(&mut self) {
        self.change(|watched, _| watched.outward = false);
    }

    fn change(&mut self, change: impl Fn(&mut Watched, &CapturePoint)) {
        let mut sockets = self.witness.lock();
        for point in &self.points {
            for socket in sockets.of(point.ifindex, self.number) {
                let (hears, awaits) = (socket.hears_outgoing(), socket.awaiting());
                let watched = socket.watched.iter_mut().filter(|watched| watched.watch == self.number);
                watched.for_each(|watched| change(watched, point));
                // What fails here is only seen less well.
                if socket.hears_outgoing() != hears {
                    let _ = packet::ignore_outgoing(&socket.fd, hears);
                }
                if socket.awaiting() != awaits {
                    let _ = socket.refilter();
                }
            }
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut sockets = self.witness.lock();
        for point in &self.points {
            for socket in sockets.of(point.ifindex, self.number) {
                socket.watched.retain(|watched| watched.watch != self.number);
                if !socket.watched.is_empty() {
                    let _ = socket.refilter();
                }
            }
            let Some(on) = sockets.on.get_mut(&point.ifindex) else {
                continue;
            };
            let (unused, used): (Vec<_>, Vec<_>) =
                std::mem::take(on).into_iter().partition(|socket| socket.watched.is_empty());
            *on = used;
            for unused in unused {
                self.witness.close(unused.fd);
            }
            if on.is_empty() {
                sockets.on.remove(&point.ifindex);
            }
        }
    }
}
