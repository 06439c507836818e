//! Uplinks that change: a carrier that comes back, a bridge with another uplink, a bond of Open vSwitch.

use std::time::{Duration, Instant};

use crate::testbed::daemon::QUICK;
use crate::testbed::{Attachment, DEADLINE, Daemon, Host, Place, Site, eventually, kinds, ovs, require};

const EVENTS: &str = "[libvirt]\nevents = [\"uplink\"]";

fn config(more: &str) -> String {
    format!("{QUICK}\n{EVENTS}\n{more}")
}

/// A round without questions, and the cause.
fn is_told(site: &Site, daemon: &Daemon<'_>, change: impl FnOnce(&Host)) {
    let wire = site.wire();
    change(&site.host);
    assert!(wire.sees(4, DEADLINE), "{} frames", wire.count());
    let frames = wire.stop();
    assert_eq!(kinds(&frames)[..4], ["arp-request", "arp-reply", "na", "rarp"]);
    let status = daemon.status();
    assert!(status.to_string().contains(r#""cause":"uplink""#), "{status:#}");
}

#[test]
fn guests_behind_an_uplink_whose_carrier_comes_back_are_announced() {
    require!(lab, libvirt, tshark);
    let site = Site::build(Attachment::LinuxBridge);
    let daemon = Daemon::start(&site.host, &config(""));
    daemon.knows(1);
    is_told(&site, &daemon, |host| {
        // On a busy machine the daemon may look only when the carrier is back: then it has seen no change.
        eventually("a loss of the carrier that the daemon has seen", || {
            host.wire().sh("ip link set wire0 down");
            host.sh("until ip link show up0 | grep -q NO-CARRIER; do :; done");
            host.wire().sh("ip link set wire0 up");
            let is_seen = |said: &[u8], _| {
                String::from_utf8_lossy(said).contains("the uplink up0 has changed").then_some(())
            };
            daemon.program.stderr.wait_until(Instant::now() + Duration::from_secs(2), is_seen)
        });
    });
}

#[test]
fn guests_behind_a_bridge_with_another_uplink_are_announced() {
    require!(lab, libvirt, tshark);
    let site = Site::build(Attachment::LinuxBridge);
    site.host.sh("ip link add up1 up type veth peer name wire1 netns wire");
    site.host.wire().sh("ip link add sw type bridge forward_delay 0; ip link set sw up
        ip link set wire1 up master sw; ip link set wire0 master sw");
    let daemon = Daemon::start(&site.host, &config(""));
    daemon.knows(1);
    let wire = crate::testbed::Capture::start(
        &site.host.wire(),
        "wire1",
        crate::testbed::Direction::In,
        &site.nic.sent(),
    );
    site.host.sh("ip link set up0 nomaster; ip link set up1 master br0");
    assert!(wire.sees(4, DEADLINE), "{} frames", wire.count());
}

#[test]
fn guests_behind_a_bond_of_open_vswitch_are_announced_if_wanted() {
    require!(lab, ovs, libvirt, tshark);
    let site = Site::plugged(Attachment::Ovs, |host| {
        host.sh("ip link add up1 up type veth peer name wire1 netns wire
             ovs-vsctl del-port br-int up0 -- add-bond br-int bond0 up0 up1 bond_mode=active-backup");
        host.wire().sh("ip link set wire1 up");
    });
    ovs::bind(&site.host, &site.port(), 100);
    let active = eventually("the active member in OVSDB", || {
        let told = site.host.sh("ovs-appctl bond/show bond0; ovs-vsctl get Port bond0 bond_active_slave");
        let active = told.lines().find_map(|line| line.strip_prefix("active member mac: "))?;
        let (mac, device) = active.trim_end_matches(')').split_once('(')?;
        told.lines().last()?.contains(mac).then(|| device.to_owned())
    });
    let daemon = Daemon::start(&site.host, &config("[path]\novs-bonds = true"));
    daemon.knows(1);
    // Once: a change there and back may pass unseen.
    let other = if active == "up0" { "up1" } else { "up0" };
    site.host.sh(&format!("ovs-appctl bond/set-active-member bond0 {other}"));
    daemon.comes_to("an announcement", |status| status.to_string().contains(r#""cause":"uplink""#));
}
