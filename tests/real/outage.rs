//! The two scenarios of the analysis, and an EVPN fabric, by the migration lab's own command: the outage is there with QEMU
//! alone, and gone with `announced`.

use std::path::Path;
use std::process::Command;

use crate::testbed::require;
use serde_json::Value;

/// How often a migration is repeated in which a stalled machine has mixed up what was to come first.
const ATTEMPTS: usize = 5;
/// The kinds of frames that the switch notices.
const NOTICED: [&str; 3] = ["rarp", "arp-request", "arp-reply"];

#[test]
fn other_subnets_lose_the_guest_where_only_arp_moves_the_arp_entry_but_not_with_announced() {
    require!(alone, lab, ovs, libvirt, vm, tcpdump, python3);
    let in_time = ["--late", "0", "--vendor", "B"];
    // The port had its VLAN before QEMU announced anything.
    let as_meant = |record: &Value| at_port(record).first().is_some_and(|first| tag(record) < *first);

    let alone = migrate("qemu", &["vm2"], &in_time, as_meant);
    assert_eq!((is_back(&alone, "vm2"), is_back(&alone, "vm3")), (true, false), "{alone:#}");
    assert!(alone["moments_ms"]["switch_fdb_moved"].is_number(), "{alone:#}");
    assert!(alone["moments_ms"]["switch_arp_moved"].is_null(), "{alone:#}");

    let announced = migrate("announced", &["vm2", "vm3"], &in_time, as_meant);
    assert_eq!((is_back(&announced, "vm2"), is_back(&announced, "vm3")), (true, true), "{announced:#}");
    assert_eq!(announced["switch_arp_moved_by"], "arp");
}

#[test]
fn both_subnets_lose_a_guest_whose_port_gets_its_vlan_late_but_not_with_announced() {
    require!(alone, lab, ovs, libvirt, vm, tcpdump, python3);
    let late = ["--late", "3", "--vendor", "A"];
    // QEMU's five announcements were over before the port had its VLAN.
    let as_meant = |record: &Value| {
        let announced = at_port(record);
        announced.len() == 5 && announced.iter().all(|at| *at < tag(record))
    };

    let alone = migrate("qemu", &[], &late, as_meant);
    assert_eq!((is_back(&alone, "vm2"), is_back(&alone, "vm3")), (false, false), "{alone:#}");
    assert_eq!(alone["frames"], serde_json::json!({}), "nothing left the host");

    let announced = migrate("announced", &["vm2", "vm3"], &late, as_meant);
    assert_eq!((is_back(&announced, "vm2"), is_back(&announced, "vm3")), (true, true), "{announced:#}");
    assert!(tag(&announced) >= 3000.0, "{announced:#}");
    assert_eq!(announced["frames_astray"], 0, "nothing left the host before it had its VLAN");
}

#[test]
fn other_subnets_of_an_evpn_fabric_lose_the_guest_unless_its_gateway_is_asked() {
    require!(lab, libvirt, vm, tcpdump, python3, frr);
    // Longer than the schedule of the rounds.
    let fabric = ["--attachment", "evpn", "--window", "12"];

    let as_meant = |_: &Value| true;

    let announced = migrate("no-questions", &["vm2"], &fabric, as_meant);
    let frames = &announced["frames"];
    assert!(frames["arp-request"].is_number() && frames["na"].is_number(), "{announced:#}");
    assert!(frames["ask"].is_null(), "{announced:#}");
    let back = |record: &Value| ["vm2", "vm2-ipv6", "vm3", "vm3-ipv6"].map(|probe| is_back(record, probe));
    assert_eq!(back(&announced), [true, true, false, false], "{announced:#}");
    assert!(announced["moments_ms"]["switch_arp_moved"].is_null(), "no route to its address: {announced:#}");

    let asked = migrate("announced", &["vm2", "vm3"], &fabric, as_meant);
    assert!(asked["frames"]["ask"].is_number() && asked["frames"]["solicit"].is_number(), "{asked:#}");
    assert_eq!(back(&asked), [true; 4], "{asked:#}");
    let moments = &asked["moments_ms"];
    let [withdrawn, returned] =
        ["switch_arp_withdrawn", "switch_arp_moved"].map(|moment| moments[moment].as_f64());
    assert!(
        withdrawn.is_some() && withdrawn < returned,
        "the route comes back after the withdrawal: {asked:#}"
    );
}

#[test]
fn the_groups_of_a_guest_come_to_its_new_host_when_it_has_reported_them() {
    require!(lab, ovs, libvirt, vm, tcpdump, python3);
    let is_queried_by_us = |record: &Value| record["moments_ms"]["switch_queried"].is_null();
    let record = migrate(
        "announced",
        &["vm2-group", "vm2-group6"],
        &["--multicast", "--vendor", "A"],
        is_queried_by_us,
    );
    let moments = &record["moments_ms"];
    for (probe, group) in [("vm2-group", "239.1.2.3"), ("vm2-group6", "ff05::1234")] {
        let reported = moments["switch_groups_moved"][group].as_f64();
        assert!(moments["first_frame"].as_f64() < reported, "{record:#}");
        let probe = &record["probes"][probe];
        assert!(
            probe["lost"].as_u64() > Some(0) && reported < probe["first_reply_ms"].as_f64(),
            "{record:#}"
        );
    }
}

/// The record of one migration, watched for two seconds, or for the case's own window, after those tenants were answered again,
/// or had not been for a minute. Every frame that tcpdump saw was seen by the switch, too.
fn migrate(cure: &str, until_back: &[&str], case: &[&str], as_meant: impl Fn(&Value) -> bool) -> Value {
    let programs = Path::new(env!("CARGO_BIN_EXE_announced")).parent().unwrap();
    let switch = programs.join("examples/l3switch");
    assert!(switch.exists(), "\"cargo test --test\" builds no examples: run cargo build --examples before");
    for _ in 0..ATTEMPTS {
        let mut lab = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/contrib/lab/migration"));
        lab.arg("--programs").arg(programs).args(["run", "--cure", cure, "--window", "2"]).args(case);
        if !until_back.is_empty() {
            lab.arg("--until-back").args(until_back);
        }
        let lab = lab.output().unwrap(); // it has deadlines of its own
        let (stdout, stderr) = (String::from_utf8_lossy(&lab.stdout), String::from_utf8_lossy(&lab.stderr));
        assert!(lab.status.success(), "{cure} {case:?}: {}\n{stdout}{stderr}", lab.status);
        let record: Value = serde_json::from_str(&stdout).unwrap();
        // A fabric does not say what it has seen.
        if !record["frames_seen_by_the_switch"].is_null() {
            let mut frames = record["frames"].clone();
            frames.as_object_mut().unwrap().retain(|kind, _| NOTICED.contains(&kind.as_str()));
            assert_eq!(frames, record["frames_seen_by_the_switch"], "{record:#}");
        }
        println!("{cure}: {}", record["probes"]);
        // Under TCG, a guest may not go on after a migration.
        let hangs = record["guest_is_mute"] == true;
        if as_meant(&record) && !hangs {
            return record;
        }
        println!("again: {} {:?}, the guest hangs: {hangs}", tag(&record), at_port(&record));
    }
    panic!("{cure} {case:?}: the machine stalls in each of {ATTEMPTS} migrations");
}

/// When QEMU announced the guest at its port, in ms since the guest runs.
fn at_port(record: &Value) -> Vec<f64> {
    let frames = record["timeline"]["port"].as_array().unwrap();
    frames.iter().map(|frame| frame[0].as_f64().unwrap()).collect()
}

/// When the port got its VLAN, in ms since the guest runs.
fn tag(record: &Value) -> f64 {
    record["moments_ms"]["tag"].as_f64().unwrap()
}

/// Whether pings from there were answered before the window was over.
fn is_back(record: &Value, tenant: &str) -> bool {
    record["probes"][tenant]["outage_ms"].is_number()
}
