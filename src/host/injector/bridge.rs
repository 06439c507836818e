//! Packet-outs through the management sockets of Open vSwitch's bridges.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use tokio::sync::{MappedMutexGuard, MutexGuard, Semaphore, SemaphorePermit};
use tokio::time::timeout;

use super::{WayError, lock};
use crate::host::openvswitch::openflow::{Aim, Connection};
use crate::host::openvswitch::packet_outs::{ANSWER_TIMEOUT, Answer, PacketOuts, Submission};

/// The number of rounds that a bridge is sent before it has answered; others wait. If it hangs, so many leave at once afterwards.
const MAX_UNANSWERED: usize = 16;
/// The number of those of them that are later rounds. While ovs-vswitchd is busy, each takes time from the first rounds, and from the
/// settings that their ports wait for.
const MAX_LATER_UNANSWERED: usize = 4;

/// The bridges that packet-outs were sent to.
#[derive(Debug)]
pub(super) struct Bridges {
    /// The directory of the bridges' management sockets.
    directory: PathBuf,
    bridges: Mutex<HashMap<String, Arc<Bridge>>>,
}

#[derive(Debug)]
struct Bridge {
    socket: PathBuf,
    /// Locked while it is made.
    connection: tokio::sync::Mutex<Link>,
    places: Semaphore,
    places_for_later: Semaphore,
}

/// The connection to a bridge.
#[derive(Default)]
enum Link {
    #[default]
    Closed,
    /// It is kept when nothing waits for it any more: ovs-vswitchd takes one connection in a turn of its main loop, and others would queue
    /// up before it.
    Opening(Pin<Box<dyn Future<Output = io::Result<Connection>> + Send>>),
    Open(PacketOuts),
}

impl Link {
    fn as_open(&mut self) -> Option<&mut PacketOuts> {
        match self {
            Link::Open(open) => Some(open),
            Link::Closed | Link::Opening(_) => None,
        }
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Link::Closed => "Closed",
            Link::Opening(_) => "Opening",
            Link::Open(_) => "Open",
        })
    }
}

impl Bridges {
    /// The management sockets are in `directory`.
    pub(super) fn new(directory: PathBuf) -> Self {
        Bridges { directory, bridges: Mutex::default() }
    }

    /// Connects to a bridge, if there is no connection yet.
    pub(super) async fn connect(&self, name: &str) -> Result<(), WayError> {
        let bridge = self.bridge(name)?;
        let in_time = timeout(ANSWER_TIMEOUT, bridge.connected()).await;
        in_time.map_err(|_| WayError::NoAnswer(name.into()))?.map(drop)
    }

    /// Sends frames into the bridge.
    pub(super) async fn packet_out(
        &self,
        name: &str,
        aim: Aim,
        frames: &[&[u8]],
        submission: &Submission,
    ) -> Result<(), WayError> {
        let bridge = self.bridge(name)?;
        let no_answer = |_| WayError::NoAnswer(name.into());
        // A round that waits for longer needs another turn in the host's quota.
        let _place = timeout(ANSWER_TIMEOUT, bridge.place(submission.is_first())).await.map_err(no_answer)?;
        timeout(ANSWER_TIMEOUT, bridge.packet_out(aim, frames, submission)).await.map_err(no_answer)?
    }

    fn bridge(&self, name: &str) -> Result<Arc<Bridge>, WayError> {
        if name.contains('/') {
            return Err(WayError::BridgeName(name.into()));
        }
        let mut bridges = lock(&self.bridges);
        if !bridges.contains_key(name) {
            // Neutron creates and removes a bridge for each guest with a trunk.
            bridges.retain(|_, bridge| bridge.socket.exists());
        }
        let new = || Bridge {
            socket: self.directory.join(format!("{name}.mgmt")),
            connection: tokio::sync::Mutex::default(),
            places: Semaphore::new(MAX_UNANSWERED),
            places_for_later: Semaphore::new(MAX_LATER_UNANSWERED),
        };
        Ok(bridges.entry(name.to_owned()).or_insert_with(|| Arc::new(new())).clone())
    }
}

impl Bridge {
    /// Waits until another round may be sent.
    async fn place(&self, is_first: bool) -> [Option<SemaphorePermit<'_>>; 2] {
        // The semaphores are never closed.
        let for_later = match is_first {
            true => None,
            false => self.places_for_later.acquire().await.ok(),
        };
        [for_later, self.places.acquire().await.ok()]
    }

    async fn packet_out(&self, aim: Aim, frames: &[&[u8]], submission: &Submission) -> Result<(), WayError> {
        let mut is_tried = false;
        loop {
            let answer = self.connected().await?.send(aim, frames, submission);
            match answer.await {
                Answer::Taken => return Ok(()),
                Answer::Refused(error) => return Err(WayError::PacketOut(error)),
                Answer::Broken(error) if is_tried => return Err(WayError::PacketOut(error)),
                // ovs-vswitchd may have restarted: a new connection decides.
                Answer::Broken(_) => is_tried = true,
            }
        }
    }

    /// The connection, made anew if there is none or it has broken.
    async fn connected(&self) -> Result<MappedMutexGuard<'_, PacketOuts>, WayError> {
        let mut link = self.connection.lock().await;
        let mut is_old = true;
        loop {
            match &mut *link {
                Link::Open(open) if open.is_open() => break,
                Link::Opening(opening) => match opening.await {
                    Ok(connection) => *link = Link::Open(PacketOuts::over(connection)),
                    Err(error) => {
                        *link = Link::Closed;
                        if !is_old {
                            return Err(WayError::Connect { socket: self.socket.clone(), error });
                        }
                    }
                },
                Link::Closed | Link::Open(_) => {
                    let socket = self.socket.clone();
                    *link = Link::Opening(Box::pin(async move { Connection::open(&socket).await }));
                    is_old = false;
                }
            }
        }
        MutexGuard::try_map(link, Link::as_open).map_err(|_| WayError::NotReady)
    }
}
