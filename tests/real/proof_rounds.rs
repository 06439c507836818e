//! What `announce` makes of what it sees: rounds that are lost are sent again, the first frame that comes back is told, and
//! nothing is looked at longer than needed.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::testbed::daemon::QUICK;
use crate::testbed::rounds::ROUND;
use crate::testbed::stand::{inside, packet_sockets};
use crate::testbed::{
    Attachment, Capture, DEADLINE, Daemon, Direction, Host, IPV4, IPV6, Nic, Place, Plug, Running, Site,
    Stand, VLAN, crowd, eventually, kinds, linux_bridge, report, require, rounds, rounds_sent,
};
use announced::for_tests::openflow::Connection;
use announced::for_tests::sys::packet;
use nix::net::if_::if_nametoindex;
use serde_json::{Value, json};

/// The bytes of a round, as the bridge counts them: three of ARP's kind, and a neighbour advertisement.
const ROUND_BYTES: u32 = 3 * 46 + 72;

#[test]
fn a_first_round_that_is_lost_is_sent_again_at_once() {
    require!(lab, tshark, nft);
    for (lost, gaps) in [(1, &[1][..]), (3, &[1, 2, 4])] {
        let stand = Stand::linux_bridge();
        stand.host.sh(&format!(
            "nft add table bridge filter
             nft 'add chain bridge filter forward {{ type filter hook forward priority 0; }}'
             nft add rule bridge filter forward quota until {} bytes drop",
            lost * ROUND_BYTES + 1
        ));
        let (tap, uplink) = (stand.nic.tap(), "up0");
        let [sent, left] = [(tap.as_str(), Direction::In), (uplink, Direction::Out)]
            .map(|(device, way)| Capture::start(&stand.host, device, way, &stand.nic.sent()));

        let run = stand.announce(&["--count", "3", "--interval", "200ms", "--backoff", "1", "--json"]);

        assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""), "{run:#?}");
        let report = report(&run);
        let counts = (&report["outcome"], &report["rounds"], &report["lost_rounds"]);
        assert_eq!(counts, (&json!("announced"), &json!(3), &json!(lost)));
        assert_eq!(
            report["frames_left"],
            json!({"rarp": 3, "arp_request": 3, "arp_reply": 3, "na": 3, "ask": 0, "solicit": 3})
        );
        assert_eq!(report["stuck"], json!([]));

        let (sent, left) = (sent.stop(), left.stop());
        let (sent, left) = (rounds(&sent, None), rounds(&left, None));
        assert_eq!((sent.len(), left.len()), (3 + lost as usize, 3));
        for (pair, gap) in sent.windows(2).zip(gaps) {
            let waited = pair[1][0].at - pair[0][0].at;
            println!("sent again after {waited:?}");
            assert!(waited >= Duration::from_millis(*gap), "{waited:?}");
        }
        let told = |key: &str| Duration::from_secs_f64(report[key].as_f64().unwrap() / 1000.0);
        // What comes next is due as if nothing had happened, counted from readiness.
        let late = told("first_frame_after_ms") - told("ready_after_ms");
        let apart = left[1][0].at - sent[0][0].at + late;
        assert!(apart + Duration::from_millis(5) >= Duration::from_millis(200), "{apart:?}");
        // The first that left is the first that is told; that it was sent may be noted late.
        let took = told("left_host_after_ms") - told("first_frame_after_ms");
        let seen = left[0][0].at - sent[0][0].at;
        assert!(took <= seen + Duration::from_millis(1), "{took:?}, not {seen:?}");
    }
}

/// As the gap between OVSDB's commit and the datapath.
#[test]
fn a_flow_that_drops_for_a_moment_costs_no_round() {
    require!(lab, ovs, tshark);
    let stand = Stand::hybrid_plug();
    let qvo = stand.nic.device("qvo");
    stand.host.sh(&format!("ovs-ofctl add-flow br-int priority=100,in_port={qvo},actions=drop"));
    let entered = Capture::start(&stand.host, &qvo, Direction::In, &stand.nic.sent());
    let wire = Capture::start(&stand.host.wire(), "wire0", Direction::In, &stand.nic.sent());
    let announce = stand.start_announce(&["--count", "3", "--interval", "1s", "--json"]);

    // Of a second round: the first is lost.
    assert!(entered.sees(5, DEADLINE));
    announce.held(|| stand.host.sh(&format!("ovs-ofctl del-flows br-int in_port={qvo}")));

    let run = announce.finish();
    assert_eq!(run.code, Some(0), "{run:#?}");
    let report = report(&run);
    assert_eq!((&report["outcome"], &report["rounds"]), (&json!("announced"), &json!(3)));
    assert!(report["lost_rounds"].as_u64() >= Some(1), "{report:#}");
    // A frame that came late to Open vSwitch was taken for lost, and left all the same; and of one round, which was on its way, the
    // first frames may still have met the flow.
    assert!(wire.sees(2 * ROUND.len() + 1, DEADLINE));
    let frames = wire.stop();
    assert!(frames.iter().all(|frame| frame.vlan == Some(VLAN)), "{frames:#?}");
    for kind in ROUND {
        let left = kinds(&frames).iter().filter(|left| **left == kind).count();
        assert!((2..=rounds_sent(&report)).contains(&left), "{left} {kind}: {report:#}");
    }
    println!("{} rounds lost, left after {} ms", report["lost_rounds"], report["left_host_after_ms"]);
}

/// With pauses of a second between the tries, by then; a change to the flows does not wait for the next one. A machine that is slow
/// may make a try that late: then once more.
#[test]
fn a_flow_that_drops_for_seconds_is_not_waited_for_when_it_has_gone() {
    require!(lab, ovs, tshark);
    let stand = Stand::open_vswitch();
    let tap = stand.nic.tap();
    eventually("a try before the end of a pause", || {
        stand.host.sh(&format!("ovs-ofctl add-flow br-int priority=100,in_port={tap},actions=drop"));
        let announce = stand.start_announce(&["--count", "2", "--json"]);
        std::thread::sleep(Duration::from_secs(11));
        stand.host.sh(&format!("ovs-ofctl del-flows br-int in_port={tap}"));

        let report = report(&announce.finish());

        assert_eq!(report["outcome"], "announced", "{report:#}");
        assert!(report["lost_rounds"].as_u64() > Some(10), "{report:#}");
        let [lost, left] = [0, 1].map(|number| &report["round_times"][number]);
        assert_eq!((&lost["left"], &left["left"]), (&json!(false), &json!(true)), "{report:#}");
        let ms = |round: &Value, key: &str| round[key].as_f64().unwrap();
        let tried_for = ms(lost, "until_ms") - ms(lost, "after_ms");
        let pause = ms(left, "after_ms") - ms(lost, "until_ms");
        println!("tried for {tried_for} ms, and {pause} ms later");
        (tried_for >= 10_000.0 && pause < 1000.0).then_some(())
    });
}

/// Open vSwitch's own answer to our request for a monitor.
#[test]
fn a_bridge_reports_a_change_to_its_flows() {
    require!(lab, ovs);
    let stand = Stand::open_vswitch();
    let socket = stand.host.directory().join("run/openvswitch/br-int.mgmt");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut monitor = runtime.block_on(Connection::open_for_monitor(&socket)).unwrap();
    for change in
        ["add-flow br-int table=3,actions=drop", "mod-flows br-int actions=NORMAL", "del-flows br-int"]
    {
        stand.host.sh(&format!("ovs-ofctl {change}"));
        let told = runtime.block_on(async { tokio::time::timeout(DEADLINE, monitor.flow_change()).await });
        assert!(matches!(told, Ok(Ok(()))), "{change}: {told:?}");
    }

    stand.host.sh("ovs-vsctl set Bridge br-int protocols=OpenFlow13");
    let refused = runtime.block_on(Connection::open_for_monitor(&socket)).unwrap_err();
    assert_eq!(refused.to_string(), "the bridge does not speak OpenFlow 1.0");
}

#[test]
fn the_first_returning_frame_is_reported() {
    require!(lab, tshark);
    let stand = Stand::linux_bridge();
    has_neighbours(&stand.host, std::slice::from_ref(&stand.nic));
    let to_guest = Capture::start(&stand.host, "up0", Direction::In, &format!("ether dst {}", stand.nic.mac));
    let left = Capture::start(&stand.host, "up0", Direction::Out, &stand.nic.sent());
    let announce = stand.start_announce(&["--count", "3", "--interval", "1s", "--json"]);
    assert!(left.sees(1, DEADLINE));

    announce.held(|| {
        stand.host.wire().sh(&format!("bash -c 'echo >/dev/udp/{IPV4}/9; echo >/dev/udp/{IPV4}/9'"));
        assert!(to_guest.sees(2, DEADLINE));
    });

    let report = report(&announce.finish());
    let (first, back) = (left.stop()[0].at, to_guest.stop());
    assert_eq!(back.len(), 2);
    let told = |key: &str| Duration::from_secs_f64(report[key].as_f64().unwrap() / 1000.0);
    let (told, seen) = (told("returned_after_ms") - told("left_host_after_ms"), back[0].at - first);
    println!("back after {told:?}, by tcpdump {seen:?}");
    assert!(told.abs_diff(seen) < Duration::from_millis(2), "{told:?}, not {seen:?}");
}

/// Frames to the guest that go out, and frames for it that come in while nothing has left.
#[test]
fn what_is_no_answer_does_not_count() {
    require!(lab, tshark, nft);
    let stand = Stand::linux_bridge();
    has_neighbours(&stand.host, std::slice::from_ref(&stand.nic));
    let outward = Capture::start(&stand.host, "up0", Direction::Out, &format!("ether dst {}", stand.nic.mac));
    let left = Capture::start(&stand.host, "up0", Direction::Out, &stand.nic.sent());
    let announce = stand.start_announce(&["--count", "3", "--interval", "1s", "--json"]);
    assert!(left.sees(1, DEADLINE));
    announce.held(|| {
        transmit_to_guest(&stand);
        assert!(outward.sees(1, DEADLINE));
    });
    let answered = report(&announce.finish());
    assert_eq!((&answered["outcome"], &answered["returned_after_ms"]), (&json!("announced"), &Value::Null));

    stand.host.sh("nft add table bridge filter
        nft 'add chain bridge filter first { type filter hook prerouting priority 0; }'
        nft add rule bridge filter first ether saddr fa:16:3e:00:00:0a drop");
    let inward = Capture::start(&stand.host, "up0", Direction::In, &format!("ether dst {}", stand.nic.mac));
    let sent = Capture::start(&stand.host, &stand.nic.tap(), Direction::In, &stand.nic.sent());
    let announce = stand.start_announce(&["--count", "3", "--interval", "300ms", "--wait", "0", "--json"]);
    assert!(sent.sees(1, DEADLINE));
    announce.held(|| {
        stand.host.wire().sh(&format!("bash -c 'echo >/dev/udp/{IPV4}/9'"));
        assert!(inward.sees(1, DEADLINE));
    });
    let lost = report(&announce.finish());
    assert_eq!((&lost["outcome"], &lost["returned_after_ms"]), (&json!("failed"), &Value::Null));
}

/// As Open vSwitch may unlearn what it has learned from the first round.
#[test]
fn the_fdb_entry_at_the_end_is_reported() {
    require!(lab, bridge, tshark);
    let stand = Stand::linux_bridge();
    let (tap, mac) = (stand.nic.tap(), &stand.nic.mac);
    let told = report(&stand.announce(&["--count", "2", "--interval", "50ms", "--json"]));
    assert_eq!((&told["learned_on"], &told["stale"]), (&json!(tap), &Value::Null));
    assert!(told["learned_after_ms"].is_f64(), "{told:#}");

    // The second round may come before the change: then once more.
    let told = eventually("a change between two rounds", || {
        stand.host.sh(&format!("bridge link set dev {tap} learning on"));
        let left = Capture::start(&stand.host, "up0", Direction::Out, &stand.nic.sent());
        let announce = stand.start_announce(&["--count", "2", "--interval", "1s", "--json"]);
        assert!(left.sees(4, DEADLINE));
        stand.host.sh(&format!(
            "bridge link set dev {tap} learning off; bridge fdb replace {mac} dev up0 master dynamic"
        ));
        Some(report(&announce.finish())).filter(|told| told["learned_on"] == "up0")
    });
    let stale = json!("the FDB of this host's bridge still points to up0");
    assert_eq!((&told["learned_after_ms"], &told["stale"]), (&Value::Null, &stale));
}

/// As with neutron's `explicitly_egress_direct`.
#[test]
fn where_flows_alone_forward_no_fdb_entry_is_needed() {
    require!(lab, ovs);
    let stand = Stand::open_vswitch();
    let (tap, not_learned) = (stand.nic.tap(), json!("this host's bridge has not learned it"));
    let uplink = stand.host.sh("ovs-vsctl get Interface up0 ofport");
    stand.host.sh("ovs-vsctl set Bridge br-int flood_vlans=100");
    for (actions, stale) in
        [(format!("output:{}", uplink.trim()), Value::Null), ("NORMAL".into(), not_learned)]
    {
        stand.host.sh(&format!("ovs-ofctl add-flow br-int priority=100,in_port={tap},actions={actions}"));
        let told = report(&stand.announce(&["--count", "2", "--interval", "50ms", "--json"]));
        assert_eq!((&told["outcome"], &told["stuck"]), (&json!("announced"), &json!([])), "{told:#}");
        assert_eq!((&told["learned_on"], &told["stale"]), (&Value::Null, &stale), "{actions}: {told:#}");
    }
}

/// More than one socket's filter has room for, on one uplink, side by side: of every second guest the bridge drops all for a while,
/// and of those that remain, every second is answered.
#[test]
fn many_guests_are_not_mixed_up() {
    require!(lab, libvirt, tshark, nft);
    const GUESTS: u8 = 130;
    let host = Host::build().libvirt().start();
    linux_bridge::bridge(&host, "br0");
    let nics: Vec<Nic> = (1..=GUESTS).map(nic).collect();
    has_neighbours(&host, &nics);
    let _taps = crowd::taps(&host, &nics);
    host.sh("ip link set br0 down
        nft add table bridge filter
        nft 'add chain bridge filter forward { type filter hook forward priority 0; }'
        nft 'add rule bridge filter forward ether saddr & 00:00:00:00:00:01 == 00:00:00:00:00:01 drop'");
    let config = format!(
        "[schedule]\ncount = 3\ninterval = \"2s\"\nbackoff = 1\n[libvirt]\nuri = \"{}\"\nevents = [\"started\"]\n\
         [ports]\nwait = \"1h\"\n",
        crowd::URI
    );
    let daemon = Daemon::start(&host, &config);
    let before = packet_sockets(&host);
    crowd::create(&host, &nics);
    daemon.is_at(GUESTS.into());
    assert!(packet_sockets(&host) > before, "no capture is running");
    let wire =
        Capture::start(&host.wire(), "wire0", Direction::In, "not (ether[0:2] = 0x3333 and ether[2] = 0xff)");
    let answers = Capture::start(&host, "up0", Direction::In, "udp");

    host.sh("ip link set br0 up");
    assert!(wire.sees(usize::from(GUESTS / 2) * 4, DEADLINE));
    daemon.program.held(|| {
        host.wire().sh("bash -c 'for number in $(seq 4 4 130); do echo >/dev/udp/192.0.2.$number/9; done'");
        assert!(answers.sees(usize::from(GUESTS / 4), DEADLINE));
    });
    drop(answers);

    daemon.is_at(u64::from(GUESTS / 2));
    let mut left: BTreeMap<String, usize> = BTreeMap::new();
    wire.stop().into_iter().for_each(|frame| *left.entry(frame.source).or_default() += 1);
    for (number, nic) in (1..=GUESTS).zip(&nics) {
        let subject = format!("{} {}: ", nic.tap(), nic.mac);
        if number % 2 == 1 {
            assert!(!left.contains_key(&nic.mac), "{left:?}");
            let said = daemon.program.stderr.so_far();
            assert!(!said.contains(&format!("{subject}announced, ")), "{said}");
            continue;
        }
        let line = daemon.program.stderr.line_with(&format!("{subject}announced, "));
        let all = (left[&nic.mac], line.contains("announced, "), line.contains("left br0 by up0 after "));
        assert_eq!(all, (12, true, true), "{line}");
        let is_answered = number % 4 == 0;
        assert_eq!(line.contains("; first frame for it after "), is_answered, "{line}");
        // What is amiss comes after the line.
        let notice = format!("{subject}no frame for it has come in");
        let notices = || daemon.program.stderr.so_far().contains(&notice);
        eventually("the notice", || (notices() != is_answered).then_some(()));
    }

    // What was lost is tried for as long as the guest is here.
    host.sh("nft flush ruleset");
    daemon.is_at(0);
    for nic in nics.iter().step_by(2) {
        let line = daemon.program.stderr.line_with(&format!("{} {}: announced, ", nic.tap(), nic.mac));
        assert!(line.contains("left br0 by up0 after ") && line.contains(" lost by redirect"), "{line}");
    }
    eventually("the end of the last socket", || (packet_sockets(&host) == before).then_some(()));
}

/// What the guest says itself looks like an announcement. There is no telling how much of ours is seen then.
#[test]
fn a_guest_that_floods_the_network_delays_no_announcement() {
    require!(lab);
    let stand = Stand::linux_bridge();
    let mut frame = vec![0xff; 6];
    frame.extend(stand.nic.mac.split(':').map(|octet| u8::from_str_radix(octet, 16).unwrap()));
    frame.extend([0x08, 0x06]);
    frame.resize(60, 0);
    let count = ["--count", "3", "--interval", "200ms", "--backoff", "1", "--json"];

    let run = stand.flooded_by(&frame, || stand.announce(&count));

    let report = report(&run);
    println!(
        "{}: {} rounds, {} lost, in {:?}",
        report["outcome"], report["rounds"], report["lost_rounds"], run.took
    );
    assert_eq!(report["frames"]["rarp"], rounds_sent(&report));
}

#[test]
fn no_socket_outlives_an_announcement() {
    require!(lab, libvirt);
    // Open vSwitch would have packet sockets of its own.
    let site = Site::ready(Attachment::LinuxBridge);
    let daemon = Daemon::start(&site.host, QUICK);
    assert_eq!(packet_sockets(&site.host), 0);
    site.save();
    site.host.sh("ip link set br0 down");
    site.restore("");
    daemon.is_at(1);
    eventually("sockets", || (packet_sockets(&site.host) > 0).then_some(()));
    site.host.sh("ip link set br0 up");
    let report = &daemon.reports(1)[0];
    assert_eq!((&report["outcome"], &report["departure"]["device"]), (&json!("announced"), &json!("up0")));
    eventually("the end of the last socket", || (packet_sockets(&site.host) == 0).then_some(()));
}

/// While it waits, and when it is ready.
#[test]
fn a_dry_run_looks_at_nothing() {
    require!(lab, ovs);
    let stand = Stand::open_vswitch();
    let tap = stand.nic.tap();
    let count = ["--count", "1", "-v"];
    // Open vSwitch has some of its own.
    let others = packet_sockets(&stand.host);
    for (more, looks) in [(&["--dry-run"][..], false), (&[], true)] {
        stand.host.sh(&format!("ovs-vsctl clear Port {tap} tag"));
        let announce = stand.start_announce(&[&count, more].concat());
        announce.stderr.line_with("waiting: ");
        if looks {
            eventually("sockets", || (packet_sockets(&stand.host) > others).then_some(()));
        } else {
            // What is opened at a look comes after its line: with the next line, that has passed.
            stand.host.sh(&format!("ovs-vsctl set Port {tap} tag=4095"));
            announce.stderr.line_with("dead VLAN");
            assert_eq!(packet_sockets(&stand.host), others);
        }
        stand.host.sh(&format!("ovs-vsctl set Port {tap} tag=100"));
        assert_eq!(announce.finish().code, Some(0));
    }
}

#[test]
fn without_the_right_to_capture_frames_leave_all_the_same() {
    require!(lab, ovs, tshark);
    let stand = Stand::open_vswitch();
    let run = |command: &[&str]| {
        let mut setpriv = stand.host.command("setpriv");
        setpriv.args(["--inh-caps=-net_raw", "--bounding-set=-net_raw", env!("CARGO_BIN_EXE_announce")]);
        setpriv.args(command).args(["--dev", &stand.nic.tap(), "--mac", &stand.nic.mac]);
        Running::start(setpriv.args(["--ip", IPV4, "--ip", IPV6])).finish()
    };
    let why = "cannot see frames pass: Operation not permitted (os error 1) (needs CAP_NET_RAW); Open vSwitch's verdict: \
               br-int table 0: priority=0 actions=NORMAL; goes to up0 in VLAN 100";
    let wire = Capture::start(&stand.host.wire(), "wire0", Direction::In, &stand.nic.sent());

    let told = run(&["--count", "2", "--json"]);
    assert_eq!((told.code, told.stderr.as_str()), (Some(0), ""), "{told:#?}");
    let report = report(&told);
    assert_eq!((&report["outcome"], &report["rounds"]), (&json!("announced"), &json!(2)));
    assert_eq!((&report["unseen"], &report["lost_rounds"]), (&json!(why), &json!(0)));
    for key in ["departure", "left_host_after_ms", "frames_left", "returned_after_ms"] {
        assert_eq!(report[key], Value::Null, "{key}");
    }
    assert_eq!(report["stuck"], json!([]));

    for command in [&["--count", "1"][..], &["trace"]] {
        let told = run(command);
        let words = format!("\n  departure not observable: {why}\n");
        assert!(told.code == Some(0) && told.stdout.contains(&words), "{told:#?}");
        assert!(!told.stdout.contains("nothing passed"), "{told:#?}");
    }
    assert_eq!(rounds(&wire.stop(), Some(VLAN)).len(), 4);
}

fn nic(number: u8) -> Nic {
    Nic::new(number, Plug::Bridge("br0"))
        .address(format!("192.0.2.{number}"))
        .address(format!("2001:db8::{number:x}"))
}

/// Beyond the uplink, a host that has the guests in its ARP table: its frames for their addresses go to their MACs.
fn has_neighbours(host: &Host, nics: &[Nic]) {
    let entry = |nic: &Nic| {
        let number = u8::from_str_radix(&nic.mac[15..], 16).unwrap();
        format!("neighbour add 192.0.2.{number} lladdr {} dev wire0 nud permanent\n", nic.mac)
    };
    let file = host.directory().join("neighbours");
    std::fs::write(&file, nics.iter().map(entry).collect::<String>()).unwrap();
    host.wire().sh(&format!("ip address add 192.0.2.254/24 dev wire0; ip -batch {}", file.display()));
}

/// The host itself sends a frame to the guest's MAC by its uplink.
fn transmit_to_guest(stand: &Stand) {
    let octets = stand.nic.mac.split(':').map(|octet| u8::from_str_radix(octet, 16).unwrap());
    let mut frame: Vec<u8> = octets.collect();
    frame.resize(60, 0);
    inside(&stand.host, || {
        let up0 = if_nametoindex("up0").unwrap();
        packet::transmit(packet::sender().unwrap(), up0, &frame).unwrap();
    });
}
