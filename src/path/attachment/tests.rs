//! Where a guest's NIC is attached, by devices and OVSDB's rows; and the devices and rows of other tests.

use super::*;
use crate::path::hop::{Edge, Role, Via};
use crate::path::link;
use crate::path::ovs::Port;

/// The attachment of this device's NIC on a host without configured uplinks.
pub(crate) fn find(device: &str, links: &Links, ovs: &Ovs) -> Result<Attachment, Condition> {
    resolve(&plug(device), Tag::Untagged, links, ovs, &Uplinks::default())
}

/// A device; `master` and `peer` are indexes, 0 for none. Without a kind it is a NIC. The name of a VLAN device has the
/// VLAN after a dot.
pub(crate) fn link(index: u32, name: &str, kind: &str, master: u32, peer: u32) -> Link {
    Link {
        index,
        name: name.into(),
        up: true,
        lower_up: true,
        kind: Some(kind.to_owned()).filter(|k| !k.is_empty()),
        has_hardware: kind.is_empty(),
        vlan_id: name.split_once('.').and_then(|(_, vlan)| vlan.parse().ok()),
        master: Some(master).filter(|m| *m > 0),
        link: Some(peer).filter(|p| *p > 0),
        bridge: (kind == "bridge").then(link::Bridge::default),
        port: (master > 0).then_some(link::BridgePort {
            state: link::PortState::Forwarding,
            ..link::BridgePort::default()
        }),
        ..Link::default()
    }
}

pub(crate) fn plug(device: &str) -> Plug {
    Plug { device: Some(device.into()), ..Plug::default() }
}

/// Bridges with their ports, each `name[:type[:peer]]`, with OpenFlow port numbers from 1.
pub(crate) fn ovs(bridges: &[(&str, &[&str])]) -> Ovs {
    let mut ovs = Ovs::default();
    for (bridge, ports) in bridges {
        let mut row = Bridge { name: (*bridge).into(), ..Bridge::default() };
        for (n, port) in ports.iter().enumerate() {
            let mut parts = port.split(':');
            let name = parts.next().unwrap_or_default().to_owned();
            let kind = parts.next().unwrap_or_default().to_owned();
            let options = parts.next().map(|peer| ("peer".to_owned(), peer.to_owned()));
            let interface = Interface {
                name: name.clone(),
                kind,
                ofport: Some(n as i64 + 1),
                options: options.into_iter().collect(),
                ..Interface::default()
            };
            let port = Port { name: name.clone(), interfaces: vec![format!("i-{name}")], ..Port::default() };
            ovs.interfaces.insert(format!("i-{name}"), interface);
            ovs.ports.insert(format!("p-{name}"), port);
            row.ports.push(format!("p-{name}"));
        }
        ovs.bridges.insert(format!("b-{bridge}"), row);
    }
    ovs.reindex();
    ovs
}

/// A tap on br-int with the uplink eth0.
pub(crate) fn tap_on_br_int() -> Attachment {
    let links = Links::from_iter([link(2, "tap0", "tun", 0, 0), link(4, "eth0", "", 0, 0)]);
    find("tap0", &links, &ovs(&[("br-int", &["tap0", "eth0"])])).unwrap()
}

fn names(attachment: &Attachment) -> String {
    attachment.way.hops.iter().map(|hop| hop.name.as_str()).collect::<Vec<_>>().join(" ")
}

fn path(device: &str, links: &Links, ovs: &Ovs) -> (Kind, String, String) {
    let attachment = find(device, links, ovs).unwrap();
    let port = format!("{}/{}", attachment.bridge, attachment.port);
    (attachment.kind, names(&attachment), port)
}

#[test]
fn a_tap_on_a_linux_bridge() {
    let links = Links::from_iter([
        link(1, "br0", "bridge", 0, 0),
        link(2, "tap0", "tun", 1, 0),
        link(3, "tap1", "tun", 1, 0),
        link(4, "eth0", "", 1, 0),
    ]);
    let expected = (Kind::LinuxBridge, "tap0 br0 eth0".into(), "br0/tap0".into());
    assert_eq!(path("tap0", &links, &Ovs::default()), expected);
}

#[test]
fn an_uplink_is_followed_down_to_the_devices_that_leave_the_host() {
    let links = Links::from_iter([
        link(1, "br0", "bridge", 0, 0),
        link(2, "tap0", "tun", 1, 0),
        link(3, "bond0.100", "vlan", 1, 4),
        link(4, "bond0", "bond", 0, 0),
        link(5, "eth0", "", 4, 0),
        link(6, "eth1", "", 4, 0),
    ]);
    let attachment = find("tap0", &links, &Ovs::default()).unwrap();
    assert_eq!(names(&attachment), "tap0 br0 bond0.100 bond0 eth0 eth1");
    let [.., bond, eth0, _] = &attachment.way.hops[..] else { panic!() };
    assert_eq!((bond.role, eth0.role), (Role::Upper, Role::Edge(Edge::Nic)));
    assert_eq!(eth0.via, Some(Via::of("br0", "bond0.100")));
}

#[test]
fn a_bond_of_open_vswitch_leaves_by_its_members() {
    let links = Links::from_iter([
        link(2, "tap0", "tun", 0, 0),
        link(4, "eth0", "", 0, 0),
        link(5, "eth1", "", 0, 0),
    ]);
    let mut ovs = ovs(&[("br-int", &["tap0", "eth0", "eth1"])]);
    let member = ovs.ports.remove("p-eth1").unwrap();
    let bond = ovs.ports.get_mut("p-eth0").unwrap();
    bond.name = "bond0".into();
    bond.interfaces.extend(member.interfaces);
    ovs.reindex();
    let attachment = find("tap0", &links, &ovs).unwrap();
    assert_eq!(names(&attachment), "tap0 br-int bond0 eth0 eth1");
    assert_eq!(attachment.way.hops[4].via, Some(Via::of("br-int", "bond0")));
}

#[test]
fn the_path_of_a_tap_on_br_int_ends_behind_the_provider_bridge() {
    let links = Links::from_iter([link(2, "tap0", "tun", 0, 0), link(4, "eth0", "", 0, 0)]);
    let ovs = ovs(&[
        ("br-int", &["tap0", "tap1", "int-br-ex:patch:phy-br-ex", "br-int:internal"]),
        ("br-ex", &["phy-br-ex:patch:int-br-ex", "eth0"]),
    ]);
    let mut ovs = ovs;
    ovs.interfaces.get_mut("i-tap1").unwrap().external_ids = [("iface-id".to_owned(), "x".to_owned())].into();
    ovs.reindex();
    let expected = (Kind::Ovs, "tap0 br-int br-ex eth0".into(), "br-int/tap0".into());
    assert_eq!(path("tap0", &links, &ovs), expected);
}

fn hybrid_links() -> Links {
    Links::from_iter([
        link(1, "qbr6f7d3c1a-11", "bridge", 0, 0),
        link(2, "tap6f7d3c1a-11", "tun", 1, 0),
        link(3, "qvb6f7d3c1a-11", "veth", 1, 4),
        link(4, "qvo6f7d3c1a-11", "veth", 0, 3),
        link(5, "bond0", "", 0, 0),
    ])
}

#[test]
fn a_hybrid_plug_is_followed_through_its_veth() {
    let ovs = ovs(&[("br-int", &["qvo6f7d3c1a-11", "bond0"])]);
    let (kind, hops, port) = path("tap6f7d3c1a-11", &hybrid_links(), &ovs);
    assert_eq!(kind, Kind::Hybrid);
    assert_eq!(hops, "tap6f7d3c1a-11 qbr6f7d3c1a-11 qvb6f7d3c1a-11 qvo6f7d3c1a-11 br-int bond0");
    assert_eq!(port, "br-int/qvo6f7d3c1a-11");
}

#[test]
fn a_hybrid_plug_that_is_not_in_ovs_yet_is_no_plain_bridge() {
    let missing = find("tap6f7d3c1a-11", &hybrid_links(), &Ovs::default()).unwrap_err();
    let device = "qvo6f7d3c1a-11".into();
    assert_eq!(missing, Condition::NotInOvs { device });
}

#[test]
fn a_trunk_bridge_is_followed_to_its_untagged_patch() {
    let links = Links::from_iter([link(2, "tap0", "tun", 0, 0), link(4, "eth0", "", 0, 0)]);
    let mut ovs = ovs(&[
        ("tbr-1", &["tap0", "spt-1:patch:spi-1", "tpt-1:patch:tpi-1"]),
        ("br-int", &["tpi-1:patch:tpt-1", "spi-1:patch:spt-1", "eth0"]),
    ]);
    ovs.ports.get_mut("p-spt-1").unwrap().tag = Some(42);
    let expected = (Kind::TrunkBridge, "tap0 tbr-1 br-int eth0".into(), "br-int/tpi-1".into());
    assert_eq!(path("tap0", &links, &ovs), expected);
}

#[test]
fn a_macvtap_leaves_by_its_lower_device() {
    let links = Links::from_iter([link(2, "macvtap0", "macvtap", 0, 4), link(4, "eth0", "", 0, 0)]);
    let expected = (Kind::Macvtap, "macvtap0 eth0".into(), "eth0/macvtap0".into());
    assert_eq!(path("macvtap0", &links, &Ovs::default()), expected);
}

#[test]
fn a_vhost_user_port_is_found_by_name_id_or_socket() {
    let mut ovs = ovs(&[("br-int", &["vhu0:dpdkvhostuserclient", "dpdk0:dpdk"])]);
    let interface = ovs.interfaces.get_mut("i-vhu0").unwrap();
    interface.external_ids.insert("iface-id".into(), "id".into());
    interface.options.insert("vhost-server-path".into(), "/run/a/sock".into());
    ovs.reindex();
    let plugs = [
        plug("vhu0"),
        Plug { interface_id: Some("id".into()), ..Plug::default() },
        Plug { socket: Some("/run/a/sock".into()), ..Plug::default() },
        Plug { socket: Some("/run/openvswitch/vhu0".into()), ..Plug::default() },
    ];
    for plug in plugs {
        let attachment = resolve(&plug, Tag::Untagged, &Links::default(), &ovs, &Uplinks::default()).unwrap();
        assert_eq!(attachment.kind, Kind::VhostUser, "{plug:?}");
        assert_eq!(names(&attachment), "vhu0 br-int dpdk0");
    }
}

#[test]
fn the_missing_part_is_named() {
    let links = Links::from_iter([link(2, "tap0", "tun", 0, 0)]);
    for (plug, words) in [
        (plug("tap9"), "tap9 does not exist"),
        (plug("tap0"), "tap0 is not plugged"),
        (Plug::default(), "names no device"),
    ] {
        let missing = resolve(&plug, Tag::Untagged, &links, &Ovs::default(), &Uplinks::default())
            .unwrap_err()
            .to_string();
        assert!(missing.contains(words), "{missing}");
    }
}

/// The driver of some cards serves DPDK and the kernel at once, and keeps their devices.
#[test]
fn frames_that_dpdk_transmits_do_not_pass_its_device() {
    let links = Links::from_iter([link(2, "tap0", "tun", 0, 0), link(4, "eth0", "", 0, 0)]);
    for (uplink, index, edge) in
        [("eth0", Some(4), Edge::Nic), ("eth0:dpdk", None, Edge::Bypass), ("eth0:afxdp", None, Edge::Bypass)]
    {
        let attachment = find("tap0", &links, &ovs(&[("br-int", &["tap0", uplink])])).unwrap();
        let exit = attachment.way.hops.last().unwrap();
        assert_eq!((exit.role, exit.ifindex), (Role::Edge(edge), index), "{uplink}");
    }
}

#[test]
fn the_kernels_datapath_has_a_device_for_all_tunnels_of_a_kind() {
    let tap = link(2, "tap0", "tun", 0, 0);
    let mut ovs = ovs(&[("br-int", &["tap0", "vxlan-1:vxlan", "vxlan-2:vxlan", "geneve-1:geneve"])]);
    let in_user_space = find("tap0", &Links::from_iter([tap.clone()]), &ovs).unwrap();
    assert_eq!(names(&in_user_space), "tap0 br-int geneve-1 vxlan-1 vxlan-2");

    let dst_port = ("dst_port".to_owned(), "6000".to_owned());
    ovs.interfaces.get_mut("i-geneve-1").unwrap().options = [dst_port].into();
    let devices = [link(3, "vxlan_sys_4789", "vxlan", 0, 0), link(4, "genev_sys_6000", "geneve", 0, 0)];
    let links = Links::from_iter([tap].into_iter().chain(devices));
    let attachment = find("tap0", &links, &ovs).unwrap();
    assert_eq!(names(&attachment), "tap0 br-int geneve-1 genev_sys_6000 vxlan-1 vxlan_sys_4789");
    let [.., port, device] = &attachment.way.hops[..] else { panic!() };
    assert_eq!((port.role, device.role, device.ifindex), (Role::Ovs, Role::Edge(Edge::Tunnel), Some(3)));
    assert_eq!(device.via, Some(Via::of("br-int", "vxlan_sys_4789")));
}

#[test]
fn patches_in_a_circle_end() {
    let ovs = ovs(&[
        ("a", &["tap0", "a1:patch:b1", "a2:patch:b2"]),
        ("b", &["b1:patch:a1", "b2:patch:a2", "eth0"]),
    ]);
    let links = Links::from_iter([link(2, "tap0", "tun", 0, 0), link(4, "eth0", "", 0, 0)]);
    assert_eq!(path("tap0", &links, &ovs).1, "tap0 a b eth0");
}
