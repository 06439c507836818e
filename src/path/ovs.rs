//! Open vSwitch's database (`vswitchd/vswitch.ovsschema`).

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use pnet_base::MacAddr;

use crate::path::changes::{CARRIED_OUT, Changes};

mod row;
mod touched;

use row::{ATTACHED_MAC, IFACE_ID, VM_ID, is_of_neutrons_agent};
pub use row::{
    Answers, Bridge, CarriedOut, DEAD_VLAN, Interface, Mirror, Port, SETTLING_TIME, Uncounted, Untagged, Uuid,
};
pub use touched::Touched;

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
    /// Table `Mirror`.
    pub mirrors: BTreeMap<Uuid, Mirror>,
    /// What ovs-vswitchd has answered about changes that `next_cfg` does not count.
    pub answers: Answers,
    /// What has changed: the ports of guests by the names of their interfaces.
    pub changes: Changes,
    /// The rows by the keys of look-ups, as of the last [`Ovs::reindex`]. Snapshots share it.
    index: Arc<Index>,
}

/// The rows by the keys that announcements look up. Each announcement looks after each change, so scanning all rows would
/// cost the square of their number.
#[derive(Debug, PartialEq, Eq, Default)]
struct Index {
    /// By the interface's name.
    by_name: HashMap<String, Place>,
    /// By the bridge's name and the port's.
    by_port: HashMap<String, HashMap<String, Place>>,
    /// By the bridge's name: the interfaces that are neither guests' nor a mirror's output.
    leading_on: HashMap<String, Vec<Place>>,
    vhost_user: Vec<Place>,
    /// By `external_ids:iface-id`, by `attached-mac` and by `vm-id`, all in lower case.
    by_id: HashMap<String, Vec<Place>>,
    /// By the bridge's name: a port of a kind that only neutron's agent makes.
    neutrons: HashMap<String, String>,
    /// The names of internal ports.
    internals: Vec<String>,
    /// Ports with several interfaces.
    bonds: Vec<Uuid>,
}

/// The rows of a bridge, a port and an interface.
type Place = [Uuid; 3];

/// Why OVSDB does not answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unreachable {
    /// The error, in one line.
    pub why: String,
    /// When the connection was lost.
    pub since: Duration,
    /// The host has neither the socket nor others of Open vSwitch: that does not run here.
    pub is_absence: bool,
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
    /// Indexes the rows anew. Must be called after what bridges, ports or interfaces are found by has changed, before any look-up.
    pub fn reindex(&mut self) {
        let index = Arc::new(Index::of(self));
        let before = std::mem::replace(&mut self.index, index);
        // A bridge's mark is evidence for each of its ports.
        if !before.neutrons.keys().all(|bridge| self.index.neutrons.contains_key(bridge))
            || before.neutrons.len() != self.index.neutrons.len()
        {
            self.changes.everything();
        }
    }

    /// ovs-vswitchd has answered that what was reported until `at` is carried out.
    pub fn carried_out_until(&mut self, at: Duration) {
        self.answers.until = Some(at);
        self.changes.port(CARRIED_OUT);
    }

    /// It could not be asked at this time about what had been reported until then.
    pub fn not_told_until(&mut self, at: Duration) {
        self.answers.not_told_until = Some(at);
        self.changes.port(CARRIED_OUT);
    }

    /// Whether both share one index.
    #[cfg(test)]
    pub(crate) fn is_indexed_like(&self, other: &Ovs) -> bool {
        Arc::ptr_eq(&self.index, &other.index)
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

    /// The interfaces of one bridge.
    pub fn plugged_into<'a>(&'a self, bridge: &'a Bridge) -> impl Iterator<Item = Plugged<'a>> {
        let ports = bridge.ports.iter().filter_map(|uuid| self.ports.get(uuid));
        ports.flat_map(move |port| {
            let interfaces = port.interfaces.iter().filter_map(|uuid| self.interfaces.get(uuid));
            interfaces.map(move |interface| Plugged { bridge, port, interface })
        })
    }

    /// The interfaces of one bridge that are neither guests' nor a mirror's output.
    pub fn leading_on<'a>(&'a self, bridge: &Bridge) -> impl Iterator<Item = Plugged<'a>> {
        let places = self.index.leading_on.get(&bridge.name).into_iter().flatten();
        places.filter_map(|place| self.at(place))
    }

    /// The VLANs into which mirrors copy the bridge's frames.
    pub fn copied_into<'a>(&'a self, bridge: &'a Bridge) -> impl Iterator<Item = u16> + 'a {
        let mirrors = bridge.mirrors.iter().filter_map(|uuid| self.mirrors.get(uuid));
        mirrors.filter(|mirror| mirror.output_port.is_none()).filter_map(|mirror| mirror.output_vlan)
    }

    /// Whether the port transmits a mirror's copies only.
    pub fn is_output_of_mirror(&self, plugged: Plugged<'_>) -> bool {
        let outputs = self.mirrors.values().filter_map(|mirror| mirror.output_port.as_ref());
        outputs.filter_map(|uuid| self.ports.get(uuid)).any(|port| port.name == plugged.port.name)
    }

    /// The vhost-user interfaces of all bridges.
    pub fn vhost_user(&self) -> impl Iterator<Item = Plugged<'_>> {
        self.index.vhost_user.iter().filter_map(|place| self.at(place))
    }

    /// The interfaces with this `external_ids:iface-id`.
    pub fn of_interface_id(&self, id: &str) -> impl Iterator<Item = Plugged<'_>> {
        self.with_id(IFACE_ID, id.to_ascii_lowercase())
    }

    /// The interfaces with this `external_ids:attached-mac`.
    pub fn of_mac(&self, mac: MacAddr) -> impl Iterator<Item = Plugged<'_>> {
        self.with_id(ATTACHED_MAC, mac.to_string())
    }

    /// The interfaces of this VM (`external_ids:vm-id`, its UUID), as os-vif and libvirt write them.
    pub fn of_vm(&self, uuid: &str) -> impl Iterator<Item = Plugged<'_>> {
        self.with_id(VM_ID, uuid.to_ascii_lowercase())
    }

    fn with_id(&self, key: &'static str, id: String) -> impl Iterator<Item = Plugged<'_>> {
        let places = self.index.by_id.get(&id).into_iter().flatten();
        let has_it = move |p: &Plugged<'_>| {
            p.interface.external_ids.get(key).is_some_and(|value| value.eq_ignore_ascii_case(&id))
        };
        places.filter_map(|place| self.at(place)).filter(has_it)
    }

    /// A port of the bridge that shows that neutron's agent configures it: one that the agent has marked, or its patch to
    /// another bridge.
    pub fn marked_by_neutron(&self, bridge: &str) -> Option<&str> {
        self.index.neutrons.get(bridge).map(String::as_str)
    }

    /// The names of the internal ports of all bridges.
    pub fn internals(&self) -> impl Iterator<Item = &str> {
        self.index.internals.iter().map(String::as_str)
    }

    /// The ports of all bridges that have several interfaces.
    pub fn bonds(&self) -> impl Iterator<Item = &Port> {
        self.index.bonds.iter().filter_map(|uuid| self.ports.get(uuid))
    }

    /// Open vSwitch offloads flows to NICs (`other_config:hw-offload`).
    pub fn offloads(&self) -> bool {
        self.other_config.get("hw-offload").is_some_and(|on| on == "true")
    }

    /// The interface of this name, if a bridge has it.
    pub fn named(&self, name: &str) -> Option<Plugged<'_>> {
        self.at(self.index.by_name.get(name)?)
    }

    /// A bridge's port by its own name, which may differ from that of its interface.
    pub fn port_of(&self, bridge: &str, port: &str) -> Option<Plugged<'_>> {
        self.at(self.index.by_port.get(bridge)?.get(port)?)
    }

    /// The other end of a patch port.
    pub fn peer_of(&self, patch: &Interface) -> Option<Plugged<'_>> {
        if patch.kind != "patch" {
            return None;
        }
        self.named(patch.options.get("peer")?)
    }
}

impl Index {
    fn of(ovs: &Ovs) -> Index {
        let bonds = ovs.ports.iter().filter(|(_, port)| port.interfaces.len() > 1);
        let mut index = Index { bonds: bonds.map(|(uuid, _)| uuid.clone()).collect(), ..Index::default() };
        // What such a port gets, it gets whether the bridge forwards the frame or drops it, and of those that are forwarded nothing else.
        let outputs: HashSet<&Uuid> =
            ovs.mirrors.values().filter_map(|mirror| mirror.output_port.as_ref()).collect();
        for (place, plugged) in ovs.plugged() {
            let leads_on = !plugged.interface.is_guests() && !outputs.contains(&place[1]);
            index.add(place, plugged, leads_on);
        }
        index
    }

    fn add(&mut self, place: Place, Plugged { bridge, port, interface }: Plugged<'_>, leads_on: bool) {
        if interface.is_vhost_user() {
            self.vhost_user.push(place.clone());
        }
        if interface.kind == "internal" {
            self.internals.push(interface.name.clone());
        }
        if leads_on {
            self.leading_on.entry(bridge.name.clone()).or_default().push(place.clone());
        }
        for key in [IFACE_ID, ATTACHED_MAC, VM_ID] {
            if let Some(id) = interface.external_ids.get(key) {
                self.by_id.entry(id.to_ascii_lowercase()).or_default().push(place.clone());
            }
        }
        if is_of_neutrons_agent(port, interface) {
            self.neutrons.entry(bridge.name.clone()).or_insert_with(|| port.name.clone());
        }
        // Of rows with the same name, which a valid database does not have, the first one counts.
        let ports = self.by_port.entry(bridge.name.clone()).or_default();
        ports.entry(port.name.clone()).or_insert_with(|| place.clone());
        self.by_name.entry(interface.name.clone()).or_insert(place);
    }
}
