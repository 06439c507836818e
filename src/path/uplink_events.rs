//! What happens to the devices by which guests' frames leave the host: a bond transmits by another member, a carrier comes back,
//! a bridge gets another uplink. The switches beyond have not heard of the guests there.

use std::collections::{BTreeMap, BTreeSet};

use crate::path::link::{Link, Links};
use crate::path::ovs::Ovs;
use crate::path::uplinks::Uplinks;

/// The uplinks, as they were seen last.
#[derive(Debug, Default)]
pub(crate) struct UplinkStates {
    devices: BTreeMap<u32, Device>,
    /// By bridge: its uplinks, as long as it had some.
    of_bridges: BTreeMap<String, BTreeSet<String>>,
    /// By port: the active member of a bond of Open vSwitch.
    ovs_bonds: BTreeMap<String, String>,
}

#[derive(Debug)]
struct Device {
    name: String,
    /// The last member by which a bond transmitted.
    active: Option<u32>,
    /// It had a carrier before.
    was_up: bool,
    is_up: bool,
}

/// Which uplinks count.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wanted {
    /// Those that the configuration names.
    pub uplinks: Uplinks,
    /// Bonds of Open vSwitch, too.
    pub ovs_bonds: bool,
}

impl UplinkStates {
    /// The devices, and the ports of Open vSwitch, that have changed since the last look. Of what is new, nothing has.
    pub(crate) fn look(&mut self, links: &Links, ovs: &Ovs, wanted: &Wanted) -> BTreeSet<String> {
        let mut changed = BTreeSet::new();
        let mut known = std::mem::take(&mut self.devices);
        for link in links.all().filter(|link| is_uplink(link, &wanted.uplinks)) {
            let before = known.remove(&link.index).filter(|before| before.name == link.name);
            let is_up = link.up && link.lower_up;
            let now = Device {
                name: link.name.clone(),
                active: link.active_member.or(before.as_ref().and_then(|before| before.active)),
                was_up: is_up || before.as_ref().is_some_and(|before| before.was_up),
                is_up,
            };
            // What happens to a member of a bond is the bond's affair.
            if !is_member(link, links, ovs) && before.is_some_and(|before| before.differs(&now)) {
                changed.insert(now.name.clone());
            }
            self.devices.insert(link.index, now);
        }
        changed.extend(self.new_uplinks(links, ovs, wanted));
        changed.extend(self.failed_over(ovs).into_iter().filter(|_| wanted.ovs_bonds));
        changed
    }

    /// The uplinks that bridges have got which had others.
    fn new_uplinks(&mut self, links: &Links, ovs: &Ovs, wanted: &Wanted) -> Vec<String> {
        let mut now: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for link in links.all().filter(|link| is_uplink(link, &wanted.uplinks)) {
            let master = link.master.and_then(|index| links.get(index)).filter(|master| master.is("bridge"));
            let bridge = master.map(|master| master.name.clone());
            let bridge = bridge.or_else(|| ovs.named(&link.name).map(|port| port.bridge.name.clone()));
            if let Some(bridge) = bridge {
                now.entry(bridge).or_default().insert(link.name.clone());
            }
        }
        let mut new = Vec::new();
        for (bridge, uplinks) in now {
            if let Some(before) = self.of_bridges.get(&bridge) {
                new.extend(uplinks.difference(before).cloned());
            }
            self.of_bridges.insert(bridge, uplinks);
        }
        new
    }

    /// The bonds of Open vSwitch that transmit by another member.
    fn failed_over(&mut self, ovs: &Ovs) -> Vec<String> {
        let mut changed = Vec::new();
        for port in ovs.bonds() {
            let Some(active) = &port.bond_active_slave else {
                continue;
            };
            let before = self.ovs_bonds.insert(port.name.clone(), active.clone());
            if before.is_some_and(|before| before != *active) {
                changed.push(port.name.clone());
            }
        }
        changed
    }
}

impl Device {
    fn differs(&self, now: &Device) -> bool {
        let is_back = self.was_up && !self.is_up && now.is_up;
        let has_failed_over = self.active.is_some() && self.active != now.active;
        is_back || has_failed_over
    }
}

/// It leads out of the host: a NIC, a bond, a device that the configuration names, or a VLAN device.
fn is_uplink(link: &Link, named: &Uplinks) -> bool {
    let is_nic = link.has_hardware && !link.is_representor;
    is_nic || link.is("bond") || link.is("team") || link.is("vlan") || named.has(&link.name)
}

fn is_member(link: &Link, links: &Links, ovs: &Ovs) -> bool {
    let master = link.master.and_then(|index| links.get(index));
    let in_bond = master.is_some_and(|master| master.is("bond") || master.is("team"));
    in_bond || ovs.named(&link.name).is_some_and(|port| port.port.interfaces.len() > 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path::attachment::tests::{link, ovs};

    /// A bond of eth0 and eth1 in br0, beside eth2 with the master `of_eth2`.
    fn host(active: u32, is_up: bool, of_eth2: u32) -> Links {
        let nic = |index, name, master| Link {
            has_hardware: true,
            up: true,
            lower_up: true,
            ..link(index, name, "", master, 0)
        };
        let bond = Link {
            active_member: Some(active).filter(|index| *index > 0),
            up: true,
            lower_up: is_up,
            ..link(2, "bond0", "bond", 1, 0)
        };
        let member = |index, name| Link { lower_up: is_up, ..nic(index, name, 2) };
        Links::from_iter([
            link(1, "br0", "bridge", 0, 0),
            bond,
            member(3, "eth0"),
            member(4, "eth1"),
            nic(5, "eth2", of_eth2),
        ])
    }

    fn look(states: &mut UplinkStates, links: &Links) -> Vec<String> {
        states.look(links, &Ovs::default(), &Wanted::default()).into_iter().collect()
    }

    #[test]
    fn a_bond_fails_over_when_it_transmits_by_another_member() {
        let mut states = UplinkStates::default();
        assert_eq!(look(&mut states, &host(3, true, 0)), [""; 0], "the first look");
        assert_eq!(look(&mut states, &host(3, true, 0)), [""; 0]);
        assert_eq!(look(&mut states, &host(4, true, 0)), ["bond0"]);
        assert_eq!(look(&mut states, &host(0, true, 0)), [""; 0], "it has none");
        assert_eq!(look(&mut states, &host(4, true, 0)), [""; 0], "the same as before");
        assert_eq!(look(&mut states, &host(0, true, 0)), [""; 0]);
        assert_eq!(look(&mut states, &host(3, true, 0)), ["bond0"], "by way of none");
    }

    #[test]
    fn a_carrier_comes_back_once_for_a_bond_and_its_members() {
        let mut states = UplinkStates::default();
        assert_eq!(look(&mut states, &host(3, false, 0)), [""; 0]);
        assert_eq!(look(&mut states, &host(3, true, 0)), [""; 0], "the first carrier");
        assert_eq!(look(&mut states, &host(3, false, 0)), [""; 0]);
        assert_eq!(look(&mut states, &host(3, true, 0)), ["bond0"]);
    }

    #[test]
    fn a_bridge_gets_another_uplink() {
        let mut states = UplinkStates::default();
        assert_eq!(look(&mut states, &host(3, true, 0)), [""; 0]);
        assert_eq!(look(&mut states, &host(3, true, 1)), ["eth2"]);
        assert_eq!(look(&mut states, &host(3, true, 1)), [""; 0]);
    }

    #[test]
    fn a_bond_of_open_vswitch_counts_if_wanted() {
        let mut ovs = ovs(&[("br-ex", &["eth0"])]);
        let mut fail_over = |states: &mut UplinkStates, to: &str, ovs_bonds| {
            if let Some(port) = ovs.ports.get_mut("p-eth0") {
                port.interfaces = vec!["i-eth0".into(), "i-eth1".into()];
                port.bond_active_slave = Some(to.into());
            }
            ovs.reindex();
            let wanted = Wanted { ovs_bonds, ..Wanted::default() };
            states.look(&Links::default(), &ovs, &wanted).into_iter().collect::<Vec<_>>()
        };
        let mut states = UplinkStates::default();
        assert_eq!(fail_over(&mut states, "02:00:00:00:00:01", true), [""; 0]);
        assert_eq!(fail_over(&mut states, "02:00:00:00:00:02", true), ["eth0"]);
        assert_eq!(
            fail_over(&mut states, "02:00:00:00:00:01", false),
            [""; 0],
            "Open vSwitch tells it itself"
        );
    }
}
