//! Cycles, and the cost of a walk.

use super::*;

#[test]
fn circles_end() {
    // br0 → a ═ b → br1 → c ═ d → br0
    let [a, b] = veth((3, "a", 1), (4, "b", 7));
    let [c, d] = veth((5, "c", 7), (6, "d", 1));
    let devices = [a, b, c, d, link(7, "br1", "bridge", 0, 0), link(9, "eth0", "", 7, 0)];
    assert_eq!(edges(&on_br0(&devices).way()), ["eth0 Nic Untagged"]);
    // A VLAN device that is a port of its own bridge, and two that are below each other.
    let devices =
        [link(3, "br0.7", "vlan", 1, 1), link(4, "x.1", "vlan", 1, 5), link(5, "y.2", "vlan", 0, 4)];
    assert_eq!(on_br0(&devices).way().reach(), Reach::Nowhere);
}

#[test]
fn ten_thousand_devices_below_each_other_are_followed_and_more_are_not() {
    let chain = |length: u32| {
        let device = |n: u32| link(10 + n, &format!("m{n}"), "macvlan", u32::from(n == 0), 11 + n);
        let mut devices: Vec<Link> = (0..length).map(device).collect();
        devices.push(link(10 + length, "eth0", "", 0, 0));
        on_br0(&devices).way()
    };
    assert_eq!(chain(10_000).reach(), Reach::Network);
    assert_eq!(chain(30_000).reach(), Reach::Nowhere);
}

/// Each announcement walks after each change, so the cost per walk must not depend on the guests.
#[test]
fn two_thousand_guests_are_not_visited() {
    let guests = (0..2000).map(|n| Link {
        address: Some([0xfe, 0, 0, 0, (n >> 8) as u8, n as u8]),
        ..link(100 + n, &format!("vnet{n}"), "tun", 1, 0)
    });
    let devices: Vec<Link> = guests.chain([link(9, "eth0", "", 1, 0)]).collect();
    let world = on_br0(&devices);
    let start = Start::LinuxBridge(world.links.get(TAP).unwrap(), world.links.get(1).unwrap());
    let mut walk = Walk::new(&world.links, &world.ovs, &world.uplinks);
    walk.begin(start, Tag::Untagged);
    walk.run();
    assert!(walk.steps < 10, "{}", walk.steps);
}

/// As Open vSwitch keeps them of guests that have gone, in one report 1 591 of 1 634 ports.
#[test]
fn orphaned_rows_are_no_way_out_and_few_are_named() {
    let orphans: Vec<String> =
        (0..1600).map(|n| format!("tapdead{n}")).chain((0..20).map(|n| format!("eth{n}0"))).collect();
    let of = |more: &[&str]| {
        let ports: Vec<&str> = orphans.iter().map(String::as_str).chain(more.iter().copied()).collect();
        let mut world = on_ovs(&[("br-int", &ports)], &[link(9, "eth0", "", 0, 0)]);
        for name in &orphans {
            let row = world.ovs.interfaces.get_mut(&format!("i-{name}")).unwrap();
            (row.ofport, row.error) =
                (Some(-1), Some("could not open network device (No such device)".into()));
        }
        world.way()
    };
    let way = of(&["tap0", "eth0"]);
    assert_eq!((edges(&way), names(&way)), (vec!["eth0 Nic Unknown".into()], "tap0 br-int eth0".into()));
    let why = of(&["tap0"]).nowhere().unwrap();
    assert!(why.starts_with("br-int has no uplink: eth00 of br-int: could not open"), "{why}");
    assert!(why.ends_with("; ports without a device, of former guests: 1600"), "{why}");
    assert_eq!(why.matches("No such device").count(), MAX_DEAD_ENDS);
}
