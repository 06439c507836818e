//! What a test needs of the machine, and whether it needs the machine for itself.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// `require!(lab, libvirt)`: leaves the test, saying so, where something is missing. Panics instead where
/// `ANNOUNCED_TESTS_REQUIRE` (a list with commas, or `all`) says that it must be there.
///
/// From here to the test's end, other tests may run at the same time, but for `require!(alone, lab, libvirt)`: there none does.
/// That is for tests in which one real program must be quicker than another one.
macro_rules! require {
    (alone, $($need:ident),+ $(,)?) => {
        require!(@ $crate::testbed::need::alone(), $($need),+)
    };
    (@ $turn:expr, $($need:ident),+) => {
        if !$crate::testbed::need::met(&[$(stringify!($need)),+]) {
            return;
        }
        let _turn = $turn;
    };
    ($($need:ident),+ $(,)?) => {
        require!(@ $crate::testbed::need::beside_others(), $($need),+)
    };
}
pub(crate) use require;

/// Held by the tests that run.
static MACHINE: RwLock<()> = RwLock::new(());

pub fn beside_others() -> RwLockReadGuard<'static, ()> {
    MACHINE.read().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until all tests that run have ended, while no other one begins.
pub fn alone() -> RwLockWriteGuard<'static, ()> {
    MACHINE.write().unwrap_or_else(PoisonError::into_inner)
}

pub fn met(needs: &[&str]) -> bool {
    let missing: Vec<&str> = needs.iter().copied().filter(|need| !is_there(need)).collect();
    if missing.is_empty() {
        return true;
    }
    insist(&missing, &std::env::var("ANNOUNCED_TESTS_REQUIRE").unwrap_or_default());
    let line = format!("skipped: needs {}\n", missing.join(", "));
    // Not eprint!: the test harness would show that only for tests that fail.
    let _ = std::io::stderr().write_all(line.as_bytes());
    // contrib/test says it once more, in the end.
    if let Some(file) = std::env::var_os("ANNOUNCED_TESTS_SKIPPED") {
        let mut file = OpenOptions::new().append(true).open(file).unwrap();
        file.write_all(line.as_bytes()).unwrap();
    }
    false
}

pub fn insist(missing: &[&str], required: &str) {
    let required: Vec<&str> = required.split(',').map(str::trim).collect();
    let insisted = required.contains(&"all") || missing.iter().any(|need| required.contains(need));
    assert!(!insisted, "ANNOUNCED_TESTS_REQUIRE: this machine lacks {}", missing.join(", "));
}

fn is_there(need: &str) -> bool {
    match need {
        "lab" => may_make_namespaces() && programs(&["ip", "nsenter", "setpriv"]),
        "ovs" => programs(&["ovsdb-server", "ovs-vswitchd", "ovs-vsctl", "ovs-ofctl", "ovs-appctl"]),
        "ovn" => programs(&["ovn-northd", "ovn-controller", "ovn-nbctl", "ovn-sbctl", "ovn-appctl"]),
        "neutron" => Command::new(python())
            .args(["-c", "import neutron"])
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success()),
        "libvirt" => programs(&["libvirtd", "virsh", "qemu-system-x86_64"]),
        "frr" => {
            // Not in PATH.
            ["zebra", "bgpd", "pimd"].iter().all(|daemon| Path::new("/usr/lib/frr").join(daemon).is_file())
                && programs(&["vtysh"])
        }
        "prometheus" => programs(&["prometheus", "promtool"]),
        "tshark" => programs(&["tcpdump", "tshark"]),
        "vm" => Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/contrib/lab/vm"))
            .arg("--prepare")
            .status()
            .is_ok_and(|status| status.success()),
        program => programs(&[program]),
    }
}

/// The Python with neutron: Debian's, or that of a virtual environment.
pub fn python() -> String {
    std::env::var("NEUTRON_PYTHON").unwrap_or_else(|_| "/usr/bin/python3".into())
}

/// Being root is not enough in a container.
fn may_make_namespaces() -> bool {
    Command::new("unshare")
        .args(["--net", "--mount", "--uts", "--ipc", "--pid", "--fork", "true"])
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

fn programs(names: &[&str]) -> bool {
    let path = std::env::var("PATH").unwrap_or_default();
    names.iter().all(|name| path.split(':').any(|directory| Path::new(directory).join(name).is_file()))
}
