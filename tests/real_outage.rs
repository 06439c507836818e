//! The two scenarios of the analysis, by the migration lab's own command: the outage is there with QEMU alone, and gone with
//! `announced`.

#![allow(clippy::unwrap_used, reason = "a broken lab is a failed test")]

mod common;

use std::path::Path;
use std::process::Command;

use common::require;
use serde_json::Value;

/// Seconds within which an announcement must have been heard, however slow the machine.
const AT_LAST: &str = "5";
/// Enough where nobody is to be heard: QEMU's own announcements are over long before the port has its VLAN.
const NEVER: &str = "2";

#[test]
fn other_subnets_lose_the_guest_where_only_arp_moves_the_arp_entry_but_not_with_announced() {
    require!(lab, ovs, libvirt, vm, tcpdump, python3);
    let in_time = ["--late", "0", "--vendor", "B"];

    let alone = migrate("qemu", AT_LAST, &in_time);
    assert_eq!((is_back(&alone, "vm2"), is_back(&alone, "vm3")), (true, false), "{alone:#}");
    assert!(alone["moments_ms"]["switch_fdb_moved"].is_number(), "{alone:#}");
    assert!(alone["moments_ms"]["switch_arp_moved"].is_null(), "{alone:#}");

    let announced = migrate("announced", AT_LAST, &in_time);
    assert_eq!((is_back(&announced, "vm2"), is_back(&announced, "vm3")), (true, true), "{announced:#}");
    assert_eq!(announced["switch_arp_moved_by"], "arp");
}

#[test]
fn everybody_loses_a_guest_whose_port_gets_its_vlan_late_but_not_with_announced() {
    require!(lab, ovs, libvirt, vm, tcpdump, python3);
    let late = ["--late", "3", "--vendor", "A"];

    let alone = migrate("qemu", NEVER, &late);
    assert_eq!((is_back(&alone, "vm2"), is_back(&alone, "vm3")), (false, false), "{alone:#}");
    assert_eq!(alone["frames"], serde_json::json!({}), "nothing left the host");

    let announced = migrate("announced", AT_LAST, &late);
    assert_eq!((is_back(&announced, "vm2"), is_back(&announced, "vm3")), (true, true), "{announced:#}");
    let moment = |name: &str| announced["moments_ms"][name].as_f64().unwrap();
    assert!(moment("tag") >= 3000.0, "{announced:#}");
    assert_eq!(announced["frames_astray"], 0, "nothing left the host before it had its VLAN");
}

/// The record of one migration. Every frame that tcpdump saw was seen by the switch, too.
fn migrate(cure: &str, window: &str, case: &[&str]) -> Value {
    let programs = Path::new(env!("CARGO_BIN_EXE_announced")).parent().unwrap();
    let switch = programs.join("examples/l3switch");
    assert!(switch.exists(), "\"cargo test --test\" builds no examples: run cargo build --examples before");
    let lab = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/contrib/lab/migration"))
        .arg("--programs")
        .arg(programs)
        .args(["run", "--cure", cure, "--window", window])
        .args(case)
        .output() // it has deadlines of its own
        .unwrap();
    let (stdout, stderr) = (String::from_utf8_lossy(&lab.stdout), String::from_utf8_lossy(&lab.stderr));
    assert!(lab.status.success(), "{cure} {case:?}: {}\n{stdout}{stderr}", lab.status);
    let record: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(record["frames"], record["frames_seen_by_the_switch"], "{record:#}");
    println!("{cure}: {}", record["probes"]);
    record
}

/// Whether pings from there were answered before the window was over.
fn is_back(record: &Value, tenant: &str) -> bool {
    record["probes"][tenant]["outage_ms"].is_number()
}
