//! Neutron's real Open vSwitch agent while it is away, restarts, or takes a port back.
//!
//! Left out of `contrib/test`, as `neutron` is.

use crate::testbed::neutron::{Neutron, PROVIDER, VXLAN};
use crate::testbed::site::CALM;
use crate::testbed::{DEADLINE, eventually, has_all, kinds, report, require, rounds_sent};
use serde_json::json;

/// The server knows the port no more: the agent parks it in its dead VLAN, by the tag only, and drops what it sends.
#[test]
#[ignore = "needs neutron's agent: contrib/test says how"]
fn a_port_that_is_dead_and_alive_again() {
    require!(lab, ovs, neutron, tshark);
    is_announced_when_alive_again(&["openvswitch"]);
}

/// The same on a host that has tunnels, too, where nothing can be seen of what goes into them.
#[test]
#[ignore = "needs neutron's agent: contrib/test says how"]
fn a_port_that_is_alive_again_beside_tunnels() {
    require!(lab, ovs, neutron, tshark);
    is_announced_when_alive_again(&VXLAN);
}

fn is_announced_when_alive_again(arguments: &[&str]) {
    let mut neutron = Neutron::start(arguments);
    neutron.plug();
    neutron.has_wired(&neutron.stand.nic);
    let tap = neutron.stand.nic.tap();
    neutron.forgets();
    eventually("the dead VLAN", || (neutron.tag(&tap).trim() == "4095 [] []").then_some(()));

    let wire = neutron.wire();
    let announce = neutron.start_announce(&[&CALM[..], &["-v", "--json"]].concat());
    announce.stderr.line_with("tag 4095, neutron's dead VLAN");
    neutron.knows(json!({ "vlan": PROVIDER }));

    let run = announce.finish();
    assert_eq!(run.code, Some(0), "{run:#?}");
    let report = report(&run);
    has_all(&wire, &report);
    let frames = wire.stop();
    assert!(frames.iter().all(|frame| frame.vlan == Some(PROVIDER)), "{frames:#?}");
    let replies = kinds(&frames).iter().filter(|kind| **kind == "arp-reply").count();
    // Its drop flow goes some milliseconds after the tag has come: what was lost by that is sent again.
    assert!((3..=rounds_sent(&report)).contains(&replies), "{:?} {report:#}", kinds(&frames));
    assert_eq!(report["rounds"], 3, "{report:#}");
}

#[test]
#[ignore = "needs neutron's agent: contrib/test says how"]
fn an_agent_that_is_away_when_the_port_comes() {
    require!(lab, ovs, neutron, tshark);
    let neutron = Neutron::start(&["openvswitch"]);
    neutron.kill_agent();
    neutron.plug();
    let wire = neutron.wire();
    let announce = neutron.start_announce(&[&CALM[..], &["-v", "--json"]].concat());
    announce.stderr.line_with("no VLAN tag yet");
    neutron.start_agent(&["openvswitch"]);

    let run = announce.finish();
    assert_eq!(run.code, Some(0), "{run:#?}");
    assert!(wire.sees(9, DEADLINE));
    assert!(wire.stop().iter().all(|frame| frame.vlan == Some(PROVIDER)));
}

/// A crash and a new start, in the midst of an announcement: flows stay, and the tag is written again as it was.
#[test]
#[ignore = "needs neutron's agent: contrib/test says how"]
fn an_agent_that_restarts() {
    require!(lab, ovs, neutron, tshark);
    let neutron = Neutron::start(&["openvswitch"]);
    neutron.plug();
    neutron.has_wired(&neutron.stand.nic);
    let wire = neutron.wire();
    let schedule = ["--count", "12", "--interval", "1s", "--backoff", "1", "--json"];
    let announce = neutron.start_announce(&schedule);
    assert!(wire.sees(3, DEADLINE));
    neutron.kill_agent();
    neutron.start_agent(&["openvswitch"]);

    let run = announce.finish();
    assert_eq!(run.code, Some(0), "{run:#?}");
    let report = report(&run);
    has_all(&wire, &report);
    let replies = kinds(&wire.stop()).iter().filter(|kind| **kind == "arp-reply").count();
    assert!((12..=rounds_sent(&report)).contains(&replies), "{replies}: {report:#}");
}
