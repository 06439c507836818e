//! `announced` hears of guests that come to run here, and announces them: every frame on the wire is counted.

use std::time::Duration;

use crate::testbed::daemon::{self, CALM, LONG, QUICK, has_announced_nothing, is_announced, is_announced_at};
use crate::testbed::{
    Attachment, Capture, DEADLINE, Daemon, Direction, Guest, IPV4, IPV6, Nic, Place, Plug, Site, VLAN, guest,
    kinds, now, ovs, require, rounds, sent,
};

#[test]
fn a_restored_guest_is_announced_and_a_settled_one_is_not() {
    require!(lab, libvirt, tshark);
    let site = Site::build(Attachment::LinuxBridge);
    let (daemon, wire) = daemon::restored(&site, QUICK, "");
    let report = &daemon.reports(1)[0];
    is_announced(&site.nic, None, &wire.stop(), report, "restored");

    let told = site.host.announce(&["status", "web1"]);
    for moment in
        ["guest runs", "port plugged", "port ready", "first frame", "left the host", "learned locally"]
    {
        let line = told.stdout.lines().find(|line| line.trim_start().starts_with(moment));
        assert!(line.is_some_and(|line| line.contains(" ms")), "{moment}: {told:#?}");
    }
    let told = site.host.announce(&["status", &site.nic.mac, "--json"]);
    assert_eq!(serde_json::from_str::<serde_json::Value>(&told.stdout).unwrap(), *report);
    let told = site.host.announce(&["status", "web2"]);
    assert_eq!(told.code, Some(4));
    assert!(told.stderr.starts_with("announce: no announcement of web2 is remembered"), "{told:?}");
    assert_eq!(told.stderr.lines().count(), 1);

    let wire = site.wire();
    site.host.sh("virsh suspend web1; virsh resume web1");
    let said = daemon.terminate();
    assert_eq!(said.code, Some(0), "{said:#?}");
    let lines = said.stderr.lines().filter(|line| line.contains(": announced")).count();
    assert_eq!(lines, 1, "one line for an announcement: {said:#?}");
    let daemon = Daemon::start(&site.host, QUICK);
    site.host.sh("virsh suspend web1; virsh resume web1; virsh destroy web1");
    has_announced_nothing(&daemon.knows(0));
    assert_eq!(wire.stop(), []);
}

#[test]
fn a_guest_is_announced_when_neutron_has_bound_its_port() {
    require!(lab, ovs, libvirt, tshark);
    for attachment in [Attachment::Ovs, Attachment::Hybrid] {
        let site = Site::build(attachment);
        let daemon = Daemon::start(&site.host, CALM);
        site.save();
        let wire = site.wire();
        site.restore("");
        daemon.is_at(1);
        assert_eq!(wire.count(), 0);
        site.bind();
        let report = &daemon.reports(1)[0];
        assert!(wire.sees(sent(report), DEADLINE));
        is_announced_at(&[0, 300, 900], &site.nic, site.vlan(), &wire.stop(), report, "restored");
        assert_eq!(site.learned(), Some((site.port(), Some(VLAN))));
    }
}

#[test]
fn a_network_has_settings_of_its_own() {
    require!(lab, ovs, libvirt, tshark);
    let site = Site::build(Attachment::Ovs);
    // Neutron, which would be in charge otherwise, binds nothing.
    let (daemon, wire) =
        daemon::restored(&site, &format!("{QUICK}[network.br-int]\nin-charge = \"nobody\"\n"), "");
    let report = &daemon.reports(1)[0];
    is_announced(&site.nic, None, &wire.stop(), report, "restored");
}

#[test]
fn a_guest_that_is_restored_paused_is_announced_when_it_goes_on() {
    require!(lab, libvirt, tshark);
    let site = Site::build(Attachment::LinuxBridge);
    let (daemon, wire) = daemon::restored(&site, QUICK, "--paused");
    daemon.knows(1);
    is_announced_when_resumed(&site, &daemon, wire, "restored");
}

#[test]
fn a_nic_that_no_host_can_speak_for_is_no_failure() {
    require!(lab, libvirt, tshark);
    let site = Site::build(Attachment::LinuxBridge);
    site.host.sh("virsh destroy web1");
    let daemon = Daemon::start(&site.host, &format!("{QUICK}[libvirt]\nevents = [\"started\"]\n"));
    let wire = site.wire();
    let user = "<interface type='user'><mac address='52:54:00:00:00:18'/><model type='virtio'/>\
                <rom enabled='no'/></interface>";
    site.guest.clone().device(user).start(&site.host);
    let status = daemon.comes_to("the report", |status| !status["recent"].as_array().unwrap().is_empty());
    is_announced(&site.nic, None, &wire.stop(), &status["recent"][0], "started");
    assert_eq!(status["metrics"]["announcements"]["failed"], 0, "{status:#}");
    let said = daemon.terminate().stderr;
    let line =
        "web1 52:54:00:00:00:18: not announced: a NIC of type user is on no network that can be announced";
    assert_eq!(said.matches(line).count(), 1, "{said}");
    assert_eq!(said.matches(": announced").count(), 1, "{said}");
}

#[test]
fn a_cold_start_is_announced_only_where_that_is_configured() {
    require!(lab, libvirt, tshark);
    let site = Site::build(Attachment::LinuxBridge);
    site.host.sh("virsh destroy web1");
    let daemon = Daemon::start(&site.host, QUICK);
    let wire = site.wire();
    site.guest.start(&site.host);
    daemon.knows(1);
    site.host.sh("virsh suspend web1; virsh resume web1; virsh destroy web1");
    has_announced_nothing(&daemon.knows(0));
    assert_eq!(wire.count(), 0);

    let line = daemon.reload("[schedule]\ncuont = 3\n", "stays in effect");
    assert!(line.contains("announced.toml:2:1: [schedule] has no key \"cuont\""), "{line}");
    daemon.reload(&format!("{QUICK}[libvirt]\nevents = [\"started\"]\n"), "is reloaded");
    site.guest.start(&site.host);
    let report = &daemon.reports(1)[0];
    is_announced(&site.nic, None, &wire.stop(), report, "started");

    let wire = site.wire();
    site.save();
    site.restore("");
    site.host.sh("virsh destroy web1");
    let status = daemon.knows(0);
    let events = &status["metrics"]["events"];
    assert_eq!(
        (&events["started"], &events["restored"]),
        (&1.into(), &0.into()),
        "restores are not configured"
    );
    assert_eq!(wire.stop(), []);
}

#[test]
fn a_plugged_nic_is_announced_alone() {
    require!(lab, libvirt, tshark);
    let site = Site::build(Attachment::LinuxBridge);
    let [second, third] = [21, 22].map(|number| Nic::new(number, Plug::Bridge("br0")));
    let known = [&second, &third]
        .map(|nic| format!("[nic.\"{}\"]\naddresses = [\"{}\", \"{}\"]\n", nic.mac, IPV4, IPV6));
    let daemon = Daemon::start(&site.host, &[QUICK, &known.concat()].concat());
    let wire = Capture::start(&site.host.wire(), "wire0", Direction::In, "");
    guest::attach(&site.host, "web1", &second);
    let report = &daemon.reports(1)[0];
    is_announced(&second, None, &wire.stop(), report, "plugged");

    // One that is plugged into a paused guest waits until that goes on.
    let wire = Capture::start(&site.host.wire(), "wire0", Direction::In, "");
    site.host.sh("virsh suspend web1");
    guest::attach(&site.host, "web1", &third);
    daemon.comes_to("the third NIC", |status| status["metrics"]["events"]["plugged"] == 2);
    let resumed = now();
    site.host.sh("virsh resume web1");
    let report = &daemon.reports(2)[1];
    let frames = wire.stop();
    assert!(frames[0].at > resumed, "{:?} before it was resumed", resumed - frames[0].at);
    is_announced(&third, None, &frames, report, "plugged");
}

#[test]
fn a_guest_that_ends_in_mid_burst_is_not_spoken_for_any_more() {
    require!(lab, libvirt, tshark);
    let site = Site::build(Attachment::LinuxBridge);
    let daemon = mid_burst(&site);
    silent_after(&site, &daemon, "destroy");
}

#[test]
fn a_guest_that_is_paused_in_mid_burst_is_announced_anew_when_it_goes_on() {
    require!(lab, ovs, libvirt, tshark);
    let site = Site::build(Attachment::Ovs);
    let daemon = mid_burst(&site);
    silent_after(&site, &daemon, "suspend");

    daemon.reload(QUICK, "is reloaded");
    let wire = site.wire();
    site.host.sh("virsh resume web1");
    let report = &daemon.reports(2)[1];
    is_announced(&site.nic, site.vlan(), &wire.stop(), report, "restored");
}

#[test]
fn a_guest_that_gets_a_nic_before_it_runs_is_announced_with_all_its_nics() {
    require!(lab, libvirt, tshark);
    let site = Site::build(Attachment::LinuxBridge);
    let second = Nic::new(21, Plug::Bridge("br0"));
    let daemon = Daemon::start(&site.host, QUICK);
    site.save();
    let wires = [&site.nic, &second]
        .map(|nic| Capture::start(&site.host.wire(), "wire0", Direction::In, &nic.sent()));
    site.restore("--paused");
    daemon.knows(1);
    guest::attach(&site.host, "web1", &second);
    daemon.comes_to("the second NIC", |status| status["metrics"]["events"]["plugged"] == 1);
    site.host.sh("virsh resume web1");
    daemon.reports(2);
    let [first, second] = wires.map(Capture::stop);
    assert_eq!(rounds(&first, None).len(), 3);
    assert_eq!(kinds(&second), ["rarp"; 3], "it has no address");
}

#[test]
fn a_guest_that_is_paused_for_a_moment_only_is_announced_all_the_same() {
    require!(lab, libvirt, tshark);
    let site = Site::build(Attachment::LinuxBridge);
    let daemon = mid_burst(&site);
    for _ in 0..5 {
        site.host.sh("virsh 'suspend web1; resume web1'");
        assert!(site.wire().sees(4, DEADLINE), "{}", daemon.program.stderr.so_far());
    }
}

/// Restored, and already announced for some rounds.
fn mid_burst(site: &Site) -> Daemon<'_> {
    let (daemon, wire) = daemon::restored(site, LONG, "");
    site.bind();
    assert!(wire.sees(8, DEADLINE), "{}", daemon.program.stderr.so_far());
    daemon
}

/// This command of virsh cancels the only announcement.
fn silent_after(site: &Site, daemon: &Daemon<'_>, command: &str) {
    let wire = site.wire();
    site.host.sh(&format!("virsh {command} web1"));
    let happened = now();
    let report = &daemon.reports(1)[0];
    assert_eq!(report["outcome"], "cancelled", "{report:#}");
    let after = site.wire();
    let frames = wire.stop();
    let last = frames.last().map_or(Duration::ZERO, |frame| frame.at);
    println!(
        "{command}: the last frame came {:?} before the command returned",
        happened.saturating_sub(last)
    );
    // The burst would still be going on.
    let error = report["error"].as_str().unwrap();
    assert!(error.ends_with(" of 1000 rounds)"), "{error}");
    daemon.is_at(0);
    assert_eq!(after.stop(), []);
}

#[test]
fn what_a_daemon_had_begun_the_next_one_finishes() {
    require!(lab, libvirt, tshark);
    let site = Site::build(Attachment::LinuxBridge);
    for end in [Daemon::kill, Daemon::terminate] {
        let daemon = mid_burst(&site);
        end(daemon);
        let wire = site.wire();
        let daemon = Daemon::start(&site.host, QUICK);
        let report = &daemon.reports(1)[0];
        is_announced(&site.nic, None, &wire.stop(), report, "restored");
        daemon.kill();
    }
    let wire = site.wire();
    let daemon = Daemon::start(&site.host, QUICK);
    daemon.knows(1);
    site.host.sh("virsh destroy web1");
    has_announced_nothing(&daemon.knows(0));
    assert_eq!(wire.stop(), []);
}

#[test]
fn a_port_for_which_a_killed_daemon_waited_is_waited_for_by_the_next() {
    require!(lab, ovs, libvirt, tshark);
    let site = Site::build(Attachment::Ovs);
    let (daemon, wire) = daemon::restored(&site, QUICK, "");
    daemon.is_at(1);
    daemon.kill();
    let daemon = Daemon::start(&site.host, QUICK);
    daemon.is_at(1);
    site.bind();
    let report = &daemon.reports(1)[0];
    is_announced(&site.nic, site.vlan(), &wire.stop(), report, "restored");
}

#[test]
fn a_plugged_nic_is_announced_by_the_next_daemon() {
    require!(lab, ovs, libvirt, tshark);
    let site = Site::ready(Attachment::Ovs);
    let daemon = Daemon::start(&site.host, QUICK);
    let second = Nic::new(21, Plug::Ovs("br-int"));
    let wire = Capture::start(&site.host.wire(), "wire0", Direction::In, "ether src fa:16:3e:00:00:15");
    guest::attach(&site.host, "web1", &second);
    daemon.is_at(1);
    daemon.kill();
    let daemon = Daemon::start(&site.host, QUICK);
    ovs::bind(&site.host, &second.tap(), VLAN);
    // The ledger has the NIC by its alias: the other one was announced before.
    daemon.reports(1);
    assert_eq!(kinds(&wire.stop()), ["rarp"; 3]);
}

#[test]
fn a_guest_that_came_while_no_daemon_ran_is_announced() {
    require!(lab, libvirt, tshark);
    let site = Site::build(Attachment::LinuxBridge);
    let others = [22, 23]
        .map(|number| Nic::new(number, Plug::Bridge("br0")).address("192.0.2.22").address("2001:db8::22"));
    let daemon = Daemon::start(&site.host, QUICK);
    for (nic, name) in others.iter().zip(["web2", "web3"]) {
        Guest::new(name).nova().quiet().nic(nic).start(&site.host);
    }
    daemon.knows(3);
    site.save();
    site.restore("");
    daemon.reports(1);
    daemon.kill();
    let wires = [&site.nic, &others[0], &others[1]]
        .map(|nic| Capture::start(&site.host.wire(), "wire0", Direction::In, &nic.sent()));
    // Guests that the last daemon saw from the start, saw being started, and saw staying.
    site.save();
    site.restore("");
    site.host.sh("virsh save web2 /run/web2; virsh restore /run/web2");
    let daemon = Daemon::start(&site.host, QUICK);
    daemon.reports(2);
    let frames = wires.map(Capture::stop);
    assert_eq!(frames.each_ref().map(|frames| rounds(frames, None).len()), [3, 3, 0]);
}

#[test]
fn a_guest_that_came_paused_while_no_daemon_ran_is_announced_when_it_goes_on() {
    require!(lab, libvirt, tshark);
    let site = Site::build(Attachment::LinuxBridge);
    let daemon = Daemon::start(&site.host, QUICK);
    daemon.knows(1);
    daemon.kill();
    site.save();
    // As after a migration with --suspend: paused by the user.
    site.restore("");
    site.host.sh("virsh suspend web1");
    let wire = site.wire();
    let daemon = Daemon::start(&site.host, QUICK);
    has_announced_nothing(&daemon.knows(1));
    is_announced_when_resumed(&site, &daemon, wire, "migrated");
}

/// The paused guest goes on, and is announced then and not before.
fn is_announced_when_resumed(site: &Site, daemon: &Daemon<'_>, wire: Capture, cause: &str) {
    let resumed = now();
    site.host.sh("virsh resume web1");
    let report = &daemon.reports(1)[0];
    let frames = wire.stop();
    assert!(frames[0].at > resumed, "{:?} before it was resumed", resumed - frames[0].at);
    is_announced(&site.nic, None, &frames, report, cause);
}

#[test]
fn a_restarted_ovsdb_does_not_lose_an_announcement() {
    require!(lab, ovs, libvirt, tshark);
    let site = Site::build(Attachment::Ovs);
    let (daemon, wire) = daemon::restored(&site, QUICK, "");
    daemon.is_at(1);
    ovs::stop(&site.host, "ovsdb-server");
    daemon.comes_to("the loss of OVSDB", |status| status["gauges"]["ovsdb"] == false);
    ovs::start_ovsdb(&site.host);
    site.bind();
    let report = &daemon.reports(1)[0];
    is_announced(&site.nic, site.vlan(), &wire.stop(), report, "restored");
}

#[test]
fn an_open_vswitch_that_comes_later_is_noticed() {
    require!(lab, ovs, libvirt, tshark);
    let site = Site::build(Attachment::Ovs);
    site.save();
    ["ovs-vswitchd", "ovsdb-server"].iter().for_each(|daemon| ovs::stop(&site.host, daemon));
    site.host.sh("mv /run/openvswitch /run/away");
    let daemon = Daemon::start(&site.host, QUICK);
    assert_eq!(daemon.status()["gauges"]["ovsdb"], false);
    site.host.sh("mkdir /run/openvswitch");
    ovs::start_ovsdb(&site.host);
    ovs::start_vswitchd(&site.host);
    daemon.comes_to("OVSDB", |status| status["gauges"]["ovsdb"] == true);
    let wire = site.wire();
    site.restore("");
    daemon.is_at(1);
    site.bind();
    let report = &daemon.reports(1)[0];
    is_announced(&site.nic, site.vlan(), &wire.stop(), report, "restored");
}

#[test]
fn a_restarted_libvirtd_does_not_lose_a_guest() {
    require!(lab, libvirt, tshark);
    let site = Site::build(Attachment::LinuxBridge);
    let settled = Nic::new(22, Plug::Bridge("br0")).address("192.0.2.22");
    Guest::new("web2").nova().quiet().nic(&settled).start(&site.host);
    let daemon = Daemon::start(&site.host, QUICK);
    let quiet = Capture::start(&site.host.wire(), "wire0", Direction::In, &settled.sent());

    // The guest comes before the daemon knows that libvirtd was away.
    let wire = site.wire();
    daemon.program.signal(nix::sys::signal::Signal::SIGSTOP);
    guest::restart_libvirtd(&site.host);
    site.save();
    site.restore("");
    daemon.program.signal(nix::sys::signal::Signal::SIGCONT);
    let report = &daemon.reports(1)[0];
    is_announced(&site.nic, None, &wire.stop(), report, "restored");

    // After a restart that it has noticed, it listens again.
    guest::restart_libvirtd(&site.host);
    daemon.comes_to("libvirt again", |status| status["gauges"]["libvirt"] == true);
    site.save();
    daemon.knows(1);
    let wire = site.wire();
    site.restore("");
    let report = &daemon.reports(2)[1];
    is_announced(&site.nic, None, &wire.stop(), report, "restored");
    assert_eq!(quiet.stop(), []);
}
