//! `announce --vm` for a running guest of libvirt, as it is seen beyond the uplink.

use crate::testbed::rounds::{ROUND, on_schedule, words};
use crate::testbed::{
    Attachment, Capture, DEADLINE, Direction, IPV4, IPV6, Place, Site, eventually, kinds, ovs, report,
    require, rounds, rounds_sent, sent,
};
use nix::sys::signal::Signal;

#[test]
fn on_a_linux_bridge() {
    require!(lab, libvirt, tshark);
    is_announced_on(Attachment::LinuxBridge, "redirect");
}

#[test]
fn on_an_open_vswitch_port() {
    require!(lab, ovs, libvirt, tshark);
    is_announced_on(Attachment::Ovs, "packet-out");
}

#[test]
fn on_a_hybrid_plug() {
    require!(lab, ovs, libvirt, tshark);
    is_announced_on(Attachment::Hybrid, "redirect");
}

/// All kinds of frames leave in the port's VLAN, in order, when they are due and no more often; every bridge on the way
/// learns where the guest is; the guest itself hears nothing.
fn is_announced_on(attachment: Attachment, injector: &str) {
    let site = Site::ready(attachment);
    let (wire, given) = (site.wire(), site.given());
    // Frames of different flows may overtake one another in Open vSwitch, unless it was handed them in their order.
    let ordered = match attachment {
        Attachment::Hybrid => Capture::start(&site.host, &site.port(), Direction::In, &site.nic.sent()),
        _ => site.wire(),
    };

    let run = site.host.announce(&["--vm", "web1", "--json", "--count", "4", "--interval", "200ms"]);

    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""));
    let report = report(&run);
    assert!(wire.sees(sent(&report), DEADLINE));
    let frames = wire.stop();
    let rounds = rounds(&frames, site.vlan());
    on_schedule(&rounds, &report, &[0, 200, 600, 1400]);
    assert!(ordered.sees(sent(&report), DEADLINE));
    let ordered = ordered.stop();
    assert_eq!(kinds(&ordered), ROUND.repeat(rounds_sent(&report)));
    for round in ordered.chunks(ROUND.len()) {
        let said: Vec<_> = round.iter().map(|frame| frame.kind.clone()).collect();
        assert_eq!(said, words(&site.nic, IPV4, IPV6));
        let to: Vec<_> = round.iter().map(|frame| frame.destination.as_str()).collect();
        let broadcast = "ff:ff:ff:ff:ff:ff";
        assert_eq!(to, [broadcast, broadcast, "33:33:00:00:00:01", broadcast]);
        assert!(round.iter().all(|frame| frame.source == site.nic.mac));
    }
    assert_eq!(site.learned(), Some((site.port(), site.vlan())));
    assert_eq!(given.stop(), []);

    assert_eq!(report["domain"]["name"], "web1");
    assert_eq!(report["device"], site.nic.tap());
    assert_eq!(report["attachment"]["vlan"], serde_json::json!(site.vlan()));
    assert_eq!((&report["rounds"], &report["outcome"]), (&4.into(), &"announced".into()));
    let each = rounds_sent(&report);
    let mut frames = serde_json::json!({"rarp": each, "arp_request": each, "arp_reply": each, "na": each});
    // A lost round asks no gateway, and no IPv4 gateway is known.
    (frames["ask"], frames["solicit"]) = (0.into(), report["rounds"].clone());
    assert_eq!(report["frames"], frames);
    assert_eq!(report["injector"], injector);
}

#[test]
fn its_rarp_is_qemus() {
    require!(lab, libvirt, tshark);
    let site = Site::ready(Attachment::LinuxBridge);
    let wire = site.wire();
    let arguments = r#"{"initial":50,"max":50,"rounds":1,"step":0}"#;
    let announce_self = format!(r#"{{"execute":"announce-self","arguments":{arguments}}}"#);
    site.host.sh(&format!("virsh qemu-monitor-command web1 '{announce_self}'"));
    assert!(wire.sees(1, DEADLINE));

    let run = site.host.announce(&["--vm", "web1", "--send", "rarp", "--count", "1"]);

    assert_eq!(run.code, Some(0), "{run:#?}");
    assert!(wire.sees(2, DEADLINE));
    let frames = wire.stop();
    let [qemus, ours] = &frames[..] else { panic!("{frames:#?}") };
    assert_eq!(qemus.kind.name(), "rarp");
    assert_eq!(ours.bytes, qemus.bytes);
}

#[test]
fn every_way_into_an_attachment_leads_to_the_wire() {
    require!(lab, ovs, libvirt, tshark);
    for (attachment, ways) in [
        (Attachment::LinuxBridge, &["redirect", "xdp", "fdb"][..]),
        (Attachment::Ovs, &["packet-out", "redirect", "xdp"]),
        (Attachment::Hybrid, &["redirect", "packet-out", "packet", "xdp"]),
    ] {
        let site = Site::ready(attachment);
        for way in ways {
            let (wire, given) = (site.wire(), site.given());

            let run = site.announce(&["--json", "--inject", way]);

            assert_eq!(run.code, Some(0), "{attachment:?} {way}: {run:#?}");
            let report = report(&run);
            assert_eq!((&report["injector"], &report["rounds"]), (&(*way).into(), &3.into()));
            assert!(wire.sees(sent(&report), DEADLINE), "{attachment:?} {way}");
            let rounds = rounds(&wire.stop(), site.vlan()).len();
            assert_eq!(rounds, rounds_sent(&report), "{attachment:?} {way}");
            assert_eq!(site.learned(), Some((site.port(), site.vlan())), "{attachment:?} {way}");
            // The bridge floods its own frames to every port.
            assert_eq!(given.stop().is_empty(), *way != "fdb", "{attachment:?} {way}");
        }
    }
}

#[test]
fn a_way_that_the_attachment_does_not_offer_is_refused() {
    require!(lab, libvirt);
    let site = Site::ready(Attachment::LinuxBridge);
    for way in ["packet-out", "packet"] {
        let run = site.announce(&["--inject", way]);
        assert_eq!(run.code, Some(1));
        let words = format!("--inject {way} does not work with this attachment; it takes redirect, xdp");
        assert!(run.stderr.contains(&words) && run.stderr.lines().count() == 1, "{run:#?}");
    }
}

#[test]
fn the_report_for_people() {
    require!(lab, ovs, libvirt);
    let site = Site::ready(Attachment::Hybrid);
    let [tap, mac] = [site.nic.tap(), site.nic.mac.clone()];
    // Open vSwitch says itself when it is through with a packet-out, so that none is taken for lost.
    let run = site.announce(&["--inject", "packet-out"]);
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""));
    for words in [
        &format!("web1 {tap} {mac}: announced in VLAN 100"),
        &format!("{tap} -> qbr567a450a-b0 -> qvb567a450a-b0 -> qvo567a450a-b0 -> br-int -> up0"),
        "192.0.2.10 (nova), 2001:db8::10 (nova)",
        "3 rounds: 3 arp-request, 3 arp-reply, 3 na, 3 rarp, 3 solicit; by packet-out",
    ] {
        assert!(run.stdout.contains(words), "no {words:?} in\n{}", run.stdout);
    }
}

#[test]
fn what_is_no_guests_port_is_refused() {
    require!(lab, ovs, libvirt);
    let site = Site::ready(Attachment::Ovs);
    for (device, what) in [("br-int", "a bridge"), ("up0", "an uplink of this host (path.uplinks)")] {
        let run = site.host.announce(&["--dev", device, "--mac", &site.nic.mac, "--count", "1"]);
        let words = format!("announce: --dev {device} is {what}, not a guest's port\n");
        assert_eq!((run.code, run.stderr.as_str()), (Some(1), words.as_str()), "{run:#?}");
    }
}

/// A common mistake in provisioning.
#[test]
fn an_uplink_that_does_not_carry_the_vlan_is_named() {
    require!(lab, ovs, libvirt);
    let site = Site::ready(Attachment::Ovs);
    site.host.sh("ovs-vsctl set port up0 trunks=200");
    let run = site.announce(&["--wait", "1"]);
    assert_eq!(run.code, Some(1), "{run:#?}");
    assert!(
        run.stderr.contains("the uplink up0 does not carry VLAN 100 (trunks: 200); br-int table 0: "),
        "{run:#?}"
    );
}

#[test]
fn without_ovsdb_it_is_not_said_that_the_port_is_unplugged() {
    require!(lab, ovs, libvirt);
    let site = Site::ready(Attachment::Ovs);
    ovs::stop(&site.host, "ovsdb-server");
    let run = site.announce(&["--wait", "0"]);
    assert_eq!(run.code, Some(1), "{run:#?}");
    assert!(
        run.stderr.contains("not-ready: OVSDB cannot be reached: ") && !run.stderr.contains("plugged"),
        "{run:#?}"
    );
    let run = site.host.announce(&["explain", "web1"]);
    assert_eq!(run.code, Some(1), "{run:#?}");
    assert!(run.stdout.contains("it cannot be told without OVSDB"), "{run:#?}");
}

/// Process monitors count daemons by this name.
#[test]
fn the_process_of_the_one_shot_is_called_announce() {
    require!(lab, libvirt);
    let site = Site::ready(Attachment::LinuxBridge);
    let announce =
        site.host.start_announce(&["web1", "--count", "1000", "--interval", "100ms", "--backoff", "1"]);
    eventually("its name", || {
        let names = site.host.sh("cat /proc/[0-9]*/comm 2>/dev/null || true");
        let has = |wanted: &str| names.lines().any(|name| name == wanted);
        (has("announce") && !has("announced")).then_some(())
    });
    announce.signal(Signal::SIGTERM);
    announce.finish();
}
