//! The network of a neutron port, as neutron's agent records it.

use crate::path::hop::Tag;
use crate::path::ovs::Plugged;

/// The kind of network of a neutron port (`other_config:network_type`, `segmentation_id`).
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Network {
    /// A VLAN of a physical network, or a flat one, with the tag beyond the provider bridge.
    Provider(Tag),
    /// In tunnels.
    Overlay,
}

impl Network {
    /// The network of a port; `None` if the agent has not recorded it.
    pub(super) fn of(plugged: Plugged<'_>) -> Option<Network> {
        let said = &plugged.port.other_config;
        match said.get("network_type")?.as_str() {
            "flat" => Some(Network::Provider(Tag::Untagged)),
            "vlan" => {
                let vlan = said.get("segmentation_id").and_then(|id| id.parse().ok());
                Some(Network::Provider(vlan.map_or(Tag::Unknown, Tag::Vlan)))
            }
            "vxlan" | "gre" | "geneve" | "stt" => Some(Network::Overlay),
            _ => None,
        }
    }
}
