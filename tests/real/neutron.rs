//! Neutron's real Open vSwitch agent: it wires the port, and `announce` speaks when it has.
//!
//! Left out of `contrib/test`, which says how they are run: neutron's packages take minutes to install.

use serde_json::{Value, json};

use crate::testbed::kernel_guest::KernelGuest;
use crate::testbed::neutron::{Neutron, PROVIDER, VNI, VXLAN};
use crate::testbed::site::CALM;
use crate::testbed::snooping::join;
use crate::testbed::{
    Capture, DEADLINE, Direction, Frame, Guest, IPV4, IPV6, Nic, Place, Plug, Running, eventually, has_all,
    kinds, ovs, report, require, rounds, rounds_sent,
};

/// The provider network of a trunk's sub-port.
const SUB_VLAN: u16 = 1200;
const ADDRESSED: [&str; 3] = ["arp-request", "arp-reply", "na"];

#[test]
#[ignore = "needs neutron's agent: contrib/test says how"]
fn the_openvswitch_firewall() {
    require!(lab, ovs, neutron, tshark);
    let neutron = Neutron::start(&["openvswitch"]);
    is_announced_once_wired(&neutron, &neutron.stand.nic.tap(), |neutron| neutron.plug());
    // Which, in its first releases, knows no RARP.
    passes(&neutron, neutron.release >= 29);
}

#[test]
#[ignore = "needs neutron's agent: contrib/test says how"]
fn no_firewall() {
    require!(lab, ovs, neutron, tshark);
    let neutron = Neutron::start(&["noop"]);
    is_announced_once_wired(&neutron, &neutron.stand.nic.tap(), |neutron| neutron.plug());
    passes(&neutron, true);
}

#[test]
#[ignore = "needs neutron's agent: contrib/test says how"]
fn the_hybrid_firewall() {
    require!(lab, ovs, neutron, tshark);
    let mut neutron = Neutron::start(&["iptables_hybrid"]);
    let qvo = neutron.stand.nic.device("qvo");
    let announce = waiting(&neutron, "is not plugged into a bridge");
    neutron.plug_hybrid();
    let report = ends_well(&neutron, announce.0, announce.1, &qvo);
    assert_eq!(report["attachment"]["kind"], "hybrid", "{report:#}");
    neutron.has_wired(&neutron.stand.nic);
    passes(&neutron, true);
}

/// It lets the guest's IGMP reports out. Its first releases have no flow for MLD's, whose connection no tracker knows, and drop them.
#[test]
#[ignore = "needs neutron's agent: contrib/test says how"]
fn the_openvswitch_firewall_and_the_guests_groups() {
    require!(lab, ovs, neutron, tshark);
    for older in [false, true] {
        let neutron = Neutron::start(&["openvswitch"]);
        let before =
            "sysctl -qw net.ipv4.conf.eth0.force_igmp_version=2 net.ipv6.conf.eth0.force_mld_version=1";
        let _guest = KernelGuest::behind(&neutron.stand, if older { before } else { "" });
        neutron.plug();
        neutron.has_wired(&neutron.stand.nic);
        let _member = join(&KernelGuest::place(&neutron.stand));
        let run = neutron.start_announce(&[&CALM[..], &["--json"]].concat()).finish();
        let report = report(&run);
        let multicast = &report["multicast"];
        let held = multicast["held"].as_array().unwrap();
        assert!(multicast["igmp_left_after_ms"].is_f64() && run.code == Some(0), "{run:#?}");
        assert!(neutron.release > 21 || held.len() == 1, "{multicast:#}");
        let is_named = |held: &Value| {
            let held = held.as_str().unwrap();
            held.starts_with("its MLD reports did not leave the host: br-int table ")
                && held.contains("ct_state=+inv+trk")
        };
        assert!(held.iter().all(is_named), "{multicast:#}");
    }
}

/// Not even `port_security_enabled=False` makes a difference to what is announced, but to RARP.
#[test]
#[ignore = "needs neutron's agent: contrib/test says how"]
fn a_port_without_port_security() {
    require!(lab, ovs, neutron, tshark);
    let mut neutron = Neutron::start(&["openvswitch"]);
    neutron.knows(json!({ "vlan": PROVIDER, "security": false }));
    neutron.plug();
    neutron.has_wired(&neutron.stand.nic);
    passes(&neutron, true);
}

/// The agent of 2022 and that of 2025 let RARP pass for a port with an IPv4 address only, or not at all.
#[test]
#[ignore = "needs neutron's agent: contrib/test says how"]
fn a_port_with_an_ipv6_address_only() {
    require!(lab, ovs, neutron, tshark);
    let mut neutron = Neutron::start(&["openvswitch"]);
    let nic = neutron.stand.nic.clone();
    neutron.knows_of(&nic, &[IPV6], json!({ "vlan": PROVIDER }));
    neutron.plug();
    neutron.has_wired(&nic);
    let tap = nic.tap();
    let run =
        neutron.stand.host.announce(&["trace", "--dev", &tap, "--mac", &nic.mac, "--ip", IPV6, "--json"]);
    let report = report(&run);
    assert_eq!(report["departure"]["vlan"], PROVIDER, "{report:#}");
    let stuck = report["stuck"].to_string();
    assert!(stuck.contains("rarp did not leave") && stuck.contains("actions=drop"), "{report:#}");
}

/// `announce` waits for the port before it is plugged; once the agent has given it its tag, frames leave in the provider's VLAN, and
/// none in any other.
fn is_announced_once_wired(neutron: &Neutron, port: &str, plug: impl FnOnce(&Neutron)) {
    let (wire, announce) = waiting(neutron, "is not plugged into a bridge");
    plug(neutron);
    let report = ends_well(neutron, wire, announce, port);
    println!(
        "{}: tagged after {} ms, left after {} ms",
        neutron.release, report["tagged_after_ms"], report["left_host_after_ms"]
    );
    neutron.has_wired(&neutron.stand.nic);
}

fn waiting(neutron: &Neutron, words: &str) -> (Capture, Running) {
    let wire = neutron.wire();
    let announce = neutron.start_announce(&[&CALM[..], &["-v", "--json"]].concat());
    announce.stderr.line_with(words);
    (wire, announce)
}

fn ends_well(neutron: &Neutron, wire: Capture, announce: Running, port: &str) -> Value {
    let run = announce.finish();
    assert_eq!(run.code, Some(0), "{run:#?}");
    let report = report(&run);
    let departure = &report["departure"];
    assert_eq!((&departure["device"], &departure["vlan"]), (&"up0".into(), &PROVIDER.into()), "{report:#}");
    // Local to the host.
    let tag = report["attachment"]["vlan"].as_u64().unwrap();
    assert_eq!(neutron.tag(port).trim(), format!("{tag} [] []"));
    has_all(&wire, &report);
    all_rounds_came(&wire.stop(), &report);
    report
}

/// All rounds that the report speaks of came, whatever became of RARP.
fn all_rounds_came(frames: &[Frame], report: &Value) {
    assert!(frames.iter().all(|frame| frame.vlan == Some(PROVIDER)), "{frames:#?}");
    let promised = report["rounds"].as_u64().unwrap() as usize;
    for kind in ADDRESSED {
        let came = kinds(frames).iter().filter(|name| **name == kind).count();
        assert!((promised..=rounds_sent(report)).contains(&came), "{came} {kind}: {:?}", kinds(frames));
    }
}

/// The agent has done all it will do: what leaves now is what its flows let pass.
fn passes(neutron: &Neutron, rarp: bool) {
    let wire = neutron.wire();
    let run = neutron.start_announce(&["trace", "--json"]).finish();
    let report = report(&run);
    assert!(wire.sees(if rarp { 4 } else { 3 }, DEADLINE), "{report:#}");
    let frames = wire.stop();
    if rarp {
        assert_eq!((run.code, &report["stuck"]), (Some(0), &json!([])), "{report:#}");
        assert_eq!(rounds(&frames, Some(PROVIDER)).len(), 1);
    } else {
        let stuck = report["stuck"].to_string();
        assert!(stuck.contains("rarp did not leave") && stuck.contains("actions=drop"), "{report:#}");
        assert_eq!(kinds(&frames).len(), 3, "{:?}", kinds(&frames));
    }
}

/// A network of vxlan: the other host hears all, in the network's VNI.
#[test]
#[ignore = "needs neutron's agent: contrib/test says how"]
fn a_port_of_an_overlay() {
    require!(lab, ovs, neutron, tshark);
    let mut neutron = Neutron::start(&VXLAN);
    neutron.knows(json!({ "vxlan": VNI }));
    neutron.plug();
    neutron.has_wired(&neutron.stand.nic);
    let (far, wire) = (neutron.far(), neutron.wire());
    let run = neutron.start_announce(&[&CALM[..], &["--json"]].concat()).finish();
    assert_eq!(run.code, Some(0), "{run:#?}");
    let report = report(&run);
    far.stdout.line_with(&format!("vni {VNI}"));
    for words in [
        format!("Request who-has {IPV4} tell {IPV4}"),
        format!("Reply {IPV4} is-at"),
        format!("tgt is {IPV6}"),
    ] {
        far.stdout.line_with(&words);
    }
    assert_eq!((wire.stop(), &report["departure"]), (vec![], &Value::Null), "{report:#}");
    // br-ex drops a copy of each frame: that is no part of the verdict on one that enters the tunnel.
    let verdict = report["unseen"].as_str().unwrap().split_once("verdict: ").unwrap().1;
    assert!(verdict.contains("; goes to tun0 ") && !verdict.contains("drop"), "{verdict}");
}

/// The agent moves the trunk's parent to a VLAN of br-int behind a bridge of its own.
#[test]
#[ignore = "needs neutron's agent: contrib/test says how"]
fn a_trunks_parent() {
    require!(lab, ovs, neutron, tshark);
    let mut neutron = Neutron::start(&["openvswitch"]);
    let sub = Nic::new(11, Plug::EthernetUnmanaged);
    let trunk = "9f7d3c1a-1111-4222-8333-444455556666";
    neutron.knows_of(
        &sub,
        &["198.51.100.11"],
        json!({ "vlan": SUB_VLAN, "network": "cccccccc-0000-4000-8000-000000000001" }),
    );
    neutron
        .knows(json!({ "vlan": PROVIDER, "trunk": { "id": trunk, "sub_ports": { sub.port.clone(): 7 } } }));
    let (wire, announce) = waiting(&neutron, "is not plugged into a bridge");
    let (host, nic) = (&neutron.stand.host, &neutron.stand.nic);
    let bridge = format!("tbr-{}", &trunk[..10]);
    host.sh(&format!("ovs-vsctl add-br {bridge} -- set Bridge {bridge} datapath_type=netdev"));
    ovs::plug(host, &bridge, nic);
    ends_well(&neutron, wire, announce, &nic.device("tpi-"));
    let patch = neutron.tag(&nic.device("tpt-"));
    // What differs between releases: 24 and later give the parent's patch a tag.
    assert_eq!(patch.trim(), if neutron.release < 24 { "[] [] []" } else { "0 access []" });

    // A guest's trunk is announced with its sub-ports: each by RARP, in its own network's VLAN.
    let guest = Guest::new("web1").of_test_driver().nova().nic(&nic.clone().address(IPV4)).xml();
    let file = host.directory().join("node.xml");
    std::fs::write(&file, format!("<node>{guest}</node>")).unwrap();
    neutron.has_wired(&sub);
    let sub_wire = Capture::start(&host.wire(), "wire0", Direction::In, &sub.sent());
    let uri = format!("test://{}", file.display());
    let command = ["--connect", &uri, "--vm", "web1", "--wait", "3s", "--json"];
    let run = host.announce(&[&command[..], &CALM[..]].concat());
    assert!(run.stdout.contains(&sub.device("spi-")), "{run:#?}");
    let reports: Vec<Value> = run.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of_sub = reports.iter().find(|report| report["mac"] == sub.mac.as_str()).unwrap();
    // The firewall of the first releases knows no RARP.
    if neutron.release >= 29 {
        assert_eq!((run.code, &of_sub["departure"]["vlan"]), (Some(0), &SUB_VLAN.into()), "{run:#?}");
        assert!(sub_wire.sees(3, DEADLINE));
        assert!(sub_wire.stop().iter().all(|frame| frame.vlan == Some(SUB_VLAN)));
    } else {
        assert_eq!((run.code, sub_wire.stop()), (Some(1), vec![]), "{run:#?}");
        assert!(of_sub["error"].as_str().unwrap().contains("actions=drop"), "{of_sub:#}");
    }
}

/// Before the agent has marked the port, its bridge shows that neutron owns it.
#[test]
#[ignore = "needs neutron's agent: contrib/test says how"]
fn a_port_of_which_only_the_bridge_says_whose_it_is() {
    require!(lab, ovs, neutron, tshark);
    let neutron = Neutron::start(&VXLAN);
    let wire = neutron.wire();
    let announce = neutron.stand.start_announce(&[&CALM[..], &["-v", "--json"]].concat());
    announce.stderr.line_with("is not plugged into a bridge");
    neutron.plug();
    ends_well(&neutron, wire, announce, &neutron.stand.nic.tap());
}

/// QEMU's RARPs have met the port before its tag, and Open vSwitch remembers for a moment what became of them.
#[test]
#[ignore = "needs neutron's agent: contrib/test says how"]
fn a_hybrid_plug_whose_guest_has_spoken() {
    require!(lab, ovs, neutron, tshark);
    let mut neutron = Neutron::start(&["iptables_hybrid"]);
    let qvo = neutron.stand.nic.device("qvo");
    let (wire, announce) = waiting(&neutron, "is not plugged into a bridge");
    neutron.plug_hybrid();
    announce.stderr.line_with("no VLAN tag yet");
    neutron.stand.says(&rarp(&neutron.stand.nic.mac));
    let report = ends_well(&neutron, wire, announce, &qvo);
    assert!(report["frames_left"]["rarp"].as_u64() >= report["rounds"].as_u64(), "{report:#}");
}

/// No other host has a port of the network yet: there is no tunnel for it, and no host to tell.
#[test]
#[ignore = "needs neutron's agent: contrib/test says how"]
fn an_overlay_that_is_on_no_other_host() {
    require!(lab, ovs, neutron, tshark);
    let mut neutron = Neutron::start(&[&VXLAN[..], &L2POP].concat());
    neutron.knows(json!({ "vxlan": VNI }));
    neutron.plug();
    neutron.has_wired(&neutron.stand.nic);
    let run = neutron.start_announce(&["--count", "2", "--wait", "1s", "--json"]).finish();
    let report = report(&run);
    assert_eq!((run.code, &report["outcome"]), (Some(0), &"announced".into()), "{report:#}");
    let unseen = report["unseen"].as_str().unwrap();
    assert!(unseen.contains("no other host has a port of it"), "{unseen}");
}

/// l2population's ARP responder still has the guest at its old host: both forms of ARP come back to the guest as an answer, and that
/// is what is said of them. NA and RARP enter the tunnel.
#[test]
#[ignore = "needs neutron's agent: contrib/test says how"]
fn a_responder_for_the_guests_own_address() {
    require!(lab, ovs, neutron, tshark);
    let mut neutron = Neutron::start(&[&VXLAN[..], &L2POP].concat());
    neutron.knows(json!({ "vxlan": VNI }));
    neutron.plug();
    neutron.has_wired(&neutron.stand.nic);
    neutron.populates(&neutron.stand.nic.mac, IPV4);
    let flows = || neutron.stand.host.sh("ovs-ofctl dump-flows br-tun table=21");
    eventually("the responder", || flows().contains(&format!("arp_tpa={IPV4}")).then_some(()));
    let far = neutron.far();
    let tap = neutron.stand.nic.tap();
    let given = Capture::start(&neutron.stand.host, &tap, Direction::Out, "arp");
    let run = neutron.start_announce(&[&CALM[..], &["--json"]].concat()).finish();
    far.stdout.line_with(&format!("tgt is {IPV6}"));
    assert!(given.sees(2, DEADLINE), "{run:#?}");
    let report = report(&run);
    assert_eq!((run.code, &report["not_left"]), (Some(1), &json!([IPV4])), "{report:#}");
    let trace = neutron.start_announce(&["trace"]).finish();
    let words = format!("goes to {tap} itself");
    assert!(trace.code == Some(1) && trace.stdout.contains(&words), "{trace:#?}");
    let verdict = trace.stdout.lines().find(|line| line.contains(&words)).unwrap();
    assert!(verdict.contains("arp-request, arp-reply: "), "{verdict}");
}

/// As QEMU sends it.
fn rarp(mac: &str) -> Vec<u8> {
    let mac: Vec<u8> = mac.split(':').map(|digits| u8::from_str_radix(digits, 16).unwrap()).collect();
    let payload = [&[0, 1, 8, 0, 6, 4, 0, 3][..], &mac, &[0; 4], &mac, &[0; 4]].concat();
    let mut frame = [&[0xff; 6][..], &mac, &[0x80, 0x35], &payload].concat();
    frame.resize(60, 0);
    frame
}

const L2POP: [&str; 2] = ["agent.l2_population=true", "agent.arp_responder=true"];
