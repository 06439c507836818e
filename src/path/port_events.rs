//! What happens to the ports of guests that run: another bridge, the link up again, a sub-port more.

use std::collections::{BTreeMap, BTreeSet};

use crate::guest::event::Cause;
use crate::path::attachment;
use crate::path::link::{Link, Links};
use crate::path::ovs::{Ovs, Plugged};

/// Something that happened to a guest's port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PortEvent {
    /// The guest's device.
    pub device: String,
    /// The sub-port of its trunk that it is about, else the device itself.
    pub sub_port: Option<String>,
    /// What happened.
    pub cause: Cause,
}

/// The ports of guests, as they were seen last.
#[derive(Debug, Default)]
pub(crate) struct Ports(BTreeMap<String, Seen>);

/// A vhost-user port whose row is gone is forgotten after so many looks: it is moved by more than one transaction.
const MAX_LOOKS_WITHOUT_ROW: u32 = 1000;

#[derive(Debug)]
struct Seen {
    /// 0 for a vhost-user port, which has no device.
    ifindex: u32,
    place: Place,
    link: LinkState,
    sub_ports: BTreeSet<String>,
    /// Looks since its row was seen, for a vhost-user port.
    looks_without_row: u32,
}

/// Where a port was seen last.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Place {
    /// The bridge that it is on, of either kind.
    bridge: Option<String>,
    /// The bridge of Open vSwitch to which that one, a Linux bridge, is linked by a veth: a hybrid plug.
    beyond: Option<String>,
}

impl Place {
    /// Whether a port has moved from `before` to here. Between two bridges it may be on none.
    fn is_another_than(&self, before: &Place) -> bool {
        let differ = |now: &Option<String>, before: &Option<String>| {
            now.is_some() && before.is_some() && now != before
        };
        differ(&self.bridge, &before.bridge) || differ(&self.beyond, &before.beyond)
    }

    /// Where it was seen last, if it is on no bridge now.
    fn or(self, before: Place) -> Place {
        Place { bridge: self.bridge.or(before.bridge), beyond: self.beyond.or(before.beyond) }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LinkState {
    /// It has not been up yet: a guest that boots or arrives.
    New,
    Up,
    /// It was up before.
    Down,
}

impl Ports {
    /// What has happened since the last look. Of a device that is new, nothing has.
    pub(crate) fn look(&mut self, links: &Links, ovs: &Ovs) -> Vec<PortEvent> {
        let mut events = Vec::new();
        let mut known = std::mem::take(&mut self.0);
        for link in links.all().filter(|link| is_guests(link)) {
            let before = known.remove(&link.name);
            events.extend(self.look_at_device(link, before, links, ovs));
        }
        known.retain(|_, seen| seen.ifindex == 0);
        events.extend(self.look_at_vhost_user(known, ovs));
        events
    }

    /// The same where only the ports of guests by which these names lead have changed.
    pub(crate) fn look_at(&mut self, names: &BTreeSet<String>, links: &Links, ovs: &Ovs) -> Vec<PortEvent> {
        let is_simple = |name: &String| {
            let is_vhost_user = ovs.named(name).is_some_and(|port| port.interface.is_vhost_user());
            let was_vhost_user = self.0.get(name).is_some_and(|seen| seen.ifindex == 0);
            !is_vhost_user && !was_vhost_user
        };
        // A vhost-user row that is gone is looked for in all of them.
        if !names.iter().all(is_simple) {
            return self.look(links, ovs);
        }
        let mut events = Vec::new();
        for name in names {
            let before = self.0.remove(name);
            if let Some(link) = links.named(name).filter(|link| is_guests(link)) {
                events.extend(self.look_at_device(link, before, links, ovs));
            }
        }
        events
    }

    fn look_at_device(
        &mut self,
        link: &Link,
        before: Option<Seen>,
        links: &Links,
        ovs: &Ovs,
    ) -> Vec<PortEvent> {
        let mut events = Vec::new();
        let (place, is_up) = (place_of(link, links, ovs), link.up && link.lower_up);
        let sub_ports: BTreeSet<String> = attachment::sub_ports(&link.name, ovs)
            .filter(|port| port.interface.external_ids.contains_key("attached-mac"))
            .map(|port| port.interface.name.clone())
            .collect();
        let Some(before) = before.filter(|before| before.ifindex == link.index) else {
            let state = if is_up { LinkState::Up } else { LinkState::New };
            let seen = Seen { ifindex: link.index, place, link: state, sub_ports, looks_without_row: 0 };
            self.0.insert(link.name.clone(), seen);
            return events;
        };
        let mut tell = |cause, sub_port| {
            events.push(PortEvent { device: link.name.clone(), sub_port, cause });
        };
        let has_moved = place.is_another_than(&before.place);
        match (has_moved, is_up, before.link) {
            (true, ..) => tell(Cause::Moved, None),
            (false, true, LinkState::Down) => tell(Cause::LinkUp, None),
            _ => {}
        }
        let new = sub_ports.difference(&before.sub_ports);
        new.for_each(|sub_port| tell(Cause::Plugged, Some(sub_port.clone())));
        let state = match (is_up, before.link) {
            (true, _) => LinkState::Up,
            (false, LinkState::New) => LinkState::New,
            (false, _) => LinkState::Down,
        };
        let place = place.or(before.place);
        let seen = Seen { ifindex: link.index, place, link: state, sub_ports, looks_without_row: 0 };
        self.0.insert(link.name.clone(), seen);
        events
    }

    /// The same for vhost-user ports, which have only a row in OVSDB.
    fn look_at_vhost_user(&mut self, mut known: BTreeMap<String, Seen>, ovs: &Ovs) -> Vec<PortEvent> {
        let mut events = Vec::new();
        for port in ovs.vhost_user() {
            let name = port.interface.name.clone();
            let place = Place { bridge: Some(port.bridge.name.clone()), beyond: None };
            let before = known.remove(&name);
            if before.is_some_and(|before| place.is_another_than(&before.place)) {
                events.push(PortEvent { device: name.clone(), sub_port: None, cause: Cause::Moved });
            }
            let seen = Seen {
                ifindex: 0,
                place,
                link: LinkState::New,
                sub_ports: BTreeSet::new(),
                looks_without_row: 0,
            };
            self.0.insert(name, seen);
        }
        for (name, seen) in known {
            let looks_without_row = seen.looks_without_row + 1;
            if looks_without_row < MAX_LOOKS_WITHOUT_ROW {
                self.0.entry(name).or_insert(Seen { looks_without_row, ..seen });
            }
        }
        events
    }
}

fn is_guests(link: &Link) -> bool {
    link.is("tun") || link.is("macvtap")
}

fn place_of(link: &Link, links: &Links, ovs: &Ovs) -> Place {
    let name = |plugged: Plugged<'_>| plugged.bridge.name.clone();
    match link.master.and_then(|index| links.get(index)).filter(|master| master.is("bridge")) {
        Some(master) => Place {
            bridge: Some(master.name.clone()),
            beyond: attachment::beyond(master, links, ovs).map(name),
        },
        None => Place { bridge: ovs.named(&link.name).map(name), beyond: None },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path::attachment::tests::{link, ovs};

    /// A tap on the bridge with this index, 0 for none.
    fn host(master: u32, up: bool, index: u32) -> Links {
        let tap = Link { up, lower_up: up, ..link(index, "tap0", "tun", master, 0) };
        Links::from_iter([link(1, "br0", "bridge", 0, 0), link(2, "br1", "bridge", 0, 0), tap])
    }

    fn causes(events: Vec<PortEvent>) -> Vec<&'static str> {
        events.iter().map(|event| event.cause.word()).collect()
    }

    #[test]
    fn a_tap_moves_when_it_comes_to_another_bridge() {
        let mut ports = Ports::default();
        let mut look = |master, index| causes(ports.look(&host(master, true, index), &Ovs::default()));
        assert_eq!(look(0, 5), [""; 0]);
        assert_eq!(look(1, 5), [""; 0], "it is plugged in");
        assert_eq!(look(0, 5), [""; 0]);
        assert_eq!(look(1, 5), [""; 0], "it is back");
        assert_eq!(look(2, 5), ["moved"]);
        assert_eq!(look(0, 5), [""; 0]);
        assert_eq!(look(1, 5), ["moved"], "by way of nowhere");
        assert_eq!(look(2, 6), [""; 0], "another tap of this name");
    }

    #[test]
    fn a_tap_moves_between_bridges_of_open_vswitch() {
        let mut ports = Ports::default();
        let mut look = |bridges: &[(&str, &[&str])]| causes(ports.look(&host(0, true, 5), &ovs(bridges)));
        assert_eq!(look(&[("br-a", &["tap0"]), ("br-b", &[])]), [""; 0]);
        assert_eq!(look(&[("br-a", &[]), ("br-b", &["tap0"])]), ["moved"]);
    }

    #[test]
    fn a_hybrid_plug_moves_when_its_far_end_comes_to_another_bridge() {
        let links = Links::from_iter([
            link(1, "qbr0", "bridge", 0, 0),
            link(2, "tap0", "tun", 1, 0),
            link(3, "qvb0", "veth", 1, 4),
            link(4, "qvo0", "veth", 0, 3),
        ]);
        let mut ports = Ports::default();
        let mut look = |bridges: &[(&str, &[&str])]| causes(ports.look(&links, &ovs(bridges)));
        assert_eq!(look(&[("br-a", &[]), ("br-b", &[])]), [""; 0]);
        assert_eq!(look(&[("br-a", &["qvo0"]), ("br-b", &[])]), [""; 0], "it is plugged in");
        assert_eq!(look(&[("br-a", &[]), ("br-b", &["qvo0"])]), ["moved"]);
        assert_eq!(look(&[("br-a", &[]), ("br-b", &[])]), [""; 0]);
        assert_eq!(look(&[("br-a", &["qvo0"]), ("br-b", &[])]), ["moved"], "by way of nowhere");
    }

    #[test]
    fn a_vhost_user_port_moves_with_its_row() {
        let mut ports = Ports::default();
        let mut look = |bridges: &[(&str, &[&str])]| causes(ports.look(&host(0, true, 5), &ovs(bridges)));
        let vhu: &[&str] = &["vhu0:dpdkvhostuserclient"];
        assert_eq!(look(&[("br-a", vhu), ("br-b", &[])]), [""; 0]);
        assert_eq!(look(&[("br-a", &[]), ("br-b", vhu)]), ["moved"]);
        assert_eq!(look(&[("br-a", &[]), ("br-b", &[])]), [""; 0]);
        assert_eq!(look(&[("br-a", vhu), ("br-b", &[])]), ["moved"], "by way of nowhere");
        (0..MAX_LOOKS_WITHOUT_ROW).for_each(|_| assert_eq!(look(&[]), [""; 0]));
        assert_eq!(look(&[("br-b", vhu)]), [""; 0], "it is forgotten");
    }

    #[test]
    fn a_link_comes_up_when_it_was_up_before() {
        let mut ports = Ports::default();
        let mut look = |up| causes(ports.look(&host(1, up, 5), &Ovs::default()));
        assert_eq!(look(false), [""; 0]);
        assert_eq!(look(true), [""; 0], "the guest boots");
        assert_eq!(look(false), [""; 0]);
        assert_eq!(look(false), [""; 0]);
        assert_eq!(look(true), ["link-up"]);
        assert_eq!(look(true), [""; 0]);
    }

    #[test]
    fn a_sub_port_that_is_wired_late_is_plugged() {
        let mut ports = Ports::default();
        let links = host(0, true, 5);
        let mut ovs = ovs(&[
            ("tbr-1", &["tap0", "tpt-1:patch:tpi-1", "spt-2:patch:spi-2"]),
            ("br-int", &["tpi-1:patch:tpt-1", "spi-2:patch:spt-2"]),
        ]);
        let of_sub_port = ovs.interfaces.get_mut("i-spi-2").unwrap();
        of_sub_port.external_ids.insert("iface-id".into(), "0f".into());
        ovs.reindex();
        assert_eq!(ports.look(&links, &ovs), []);
        let of_sub_port = ovs.interfaces.get_mut("i-spi-2").unwrap();
        of_sub_port.external_ids.insert("attached-mac".into(), "02:00:00:00:00:02".into());
        ovs.reindex();
        let event =
            PortEvent { device: "tap0".into(), sub_port: Some("spi-2".into()), cause: Cause::Plugged };
        assert_eq!(ports.look(&links, &ovs), [event]);
        assert_eq!(ports.look(&links, &ovs), []);
    }
}
