//! Ways in that break: the next one is taken, and the broken one is made again where that can be.

use crate::testbed::daemon::{self, LONG, QUICK};
use crate::testbed::{Attachment, DEADLINE, Daemon, Place, Site, VLAN, ovs, report, require, rounds};

/// Ten rounds, 100 ms apart.
const STEADY: &str = "[schedule]\ncount = 10\ninterval = \"100ms\"\nbackoff = 1\n";

#[test]
fn a_helper_tap_that_is_deleted_in_mid_burst_costs_no_round() {
    require!(lab, libvirt, tshark);
    let site = Site::build(Attachment::LinuxBridge);
    let (daemon, wire) = daemon::restored(&site, STEADY, "");
    assert!(wire.sees(8, DEADLINE));
    daemon.program.held(|| site.host.sh("ip link delete announce0"));
    let report = &daemon.reports(1)[0];
    assert_eq!((&report["outcome"], &report["injector"]), (&"announced".into(), &"redirect".into()));
    assert_eq!((&report["rounds"], &report["lost_rounds"]), (&10.into(), &0.into()), "{report:#}");
    assert_eq!(rounds(&wire.stop(), None).len(), 10);
}

#[test]
fn without_helper_taps_the_next_way_is_taken() {
    require!(lab, libvirt, tshark);
    let site = Site::build(Attachment::LinuxBridge);
    let (daemon, wire) = daemon::restored(&site, STEADY, "");
    assert!(wire.sees(8, DEADLINE));
    daemon.program.held(|| site.host.sh("ip link delete announce0; ip link delete announce1"));
    let report = &daemon.reports(1)[0];
    assert_eq!((&report["outcome"], &report["injector"]), (&"announced".into(), &"xdp".into()));
    assert_eq!(rounds(&wire.stop(), None).len(), 10, "{report:#}");
}

/// systemd starts it again, and nothing is lost.
#[test]
fn without_any_way_the_daemon_ends_and_the_next_one_announces() {
    require!(lab, libvirt, tshark);
    let site = Site::build(Attachment::LinuxBridge);
    let only = "[ports]\ninject = \"redirect\"\n";
    let (daemon, wire) = daemon::restored(&site, &format!("{LONG}{only}"), "");
    assert!(wire.sees(8, DEADLINE));
    site.host.sh("ip link delete announce0; ip link delete announce1");
    let said = daemon.terminated();
    assert_eq!(said.code, Some(1), "{said:#?}");
    let last = said.stderr.lines().last().unwrap();
    assert!(last.contains("restart announced"), "{last}");
    drop(wire);

    let wire = site.wire();
    let daemon = Daemon::start(&site.host, &format!("{QUICK}{only}"));
    let report = &daemon.reports(1)[0];
    assert_eq!((&report["outcome"], &report["injector"]), (&"announced".into(), &"redirect".into()));
    assert_eq!(rounds(&wire.stop(), None).len(), 3);
}

/// As root, which may create another one.
#[test]
fn a_helper_tap_is_made_again() {
    require!(lab, libvirt, tshark);
    let site = Site::ready(Attachment::LinuxBridge);
    let wire = site.wire();
    let schedule =
        ["--count", "6", "--interval", "200ms", "--backoff", "1", "--inject", "redirect", "--json"];
    let announce = site.host.start_announce(&[&["--vm", "web1"], &schedule[..]].concat());
    assert!(wire.sees(4, DEADLINE));
    announce.held(|| site.host.sh("ip link delete announce0"));
    assert_eq!(report(&announce.finish())["rounds"], 6);
    assert_eq!(rounds(&wire.stop(), None).len(), 6);
}

/// The port is ready by what OVSDB says, and packet-out is the only way in, as for a vhost-user port.
#[test]
fn a_guest_that_arrives_while_vswitchd_restarts_is_announced() {
    require!(lab, ovs, libvirt, tshark);
    let site = Site::ready(Attachment::Ovs);
    ovs::stop(&site.host, "ovs-vswitchd");
    let more = ["--inject", "packet-out", "--wait", "5m", "--json", "-v"];
    let announce = site.start_announce(&more);
    announce.stderr.line_with("cannot connect to ");
    let wire = site.wire();
    ovs::start_vswitchd(&site.host);
    let run = announce.finish();
    assert_eq!(run.code, Some(0), "{run:#?}");
    let frames = wire.stop();
    assert!(!frames.is_empty() && frames.iter().all(|frame| frame.vlan == Some(VLAN)), "{frames:#?}");
}

/// Its old connection says nothing any more, its socket is gone, and comes again.
#[test]
fn a_management_socket_that_is_gone_and_back_is_used_again() {
    require!(lab, ovs, libvirt, tshark);
    let site = Site::ready(Attachment::Ovs);
    let before = site.wire();
    let schedule = ["--count", "100", "--interval", "100ms", "--backoff", "1", "--inject", "packet-out"];
    let announce = site.host.start_announce(&[&["--vm", "web1", "--json", "-v"], &schedule[..]].concat());
    assert!(before.sees(8, DEADLINE));
    drop(before);
    ovs::stop(&site.host, "ovs-vswitchd");
    announce.stderr.line_with("cannot send by packet-out: ");
    let wire = announce.held(|| {
        let wire = site.wire();
        ovs::start_vswitchd(&site.host);
        wire
    });
    assert!(wire.sees(8, DEADLINE));
    let report = report(&announce.finish());
    assert_eq!((&report["outcome"], &report["injector"]), (&"announced".into(), &"packet-out".into()));
    assert!(wire.stop().iter().all(|frame| frame.vlan == Some(VLAN)));
}

/// The daemon has given up the others by then.
#[test]
fn a_capability_that_was_missing_at_the_start_is_the_one_that_is_named() {
    require!(lab, libvirt);
    let site = Site::build(Attachment::LinuxBridge);
    let daemon = Daemon::lacking(&site.host, QUICK, "-bpf,-sys_admin");
    site.save();
    site.restore("");
    let report = &daemon.reports(1)[0];
    let error = report["error"].as_str().unwrap_or_else(|| panic!("{report:#}"));
    assert!(error.starts_with("no way to inject frames: redirect: cannot make a BPF map: "), "{error}");
    assert!(error.contains("(needs CAP_BPF);"), "{error}");
    daemon.terminate();
}
