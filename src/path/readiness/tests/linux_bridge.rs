//! The ports of Linux bridges, and macvtaps.

use super::*;

#[test]
fn a_linux_bridge_must_be_up_and_forward_from_a_port_with_a_carrier() {
    let mut world = World::on_linux_bridge();
    assert_eq!(world.unmet(), READY);
    world.link(2).port.as_mut().unwrap().state = PortState::Listening;
    assert_eq!(
        world.unmet(),
        [Condition::NotForwarding {
            device: "tap0".into(),
            bridge: "br0".into(),
            state: PortState::Listening
        }]
    );
    world.link(2).lower_up = false;
    assert_eq!(world.unmet(), [Condition::NoCarrier { device: "tap0".into() }]);
    world.link(2).up = false;
    world.link(1).up = false;
    assert_eq!(
        world.unmet(),
        [Condition::Down { device: "br0".into() }, Condition::Down { device: "tap0".into() }]
    );
}

#[test]
fn a_filtering_bridge_must_have_the_required_pvid() {
    let mut world = World::on_linux_bridge();
    world.link(1).bridge.as_mut().unwrap().vlan_filtering = true;
    assert_eq!(world.unmet(), [Condition::Pvid { device: "tap0".into(), pvid: None, wanted: None }]);
    world.link(2).pvid = Some(1);
    assert_eq!(world.unmet(), READY, "no VLAN is required");
    world.asks_for(access(100));
    assert_eq!(world.unmet(), [Condition::Pvid { device: "tap0".into(), pvid: Some(1), wanted: Some(100) }]);
    world.link(2).pvid = Some(100);
    assert_eq!((world.unmet(), world.seen().vlan), (vec![], Some(100)));
}

#[test]
fn a_bridge_without_vlan_filtering_cannot_have_the_required_one() {
    let mut world = World::on_linux_bridge();
    world.asks_for(access(100));
    assert_eq!(
        world.unmet(),
        [Condition::NoVlanFiltering { device: "tap0".into(), bridge: "br0".into(), wanted: 100 }]
    );
}

#[test]
fn a_macvtap_and_its_lower_device_must_be_up() {
    let links = [link(2, "tap0", "macvtap", 0, 4), link(4, "eth0", "", 0, 0)];
    let mut world = World::new(links, Ovs::default());
    assert_eq!(world.unmet(), READY);
    world.link(4).lower_up = false;
    assert_eq!(world.unmet(), [Condition::NoCarrier { device: "eth0".into() }]);
}

/// tap0 → fwbr0 → fwln0 ═ fwpr0 → vmbr0, which filters VLANs, as Proxmox builds it.
fn behind_a_firewalls_bridge() -> World {
    let links = [
        link(1, "fwbr0", "bridge", 0, 0),
        link(2, "tap0", "tun", 1, 0),
        link(3, "fwln0", "veth", 1, 4),
        link(4, "fwpr0", "veth", 5, 3),
        link(5, "vmbr0", "bridge", 0, 0),
        link(90, "eth0", "", 5, 0),
    ];
    let mut world = World::new(links, Ovs::default());
    world.link(5).bridge.as_mut().unwrap().vlan_filtering = true;
    world
}

#[test]
fn a_pvid_is_waited_for_on_the_first_bridge_that_filters() {
    let mut world = behind_a_firewalls_bridge();
    assert_eq!(world.unmet(), [Condition::Pvid { device: "fwpr0".into(), pvid: None, wanted: None }]);
    world.link(4).pvid = Some(30);
    assert_eq!((world.unmet(), world.seen().vlan), (vec![], None), "fwbr0 knows no VLANs");
    world.asks_for(access(31));
    assert_eq!(world.unmet(), [Condition::Pvid { device: "fwpr0".into(), pvid: Some(30), wanted: Some(31) }]);
    world.asks_for(access(30));
    assert_eq!(world.unmet(), READY);
    world.link(5).bridge.as_mut().unwrap().vlan_filtering = false;
    assert_eq!(
        world.unmet(),
        [Condition::NoVlanFiltering { device: "tap0".into(), bridge: "fwbr0".into(), wanted: 30 }]
    );
}

#[test]
fn a_trunk_without_a_native_vlan_is_in_each_of_its_vlans() {
    let trunk = Vlan { trunk: true, tags: vec![42, 43], native: None };
    let mut world = World::on_linux_bridge();
    world.asks_for(trunk.clone());
    assert_eq!(world.unmet(), READY, "without filtering all tags pass");
    world.link(1).bridge.as_mut().unwrap().vlan_filtering = true;
    assert_eq!(world.unmet(), [Condition::NotInVlans { device: "tap0".into(), vlans: vec![42, 43] }]);
    let range = |vlan| crate::path::link::PortVlans { first: vlan, last: vlan, untagged: false };
    world.link(2).vlans = vec![range(42)];
    assert_eq!(world.unmet(), [Condition::NotInVlans { device: "tap0".into(), vlans: vec![43] }]);
    world.link(2).vlans = vec![range(42), range(43)];
    assert_eq!(world.unmet(), READY, "a PVID does not matter");

    let mut world = World::on_ovs();
    world.asks_for(trunk);
    world.port("tap0").trunks = vec![43, 42];
    assert_eq!((world.unmet(), world.seen().vlan), (vec![], None));
}

#[test]
fn the_guests_port_must_forward_in_its_vlan() {
    let mut world = World::on_linux_bridge();
    world.link(1).bridge.as_mut().unwrap().vlan_filtering = true;
    world.link(2).pvid = Some(100);
    world.link(2).held_vlans = [(7, PortState::Blocking), (100, PortState::Listening)].into();
    let held = |vlans: &[u16], state| Condition::VlanNotForwarding {
        device: "tap0".into(),
        bridge: "br0".into(),
        vlans: vlans.to_vec(),
        state,
    };
    assert_eq!(world.unmet(), [held(&[100], PortState::Listening)]);
    world.link(1).bridge.as_mut().unwrap().vlan_filtering = false;
    assert_eq!(world.unmet(), READY);

    world.link(1).bridge.as_mut().unwrap().vlan_filtering = true;
    world.asks_for(Vlan { trunk: true, tags: vec![7, 8, 100], native: None });
    world.link(2).vlans = vec![crate::path::link::PortVlans { first: 1, last: 200, untagged: false }];
    assert_eq!(world.unmet(), [held(&[7], PortState::Blocking)]);
    world.link(2).held_vlans.clear();
    world.link(2).port.as_mut().unwrap().state = PortState::Blocking;
    world.link(1).bridge.as_mut().unwrap().mst = true;
    assert_eq!(world.unmet(), READY, "its state is one for each VLAN");
}
