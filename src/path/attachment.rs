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
pub(crate) mod tests {
    use super::*;
    use crate::path::hop::{Edge, Role, Via};
    use crate::path::link;
    use crate::path::ovs::Port;

    /// The attachment of this device's NIC on a host without configured uplinks.
    pub(crate) fn find(device: &str, links: &Links, ovs: &Ovs) -> Result<Attachment, Condition> {
        resolve(&plug(device), Tag::Untagged, links, ovs, &Uplinks::default())
    }

    /// A device; `master` and `peer` are indexes, 0 for none. Without a kind it is a NIC. The name of a VLAN device has the
    /// VLAN after a dot.
    pub(crate) fn link(index: u32, name: &str, kind: &str, master: u32, peer: u32) -> Link {
        Link {
            index,
            name: name.into(),
            up: true,
            lower_up: true,
            kind: Some(kind.to_owned()).filter(|k| !k.is_empty()),
            has_hardware: kind.is_empty(),
            vlan_id: name.split_once('.').and_then(|(_, vlan)| vlan.parse().ok()),
            master: Some(master).filter(|m| *m > 0),
            link: Some(peer).filter(|p| *p > 0),
            bridge: (kind == "bridge").then(link::Bridge::default),
            port: (master > 0).then_some(link::BridgePort {
                state: link::PortState::Forwarding,
                ..link::BridgePort::default()
            }),
            ..Link::default()
        }
    }

    pub(crate) fn plug(device: &str) -> Plug {
        Plug { device: Some(device.into()), ..Plug::default() }
    }

    /// Bridges with their ports, each `name[:type[:peer]]`, with OpenFlow port numbers from 1.
    pub(crate) fn ovs(bridges: &[(&str, &[&str])]) -> Ovs {
        let mut ovs = Ovs::default();
        for (bridge, ports) in bridges {
            let mut row = Bridge { name: (*bridge).into(), ports: Vec::new() };
            for (n, port) in ports.iter().enumerate() {
                let mut parts = port.split(':');
                let name = parts.next().unwrap_or_default().to_owned();
                let kind = parts.next().unwrap_or_default().to_owned();
                let options = parts.next().map(|peer| ("peer".to_owned(), peer.to_owned()));
                let interface = Interface {
                    name: name.clone(),
                    kind,
                    ofport: Some(n as i64 + 1),
                    options: options.into_iter().collect(),
                    ..Interface::default()
                };
                let port =
                    Port { name: name.clone(), interfaces: vec![format!("i-{name}")], ..Port::default() };
                ovs.interfaces.insert(format!("i-{name}"), interface);
                ovs.ports.insert(format!("p-{name}"), port);
                row.ports.push(format!("p-{name}"));
            }
            ovs.bridges.insert(format!("b-{bridge}"), row);
        }
        ovs.reindex();
        ovs
    }

    /// A tap on br-int with the uplink eth0.
    pub(crate) fn tap_on_br_int() -> Attachment {
        let links = Links::from_iter([link(2, "tap0", "tun", 0, 0), link(4, "eth0", "", 0, 0)]);
        find("tap0", &links, &ovs(&[("br-int", &["tap0", "eth0"])])).unwrap()
    }

    fn names(attachment: &Attachment) -> String {
        attachment.way.hops.iter().map(|hop| hop.name.as_str()).collect::<Vec<_>>().join(" ")
    }

    fn path(device: &str, links: &Links, ovs: &Ovs) -> (Kind, String, String) {
        let attachment = find(device, links, ovs).unwrap();
        let port = format!("{}/{}", attachment.bridge, attachment.port);
        (attachment.kind, names(&attachment), port)
    }

    #[test]
    fn a_tap_on_a_linux_bridge() {
        let links = Links::from_iter([
            link(1, "br0", "bridge", 0, 0),
            link(2, "tap0", "tun", 1, 0),
            link(3, "tap1", "tun", 1, 0),
            link(4, "eth0", "", 1, 0),
        ]);
        let expected = (Kind::LinuxBridge, "tap0 br0 eth0".into(), "br0/tap0".into());
        assert_eq!(path("tap0", &links, &Ovs::default()), expected);
    }

    #[test]
    fn an_uplink_is_followed_down_to_the_devices_that_leave_the_host() {
        let links = Links::from_iter([
            link(1, "br0", "bridge", 0, 0),
            link(2, "tap0", "tun", 1, 0),
            link(3, "bond0.100", "vlan", 1, 4),
            link(4, "bond0", "bond", 0, 0),
            link(5, "eth0", "", 4, 0),
            link(6, "eth1", "", 4, 0),
        ]);
        let attachment = find("tap0", &links, &Ovs::default()).unwrap();
        assert_eq!(names(&attachment), "tap0 br0 bond0.100 bond0 eth0 eth1");
        let [.., bond, eth0, _] = &attachment.way.hops[..] else { panic!() };
        assert_eq!((bond.role, eth0.role), (Role::Upper, Role::Edge(Edge::Nic)));
        assert_eq!(eth0.via, Some(Via::of("br0", "bond0.100")));
    }

    #[test]
    fn a_bond_of_open_vswitch_leaves_by_its_members() {
        let links = Links::from_iter([
            link(2, "tap0", "tun", 0, 0),
            link(4, "eth0", "", 0, 0),
            link(5, "eth1", "", 0, 0),
        ]);
        let mut ovs = ovs(&[("br-int", &["tap0", "eth0", "eth1"])]);
        let member = ovs.ports.remove("p-eth1").unwrap();
        let bond = ovs.ports.get_mut("p-eth0").unwrap();
        bond.name = "bond0".into();
        bond.interfaces.extend(member.interfaces);
        ovs.reindex();
        let attachment = find("tap0", &links, &ovs).unwrap();
        assert_eq!(names(&attachment), "tap0 br-int bond0 eth0 eth1");
        assert_eq!(attachment.way.hops[4].via, Some(Via::of("br-int", "bond0")));
    }

    #[test]
    fn the_path_of_a_tap_on_br_int_ends_behind_the_provider_bridge() {
        let links = Links::from_iter([link(2, "tap0", "tun", 0, 0), link(4, "eth0", "", 0, 0)]);
        let ovs = ovs(&[
            ("br-int", &["tap0", "tap1", "int-br-ex:patch:phy-br-ex", "br-int:internal"]),
            ("br-ex", &["phy-br-ex:patch:int-br-ex", "eth0"]),
        ]);
        let mut ovs = ovs;
        ovs.interfaces.get_mut("i-tap1").unwrap().external_ids =
            [("iface-id".to_owned(), "x".to_owned())].into();
        ovs.reindex();
        let expected = (Kind::Ovs, "tap0 br-int br-ex eth0".into(), "br-int/tap0".into());
        assert_eq!(path("tap0", &links, &ovs), expected);
    }

    fn hybrid_links() -> Links {
        Links::from_iter([
            link(1, "qbr6f7d3c1a-11", "bridge", 0, 0),
            link(2, "tap6f7d3c1a-11", "tun", 1, 0),
            link(3, "qvb6f7d3c1a-11", "veth", 1, 4),
            link(4, "qvo6f7d3c1a-11", "veth", 0, 3),
            link(5, "bond0", "", 0, 0),
        ])
    }

    #[test]
    fn a_hybrid_plug_is_followed_through_its_veth() {
        let ovs = ovs(&[("br-int", &["qvo6f7d3c1a-11", "bond0"])]);
        let (kind, hops, port) = path("tap6f7d3c1a-11", &hybrid_links(), &ovs);
        assert_eq!(kind, Kind::Hybrid);
        assert_eq!(hops, "tap6f7d3c1a-11 qbr6f7d3c1a-11 qvb6f7d3c1a-11 qvo6f7d3c1a-11 br-int bond0");
        assert_eq!(port, "br-int/qvo6f7d3c1a-11");
    }

    #[test]
    fn a_hybrid_plug_that_is_not_in_ovs_yet_is_no_plain_bridge() {
        let missing = find("tap6f7d3c1a-11", &hybrid_links(), &Ovs::default()).unwrap_err();
        let device = "qvo6f7d3c1a-11".into();
        assert_eq!(missing, Condition::NotInOvs { device });
    }

    #[test]
    fn a_trunk_bridge_is_followed_to_its_untagged_patch() {
        let links = Links::from_iter([link(2, "tap0", "tun", 0, 0), link(4, "eth0", "", 0, 0)]);
        let mut ovs = ovs(&[
            ("tbr-1", &["tap0", "spt-1:patch:spi-1", "tpt-1:patch:tpi-1"]),
            ("br-int", &["tpi-1:patch:tpt-1", "spi-1:patch:spt-1", "eth0"]),
        ]);
        ovs.ports.get_mut("p-spt-1").unwrap().tag = Some(42);
        let expected = (Kind::TrunkBridge, "tap0 tbr-1 br-int eth0".into(), "br-int/tpi-1".into());
        assert_eq!(path("tap0", &links, &ovs), expected);
    }

    #[test]
    fn a_macvtap_leaves_by_its_lower_device() {
        let links = Links::from_iter([link(2, "macvtap0", "macvtap", 0, 4), link(4, "eth0", "", 0, 0)]);
        let expected = (Kind::Macvtap, "macvtap0 eth0".into(), "eth0/macvtap0".into());
        assert_eq!(path("macvtap0", &links, &Ovs::default()), expected);
    }

    #[test]
    fn a_vhost_user_port_is_found_by_name_id_or_socket() {
        let mut ovs = ovs(&[("br-int", &["vhu0:dpdkvhostuserclient", "dpdk0:dpdk"])]);
        let interface = ovs.interfaces.get_mut("i-vhu0").unwrap();
        interface.external_ids.insert("iface-id".into(), "id".into());
        interface.options.insert("vhost-server-path".into(), "/run/a/sock".into());
        ovs.reindex();
        let plugs = [
            plug("vhu0"),
            Plug { interface_id: Some("id".into()), ..Plug::default() },
            Plug { socket: Some("/run/a/sock".into()), ..Plug::default() },
            Plug { socket: Some("/run/openvswitch/vhu0".into()), ..Plug::default() },
        ];
        for plug in plugs {
            let attachment =
                resolve(&plug, Tag::Untagged, &Links::default(), &ovs, &Uplinks::default()).unwrap();
            assert_eq!(attachment.kind, Kind::VhostUser, "{plug:?}");
            assert_eq!(names(&attachment), "vhu0 br-int dpdk0");
        }
    }

    #[test]
    fn the_missing_part_is_named() {
        let links = Links::from_iter([link(2, "tap0", "tun", 0, 0)]);
        for (plug, words) in [
            (plug("tap9"), "tap9 does not exist"),
            (plug("tap0"), "tap0 is not plugged"),
            (Plug::default(), "names no device"),
        ] {
            let missing = resolve(&plug, Tag::Untagged, &links, &Ovs::default(), &Uplinks::default())
                .unwrap_err()
                .to_string();
            assert!(missing.contains(words), "{missing}");
        }
    }

    /// The driver of some cards serves DPDK and the kernel at once, and keeps their devices.
    #[test]
    fn frames_that_dpdk_transmits_do_not_pass_its_device() {
        let links = Links::from_iter([link(2, "tap0", "tun", 0, 0), link(4, "eth0", "", 0, 0)]);
        for (uplink, index, edge) in [
            ("eth0", Some(4), Edge::Nic),
            ("eth0:dpdk", None, Edge::Bypass),
            ("eth0:afxdp", None, Edge::Bypass),
        ] {
            let attachment = find("tap0", &links, &ovs(&[("br-int", &["tap0", uplink])])).unwrap();
            let exit = attachment.way.hops.last().unwrap();
            assert_eq!((exit.role, exit.ifindex), (Role::Edge(edge), index), "{uplink}");
        }
    }

    #[test]
    fn the_kernels_datapath_has_a_device_for_all_tunnels_of_a_kind() {
        let tap = link(2, "tap0", "tun", 0, 0);
        let mut ovs = ovs(&[("br-int", &["tap0", "vxlan-1:vxlan", "vxlan-2:vxlan", "geneve-1:geneve"])]);
        let in_user_space = find("tap0", &Links::from_iter([tap.clone()]), &ovs).unwrap();
        assert_eq!(names(&in_user_space), "tap0 br-int vxlan-1 vxlan-2 geneve-1");

        let dst_port = ("dst_port".to_owned(), "6000".to_owned());
        ovs.interfaces.get_mut("i-geneve-1").unwrap().options = [dst_port].into();
        let devices = [link(3, "vxlan_sys_4789", "vxlan", 0, 0), link(4, "genev_sys_6000", "geneve", 0, 0)];
        let links = Links::from_iter([tap].into_iter().chain(devices));
        let attachment = find("tap0", &links, &ovs).unwrap();
        assert_eq!(names(&attachment), "tap0 br-int vxlan-1 vxlan_sys_4789 geneve-1 genev_sys_6000");
        let [.., port, device, _, _] = &attachment.way.hops[..] else { panic!() };
        assert_eq!((port.role, device.role, device.ifindex), (Role::Ovs, Role::Edge(Edge::Tunnel), Some(3)));
        assert_eq!(device.via, Some(Via::of("br-int", "vxlan_sys_4789")));
    }

    #[test]
    fn patches_in_a_circle_end() {
        let ovs = ovs(&[
            ("a", &["tap0", "a1:patch:b1", "a2:patch:b2"]),
            ("b", &["b1:patch:a1", "b2:patch:a2", "eth0"]),
        ]);
        let links = Links::from_iter([link(2, "tap0", "tun", 0, 0), link(4, "eth0", "", 0, 0)]);
        assert_eq!(path("tap0", &links, &ovs).1, "tap0 a b eth0");
    }
}
