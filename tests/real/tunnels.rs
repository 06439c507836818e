//! Frames that leave inside a tunnel: what is said of them, against what the other end of the tunnel has heard.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::testbed::capture::told_by_tcpdump;
use crate::testbed::site::CALM;
use crate::testbed::{
    Capture, DEADLINE, Direction, Host, IPV4, IPV6, Place, Running, Stand, eventually, kinds, report,
    require, sent,
};

const QUICK: [&str; 7] = ["--count", "2", "--interval", "300ms", "--wait", "0", "--json"];
const GATEWAY: &str = "192.0.2.1";

/// A guest on br0, and up0 beside it, with the underlay's address.
const ON_BR0: &str = "ip link add br0 type bridge forward_delay 0 mcast_snooping 0
    ip link set br0 up
    ip link set TAP master br0";

/// How this host and the one at the other end of the wire make the tunnel.
const IPV4_UNDERLAY: [&str; 2] = [
    "ip address add 198.51.100.1/24 dev up0
     ip link add vxlan0 type vxlan id 22 remote 198.51.100.2 dev up0 dstport 4789",
    "ip address add 198.51.100.2/24 dev wire0
     ip link add vxlan0 type vxlan id 22 remote 198.51.100.1 dev wire0 dstport 4789",
];
const IPV6_UNDERLAY: [&str; 2] = [
    "sysctl -qw net.ipv6.conf.up0.disable_ipv6=0
     ip address add 2001:db8:1::1/64 dev up0 nodad
     ip link add vxlan0 type vxlan id 22 remote 2001:db8:1::2 dev up0 dstport 8472",
    "sysctl -qw net.ipv6.conf.wire0.disable_ipv6=0
     ip address add 2001:db8:1::2/64 dev wire0 nodad
     ip link add vxlan0 type vxlan id 22 remote 2001:db8:1::1 dev wire0 dstport 8472",
];
/// Routes decide by which NIC it leaves, and the FDB has the remote ends.
const EVPN_UNDERLAY: [&str; 2] = [
    "ip address add 198.51.100.1/24 dev up0
     ip link add vxlan0 type vxlan id 22 local 198.51.100.1 dstport 4789 nolearning
     bridge fdb append 00:00:00:00:00:00 dev vxlan0 dst 198.51.100.2",
    IPV4_UNDERLAY[1],
];

fn on_linux_bridge(underlay: [&str; 2]) -> Stand {
    let stand = Stand::new(Host::build().start());
    let [here, there] = underlay;
    stand.host.sh(&format!(
        "{}\n{here}\nip link set vxlan0 master br0 up",
        ON_BR0.replace("TAP", &stand.nic.tap())
    ));
    stand.host.wire().sh(&format!("{there}\nip link set vxlan0 up; ip address add {GATEWAY}/24 dev vxlan0"));
    stand
}

fn departure(port: &str, bridge: &str, vni: Option<u32>) -> Value {
    json!({ "device": "up0", "bridge": bridge, "port": port, "vlan": null, "edge": "tunnel", "vni": vni })
}

/// The kernel at the other end unwraps them.
#[test]
fn by_a_tunnel_of_the_kernel() {
    require!(lab, tshark);
    for underlay in [IPV4_UNDERLAY, IPV6_UNDERLAY, EVPN_UNDERLAY] {
        let stand = on_linux_bridge(underlay);
        let far = Capture::start(&stand.host.wire(), "vxlan0", Direction::In, &stand.nic.sent());
        let run = stand.announce(&QUICK);
        let report = report(&run);
        assert_eq!((run.code, &report["unseen"]), (Some(0), &Value::Null), "{underlay:?} {report:#}");
        assert_eq!(report["departure"], departure("vxlan0", "br0", Some(22)), "{underlay:?}");
        assert!(far.sees(sent(&report), DEADLINE), "{underlay:?}");
        let mut heard: BTreeMap<String, u64> = BTreeMap::new();
        for kind in kinds(&far.stop()) {
            *heard.entry(kind.replace('-', "_")).or_default() += 1;
        }
        for (kind, heard) in heard {
            assert_eq!(report["frames_left"][&kind], heard, "{kind} {underlay:?} {report:#}");
        }

        let asked = stand.announce(&["--ask", GATEWAY, "--count", "2", "--json"]);
        let report = self::report(&asked);
        assert_eq!(report["answered_by"], "network", "{underlay:?} {report:#}");
        let traced = stand.announce(&["trace"]);
        assert!(traced.stdout.contains("left br0 by vxlan0 over up0 with VNI 22 after "), "{traced:#?}");
        assert!(traced.stdout.contains("vxlan0 over up0"), "{traced:#?}");
    }
}

/// What does not enter the tunnel is lost, and so is what enters it while its NIC is down.
#[test]
fn into_a_tunnel_of_the_kernel_and_no_further() {
    require!(lab, tshark, nft);
    let stand = on_linux_bridge(IPV4_UNDERLAY);
    let far = Capture::start(&stand.host.wire(), "vxlan0", Direction::In, &stand.nic.sent());
    let fails = |why: &str| {
        let run = stand.announce(&QUICK);
        assert!(run.code == Some(1) && run.stderr.contains(why), "{why}: {run:#?}");
        assert_eq!((&report(&run)["departure"], far.count()), (&Value::Null, 0));
    };
    stand.host.sh("nft add table bridge filter
        nft 'add chain bridge filter forward { type filter hook forward priority 0; policy drop; }'");
    fails("did not leave br0: a filter, perhaps: see nft list ruleset, and ebtables");
    stand.host.sh("nft flush ruleset; ip link set up0 down");
    fails("up0 is down");

    // The kernel drops frames for which it has no remote end. It might have encrypted them as well.
    stand.host.sh("ip link set up0 up; ip link delete vxlan0
        ip link add vxlan0 type vxlan id 22 local 198.51.100.1 dstport 4789 nolearning; ip link set vxlan0 master br0 up");
    let run = stand.announce(&QUICK);
    let report = report(&run);
    let unseen = report["unseen"].as_str().unwrap();
    assert!(unseen.contains("no encapsulated frame was seen on up0"), "{unseen}");
    assert_eq!((&report["departure"], &report["frames_left"], far.count()), (&Value::Null, &Value::Null, 0));
}

/// A guest on br-int, and br-phy with the uplink and the underlay's address, as Open vSwitch has it in user space.
fn on_open_vswitch() -> Stand {
    let stand = Stand::new(Host::build().ovs().start());
    stand.host.sh(&format!(
        "ovs-vsctl add-br br-phy -- set Bridge br-phy datapath_type=netdev -- add-port br-phy up0 \
             -- add-br br-int -- set Bridge br-int datapath_type=netdev -- add-port br-int {}
         ip address add 198.51.100.1/24 dev br-phy
         ip link set br-phy up",
        stand.nic.tap()
    ));
    stand.host.wire().sh("for n in 2 3 4; do ip address add 198.51.100.$n/24 dev wire0; done");
    stand
}

/// A tunnel port, once Open vSwitch has its route and knows the MAC of its other end: what enters it before is lost.
fn tunnel(host: &Host, name: &str, kind: &str, remote: &str) {
    host.sh(&format!(
        "ovs-vsctl add-port br-int {name} -- set Interface {name} type={kind} options:remote_ip={remote} options:key=77
         ovs-vsctl --timeout=60 wait-until Interface {name} status:tunnel_egress_iface=br-phy
         until busybox ping -c 1 -W 1 {remote}; do :; done"
    ));
}

/// What tcpdump says of encapsulated frames on the wire.
fn on_the_wire(host: &Host) -> Running {
    told_by_tcpdump(&host.wire(), "wire0", "udp port 4789 or udp port 6081 or proto gre")
}

/// Each kind of frame was heard as often as the report says that it has left.
fn agrees(wire: &Running, report: &Value) {
    let words = [
        ("arp_request", format!("who-has {IPV4} tell {IPV4}")),
        ("arp_reply", format!("Reply {IPV4} is-at")),
        ("na", format!("tgt is {IPV6}")),
        ("rarp", "Reverse Request who-is".to_owned()),
    ];
    for (kind, words) in words {
        let left = report["frames_left"][kind].as_u64().unwrap();
        eventually(&words, || {
            let heard =
                wire.stdout.wait(|said, _| Some(String::from_utf8_lossy(said).matches(&words).count()));
            (heard == Some(left as usize)).then_some(())
        });
    }
}

#[test]
fn by_a_tunnel_of_open_vswitch() {
    require!(lab, ovs, tshark);
    for kind in ["vxlan", "geneve", "gre"] {
        let stand = on_open_vswitch();
        tunnel(&stand.host, "tunnel0", kind, "198.51.100.2");
        let wire = on_the_wire(&stand.host);
        let run = stand.announce(&[&CALM[..], &["--json"]].concat());
        let told = report(&run);
        assert_eq!((run.code, &told["unseen"]), (Some(0), &Value::Null), "{kind} {told:#}");
        let vni = (kind != "gre").then_some(77);
        assert_eq!(told["departure"], departure("tunnel0", "br-int", vni), "{kind}");
        agrees(&wire, &told);

        // What a flow drops is lost, and sent again when the flow is gone.
        let wire = on_the_wire(&stand.host);
        let drop = format!("priority=9,in_port={}", stand.nic.tap());
        stand.host.sh(&format!("ovs-ofctl add-flow br-int {drop},actions=drop"));
        let announce = stand.start_announce(&["--count", "2", "--wait", "60s", "-v", "--json"]);
        let line = announce.stderr.line_with("nothing leaves the host");
        assert!(line.contains("actions=drop"), "{line}");
        let said = wire.stdout.wait(|said, _| Some(String::from_utf8_lossy(said).into_owned())).unwrap();
        assert_eq!(said, "", "{kind}");
        stand.host.sh(&format!("ovs-ofctl --strict del-flows br-int {drop}"));
        let run = announce.finish();
        let told = report(&run);
        assert_eq!((run.code, &told["departure"]["port"]), (Some(0), &"tunnel0".into()), "{kind} {told:#}");
        assert!(told["lost_rounds"].as_u64() > Some(0), "{kind} {told:#}");
        agrees(&wire, &told);
    }
}

/// The underlay has a port of its own, in a VLAN on the wire, which is no VLAN of the guest's.
#[test]
fn by_a_tunnel_whose_underlay_is_in_a_vlan() {
    require!(lab, ovs, tshark);
    let stand = on_open_vswitch();
    stand.host.sh("ip address flush dev br-phy
        ovs-vsctl add-port br-phy vtep tag=7 -- set Interface vtep type=internal
        ip address add 198.51.100.1/24 dev vtep; ip link set vtep up
        ovs-vsctl add-port br-int tunnel0 -- set Interface tunnel0 type=vxlan options:remote_ip=198.51.100.2 options:key=77
        ovs-vsctl --timeout=60 wait-until Interface tunnel0 status:tunnel_egress_iface=vtep
        ovs-appctl tnl/neigh/set br-phy 198.51.100.2 02:00:00:00:00:02");
    let wire = on_the_wire(&stand.host);
    let run = stand.announce(&[&CALM[..], &["--json"]].concat());
    let told = report(&run);
    assert_eq!(
        (run.code, &told["departure"]),
        (Some(0), &departure("tunnel0", "br-int", Some(77))),
        "{told:#}"
    );
    agrees(&wire, &told);
    let said = wire.stdout.wait(|said, _| Some(String::from_utf8_lossy(said).into_owned())).unwrap();
    assert!(
        said.lines().filter(|line| line.contains("VXLAN")).all(|line| line.contains("vlan 7,")),
        "{said}"
    );
}

/// One frame leaves in a copy to each of them, and counts once.
#[test]
fn by_several_tunnels_at_once() {
    require!(lab, ovs, tshark);
    let stand = on_open_vswitch();
    for number in [2, 3, 4] {
        tunnel(&stand.host, &format!("to-{number}"), "vxlan", &format!("198.51.100.{number}"));
    }
    let wire = on_the_wire(&stand.host);
    let told = report(&stand.announce(&[&CALM[..], &["--json"]].concat()));
    assert_eq!(told["lost_rounds"], 0, "{told:#}");
    assert_eq!(told["frames_left"]["na"], told["frames"]["na"], "{told:#}");
    // The port is that of the first copy.
    let first = wire.stdout.line_with("VXLAN");
    let remote = first.split(" > 198.51.100.").nth(1).unwrap().split('.').next().unwrap();
    assert_eq!(told["departure"]["port"], format!("to-{remote}"), "{first}");

    // It is known of one of them alone by which NIC it leaves.
    stand.host.sh("ovs-vsctl set Interface to-4 options:remote_ip=flow");
    let explained = eventually("a tunnel whose flows set the remote end", || {
        let explained = stand.announce(&["trace"]).stdout;
        explained.contains("to-4").then_some(explained)
    });
    assert!(explained.contains("over up0"), "{explained}");
}
