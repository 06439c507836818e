//! The ways by which frames leave the host.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::path::hop::{Edge, Hop, Via};
use crate::proof::capture_point::Direction;
use crate::proof::sighting::Sighting;

/// The number of device and VLAN pairs by which departures are counted.
const MAX_DEPARTURES: usize = 16;

/// The way by which a frame left the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Departure {
    /// The last device.
    pub device: String,
    /// The last bridge before it.
    pub bridge: Option<String>,
    /// The bridge's port towards the device.
    pub port: Option<String>,
    /// The VLAN tag on the frame.
    pub vlan: Option<u16>,
    /// The kind of edge that the device is.
    #[serde(default)]
    pub edge: Option<Edge>,
    /// The VNI, if it left by VXLAN or Geneve.
    #[serde(default)]
    pub vni: Option<u32>,
}

/// The frames that left by one device in one VLAN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Departed {
    /// How.
    pub departure: Departure,
    /// When the first one left.
    pub at: Duration,
    /// Their number.
    pub frames: u64,
}

/// The departure of a frame that was seen at an edge.
pub(super) fn departure(hop: &Hop, sighting: &Sighting) -> Departure {
    let (bridge, mut port) = hop.via.clone().map(|Via { bridge, port }| (bridge, port)).unzip();
    let outside = sighting.outside.as_ref();
    if let (Some(tunnel), Some(outside)) = (&hop.tunnel, outside) {
        let (from, to) = outside.between;
        let remote = if sighting.direction == Direction::Out { to } else { from };
        port = Some(tunnel.port_to(remote).to_owned());
    }
    let vni = outside.and_then(|outside| outside.vni);
    Departure { device: hop.name.clone(), bridge, port, vlan: sighting.vlan, edge: hop.edge(), vni }
}

/// Counts a departure.
pub(super) fn note(departures: &mut Vec<Departed>, departure: Departure, at: Duration) {
    let known = departures.iter().position(|known| known.departure == departure);
    match known {
        Some(known) => departures[known].frames += 1,
        None if departures.len() < MAX_DEPARTURES => departures.push(Departed { departure, at, frames: 1 }),
        None => {}
    }
}

impl Departure {
    /// The device transmits the frames of a tunnel, which the port names.
    fn is_tunneled(&self) -> bool {
        self.edge == Some(Edge::Tunnel) && self.port.as_ref() != Some(&self.device)
    }
}

impl fmt::Display for Departure {
    /// `left br-int by bond0 (eth1) in VLAN 100`, `left br0 by veth0 into another network namespace`,
    /// `left br-tun by vxlan0 over eth0 with VNI 5001`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.bridge, &self.port) {
            (Some(bridge), Some(port)) if self.is_tunneled() => {
                write!(f, "left {bridge} by {port} over {}", self.device)?;
            }
            (None, Some(port)) if self.is_tunneled() => write!(f, "left by {port} over {}", self.device)?,
            (Some(bridge), Some(port)) if *port != self.device => {
                write!(f, "left {bridge} by {port} ({})", self.device)?;
            }
            (Some(bridge), _) => write!(f, "left {bridge} by {}", self.device)?,
            (None, _) => write!(f, "left by {}", self.device)?,
        }
        if let Some(beyond) = self.edge.and_then(Edge::beyond) {
            write!(f, " {beyond}")?;
        }
        self.vlan.map_or(Ok(()), |vlan| write!(f, " in VLAN {vlan}"))?;
        self.vni.map_or(Ok(()), |vni| write!(f, " with VNI {vni}"))
    }
}
