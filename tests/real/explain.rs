//! What `announce` would do: `explain`, `--dry-run` and `--pcap`.

use crate::testbed::dissect::dissect;
use crate::testbed::rounds::{ROUND, announcements, words};
use crate::testbed::{Attachment, DEADLINE, IPV4, IPV6, Place, Site, kinds, now, ovs, report, require};

#[test]
fn explain_shows_everything_and_sends_nothing() {
    require!(lab, ovs, libvirt, tshark);
    let site = Site::ready(Attachment::Hybrid);
    let (wire, sent) = (site.wire(), site.given());

    let run = site.host.announce(&["explain", "--vm", "web1", "--count", "4", "--interval", "100ms"]);

    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""));
    let [tap, qbr, qvb, qvo] = ["tap", "qbr", "qvb", "qvo"].map(|prefix| site.nic.device(prefix));
    for words in [
        &format!("web1 {tap} {}\n", site.nic.mac),
        &format!("path        hybrid: {tap} -> {qbr} -> {qvb} -> {qvo} -> br-int -> up0\n"),
        "in charge   neutron: nova's metadata in the domain's XML\n",
        "ready       yes, in VLAN 100\n",
        "addresses   192.0.2.10 (nova)\n              2001:db8::10 (nova)\n",
        "frames      arp-request 192.0.2.10\n              arp-reply 192.0.2.10\n              na 2001:db8::10\n              rarp\n              solicit 2001:db8:: from 2001:db8::10\n",
        "asks        2001:db8:: (anycast)\n",
        "schedule    4 rounds, at 0 100 300 700 ms\n",
        "ways in     redirect, else packet-out, else packet, else xdp\n",
    ] {
        assert!(run.stdout.contains(words), "no {words:?} in\n{}", run.stdout);
    }
    assert_eq!((wire.stop(), sent.stop()), (vec![], vec![]));
}

#[test]
fn explain_names_the_owner_and_the_unmet_conditions() {
    require!(lab, ovs, libvirt, tshark);
    let site = Site::build(Attachment::Ovs);
    let tap = site.nic.tap();
    let wire = site.wire();
    let explain = || {
        let run = site.host.announce(&["explain", "--vm", "web1"]);
        assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""));
        run.stdout
    };

    ovs::promise(&site.host, &tap, 100);
    ovs::dead(&site.host, &tap);
    let told = explain();
    for words in [
        &format!("in charge   neutron: other_config:net_uuid on {tap}\n"),
        &format!("ready       no: the port {tap} has tag 4095, neutron's dead VLAN\n"),
        &format!("            no: the port {tap} has vlan_mode trunk, not access\n"),
        &format!("            no: the port {tap} has trunks [4095], not []\n"),
    ] {
        assert!(told.contains(words.as_str()), "no {words:?} in\n{told}");
    }

    site.host.sh("ovs-vsctl set Open_vSwitch . external_ids:ovn-remote=ssl:192.0.2.254:6642");
    let told = explain();
    assert!(told.contains("in charge   ovn: ovn-controller's settings in OVSDB"), "{told}");
    assert!(told.contains("no: ovn-controller has not installed the flows"), "{told}");

    let configuration = site.host.directory().join("announced.toml");
    std::fs::write(&configuration, "[vm.web1]\nin-charge = \"nobody\"\n").unwrap();
    let overruled = ["explain", "--vm", "web1", "--config", configuration.to_str().unwrap()];
    let told = site.host.announce(&overruled).stdout;
    assert!(told.contains("in charge   nobody: the configuration says so\n"), "{told}");
    assert_eq!(wire.stop(), []);
}

#[test]
fn explain_for_programs() {
    require!(lab, ovs, libvirt);
    let site = Site::build(Attachment::Ovs);
    let run = site.host.announce(&["explain", "--vm", "web1", "--json"]);
    assert_eq!(run.code, Some(0), "{run:#?}");
    let told = report(&run);
    assert_eq!((&told["in_charge"], &told["attachment"]["kind"]), (&"neutron".into(), &"ovs".into()));
    assert_eq!(told["unmet"][0], format!("the port {} has no VLAN tag yet", site.port()));
    assert_eq!(told["injectors"], serde_json::json!(["packet-out", "redirect", "xdp"]));
    assert_eq!(told["addresses"][1], serde_json::json!({"ip": IPV6, "source": "nova"}));
}

/// What it says of frames and ways in is tried, not taken from a table.
#[test]
fn explain_tells_what_would_not_work_here() {
    require!(lab, ovs, libvirt, tshark);
    let site = Site::ready(Attachment::Ovs);
    let wire = site.wire();
    site.host.sh("ovs-vsctl set port up0 trunks=200; mv /run/openvswitch/br-int.mgmt /run/openvswitch/away");
    let run = site.host.announce(&["explain", "web1"]);
    assert_eq!(run.code, Some(0), "{run:#?}");
    let held = "  held        arp-request, arp-reply, na, rarp: the uplink up0 does not carry VLAN 100 (trunks: 200); ";
    assert!(run.stdout.contains(held), "{}", run.stdout);
    let ways = "  ways in     redirect, else xdp\n              not packet-out: cannot connect to ";
    assert!(run.stdout.contains(ways), "{}", run.stdout);
    let told = report(&site.host.announce(&["explain", "web1", "--json"]));
    assert_eq!(told["missing_injectors"][0]["injector"], "packet-out");
    assert_eq!(wire.stop(), []);
}

#[test]
fn explain_tells_of_a_port_that_returns_the_guests_frames() {
    require!(lab, libvirt, tshark);
    let site = Site::ready(Attachment::LinuxBridge);
    site.host.sh(&format!("bridge link set dev {} hairpin on", site.nic.tap()));

    let run = site.host.announce(&["explain", "web1"]);

    let note =
        format!("  note        {} is a hairpin port of br0: the guest receives its own", site.nic.tap());
    assert!(run.stdout.contains(&note), "{}", run.stdout);
    let told = report(&site.host.announce(&["explain", "web1", "--json"]));
    assert_eq!(told["notes"][0]["code"], "hairpin");
}

/// A rehearsal with everything but the sending: it waits for the port, and the frames can be looked at.
#[test]
fn a_dry_run_sends_nothing_and_says_so() {
    require!(lab, ovs, libvirt, tshark);
    let site = Site::build(Attachment::Ovs);
    let wire = site.wire();
    let pcap = site.host.directory().join("dry.pcap");
    let arguments = ["--dry-run", "--pcap", pcap.to_str().unwrap()];
    let announce = site.waiting("no VLAN tag yet", &arguments);
    site.bind();

    let run = announce.finish();

    assert_eq!(run.code, Some(0), "{run:#?}");
    assert!(run.stdout.contains("announced in VLAN 100 (dry run: nothing was sent)"), "{run:#?}");
    assert_eq!(wire.stop(), []);
    let frames = dissect(&std::fs::read(&pcap).unwrap());
    assert_eq!(kinds(&frames)[..4], ROUND);

    let run = site.announce(&["--dry-run", "--json"]);
    assert_eq!(report(&run)["dry_run"], true);
}

#[test]
fn a_capture_file_has_what_was_sent() {
    require!(lab, libvirt, tshark);
    let site = Site::ready(Attachment::LinuxBridge);
    let wire = site.wire();
    let pcap = site.host.directory().join("sent.pcap");

    let began = now();
    let run = site.announce(&["--pcap", pcap.to_str().unwrap()]);
    let ended = now();

    assert_eq!(run.code, Some(0), "{run:#?}");
    assert!(wire.sees(12, DEADLINE));
    let written = announcements(dissect(&std::fs::read(&pcap).unwrap()));
    let captured = wire.stop();
    assert_eq!(written.len(), 12);
    for (written, captured) in written.iter().zip(&captured) {
        assert_eq!(written.bytes, captured.bytes);
        assert!(written.complaints.is_empty(), "{written:#?}");
        assert!((began..ended).contains(&written.at), "{:?} is not in {began:?}..{ended:?}", written.at);
    }
    assert!(written.is_sorted_by_key(|frame| frame.at));
    let said: Vec<_> = written[..4].iter().map(|frame| frame.kind.clone()).collect();
    assert_eq!(said, words(&site.nic, IPV4, IPV6));
}
