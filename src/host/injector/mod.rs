//! Lets frames enter the host as if the guest had sent them.
//!
//! What a way in needs (a helper device, a loaded program, a socket) is made once, and shared by all announcements.
//! Making it may need capabilities; using it needs none. What breaks is given up, and made again where the capabilities allow.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nix::net::if_::if_indextoname;

use crate::announcement::frame::Frame;
use crate::announcement::injection::{Method, Way};

mod bridge;
mod error;
mod fdb;
mod packet;
mod redirect;
mod xdp;

use bridge::Bridges;
pub use error::{InjectorError, WayError};
use redirect::Redirect;
use xdp::LiveFrames;

/// Helper taps that [`Injectors::warm_up`] makes: one to use, and one for when that is deleted.
const HELPER_TAPS: usize = 2;

/// Every way in that has been made ready.
#[derive(Debug)]
pub struct Injectors {
    /// The first is used, the others are spare.
    redirect: Mutex<Vec<Arc<Redirect>>>,
    xdp: Mutex<Option<Arc<LiveFrames>>>,
    sockets: Mutex<HashMap<u32, packet::Socket>>,
    bridges: Bridges,
    /// A helper tap has been deleted by others.
    was_taken_away: AtomicBool,
    exhausted: AtomicBool,
}

impl Injectors {
    /// None ready yet; the bridges' management sockets are looked for in `ovs_directory`.
    pub fn new(ovs_directory: PathBuf) -> Self {
        Injectors {
            redirect: Mutex::default(),
            xdp: Mutex::default(),
            sockets: Mutex::default(),
            bridges: Bridges::new(ovs_directory),
            was_taken_away: AtomicBool::new(false),
            exhausted: AtomicBool::new(false),
        }
    }

    /// Makes ready what needs capabilities to be made and none to be used; returns each that could not be, and why.
    pub async fn warm_up(&self) -> Vec<(Method, WayError)> {
        let mut failed = Vec::new();
        let made = lock(&self.redirect).len();
        for _ in made..HELPER_TAPS {
            match Redirect::open().await {
                Ok(redirect) => lock(&self.redirect).push(Arc::new(redirect)),
                Err(error) => {
                    failed.push((Method::Redirect, error));
                    break;
                }
            }
        }
        failed.extend(self.live_frames().err().map(|error| (Method::Xdp, error)));
        failed
    }

    /// What was made ready can be used with the capabilities that are left.
    pub fn is_usable(&self) -> bool {
        lock(&self.redirect).iter().all(|redirect| redirect.aim(0).is_ok())
    }

    /// Whether an announcement has found no way in because what was made at the start has been taken away, and cannot be made
    /// again with the capabilities that are left.
    pub fn is_exhausted(&self) -> bool {
        self.exhausted.load(Ordering::Relaxed)
    }

    /// Makes the first of `ways` ready that can be, and returns it. May be cancelled.
    ///
    /// # Errors
    ///
    /// None can be, each for its reason.
    pub async fn prepare(&self, ways: &[Way], forced: Option<Method>) -> Result<Way, InjectorError> {
        let mut reasons = Vec::new();
        for way in ways {
            match self.make_ready(way).await {
                Ok(()) => return Ok(way.clone()),
                Err(why) => reasons.push((way.method(), why)),
            }
        }
        if reasons.iter().any(|(_, why)| matches!(why, WayError::TakenAway(_))) {
            self.exhausted.store(true, Ordering::Relaxed);
        }
        match forced {
            Some(method) if ways.is_empty() => Err(InjectorError::NoSuchWay(method)),
            _ => Err(InjectorError::Unavailable(reasons)),
        }
    }

    async fn make_ready(&self, way: &Way) -> Result<(), WayError> {
        match way {
            Way::Redirect(_) => self.helper_tap().await.map(drop),
            Way::Xdp(_) => self.live_frames().map(drop),
            Way::Packet(device) => self.open_socket(device.ifindex),
            Way::Fdb { bridge, .. } => self.open_socket(bridge.ifindex),
            Way::PacketOut { bridge, .. } => self.bridges.connect(bridge).await,
        }
    }

    /// Sends the frames of a round, in order, by a way that was made ready. May be cancelled; some frames may have been sent
    /// then, as they may when it fails.
    ///
    /// # Errors
    ///
    /// The way does not work any more. It is left, and [`Injectors::prepare`] tries to make it anew.
    pub async fn send(&self, way: &Way, frames: &[Frame]) -> Result<(), InjectorError> {
        let sent = match way {
            Way::Redirect(device) => self.redirect(device.ifindex, frames).await,
            Way::Xdp(device) => self.live_frames().and_then(|xdp| xdp.send(device.ifindex, frames)),
            Way::Packet(device) => self.send_packets(device.ifindex, frames),
            Way::Fdb { port, bridge } => match fdb::learn(port.ifindex, frames).await {
                Ok(()) => self.send_packets(bridge.ifindex, frames),
                Err(error) => Err(error),
            },
            Way::PacketOut { bridge, in_port } => self.bridges.packet_out(bridge, *in_port, frames).await,
        };
        sent.map_err(|error| InjectorError::Send(way.method(), error))
    }

    /// By the helper tap, or by the next one where that has been taken away.
    async fn redirect(&self, ifindex: u32, frames: &[Frame]) -> Result<(), WayError> {
        let mut left = frames;
        for _ in 0..=HELPER_TAPS {
            let redirect = self.helper_tap().await?;
            let sent = loop {
                let [frame, rest @ ..] = left else { return Ok(()) };
                match redirect.send(ifindex, &frame.bytes) {
                    Ok(()) => left = rest,
                    Err(error) => break error,
                }
            };
            if !redirect::is_taken_away(&sent) {
                return Err(WayError::Write(sent));
            }
            self.give_up(&redirect);
        }
        Err(WayError::NotReady)
    }

    fn give_up(&self, redirect: &Arc<Redirect>) {
        let mut ready = lock(&self.redirect);
        let found = ready.iter().position(|other| Arc::ptr_eq(other, redirect));
        close(found.map(|at| ready.remove(at)));
        self.was_taken_away.store(true, Ordering::Relaxed);
    }

    async fn helper_tap(&self) -> Result<Arc<Redirect>, WayError> {
        let ready = lock(&self.redirect).first().cloned();
        if let Some(redirect) = ready {
            return Ok(redirect);
        }
        match Redirect::open().await {
            Ok(redirect) => {
                let redirect = Arc::new(redirect);
                lock(&self.redirect).push(redirect.clone());
                Ok(redirect)
            }
            Err(why) if self.was_taken_away.load(Ordering::Relaxed) => {
                Err(WayError::TakenAway(Box::new(why)))
            }
            Err(why) => Err(why),
        }
    }

    fn live_frames(&self) -> Result<Arc<LiveFrames>, WayError> {
        let mut xdp = lock(&self.xdp);
        match &*xdp {
            Some(live) => Ok(live.clone()),
            None => Ok(xdp.insert(Arc::new(LiveFrames::open()?)).clone()),
        }
    }

    fn open_socket(&self, ifindex: u32) -> Result<(), WayError> {
        let mut sockets = lock(&self.sockets);
        if !sockets.contains_key(&ifindex) {
            // Devices come and go with the guests, and no index comes back.
            let (kept, of_gone) = sockets.drain().partition::<HashMap<_, _>, _>(|(of, _)| exists(*of));
            *sockets = kept;
            close(of_gone);
            sockets.insert(ifindex, packet::Socket::open(ifindex)?);
        }
        Ok(())
    }

    fn send_packets(&self, ifindex: u32, frames: &[Frame]) -> Result<(), WayError> {
        let mut sockets = lock(&self.sockets);
        let socket = sockets.get(&ifindex).ok_or(WayError::NotReady)?;
        let sent = frames.iter().try_for_each(|frame| socket.send(&frame.bytes));
        if sent.is_err() {
            close(sockets.remove(&ifindex));
        }
        sent.map_err(WayError::Write)
    }
}

/// There is a device of this index.
fn exists(ifindex: u32) -> bool {
    // nix 0.31 takes the null pointer of a failure for an empty name.
    if_indextoname(ifindex).is_ok_and(|name| !name.is_empty())
}

/// Closes descriptors elsewhere: the kernel may take milliseconds.
fn close<T: Send + 'static>(descriptors: T) {
    tokio::task::spawn_blocking(|| drop(descriptors));
}

/// What is behind these locks is whole between any two statements, so a panic elsewhere has not broken it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
