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
