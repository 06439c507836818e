//! Endurance in short: guests wander, faults come, and the lab's audit of every frame has nothing to complain of.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::testbed::require;

/// The summary of `contrib/lab/chaos`; its audit's complaints are a failure.
fn chaos(arguments: &[&str]) -> Value {
    let programs = Path::new(env!("CARGO_BIN_EXE_announced")).parent().unwrap();
    let mut chaos = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/contrib/lab/chaos"));
    chaos.arg("--programs").arg(programs).arg("--json").args(arguments);
    let chaos = chaos.output().unwrap(); // it has deadlines of its own
    let (stdout, stderr) = (String::from_utf8_lossy(&chaos.stdout), String::from_utf8_lossy(&chaos.stderr));
    assert!(chaos.status.success(), "{}\n{stdout}{stderr}", chaos.status);
    serde_json::from_str(&stdout).unwrap()
}

#[test]
fn the_audit_complains_of_each_frame_that_should_not_be_and_of_no_other() {
    require!(python3);
    let lab = concat!(env!("CARGO_MANIFEST_DIR"), "/contrib/lab");
    let tests = Command::new("python3")
        .args(["-B", "-m", "unittest", "chaos_lab.audit_test"])
        .current_dir(lab)
        .output();
    let tests = tests.unwrap();
    assert!(tests.status.success(), "{}", String::from_utf8_lossy(&tests.stderr));
}

#[test]
fn guests_that_wander_while_everything_breaks_are_announced_where_they_are() {
    require!(lab, ovs, libvirt, tcpdump, busybox, python3, cc);
    let told = chaos(&["--seed", "1", "--guests", "2", "--faults", "12", "--every", "1"]);
    assert_eq!(
        told["faults"].as_object().unwrap().values().map(|count| count.as_u64().unwrap()).sum::<u64>(),
        12
    );
    assert!(told["announced"].as_u64() >= Some(2), "both guests: {told:#}");
    assert!(told["frames"].as_u64() > told["announced"].as_u64(), "{told:#}");
}
