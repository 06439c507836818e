//! The attachment of a NIC: its port and its path, hop by hop to the host's edges.

use serde::{Deserialize, Serialize};

use crate::guest::target::Plug;
use crate::path::condition::Condition;
use crate::path::hop::Tag;
use crate::path::link::{Link, Links};
use crate::path::ovs::{Bridge, Interface, Ovs, Plugged};
use crate::path::uplinks::Uplinks;
use crate::path::walk::{self, Start};
use crate::path::way_out::WayOut;

/// Prefix of the names of neutron's trunk bridges (`neutron_lib.services.trunk.constants`).
const TRUNK_BRIDGE: &str = "tbr-";
/// Prefixes of the patch ports of a parent port and of sub-ports on a trunk bridge (neutron's `trunk_manager.py`).
const TRUNK_PARENT: &str = "tpt-";
const TRUNK_SUB_PORT: &str = "spt-";
/// The same of the far end of a sub-port's patch, on the integration bridge.
const SUB_PORT: &str = "spi-";
/// Prefix of the names of os-vif's per-port bridges; the rest is that of the tap's name (`per_port_bridge` of its `ovs.py`).
const PORT_BRIDGE: &str = "pb";
/// Prefixes of the two ends of os-vif's hybrid plug.
const HYBRID_BRIDGE: &str = "qbr";
const HYBRID_PORT: &str = "qvo";

/// The shapes of attachment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// tap → Linux bridge.
    LinuxBridge,
    /// tap → Open vSwitch bridge.
    Ovs,
    /// tap → Linux bridge → veth → Open vSwitch bridge: neutron with its iptables firewall.
    Hybrid,
    /// tap → trunk bridge → patch → integration bridge: a parent port of a neutron trunk.
    TrunkBridge,
    /// tap → bridge of its own → patch → integration bridge: os-vif's `per_port_bridge`.
    PerPortBridge,
    /// macvtap → its lower device.
    Macvtap,
    /// vhost-user socket → userspace bridge of Open vSwitch.
    VhostUser,
}

impl Kind {
    /// The name of this shape in output.
    pub fn word(self) -> &'static str {
        match self {
            Kind::LinuxBridge => "linux-bridge",
            Kind::Ovs => "ovs",
            Kind::Hybrid => "hybrid",
            Kind::TrunkBridge => "trunk-bridge",
            Kind::PerPortBridge => "per-port-bridge",
            Kind::Macvtap => "macvtap",
            Kind::VhostUser => "vhost-user",
        }
    }
}

/// The attachment of a NIC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attachment {
    /// Its shape.
    pub kind: Kind,
    /// Where the guest's frames enter the host.
    pub entry: Entry,
    /// The bridge that puts the guest's frames into their VLAN; for a macvtap, its lower device.
    pub bridge: String,
    /// The guest's port on that bridge.
    pub port: String,
    /// The hops from the host's end of the NIC to the host's edges.
    pub way: WayOut,
}

/// Where the guest's frames enter the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The device's name, or the Open vSwitch port's if it has no device.
    pub name: String,
    /// Its ifindex; `None` for a port without a kernel device.
    pub ifindex: Option<u32>,
    /// The Linux bridge that has it as a port.
    pub linux_bridge: Option<Device>,
    /// On a hybrid plug, the veth end in the Linux bridge: frames sent on it enter Open vSwitch.
    pub veth: Option<Device>,
    /// The first Open vSwitch bridge on the path, and the interface by which the frames enter it.
    pub ovs: Option<OvsPort>,
}

/// A kernel device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// Its name.
    pub name: String,
    /// Its ifindex.
    pub ifindex: u32,
}

impl Device {
    fn of(link: &Link) -> Device {
        Device { name: link.name.clone(), ifindex: link.index }
    }
}

/// An interface of an Open vSwitch bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OvsPort {
    /// The bridge's name.
    pub bridge: String,
    /// The interface's name.
    pub interface: String,
}

impl Entry {
    fn of(link: &Link) -> Entry {
        Entry { ifindex: Some(link.index), ..Entry::named(&link.name) }
    }

    fn named(name: &str) -> Entry {
        Entry { name: name.to_owned(), ifindex: None, linux_bridge: None, veth: None, ovs: None }
    }

    fn into(self, plugged: Plugged<'_>) -> Entry {
        Entry {
            ovs: Some(OvsPort {
                bridge: plugged.bridge.name.clone(),
                interface: plugged.interface.name.clone(),
            }),
            ..self
        }
    }
}

/// Follows `plug` through the host, or returns the missing part.
///
/// `tag` is that with which the guest's frames enter the host.
pub fn resolve(
    plug: &Plug,
    tag: Tag,
    links: &Links,
    ovs: &Ovs,
    uplinks: &Uplinks,
) -> Result<Attachment, Condition> {
    let world = World { tag, links, ovs, uplinks };
    let plugged = find(plug, ovs);
    let Some(link) = plug.device.as_deref().and_then(|name| links.named(name)) else {
        return world.without_device(plug, plugged);
    };
    if link.is("macvtap") {
        return world.macvtap(link);
    }
    match link.master.and_then(|index| links.get(index)) {
        Some(bridge) if bridge.is("bridge") => world.on_linux_bridge(link, bridge),
        _ => match plugged {
            Some(plugged) => world.on_ovs(Some(link), plugged),
            None => Err(Condition::NotPlugged { device: link.name.clone() }),
        },
    }
}

/// The NIC's row in OVSDB: by its name, by its interface id, or by its vhost-user socket.
fn find<'a>(plug: &Plug, ovs: &'a Ovs) -> Option<Plugged<'a>> {
    let by_name = plug.device.as_deref().and_then(|name| ovs.named(name));
    // A hybrid plug's qvo carries the iface-id as well; there the path begins at the tap.
    by_name.or_else(|| ovs.vhost_user().find(|port| is_vhost_user_of(plug.into(), port.interface)))
}

/// The names by which a vhost-user NIC is known.
#[derive(Debug, Clone, Copy)]
pub struct VhostUser<'a> {
    /// The SDN's id of the port.
    pub interface_id: Option<&'a str>,
    /// The path of the socket.
    pub socket: Option<&'a str>,
}

impl<'a> From<&'a Plug> for VhostUser<'a> {
    fn from(plug: &'a Plug) -> Self {
        VhostUser { interface_id: plug.interface_id.as_deref(), socket: plug.socket.as_deref() }
    }
}

/// Whether a vhost-user interface is this NIC's.
pub fn is_vhost_user_of(nic: VhostUser<'_>, interface: &Interface) -> bool {
    let has_id = nic.interface_id.is_some()
        && interface.external_ids.get("iface-id").map(String::as_str) == nic.interface_id;
    let is_its = |path: &str| {
        interface.options.get("vhost-server-path").is_some_and(|known| known == path)
            || path.ends_with(&format!("/{}", interface.name))
    };
    has_id || nic.socket.is_some_and(is_its)
}

/// The far end of the veth by which a Linux bridge leads into Open vSwitch: the port of a hybrid plug there.
pub fn beyond<'a>(bridge: &Link, links: &'a Links, ovs: &'a Ovs) -> Option<Plugged<'a>> {
    let veths = links.leading_on(bridge.index).filter(|port| port.is("veth"));
    veths.filter_map(|veth| links.get(veth.link?)).find_map(|far| ovs.named(&far.name))
}

/// The snapshots over which a path is followed.
struct World<'a> {
    tag: Tag,
    links: &'a Links,
    ovs: &'a Ovs,
    uplinks: &'a Uplinks,
}

impl<'a> World<'a> {
    fn walk(&self, start: Start<'a>) -> WayOut {
        walk::walk(start, self.tag, self.links, self.ovs, self.uplinks)
    }

    fn without_device(&self, plug: &Plug, plugged: Option<Plugged<'a>>) -> Result<Attachment, Condition> {
        let name = plug.device.clone().or_else(|| plug.socket.clone());
        match (plugged, name) {
            // A trunk's sub-port enters the integration bridge by a patch port.
            (Some(plugged), _) if plugged.interface.is_vhost_user() || is_sub_port(&plugged) => {
                self.on_ovs(None, plugged)
            }
            (_, Some(device)) => Err(Condition::NoDevice { device }),
            (_, None) => Err(Condition::NoHostEnd),
        }
    }

    fn macvtap(&self, link: &'a Link) -> Result<Attachment, Condition> {
        let lower = link.link.and_then(|index| self.links.get(index));
        let lower = lower.ok_or_else(|| Condition::NoLowerDevice { device: link.name.clone() })?;
        Ok(Attachment {
            kind: Kind::Macvtap,
            entry: Entry::of(link),
            bridge: lower.name.clone(),
            port: link.name.clone(),
            way: self.walk(Start::Lower(link, lower)),
        })
    }

    fn on_linux_bridge(&self, tap: &'a Link, bridge: &'a Link) -> Result<Attachment, Condition> {
        let entry = Entry { linux_bridge: Some(Device::of(bridge)), ..Entry::of(tap) };
        for veth in self.links.leading_on(bridge.index).filter(|port| port.is("veth")) {
            let Some(far) = veth.link.and_then(|index| self.links.get(index)) else {
                continue;
            };
            // A veth that is an uplink leads out of a bridge that is no hybrid plug's.
            if let Some(plugged) = self.ovs.named(&far.name) {
                let entry = Entry { veth: Some(Device::of(veth)), ..entry };
                return Ok(Attachment {
                    kind: Kind::Hybrid,
                    entry: entry.into(plugged),
                    bridge: plugged.bridge.name.clone(),
                    port: plugged.port.name.clone(),
                    way: self.walk(Start::LinuxBridge(tap, bridge)),
                });
            }
            // os-vif makes the veth first and adds it to Open vSwitch later; until then this is no plain bridge.
            if bridge.name.starts_with(HYBRID_BRIDGE) && far.name.starts_with(HYBRID_PORT) {
                return Err(Condition::NotInOvs { device: far.name.clone() });
            }
        }
        Ok(Attachment {
            kind: Kind::LinuxBridge,
            entry,
            bridge: bridge.name.clone(),
            port: tap.name.clone(),
            way: self.walk(Start::LinuxBridge(tap, bridge)),
        })
    }

    fn on_ovs(&self, link: Option<&'a Link>, plugged: Plugged<'a>) -> Result<Attachment, Condition> {
        let entry = link.map_or_else(|| Entry::named(&plugged.interface.name), Entry::of);
        let (kind, patch) = if plugged.bridge.name.starts_with(TRUNK_BRIDGE) {
            (Kind::TrunkBridge, Some(trunk_parent(plugged.bridge, self.ovs)))
        } else if let Some(patch) = only_patch(plugged, self.ovs) {
            (Kind::PerPortBridge, Some(patch))
        } else if plugged.interface.is_vhost_user() {
            (Kind::VhostUser, None)
        } else {
            (Kind::Ovs, None)
        };
        let rule = match patch {
            None => plugged,
            Some(None) => return Err(Condition::NoPatch { bridge: plugged.bridge.name.clone() }),
            Some(Some((_, far))) => far,
        };
        Ok(Attachment {
            kind,
            entry: entry.into(plugged),
            bridge: rule.bridge.name.clone(),
            port: rule.port.name.clone(),
            way: self.walk(Start::Ovs(link, plugged)),
        })
    }
}

/// The two ends of a patch.
type Patch<'a> = (Plugged<'a>, Plugged<'a>);

fn patches<'a>(bridge: &'a Bridge, ovs: &'a Ovs) -> impl Iterator<Item = Patch<'a>> {
    ovs.plugged_into(bridge).filter_map(|near| Some((near, ovs.peer_of(near.interface)?)))
}

fn is_sub_port(port: &Plugged<'_>) -> bool {
    port.interface.kind == "patch" && port.interface.is_guests()
}

/// The ports on the integration bridge of the sub-ports of the trunk whose parent NIC is `device`.
pub fn sub_ports<'a>(device: &str, ovs: &'a Ovs) -> impl Iterator<Item = Plugged<'a>> {
    let parent = ovs.named(device).filter(|parent| parent.bridge.name.starts_with(TRUNK_BRIDGE));
    let patches = parent.into_iter().flat_map(|parent| patches(parent.bridge, ovs));
    let of_sub_ports = patches.filter(|(near, _)| near.interface.name.starts_with(TRUNK_SUB_PORT));
    of_sub_ports.map(|(_, far)| far).filter(is_sub_port)
}

/// Whether this is neutron's name for the port of a trunk's sub-port on the integration bridge.
pub(crate) fn is_sub_ports(name: &str) -> bool {
    name.starts_with(SUB_PORT)
}

/// The patch that carries a trunk's untagged frames. A sub-port's patch has a tag on this side; neutron 24 gives this one
/// tag 0.
fn trunk_parent<'a>(bridge: &'a Bridge, ovs: &'a Ovs) -> Option<Patch<'a>> {
    let name = |patch: &Patch<'_>| patch.0.interface.name.clone();
    let untagged = |(near, _): &Patch<'_>| matches!(near.port.tag, None | Some(0));
    let candidates =
        patches(bridge, ovs).filter(|patch| untagged(patch) && !name(patch).starts_with(TRUNK_SUB_PORT));
    candidates.max_by_key(|patch| name(patch).starts_with(TRUNK_PARENT))
}

/// The patch of a bridge that has only this patch and one guest's port; `Some(None)` if the patch does not exist yet.
///
/// An integration bridge with a single guest looks alike, but the port at the far end of its patch is no guest's.
fn only_patch<'a>(plugged: Plugged<'a>, ovs: &'a Ovs) -> Option<Option<Patch<'a>>> {
    let bridge = plugged.bridge;
    let is_other = |port: &Plugged<'_>| port.port.name != plugged.port.name && port.port.name != bridge.name;
    let mut others = ovs.plugged_into(bridge).filter(is_other);
    match (others.next(), others.next()) {
        (None, _) => {
            let suffix = plugged.interface.name.get(3..).filter(|suffix| suffix.len() > 1);
            (bridge.name.strip_prefix(PORT_BRIDGE) == suffix && suffix.is_some()).then_some(None)
        }
        (Some(_), None) => patches(bridge, ovs).find(|(_, far)| far.interface.is_guests()).map(Some),
        _ => None,
    }
}
#[cfg(test)]
pub(crate) mod tests;
