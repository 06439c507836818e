//! Tunnels, and the NICs by which their encapsulated frames leave.

use super::*;
use crate::path::tunnel::{Encapsulation, TunnelDevice};

const VXLAN: Encapsulation = Encapsulation::Vxlan(4789);

fn vxlan(lower: Option<u32>) -> Link {
    let tunnel = Some(TunnelDevice { encapsulation: VXLAN, lower });
    Link { tunnel, ..link(3, "vxlan0", "vxlan", 1, 0) }
}

/// `vxlan0 over eth0 Untagged` for each edge that is a NIC, `vxlan0 blind` for others.
fn over(way: &WayOut) -> Vec<String> {
    let edges = way.edges().filter(|(_, edge)| *edge == Edge::Tunnel);
    let told = edges.map(|(hop, _)| match hop.is_blind() {
        true => format!("{} blind", hop.name),
        false => format!("{} {:?}", hop.label(), hop.tag),
    });
    told.collect()
}

#[test]
fn a_tunnel_of_the_kernel_leads_to_the_nics_below_it() {
    let eth = |index: u32| link(index, &format!("eth{index}"), "", 0, 0);
    let member = |index: u32| link(index, &format!("eth{index}"), "", 6, 0);
    for (devices, expected) in [
        (vec![vxlan(Some(9)), eth(9)], &["vxlan0 over eth9 Untagged"][..]),
        (
            vec![
                vxlan(Some(5)),
                link(5, "bond0.7", "vlan", 0, 6),
                link(6, "bond0", "bond", 0, 0),
                member(8),
                member(9),
            ],
            &["vxlan0 over eth8 Untagged", "vxlan0 over eth9 Untagged"],
        ),
        // The lower device is a bridge with the host's address, as where the underlay's NIC is in one.
        (
            vec![vxlan(Some(5)), link(5, "br1", "bridge", 0, 0), link(9, "eth9", "", 5, 0)],
            &["vxlan0 over eth9 Untagged"],
        ),
        // Routes decide, as in EVPN.
        (vec![vxlan(None), eth(8), eth(9)], &["vxlan0 over eth8 Untagged", "vxlan0 over eth9 Untagged"]),
        (vec![elsewhere(vxlan(Some(9))), eth(9)], &["vxlan0 blind"]),
        (vec![Link { tunnel: None, ..vxlan(None) }, eth(9)], &["vxlan0 blind"]),
        (vec![vxlan(None)], &["vxlan0 blind"]),
    ] {
        let way = on_br0(&devices).way();
        assert_eq!(over(&way), expected, "{devices:#?}");
        assert_eq!(way.reach(), Reach::Network);
    }
    let way = on_br0(&[vxlan(Some(9)), eth(9)]).way();
    assert_eq!((names(&way).as_str(), way.hops[2].role), ("tap0 br0 vxlan0 eth9", Role::Tunnel));
    assert!(
        way.hops[2].is_entrance() && !way.hops[3].is_entrance(),
        "frames for the guest enter by its device"
    );
    let named = on_br0(&[vxlan(None), eth(8), eth(9)]).named("\"eth9\"").way();
    assert_eq!(over(&named), ["vxlan0 over eth9 Untagged"]);
}

#[test]
fn a_nic_of_a_tunnel_that_is_down_passes_nothing() {
    let way = on_br0(&[vxlan(Some(9)), Link { up: false, ..link(9, "eth0", "", 0, 0) }]).way();
    assert_eq!(
        way.holds(Cast::Broadcast).iter().map(|hold| hold.setting).collect::<Vec<_>>(),
        [Setting::Down]
    );
}

/// Open vSwitch in user space: br-int with these tunnels, and br-phy with the underlay's address and this uplink.
fn in_user_space(tunnels: &[&str], uplink: &str) -> World {
    let ports = [&["tap0"], tunnels].concat();
    let underlay = [link(8, "br-phy", "tun", 0, 0), link(9, "eth0", "", 0, 0)];
    let mut world = on_ovs(&[("br-int", &ports), ("br-phy", &["br-phy:internal", uplink])], &underlay);
    for (number, name) in tunnels.iter().enumerate() {
        let interface =
            world.ovs.interfaces.get_mut(&format!("i-{name}", name = name.split(':').next().unwrap()));
        let interface = interface.unwrap();
        interface.options =
            [("remote_ip".into(), format!("10.0.{}.{}", number / 200, number % 200 + 1))].into();
        interface.egress = Some("br-phy".into());
    }
    world.ovs.reindex();
    world
}

impl World {
    fn with(mut self, interface: &str, key: &str, value: &str) -> World {
        let interface = self.ovs.interfaces.get_mut(&format!("i-{interface}")).unwrap();
        interface.options.insert(key.into(), value.into());
        self.ovs.reindex();
        self
    }
}

#[test]
fn open_vswitch_sends_by_the_bridge_that_its_route_leads_to() {
    let way = in_user_space(&["vxlan-1:vxlan"], "eth0").way();
    assert_eq!(
        (names(&way).as_str(), over(&way)),
        ("tap0 br-int vxlan-1 eth0", vec!["vxlan-1 over eth0 Unknown".into()])
    );
    assert_eq!(way.hops[3].via, Some(Via::of("br-int", "vxlan-1")));
    assert!(way.hops[3].is_entrance() && !way.hops[2].is_entrance());

    let blind = |world: World| assert_eq!(over(&world.way()), ["vxlan-1 blind"]);
    let one = || in_user_space(&["vxlan-1:vxlan"], "eth0");
    blind(one().with("vxlan-1", "remote_ip", "flow"));
    blind(one().with("vxlan-1", "psk", "secret"));
    blind(one().with("vxlan-1", "remote_name", "ovn-chassis"));
    blind(one().with("vxlan-1", "packet_type", "legacy_l3"));
    blind(in_user_space(&["vxlan-1:vxlan"], "dpdk0:dpdk"));
    blind(in_user_space(&["vxlan-1:vxlan"], "eth7"));
    blind(one().named("\"eth8\""));
    let mut unknown = one();
    unknown.ovs.interfaces.get_mut("i-vxlan-1").unwrap().egress = None;
    blind(unknown);
    let mut offloaded = one();
    offloaded.ovs.other_config.insert("hw-offload".into(), "true".into());
    blind(offloaded);
    let erspan = in_user_space(&["erspan-1:erspan"], "eth0");
    assert_eq!(over(&erspan.way()), ["erspan-1 blind"]);
}

/// Neutron's agent and OVN make one per host.
#[test]
fn tunnels_to_several_hosts_are_one_edge_with_the_names_of_all() {
    let way = in_user_space(&["vxlan-1:vxlan", "vxlan-2:vxlan", "geneve-3:geneve"], "eth0").way();
    assert_eq!(over(&way), ["geneve-3 over eth0 Unknown", "vxlan-1 over eth0 Unknown"]);
    let (edge, _) = way.edges().nth(1).unwrap();
    let tunnel = edge.tunnel.as_ref().unwrap();
    let port_to = |remote: &str| tunnel.port_to(remote.parse().unwrap());
    assert_eq!(["10.0.0.1", "10.0.0.2", "10.0.0.9"].map(port_to), ["vxlan-1", "vxlan-2", "vxlan-1"]);

    let names: Vec<String> = (0..1000).map(|n| format!("vxlan-{n}:vxlan")).collect();
    let way = in_user_space(&names.iter().map(String::as_str).collect::<Vec<_>>(), "eth0").way();
    assert_eq!((way.hops.len(), over(&way).len()), (4, 1));
}

/// As OVN's hosts have it whose underlay is on the provider's bridge: a packet to another host does not enter the tunnel again.
#[test]
fn an_underlay_behind_the_bridge_of_the_tunnel_itself_ends() {
    let bridges: [(&str, &[&str]); 2] = [
        ("br-int", &["tap0", "geneve-1:geneve", "a:patch:b"]),
        ("br-ex", &["br-ex:internal", "b:patch:a", "eth0"]),
    ];
    let mut world = on_ovs(&bridges, &[link(8, "br-ex", "tun", 0, 0), link(9, "eth0", "", 0, 0)]);
    let tunnel = world.ovs.interfaces.get_mut("i-geneve-1").unwrap();
    (tunnel.options, tunnel.egress) =
        ([("remote_ip".into(), "10.0.0.2".into())].into(), Some("br-ex".into()));
    world.ovs.reindex();
    let way = world.way();
    assert_eq!(edges(&way), ["eth0 Nic Unknown", "eth0 Tunnel Unknown"]);
    assert_eq!(over(&way), ["geneve-1 over eth0 Unknown"]);
}

/// The kernel's datapath: the device of all tunnels shows what enters it, and routes decide by which NIC it leaves.
#[test]
fn the_kernels_datapath_sends_by_the_device_of_all_tunnels() {
    let ports = ["tap0", "vxlan-1:vxlan", "vxlan-2:vxlan"];
    let device = link(3, "vxlan_sys_4789", "vxlan", 0, 0);
    let world = || on_ovs(&[("br-int", &ports)], &[device.clone(), link(9, "eth0", "", 0, 0)]);
    let way = world().way();
    assert_eq!(names(&way), "tap0 br-int vxlan-1 vxlan_sys_4789 eth0");
    assert_eq!(over(&way), ["vxlan-1 over eth0 Unknown"]);
    let mut offloaded = world();
    offloaded.ovs.other_config.insert("hw-offload".into(), "true".into());
    assert_eq!(over(&offloaded.way()), ["vxlan-1 blind", "vxlan-2 blind"]);
}
