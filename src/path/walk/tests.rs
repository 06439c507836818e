//! Every kind of device that a path passes or ends at, alone and combined.

use super::*;
use crate::path::attachment::tests::{link, ovs, plug};
use crate::path::attachment::{Attachment, resolve};
use crate::path::hop::{Cast, Setting};
use crate::path::link::{Bridge as BridgeInfo, BridgePort, PortState, PortVlans};
use crate::path::ovs::Mirror;
use crate::path::way_out::Reach;

mod bounds;
mod settings;
mod tunnels;

const TAP: u32 = 2;

struct World {
    links: Links,
    ovs: Ovs,
    uplinks: Uplinks,
}

/// A tap in br0, beside these devices.
fn on_br0(more: &[Link]) -> World {
    let links = [link(1, "br0", "bridge", 0, 0), link(TAP, "tap0", "tun", 1, 0)];
    let links = links.into_iter().chain(more.iter().cloned()).collect();
    World { links, ovs: Ovs::default(), uplinks: Uplinks::default() }
}

/// A tap in br-int, beside these devices.
fn on_ovs(bridges: &[(&str, &[&str])], more: &[Link]) -> World {
    let links = [link(TAP, "tap0", "tun", 0, 0)].into_iter().chain(more.iter().cloned()).collect();
    World { links, ovs: ovs(bridges), uplinks: Uplinks::default() }
}

fn uplinks(names: &str) -> Uplinks {
    #[derive(serde::Deserialize)]
    struct Table {
        uplinks: Uplinks,
    }
    toml::from_str::<Table>(&format!("uplinks = [{names}]")).unwrap().uplinks
}

impl World {
    fn attachment(&self) -> Attachment {
        resolve(&plug("tap0"), Tag::Untagged, &self.links, &self.ovs, &self.uplinks).unwrap()
    }

    fn way(&self) -> WayOut {
        self.attachment().way
    }

    fn named(self, names: &str) -> World {
        World { uplinks: uplinks(names), ..self }
    }

    fn changed(mut self, index: u32, change: impl FnOnce(&mut Link)) -> World {
        self.links.change(index, change).unwrap();
        self
    }
}

/// `tap0 br0 eth0`, in the order of travel.
fn names(way: &WayOut) -> String {
    way.names().collect::<Vec<_>>().join(" ")
}

/// `eth0 nic Vlan(100)` for each edge.
fn edges(way: &WayOut) -> Vec<String> {
    way.edges().map(|(hop, edge)| format!("{} {edge:?} {:?}", hop.name, hop.tag)).collect()
}

fn filtering(index: u32, name: &str, master: u32) -> Link {
    let bridge = Some(BridgeInfo { vlan_filtering: true, mst: false });
    Link { bridge, ..link(index, name, "bridge", master, 0) }
}

fn vlans(pvid: Option<u16>, tagged: &[u16]) -> (Option<u16>, Vec<PortVlans>) {
    let range = |vlan, untagged| PortVlans { first: vlan, last: vlan, untagged };
    let tagged = tagged.iter().map(|vlan| range(*vlan, false));
    (pvid, pvid.map(|pvid| range(pvid, true)).into_iter().chain(tagged).collect())
}

fn in_vlans(link: Link, pvid: Option<u16>, tagged: &[u16]) -> Link {
    let (pvid, vlans) = vlans(pvid, tagged);
    Link { pvid, vlans, ..link }
}

/// The two ends of a veth.
fn veth(a: (u32, &str, u32), b: (u32, &str, u32)) -> [Link; 2] {
    [link(a.0, a.1, "veth", a.2, b.0), link(b.0, b.1, "veth", b.2, a.0)]
}

fn elsewhere(link: Link) -> Link {
    Link { link_is_elsewhere: true, link: None, ..link }
}

#[test]
fn each_device_leads_to_the_device_below_it() {
    let eth0 = || link(9, "eth0", "", 0, 0);
    let port = |name: &str, kind: &str, lower| link(3, name, kind, 1, lower);
    for (devices, expected, edge) in [
        (vec![link(9, "eth0", "", 1, 0)], "tap0 br0 eth0", "eth0 Nic Untagged"),
        (vec![port("eth0.5", "vlan", 9), eth0()], "tap0 br0 eth0.5 eth0", "eth0 Nic Vlan(5)"),
        (vec![port("m0", "macvlan", 9), eth0()], "tap0 br0 m0 eth0", "eth0 Nic Untagged"),
        // What MACsec makes of a frame cannot be recognized on the NIC.
        (vec![port("s0", "macsec", 9), eth0()], "tap0 br0 s0", "s0 Tunnel Untagged"),
        (
            vec![port("bond0", "bond", 0), link(9, "eth0", "", 3, 0)],
            "tap0 br0 bond0 eth0",
            "eth0 Nic Untagged",
        ),
        (
            vec![port("team0", "team", 0), link(9, "eth0", "", 3, 0)],
            "tap0 br0 team0 eth0",
            "eth0 Nic Untagged",
        ),
        (
            vec![
                port("bond1.7", "vlan", 4),
                link(4, "bond1", "bond", 0, 0),
                link(5, "eth0.5", "vlan", 4, 9),
                eth0(),
            ],
            "tap0 br0 bond1.7 bond1 eth0.5 eth0",
            "eth0 Nic Vlan(5)",
        ),
    ] {
        let way = on_br0(&devices).way();
        assert_eq!((names(&way).as_str(), edges(&way)), (expected, vec![edge.to_owned()]));
        assert_eq!(way.reach(), Reach::Network);
    }
}

#[test]
fn a_bridge_behind_a_vlan_device_behind_a_bridge() {
    // tap0 → br0 → br1.100 → br1, which filters → eth0
    let devices = [
        link(3, "br1.100", "vlan", 1, 4),
        in_vlans(filtering(4, "br1", 0), Some(1), &[100]),
        in_vlans(link(9, "eth0", "", 4, 0), Some(1), &[100]),
        in_vlans(link(8, "eth1", "", 4, 0), Some(1), &[]),
    ];
    let way = on_br0(&devices).way();
    assert_eq!(names(&way), "tap0 br0 br1.100 br1 eth0 eth1");
    assert_eq!(edges(&way), ["eth0 Nic Vlan(100)", "eth1 Nic Unknown"]);
    let hold = &way.hops[5].holds[0];
    assert_eq!(hold.to_string(), "the port eth1 of br1 is not in VLAN 100");
}

/// A mirror copies also what a flow drops, so that a frame which shows on its port may have gone nowhere.
#[test]
fn the_output_of_a_mirror_is_no_way_out() {
    let nics = [link(8, "eth0", "", 0, 0), link(9, "span0", "", 0, 0)];
    let mut world = on_ovs(&[("br-int", &["tap0", "eth0", "span0"])], &nics);
    let mirror = Mirror { output_port: Some("p-span0".into()), output_vlan: None };
    world.ovs.mirrors.insert("m".into(), mirror);
    world.ovs.reindex();
    assert_eq!(edges(&world.way()), ["eth0 Nic Unknown"]);
}

#[test]
fn the_vlan_of_a_mirror_is_no_way_out() {
    let nics = [link(8, "eth0", "", 0, 0), link(9, "span0", "", 0, 0)];
    let mut world = on_ovs(&[("br-int", &["tap0", "eth0", "span0"])], &nics);
    world.ovs.mirrors.insert("m".into(), Mirror { output_port: None, output_vlan: Some(99) });
    world.ovs.bridges.get_mut("b-br-int").unwrap().mirrors = vec!["m".into()];
    world.ovs.ports.get_mut("p-span0").unwrap().tag = Some(99);
    let way = world.way();
    assert_eq!(edges(&way), ["eth0 Nic Unknown"]);
    let eth0 = way.hops.len() - 1;
    assert_eq!([98, 99].map(|vlan| way.is_copy(eth0, vlan)), [false, true]);

    world.ovs.ports.get_mut("p-tap0").unwrap().tag = Some(99);
    let of_guest_there = world.way();
    assert_eq!(edges(&of_guest_there), ["eth0 Nic Unknown", "span0 Nic Unknown"]);
    assert!(!of_guest_there.is_copy(eth0, 99), "Open vSwitch copies no frame into its own VLAN");
}

#[test]
fn a_veth_is_followed_into_the_next_bridge() {
    let [a, b] = veth((3, "fwln", 1), (4, "fwpr", 5));
    let devices = [a, b, link(5, "vmbr0", "bridge", 0, 0), link(9, "eth0", "", 5, 0)];
    let way = on_br0(&devices).way();
    assert_eq!(names(&way), "tap0 br0 fwln fwpr vmbr0 eth0");
    let eth0 = way.hops.last().unwrap();
    assert_eq!(eth0.via, Some(Via::of("vmbr0", "eth0")));
}

#[test]
fn the_next_bridge_filters_and_has_no_pvid_for_it() {
    let [a, b] = veth((3, "fwln", 1), (4, "fwpr", 5));
    let devices = [a, b, filtering(5, "vmbr0", 0), in_vlans(link(9, "eth0", "", 5, 0), None, &[100])];
    let world = on_br0(&devices);
    let way = world.way();
    let vmbr0 = way.hops.iter().find(|hop| hop.name == "vmbr0").unwrap();
    assert_eq!(vmbr0.holds[0].setting, Setting::NoPvid);
    let (pvid, of_port) = vlans(Some(100), &[]);
    let world = world.changed(4, |fwpr| (fwpr.pvid, fwpr.vlans) = (pvid, of_port));
    assert_eq!(edges(&world.way()), ["eth0 Nic Vlan(100)"]);
    assert!(world.way().hops.iter().all(|hop| hop.holds.is_empty()));
}

#[test]
fn a_vlan_device_on_the_far_end_of_a_veth_takes_its_frames() {
    // tap0 → br0 → v0.7 → v0 ═ v1 → v1.7 → br1 → eth0; br2, in which v1 itself is, gets none of them.
    let [v0, v1] = veth((3, "v0", 0), (4, "v1", 7));
    let devices = [
        v0,
        v1,
        link(5, "v0.7", "vlan", 1, 3),
        link(6, "v1.7", "vlan", 8, 4),
        link(7, "br2", "bridge", 0, 0),
        link(8, "br1", "bridge", 0, 0),
        link(9, "eth0", "", 8, 0),
        link(10, "eth9", "", 7, 0),
    ];
    let way = on_br0(&devices).way();
    assert_eq!(names(&way), "tap0 br0 v0.7 v0 v1 v1.7 br1 eth0");
    assert_eq!(edges(&way), ["eth0 Nic Untagged"]);
}

#[test]
fn open_vswitch_behind_a_veth_behind_open_vswitch() {
    let [a, b] = veth((3, "va", 0), (4, "vb", 0));
    let world = on_ovs(
        &[("br-int", &["tap0", "va"]), ("br-ex", &["vb", "eth0"])],
        &[a, b, link(9, "eth0", "", 0, 0)],
    );
    assert_eq!(names(&world.way()), "tap0 br-int va vb br-ex eth0");
    assert_eq!(edges(&world.way()), ["eth0 Nic Unknown"]);
}

#[test]
fn an_internal_port_joins_open_vswitch_and_a_linux_bridge_in_both_directions() {
    let bridges: [(&str, &[&str]); 1] = [("br-int", &["tap0", "in0:internal"])];
    // In user space internal ports are taps.
    for kind in ["openvswitch", "tun"] {
        let more = [link(3, "in0", kind, 4, 0), link(4, "br1", "bridge", 0, 0), link(9, "eth0", "", 4, 0)];
        assert_eq!(names(&on_ovs(&bridges, &more).way()), "tap0 br-int in0 br1 eth0");

        let mut world = on_br0(&[link(3, "in0", kind, 1, 0), link(9, "eth0", "", 0, 0)]);
        world.ovs = ovs(&[("br-ex", &["in0:internal", "eth0"])]);
        let attachment = world.attachment();
        assert_eq!(names(&attachment.way), "tap0 br0 in0 br-ex eth0");
    }
}

#[test]
fn a_macvtap_on_a_bridge_leaves_by_the_bridges_ports() {
    let links = [
        link(TAP, "tap0", "macvtap", 0, 1),
        link(1, "br0", "bridge", 0, 0),
        link(9, "eth0", "", 1, 0),
        link(3, "tap1", "tun", 1, 0),
    ];
    let world =
        World { links: links.into_iter().collect(), ovs: Ovs::default(), uplinks: Uplinks::default() };
    let way = world.way();
    assert_eq!(names(&way), "tap0 br0 eth0");
    assert_eq!(way.hops[1].role, Role::Upper, "it enters the bridge like the host's own frames");
}

#[test]
fn a_guests_tap_is_no_edge() {
    let guests = Link { address: Some([0xfe, 0x54, 0, 0, 0, 9]), ..link(3, "vnet1", "tun", 1, 0) };
    let way = on_br0(&[guests]).way();
    assert_eq!((way.reach(), way.nowhere().as_deref()), (Reach::Nowhere, Some("br0 has no uplink")));
}

#[test]
fn tunnels_and_ports_that_bypass_the_kernel_are_edges_of_their_kind() {
    for (kind, name) in [("vxlan", "vx10"), ("geneve", "gnv0"), ("gretap", "gre1"), ("wireguard", "wg0")] {
        let way = on_br0(&[link(3, name, kind, 1, 0)]).way();
        assert_eq!(edges(&way), [format!("{name} Tunnel Untagged")]);
    }
    for (port, edge) in [
        ("dpdk0:dpdk", "dpdk0 Bypass Unknown"),
        ("eth0:afxdp", "eth0 Bypass Unknown"),
        ("gnv:geneve", "gnv Tunnel Unknown"),
        ("eth0", "eth0 Nic Unknown"),
    ] {
        let world = on_ovs(&[("br-int", &["tap0", port])], &[link(9, "eth0", "", 0, 0)]);
        assert_eq!(edges(&world.way()), [edge]);
    }
    let mut world = on_ovs(&[("br-int", &["tap0", "eth0"])], &[link(9, "eth0", "", 0, 0)]);
    world.ovs.other_config = [("hw-offload".to_owned(), "true".to_owned())].into();
    assert_eq!(edges(&world.way()), ["eth0 Offload Unknown"]);
}

#[test]
fn another_namespace_or_program_is_an_edge_only_of_a_path_without_another() {
    let container = elsewhere(link(3, "vethc", "veth", 1, 0));
    let program = link(4, "vpn0", "tun", 1, 0);
    let nic = link(9, "eth0", "", 1, 0);
    for (devices, expected, reach) in [
        (vec![container.clone()], vec!["vethc Namespace Untagged"], Reach::Elsewhere(Edge::Namespace)),
        (vec![program.clone()], vec!["vpn0 Program Untagged"], Reach::Elsewhere(Edge::Program)),
        (
            vec![container.clone(), program.clone()],
            vec!["vethc Namespace Untagged", "vpn0 Program Untagged"],
            Reach::Several,
        ),
        (vec![container.clone(), program.clone(), nic.clone()], vec!["eth0 Nic Untagged"], Reach::Network),
    ] {
        let way = on_br0(&devices).way();
        assert_eq!((edges(&way), way.reach()), (expected.into_iter().map(str::to_owned).collect(), reach));
    }
}

#[test]
fn only_the_configured_uplinks_are_edges() {
    let devices = || {
        [
            elsewhere(link(3, "up0", "veth", 1, 0)),
            elsewhere(link(4, "vethc", "veth", 1, 0)),
            link(5, "vpn0", "tun", 1, 0),
            link(9, "eth0", "", 1, 0),
        ]
    };
    assert_eq!(edges(&on_br0(&devices()).named("\"up*\"").way()), ["up0 Uplink Untagged"]);
    assert_eq!(edges(&on_br0(&devices()).named("\"vpn0\"").way()), ["vpn0 Uplink Untagged"]);
    let way = on_br0(&devices()).named("\"wan0\"").way();
    assert_eq!(way.reach(), Reach::Nowhere);
    let words = way.nowhere().unwrap();
    assert!(words.contains("eth0 is not one of [path] uplinks"), "{words}");
}

#[test]
fn a_bridge_with_an_address_is_the_edge_if_there_is_no_other() {
    let with_address = |mut world: World| {
        world.links.address(1, ("192.0.2.1".parse().unwrap(), 24), true);
        world
    };
    let way = with_address(on_br0(&[])).way();
    assert_eq!((edges(&way), way.reach()), (vec!["br0 Host Unknown".to_owned()], Reach::Host));
    let way = with_address(on_br0(&[link(9, "eth0", "", 1, 0)])).way();
    assert_eq!(edges(&way), ["eth0 Nic Untagged"]);
    let mut world = on_br0(&[]);
    world.links.address(1, ("fe80::1".parse().unwrap(), 64), true);
    assert_eq!(world.way().reach(), Reach::Nowhere, "every device that is up has a link-local address");
}

#[test]
fn a_row_without_a_device_is_no_edge_and_is_named_if_it_is_the_only_one() {
    let mut world = on_ovs(&[("br-ex", &["tap0", "eth1", "gone"])], &[]);
    for row in ["i-eth1", "i-gone"] {
        let row = world.ovs.interfaces.get_mut(row).unwrap();
        (row.ofport, row.error) = (Some(-1), Some("could not open network device (No such device)".into()));
    }
    let way = world.way();
    assert_eq!(
        way.nowhere().as_deref(),
        Some(
            "br-ex has no uplink: eth1 of br-ex: could not open network device (No such device); \
             gone of br-ex: could not open network device (No such device)"
        )
    );
    let world = World {
        links: world.links,
        ovs: ovs(&[("br-ex", &["tap0", "gone", "eth0"])]),
        uplinks: world.uplinks,
    };
    let mut world = world;
    world.links.insert(link(9, "eth0", "", 0, 0));
    assert_eq!((edges(&world.way()), world.way().dead_ends), (vec!["eth0 Nic Unknown".to_owned()], vec![]));
}

/// Neutron's agent records the network of a port in the port's row.
#[test]
fn the_path_of_a_neutron_port_ends_at_the_edges_of_its_network() {
    let bridges: [(&str, &[&str]); 3] = [
        ("br-int", &["tap0", "int-br-ex:patch:phy-br-ex", "patch-tun:patch:patch-int"]),
        ("br-ex", &["phy-br-ex:patch:int-br-ex", "eth0"]),
        ("br-tun", &["patch-int:patch:patch-tun", "vxlan-1:vxlan"]),
    ];
    let edges_of = |said: &[(&str, &str)], bridges: &[(&str, &[&str])]| {
        let mut world = on_ovs(bridges, &[link(9, "eth0", "", 0, 0)]);
        let port = world.ovs.ports.get_mut("p-tap0").unwrap();
        port.other_config =
            said.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let way = world.way();
        (edges(&way), way.reach())
    };
    let both = vec!["eth0 Nic Unknown".to_owned(), "vxlan-1 Tunnel Unknown".to_owned()];
    assert_eq!(edges_of(&[], &bridges), (both, Reach::Network));
    let vlan = [("network_type", "vlan"), ("segmentation_id", "1100")];
    assert_eq!(edges_of(&vlan, &bridges).0, ["eth0 Nic Vlan(1100)"]);
    assert_eq!(edges_of(&[("network_type", "flat")], &bridges).0, ["eth0 Nic Untagged"]);
    let overlay = [("network_type", "vxlan"), ("segmentation_id", "7")];
    assert_eq!(edges_of(&overlay, &bridges).0, ["vxlan-1 Tunnel Unknown"]);
    // l2population makes no tunnel until another host has a port of the network.
    assert_eq!(edges_of(&overlay, &bridges[..2]), (vec![], Reach::Host));
}

/// Its patch port is the guest's, and no provider bridge is behind it.
#[test]
fn the_vlan_of_a_sub_port_is_that_of_its_port() {
    let trunk: &[&str] = &["tap0", "tpt-1:patch:tpi-1", "spt-2:patch:spi-2"];
    let br_int: &[&str] = &["tpi-1:patch:tpt-1", "spi-2:patch:spt-2", "eth0"];
    let mut world = on_ovs(&[("tbr-1", trunk), ("br-int", br_int)], &[link(9, "eth0", "", 0, 0)]);
    let sub_port = world.ovs.interfaces.get_mut("i-spi-2").unwrap();
    sub_port.external_ids.insert("iface-id".into(), "0f".into());
    world.ovs.reindex();
    let attachment =
        resolve(&plug("spi-2"), Tag::Untagged, &world.links, &world.ovs, &world.uplinks).unwrap();
    assert_eq!(edges(&attachment.way), ["eth0 Nic Unknown"]);
}

/// Neutron's trunk driver writes the iface-id on the tap and on both ends of the patch.
#[test]
fn a_trunks_patch_port_with_the_guests_iface_id_leads_on() {
    let trunk: &[&str] = &["tap0", "tpt-1:patch:tpi-1", "spt-2:patch:spi-2"];
    let br_int: &[&str] = &["tpi-1:patch:tpt-1", "spi-2:patch:spt-2", "tap9", "eth0"];
    let mut world = on_ovs(&[("tbr-1", trunk), ("br-int", br_int)], &[link(9, "eth0", "", 0, 0)]);
    let ids = [("tap0", "a"), ("tpt-1", "a"), ("tpi-1", "a"), ("spt-2", "b"), ("spi-2", "b"), ("tap9", "c")];
    for (port, id) in ids {
        let interface = world.ovs.interfaces.get_mut(&format!("i-{port}")).unwrap();
        interface.external_ids.insert("iface-id".into(), id.into());
    }
    world.ovs.reindex();
    assert_eq!(names(&world.way()), "tap0 tbr-1 br-int eth0");
    assert_eq!(edges(&world.way()), ["eth0 Nic Unknown"]);
}
