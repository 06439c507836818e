//! The lab itself: what other tests see through it is what really happened.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::testbed::{
    Arp, Capture, DEADLINE, Direction, Guest, Host, Kind, Nic, Place, Plug, Running, dissect, eventually,
    guest, linux_bridge, need, ovs, require, timed,
};
use nix::sys::signal::Signal;

const MAC: &str = "fa:16:3e:00:00:11";
const RARP: &str = "fffffffffffffa163e00001180350001080006040003fa163e00001100000000fa163e0000110000000000000000\
                    0000000000000000000000000000";
const ARP_REQUEST: &str = "fffffffffffffa163e00001108060001080006040001fa163e000011c000020a000000000000c000020a00000000\
                           0000000000000000000000000000";
const ARP_REPLY: &str = "fffffffffffffa163e00001108060001080006040002fa163e000011c000020afa163e000011c000020a00000000\
                         0000000000000000000000000000";
const NA: &str = "333300000001fa163e00001186dd6000000000203aff20010db8000000000000000000000010ff0200000000000000000000\
                  000000018800c2e52000000020010db80000000000000000000000100201fa163e000011";
const NA_BAD_CHECKSUM: &str = "333300000001fa163e00001186dd6000000000203aff20010db8000000000000000000000010ff0200000000\
                               00000000000000000001880000012000000020010db80000000000000000000000100201fa163e000011";

#[test]
fn ovs_carries_all_kinds_of_frames_and_tshark_knows_them() {
    require!(lab, ovs, tshark);
    let host = Host::build().ovs().start();
    ovs::bridge(&host, "br-int");
    host.sh("ip tuntap add tap0 mode tap; ip link set tap0 up");
    host.sh("ovs-vsctl add-port br-int tap0");
    ovs::bind(&host, "tap0", 100);
    let filter = format!("ether src {MAC}");
    let wire = Capture::start(&host.wire(), "wire0", Direction::In, &filter);
    let guest = Capture::start(&host, "tap0", Direction::Out, &filter);

    for frame in [RARP, ARP_REQUEST, ARP_REPLY, NA, NA_BAD_CHECKSUM] {
        ovs::inject(&host, "br-int", "tap0", frame);
    }

    assert!(wire.sees(5, DEADLINE));
    let frames = wire.stop();
    assert_eq!(guest.stop(), []);
    let names: Vec<_> = frames.iter().map(|frame| frame.kind.name()).collect();
    assert_eq!(names, ["rarp", "arp-request", "arp-reply", "na", "na"]);
    assert!(frames.iter().all(|frame| frame.vlan == Some(100) && frame.source == MAC));
    assert!(frames.windows(2).all(|pair| pair[0].at < pair[1].at));
    assert_eq!(frames[0].length, 64);
    assert_eq!(
        frames[2].kind,
        Kind::ArpReply(Arp {
            sender_mac: MAC.to_owned(),
            sender_ip: "192.0.2.10".parse().unwrap(),
            target_mac: MAC.to_owned(),
            target_ip: "192.0.2.10".parse().unwrap(),
        })
    );
    let Kind::Na(na) = &frames[3].kind else { unreachable!() };
    assert_eq!((na.hop_limit, na.overrides, na.solicited, na.router), (255, true, false, false));
    assert_eq!(na.target_mac.as_deref(), Some(MAC));
    assert!(frames[..4].iter().all(|frame| frame.complaints.is_empty()), "{frames:#?}");
    assert!(frames[4].complaints[0].contains("Bad checksum"), "{frames:#?}");
    assert_eq!(ovs::learned(&host, "br-int", MAC), Some(("tap0".to_owned(), 100)));
}

#[test]
fn tshark_is_read_in_the_spelling_of_any_version() {
    assert_eq!(["0", "False", "1", "True"].map(dissect::flag), [false, false, true, true]);
    assert_eq!(["0x0806", "0x00000806", ""].map(dissect::hexadecimal), [Some(0x0806), Some(0x0806), None]);
}

#[test]
fn every_flag_of_an_advertisement_is_read() {
    require!(tshark);
    for (bits, flags) in [
        ("00", (false, false, false)),
        ("80", (true, false, false)),
        ("40", (false, true, false)),
        ("20", (false, false, true)),
    ] {
        let frame = NA.replace("c2e520000000", &format!("c2e5{bits}000000"));
        let frames = dissect::dissect(&pcap(&frame));
        let Kind::Na(na) = &frames[0].kind else { panic!("{frames:#?}") };
        assert_eq!((na.router, na.solicited, na.overrides), flags);
    }
}

/// A capture file (pcap-savefile(5)) of one frame, which is given in hexadecimal.
fn pcap(frame: &str) -> Vec<u8> {
    let bytes = frame
        .as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap());
    let bytes: Vec<u8> = bytes.collect();
    let length = bytes.len() as u32;
    // Nanoseconds, version 2.4, a snapshot length, Ethernet; then seconds, nanoseconds and both lengths of the frame.
    let header = [0xa1b2_3c4d, 4 << 16 | 2, 0, 0, 65535, 1, 0, 0, length, length];
    header.into_iter().flat_map(u32::to_ne_bytes).chain(bytes).collect()
}

#[test]
fn ovs_drops_what_a_dead_port_sends() {
    require!(lab, ovs, tshark);
    let host = Host::build().ovs().start();
    ovs::bridge(&host, "br-int");
    host.sh("ip tuntap add tap0 mode tap; ip link set tap0 up; ovs-vsctl add-port br-int tap0");
    ovs::dead(&host, "tap0");
    let wire = Capture::start(&host.wire(), "wire0", Direction::In, &format!("ether src {MAC}"));

    ovs::inject(&host, "br-int", "tap0", RARP);
    ovs::bind(&host, "tap0", 7);
    ovs::inject(&host, "br-int", "tap0", ARP_REQUEST);

    assert!(wire.sees(1, DEADLINE));
    let frames = wire.stop();
    assert_eq!(frames.len(), 1);
    assert_eq!((frames[0].vlan, frames[0].kind.name()), (Some(7), "arp-request"));
}

#[test]
fn a_linux_bridge_carries_what_a_port_sends_and_learns_it() {
    require!(lab, tshark, busybox);
    let host = Host::build().start();
    linux_bridge::bridge(&host, "br0");
    // Stands for the guest: a namespace whose device has its peer in the bridge.
    host.sh("ip netns add guest
         ip link add tap0 type veth peer name eth0 address fa:16:3e:00:00:11 netns guest
         ip link set tap0 master br0 up
         ip -n guest link set eth0 up");
    let filter = format!("ether src {MAC} and arp");
    let wire = Capture::start(&host.wire(), "wire0", Direction::In, &filter);
    let sent = Capture::start(&host, "tap0", Direction::In, &filter);
    let given = Capture::start(&host, "tap0", Direction::Out, &filter);

    host.namespace("guest")
        .sh("ip addr add 192.0.2.10/24 dev eth0; busybox arping -U -c 1 -I eth0 192.0.2.10");

    assert!(wire.sees(1, DEADLINE));
    let frames = wire.stop();
    assert_eq!(frames.len(), 1);
    assert_eq!((frames[0].vlan, frames[0].kind.name()), (None, "arp-request"));
    assert_eq!(sent.stop().len(), 1);
    assert_eq!(given.stop(), []);
    assert_eq!(linux_bridge::learned(&host, "br0", MAC), Some("tap0".to_owned()));
}

#[test]
fn guests_run_on_every_attachment_and_keep_silent() {
    require!(lab, ovs, libvirt, tshark);
    let host = Host::build().ovs().libvirt().start();
    host.sh("ip link add br0 type bridge forward_delay 0; ip link set br0 up");
    ovs::bridge(&host, "br-int");
    let nics = [
        Nic::new(1, Plug::Bridge("br0")).address("192.0.2.1").address("2001:db8::1"),
        Nic::new(2, Plug::Ovs("br-int")).address("192.0.2.2"),
        Nic::new(3, Plug::Bridge("qbr567a4503-b0")),
        Nic::new(4, Plug::Ethernet),
        Nic::new(5, Plug::EthernetUnmanaged),
        Nic::new(6, Plug::Ovs("br-int")).vlan(300),
    ];
    linux_bridge::hybrid(&host, &nics[2], "br-int");
    nics[4].make_tap(&host);
    let wire = Capture::start(&host.wire(), "wire0", Direction::In, "");

    nics.iter().fold(Guest::new("web1").nova(), Guest::nic).start(&host);

    ovs::plug(&host, "br-int", &nics[3]);
    ovs::plug(&host, "br-int", &nics[4]);
    assert_eq!(host.sh("virsh domstate web1").trim(), "running");
    let xml = host.sh("virsh --readonly dumpxml web1");
    assert!(xml.contains("<nova:ip type=\"fixed\" address=\"2001:db8::1\" ipVersion=\"6\"/>"), "{xml}");
    let links = host.sh("ip -br link show up");
    for nic in &nics {
        assert!(links.contains(&nic.tap()), "{links}");
    }
    let bridge_ports = host.sh("ls /sys/class/net/br0/brif /sys/class/net/qbr567a4503-b0/brif");
    assert_eq!(bridge_ports.matches("tap").count(), 2, "{bridge_ports}");
    let ports = host.sh("ovs-vsctl list-ports br-int");
    for port in ["tap567a4502-b0", "qvo567a4503-b0", "tap567a4504-b0", "tap567a4505-b0", "tap567a4506-b0"] {
        assert!(ports.contains(port), "{ports}");
    }
    assert_eq!(host.sh("ovs-vsctl get Port tap567a4502-b0 tag").trim(), "[]");
    assert_eq!(host.sh("ovs-vsctl get Port tap567a4506-b0 tag").trim(), "300");
    assert_eq!(wire.stop(), []);
}

#[test]
fn a_hybrid_plug_leads_from_the_tap_to_the_wire() {
    require!(lab, ovs, libvirt, tshark);
    let host = Host::build().ovs().libvirt().start();
    ovs::bridge(&host, "br-int");
    let nic = Nic::new(1, Plug::Bridge("qbr567a4501-b0"));
    linux_bridge::hybrid(&host, &nic, "br-int");
    let guest = Guest::new("web1").nic(&nic);
    guest.start(&host);
    ovs::bind(&host, &nic.device("qvo"), 200);
    let wire = Capture::start(&host.wire(), "wire0", Direction::In, &nic.sent());

    // QEMU sends RARPs by itself, when it is told to: five, 50, 150, 250 and 350 ms apart.
    let told = timed(&host, "virsh qemu-monitor-command web1 --hmp announce_self");

    assert!(wire.sees(5, DEADLINE));
    let frames = wire.stop();
    assert!(frames.iter().all(|frame| frame.kind.name() == "rarp" && frame.vlan == Some(200)), "{frames:#?}");
    assert!(frames.iter().all(|frame| frame.complaints.is_empty()), "{frames:#?}");
    let took = frames[4].at - told;
    assert!(took >= Duration::from_millis(790), "{took:?}");
    assert_eq!(ovs::learned(&host, "br-int", &nic.mac), Some((nic.device("qvo"), 200)));
}

#[test]
fn hosts_side_by_side_do_not_meet_and_leave_nothing() {
    require!(lab, ovs, libvirt);
    let hosts = [1, 2].map(|_| Host::build().ovs().libvirt().start());
    for host in &hosts {
        ovs::bridge(host, "br-int");
        Guest::new("web1").nic(&Nic::new(1, Plug::Ovs("br-int"))).start(host);
    }
    let directories = hosts.each_ref().map(|host| host.directory().to_owned());
    let ours = || {
        let processes =
            Command::new("pgrep").args(["-f", directories[1].to_str().unwrap()]).output().unwrap();
        String::from_utf8(processes.stdout).unwrap()
    };
    assert_ne!(ours(), "");

    let [first, second] = hosts;
    drop(first);
    assert_eq!(second.sh("virsh domstate web1").trim(), "running");
    drop(second);

    assert_eq!(ours(), "");
    assert!(directories.iter().all(|directory| !directory.exists()));
}

#[test]
fn a_killed_test_leaves_nothing() {
    require!(lab, ovs);
    const TO_BE_KILLED: &str = "LAB_TEST_TO_BE_KILLED";
    if std::env::var_os(TO_BE_KILLED).is_some() {
        let _host = Host::build().ovs().start();
        loop {
            std::thread::park();
        }
    }
    let directory = tempfile::tempdir().unwrap();
    let mut test = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "lab::a_killed_test_leaves_nothing"])
        .env(TO_BE_KILLED, "yes")
        .env("TMPDIR", directory.path())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let made = || std::fs::read_dir(directory.path()).unwrap().next().map(|entry| entry.unwrap().path());
    let host = eventually("the host's directory", made);
    let pid = eventually("the host's start", || std::fs::read_to_string(host.join("pid")).ok());
    let process = Path::new("/proc").join(pid.trim());
    assert!(process.exists());

    test.kill().unwrap();
    test.wait().unwrap();

    eventually("the host's end", || (!process.exists()).then_some(()));
    assert_eq!(made(), None);
}

#[test]
fn a_program_in_a_host_dies_with_its_handle() {
    require!(lab);
    let host = Host::build().start();
    let sleep = Running::start(host.command("sleep").arg("60"));
    let process = format!("/proc/{}", sleep.pid());
    assert!(Path::new(&process).exists());
    drop(sleep);
    eventually("the program's end", || (!Path::new(&process).exists()).then_some(()));
}

#[test]
fn a_program_in_a_host_gets_signals_and_reports_back() {
    require!(lab);
    let host = Host::build().start();
    let script = "trap 'echo stopped >&2; exit 5' TERM; echo started; sleep 60 >/dev/null 2>&1 & wait";
    let shell = Running::start(host.command("sh").args(["-c", script]));
    shell.stdout.line_with("started");

    shell.signal(Signal::SIGTERM);

    let run = shell.finish();
    assert_eq!((run.code, run.stdout.as_str(), run.stderr.as_str()), (Some(5), "started\n", "stopped\n"));
}

#[test]
fn announce_runs_in_the_host() {
    require!(lab);
    let run = Host::build().start().announce(&["--no-such-option"]);
    assert!(run.code.is_some(), "{run:?}");
}

#[test]
#[should_panic(expected = "lacks ovs")]
fn what_is_required_must_be_there() {
    need::insist(&["ovs"], "tshark");
    need::insist(&["ovs"], "libvirt, ovs");
}

#[test]
fn guests_use_networks_and_filters_of_libvirt() {
    require!(lab, libvirt, dnsmasq);
    let host = Host::build().libvirt().start();
    let nic = Nic::new(1, Plug::Network("lan"));
    guest::network(&host, "lan", "virbr0", &[(&nic.mac, "192.0.2.10")]);
    guest::virsh(&host, "nwfilter-define", "<filter name='nothing'/>");
    let filter = "<filterref filter='nothing'><parameter name='IP' value='192.0.2.10'/></filterref>";

    Guest::new("web1").nic(&nic.with(filter)).start(&host);

    assert!(host.sh("bridge link").contains("master virbr0 state forwarding"));
    assert!(host.sh("virsh --readonly net-dumpxml lan").contains("ip='192.0.2.10'"));
    assert!(host.sh("virsh --readonly dumpxml web1").contains("<parameter name='IP' value='192.0.2.10'/>"));
}

#[test]
fn guests_use_macvtaps() {
    require!(lab, libvirt);
    let _alone = guest::macvtaps();
    let host = Host::build().libvirt().start();
    let nic = Nic::new(1, Plug::Direct("up0"));
    Guest::new("web1").nic(&nic).start(&host);
    assert!(host.sh(&format!("ip -details link show {} up", nic.tap())).contains("macvtap mode bridge"));
}
