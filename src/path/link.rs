//! The host's network devices, as rtnetlink tells of them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use ipnet::IpNet;

/// A network device (`include/uapi/linux/if_link.h`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Link {
    /// Its index in this network namespace.
    pub index: u32,
    /// `IFLA_IFNAME`.
    pub name: String,
    /// `IFLA_ADDRESS`, where that is an Ethernet address.
    pub address: Option<[u8; 6]>,
    /// `IFF_UP`: switched on.
    pub up: bool,
    /// `IFF_LOWER_UP`: it has a carrier.
    pub lower_up: bool,
    /// `IFLA_INFO_KIND`: bridge, tun, veth, macvtap, …; none for a physical device.
    pub kind: Option<String>,
    /// A device of a bus stands behind it (`IFLA_PARENT_DEV_NAME`, from Linux 5.14; sysfs' `device` before): it is a NIC.
    pub has_hardware: bool,
    /// `IFLA_PHYS_PORT_NAME` says that it stands for a virtual function of a NIC (`pf0vf3`, `pf0sf1`): a guest's end.
    pub is_representor: bool,
    /// `IFLA_MASTER`: the index of the bridge or bond that it is a port of.
    pub master: Option<u32>,
    /// `IFLA_LINK`: the index of a veth's peer or of a stacked device's lower device, when it is in this namespace.
    pub link: Option<u32>,
    /// `IFLA_LINK_NETNSID`: that device is in another namespace.
    pub link_is_elsewhere: bool,
    /// `IFLA_VLAN_ID`, of a VLAN device.
    pub vlan_id: Option<u16>,
    /// Set on a bridge.
    pub bridge: Option<Bridge>,
    /// Set on a port of a bridge.
    pub port: Option<BridgePort>,
    /// The VLAN of untagged frames from a bridge's port (`BRIDGE_VLAN_INFO_PVID` in its `IFLA_BRIDGE_VLAN_INFO`s).
    pub pvid: Option<u16>,
    /// The VLANs that a bridge's port, or the bridge itself, is in.
    pub vlans: Vec<PortVlans>,
}

/// VLANs that a bridge's port is in (`struct bridge_vlan_info`, `include/uapi/linux/if_bridge.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortVlans {
    /// The first one.
    pub first: u16,
    /// The last one: `first`, unless it is a range.
    pub last: u16,
    /// `BRIDGE_VLAN_INFO_UNTAGGED`: frames leave by the port without their tag.
    pub untagged: bool,
}

/// What a bridge says of itself (`IFLA_BR_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bridge {
    /// `IFLA_BR_VLAN_FILTERING`.
    pub vlan_filtering: bool,
}

/// What a bridge says of a port (`IFLA_BRPORT_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BridgePort {
    /// `IFLA_BRPORT_STATE`.
    pub state: PortState,
    /// `IFLA_BRPORT_MODE`: hairpin, frames may go back by the port that they came in by.
    pub hairpin: bool,
    /// `IFLA_BRPORT_ISOLATED`: nothing passes between two such ports.
    pub isolated: bool,
    /// `IFLA_BRPORT_LOCKED`: frames come in only from addresses that the bridge knows behind the port.
    pub locked: bool,
    /// `IFLA_BRPORT_BCAST_FLOOD`.
    pub bcast_flood: bool,
    /// `IFLA_BRPORT_MCAST_FLOOD`.
    pub mcast_flood: bool,
    /// `IFLA_BRPORT_NEIGH_SUPPRESS`: gratuitous ARP and unsolicited neighbour advertisements are not flooded there.
    pub neigh_suppress: bool,
}

impl Default for BridgePort {
    /// A port that nobody has configured, and that does not forward yet.
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

/// The spanning tree's state of a port (`include/uapi/linux/if_bridge.h`, `BR_STATE_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PortState {
    /// Forwards nothing: down, or without a carrier.
    #[default]
    Disabled,
    /// Listens for the spanning tree.
    Listening,
    /// Learns addresses, forwards nothing yet.
    Learning,
    /// Carries traffic.
    Forwarding,
    /// Kept shut by the spanning tree.
    Blocking,
}

impl PortState {
    /// The kernel's word for it, as `ip -d link` shows it.
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
    /// By the index of a master: its ports that are guests', and its other ones.
    ports: HashMap<u32, Ports>,
    /// By the index of a lower device: the devices that are stacked on it.
    stacked: HashMap<u32, BTreeSet<u32>>,
    /// By index: the addresses of this host there, each with its length.
    addresses: HashMap<u32, BTreeSet<(IpAddr, u8)>>,
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

    /// The device with this name.
    pub fn named(&self, name: &str) -> Option<&Link> {
        self.by_name.get(name).and_then(|index| self.get(*index))
    }

    /// The ports of a bridge or bond that do not lead to a guest, by index.
    pub fn leading_on(&self, master: u32) -> impl Iterator<Item = &Link> {
        let ports = self.ports.get(&master).into_iter().flat_map(|ports| &ports.others);
        ports.filter_map(|index| self.get(*index))
    }

    /// The ports of a bridge that are taps, macvtaps or representors, by index.
    pub fn taps_of(&self, bridge: u32) -> impl Iterator<Item = &Link> {
        let ports = self.ports.get(&bridge).into_iter().flat_map(|ports| &ports.guests);
        ports.filter_map(|index| self.get(*index))
    }

    /// The devices that are stacked on this one: VLAN devices, macvlans, …, by index.
    pub fn stacked_on(&self, lower: u32) -> impl Iterator<Item = &Link> {
        let stacked = self.stacked.get(&lower).into_iter().flatten();
        stacked.filter_map(|index| self.get(*index))
    }

    /// Adds a device, or replaces what was known of it.
    pub fn insert(&mut self, link: Link) {
        let name = self.get(link.index).map(|known| known.name.clone());
        match name {
            Some(name) if name == link.name => self.unlink(link.index),
            Some(_) => drop(self.remove(link.index)),
            None => {}
        }
        self.by_name.insert(link.name.clone(), link.index);
        self.relink(&link);
        self.by_index.insert(link.index, link);
    }

    /// Forgets a device, and returns what was known of it.
    pub fn remove(&mut self, index: u32) -> Option<Link> {
        self.unlink(index);
        self.addresses.remove(&index);
        let link = self.by_index.remove(&index)?;
        // Another device may have taken the name meanwhile.
        if self.by_name.get(&link.name) == Some(&index) {
            self.by_name.remove(&link.name);
        }
        Some(link)
    }

    /// The device with this index, to change what no index depends on.
    #[cfg(test)]
    pub fn get_mut(&mut self, index: u32) -> Option<&mut Link> {
        self.by_index.get_mut(&index)
    }

    /// Changes anything but the name of the device with this index; returns what `change` does, if there is such a device.
    pub fn change<T>(&mut self, index: u32, change: impl FnOnce(&mut Link) -> T) -> Option<T> {
        self.unlink(index);
        let mut link = self.by_index.remove(&index)?;
        let done = change(&mut link);
        self.relink(&link);
        self.by_index.insert(index, link);
        Some(done)
    }

    /// This host has an address on the device; link-local ones do not count.
    pub fn has_address(&self, index: u32) -> bool {
        self.addresses.get(&index).is_some_and(|addresses| !addresses.is_empty())
    }

    /// The addresses of this host on the device, with their prefixes; none that are link-local.
    pub fn addresses(&self, index: u32) -> impl Iterator<Item = IpNet> {
        let addresses = self.addresses.get(&index).into_iter().flatten();
        addresses.filter_map(|(address, length)| IpNet::new(*address, *length).ok())
    }

    /// Adds an address to a device, or takes it away; tells whether that changed anything.
    pub fn address(&mut self, index: u32, address: (IpAddr, u8), is_there: bool) -> bool {
        let is_link_local = match address.0 {
            IpAddr::V4(address) => address.is_link_local(),
            IpAddr::V6(address) => address.is_unicast_link_local(),
        };
        if is_link_local {
            return false;
        }
        if is_there {
            return self.addresses.entry(index).or_default().insert(address);
        }
        let Some(addresses) = self.addresses.get_mut(&index) else {
            return false;
        };
        let was_there = addresses.remove(&address);
        // A device's last address may be told to have gone after the device.
        if addresses.is_empty() {
            self.addresses.remove(&index);
        }
        was_there
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

    /// A port of a bridge, or the bridge itself, is in this VLAN: whether frames leave it without their tag.
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
    fn ports_that_lead_on_are_those_of_now() {
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
    fn a_name_that_another_device_has_taken_stays_that_ones() {
        let mut links: Links = [link(1, "tap0"), link(2, "tap0")].into_iter().collect();
        links.remove(1);
        assert_eq!(links.named("tap0").map(|link| link.index), Some(2));
    }
}
