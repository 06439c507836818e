//! Another host uses the guest's MAC while it is announced here.

use std::fs::File;
use std::time::Duration;

use announced::for_tests::frame::{Kind, Style, round};
use announced::for_tests::sys::packet;
use nix::net::if_::if_nametoindex;
use nix::sched::{CloneFlags, setns};
use serde_json::{Value, json};

use crate::testbed::{
    Attachment, Capture, DEADLINE, Direction, Host, IPV4, Place, Running, Site, Stand, VLAN, report, require,
};

/// Rounds for some seconds.
const ROUNDS: [&str; 7] = ["--count", "10", "--interval", "400ms", "--backoff", "1", "--json"];
/// Rounds without an end.
const LONG: [&str; 7] = ["--count", "1000", "--interval", "400ms", "--backoff", "1", "--json"];

#[test]
fn a_device_whose_mac_its_bridge_moves_to_the_uplink_is_announced_no_longer() {
    require!(lab, ovs, tshark);
    for (stand, vlan) in [(Stand::linux_bridge(), None), (Stand::open_vswitch(), Some(VLAN))] {
        let announce = begun(&stand.host, || stand.start_announce(&LONG));
        // Open vSwitch learns within half a second from frames for which it has a flow in its datapath.
        let until_it_ends = (0..600).take_while(|_| announce.is_running());
        from_elsewhere(&stand.host, &question(&stand.nic.mac, vlan), until_it_ends);

        let run = announce.finish();

        let report = report(&run);
        let why = format!("{} has been seen on up0 (after ", stand.nic.mac);
        assert_eq!((run.code, &report["outcome"]), (Some(1), &json!("cancelled")), "{run:#?}");
        assert!(report["error"].as_str().unwrap().starts_with(&why), "{report:#}");
        let [seen] = &report["seen_elsewhere"].as_array().unwrap()[..] else { panic!("{report:#}") };
        assert_eq!((&seen["device"], &seen["vlan"]), (&json!("up0"), &json!(vlan)), "{report:#}");
    }
}

/// Replies are sent in place of the guest: by suppressing leaves, and by the responders of SDNs.
#[test]
fn replies_in_place_of_a_device_do_not_end_its_announcement() {
    require!(lab, tshark);
    let stand = Stand::linux_bridge();
    let announce = begun(&stand.host, || stand.start_announce(&ROUNDS));
    from_elsewhere(&stand.host, &of_kind(Kind::ArpReply, &stand.nic.mac, "192.0.2.99"), 0..6);
    let run = announce.finish();
    let report = report(&run);
    assert_eq!((run.code, &report["rounds"]), (Some(0), &json!(10)), "{run:#?}");
    assert!(codes(&report).contains(&"seen-elsewhere"), "{report:#}");
}

/// As a bond does that a switch does not know of: what the guest says comes back, and so does what is announced.
#[test]
fn what_the_network_returns_does_not_end_the_announcement_of_a_device() {
    require!(lab, tshark, bridge);
    let stand = Stand::linux_bridge();
    stand.host.wire().sh("ip link add loop type bridge forward_delay 0 mcast_snooping 0
         ip link set wire0 master loop; ip link set loop up");
    let announce = begun(&stand.host, || stand.start_announce(&ROUNDS));
    // Once the bridge has learned the guest behind its own port.
    stand.host.wire().sh("bridge link set dev wire0 hairpin on");
    for _ in 0..50 {
        stand.says(&question(&stand.nic.mac, None));
        std::thread::sleep(Duration::from_millis(30));
    }
    let run = announce.finish();
    let report = report(&run);
    assert_eq!((run.code, &report["rounds"]), (Some(0), &json!(10)), "{run:#?}");
}

/// libvirt knows where the guest is.
#[test]
fn another_host_that_uses_the_mac_of_a_guest_of_libvirt_is_told_and_answered_by_one_more_round() {
    require!(lab, libvirt, tshark);
    let site = Site::ready(Attachment::LinuxBridge);
    let announce = begun(&site.host, || site.host.start_announce(&[&["--vm", "web1"], &ROUNDS[..]].concat()));
    from_elsewhere(&site.host, &question(&site.nic.mac, None), 0..6);
    let run = announce.finish();
    let report = report(&run);
    assert_eq!((run.code, &report["rounds"]), (Some(0), &json!(11)), "{run:#?}");
    let [seen] = &report["seen_elsewhere"].as_array().unwrap()[..] else { panic!("{report:#}") };
    assert_eq!((&seen["device"], &seen["frames"]), (&json!("up0"), &json!(6)), "{report:#}");
    assert!(codes(&report).contains(&"seen-elsewhere"), "{report:#}");
}

/// An announcement whose first round has left.
fn begun(host: &Host, start: impl FnOnce() -> Running) -> Running {
    let wire = Capture::start(&host.wire(), "wire0", Direction::In, "arp or rarp");
    let announce = start();
    assert!(wire.sees(3, DEADLINE));
    announce
}

/// Another host sends this frame so many times, 100 ms apart.
fn from_elsewhere(host: &Host, frame: &[u8], times: impl Iterator + Send) {
    let network = File::open(format!("/proc/{}/root/run/netns/wire", host.pid())).unwrap();
    let send_all = || {
        // Of this thread only.
        setns(network, CloneFlags::CLONE_NEWNET).unwrap();
        let (socket, wire) = (packet::sender().unwrap(), if_nametoindex("wire0").unwrap());
        for _ in times {
            packet::transmit(&socket, wire, frame).unwrap();
            std::thread::sleep(Duration::from_millis(100));
        }
    };
    std::thread::scope(|scope| scope.spawn(send_all).join().unwrap());
}

fn of_kind(kind: Kind, mac: &str, ip: &str) -> Vec<u8> {
    let frames = round(mac.parse().unwrap(), &[ip.parse().unwrap()], &Style::default());
    frames.into_iter().find(|frame| frame.kind == kind).unwrap().bytes
}

/// A question of the guest's own, in a VLAN.
fn question(mac: &str, vlan: Option<u16>) -> Vec<u8> {
    let mut question = of_kind(Kind::ArpRequest, mac, IPV4);
    question[41] = 77;
    if let Some(vlan) = vlan {
        let [high, low] = vlan.to_be_bytes();
        question.splice(12..12, [0x81, 0, high, low]);
    }
    question
}

fn codes(report: &Value) -> Vec<&str> {
    report["notes"].as_array().unwrap().iter().filter_map(|note| note["code"].as_str()).collect()
}
