//! A QEMU guest that boots: Debian's kernel, busybox and an init script.

use std::path::PathBuf;
use std::process::Command;

use super::host::Host;

/// The kernel and the initramfs of the migration lab's guest, with another init script.
const BUILD: &str = r#"
import pathlib, sys
lab = pathlib.Path(sys.argv[1])
sys.path.insert(0, str(lab))
from migration_lab import guest
guest.INIT = sys.argv[3]
guest.build(lab, pathlib.Path(sys.argv[2]))
"#;

/// Loads the drivers of its NIC.
const DRIVERS: &str = "#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
for module in $(/bin/busybox cat /modules); do /bin/busybox insmod /$module; done
echo 0 >/proc/sys/net/ipv6/conf/eth0/accept_dad
";

/// A directory with `kernel` and `initramfs` of a guest whose NIC is `eth0` and that runs this script; it needs `require!(vm)`.
pub fn build(host: &Host, script: &str) -> PathBuf {
    let directory = host.directory().join("boot");
    std::fs::create_dir(&directory).unwrap();
    let lab = concat!(env!("CARGO_MANIFEST_DIR"), "/contrib/lab");
    let init = format!("{DRIVERS}{script}\nwhile :; do /bin/busybox sleep 60; done\n");
    let mut python = Command::new("python3");
    let built = python.args(["-B", "-c", BUILD, lab]).arg(&directory).arg(&init).output().unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    directory
}
