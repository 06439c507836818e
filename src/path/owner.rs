//! The authority that decides when a port carries traffic, and the evidence for it.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::guest::target::{Manager, Target};
use crate::path::ovs::{Ovs, Plugged};

/// The authority that decides when a port carries traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Owner {
    /// Neutron's Open vSwitch agent, which sets the port's tag.
    Neutron,
    /// ovn-controller, which sets `ovn-installed`.
    Ovn,
    /// The domain's XML or the operator specifies the VLAN that the port must have.
    Vlan,
    /// Another agent, which sets the port's VLAN after the guest runs.
    Agent,
    /// No agent: a plugged port is ready.
    Nobody,
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Owner::Neutron => "neutron",
            Owner::Ovn => "ovn",
            Owner::Vlan => "vlan",
            Owner::Agent => "agent",
            Owner::Nobody => "nobody",
        })
    }
}

impl Owner {
    /// The owner of `rule`, the Open vSwitch port that decides for `target`, with the evidence.
    pub(crate) fn of(target: &Target, rule: Plugged<'_>, ovs: &Ovs) -> (Owner, String) {
        let ids = &rule.interface.external_ids;
        if let Some(key) = ids.keys().find(|key| key.starts_with("ovn-")) {
            return (Owner::Ovn, format!("external_ids:{key} on {}", rule.interface.name));
        }
        // ovn-controller marks a port only after it has bound it; before that, its own settings are the evidence.
        let ovn_bridge = ovs.external_ids.get("ovn-bridge").map_or("br-int", String::as_str);
        if ovs.external_ids.contains_key("ovn-remote") && rule.bridge.name == ovn_bridge {
            return (
                Owner::Ovn,
                format!("ovn-controller's settings in OVSDB, and the port is on {ovn_bridge}"),
            );
        }
        if rule.port.other_config.contains_key("net_uuid") {
            return (Owner::Neutron, format!("other_config:net_uuid on {}", rule.port.name));
        }
        if target.manager == Some(Manager::Nova) {
            return (Owner::Neutron, "nova's metadata in the domain's XML".into());
        }
        if target.vlan.is_some() {
            return (Owner::Vlan, "a VLAN is asked for".into());
        }
        // OpenNebula's drivers for plain Linux bridges finish before the guest runs.
        if target.manager == Some(Manager::OpenNebula) {
            return (Owner::Agent, "OpenNebula's metadata in the domain's XML".into());
        }
        // The agent writes net_uuid some milliseconds after the tag; until then, its other ports are the evidence.
        if let Some(marked) = ovs.marked_by_neutron(&rule.bridge.name) {
            return (
                Owner::Neutron,
                format!("{} on {} belongs to neutron's agent", marked, rule.bridge.name),
            );
        }
        // Whether a VLAN is asked for is in the XML: without one, only what is set already is known to be right.
        if target.manager == Some(Manager::Unknown) {
            return (Owner::Agent, "libvirt has not said yet what the port must be like".into());
        }
        (Owner::Nobody, "no VLAN is asked for, and no SDN has marked the port".into())
    }
}
