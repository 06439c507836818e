//! Packet-outs through the management sockets of Open vSwitch's bridges.
//!
//! A connection in use is removed from its slot. One that breaks, or whose user is cancelled, is dropped, so that no
//! half-written message precedes the next one.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::{WayError, lock};
use crate::host::openvswitch::openflow::{Aim, Connection};

/// How long a bridge may take to accept a round.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);
/// The number of concurrent packet-outs per bridge; others wait.
const MAX_CONNECTIONS: usize = 4;

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
    /// Connections that are not in use.
    idle: Mutex<Vec<Connection>>,
    places: Semaphore,
}

impl Bridges {
    /// The management sockets are in `directory`.
    pub(super) fn new(directory: PathBuf) -> Self {
        Bridges { directory, bridges: Mutex::default() }
    }

    /// Connects to a bridge, if there is no connection yet.
    pub(super) async fn connect(&self, name: &str) -> Result<(), WayError> {
        let bridge = self.bridge(name)?;
        let connected = async {
            if bridge.is_connected() {
                return Ok(());
            }
            let connection = bridge.connect().await?;
            lock(&bridge.idle).push(connection);
            Ok(())
        };
        let in_time = timeout(ANSWER_TIMEOUT, connected).await;
        in_time.unwrap_or_else(|_| Err(WayError::NoAnswer(name.into())))
    }

    /// Sends frames into the bridge.
    pub(super) async fn packet_out(&self, name: &str, aim: Aim, frames: &[&[u8]]) -> Result<(), WayError> {
        let bridge = self.bridge(name)?;
        let in_time = timeout(ANSWER_TIMEOUT, bridge.packet_out(aim, frames)).await;
        in_time.unwrap_or_else(|_| Err(WayError::NoAnswer(name.into())))
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
            idle: Mutex::default(),
            places: Semaphore::new(MAX_CONNECTIONS),
        };
        Ok(bridges.entry(name.to_owned()).or_insert_with(|| Arc::new(new())).clone())
    }
}

impl Bridge {
    async fn packet_out(&self, aim: Aim, frames: &[&[u8]]) -> Result<(), WayError> {
        // The semaphore is never closed.
        let _place = self.places.acquire().await;
        let kept = lock(&self.idle).pop();
        if let Some(mut kept) = kept {
            if kept.packet_out(aim, frames).await.is_ok() {
                lock(&self.idle).push(kept);
                return Ok(());
            }
            // ovs-vswitchd may have restarted, so that the other connections are broken, too: a new one decides.
            lock(&self.idle).clear();
        }
        let mut fresh = self.connect().await?;
        fresh.packet_out(aim, frames).await.map_err(WayError::PacketOut)?;
        lock(&self.idle).push(fresh);
        Ok(())
    }

    fn is_connected(&self) -> bool {
        let in_use = MAX_CONNECTIONS - self.places.available_permits();
        in_use > 0 || lock(&self.idle).iter().any(Connection::is_open)
    }

    async fn connect(&self) -> Result<Connection, WayError> {
        let opened = Connection::open(&self.socket).await;
        opened.map_err(|error| WayError::Connect { socket: self.socket.clone(), error })
    }
}
