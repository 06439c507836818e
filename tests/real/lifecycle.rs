//! What happens to guests, to the host and to `announce` itself while it announces.

use crate::testbed::rounds::on_schedule;
use crate::testbed::{
    Attachment, Capture, DEADLINE, Direction, Guest, Nic, Place, Plug, Run, Running, Site, VLAN, guest, now,
    ovs, report, require, rounds, rounds_sent, sent,
};
use nix::sys::signal::Signal;

/// A burst that outlasts every wait of a test: if a test sees its end, it was cancelled.
const LONG: [&str; 8] = ["--vm", "web1", "--count", "1000", "--interval", "100ms", "--backoff", "1"];

#[test]
fn an_unknown_guest() {
    require!(lab, libvirt);
    let site = Site::ready(Attachment::LinuxBridge);
    let run = site.host.announce(&["--vm", "web9", "--vm", "web1", "--count", "1"]);
    assert_eq!(run.code, Some(4), "{run:#?}");
    let words = "no VM web9 is on this host (virsh list shows the running ones); it may run on another host";
    assert_eq!(run.stderr, format!("announce: {words}\n"));
    assert!(run.stdout.starts_with("web1 "), "the other one is announced all the same: {run:#?}");
}

#[test]
fn a_guest_that_does_not_run() {
    require!(lab, libvirt, tshark);
    let site = Site::ready(Attachment::LinuxBridge);
    let wire = site.wire();
    guest::virsh(&site.host, "define", &Guest::new("web2").xml());
    site.host.sh("virsh suspend web1");
    for (name, state) in [("web1", "paused (virsh resume web1)"), ("web2", "shut off")] {
        let run = site.host.announce(&["--vm", name]);
        assert_eq!((run.code, run.stdout.as_str()), (Some(4), ""), "{run:#?}");
        assert_eq!(run.stderr, format!("announce: the VM {name} is not running: it is {state}\n"));
    }
    assert_eq!(wire.stop(), []);
}

#[test]
fn a_guest_that_is_destroyed_is_not_spoken_for_any_more() {
    require!(lab, libvirt, tshark);
    // Its tap goes before libvirt tells of its end: which of the two is heard of first is a matter of luck.
    ends_at_once(Attachment::LinuxBridge, "", |site, _| drop(site.host.sh("virsh destroy web1")));
}

#[test]
fn a_guest_that_is_paused_is_not_spoken_for_any_more() {
    require!(lab, ovs, libvirt, tshark);
    ends_at_once(Attachment::Ovs, "paused", |site, _| drop(site.host.sh("virsh suspend web1")));
}

#[test]
fn a_tap_that_is_deleted_is_not_spoken_through_any_more() {
    require!(lab, ovs, libvirt, tshark);
    ends_at_once(Attachment::Hybrid, "does not exist", |site, _| {
        site.host.sh(&format!("ip link delete {}", site.nic.tap()));
    });
}

#[test]
fn an_interrupted_announcement_ends_at_once() {
    require!(lab, libvirt, tshark);
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        ends_at_once(Attachment::LinuxBridge, "interrupted", |_, announce| announce.signal(signal));
    }
}

#[test]
fn an_interrupted_wait_ends_at_once() {
    require!(lab, ovs, libvirt, tshark);
    let site = Site::build(Attachment::Ovs);
    let wire = site.wire();
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let announce = site.waiting("no VLAN tag yet", &[]);
        announce.signal(signal);
        let run = announce.finish();
        assert_eq!(run.code, Some(1), "{run:#?}");
        assert!(said_last(&run).ends_with("cancelled: interrupted (after 0 of 3 rounds)"), "{run:#?}");
    }
    assert_eq!(wire.stop(), []);
}

/// In the middle of a burst, what `happens` cancels it: exit status 1, one line with these words, and what has left before; then silence.
fn ends_at_once(attachment: Attachment, words: &str, happens: impl Fn(&Site, &Running)) {
    let site = Site::ready(attachment);
    let wire = site.wire();
    let announce = site.host.start_announce(&LONG);
    assert!(wire.sees(8, DEADLINE));

    happens(&site, &announce);
    let happened = now();

    let run = announce.finish();
    assert_eq!(run.code, Some(1), "{run:#?}");
    assert!(run.stdout.contains(": before its end\n") && run.stdout.contains("\n  left br"), "{run:#?}");
    assert_eq!(run.stderr.lines().count(), 1, "{run:#?}");
    let line = said_last(&run);
    assert!(line.contains(": cancelled: ") && line.contains(words), "{line}");
    assert!(line.ends_with("of 1000 rounds)"), "{line}");
    let frames = wire.stop();
    let last = frames.last().unwrap().at;
    println!("{words}: the last frame came {:?} before the command returned", happened.saturating_sub(last));
}

#[test]
fn a_restarted_ovsdb_is_looked_at_again() {
    require!(lab, ovs, libvirt, tshark);
    let site = Site::build(Attachment::Ovs);
    ovs::dead(&site.host, &site.port());
    let wire = site.wire();
    let announce = site.waiting("neutron's dead VLAN", &["--json"]);

    ovs::stop(&site.host, "ovsdb-server");
    announce.stderr.line_with("lost the connection to /run/openvswitch/db.sock");
    announce.stderr.line_with("OVSDB cannot be reached");
    ovs::start_ovsdb(&site.host);
    site.bind();

    let run = announce.finish();
    assert_eq!(run.code, Some(0), "{run:#?}");
    let report = report(&run);
    assert!(wire.sees(sent(&report), DEADLINE));
    let came = rounds(&wire.stop(), Some(VLAN)).len();
    assert_eq!((came, &report["rounds"]), (rounds_sent(&report), &3.into()), "{report:#}");
}

#[test]
fn a_restarted_vswitchd_costs_no_round() {
    require!(lab, ovs, libvirt, tshark);
    let site = Site::ready(Attachment::Ovs);
    let before = site.wire();
    let schedule = ["--count", "40", "--interval", "200ms", "--backoff", "1", "--json", "-v"];
    let announce = site.host.start_announce(&[&["--vm", "web1"], &schedule[..]].concat());
    assert!(before.sees(8, DEADLINE));
    drop(before);

    ovs::stop(&site.host, "ovs-vswitchd");
    announce.stderr.line_with("cannot send by packet-out: ");
    let after = announce.held(|| {
        let after = site.wire();
        ovs::start_vswitchd(&site.host);
        after
    });

    let run = announce.finish();
    assert_eq!(run.code, Some(0), "{run:#?}");
    assert_eq!(report(&run)["rounds"], 40, "{run:#?}");
    let frames = after.stop();
    println!("{} frames left after the restart", frames.len());
    assert!(frames.len() >= 8 && frames.iter().all(|frame| frame.vlan == Some(VLAN)), "{frames:#?}");
    assert_eq!(site.learned(), Some((site.port(), Some(VLAN))));
}

#[test]
fn a_host_without_open_vswitch_misses_nothing() {
    require!(lab, libvirt);
    let site = Site::ready(Attachment::LinuxBridge);
    let run = site.announce(&[]);
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""));
    let waiting = site.host.announce(&["--vm", "web1", "--count", "1", "-v"]);
    assert!(!waiting.stderr.contains("OVSDB cannot be reached"), "{waiting:#?}");
    let explained = site.host.announce(&["explain", "--vm", "web1"]);
    assert_eq!((explained.code, explained.stderr.as_str()), (Some(0), ""));
    assert!(!explained.stdout.contains("OVS"), "{explained:#?}");
}

#[test]
fn a_port_that_is_never_ready_delays_no_other() {
    require!(lab, ovs, libvirt, tshark);
    let site = Site::ready(Attachment::Ovs);
    let other = Nic::new(22, Plug::Ovs("br-int")).address("192.0.2.22");
    Guest::new("web2").nova().nic(&other).start(&site.host);
    ovs::dead(&site.host, &other.tap());
    let (wire, of_other) =
        (site.wire(), Capture::start(&site.host.wire(), "wire0", Direction::In, &other.sent()));
    let both = ["--vm", "web2", "--vm", "web1", "--json"];
    let patiently = ["--count", "5", "--interval", "50ms", "--wait", "1h"];
    let announce = site.host.start_announce(&[&both[..], &patiently].concat());

    let first = announce.stdout.line_with("\"web1\"");
    assert!(announce.is_running());
    assert!(!announce.stdout.so_far().contains("\"web2\""), "the other one had to wait");

    announce.signal(Signal::SIGTERM);
    let run = announce.finish();
    let web2 = run.stdout.lines().last().unwrap();
    assert!(web2.contains("\"web2\"") && web2.contains("\"outcome\":\"cancelled\""), "{run:#?}");
    let report = report(&Run { stdout: first, ..run });
    assert!(wire.sees(sent(&report), DEADLINE));
    let frames = wire.stop();
    on_schedule(&rounds(&frames, Some(VLAN)), &report, &[0, 50, 150, 350, 750]);

    let run = site.host.announce(&[&both[..], &["--count", "1", "--wait", "100ms"]].concat());
    assert_eq!((run.code, run.stdout.lines().count()), (Some(3), 2), "{run:#?}");
    assert_eq!(of_other.stop(), []);
}

fn said_last(run: &Run) -> &str {
    run.stderr.lines().last().unwrap_or_default()
}
