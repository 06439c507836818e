//! A port that is not ready yet when `announce` begins: nothing leaves before it is, and everything right afterwards.

use std::thread::sleep;
use std::time::Duration;

use crate::testbed::{
    Attachment, DEADLINE, Frame, Place, Site, VLAN, eventually, now, ovs, report, require, rounds,
    rounds_sent, sent, timed,
};

/// Longer than any of our own delays.
const LATE: Duration = Duration::from_secs(1);

#[test]
fn a_tag_that_is_three_seconds_late() {
    require!(lab, ovs, libvirt, tshark);
    let site = Site::build(Attachment::Ovs);
    ovs::dead(&site.host, &site.port());
    let bind = format!("ovs-vsctl set Port {0} tag=100 -- clear Port {0} vlan_mode trunks", site.port());
    speaks_only_after(&site, "neutron's dead VLAN", Duration::from_secs(3), &bind);
}

#[test]
fn a_port_in_neutrons_dead_vlan() {
    require!(lab, ovs, libvirt, tshark);
    let site = Site::build(Attachment::Ovs);
    site.host.sh(&format!("ovs-vsctl set Port {} tag=4095", site.port()));
    let bind = format!("ovs-vsctl set Port {} tag=100", site.port());
    speaks_only_after(&site, "tag 4095, neutron's dead VLAN", LATE, &bind);
}

/// What neutron's agent writes is not always one transaction.
#[test]
fn a_tag_beside_leftovers_of_the_dead_vlan() {
    require!(lab, ovs, libvirt, tshark);
    let site = Site::build(Attachment::Ovs);
    let port = site.port();
    site.host.sh(&format!("ovs-vsctl set Port {port} tag=100 vlan_mode=trunk trunks=4095"));
    // Without it, Open vSwitch heeds the tag alone, and the trunks may stay.
    let bind = format!("ovs-vsctl clear Port {port} vlan_mode");
    speaks_only_after(&site, "vlan_mode trunk, not access; the port", LATE, &bind);
}

/// The agent's `other_config:tag` is a promise, not the tag.
#[test]
fn a_port_of_neutron_without_any_tag() {
    require!(lab, ovs, libvirt, tshark);
    let site = Site::build(Attachment::Ovs);
    ovs::promise(&site.host, &site.port(), VLAN);
    let bind = format!("ovs-vsctl set Port {} tag=100", site.port());
    speaks_only_after(&site, "no VLAN tag yet", LATE, &bind);
}

#[test]
fn the_flows_of_ovn_controller() {
    require!(lab, ovs, libvirt, tshark);
    let site = Site::build(Attachment::Ovs);
    // OVN has VLANs in its flows, not on its ports; that the port has one here tells us that it passed there.
    site.bind();
    site.host.sh("ovs-vsctl set Open_vSwitch . external_ids:ovn-remote=tcp:192.0.2.254:6642");
    let install = format!("ovs-vsctl set Interface {} external_ids:ovn-installed=true", site.port());
    speaks_only_after(&site, "ovn-installed is not set", LATE, &install);
}

#[test]
fn a_hybrid_plug_whose_tag_is_late() {
    require!(lab, ovs, libvirt, tshark);
    let site = Site::build(Attachment::Hybrid);
    ovs::dead(&site.host, &site.port());
    let bind = format!("ovs-vsctl set Port {0} tag=100 -- clear Port {0} vlan_mode trunks", site.port());
    speaks_only_after(&site, "neutron's dead VLAN", LATE, &bind);
}

#[test]
fn a_hybrid_plug_that_is_late_in_the_integration_bridge() {
    require!(lab, ovs, libvirt, tshark);
    let site = Site::build(Attachment::Hybrid);
    let qvo = site.port();
    site.host.sh(&format!("ovs-vsctl del-port br-int {qvo}"));
    let plug = format!("ovs-vsctl add-port br-int {qvo} tag=100");
    speaks_only_after(&site, "qvo567a450a-b0 is not plugged into Open vSwitch", LATE, &plug);
}

#[test]
fn a_tap_that_is_late_in_the_integration_bridge() {
    require!(lab, ovs, libvirt, tshark);
    let site = Site::build(Attachment::Ovs);
    let tap = site.port();
    site.host.sh(&format!("ovs-vsctl del-port br-int {tap}"));
    let plug = format!("ovs-vsctl add-port br-int {tap} tag=100");
    speaks_only_after(&site, "is not plugged into a bridge", LATE, &plug);
}

#[test]
fn a_linux_bridge_that_still_learns() {
    require!(lab, libvirt, tshark);
    // Four seconds of listening, and four of learning.
    let site = Site::plugged(Attachment::LinuxBridge, |host| {
        host.sh("ip link set br0 type bridge stp_state 1 forward_delay 400");
    });
    let tap = site.nic.tap();
    site.host.sh(&format!("ip link set {tap} nomaster"));
    let wire = site.wire();
    let announce = site.waiting("is not plugged into a bridge", &["--json"]);
    site.host.sh(&format!("ip link set {tap} master br0"));
    announce.stderr.line_with("does not forward from tap567a450a-b0 yet");

    let state = format!("cat /sys/class/net/{}/brport/state", site.nic.tap());
    let mut learned_at = now();
    eventually("the forwarding state", || {
        let asked = now();
        let forwards = site.host.sh(&state) == "3\n";
        learned_at = if forwards { learned_at } else { asked };
        forwards.then_some(())
    });

    let run = announce.finish();
    assert_eq!(run.code, Some(0), "{run:#?}");
    let report = report(&run);
    assert!(wire.sees(sent(&report), DEADLINE));
    let frames = wire.stop();
    // Had it spoken earlier, the bridge would have swallowed a round.
    assert_eq!((rounds(&frames, None).len(), &report["lost_rounds"]), (3, &0.into()));
    assert!(frames[0].at > learned_at);
    tell_latency("a bridge that still learns", learned_at, &frames);
}

/// While the port is as it is, `announce` waits for `words` and nothing leaves; once `script` has run, all rounds do.
fn speaks_only_after(site: &Site, words: &str, late: Duration, script: &str) {
    let wire = site.wire();
    let announce = site.waiting(words, &["--json"]);
    sleep(late);

    let made_ready = timed(&site.host, script);

    let run = announce.finish();
    assert_eq!(run.code, Some(0), "{run:#?}");
    let report = report(&run);
    assert!(wire.sees(sent(&report), DEADLINE));
    let frames = wire.stop();
    assert!(frames[0].at > made_ready, "{:?} too early", made_ready - frames[0].at);
    assert_eq!((rounds(&frames, site.vlan()).len(), &report["rounds"]), (rounds_sent(&report), &3.into()));
    tell_latency(words, made_ready, &frames);
}

fn tell_latency(what: &str, since: Duration, frames: &[Frame]) {
    let latency = frames[0].at.saturating_sub(since);
    println!("{what}: first frame {latency:?} after the last moment without; {} frames", frames.len());
}
