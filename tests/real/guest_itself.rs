//! A guest that libvirt has announce itself: it names all addresses that it has, also those that no system vouches for. libvirt 12.5
//! and newer can; an older one is named, and nothing else is different.

use serde_json::{Value, json};

use crate::testbed::daemon::{QUICK, restored};
use crate::testbed::{
    Attachment, Capture, DEADLINE, Direction, Guest, Host, Kind, Nic, Place, Plug, Site, booted,
    linux_bridge, report, require,
};

const ASK: &str = "[libvirt]\nask-guest = true\n";
/// No system knows of these.
const OWN: [&str; 2] = ["192.0.2.77", "2001:db8::77"];

/// Whether this host's libvirt can.
fn can_ask(host: &Host) -> bool {
    let version = host.sh("libvirtd --version");
    let version = version.trim().rsplit(' ').next().unwrap();
    let mut numbers = version.split('.').map(|number| number.parse::<u32>().unwrap());
    (numbers.next().unwrap(), numbers.next().unwrap()) >= (12, 5)
}

/// The guest's own addresses that it has announced.
fn announced(wire: Capture) -> Vec<String> {
    let frames = wire.stop();
    let named = frames.iter().filter_map(|frame| match &frame.kind {
        Kind::ArpRequest(arp) | Kind::ArpReply(arp) if arp.sender_ip == arp.target_ip => {
            Some(arp.sender_ip.to_string())
        }
        Kind::Na(na) => Some(na.target.to_string()),
        _ => None,
    });
    let mut named: Vec<String> = named.filter(|address| OWN.contains(&address.as_str())).collect();
    named.sort();
    named.dedup();
    named
}

#[test]
fn a_guest_announces_the_addresses_that_only_it_knows() {
    require!(lab, libvirt, vm, tshark, busybox, python3);
    let host = Host::build().libvirt().start();
    if !can_ask(&host) {
        // What an older one does, the other test tells.
        return;
    }
    linux_bridge::bridge(&host, "br0");
    let nic = Nic::new(30, Plug::Bridge("br0"));
    let [ipv4, ipv6] = OWN;
    let files = booted::build(
        &host,
        &format!(
            "/bin/busybox ip link set eth0 up
             /bin/busybox ip address add {ipv4}/24 dev eth0
             /bin/busybox ip address add {ipv6}/64 dev eth0"
        ),
    );
    Guest::new("web1").boots(&files).quiet().nic(&nic).start(&host);
    host.wire().sh(&format!(
        "sysctl -qw net.ipv6.conf.wire0.disable_ipv6=0 net.ipv6.conf.wire0.accept_dad=0
         ip address add 192.0.2.1/24 dev wire0; ip address add 2001:db8::1/64 dev wire0
         for address in {ipv4} {ipv6}; do
             timeout 60 sh -c \"until busybox ping -c 1 -W 1 $address >/dev/null; do :; done\"
         done"
    ));
    let file = host.directory().join("a.toml");
    std::fs::write(&file, ASK).unwrap();
    let file = file.to_str().unwrap();
    let announce = |more: &[&str]| {
        let run = host.announce(&[&["--vm", "web1", "--count", "3", "--interval", "500ms"], more].concat());
        assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""), "{run:#?}");
        run
    };
    let wire = || Capture::start(&host.wire(), "wire0", Direction::In, &nic.all_sent());

    let without = wire();
    assert_eq!(report(&announce(&["--json"]))["guest_announcement"], Value::Null);
    assert_eq!(announced(without), [""; 0], "nothing but its MAC address is known of it");

    let with = wire();
    let report = report(&announce(&["--json", "--config", file]));
    let told = &report["guest_announcement"];
    let explained = host.announce(&["explain", "--vm", "web1", "--config", file]).stdout;
    assert_eq!(told["error"], Value::Null, "{report:#}");
    assert!(report["first_frame_after_ms"].as_f64() < told["asked_after_ms"].as_f64(), "{report:#}");
    assert!(told["told_after_ms"].is_f64(), "{report:#}");
    assert_eq!(announced(with), OWN);
    assert!(told["asked_after_ms"].as_f64() < told["left_after_ms"].as_f64(), "{report:#}");
    let addresses = told["addresses"].as_array().unwrap();
    assert!(OWN.iter().all(|own| addresses.contains(&json!(own))), "{report:#}");
    assert!(explained.contains("\n  itself      the VM is told"), "{explained}");
}

#[test]
fn a_libvirt_that_is_too_old_is_named_once() {
    require!(lab, libvirt, tshark);
    let site = Site::ready(Attachment::LinuxBridge);
    let can_ask = can_ask(&site.host);
    let (daemon, wire) = restored(&site, &format!("{QUICK}{ASK}"), "");
    daemon.reports(1);
    site.save();
    daemon.knows(0);
    site.restore("");

    let reports = daemon.reports(2);

    let why = &reports[0]["guest_announcement"]["error"];
    if let Some(why) = why.as_str() {
        assert!(why.ends_with("cannot have a guest announce itself, 12.5 and newer can"), "{why}");
        let file = site.host.directory().join("announced.toml");
        let file = file.to_str().unwrap();
        let run = site.announce(&["--config", file]);
        assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""), "{run:#?}");
        assert!(run.stdout.contains(&format!("\n  not told to announce itself: {why}")), "{}", run.stdout);
        let explained = site.host.announce(&["explain", "--vm", "web1", "--config", file]).stdout;
        assert!(explained.contains(&format!("\n  itself      not told: {why}")), "{explained}");
    }
    let status = site.host.announce(&["status", "web1"]).stdout;
    for report in &reports {
        assert_eq!((&report["outcome"], &report["rounds"]), (&json!("announced"), &json!(3)));
        assert_eq!(report["guest_announcement"]["error"].is_null(), can_ask, "{report:#}");
    }
    assert_eq!(status.contains("told to announce itself after"), can_ask, "{status}");
    // Beside the rounds, QEMU's own RARP.
    let rounds = 2 * 3 * 4;
    assert!(wire.sees(if can_ask { rounds + 1 } else { rounds }, DEADLINE));
    let requests = &daemon.status()["metrics"]["guest_requests"];
    let counts = if can_ask { json!({"told": 2, "failed": 0}) } else { json!({"told": 0, "failed": 2}) };
    assert_eq!(requests, &counts);
    let log = daemon.terminate().stderr;
    assert_eq!(log.matches("ask-guest").count(), usize::from(!can_ask), "{log}");
}
