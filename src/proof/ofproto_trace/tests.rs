//! Answers of a real ovs-vswitchd, and the verdict on each.

use std::collections::BTreeMap;

use super::*;

/// Answers of Open vSwitch 3.1.0; OpenFlow port 5 is `tap0`, and `up0` the uplink.
macro_rules! answer {
    ($name:literal) => {
        include_str!(concat!("../../../tests/data/ofproto/", $name, ".txt"))
    };
}

#[test]
fn a_port_number_belongs_to_its_bridge() {
    let line = |bridge: &str| format!("{bridge} table 0: priority=2,in_port=2 actions=drop");
    let end = |bridge: &str| End { bridge: bridge.into(), dropped: true, line: line(bridge) };
    let ends = vec![end("br-int"), end("br-ex")];
    let verdict = Verdict { dropped: true, deciding: deciding(&ends, &[], None), ends, outputs: Vec::new() };
    let name = |bridge: &str, ofport| Some(format!("{bridge}-{ofport}"));
    let named = "br-int table 0: priority=2,in_port=br-int-2 actions=drop; \
                 br-ex table 0: priority=2,in_port=br-ex-2 actions=drop";
    assert_eq!(verdict.deciding_by_name(name), named);
}

#[test]
fn known_ports_appear_by_name() {
    let name = |number| (number == 5).then(|| "tap0".to_owned());
    let line = "br-int table 0: priority=100,rarp,in_port=5 actions=drop, from in_port=51,in_port=";
    let named = "br-int table 0: priority=100,rarp,in_port=tap0 actions=drop, from in_port=51,in_port=";
    assert_eq!(with_port_names(line, name), named);
}

fn read(answer: &str) -> Verdict {
    let (trace, ports) = answer.split_once("== dpif/show\n").unwrap();
    verdict(trace, "br-int", ports).unwrap()
}

fn passes(answer: &str, deciding: &str) {
    let verdict = read(answer);
    assert_eq!((verdict.dropped, verdict.deciding.as_str()), (false, deciding));
}

fn drops(answer: &str, deciding: &str) {
    let verdict = read(answer);
    assert_eq!((verdict.dropped, verdict.deciding.as_str()), (true, deciding));
    assert_eq!(verdict.outputs, []);
}

#[test]
fn outputs_have_their_vlan() {
    passes(answer!("healthy"), "br-int table 0: priority=0 actions=NORMAL; goes to up0 in VLAN 100");
    passes(answer!("pipeline-arp"), "br-int table 94: priority=1 actions=NORMAL; goes to up0 in VLAN 100");
}

/// As by the ARP responder of neutron's l2population.
#[test]
fn a_frame_that_a_flow_answers_goes_back() {
    let verdict = read(answer!("healthy"));
    let passes = "br-int table 0: priority=0 actions=NORMAL; goes to";
    assert_eq!(verdict.clone().entered_by("tap0").deciding, format!("{passes} up0 in VLAN 100"));
    assert_eq!(verdict.entered_by("up0").deciding, format!("{passes} up0 itself"));
}

/// Open vSwitch forwards in neutron's dead VLAN as in any other, and ignores an access port's trunks.
#[test]
fn a_wrong_tag_is_seen_in_the_vlan() {
    passes(answer!("dead-vlan"), "br-int table 0: priority=0 actions=NORMAL; goes to up0 in VLAN 4095");
    passes(answer!("leftover-trunks"), "br-int table 0: priority=0 actions=NORMAL; goes to up0 in VLAN 7");
}

#[test]
fn the_port_drops_it() {
    let remark = "br-int table 0: priority=0 actions=NORMAL: \
                  dropping VLAN 0 packet received on port tap0 not configured for trunking VLAN 0";
    drops(answer!("dead-port"), remark);
    drops(answer!("leftover-trunk-mode"), remark);
    drops(answer!("no-receive"), "br-int table 0: priority=32768 does nothing more");
}

#[test]
fn the_uplink_is_not_in_the_vlan() {
    passes(
        answer!("uplink-without-vlan"),
        "br-int table 0: priority=0 actions=NORMAL; goes to no port but the bridge's own, br-int in VLAN 200",
    );
}

#[test]
fn a_flow_drops_rarp_only() {
    drops(answer!("rarp-only-rarp"), "br-int table 0: priority=100,rarp,in_port=5 actions=drop");
    passes(answer!("rarp-only-arp"), "br-int table 0: priority=0 actions=NORMAL; goes to up0 in VLAN 100");
}

#[test]
fn a_catch_all_drop_names_the_flow_before_it() {
    drops(
        answer!("pipeline-rarp"),
        "br-int table 93: priority=0 actions=drop, from table 71: priority=10,reg5=0x5",
    );
}

#[test]
fn no_flow_matches_it() {
    drops(answer!("no-flows"), "br-int table 0: no flow matches, actions=drop");
    drops(answer!("no-flows-packet-in"), "br-int table 0: no flow matches, actions=drop");
    drops(answer!("conntrack"), "br-int table 5: no flow matches, actions=drop");
}

#[test]
fn a_flow_leads_nowhere() {
    let flow = "br-int table 0: priority=77,in_port=5 actions=resubmit(,0)";
    drops(answer!("loop"), &format!("{flow}: over max translation depth 64"));
    let flow = "br-int table 0: priority=1,in_port=5 actions=output:42";
    drops(answer!("no-such-output"), &format!("{flow}: Nonexistent output port"));
    passes(answer!("controller"), "br-int table 0: priority=77,in_port=5 actions=CONTROLLER:65535");
}

/// br-tun drops frames of networks without tunnels: that alone is no fault, and no verdict on a frame that leaves elsewhere.
const BR_TUN: &str = "br-tun table 22: priority=0 actions=drop, \
                      from table 2: priority=0,dl_dst=01:00:00:00:00:00/01:00:00:00:00:00";

#[test]
fn beyond_patch_ports_each_bridge_has_its_end() {
    let by_br_ex = "br-ex table 0: priority=4,in_port=2,dl_vlan=7 actions=NORMAL";
    passes(answer!("provider"), &format!("{by_br_ex}; goes to up0 in VLAN 100"));
    let ends = read(answer!("provider")).ends;
    let told: Vec<_> = ends.iter().map(|end| (end.bridge.as_str(), end.dropped, end.line.as_str())).collect();
    assert_eq!(
        told,
        [
            ("br-int", false, "br-int table 0: priority=32768 actions=NORMAL"),
            ("br-ex", false, "br-ex table 0: priority=4,in_port=2,dl_vlan=7 actions=NORMAL"),
            ("br-tun", true, BR_TUN),
        ]
    );
    let by_a_group = read(answer!("group"));
    assert_eq!(by_a_group.outputs, [Output { port: "up0".into(), vlan: Some(100), is_wrapped: false }]);
    assert_eq!(by_a_group.ends[1].line, "br-ex table 0: priority=4,in_port=2,dl_vlan=7 actions=output:1");
}

#[test]
fn the_provider_bridge_does_not_know_the_vlan() {
    let own = "goes to no port but the bridge's own, br-int in VLAN 7";
    let line = "br-ex table 0: priority=2,in_port=2 actions=drop";
    passes(answer!("provider-without-translation"), &format!("{line}; {BR_TUN}; {own}"));
    let line = "br-ex table 0: no flow matches, actions=drop";
    passes(answer!("provider-without-flows"), &format!("{line}; {BR_TUN}; {own}"));
}

fn leaves_by(actions: &str, names: &BTreeMap<&str, &str>) -> Vec<Output> {
    let mut outputs = Vec::new();
    datapath::leaves_by(actions, names, &mut outputs);
    outputs
}

#[test]
fn ports_are_distinguished_from_other_actions() {
    let outputs = leaves_by(
        "set(tunnel(a,b)),2,push_vlan(vid=7,pcp=0),1,push_vlan(vid=8,pcp=0),3,pop_vlan,4,pop_vlan,5",
        &BTreeMap::from([("1", "br-int")]),
    );
    let told: Vec<String> = outputs.iter().map(ToString::to_string).collect();
    assert_eq!(told, ["2 untagged", "br-int in VLAN 7", "3 in VLAN 8", "4 in VLAN 7", "5 untagged"]);
    let told = leaves_by("push_vlan(vid=7,pcp=0),clone(pop_vlan,clone(2),3),4", &BTreeMap::new());
    let told: Vec<String> = told.iter().map(ToString::to_string).collect();
    assert_eq!(told, ["2 untagged", "3 untagged", "4 in VLAN 7"]);
    assert_eq!(leaves_by(&"clone(".repeat(100_000), &BTreeMap::new()), []);
    assert_eq!(leaves_by("hash(hash_l4(0)),recirc(0x1)", &BTreeMap::new()), []);
}

/// Each datapath numbers its ports itself.
#[test]
fn the_ports_of_another_datapath_are_others() {
    let ports = "netdev@ovs-netdev: hit:0 missed:0\n  br-a:\n    br-a 65534/1: (tap)\n    a 1/2: (system)\n\
                 system@ovs-system: hit:0 missed:0\n  br-b:\n    b 1/2: (system)\n    p 2/none: (patch: peer=q)\n";
    assert_eq!(names(ports, "br-a"), BTreeMap::from([("1", "br-a"), ("2", "a")]));
    assert_eq!(names(ports, "br-b"), BTreeMap::from([("2", "b"), ("none", "p")]));
}

#[test]
fn a_text_that_is_no_trace_has_no_verdict() {
    assert_eq!(verdict("", "br-int", ""), None);
    assert_eq!(verdict(answer!("fdb"), "br-int", answer!("fdb")), None);
}
