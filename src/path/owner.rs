//! The authority that decides when a port carries traffic.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The authority that decides when a port carries traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Owner {
    /// Neutron's Open vSwitch agent: the port's tag says so.
    Neutron,
    /// ovn-controller: `ovn-installed` says so.
    Ovn,
    /// The domain's XML or the operator asks for a VLAN: its presence says so.
    Vlan,
    /// None: a plugged port is ready.
    Nobody,
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Owner::Neutron => "neutron",
            Owner::Ovn => "ovn",
            Owner::Vlan => "vlan",
            Owner::Nobody => "nobody",
        })
    }
}
