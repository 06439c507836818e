//! Open vSwitch's database (`vswitchd/vswitch.ovsschema`).

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use pnet_base::MacAddr;

use crate::path::memo::Memo;

/// The VLAN in which neutron's agent parks a port that it has not wired yet
/// (`neutron.plugins.ml2.drivers.openvswitch.agent.common.constants.DEAD_VLAN_TAG`).
pub const DEAD_VLAN: u16 = 4095;

/// How long ovs-vswitchd may take to carry out a change without a `next_cfg` that would show its completion.
///
/// On an idle host it takes about 1.5 ms.
pub const SETTLING_TIME: Duration = Duration::from_millis(20);

/// A row's UUID.
pub type Uuid = String;

/// The tables and columns that an announcement depends on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ovs {
    /// `Open_vSwitch.external_ids` of the single row, which include ovn-controller's settings.
    pub external_ids: BTreeMap<String, String>,
    /// `Open_vSwitch.other_config`.
    pub other_config: BTreeMap<String, String>,
    /// `Open_vSwitch.next_cfg`: a client increments it when it changes the configuration.
    pub next_cfg: i64,
    /// `Open_vSwitch.cur_cfg`: the `next_cfg` up to which ovs-vswitchd has carried out the configuration.
    pub cur_cfg: i64,
    /// Table `Bridge`.
    pub bridges: BTreeMap<Uuid, Bridge>,
    /// Table `Port`.
    pub ports: BTreeMap<Uuid, Port>,
    /// Table `Interface`.
    pub interfaces: BTreeMap<Uuid, Interface>,
    /// Made at the first question after a change.
    index: Memo<Index>,
}

/// The rows by the keys that announcements look up. Each announcement looks after each change, so scanning all rows would
/// cost the square of their number.
#[derive(Debug, Default)]
struct Index {
    /// By the interface's name.
    by_name: HashMap<String, Place>,
    /// By the bridge's name and the port's.
    by_port: HashMap<String, HashMap<String, Place>>,
    /// By the bridge's name: the interfaces that are no guests'.
    leading_on: HashMap<String, Vec<Place>>,
    vhost_user: Vec<Place>,
    /// By `external_ids:iface-id` and by `attached-mac`, both in lower case.
    by_id: HashMap<String, Vec<Place>>,
    /// By the bridge's name: a port of a kind that only neutron's agent makes.
    neutrons: HashMap<String, String>,
    /// The names of internal ports.
    internals: Vec<String>,
}

/// Keys of `Interface.external_ids`: the SDN's id of a NIC, and its MAC.
const IFACE_ID: &str = "iface-id";
const ATTACHED_MAC: &str = "attached-mac";

/// The rows of a bridge, a port and an interface.
type Place = [Uuid; 3];

/// A row of table `Bridge`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Bridge {
    /// `name`.
    pub name: String,
    /// `ports`.
    pub ports: Vec<Uuid>,
}

/// A row of table `Port`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Port {
    /// `name`.
    pub name: String,
    /// `interfaces`: several on a bond.
    pub interfaces: Vec<Uuid>,
    /// `tag`, 0 to 4095.
    pub tag: Option<u16>,
    /// `vlan_mode`.
    pub vlan_mode: Option<String>,
    /// `trunks`.
    pub trunks: Vec<u16>,
    /// `other_config`.
    pub other_config: BTreeMap<String, String>,
    /// `next_cfg` when this row last changed: until `cur_cfg` reaches it, the datapath still has the previous state.
    pub changed_in: i64,
    /// The last change of its VLAN that was not counted; `None` if the previous VLAN would have forwarded no frame.
    pub uncounted: Option<Uncounted>,
}

/// A change whose writer did not increment `Open_vSwitch.next_cfg`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Uncounted {
    /// When OVSDB reported it.
    pub at: Duration,
    /// `next_cfg` at that time. A greater `cur_cfg` belongs to a later change, and covers this one.
    pub next_cfg: i64,
}

/// Why OVSDB does not answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreachable {
    /// The error, in one line.
    pub why: String,
    /// When the connection was lost.
    pub since: Duration,
}

/// A row of table `Interface`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Interface {
    /// `name`.
    pub name: String,
    /// `type`: empty for a kernel device, otherwise patch, internal, dpdkvhostuser, vxlan, …
    pub kind: String,
    /// `ofport`: its OpenFlow port number; -1 if it could not be opened.
    pub ofport: Option<i64>,
    /// `error`: why it could not be opened.
    pub error: Option<String>,
    /// `external_ids`.
    pub external_ids: BTreeMap<String, String>,
    /// `options`.
    pub options: BTreeMap<String, String>,
}

/// An interface with its port and its bridge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plugged<'a> {
    /// Its bridge.
    pub bridge: &'a Bridge,
    /// Its port.
    pub port: &'a Port,
    /// The interface.
    pub interface: &'a Interface,
}

impl Ovs {
    /// To be called after the rows were changed.
    pub fn changed(&mut self) {
        self.index = Memo::default();
    }

    /// Every interface of every bridge, with its rows.
    fn plugged(&self) -> impl Iterator<Item = (Place, Plugged<'_>)> {
        let ports =
            self.bridges.iter().flat_map(|(at, bridge)| bridge.ports.iter().map(move |port| (at, port)));
        let places = ports.flat_map(|(at, port)| {
            let interfaces = self.ports.get(port).into_iter().flat_map(|row| &row.interfaces);
            interfaces.map(move |interface| [at, port, interface].map(String::clone))
        });
        places.filter_map(|place| Some((place.clone(), self.at(&place)?)))
    }

    fn at(&self, [bridge, port, interface]: &Place) -> Option<Plugged<'_>> {
        Some(Plugged {
            bridge: self.bridges.get(bridge)?,
            port: self.ports.get(port)?,
            interface: self.interfaces.get(interface)?,
        })
    }

    fn index(&self) -> &Index {
        self.index.get(|| {
            let mut index = Index::default();
            for (place, Plugged { bridge, port, interface }) in self.plugged() {
                if interface.is_vhost_user() {
                    index.vhost_user.push(place.clone());
                }
                if interface.kind == "internal" {
                    index.internals.push(interface.name.clone());
                }
                if !interface.is_guests() {
                    index.leading_on.entry(bridge.name.clone()).or_default().push(place.clone());
                }
                for key in [IFACE_ID, ATTACHED_MAC] {
                    if let Some(id) = interface.external_ids.get(key) {
                        index.by_id.entry(id.to_ascii_lowercase()).or_default().push(place.clone());
                    }
                }
                if is_of_neutrons_agent(port, interface) {
                    index.neutrons.entry(bridge.name.clone()).or_insert_with(|| port.name.clone());
                }
                // Of rows with the same name, which a valid database does not have, the first one counts.
                let ports = index.by_port.entry(bridge.name.clone()).or_default();
                ports.entry(port.name.clone()).or_insert_with(|| place.clone());
                index.by_name.entry(interface.name.clone()).or_insert(place);
            }
            index
        })
    }

    /// The interfaces of one bridge.
    pub fn plugged_into<'a>(&'a self, bridge: &'a Bridge) -> impl Iterator<Item = Plugged<'a>> {
        let ports = bridge.ports.iter().filter_map(|uuid| self.ports.get(uuid));
        ports.flat_map(move |port| {
            let interfaces = port.interfaces.iter().filter_map(|uuid| self.interfaces.get(uuid));
            interfaces.map(move |interface| Plugged { bridge, port, interface })
        })
    }

    /// The interfaces of one bridge that are no guests'.
    pub fn leading_on<'a>(&'a self, bridge: &Bridge) -> impl Iterator<Item = Plugged<'a>> {
        let places = self.index().leading_on.get(&bridge.name).into_iter().flatten();
        places.filter_map(|place| self.at(place))
    }

    /// The vhost-user interfaces of all bridges.
    pub fn vhost_user(&self) -> impl Iterator<Item = Plugged<'_>> {
        self.index().vhost_user.iter().filter_map(|place| self.at(place))
    }

    /// The interfaces with this `external_ids:iface-id`.
    pub fn of_interface_id(&self, id: &str) -> impl Iterator<Item = Plugged<'_>> {
        self.with_id(IFACE_ID, id.to_ascii_lowercase())
    }

    /// The interfaces with this `external_ids:attached-mac`.
    pub fn of_mac(&self, mac: MacAddr) -> impl Iterator<Item = Plugged<'_>> {
        self.with_id(ATTACHED_MAC, mac.to_string())
    }

    fn with_id(&self, key: &'static str, id: String) -> impl Iterator<Item = Plugged<'_>> {
        let places = self.index().by_id.get(&id).into_iter().flatten();
        let has_it = move |p: &Plugged<'_>| {
            p.interface.external_ids.get(key).is_some_and(|value| value.eq_ignore_ascii_case(&id))
        };
        places.filter_map(|place| self.at(place)).filter(has_it)
    }

    /// A port of the bridge that shows that neutron's agent configures it: one that the agent has marked, or its patch to
    /// another bridge.
    pub fn marked_by_neutron(&self, bridge: &str) -> Option<&str> {
        self.index().neutrons.get(bridge).map(String::as_str)
    }

    /// The names of the internal ports of all bridges.
    pub fn internals(&self) -> impl Iterator<Item = &str> {
        self.index().internals.iter().map(String::as_str)
    }

    /// Open vSwitch offloads flows to NICs (`other_config:hw-offload`).
    pub fn offloads(&self) -> bool {
        self.other_config.get("hw-offload").is_some_and(|on| on == "true")
    }

    /// The interface of this name, if a bridge has it.
    pub fn named(&self, name: &str) -> Option<Plugged<'_>> {
        self.at(self.index().by_name.get(name)?)
    }

    /// A bridge's port by its own name, which may differ from that of its interface.
    pub fn port_of(&self, bridge: &str, port: &str) -> Option<Plugged<'_>> {
        self.at(self.index().by_port.get(bridge)?.get(port)?)
    }

    /// The other end of a patch port.
    pub fn peer_of(&self, patch: &Interface) -> Option<Plugged<'_>> {
        if patch.kind != "patch" {
            return None;
        }
        self.named(patch.options.get("peer")?)
    }
}

/// Where Open vSwitch puts untagged frames that a port receives (ovs-vswitchd.conf.db(5), `Port` column `vlan_mode`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Untagged {
    /// Into this VLAN, 1 to 4095.
    Into(u16),
    /// They stay untagged.
    Stay,
    /// Nowhere: a trunk port without a native VLAN drops them.
    Dropped,
}

impl Port {
    /// Where its untagged frames go.
    pub fn untagged(&self) -> Untagged {
        let native = self.tag.filter(|tag| *tag > 0).map_or(Untagged::Stay, Untagged::Into);
        match self.vlan_mode.as_deref() {
            Some("trunk") => self.untagged_of_trunk(),
            None if self.tag.is_none() => self.untagged_of_trunk(),
            _ => native,
        }
    }

    /// Open vSwitch uses `trunks`: an access port or a tunnel ignores values left there.
    pub fn heeds_trunks(&self) -> bool {
        match self.vlan_mode.as_deref() {
            None => self.tag.is_none(),
            Some(mode) => !matches!(mode, "access" | "dot1q-tunnel"),
        }
    }

    fn untagged_of_trunk(&self) -> Untagged {
        if self.trunks.is_empty() || self.trunks.contains(&0) { Untagged::Stay } else { Untagged::Dropped }
    }

    /// This row in place of `before`, after an update at `at`; `counted` if the update incremented `next_cfg` to its present
    /// value `next_cfg`.
    pub fn after(self, before: Option<&Port>, counted: bool, next_cfg: i64, at: Duration) -> Port {
        let uncounted = match before {
            // A new port receives no frame before ovs-vswitchd has made it.
            None => None,
            Some(before) if before.is_dead() || self.has_vlan_of(before) => before.uncounted,
            Some(_) => (!counted).then_some(Uncounted { at, next_cfg }),
        };
        Port { changed_in: next_cfg, uncounted, ..self }
    }

    /// This row in an initial dump at `at`: a row that was different or unknown may have changed just now.
    pub fn listed(self, known: Option<&Port>, next_cfg: i64, at: Duration) -> Port {
        let uncounted = match known {
            Some(known) if self.has_vlan_of(known) => known.uncounted,
            _ => Some(Uncounted { at, next_cfg }),
        };
        Port { changed_in: next_cfg, uncounted, ..self }
    }

    /// How much longer the datapath may have the state before the last change, given the present `cur_cfg`.
    pub fn settles_in(&self, cur_cfg: i64, now: Duration) -> Option<Duration> {
        let change = self.uncounted.filter(|change| cur_cfg <= change.next_cfg)?;
        change.at.saturating_add(SETTLING_TIME).checked_sub(now).filter(|left| !left.is_zero())
    }

    /// It forwards no untagged frame that it receives.
    fn is_dead(&self) -> bool {
        matches!(self.untagged(), Untagged::Dropped | Untagged::Into(DEAD_VLAN))
    }

    fn has_vlan_of(&self, other: &Port) -> bool {
        let vlan = |port: &Port| (port.tag, port.vlan_mode.clone(), port.trunks.clone());
        vlan(self) == vlan(other)
    }
}

/// Marked with the network, or an end of the agent's patches (`int-`…/`phy-`…, patch-tun/patch-int).
fn is_of_neutrons_agent(port: &Port, interface: &Interface) -> bool {
    let peer = interface.options.get("peer").map(String::as_str).filter(|_| interface.kind == "patch");
    let pair = peer.map(|peer| (interface.name.as_str(), peer));
    port.other_config.contains_key("net_uuid")
        || pair.is_some_and(|(name, peer)| {
            let bridge = name.strip_prefix("int-");
            (name, peer) == ("patch-tun", "patch-int")
                || bridge.is_some_and(|b| peer.strip_prefix("phy-") == Some(b))
        })
}

impl Interface {
    /// Its OpenFlow port number, if it has a usable one.
    pub fn plugged_ofport(&self) -> Option<u32> {
        u32::try_from(self.ofport?).ok().filter(|port| *port > 0)
    }

    /// It is a vhost-user port, which has no kernel device.
    pub fn is_vhost_user(&self) -> bool {
        matches!(self.kind.as_str(), "dpdkvhostuser" | "dpdkvhostuserclient")
    }

    /// It encapsulates frames and sends them to another host.
    pub fn is_tunnel(&self) -> bool {
        matches!(
            self.kind.as_str(),
            "vxlan"
                | "geneve"
                | "gre"
                | "ip6gre"
                | "erspan"
                | "ip6erspan"
                | "stt"
                | "lisp"
                | "bareudp"
                | "gtpu"
                | "srv6"
        )
    }

    /// The kernel datapath's device for all tunnels of this kind (`netdev_vport_get_dpif_port`, Open vSwitch's
    /// `lib/netdev-vport.c`); the userspace datapath has none.
    pub fn tunnel_device(&self) -> Option<String> {
        let (device, port) = match self.kind.as_str() {
            "vxlan" => ("vxlan_sys", "4789"),
            "geneve" => ("genev_sys", "6081"),
            "stt" => ("stt_sys", "7471"),
            "gre" => return Some("gre_sys".into()),
            _ => return None,
        };
        Some(format!("{device}_{}", self.options.get("dst_port").map_or(port, String::as_str)))
    }

    /// It belongs to a guest: libvirt or an agent has marked it.
    pub fn is_guests(&self) -> bool {
        self.is_vhost_user()
            || self.external_ids.contains_key(IFACE_ID)
            || self.external_ids.contains_key(ATTACHED_MAC)
    }
}
