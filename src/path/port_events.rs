//! What happens to the ports of guests that run: another bridge, the link up again, a sub-port more.

use std::collections::{BTreeMap, BTreeSet};

use crate::guest::event::Cause;
use crate::path::attachment;
use crate::path::link::{Link, Links};
use crate::path::ovs::Ovs;

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

#[derive(Debug)]
struct Seen {
    ifindex: u32,
    /// The last one that it was on.
    bridge: Option<String>,
    link: LinkState,
    sub_ports: BTreeSet<String>,
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
        for link in links.all().filter(|link| link.is("tun") || link.is("macvtap")) {
            let (bridge, is_up) = (bridge_of(link, links, ovs), link.up && link.lower_up);
            let before = known.remove(&link.name).filter(|before| before.ifindex == link.index);
            let sub_ports: BTreeSet<String> = attachment::sub_ports(&link.name, ovs)
                .filter(|port| port.interface.external_ids.contains_key("attached-mac"))
                .map(|port| port.interface.name.clone())
                .collect();
            let Some(before) = before else {
                let state = if is_up { LinkState::Up } else { LinkState::New };
                self.0
                    .insert(link.name.clone(), Seen { ifindex: link.index, bridge, link: state, sub_ports });
                continue;
            };
            let mut tell = |cause, sub_port| {
                events.push(PortEvent { device: link.name.clone(), sub_port, cause });
            };
            let has_moved = bridge.is_some() && before.bridge.is_some() && bridge != before.bridge;
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
            let bridge = bridge.or(before.bridge);
            self.0.insert(link.name.clone(), Seen { ifindex: link.index, bridge, link: state, sub_ports });
        }
        events
    }
}

/// The bridge that a device is on, of either kind.
fn bridge_of(link: &Link, links: &Links, ovs: &Ovs) -> Option<String> {
    let master = link.master.and_then(|index| links.get(index)).filter(|master| master.is("bridge"));
    let of_ovs = || ovs.named(&link.name).map(|plugged| plugged.bridge.name.clone());
    master.map(|master| master.name.clone()).or_else(of_ovs)
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
