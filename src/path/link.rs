//! The host's network devices, as rtnetlink reports them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use ipnet::IpNet;

use crate::path::changes::Changes;
use crate::path::tunnel::TunnelDevice;

/// libvirt gives a tap the NIC's address with this first byte (`virNetDevTapCreateInBridgePort`).
pub(super) const LIBVIRT_TAP: u8 = 0xfe;

/// A network device (`include/uapi/linux/if_link.h`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Link {
    /// Its ifindex in this network namespace.
    pub index: u32,
    /// `IFLA_IFNAME`.
    pub name: String,
    /// `IFLA_ADDRESS`, if it is an Ethernet address.
    pub address: Option<[u8; 6]>,
    /// `IFF_UP`: administratively up.
    pub up: bool,
    /// `IFF_LOWER_UP`: has a carrier.
    pub lower_up: bool,
    /// `IFLA_INFO_KIND`: bridge, tun, veth, macvtap, …; `None` for a physical device.
    pub kind: Option<String>,
    /// A device on a bus is behind it (`IFLA_PARENT_DEV_NAME` since Linux 5.14; before, sysfs' `device`): it is a NIC.
    pub has_hardware: bool,
    /// `IFLA_PHYS_PORT_NAME` names a virtual function (`pf0vf3`, `pf0sf1`): it represents a guest's NIC.
    pub is_representor: bool,
    /// `IFLA_MASTER`: the ifindex of the bridge or bond that it is a port of.
    pub master: Option<u32>,
    /// `IFLA_LINK`: the ifindex of a veth's peer or a stacked device's lower device, if it is in this namespace.
    pub link: Option<u32>,
    /// `IFLA_LINK_NETNSID`: the peer or lower device is in another namespace.
    pub link_is_elsewhere: bool,
    /// `IFLA_VLAN_ID` of a VLAN device.
    pub vlan_id: Option<u16>,
    /// `IFLA_BOND_ACTIVE_SLAVE`: the ifindex of the member by which a bond transmits, where there is one such.
    pub active_member: Option<u32>,
    /// Set for a device that encapsulates Ethernet frames in a way that is understood.
    pub tunnel: Option<TunnelDevice>,
    /// Set for a bridge.
    pub bridge: Option<Bridge>,
    /// Set for a port of a bridge.
    pub port: Option<BridgePort>,
    /// The VLAN of untagged frames from a bridge's port (`BRIDGE_VLAN_INFO_PVID` in its `IFLA_BRIDGE_VLAN_INFO`s).
    pub pvid: Option<u16>,
    /// The VLANs of a bridge's port, or of the bridge itself.
    pub vlans: Vec<PortVlans>,
    /// Those in which the port does not forward (`BRIDGE_VLANDB_ENTRY_STATE`), with its state there.
    pub held_vlans: BTreeMap<u16, PortState>,
}

/// A range of VLANs of a bridge's port (`struct bridge_vlan_info`, `include/uapi/linux/if_bridge.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortVlans {
    /// The first VLAN.
    pub first: u16,
    /// The last VLAN; equal to `first` for a single VLAN.
    pub last: u16,
    /// `BRIDGE_VLAN_INFO_UNTAGGED`: frames leave by the port without a tag.
    pub untagged: bool,
}

/// The attributes of a bridge (`IFLA_BR_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bridge {
    /// `IFLA_BR_VLAN_FILTERING`.
    pub vlan_filtering: bool,
    /// `BR_BOOLOPT_MST_ENABLE` of `IFLA_BR_MULTI_BOOLOPT`: a port has a state in each VLAN, and its own does not count.
    pub mst: bool,
}

/// The attributes of a bridge port (`IFLA_BRPORT_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BridgePort {
    /// `IFLA_BRPORT_STATE`.
    pub state: PortState,
    /// `IFLA_BRPORT_MODE`: hairpin, frames may leave by the port by which they entered.
    pub hairpin: bool,
    /// `IFLA_BRPORT_ISOLATED`: isolated ports do not forward to each other.
    pub isolated: bool,
    /// `IFLA_BRPORT_LOCKED`: frames are accepted only from addresses that the FDB has behind the port.
    pub locked: bool,
    /// `IFLA_BRPORT_BCAST_FLOOD`.
    pub bcast_flood: bool,
    /// `IFLA_BRPORT_MCAST_FLOOD`.
    pub mcast_flood: bool,
    /// `IFLA_BRPORT_NEIGH_SUPPRESS`: gratuitous ARP and unsolicited neighbour advertisements are not flooded to it.
    pub neigh_suppress: bool,
}

impl Default for BridgePort {
    /// A port with default settings that does not forward yet.
    fn default() -> Self {
        BridgePort {
            state: PortState::Disabled,
            hairpin: false,
            isolated: false,
            locked: false,
            bcast_flood: true,
            mcast_flood: true,
            neigh_suppress: false,
        }
    }
}

/// The state of a bridge port (`include/uapi/linux/if_bridge.h`, `BR_STATE_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PortState {
    /// Does not forward: down, or without a carrier.
    #[default]
    Disabled,
    /// Takes part in the spanning tree, does not learn or forward.
    Listening,
    /// Learns addresses, does not forward.
    Learning,
    /// Forwards.
    Forwarding,
    /// Blocked by the spanning tree.
    Blocking,
}

impl PortState {
    /// The state with this number (`BR_STATE_*`); those that are unknown do not forward.
    pub fn of(number: u8) -> PortState {
        match number {
            1 => PortState::Listening,
            2 => PortState::Learning,
            3 => PortState::Forwarding,
            4 => PortState::Blocking,
            _ => PortState::Disabled,
        }
    }

    /// The kernel's name for it, as `ip -d link` shows it.
    pub fn word(self) -> &'static str {
        match self {
            PortState::Disabled => "disabled",
            PortState::Listening => "listening",
            PortState::Learning => "learning",
            PortState::Forwarding => "forwarding",
            PortState::Blocking => "blocking",
        }
    }
}

/// Every device of a network namespace.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Links {
    by_index: BTreeMap<u32, Link>,
    by_name: HashMap<String, u32>,
    /// By the index of a master: its guests' ports and its other ports.
    ports: HashMap<u32, Ports>,
    /// By the index of a lower device: the devices stacked on it.
    stacked: HashMap<u32, BTreeSet<u32>>,
    /// By index: this host's addresses on the device, with their prefix lengths.
    addresses: HashMap<u32, BTreeSet<(IpAddr, u8)>>,
    /// What has changed.
    changes: Changes,
}

/// The ports of one bridge or bond, by index.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Ports {
    guests: BTreeSet<u32>,
    others: BTreeSet<u32>,
}

impl Links {
    /// The device with this index.
    pub fn get(&self, index: u32) -> Option<&Link> {
        self.by_index.get(&index)
    }

    /// Every device.
    pub fn all(&self) -> impl Iterator<Item = &Link> {
        self.by_index.values()
    }

    /// The device with this name.
    pub fn named(&self, name: &str) -> Option<&Link> {
        self.by_name.get(name).and_then(|index| self.get(*index))
    }

    /// The ports of a bridge or bond that are no guests', by index.
    pub fn leading_on(&self, master: u32) -> impl Iterator<Item = &Link> {
        let ports = self.ports.get(&master).into_iter().flat_map(|ports| &ports.others);
        ports.filter_map(|index| self.get(*index))
    }

    /// The ports of a bridge that are taps, macvtaps or representors, by index.
    pub fn taps_of(&self, bridge: u32) -> impl Iterator<Item = &Link> {
        let ports = self.ports.get(&bridge).into_iter().flat_map(|ports| &ports.guests);
        ports.filter_map(|index| self.get(*index))
    }

    /// The devices stacked on this one (VLAN devices, macvlans, …), by index.
    pub fn stacked_on(&self, lower: u32) -> impl Iterator<Item = &Link> {
        let stacked = self.stacked.get(&lower).into_iter().flatten();
        stacked.filter_map(|index| self.get(*index))
    }

    /// What has changed: the ports of guests by their devices' names.
    pub fn changes(&self) -> &Changes {
        &self.changes
    }

    /// Takes the devices of another list in place of these.
    pub fn replace(&mut self, links: Links) {
        let mut changes = std::mem::take(&mut self.changes);
        changes.everything();
        *self = Links { changes, ..links };
    }

    /// Adds a device, or replaces the one with its index.
    pub fn insert(&mut self, link: Link) {
        let before = self.get(link.index).filter(|before| **before != link).cloned();
        if before.is_some() || self.get(link.index).is_none() {
            before.iter().chain([&link]).for_each(|link| self.note(link));
        }
        self.put(link);
    }

    fn put(&mut self, link: Link) {
        let name = self.get(link.index).map(|known| known.name.clone());
        match name {
            Some(name) if name == link.name => self.unlink(link.index),
            Some(_) => drop(self.take(link.index)),
            None => {}
        }
        self.by_name.insert(link.name.clone(), link.index);
        self.relink(&link);
        self.by_index.insert(link.index, link);
    }

    /// Removes a device and returns it.
    pub fn remove(&mut self, index: u32) -> Option<Link> {
        let removed = self.take(index);
        removed.iter().for_each(|link| self.note(link));
        removed
    }

    /// Notes a change from or to this state of a device.
    fn note(&mut self, link: &Link) {
        if !link.is_one_guests() || self.stacked_on(link.index).next().is_some() {
            return self.changes.everything();
        }
        self.changes.port(&link.name);
    }

    fn take(&mut self, index: u32) -> Option<Link> {
        self.unlink(index);
        self.addresses.remove(&index);
        let link = self.by_index.remove(&index)?;
        // Another device may have taken the name in the meantime.
        if self.by_name.get(&link.name) == Some(&index) {
            self.by_name.remove(&link.name);
        }
        Some(link)
    }

    /// The device with this index, to change fields that no index depends on.
    #[cfg(test)]
    pub fn get_mut(&mut self, index: u32) -> Option<&mut Link> {
        self.by_index.get_mut(&index)
    }

    /// Changes the device with this index, except for its name; returns the result of `change`, or `None` without such a
    /// device.
    pub fn change<T>(&mut self, index: u32, change: impl FnOnce(&mut Link) -> T) -> Option<T> {
        self.unlink(index);
        let mut link = self.by_index.remove(&index)?;
        let before = link.clone();
        let done = change(&mut link);
        if link != before {
            [&before, &link].into_iter().for_each(|link| self.note(link));
        }
        self.relink(&link);
        self.by_index.insert(index, link);
        Some(done)
    }

    /// This host has an address on the device. Link-local addresses do not count.
    pub fn has_address(&self, index: u32) -> bool {
        self.addresses.get(&index).is_some_and(|addresses| !addresses.is_empty())
    }

    /// This host's addresses on the device with their prefix lengths, without link-local ones.
    pub fn addresses(&self, index: u32) -> impl Iterator<Item = IpNet> {
        let addresses = self.addresses.get(&index).into_iter().flatten();
        addresses.filter_map(|(address, length)| IpNet::new(*address, *length).ok())
    }

    /// Adds or removes an address of a device; returns whether that changed anything.
    pub fn address(&mut self, index: u32, address: (IpAddr, u8), is_there: bool) -> bool {
        let is_link_local = match address.0 {
            IpAddr::V4(address) => address.is_link_local(),
            IpAddr::V6(address) => address.is_unicast_link_local(),
        };
        if is_link_local {
            return false;
        }
        let addresses = self.addresses.entry(index).or_default();
        let changed = if is_there { addresses.insert(address) } else { addresses.remove(&address) };
        // The removal of a device's last address may be reported after the removal of the device.
        if addresses.is_empty() {
            self.addresses.remove(&index);
        }
        if changed {
            self.changes.everything();
        }
        changed
    }

    fn unlink(&mut self, index: u32) {
        let Some(link) = self.by_index.get(&index) else {
            return;
        };
        if let Some(ports) = link.master.and_then(|master| self.ports.get_mut(&master)) {
            ports.guests.remove(&index);
            ports.others.remove(&index);
        }
        if let Some(stacked) = link.link.and_then(|lower| self.stacked.get_mut(&lower)) {
            stacked.remove(&index);
        }
    }

    fn relink(&mut self, link: &Link) {
        if let Some(master) = link.master {
            let ports = self.ports.entry(master).or_default();
            let side = if link.is_guests() { &mut ports.guests } else { &mut ports.others };
            side.insert(link.index);
        }
        if let Some(lower) = link.link.filter(|_| !link.is("veth")) {
            self.stacked.entry(lower).or_default().insert(link.index);
        }
    }
}

impl FromIterator<Link> for Links {
    fn from_iter<I: IntoIterator<Item = Link>>(links: I) -> Self {
        let mut all = Links::default();
        links.into_iter().for_each(|link| all.insert(link));
        all
    }
}

impl Link {
    /// Whether its kind is `kind`.
    pub fn is(&self, kind: &str) -> bool {
        self.kind.as_deref() == Some(kind)
    }

    /// Whether it is the host's end of a guest's NIC, or of another program's.
    pub fn is_guests(&self) -> bool {
        self.is("tun") || self.is("macvtap") || self.is_representor
    }

    /// It is on the path of one guest only: a tap or macvtap. A tap in a bridge that libvirt has not made may lead to another program,
    /// which is a way out for every guest of the bridge.
    pub fn is_one_guests(&self) -> bool {
        let is_libvirts = self.address.is_some_and(|address| address[0] == LIBVIRT_TAP);
        match self.kind.as_deref() {
            Some("tun") => self.master.is_none() || is_libvirts,
            Some("macvtap") => self.master.is_none(),
            _ => false,
        }
    }

    /// The state of a bridge's port in one VLAN.
    pub fn vlan_state(&self, vlan: u16) -> PortState {
        self.held_vlans.get(&vlan).copied().unwrap_or(PortState::Forwarding)
    }

    /// The VLAN range of a bridge's port, or of the bridge itself, that contains `vlan`.
    pub fn in_vlan(&self, vlan: u16) -> Option<PortVlans> {
        self.vlans.iter().copied().find(|range| (range.first..=range.last).contains(&vlan))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32, name: &str) -> Link {
        Link { index, name: name.into(), ..Link::default() }
    }

    #[test]
    fn a_device_is_found_by_the_name_that_it_has_now() {
        let mut links: Links = [link(1, "tap0"), link(2, "tap1")].into_iter().collect();
        links.insert(link(1, "old"));
        links.insert(link(2, "tap0"));
        let index = |links: &Links, name: &str| links.named(name).map(|link| link.index);
        assert_eq!(["old", "tap0", "tap1"].map(|name| index(&links, name)), [Some(1), Some(2), None]);
        links.remove(2);
        assert_eq!(["old", "tap0"].map(|name| index(&links, name)), [Some(1), None]);
    }

    #[test]
    fn the_ports_of_a_bridge_are_up_to_date() {
        let port = |index: u32, kind: &str| {
            let kind = Some(kind.to_owned());
            Link { kind, master: Some(9), ..link(index, &format!("port{index}")) }
        };
        let mut links: Links = [port(1, "tun"), port(2, "veth"), port(3, "macvtap")].into_iter().collect();
        let ports = |links: &Links| links.leading_on(9).map(|link| link.index).collect::<Vec<_>>();
        assert_eq!(ports(&links), [2]);
        links.insert(port(4, "bond"));
        assert_eq!(ports(&links), [2, 4]);
        links.change(2, |link| link.master = None);
        assert_eq!(ports(&links), [4]);
        links.remove(4);
        assert_eq!(ports(&links), [0; 0]);
    }

    #[test]
    fn a_name_stays_with_the_device_that_took_it() {
        let mut links: Links = [link(1, "tap0"), link(2, "tap0")].into_iter().collect();
        links.remove(1);
        assert_eq!(links.named("tap0").map(|link| link.index), Some(2));
    }
}
