//! Injects frames into the host as if the guest had sent them.
//!
//! The helper devices, programs and sockets of a method are made once, and shared by all announcements. Making them may need
//! capabilities; using them needs none. A broken helper tap or connection is dropped, and made again if the capabilities allow.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::announcement::frame::Frame;
use crate::announcement::injection::{Inward, Method, Way};
use crate::host::openvswitch::openflow::Aim;
use crate::host::openvswitch::packet_outs::Submission;

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

/// The number of helper taps that [`Injectors::warm_up`] makes: one to use, and a spare for when that is deleted.
const HELPER_TAPS: usize = 2;

/// Every prepared method.
#[derive(Debug)]
pub struct Injectors {
    /// The first one is used; the others are spare.
    redirect: Mutex<Vec<Arc<Redirect>>>,
    xdp: Mutex<Option<Arc<LiveFrames>>>,
    packets: Mutex<Option<Arc<packet::Socket>>>,
    bridges: Bridges,
    /// The methods that failed at the start, when the process had all its capabilities.
    failed: Mutex<Vec<(Method, Arc<WayError>)>>,
    /// Another program has deleted a helper tap.
    was_taken_away: AtomicBool,
    exhausted: AtomicBool,
}

impl Injectors {
    /// No method is prepared yet; the bridges' management sockets are in `ovs_directory`.
    pub fn new(ovs_directory: PathBuf) -> Self {
        Injectors {
            redirect: Mutex::default(),
            xdp: Mutex::default(),
            packets: Mutex::default(),
            bridges: Bridges::new(ovs_directory),
            failed: Mutex::default(),
            was_taken_away: AtomicBool::new(false),
            exhausted: AtomicBool::new(false),
        }
    }

    /// Prepares the methods that need capabilities for that but none for sending; returns each that failed, with the reason.
    pub async fn warm_up(&self) -> Vec<(Method, Arc<WayError>)> {
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
        let failed: Vec<_> = failed.into_iter().map(|(method, why)| (method, Arc::new(why))).collect();
        lock(&self.failed).clone_from(&failed);
        failed
    }

    /// The reason why a method fails. Where a capability is missing that was given up since the start, the first reason counts.
    fn reason(&self, method: Method, why: WayError) -> WayError {
        let at_start =
            lock(&self.failed).iter().find(|(failed, _)| *failed == method).map(|(_, why)| why.clone());
        match at_start {
            Some(first) if why.is_refused() => WayError::AtStart(first),
            _ => why,
        }
    }

    /// Whether the prepared methods work with the remaining capabilities.
    pub fn is_usable(&self) -> bool {
        lock(&self.redirect).iter().all(|redirect| redirect.aim(0).is_ok())
    }

    /// Whether an announcement had no method because the helper taps made at the start are gone, and the remaining
    /// capabilities do not suffice to make new ones.
    pub fn is_exhausted(&self) -> bool {
        self.exhausted.load(Ordering::Relaxed)
    }

    /// Prepares the first of `ways` that works, and returns it. Cancel safe.
    ///
    /// # Errors
    ///
    /// None works; the error has the reason for each.
    pub async fn prepare(&self, ways: &[Way], forced: Option<Method>) -> Result<Way, InjectorError> {
        let mut reasons = Vec::new();
        for way in ways {
            match self.make_ready(way).await {
                Ok(()) => return Ok(way.clone()),
                Err(why) => reasons.push((way.method(), self.reason(way.method(), why))),
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
            Way::Packet(_) | Way::Fdb { .. } => self.packets().map(drop),
            Way::PacketOut { bridge, .. } => self.bridges.connect(bridge).await,
        }
    }

    /// Sends the frames of a round, in order, by a prepared method; a bridge that is busy takes first rounds first. Cancel safe;
    /// after an error, some frames may have been sent, and after a cancellation where the submission was handed over.
    ///
    /// # Errors
    ///
    /// The method has failed. A helper tap or a connection that is broken is dropped, and [`Injectors::prepare`] makes another.
    pub async fn send(
        &self,
        way: &Way,
        frames: &[Frame],
        submission: &Submission,
    ) -> Result<(), InjectorError> {
        let frames: Vec<&[u8]> = frames.iter().map(|frame| frame.bytes.as_slice()).collect();
        self.inject(way, &frames, submission).await.map_err(|error| InjectorError::Send(way.method(), error))
    }

    /// Sends frames to the guest, in order. Cancel safe.
    pub async fn send_inward(&self, to: &Inward, frames: &[&[u8]]) -> Result<(), WayError> {
        match to {
            Inward::Packet(device) => self.transmit(device.ifindex, frames),
            Inward::PacketOut { bridge, port } => {
                self.bridges.packet_out(bridge, Aim::Port(*port), frames, &Submission::new(false)).await
            }
            Inward::Ingress(ways) => {
                let mut failed = WayError::NotReady;
                for way in ways {
                    match self.inject(way, frames, &Submission::new(false)).await {
                        Ok(()) => return Ok(()),
                        Err(error) => failed = error,
                    }
                }
                Err(failed)
            }
        }
    }

    async fn inject(&self, way: &Way, frames: &[&[u8]], submission: &Submission) -> Result<(), WayError> {
        match way {
            Way::Redirect(device) => self.redirect(device.ifindex, frames).await,
            Way::Xdp(device) => self.live_frames().and_then(|xdp| xdp.send(device.ifindex, frames)),
            Way::Packet(device) => self.transmit(device.ifindex, frames),
            Way::Fdb { port, bridge } => match fdb::learn(port.ifindex, frames).await {
                Ok(()) => self.transmit(bridge.ifindex, frames),
                Err(error) => Err(error),
            },
            Way::PacketOut { bridge, in_port } => {
                self.bridges.packet_out(bridge, Aim::Table { in_port: *in_port }, frames, submission).await
            }
        }
    }

    /// Sends by the helper tap, or by the spare one if the first was deleted.
    async fn redirect(&self, ifindex: u32, frames: &[&[u8]]) -> Result<(), WayError> {
        let mut left = frames;
        for _ in 0..=HELPER_TAPS {
            let redirect = self.helper_tap().await?;
            match redirect.send(ifindex, &mut left) {
                Ok(()) => return Ok(()),
                Err(error) if redirect::is_taken_away(&error) => {}
                Err(error) => return Err(WayError::Write(error)),
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

    fn packets(&self) -> Result<Arc<packet::Socket>, WayError> {
        let mut packets = lock(&self.packets);
        match &*packets {
            Some(socket) => Ok(socket.clone()),
            None => Ok(packets.insert(Arc::new(packet::Socket::open()?)).clone()),
        }
    }

    fn transmit(&self, ifindex: u32, frames: &[&[u8]]) -> Result<(), WayError> {
        self.packets()?.send(ifindex, frames).map_err(WayError::Write)
    }
}

/// Closes descriptors on another thread: the kernel may take milliseconds.
fn close<T: Send + 'static>(descriptors: T) {
    tokio::task::spawn_blocking(|| drop(descriptors));
}

/// The locked data is consistent between any two statements, so a panic elsewhere has not broken it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
