//! Lets frames enter the host as if the guest had sent them.
//!
//! What a way in needs (a helper device, a loaded program, a socket) is made once, and shared by all announcements.
//! Making it may need capabilities; using it needs none.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::net::if_::if_indextoname;

use crate::announcement::frame::Frame;
use crate::announcement::injection::{Method, Way};

use crate::host::openvswitch::openflow;
use crate::host::patience::within;

mod fdb;
mod packet;
mod redirect;
mod xdp;

/// A bridge that has not taken a round by then is not going to.
const PATIENCE: Duration = Duration::from_secs(1);

/// Why a frame cannot be injected.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The attachment offers no such way.
    #[error("--inject {0} is no way into this attachment")]
    NoSuchWay(Method),
    /// No way could be made ready; each with its reason.
    #[error("no way to inject frames: {}", .0.join("; "))]
    Unavailable(Vec<String>),
    /// A way that had worked does so no more.
    #[error("cannot send by {0}: {1}")]
    Send(Method, String),
}

/// Every way in that has been made ready.
#[derive(Debug)]
pub struct Injectors {
    /// Where ovs-vswitchd puts its bridges' management sockets.
    ovs_directory: PathBuf,
    redirect: Mutex<Option<redirect::Redirect>>,
    xdp: Mutex<Option<xdp::LiveFrames>>,
    sockets: Mutex<HashMap<u32, packet::Socket>>,
    bridges: Mutex<HashMap<String, SharedBridge>>,
}

/// One connection for all ports of a bridge; `None` when it must be made first.
type SharedBridge = Arc<tokio::sync::Mutex<Option<openflow::Connection>>>;

impl Injectors {
    /// None ready yet; the bridges' management sockets are looked for in `ovs_directory`.
    pub fn new(ovs_directory: PathBuf) -> Self {
        Injectors {
            ovs_directory,
            redirect: Mutex::default(),
            xdp: Mutex::default(),
            sockets: Mutex::default(),
            bridges: Mutex::default(),
        }
    }

    /// Makes ready what needs capabilities to be made and none to be used; tells of each that could not be, and why.
    pub fn warm_up(&self) -> Vec<String> {
        let redirect = make(&mut lock(&self.redirect), redirect::Redirect::open);
        let xdp = make(&mut lock(&self.xdp), xdp::LiveFrames::open);
        let made = [(Method::Redirect, redirect), (Method::Xdp, xdp)];
        made.into_iter().filter_map(|(method, made)| Some(format!("{method}: {}", made.err()?))).collect()
    }

    /// What was made ready can be used with the capabilities that are left.
    pub fn is_usable(&self) -> bool {
        lock(&self.redirect).as_ref().is_none_or(|redirect| redirect.aim(0).is_ok())
    }

    /// Makes the first of `ways` ready that can be, and returns it.
    pub async fn prepare(&self, ways: &[Way], forced: Option<Method>) -> Result<Way, Error> {
        let mut reasons = Vec::new();
        for way in ways {
            match self.make_ready(way).await {
                Ok(()) => return Ok(way.clone()),
                Err(why) => reasons.push(format!("{}: {why}", way.method())),
            }
        }
        match forced {
            Some(method) if ways.is_empty() => Err(Error::NoSuchWay(method)),
            _ => Err(Error::Unavailable(reasons)),
        }
    }

    async fn make_ready(&self, way: &Way) -> Result<(), String> {
        match way {
            Way::Redirect(_) => make(&mut lock(&self.redirect), redirect::Redirect::open),
            Way::Xdp(_) => make(&mut lock(&self.xdp), xdp::LiveFrames::open),
            Way::Packet(device) => self.open_socket(device.ifindex),
            Way::Fdb { bridge, .. } => self.open_socket(bridge.ifindex),
            Way::PacketOut { bridge, .. } => {
                let shared = self.bridge(bridge);
                let mut connection = shared.lock().await;
                if connection.is_none() {
                    *connection = Some(self.connect(bridge).await?);
                }
                Ok(())
            }
        }
    }

    /// Sends the frames of a round, in order, by a way that was made ready.
    pub async fn send(&self, way: &Way, frames: &[Frame]) -> Result<(), Error> {
        let sent = match way {
            Way::Redirect(device) => match &*lock(&self.redirect) {
                Some(redirect) => each(frames, |frame| redirect.send(device.ifindex, frame)),
                None => Err(not_ready()),
            },
            Way::Xdp(device) => match &*lock(&self.xdp) {
                Some(xdp) => each(frames, |frame| xdp.send(device.ifindex, frame)),
                None => Err(not_ready()),
            },
            Way::Packet(device) => self.send_packets(device.ifindex, frames),
            Way::Fdb { port, bridge } => {
                fdb::learn(port.ifindex, frames).and_then(|()| self.send_packets(bridge.ifindex, frames))
            }
            Way::PacketOut { bridge, in_port } => {
                let sent = within(PATIENCE, self.packet_out(bridge, *in_port, frames)).await;
                sent.unwrap_or_else(|| Err(io::Error::other(format!("{bridge} does not answer"))))
            }
        };
        sent.map_err(|error| Error::Send(way.method(), error.to_string()))
    }

    fn open_socket(&self, ifindex: u32) -> Result<(), String> {
        let mut sockets = lock(&self.sockets);
        if !sockets.contains_key(&ifindex) {
            // Devices come and go with the guests, and no index comes back. To close takes milliseconds: elsewhere.
            let (of_gone, others): (HashMap<_, _>, HashMap<_, _>) =
                std::mem::take(&mut *sockets).into_iter().partition(|(of, _)| !exists(*of));
            *sockets = others;
            tokio::task::spawn_blocking(|| drop(of_gone));
            sockets.insert(ifindex, packet::Socket::open(ifindex)?);
        }
        Ok(())
    }

    fn send_packets(&self, ifindex: u32, frames: &[Frame]) -> io::Result<()> {
        let sockets = lock(&self.sockets);
        let socket = sockets.get(&ifindex).ok_or_else(not_ready)?;
        each(frames, |frame| socket.send(frame))
    }

    async fn packet_out(&self, bridge: &str, in_port: u32, frames: &[Frame]) -> io::Result<()> {
        let frames: Vec<&[u8]> = frames.iter().map(|frame| frame.bytes.as_slice()).collect();
        let shared = self.bridge(bridge);
        let mut connection = shared.lock().await;
        if let Some(kept) = connection.as_mut() {
            if kept.packet_out(in_port, &frames).await.is_ok() {
                return Ok(());
            }
            // ovs-vswitchd may have been restarted since: one new connection decides.
            *connection = None;
        }
        let mut fresh = self.connect(bridge).await.map_err(io::Error::other)?;
        fresh.packet_out(in_port, &frames).await?;
        *connection = Some(fresh);
        Ok(())
    }

    fn bridge(&self, name: &str) -> SharedBridge {
        let mut bridges = lock(&self.bridges);
        if !bridges.contains_key(name) {
            // Neutron makes and removes a bridge for each guest with a trunk.
            bridges.retain(|of, _| self.management(of).exists());
        }
        bridges.entry(name.to_owned()).or_default().clone()
    }

    /// The socket of a bridge.
    fn management(&self, bridge: &str) -> PathBuf {
        self.ovs_directory.join(format!("{bridge}.mgmt"))
    }

    async fn connect(&self, bridge: &str) -> Result<openflow::Connection, String> {
        if bridge.contains('/') {
            return Err(format!("{bridge:?} is no name of a bridge"));
        }
        let socket = self.management(bridge);
        let opened = within(PATIENCE, openflow::Connection::open(&socket)).await;
        let opened = opened.unwrap_or_else(|| Err(io::Error::other("no answer")));
        opened.map_err(|error| format!("cannot connect to {}: {error}", socket.display()))
    }
}

fn make<T>(slot: &mut Option<T>, open: impl FnOnce() -> Result<T, String>) -> Result<(), String> {
    if slot.is_none() {
        *slot = Some(open()?);
    }
    Ok(())
}

fn each(frames: &[Frame], send: impl Fn(&[u8]) -> io::Result<()>) -> io::Result<()> {
    frames.iter().try_for_each(|frame| send(&frame.bytes))
}

fn not_ready() -> io::Error {
    io::Error::other("it was not made ready")
}

/// There is a device of this index.
fn exists(ifindex: u32) -> bool {
    // nix 0.31 takes the null pointer of a failure for an empty name.
    if_indextoname(ifindex).is_ok_and(|name| !name.is_empty())
}

/// What is behind these locks is whole between any two statements, so a panic elsewhere has not broken it.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An error of the kernel, with the capability to give when it was refused for the want of one.
fn refused(doing: &str, error: &io::Error, capabilities: &str) -> String {
    match error.kind() {
        io::ErrorKind::PermissionDenied => format!("cannot {doing}: {error} (needs {capabilities})"),
        _ => format!("cannot {doing}: {error}"),
    }
}
