//! A host with nothing but the libvirt hook: no daemon runs.

use std::process::{Command, Stdio};
use std::time::Duration;

use crate::testbed::{Attachment, Capture, Frame, Guest, Place, Running, Site, VLAN, eventually, require};
use nix::sys::signal::Signal;

const HOOK: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/contrib/libvirt/hooks/qemu.d/50-announce");
const ANNOUNCE: &str = env!("CARGO_BIN_EXE_announce");

/// A guest whose port is ready, on a host whose libvirtd has found the hook.
fn hooked() -> Site {
    let site = Site::plugged(Attachment::Ovs, |host| {
        let programs = ANNOUNCE.rsplit_once('/').unwrap().0;
        // libvirtd looks for hooks only when it starts, and gives them its own PATH.
        host.sh(&format!(
            "install -D -m 0755 {HOOK} /etc/libvirt/hooks/qemu.d/50-announce
             pid=$(cat /run/libvirtd.pid)
             kill $pid; while [ -e /proc/$pid ]; do sleep 0.01; done
             PATH={programs}:$PATH libvirtd --daemon; virsh --quiet uri"
        ));
    });
    site.bind();
    eventually("the hook's announce has seen that the guest was booted", || (!hooks(&site)).then_some(()));
    site
}

#[test]
fn a_restored_guest_is_announced_when_its_port_is_ready() {
    require!(lab, ovs, libvirt, tshark);
    let site = hooked();
    let wire = restored(&site);
    eventually("the hook's announce waits", || hooks(&site).then_some(()));
    site.bind();
    eventually("it is done", || (!hooks(&site)).then_some(()));
    assert_eq!(announced(&wire.stop()), 10);
}

#[test]
fn a_guest_whose_name_looks_like_an_option_is_announced() {
    require!(lab, ovs, libvirt, tshark);
    let site = hooked();
    site.host.sh("virsh --quiet destroy web1");
    for name in ["-dash", "--help"] {
        Guest::new(name).nova().quiet().nic(&site.nic).start(&site.host);
        site.host.sh(&format!("virsh --quiet save --domain {name} --file /run/named.sav"));
        eventually("the hook's announce has seen that it was booted", || (!hooks(&site)).then_some(()));
        let wire = site.wire();
        site.host.sh("virsh --quiet restore /run/named.sav");
        eventually("the hook's announce waits", || hooks(&site).then_some(()));
        site.bind();
        eventually("it is done", || (!hooks(&site)).then_some(()));
        assert_eq!(announced(&wire.stop()), 10, "{name}");
        site.host.sh(&format!("virsh --quiet destroy --domain {name}"));
    }
}

#[test]
fn a_further_libvirt_that_is_not_there_keeps_it_from_nothing() {
    require!(lab, ovs, libvirt, tshark);
    let site = hooked();
    site.host.sh("cp -a /etc /run/etc; mkdir -p /run/etc/announced; mount --bind /run/etc /etc
         cat >/etc/announced/announced.toml <<CONFIG
[libvirt]
more-uris = ['qemu+unix:///system?socket=/nowhere']
[schedule]
count = 2
CONFIG");
    let wire = restored(&site);
    eventually("the hook's announce waits", || hooks(&site).then_some(()));
    site.bind();
    eventually("it is done", || (!hooks(&site)).then_some(()));
    assert_eq!(announced(&wire.stop()), 2);
}

#[test]
fn where_the_daemon_runs_it_leaves_all_to_it() {
    require!(lab, ovs, libvirt, tshark);
    let site = hooked();
    let daemon = Running::start(&mut site.host.command(env!("CARGO_BIN_EXE_announced")));
    eventually("the daemon listens", || {
        site.host.announce(&["status", "--json"]).stdout.contains("\"libvirt\":true").then_some(())
    });
    let wire = restored(&site);
    eventually("the hook's announce has seen that", || (!hooks(&site)).then_some(()));
    site.bind();
    daemon.stderr.line_with("announced in VLAN 100");
    assert_eq!(announced(&wire.stop()), 10, "once, not twice");
    daemon.signal(Signal::SIGTERM);
    assert_eq!(daemon.finish().code, Some(0));
}

/// Saves and restores the guest, and listens to what it sends from then on.
fn restored(site: &Site) -> Capture {
    site.host.sh("virsh --quiet save web1 /run/web1.sav");
    let wire = site.wire();
    site.host.sh("virsh --quiet restore /run/web1.sav");
    wire
}

/// The rounds that were announced, all in the port's VLAN. QEMU's own RARPs are not looked at: they come too early.
fn announced(frames: &[Frame]) -> usize {
    let requests: Vec<_> = frames.iter().filter(|frame| frame.kind.name() == "arp-request").collect();
    assert!(requests.iter().all(|frame| frame.vlan == Some(VLAN)), "{requests:#?}");
    requests.len()
}

#[test]
fn a_guest_that_is_booted_is_not_announced() {
    require!(lab, ovs, libvirt, tshark);
    // The guest was booted with the hook in place.
    let site = hooked();
    let wire = site.wire();
    assert!(!wire.sees(1, Duration::from_millis(300)));
}

#[test]
fn what_libvirt_calls_it_for_otherwise_it_leaves_at_once() {
    for operation in
        ["migrate begin -", "prepare begin -", "reconnect begin -", "stopped end -", "release end -", ""]
    {
        let mut hook = Command::new(HOOK);
        hook.arg("web1").args(operation.split(' ')).env("PATH", "/usr/bin:/bin").stdin(Stdio::null());
        let run = hook.output().unwrap();
        assert!(
            run.status.success() && run.stdout.is_empty() && run.stderr.is_empty(),
            "{operation}: {run:?}"
        );
    }
}

#[test]
fn it_never_fails_and_never_prints_not_even_without_the_program() {
    let run =
        Command::new(HOOK).args(["web1", "started", "begin", "-"]).env("PATH", "/bin").output().unwrap();
    assert!(run.status.success() && run.stdout.is_empty() && run.stderr.is_empty(), "{run:?}");
}

/// Whether an announce of the hook runs, or is about to: it has the name of the hook until it does.
fn hooks(site: &Site) -> bool {
    // In brackets, so that the look does not find itself.
    !site.host.sh("ps -eo args= | grep -e '[a]nnounce hook' -e '[5]0-announce' || true").is_empty()
}
