//! Settings of bridge ports that hold frames back.

use super::*;

#[test]
fn the_settings_of_a_bridge_port_are_recorded_on_the_hop_behind_it() {
    let port = |change: fn(&mut BridgePort)| {
        let mut eth0 = link(9, "eth0", "", 1, 0);
        change(eth0.port.as_mut().unwrap());
        eth0
    };
    let isolated = |world: World| world.changed(TAP, |tap| tap.port.as_mut().unwrap().isolated = true);
    for (eth0, both, setting) in [
        (port(|port| port.state = PortState::Blocking), false, Some(Setting::State(PortState::Blocking))),
        (port(|port| port.isolated = true), false, None),
        (port(|port| port.isolated = true), true, Some(Setting::Isolated)),
        (port(|port| port.bcast_flood = false), false, Some(Setting::BcastFlood)),
        (port(|port| port.mcast_flood = false), false, Some(Setting::McastFlood)),
        (port(|port| port.neigh_suppress = true), false, Some(Setting::NeighSuppress)),
        (Link { lower_up: false, ..port(|_| ()) }, false, Some(Setting::NoCarrier)),
        (Link { up: false, ..port(|_| ()) }, false, Some(Setting::Down)),
    ] {
        let world = on_br0(&[eth0]);
        let world = if both { isolated(world) } else { world };
        let held = world.way().hops.last().unwrap().holds.iter().map(|hold| hold.setting).collect::<Vec<_>>();
        assert_eq!(held, Vec::from_iter(setting));
    }
}

#[test]
fn a_setting_applies_to_its_kind_of_frame() {
    let all = [Cast::Broadcast, Cast::ArpAnnouncement, Cast::Multicast, Cast::Advertisement];
    for (setting, kept) in [
        (Setting::BcastFlood, [true, true, false, false]),
        (Setting::McastFlood, [false, false, true, true]),
        (Setting::NeighSuppress, [false, true, false, true]),
        (Setting::Isolated, [true; 4]),
    ] {
        assert_eq!(all.map(|cast| setting.keeps(cast)), kept, "{setting:?}");
    }
}

#[test]
fn a_frame_is_held_if_every_edge_is_closed_to_it() {
    let port = |index, name: &str, change: fn(&mut BridgePort)| {
        let mut link = link(index, name, "", 1, 0);
        change(link.port.as_mut().unwrap());
        link
    };
    let no_broadcast = |port: &mut BridgePort| port.bcast_flood = false;
    let blocked = |port: &mut BridgePort| port.state = PortState::Blocking;
    let told = |devices: &[Link], cast| {
        on_br0(devices).way().holds(cast).iter().map(|hold| hold.setting).collect::<Vec<_>>()
    };
    let both = [port(8, "eth0", no_broadcast), port(9, "eth1", blocked)];
    assert_eq!(told(&both, Cast::Broadcast), [Setting::BcastFlood, Setting::State(PortState::Blocking)]);
    assert_eq!(told(&both, Cast::Advertisement), [], "eth0 lets it pass");
    assert_eq!(told(&[], Cast::Broadcast), [], "there is no edge that could be closed");
}

#[test]
fn a_port_may_forward_in_some_vlans_only() {
    let held = |link: Link, vlan| Link { held_vlans: [(vlan, PortState::Blocking)].into(), ..link };
    let tap = in_vlans(link(TAP, "tap0", "tun", 1, 0), Some(100), &[]);
    let eth0 = in_vlans(link(9, "eth0", "", 1, 0), Some(1), &[100]);
    let told = |tap: &Link, eth0: &Link, mst| {
        let bridge =
            Link { bridge: Some(BridgeInfo { vlan_filtering: true, mst }), ..filtering(1, "br0", 0) };
        let links = [bridge, tap.clone(), eth0.clone()].into_iter().collect();
        let world = World { links, ovs: Ovs::default(), uplinks: Uplinks::default() };
        world.way().holds(Cast::Broadcast).iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(told(&tap, &held(eth0.clone(), 1), false), [""; 0], "in another VLAN");
    let blocked = held(eth0.clone(), 100);
    assert_eq!(told(&tap, &blocked, false), ["the port eth0 of br0 is blocking in VLAN 100"]);
    // With a spanning tree for groups of VLANs, the port has no other state.
    let mut blocked = eth0.clone();
    blocked.port.as_mut().unwrap().state = PortState::Blocking;
    assert_eq!(told(&tap, &blocked, false).len(), 1);
    assert_eq!(told(&tap, &blocked, true), [""; 0]);
}

#[test]
fn a_port_by_which_frames_enter_another_bridge_may_hold_their_vlan_back() {
    let [a, b] = veth((3, "a", 1), (4, "b", 5));
    let b = in_vlans(b, Some(30), &[]);
    let devices = [a, Link { held_vlans: [(30, PortState::Learning)].into(), ..b }];
    let far = [filtering(5, "br1", 0), in_vlans(link(9, "eth0", "", 5, 0), None, &[30])];
    let way = on_br0(&[devices, far].concat()).way();
    let held: Vec<String> = way.holds(Cast::Broadcast).iter().map(ToString::to_string).collect();
    assert_eq!(held, ["the port b of br1 is learning in VLAN 30"]);
}

/// Two bridges with two cables between them, of which the spanning tree blocks one.
#[test]
fn a_bridge_is_not_closed_if_one_of_two_ways_to_it_is_open() {
    let [a, b] = veth((3, "a", 1), (4, "b", 5));
    let [c, d] = veth((6, "c", 1), (7, "d", 5));
    let far = [link(5, "br1", "bridge", 0, 0), link(9, "eth0", "", 5, 0)];
    let blocked = |mut port: Link| {
        port.port.as_mut().unwrap().state = PortState::Blocking;
        port
    };
    for devices in [[blocked(a.clone()), b.clone(), c.clone(), d.clone()], [a, b, blocked(c), d]] {
        let way = on_br0(&[&devices[..], &far].concat()).way();
        assert_eq!((way.edges().count(), way.holds(Cast::Broadcast)), (1, vec![]), "{}", names(&way));
    }
}
