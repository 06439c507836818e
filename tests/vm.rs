//! `announce` on Debian's own kernel: bridges with VLAN filtering, macvtap, bonds, Open vSwitch's kernel datapath.
//! The cases are in the scripts of `tests/vm`, which run inside the virtual machine of `contrib/lab/vm`.
#![allow(clippy::expect_used, reason = "a broken lab is a failed test")]

mod testbed;

use std::path::{Path, PathBuf};
use std::process::Command;

use testbed::require;

#[test]
fn linux_bridges_and_macvtap() {
    require!(vm, cc, libvirt);
    run("bridge.sh");
}

#[test]
fn open_vswitch_kernel_datapath() {
    require!(vm, cc, ovs);
    run("ovs.sh");
}

#[test]
fn proof_through_bonds_and_the_kernel_datapath() {
    require!(vm, cc, ovs);
    run("proof.sh");
}

#[test]
fn guests_behind_a_bond_that_fails_over() {
    require!(vm, cc, ovs, libvirt);
    run("uplink.sh");
}

fn run(script: &str) {
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vm");
    let directory = tempfile::tempdir().expect("a directory");
    let vm = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/contrib/lab/vm"))
        .env("VM_DEADLINE", "900") // of seconds: long enough for any machine
        .arg(scripts.join(script))
        .arg(scripts.join("guest.sh"))
        .arg(env!("CARGO_BIN_EXE_announce"))
        .args(["bridge.sh", "uplink.sh"].contains(&script).then_some(env!("CARGO_BIN_EXE_announced")))
        .args(["hold.c", "mst.c"].map(|source| compile(&scripts.join(source), directory.path())))
        .output()
        .expect("contrib/lab/vm");
    assert!(
        vm.status.success(),
        "{script}: {}\n{}{}",
        vm.status,
        String::from_utf8_lossy(&vm.stdout),
        String::from_utf8_lossy(&vm.stderr)
    );
}

/// What nothing in the virtual machine could do: hold a tap open as a guest, and set spanning trees of VLANs.
fn compile(source: &Path, directory: &Path) -> PathBuf {
    let program = directory.join(source.file_stem().expect("a name"));
    let status = Command::new("cc").args(["-O1", "-static", "-o"]).arg(&program).arg(source).status();
    assert!(status.expect("cc").success());
    program
}
