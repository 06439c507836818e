//! The conditions that are common to all ports: the guest, OVSDB, time; and a host for all tests.

use std::time::Duration;

use super::*;
use crate::guest::domain::{NativeMode, Vlan};
use crate::guest::target::Manager;
use crate::path::attachment::tests::{link, ovs, plug};
use crate::path::link::{Link, Links, PortState};
use crate::path::ovs::{Ovs, Port, SETTLING_TIME, Uncounted, Unreachable};
use crate::path::readiness::openvswitch::OUTAGE_TOLERANCE;
use crate::path::uplinks::Uplinks;

mod linux_bridge;
mod openvswitch;

/// A host on which `tap0` is a port of the Open vSwitch bridge br-int.
struct World {
    links: Links,
    ovs: Ovs,
    target: Target,
    ovsdb_error: Option<Unreachable>,
    guest: GuestState,
    in_charge: Option<Owner>,
    untagged: bool,
    now: Duration,
}

impl World {
    fn new(links: impl IntoIterator<Item = Link>, ovs: Ovs) -> World {
        let target = Target::of_device(plug("tap0"), pnet_base::MacAddr(0x52, 0x54, 0, 0, 0, 1));
        let mut links = Links::from_iter(links);
        if links.named("eth0").is_none() {
            links.insert(link(90, "eth0", "", 0, 0));
        }
        World {
            links,
            ovs,
            target,
            ovsdb_error: None,
            guest: GuestState::Running,
            in_charge: None,
            untagged: false,
            now: Duration::from_secs(1000),
        }
    }

    fn on_ovs() -> World {
        World::new([link(2, "tap0", "tun", 0, 0)], ovs(&[("br-int", &["tap0", "eth0"])]))
    }

    fn on_linux_bridge() -> World {
        World::new([link(1, "br0", "bridge", 0, 0), link(2, "tap0", "tun", 1, 0)], Ovs::default())
    }

    fn hybrid() -> World {
        let links = [
            link(1, "qbr0", "bridge", 0, 0),
            link(2, "tap0", "tun", 1, 0),
            link(3, "qvb0", "veth", 1, 4),
            link(4, "qvo0", "veth", 0, 3),
        ];
        let mut world = World::new(links, ovs(&[("br-int", &["qvo0", "eth0"])]));
        world.target.manager = Some(Manager::Nova);
        world
    }

    fn neutron() -> World {
        let mut world = World::on_ovs();
        world.target.manager = Some(Manager::Nova);
        world
    }

    fn port(&mut self, name: &str) -> &mut Port {
        self.ovs.ports.get_mut(&format!("p-{name}")).unwrap()
    }

    fn interface(&mut self, name: &str) -> &mut crate::path::ovs::Interface {
        self.ovs.interfaces.get_mut(&format!("i-{name}")).unwrap()
    }

    fn link(&mut self, index: u32) -> &mut Link {
        self.links.get_mut(index).unwrap()
    }

    fn seen(&self) -> Assessment {
        let World { links, ovs, ovsdb_error, guest, in_charge, untagged, now, .. } = self;
        let (guest, in_charge, untagged, now) = (*guest, *in_charge, *untagged, *now);
        let (ovsdb_error, uplinks) = (ovsdb_error.as_ref(), &Uplinks::default());
        let mut ovs = ovs.clone();
        ovs.reindex();
        assess(
            &self.target,
            &Facts { links, ovs: &ovs, ovsdb_error, guest, in_charge, untagged, now, uplinks },
        )
    }

    fn unmet(&self) -> Vec<Condition> {
        self.seen().unmet
    }

    fn asks_for(&mut self, vlan: Vlan) {
        self.target.vlan = Some(Box::new(vlan));
    }
}

fn access(tag: u16) -> Vlan {
    Vlan { tags: vec![tag], ..Vlan::default() }
}

const READY: [Condition; 0] = [];

fn tag(port: &str, tag: Option<u16>, wanted: Option<u16>) -> Condition {
    Condition::Tag { port: port.into(), tag, wanted }
}

#[test]
fn the_guest_must_run_here_with_its_link_up() {
    let mut world = World::on_linux_bridge();
    world.guest = GuestState::Paused("paused");
    assert_eq!(world.unmet(), [Condition::Paused("paused")]);
    world.guest = GuestState::Left("shut off");
    assert_eq!(world.unmet(), [Condition::Left("shut off")]);
    world.guest = GuestState::Running;
    world.target.link_up = false;
    assert_eq!(world.unmet(), [Condition::GuestLinkDown]);
}

#[test]
fn a_change_that_is_not_counted_settles_before_the_port_is_ready() {
    let mut world = World::neutron();
    world.port("tap0").tag = Some(100);
    let at = world.now;
    world.port("tap0").uncounted = Some(Uncounted { at, next_cfg: 0, is_supposed: false });
    assert_eq!((world.unmet(), world.seen().is_ready()), (vec![], false));
    assert_eq!(world.seen().settles_in, Some(SETTLING_TIME));
    world.now += SETTLING_TIME;
    assert!(world.seen().is_ready());
    world.now = at;
    world.ovs.cur_cfg = 1;
    assert!(world.seen().is_ready(), "a later change has been carried out, and this one with it");
}

#[test]
fn a_ready_port_stays_so_while_ovsdb_is_restarted_and_no_other_gets_ready() {
    let mut world = World::neutron();
    world.ovsdb_error = Some(Unreachable { why: "closed".into(), since: world.now, is_absence: false });
    let lost = Condition::NoOvsdb { why: "closed".into() };
    assert_eq!(world.unmet(), [tag("tap0", None, None), lost.clone()]);
    world.port("tap0").tag = Some(100);
    assert_eq!(world.unmet(), READY);
    world.now += OUTAGE_TOLERANCE + Duration::from_millis(1);
    assert_eq!(world.unmet(), [lost]);
}

#[test]
fn a_host_without_open_vswitch_needs_no_ovsdb() {
    let mut world = World::on_linux_bridge();
    world.ovsdb_error =
        Some(Unreachable { why: "no such file".into(), since: Duration::ZERO, is_absence: true });
    assert_eq!(world.unmet(), READY);
    world.link(2).master = None;
    assert_eq!(
        world.unmet(),
        [Condition::NotPlugged { device: "tap0".into() }, Condition::NoOvsdb { why: "no such file".into() }]
    );
}

#[test]
fn without_ovsdb_nothing_is_said_of_a_port_that_only_ovsdb_knows() {
    let mut world = World::new([link(2, "tap0", "tun", 0, 0)], Ovs::default());
    let why = "permission denied".to_owned();
    world.ovsdb_error = Some(Unreachable { why, since: Duration::ZERO, is_absence: false });
    assert_eq!(world.unmet(), [Condition::NoOvsdb { why: "permission denied".into() }]);
    assert_eq!(world.seen().in_charge.1, "it cannot be told without OVSDB");
}

/// Like nova's `brq`, to which the agent adds the VLAN device after the tap.
#[test]
fn a_port_that_an_agent_makes_waits_for_its_way_out() {
    let mut world = World::on_linux_bridge();
    assert_eq!(world.unmet(), READY, "without an agent the missing uplink is a failure");
    world.target.manager = Some(Manager::Nova);
    assert_eq!(world.unmet(), [Condition::NoWayOut { why: "br0 has no uplink".into() }]);
    world.links.change(90, |eth0| eth0.master = Some(1));
    assert_eq!(world.unmet(), READY);

    let mut world = World::neutron();
    world.port("tap0").tag = Some(100);
    assert_eq!(world.unmet(), READY);
    let row = world.interface("eth0");
    (row.ofport, row.error) = (Some(-1), Some("could not open network device eth0 (No such device)".into()));
    let why =
        "br-int has no uplink: eth0 of br-int: could not open network device eth0 (No such device)".into();
    assert_eq!(world.unmet(), [Condition::NoWayOut { why }]);
}
