//! The host's network devices, as rtnetlink tells of them.

use std::collections::{BTreeMap, HashMap};

use crate::path::memo::Memo;

/// A network device (`include/uapi/linux/if_link.h`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Link {
    /// Its index in this network namespace.
    pub index: u32,
    /// `IFLA_IFNAME`.
    pub name: String,
    /// `IFF_UP`: switched on.
    pub up: bool,
    /// `IFF_LOWER_UP`: it has a carrier.
    pub lower_up: bool,
    /// `IFLA_INFO_KIND`: bridge, tun, veth, macvtap, …; none for a physical device.
    pub kind: Option<String>,
    /// `IFLA_MASTER`: the index of the bridge or bond that it is a port of.
    pub master: Option<u32>,
    /// `IFLA_LINK`: the index of a veth's peer or of a macvtap's lower device, when it is in this namespace.
    pub link: Option<u32>,
    /// Set on a bridge.
    pub bridge: Option<Bridge>,
    /// Set on a port of a bridge.
    pub port: Option<BridgePort>,
    /// The VLAN of untagged frames from a bridge's port (`BRIDGE_VLAN_INFO_PVID` in its `IFLA_BRIDGE_VLAN_INFO`s).
    pub pvid: Option<u16>,
}

/// What a bridge says of itself (`IFLA_BR_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bridge {
    /// `IFLA_BR_VLAN_FILTERING`.
    pub vlan_filtering: bool,
}

/// What a bridge says of a port (`IFLA_BRPORT_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BridgePort {
    /// `IFLA_BRPORT_STATE`.
    pub state: PortState,
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
    /// By the master's index: its ports that are not guests'. Each announcement asks for them after each change.
    leading_on: Memo<HashMap<u32, Vec<u32>>>,
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

    /// The ports of a bridge or bond, by index.
    pub fn ports_of(&self, master: u32) -> impl Iterator<Item = &Link> {
        self.by_index.values().filter(move |link| link.master == Some(master))
    }

    /// The ports of a bridge that do not lead to a guest, by index.
    pub fn leading_on(&self, bridge: u32) -> impl Iterator<Item = &Link> {
        let ports = self.leading_on.get(|| {
            let mut ports: HashMap<u32, Vec<u32>> = HashMap::new();
            for link in self.by_index.values().filter(|link| !link.is_guests()) {
                if let Some(master) = link.master {
                    ports.entry(master).or_default().push(link.index);
                }
            }
            ports
        });
        ports.get(&bridge).into_iter().flatten().filter_map(|index| self.get(*index))
    }

    /// Adds a device, or replaces what was known of it.
    pub fn insert(&mut self, link: Link) {
        if self.get(link.index).is_none_or(|known| known.name != link.name) {
            self.remove(link.index);
            self.by_name.insert(link.name.clone(), link.index);
        }
        self.by_index.insert(link.index, link);
        self.leading_on = Memo::default();
    }

    /// Forgets a device, and returns what was known of it.
    pub fn remove(&mut self, index: u32) -> Option<Link> {
        let link = self.by_index.remove(&index)?;
        self.leading_on = Memo::default();
        // Another device may have taken the name meanwhile.
        if self.by_name.get(&link.name) == Some(&index) {
            self.by_name.remove(&link.name);
        }
        Some(link)
    }

    /// The device with this index, to change anything but its name.
    pub fn get_mut(&mut self, index: u32) -> Option<&mut Link> {
        self.leading_on = Memo::default();
        self.by_index.get_mut(&index)
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

    /// Whether it is the host's end of a guest's NIC.
    pub fn is_guests(&self) -> bool {
        self.is("tun") || self.is("macvtap")
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
        links.get_mut(2).unwrap().master = None;
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
