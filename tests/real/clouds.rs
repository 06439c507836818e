//! Shapes that clouds make of a guest's port.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::testbed::{
    Capture, DEADLINE, Direction, Frame, Guest, Host, IPV4, Nic, Place, Plug, Stand, guest, linux_bridge,
    ovs, report, require, rounds_sent, stand,
};

const TRUNK: &str = "<vlan trunk='yes'><tag id='42'/><tag id='43'/><tag id='4094'/></vlan>";
const ROUNDS: [&str; 5] = ["--interval", "300ms", "--count", "9", "--json"];

/// How many RARPs came in which VLAN; nothing else came.
fn rarps(frames: &[Frame]) -> BTreeMap<Option<u16>, usize> {
    let mut counts = BTreeMap::new();
    for frame in frames {
        assert_eq!((frame.kind.name(), &frame.complaints[..]), ("rarp", &[][..]), "{frame:#?}");
        *counts.entry(frame.vlan).or_default() += 1;
    }
    counts
}

/// Three rounds of a RARP in each VLAN; one that counts as lost on a busy machine is sent again.
fn three_rounds_came(wire: Capture, report: &Value) {
    let sent = rounds_sent(report);
    assert!(wire.sees(3 * sent, DEADLINE), "{report:#}");
    assert_eq!(rarps(&wire.stop()), [42, 43, 4094].map(|vlan| (Some(vlan), sent)).into(), "{report:#}");
    assert_eq!((&report["rounds"], &report["frames"]["rarp"]), (&3.into(), &(3 * sent).into()), "{report:#}");
    assert!(report["frames_left"]["rarp"].as_u64() >= Some(9), "{report:#}");
}

#[test]
fn a_trunk_without_a_native_vlan_gets_a_tagged_rarp_in_each() {
    require!(lab, ovs, libvirt, tshark);
    let host = Host::build().ovs().libvirt().start();
    ovs::bridge(&host, "br-int");
    let nic = Nic::new(41, Plug::Ovs("br-int")).with(TRUNK);
    Guest::new("router").nic(&nic).start(&host);
    for method in ["packet-out", "redirect", "xdp"] {
        let wire = Capture::start(&host.wire(), "wire0", Direction::In, &nic.sent());
        // Of its addresses nothing says in which VLAN they are.
        let run = host
            .announce(&[&["--vm", "router", "--ip", "192.0.2.41", "--inject", method], &ROUNDS[..]].concat());
        assert_eq!(run.code, Some(0), "{method}: {run:#?}");
        let report = report(&run);
        three_rounds_came(wire, &report);
        assert_eq!(report["trunk"], true);
        let vlans: Vec<_> =
            report["departures"].as_array().unwrap().iter().map(|left| left["vlan"].as_u64()).collect();
        assert_eq!(vlans, [42, 43, 4094].map(Some), "{report:#}");
    }

    // One of its VLANs is dropped: that is told by its number.
    host.sh("ovs-ofctl add-flow br-int priority=9,dl_vlan=43,actions=drop");
    let explained = host.announce(&["explain", "router"]).stdout;
    let held = "  held        rarp in VLAN 43: br-int table 0: priority=9,dl_vlan=43 actions=drop\n";
    assert!(explained.contains(held), "{explained}");
    let explained = report(&host.announce(&["explain", "router", "--json"]));
    assert_eq!(explained["holds"][0]["vlans"], serde_json::json!([43]));
    let run = host.announce(&[&["--vm", "router"], &ROUNDS[..]].concat());
    assert!(report(&run)["stuck"][0].as_str().unwrap().starts_with("rarp in VLAN 43 "), "{run:#?}");
}

/// A setting of a bridge's port that holds frames back is named, and which frames it holds.
#[test]
fn a_setting_of_a_linux_bridge_is_named() {
    require!(lab, tshark);
    let stand = Stand::linux_bridge();
    let tap = stand.nic.tap();
    for (set, unset, told) in [
        // Before the bridge has learned where the guest is.
        ("{tap} locked on", "{tap} locked off", "the port {tap} of br0 is locked"),
        (
            "{tap} isolated on; bridge link set dev up0 isolated on",
            "{tap} isolated off",
            "up0 of br0 is isolated",
        ),
        (
            "up0 mcast_flood off",
            "up0 mcast_flood on",
            "na did not leave br0: the port up0 of br0 has mcast_flood off",
        ),
        (
            "up0 bcast_flood off",
            "up0 bcast_flood on",
            "arp-request, arp-reply, rarp did not leave br0: the port up0 of br0 has bcast_flood off",
        ),
    ] {
        let bridge = |change: &str| {
            stand.host.sh(&format!("bridge link set dev {}", change.replace("{tap}", &tap)));
        };
        bridge(set);
        let run = stand.announce(&["--count", "2", "--wait", "1s"]);
        let told = told.replace("{tap}", &tap);
        assert!(run.code == Some(1) && run.stderr.contains(&told), "{told}: {run:#?}");
        bridge(unset);
    }
    // A locked port takes frames from a MAC that the operator has put there.
    let entry = format!("{} dev {tap} master static", stand.nic.mac);
    stand.host.sh(&format!("bridge link set dev {tap} locked on; bridge fdb replace {entry}"));
    let run = stand.announce(&["--count", "2"]);
    assert_eq!(run.code, Some(0), "{run:#?}");
}

/// As neutron's l2population answers ARP for a guest that it still has at another host.
#[test]
fn a_verdict_is_of_each_kind_of_frame() {
    require!(lab, ovs, tshark);
    let stand = Stand::open_vswitch();
    let (host, tap) = (&stand.host, stand.nic.tap());
    host.sh(&format!(
        "ovs-vsctl del-port br-int up0 -- set Port {tap} other_config:network_type=vxlan
         ovs-vsctl add-br br-phy -- set Bridge br-phy datapath_type=netdev -- add-port br-phy up0 \
             -- add-br br-tun -- set Bridge br-tun datapath_type=netdev \
             -- add-port br-int patch-tun -- set Interface patch-tun type=patch options:peer=patch-int \
             -- add-port br-tun patch-int -- set Interface patch-int type=patch options:peer=patch-tun \
             -- add-port br-tun vxlan0 \
             -- set Interface vxlan0 type=vxlan options:remote_ip=198.51.100.2 options:local_ip=198.51.100.1 options:key=flow
         ip address add 198.51.100.1/24 dev br-phy; ip link set br-phy up
         ovs-appctl tnl/neigh/set br-phy 198.51.100.2 02:00:00:00:00:02
         ovs-ofctl del-flows br-tun
         ovs-ofctl add-flow br-tun 'priority=2,arp,arp_tpa={IPV4},actions=in_port'
         ovs-ofctl add-flow br-tun 'priority=1,in_port=patch-int,actions=strip_vlan,set_tunnel:1001,output:vxlan0'"
    ));
    let wire = Capture::start(&host.wire(), "wire0", Direction::In, "udp port 4789");
    let given = Capture::start(host, &tap, Direction::Out, "arp");
    let target = ["--dev", &tap, "--mac", &stand.nic.mac, "--ip", IPV4];
    let run = host.announce(&[&target[..], &["--count", "2", "--wait", "5s", "--json"]].concat());
    let report = report(&run);
    // RARP left by the tunnel; both forms of ARP did not enter it.
    assert_eq!((run.code, &report["outcome"]), (Some(1), &"announced".into()));
    assert_eq!(report["not_left"], serde_json::json!([IPV4]), "{report:#}");
    let stuck = report["stuck"][0].as_str().unwrap();
    assert!(stuck.starts_with("arp-request, arp-reply did not leave"), "{stuck}");
    let kinds = report["kinds"].as_array().unwrap().iter();
    let fates: Vec<_> = kinds.map(|kind| (&kind["kind"], &kind["fate"])).collect();
    let expected = [("arp-request", "not-left"), ("arp-reply", "not-left"), ("rarp", "left")];
    let expected = expected.map(|(kind, fate)| (kind.into(), fate.into()));
    assert_eq!(fates, expected.each_ref().map(|(kind, fate)| (kind, fate)), "{report:#}");
    let departure = &report["departure"];
    assert_eq!((&departure["port"], &departure["vni"]), (&"vxlan0".into(), &1001.into()), "{report:#}");
    assert_eq!(report["unseen"], Value::Null, "{report:#}");
    assert!(stuck.contains(&format!("; goes to {tap} itself")), "{stuck}");
    assert!(wire.sees(2, DEADLINE) && given.sees(4, DEADLINE), "{report:#}");
    let traced = host.announce(&[&["trace"], &target[..]].concat());
    assert!(
        traced.code == Some(1) && traced.stdout.contains("ofproto/trace: arp-request, arp-reply: "),
        "{traced:#?}"
    );

    host.sh("ovs-ofctl del-flows br-tun arp");
    let run = host.announce(&[&target[..], &["--count", "2"]].concat());
    assert_eq!(run.code, Some(0), "{run:#?}");
}

/// A first round of which only the RARP leaves is sent again for a moment, each time a little later: not without a pause.
#[test]
fn a_port_that_lets_only_rarp_pass_gets_few_rounds() {
    require!(lab, ovs);
    let stand = Stand::open_vswitch();
    let flow = format!("priority=100,arp,in_port={},actions=drop", stand.nic.tap());
    stand.host.sh(&format!("ovs-ofctl add-flow br-int {flow}"));
    let target = ["--dev", &stand.nic.tap(), "--mac", &stand.nic.mac, "--ip", IPV4];
    let run = stand.host.announce(&[&target[..], &["--count", "2", "--wait", "0", "--json"]].concat());
    let report = report(&run);
    assert_eq!((run.code, &report["rounds"], &report["not_left"][0]), (Some(1), &2.into(), &IPV4.into()));
    assert!((1..20).contains(&report["lost_rounds"].as_u64().unwrap()), "{report:#}");
}

/// As Calico and Ganeti plug a guest: a host route by the tap, and no bridge.
#[test]
fn a_tap_that_this_host_routes_to_is_told_at_once() {
    require!(lab);
    let host = Host::build().start();
    let nic = Nic::new(43, Plug::EthernetUnmanaged);
    let _carrier = stand::taps(&host, std::slice::from_ref(&nic));
    let tap = nic.tap();
    host.sh(&format!("ip link set {tap} up; ip route add 192.0.2.43/32 dev {tap}"));
    for ip in ["192.0.2.43", "192.0.2.44"] {
        let target = ["--dev", &tap, "--mac", &nic.mac, "--ip", ip];
        let run = host.announce(&[&target[..], &["--wait", "300ms"]].concat());
        match ip {
            "192.0.2.43" => {
                let words = "is on no bridge, and this host routes to 192.0.2.43 by it";
                assert!(run.code == Some(1) && run.stderr.contains(words), "{run:#?}");
                let explained = host.announce(&[&["explain"], &target[..]].concat());
                let ready = format!("ready       no: {tap} {words}");
                assert!(explained.stdout.contains(&ready), "{}", explained.stdout);
                let traced = host.announce(&[&["trace"], &target[..]].concat());
                assert!(traced.code == Some(1) && traced.stdout.contains(words), "{traced:#?}");
            }
            _ => assert_eq!(run.code, Some(3), "another address may yet be plugged: {run:#?}"),
        }
    }
}

/// libvirt's test driver takes what its QEMU driver learns later: a trunk on a Linux bridge, and on a macvtap.
#[test]
fn every_way_in_takes_tagged_frames() {
    require!(lab, libvirt, tshark);
    let _alone = guest::macvtaps();
    let host = Host::build().start();
    let on_bridge = Nic::new(42, Plug::Bridge("br0")).with(TRUNK);
    let macvtap = Nic::new(44, Plug::Direct("up0")).with(TRUNK);
    host.sh(&format!(
        "ip link add {} link up0 address {} type macvtap mode bridge; ip link set {0} up",
        macvtap.tap(),
        macvtap.mac
    ));
    let announce = |nic: &Nic, method: &str| {
        let uri = described(&host, nic);
        let wire = Capture::start(&host.wire(), "wire0", Direction::In, &nic.sent());
        let way = ["--connect", &uri, "--vm", "router", "--inject", method];
        let run = host.announce(&[&way[..], &ROUNDS[..]].concat());
        if run.stderr.contains("vlan tag not supported for this connection type") {
            return println!("libvirt 12 has no macvtap with a <vlan>");
        }
        assert_eq!(run.code, Some(0), "{method}: {run:#?}");
        three_rounds_came(wire, &report(&run));
    };
    announce(&macvtap, "packet");
    host.sh(&format!("ip link delete {}", macvtap.tap()));
    linux_bridge::bridge(&host, "br0");
    let _carrier = stand::taps(&host, std::slice::from_ref(&on_bridge));
    host.sh(&format!("ip link set {} master br0 up", on_bridge.tap()));
    ["redirect", "xdp", "fdb"].iter().for_each(|method| announce(&on_bridge, method));
}

/// The URI of a test driver that has a guest `router` with this NIC.
fn described(host: &Host, nic: &Nic) -> String {
    let guest = Guest::new("router").of_test_driver().nic(nic).xml();
    let file = host.directory().join("node.xml");
    std::fs::write(&file, format!("<node>{guest}</node>")).unwrap();
    format!("test://{}", file.display())
}
