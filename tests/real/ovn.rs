//! The real OVN: northd, three chassis, and guests that move between them.

use std::thread::sleep;
use std::time::Duration;

use serde_json::Value;

use crate::testbed::ovn::{binding, is_installed, plug, rounds_without_rarp};
use crate::testbed::site::CALM;
use crate::testbed::{
    Capture, DEADLINE, Daemon, Direction, Frame, Guest, IPV4, Ovn, Place, Run, VLAN, daemon, eventually,
    has_all, kinds, report, require, rounds_sent, timed,
};

/// A migration without an activation strategy: the port is on the new host before OVN binds it there.
#[test]
fn a_port_that_is_bound_anew() {
    require!(lab, ovs, ovn, tshark);
    let mut ovn = Ovn::build();
    // So that the network is on this chassis already.
    ovn.neighbour(|ovn| &ovn.second, "provider", 22, "192.0.2.22");
    let (run, frames) = is_announced_when_bound(&ovn);
    let report = report(&run);
    assert_eq!(run.code, Some(0), "{run:#?}");
    assert_eq!((&report["departure"]["device"], &report["departure"]["vlan"]), (&"up0".into(), &VLAN.into()));
    all_rounds_came(&frames, &report);
    // Its port security lets no RARP pass.
    assert!(!kinds(&frames).contains(&"rarp"), "{:?}", kinds(&frames));
}

/// `requested-chassis` moves the port to the second host, where `announce` waits for it; nothing has left before.
fn is_announced_when_bound(ovn: &Ovn) -> (Run, Vec<Frame>) {
    ovn.port("provider", &ovn.nic, "h1");
    plug(&ovn.first, &ovn.nic);
    is_installed(&ovn.first, &ovn.nic);
    plug(&ovn.second, &ovn.nic);
    let wire = ovn.wire("up2");
    let announce = ovn.start_announce(&ovn.second, &[&CALM[..], &["-v", "--json"]].concat());
    announce.stderr.line_with("ovn-installed is not set");
    // Longer than any of our own delays.
    sleep(Duration::from_secs(1));
    let bound = ovn.request("h2");
    let run = announce.finish();
    let frames = stopped(wire, &report(&run));
    assert!(frames[0].at > bound, "{:?} too early", bound - frames[0].at);
    println!("first frame {:?} after the northbound database's change began", frames[0].at - bound);
    (run, frames)
}

/// All of them, in the network's VLAN, when all rounds have come of which the report speaks.
fn stopped(wire: Capture, report: &Value) -> Vec<Frame> {
    has_all(&wire, report);
    let frames = wire.stop();
    assert!(frames.iter().all(|frame| frame.vlan == Some(VLAN)), "{frames:#?}");
    frames
}

/// All rounds that the report speaks of came. A slow Open vSwitch makes rounds late, which are taken for lost then, and repeated.
fn all_rounds_came(frames: &[Frame], report: &Value) {
    let (came, sent) = (rounds_without_rarp(frames), rounds_sent(report));
    let promised = report["rounds"].as_u64().unwrap() as usize;
    assert!((promised..=sent).contains(&came), "{came} of {promised} to {sent}: {:?}", kinds(frames));
}

/// As neutron has it since 2023: both chassis have the port, and the first RARP on the new one activates it there. A whole
/// migration of a real guest.
#[test]
fn a_live_migration_with_an_activation_strategy() {
    require!(lab, ovs, ovn, libvirt, tshark);
    let ovn = Ovn::with_libvirt();
    ovn.port("provider", &ovn.nic, "h1");
    Guest::new("web1").nova().nic(&ovn.nic).start(&ovn.first);
    is_installed(&ovn.first, &ovn.nic);
    let announced = Daemon::start(&ovn.second, daemon::CALM);
    ovn.request("h1,h2 activation-strategy=rarp");
    ovn.settle();
    let wire = ovn.wire("up2");

    ovn.first.sh("virsh --quiet migrate --live --p2p web1 qemu+tcp://10.77.0.2/system");
    let report = &announced.reports(1)[0];
    binding(&ovn, "options", |options| options.contains("additional-chassis-activated=h2"));
    ovn.request("h2");
    binding(&ovn, "additional_chassis", str::is_empty);

    let frames = stopped(wire, report);
    assert_eq!(
        (&report["outcome"], &report["cause"]),
        (&"announced".into(), &"migrated".into()),
        "{report:#}"
    );
    all_rounds_came(&frames, report);
    let first_ip = frames.iter().find(|frame| frame.kind.name() != "rarp").unwrap();
    println!(
        "the first frame that names an address came {:?} after the first one",
        first_ip.at - frames[0].at
    );
}

/// The flows of a port are there, and `ovn-installed` says so, before the guest runs on the new host: what is sent then would
/// activate the port on the wrong host. That the guest runs here is the only sign.
#[test]
fn a_guest_that_does_not_run_yet_activates_nothing() {
    require!(lab, ovs, ovn, libvirt, tshark);
    let ovn = Ovn::with_libvirt();
    ovn.port("provider", &ovn.nic, "h1");
    let guest = Guest::new("web1").nova().nic(&ovn.nic);
    guest.start(&ovn.first);
    is_installed(&ovn.first, &ovn.nic);
    ovn.request("h1,h2 activation-strategy=rarp");
    ovn.settle();
    // As an incoming guest is, for as long as its memory comes.
    guest.start_paused(&ovn.second);
    is_installed(&ovn.second, &ovn.nic);
    let wire = ovn.wire("up2");
    let announced =
        Daemon::start(&ovn.second, &format!("{}[libvirt]\nevents = [\"started\"]\n", daemon::CALM));
    let run = ovn.second.announce(&["--vm", "web1", "--wait", "1s"]);
    assert!(run.code == Some(4) && run.stderr.contains("paused"), "{run:#?}");
    binding(&ovn, "options", |options| !options.contains("additional-chassis-activated"));

    let resumed = timed(&ovn.second, "virsh --quiet resume web1");
    let run = ovn.second.announce(&[&["--vm", "web1", "--json"], &CALM[..]].concat());
    assert_eq!(run.code, Some(0), "{run:#?}");
    binding(&ovn, "options", |options| options.contains("additional-chassis-activated=h2"));
    assert!(wire.sees_of(0x86dd, 1, DEADLINE));
    let first = wire.stop()[0].at;
    assert!(first > resumed, "{:?} too early", resumed - first);
    drop(announced);
}

/// Until the first RARP on the new host, nothing else leaves it; ours activates the port just as QEMU's does.
#[test]
fn a_port_that_our_own_rarp_activates() {
    require!(lab, ovs, ovn, tshark);
    let ovn = Ovn::build();
    ovn.port("provider", &ovn.nic, "h1");
    plug(&ovn.first, &ovn.nic);
    is_installed(&ovn.first, &ovn.nic);
    ovn.request("h1,h2 activation-strategy=rarp");
    ovn.settle();
    plug(&ovn.second, &ovn.nic);
    is_installed(&ovn.second, &ovn.nic);
    let wire = ovn.wire("up2");

    let run = ovn.start_announce(&ovn.second, &[&CALM[..], &["--json"]].concat()).finish();

    assert_eq!(run.code, Some(0), "{run:#?}");
    binding(&ovn, "options", |options| options.contains("additional-chassis-activated=h2"));
    assert!(wire.sees_of(0x86dd, 2, DEADLINE));
    let (frames, report) = (wire.stop(), report(&run));
    let of = |kind: &str| frames.iter().filter(|frame| frame.kind.name() == kind).collect::<Vec<_>>();
    let [requests, nas] = ["arp-request", "na"].map(of);
    let rounds = report["rounds"].as_u64().unwrap() as usize;
    println!("first ARP {:?} after the first RARP", requests[0].at.saturating_sub(of("rarp")[0].at));
    // The first round, of which only the RARP left, does not count.
    assert!(requests.len().max(nas.len()) >= rounds, "{rounds}: {:?}", kinds(&frames));
}

/// Without port security all four kinds leave, and what knows no addresses of the port learns them from one announcement.
#[test]
fn a_port_without_port_security_and_a_router() {
    require!(lab, ovs, ovn, tshark);
    let ovn = Ovn::build();
    let port = &ovn.nic.port;
    ovn.outer.sh(&format!(
        "ovn-nbctl lsp-add provider {port} -- lsp-set-addresses {port} unknown \
             -- lr-add router -- lrp-add router gateway 00:00:5e:00:53:01 192.0.2.1/24 2001:db8::1/64 \
             -- lsp-add provider to-router -- lsp-set-type to-router router -- lsp-set-addresses to-router router \
             -- lsp-set-options to-router router-port=gateway"
    ));
    plug(&ovn.second, &ovn.nic);
    is_installed(&ovn.second, &ovn.nic);
    ovn.settle();
    let wire = ovn.wire("up2");

    let run = ovn.start_announce(&ovn.second, &["--json"]).finish();

    assert_eq!(run.code, Some(0), "{run:#?}");
    assert!(wire.sees_of(0x8035, 1, DEADLINE));
    let frames = stopped(wire, &report(&run));
    for kind in ["arp-request", "arp-reply", "na", "rarp"] {
        assert!(kinds(&frames).contains(&kind), "no {kind}: {:?}", kinds(&frames));
    }
    let learned = |table: &str, word: &str| {
        eventually(&format!("{word} in {table}"), || {
            ovn.outer.sh(&format!("ovn-sbctl list {table}")).contains(word).then_some(())
        });
    };
    learned("FDB", &ovn.nic.mac);
    learned("MAC_Binding", IPV4);
    learned("MAC_Binding", "2001:db8::10");
}

/// A network that is on no wire: frames leave inside Geneve, and are seen there where the underlay's NIC is known; without it, nothing is
/// claimed. They arrive either way.
#[test]
fn a_port_of_an_overlay() {
    require!(lab, ovs, ovn, tshark);
    let mut ovn = Ovn::build();
    let far = ovn.neighbour(|ovn| &ovn.third, "overlay", 22, "192.0.2.22");
    ovn.port("overlay", &ovn.nic, "h2");
    plug(&ovn.second, &ovn.nic);
    is_installed(&ovn.second, &ovn.nic);
    ovn.settle();
    // What enters a tunnel before Open vSwitch knows the MAC at its other end is lost, whatever it is.
    ovn.second.sh("until busybox ping -c 1 -W 1 172.16.0.3; do :; done");
    let config = ovn.second.directory().join("tunnels.toml");
    std::fs::write(&config, "[path]\nuplinks = [\"up*\", \"tun*\"]\n").unwrap();
    let config = config.display().to_string();
    for knows_underlay in [true, false] {
        let given = Capture::start(&ovn.third, &far.tap(), Direction::Out, &ovn.nic.sent());
        let wire = ovn.wire("up2");
        let more: &[&str] = if knows_underlay { &["--config", &config] } else { &[] };

        let run = ovn.start_announce(&ovn.second, &[&CALM[..], &["--json"], more].concat()).finish();

        assert_eq!(run.code, Some(0), "{run:#?}");
        let report = report(&run);
        assert!(given.sees_of(0x86dd, rounds_sent(&report), DEADLINE), "{report:#}");
        assert_eq!(rounds_without_rarp(&given.stop()), rounds_sent(&report));
        assert_eq!(wire.stop(), [], "{report:#}");
        if !knows_underlay {
            assert_eq!(report["departure"], Value::Null, "{report:#}");
            let unseen = report["unseen"].as_str().unwrap();
            assert!(unseen.contains("is a tunnel"), "{unseen}");
            continue;
        }
        let departure = &report["departure"];
        let (port, key) = (ovn.second.sh(PORT_TO_THIRD), ovn.outer.sh(OVERLAY_KEY));
        assert_eq!(
            (&departure["device"], &departure["edge"]),
            (&"tun0".into(), &"tunnel".into()),
            "{report:#}"
        );
        assert_eq!(
            (&departure["port"], &departure["vni"]),
            (&port.trim().into(), &number(&key)),
            "{report:#}"
        );
        assert_eq!((&report["unseen"], &report["answered_by"]), (&Value::Null, &Value::Null), "{report:#}");
        let left = &report["frames_left"];
        assert_eq!([&left["na"], &left["rarp"]], [&report["frames"]["na"], &0.into()], "{report:#}");
        let stuck = report["stuck"].to_string();
        assert!(stuck.contains("rarp did not leave") && stuck.contains("actions=drop"), "{stuck}");
    }
}

/// OVN's tunnel port to the third host, and the VNI of its overlay.
const PORT_TO_THIRD: &str = "ovs-vsctl --bare --columns=name find Interface options:remote_ip=172.16.0.3";
const OVERLAY_KEY: &str =
    "ovn-sbctl --bare --columns=tunnel_key find Datapath_Binding external_ids:name=overlay";

fn number(text: &str) -> Value {
    text.trim().parse::<u64>().unwrap().into()
}

/// What waits names the condition, and that is OVN's.
#[test]
fn a_port_that_no_chassis_may_bind() {
    require!(lab, ovs, ovn, tshark);
    let ovn = Ovn::build();
    plug(&ovn.second, &ovn.nic);
    let wire = ovn.wire("up2");
    let run = ovn.start_announce(&ovn.second, &["--wait", "1s"]).finish();
    assert_eq!(run.code, Some(3), "{run:#?}");
    let why = format!("not installed the flows of {}: ovn-installed is not set", ovn.nic.tap());
    assert!(run.stderr.contains(&why), "no {why:?}: {run:#?}");
    assert_eq!(wire.stop(), []);
    let explained = ovn.start_announce(&ovn.second, &["explain"]).finish();
    assert!(explained.stdout.contains("ovn"), "{explained:#?}");
}

/// What `ovn-installed` comes with are the patch ports to the provider's bridge; the flows through them come some milliseconds
/// later, and what is sent meanwhile dies. It is sent again.
#[test]
fn the_first_port_of_its_network_on_a_chassis() {
    require!(lab, ovs, ovn, tshark);
    let ovn = Ovn::build();
    assert!(!ovn.second.sh("ovs-vsctl list-ports br-ex").contains("patch"));
    let (run, frames) = is_announced_when_bound(&ovn);
    let report = report(&run);
    assert_eq!(run.code, Some(0), "{run:#?}");
    all_rounds_came(&frames, &report);
}

/// Port security lets no RARP pass, ours or QEMU's: what is said of it is that, and not that it has left.
#[test]
fn a_rarp_that_port_security_drops() {
    require!(lab, ovs, ovn, tshark);
    let ovn = Ovn::build();
    ovn.port("provider", &ovn.nic, "h2");
    plug(&ovn.second, &ovn.nic);
    is_installed(&ovn.second, &ovn.nic);
    ovn.settle();
    let trace = ovn.start_announce(&ovn.second, &["trace", "--json"]).finish();
    let stuck = report(&trace)["stuck"].to_string();
    assert!(stuck.contains("rarp did not leave") && stuck.contains("actions=drop"), "{trace:#?}");

    let run = ovn.start_announce(&ovn.second, &[&CALM[..], &["--json"]].concat()).finish();
    let report = report(&run);
    assert_eq!((run.code, &report["frames_left"]["rarp"]), (Some(0), &0.into()), "{report:#}");
    assert!(report["frames_left"]["arp_request"].as_u64() >= Some(3), "{report:#}");
}

/// The tunnels of the host are no part of the way of a provider network.
#[test]
fn a_path_beside_tunnels() {
    require!(lab, ovs, ovn, tshark);
    let ovn = Ovn::build();
    ovn.port("provider", &ovn.nic, "h2");
    plug(&ovn.second, &ovn.nic);
    is_installed(&ovn.second, &ovn.nic);
    let explained = ovn.start_announce(&ovn.second, &["explain"]).finish();
    assert!(explained.stdout.contains(" -> br-ex -> up0\n"), "{}", explained.stdout);
}
