//! Tunnels for Ethernet frames: how they encapsulate a frame, and by which devices the result leaves.

use std::collections::BTreeMap;
use std::net::IpAddr;

/// The UDP port of VXLAN (RFC 7348 section 5).
pub(crate) const VXLAN_PORT: u16 = 4789;
/// The UDP port of Geneve (RFC 8926 section 3.3).
pub(crate) const GENEVE_PORT: u16 = 6081;

/// How a tunnel encapsulates an Ethernet frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Encapsulation {
    /// VXLAN to this UDP port (RFC 7348).
    Vxlan(u16),
    /// Geneve to this UDP port (RFC 8926).
    Geneve(u16),
    /// GRE with the protocol type 0x6558 (RFC 2784, RFC 2890).
    Gre,
}

/// A kernel device that encapsulates frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TunnelDevice {
    /// How.
    pub encapsulation: Encapsulation,
    /// The ifindex of the device that it transmits by (`IFLA_VXLAN_LINK`, `IFLA_GRE_LINK`); without it, routes decide.
    pub lower: Option<u32>,
}

/// The tunnel whose encapsulated frames a NIC transmits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tunnel {
    /// How.
    pub encapsulation: Encapsulation,
    /// The tunnel's name: a device, or a port of Open vSwitch.
    pub name: String,
    /// The names of Open vSwitch's ports by their remote ends; several have the NIC in common.
    pub ports: BTreeMap<IpAddr, String>,
    /// A kernel device shows the frames before they are encapsulated. What follows is the kernel's: it may have no remote
    /// end for the frame, or encrypt it.
    pub has_device: bool,
}

impl Tunnel {
    /// The name of the port to this remote end.
    pub fn port_to(&self, remote: IpAddr) -> &str {
        self.ports.get(&remote).unwrap_or(&self.name)
    }
}
