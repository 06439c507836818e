//! `announced` waits for as long as the guest runs here: it warns once, heeds a new configuration, and announces in the end.

use crate::testbed::daemon::{CALM, is_announced_at};
use crate::testbed::guest::network;
use crate::testbed::{
    Attachment, Capture, DEADLINE, Daemon, Direction, Guest, Host, Nic, Place, Plug, Running, Site,
    eventually, require,
};

const IMPATIENT: &str = "[ports]\nwait = \"200ms\"\n";

/// What the metrics have of those that wait for this.
fn waiting(site: &Site, condition: &str) -> Option<String> {
    let text = site.host.announce(&["status", "--prometheus"]).stdout;
    let line = format!("announced_waiting{{condition=\"{condition}\"}} ");
    text.lines().find_map(|found| found.strip_prefix(&line).map(str::to_owned))
}

#[test]
fn a_port_is_waited_for_and_a_new_configuration_holds_for_it() {
    require!(lab, ovs, libvirt, tshark);
    let site = Site::build(Attachment::Ovs);
    let daemon = Daemon::start(&site.host, &format!("{CALM}{IMPATIENT}"));
    assert_eq!(waiting(&site, "tag").as_deref(), Some("0"));
    site.save();
    let wire = site.wire();
    site.restore("");
    let warning = daemon.program.stderr.line_with("not announced yet: ");
    let unmet = format!("the port {} has no VLAN tag yet", site.port());
    assert!(warning.contains(&unmet) && warning.contains("still waiting"), "{warning}");
    let status = daemon.is_at(1);
    assert_eq!(
        (&status["waiting"][0]["condition"], &status["waiting"][0]["reason"]),
        (&"tag".into(), &unmet.clone().into()),
        "{status:#}"
    );
    let told = site.host.announce(&["status"]).stdout;
    assert!(
        told.contains(", waiting for ")
            && told.contains(&format!(", for as long as the VM is here: {unmet}")),
        "{told}"
    );
    assert_eq!(waiting(&site, "tag").as_deref(), Some("1"));
    assert_eq!(wire.count(), 0);

    let config = format!("{CALM}{IMPATIENT}[network.br-int]\nin-charge = \"nobody\"\n");
    daemon.reload(&config, "is reloaded");
    let report = &daemon.reports(1)[0];
    is_announced_at(&[0, 300, 900], &site.nic, None, &wire.stop(), report, "restored");
    assert_eq!(waiting(&site, "tag").as_deref(), Some("0"));
    let said = daemon.terminate().stderr;
    assert_eq!(said.matches("not announced yet").count(), 1, "{said}");
}

#[test]
fn what_gets_lost_is_warned_of_once_with_the_reason_and_leaves_in_the_end() {
    require!(lab, ovs, libvirt, tshark);
    let site = Site::build(Attachment::Ovs);
    let daemon = Daemon::start(&site.host, &format!("{CALM}{IMPATIENT}"));
    site.save();
    site.host.sh(&format!("ovs-ofctl add-flow br-int priority=9,dl_src={},actions=drop", site.nic.mac));
    site.restore("");
    site.bind();
    let warning = daemon.program.stderr.line_with("nothing of it has left the host for 200ms");
    assert!(warning.contains("actions=drop") && warning.contains("still trying"), "{warning}");
    assert_eq!(waiting(&site, "departure").as_deref(), Some("1"));
    assert_eq!(daemon.is_at(1)["recent"], serde_json::json!([]));
    site.host.sh(&format!("ovs-ofctl --strict del-flows br-int priority=9,dl_src={}", site.nic.mac));
    let report = &daemon.reports(1)[0];
    assert_eq!((&report["outcome"], &report["rounds"]), (&"announced".into(), &3.into()), "{report:#}");
    let said = daemon.terminate().stderr;
    assert_eq!(said.matches("not announced yet").count(), 1, "{said}");
}

#[test]
fn one_that_waits_is_left_out_when_the_configuration_says_so() {
    require!(lab, ovs, libvirt);
    let site = Site::build(Attachment::Ovs);
    let daemon = Daemon::start(&site.host, CALM);
    site.save();
    site.restore("");
    daemon.is_at(1);
    daemon.reload("[vm.web1]\nannounce = false\n", "is reloaded");
    let report = &daemon.reports(1)[0];
    assert_eq!(report["outcome"], "cancelled");
    assert!(report["error"].as_str().unwrap().contains("announce = false"), "{report:#}");
}

/// A waiting announcement gets the addresses of sources that a new configuration adds, and drops those that it forbids.
#[test]
fn what_waits_is_read_again_for_other_sources_of_addresses() {
    require!(lab, libvirt, tshark, dnsmasq);
    let host = Host::build().libvirt().start();
    let nic = Nic::new(1, Plug::Network("tenants"));
    network(&host, "tenants", "br0", &[(&nic.mac, "192.0.2.77")]);
    host.sh("ip link set up0 master br0");
    let daemon = Daemon::start(
        &host,
        &format!("{CALM}[libvirt]\nevents = [\"started\"]\n[addresses]\nsources = [\"nova\"]\n"),
    );
    let nic = nic.with("<link state='down'/>").address("192.0.2.78");
    Guest::new("web1").nova().nic(&nic).start(&host);
    let waits =
        daemon.comes_to("one that waits", |status| status["waiting"][0]["condition"] == "guest-link-down");
    assert_eq!(waits["gauges"]["in_progress"], 1);
    let config = "[libvirt]\nevents = [\"started\"]\n[addresses]\nnever = [\"192.0.2.78\"]\n";
    daemon.reload(&format!("{CALM}{config}"), "is reloaded");
    let wire = Capture::start(&host.wire(), "wire0", Direction::In, &nic.sent());
    host.sh(&format!("virsh --quiet domif-setlink web1 {} up", nic.tap()));
    let report = &daemon.reports(1)[0];
    assert_eq!(
        report["addresses"],
        serde_json::json!([{ "ip": "192.0.2.77", "source": "network-host" }]),
        "{report:#}"
    );
    assert!(wire.sees(6, DEADLINE));
    let frames = wire.stop();
    assert!(frames.iter().all(|frame| !format!("{frame:?}").contains("192.0.2.78")), "{frames:#?}");
}

#[test]
fn a_guest_that_libvirt_was_still_starting_for_one_daemon_is_announced_by_the_next() {
    require!(lab, libvirt, tshark);
    let site = Site::ready(Attachment::LinuxBridge);
    site.host.sh("virsh --quiet destroy web1");
    site.guest.clone().held(&site.host).start(&site.host);
    let first = Daemon::start(&site.host, CALM);
    site.save();
    first.knows(0);
    first.terminate();
    let held = site.host.directory().join("held");
    std::fs::write(&held, "").unwrap();
    let restoration = Running::start(site.host.command("virsh").args(["--quiet", "restore", &site.saved()]));
    eventually("its QEMU, which does not answer yet", || {
        let state = site.host.sh("virsh domstate --reason web1 2>/dev/null || true");
        (state.trim() == "paused (starting up)").then_some(())
    });

    let second = Daemon::start(&site.host, CALM);
    assert_eq!(second.status()["guests"], 0);
    second.terminate();
    std::fs::remove_file(held).unwrap();
    assert_eq!(restoration.finish().code, Some(0));
    let third = Daemon::start(&site.host, CALM);

    let report = &third.reports(1)[0];
    assert_eq!((report["cause"].as_str(), report["outcome"].as_str()), (Some("restored"), Some("announced")));
}
