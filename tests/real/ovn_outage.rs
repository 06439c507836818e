//! The real OVN while something of it restarts, ends or goes, in the midst of an announcement.

use crate::testbed::ovn::{is_installed, plug, rounds_without_rarp, start_controller};
use crate::testbed::{DEADLINE, Ovn, Place, eventually, has_all, kinds, ovs, report, require, rounds_sent};

/// So long that whatever happens happens within it.
const LONG: [&str; 6] = ["--count", "8", "--interval", "500ms", "--backoff", "1"];

/// As an upgrade does it: flows and `ovn-installed` stay.
#[test]
fn an_ovn_controller_that_restarts() {
    require!(lab, ovs, ovn, tshark);
    let ovn = bound();
    let wire = ovn.wire("up2");
    let announce = ovn.start_announce(&ovn.second, &[&LONG[..], &["--json"]].concat());
    assert!(wire.sees(3, DEADLINE));
    ovn.second.sh("pid=$(cat /run/ovn/ovn-controller.pid)
         ovn-appctl -t ovn-controller exit --restart
         while [ -e /proc/$pid ]; do sleep 0.01; done");
    start_controller(&ovn.second);

    let run = announce.finish();
    assert_eq!(run.code, Some(0), "{run:#?}");
    let report = report(&run);
    has_all(&wire, &report);
    let frames = wire.stop();
    let came = rounds_without_rarp(&frames);
    assert!((8..=rounds_sent(&report)).contains(&came), "{came}: {:?} {report:#}", kinds(&frames));
}

/// The VM was deleted, or moved on: the port waits for OVN again, and that is what is told.
#[test]
fn a_logical_port_that_is_deleted() {
    require!(lab, ovs, ovn, tshark);
    let ovn = bound();
    let wire = ovn.wire("up2");
    let announce = ovn.start_announce(&ovn.second, &[&LONG[..], &["-v", "--wait", "3s"]].concat());
    assert!(wire.sees(3, DEADLINE));
    announce.held(|| {
        ovn.outer.sh(&format!("ovn-nbctl lsp-del {}", ovn.nic.port));
        eventually("the end of ovn-installed", || {
            let ids = ovn.second.sh(&format!("ovs-vsctl get Interface {} external_ids", ovn.nic.tap()));
            (!ids.contains("ovn-installed=")).then_some(())
        });
    });
    announce.stderr.line_with("ovn-installed is not set");

    let run = announce.finish();
    assert_eq!(run.code, Some(3), "{run:#?}");
}

/// The guest's port is on the second host, and OVN has installed it there.
fn bound() -> Ovn {
    let ovn = Ovn::build();
    ovn.port("provider", &ovn.nic, "h2");
    plug(&ovn.second, &ovn.nic);
    is_installed(&ovn.second, &ovn.nic);
    ovn.settle();
    ovn
}

/// `ovn-installed` outlives the flows of which it speaks: nothing leaves, and that is what is told, tunnels or not.
#[test]
fn flows_that_are_gone() {
    require!(lab, ovs, ovn, tshark);
    let ovn = bound();
    ovn.second.sh("kill -KILL $(cat /run/ovn/ovn-controller.pid)");
    ovs::stop(&ovn.second, "ovs-vswitchd");
    ovs::start_vswitchd(&ovn.second);
    let wire = ovn.wire("up2");
    let run = ovn.start_announce(&ovn.second, &["--count", "3", "--wait", "5s", "--json"]).finish();
    let report = report(&run);
    assert_eq!((run.code, &report["outcome"]), (Some(1), &"failed".into()), "{report:#}");
    assert!(report["error"].as_str().unwrap().contains("actions=drop"), "{report:#}");
    assert_eq!(wire.stop(), []);
}
