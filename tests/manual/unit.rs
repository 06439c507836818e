//! `contrib/systemd/announced.service` as systemd reads it.

use std::path::PathBuf;
use std::process::{Command, Output};

use crate::testbed::need::met;

const UNIT: &str = include_str!("../../contrib/systemd/announced.service");

#[test]
fn systemd_finds_nothing_wrong() {
    let Some((_directory, unit)) = unit() else {
        return;
    };
    let run = analyze(&["verify", "--man=no", unit.to_str().unwrap()]);
    assert!(run.status.success() && run.stderr.is_empty(), "{}", String::from_utf8_lossy(&run.stderr));
}

#[test]
fn the_service_is_exposed_to_little() {
    let Some((_directory, unit)) = unit() else {
        return;
    };
    // In tenths: above 1.9 fails.
    let run = analyze(&["security", "--offline=true", "--threshold=19", unit.to_str().unwrap()]);
    let table = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success(), "{table}{}", String::from_utf8_lossy(&run.stderr));
}

/// A daemon that cannot use its configuration is not started again.
#[test]
fn the_unit_and_the_program_agree_on_the_exit_status() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("bad.toml");
    std::fs::write(&file, "nosuch = 1").unwrap();
    let run = Command::new(env!("CARGO_BIN_EXE_announced")).arg("--config").arg(&file).output().unwrap();
    let line = format!("RestartPreventExitStatus={}", run.status.code().unwrap());
    assert!(UNIT.lines().any(|l| l == line), "{line}");
}

/// The unit, with the programs of this build in place of installed ones; none without `systemd-analyze`.
fn unit() -> Option<(tempfile::TempDir, PathBuf)> {
    if !met(&["systemd-analyze"]) {
        return None;
    }
    let directory = tempfile::tempdir().unwrap();
    let unit = directory.path().join("announced.service");
    let text = UNIT.replace("/usr/sbin/announced", env!("CARGO_BIN_EXE_announced"));
    let text = text.replace("/usr/bin/announce ", concat!(env!("CARGO_BIN_EXE_announce"), " "));
    assert!(!text.contains("/usr/"), "{text}");
    std::fs::write(&unit, text).unwrap();
    Some((directory, unit))
}

fn analyze(arguments: &[&str]) -> Output {
    Command::new("systemd-analyze").args(arguments).output().unwrap()
}
