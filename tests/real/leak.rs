//! A port without a tag is a trunk: what is sent between the tag's commit in OVSDB and its arrival in the datapath leaves
//! untagged, into whatever network that is.

use std::sync::atomic::{AtomicBool, Ordering};

use announced::for_tests::frame::rarp;
use announced::for_tests::sys::packet;
use nix::net::if_::if_nametoindex;

use crate::testbed::stand::inside;
use crate::testbed::{
    Attachment, Capture, DEADLINE, Direction, Frame, Host, Place, Running, Site, VLAN, now, ovs, report,
    require,
};

const MAC: &str = "fa:16:3e:00:00:0a";
const PORT: [&str; 6] = ["--dev", "tap0", "--mac", MAC, "--ip", "192.0.2.10"];

/// As neutron's agent does, `ovs-vsctl` counts `next_cfg` up, and ovs-vswitchd lets `cur_cfg` follow once the change is in the
/// datapath.
#[test]
fn nothing_leaks_while_the_tag_is_on_its_way() {
    require!(lab, ovs, tshark);
    nothing_leaks_after("ovs-vsctl set Port tap0 tag=100");
}

/// ovs-vswitchd does not report when it has carried out a change without `next_cfg`; such a change gets a fixed time.
#[test]
fn nothing_leaks_while_the_tag_of_a_hasty_writer_is_on_its_way() {
    require!(lab, ovs, tshark);
    nothing_leaks_after("ovs-vsctl --no-wait set Port tap0 tag=100");
}

#[test]
fn nothing_leaks_while_the_tag_is_on_its_way_from_another_vlan() {
    require!(lab, ovs, tshark);
    let host = a_port_of_neutron();
    host.sh("ovs-vsctl set Port tap0 tag=200");
    let wire = Capture::start(&host.wire(), "wire0", Direction::In, &format!("ether src {MAC}"));
    for _ in 0..20 {
        announce(&host, &["--vlan", "100"], "ovs-vsctl set Port tap0 tag=100");
        host.sh("ovs-vsctl set Port tap0 tag=200");
    }
    all_in_their_vlan(&wire.stop());
}

/// The port of a guest that speaks every 20 ms loses its VLAN and gets it back, in each way that a writer of OVSDB may do that.
#[test]
fn nothing_leaks_and_no_round_is_lost_when_a_tag_comes_back() {
    require!(lab, ovs, tshark);
    let host = a_port_of_neutron();
    host.sh("ovs-vsctl set Port tap0 tag=100");
    // Nothing leaves a host of neutron's from the dead VLAN; without a VLAN it would.
    host.sh("ovs-vsctl set Port up0 trunks=0,100");
    let wire = Capture::start(&host.wire(), "wire0", Direction::In, &format!("ether src {MAC}"));
    let schedule = ["--count", "100", "--interval", "20ms", "--backoff", "1", "--json", "-v"];
    let mut taken = Vec::new();
    for (how, back) in ["", "--no-wait"].iter().flat_map(|how| ["", "--no-wait"].map(|back| (how, back))) {
        for lost in ["clear Port tap0 tag", "set Port tap0 tag=4095"] {
            // One for each way: it says only of the first twenty changes that it waits.
            let announce = host.start_announce(&[&PORT[..], &schedule].concat());
            announce.stderr.line_with("packet-out: sent");
            let mut times = 0;
            // On a slow machine, its rounds may be over before.
            while times < 5 && announce.is_running() {
                let began = now();
                let waits = says(&announce, "waiting:", || host.sh(&format!("ovs-vsctl {how} {lost}")));
                // A round that was sent before may still be in ovs-vswitchd's socket.
                host.sh("ovs-ofctl show br-int");
                taken.push(began..now());
                says(&announce, "packet-out: sent", || {
                    host.sh(&format!("ovs-vsctl {back} set Port tap0 tag=100"))
                });
                times += u32::from(waits);
            }
            let run = announce.finish();
            assert_eq!((run.code, &report(&run)["rounds"]), (Some(0), &100.into()), "{run:#?}");
            assert!(times > 0, "{run:#?}");
        }
    }
    // What is sent before we can hear that the tag is taken away is nothing that we could keep back.
    let heard = |frame: &Frame| !taken.iter().any(|taking| taking.contains(&frame.at));
    all_in_their_vlan(&wire.stop().into_iter().filter(heard).collect::<Vec<_>>());
}

/// After `act`, it says these words once more; false: it has ended.
fn says(announce: &Running, words: &str, act: impl FnOnce() -> String) -> bool {
    let count = |said: &[u8]| String::from_utf8_lossy(said).matches(words).count();
    let before = count(announce.stderr.so_far().as_bytes());
    act();
    let again =
        announce.stderr.wait(|said, ended| (ended || count(said) > before).then(|| count(said) > before));
    again.unwrap_or_else(|| panic!("{words} was not said again: {}", announce.stderr.so_far()))
}

/// The same bytes as ours, before a round was sent: QEMU announces a guest that arrives, too.
#[test]
fn an_announcement_of_another_program_before_the_tag_is_no_departure_of_ours() {
    require!(lab, ovs, tshark);
    let host = a_port_of_neutron();
    let wire = Capture::start(&host.wire(), "wire0", Direction::In, &format!("ether src {MAC}"));
    let announce = host.start_announce(&[&PORT[..], &["--count", "1", "--json", "-v"]].concat());
    announce.stderr.line_with("waiting:");
    let config = host.directory().join("nobody.toml");
    std::fs::write(&config, "ports.in-charge = \"nobody\"\npath.uplinks = [\"up*\"]\n").unwrap();
    let other = ["--config", config.to_str().unwrap(), "--count", "1"];
    let other = host.announce(&[&PORT[..], &other].concat());
    assert_eq!(other.code, Some(0), "{other:#?}");
    assert!(wire.sees(3, DEADLINE));
    host.sh("ovs-vsctl set Port tap0 tag=100");

    let report = report(&announce.finish());
    assert!(wire.stop().iter().any(|frame| frame.vlan.is_none()), "the other program's left untagged");
    let vlans: Vec<_> =
        report["departures"].as_array().unwrap().iter().map(|departure| &departure["vlan"]).collect();
    assert_eq!(vlans, [100], "{report:#}");
    assert!(report["left_host_after_ms"].as_f64() >= report["tagged_after_ms"].as_f64(), "{report:#}");
}

/// QEMU announces a guest that arrives by the same RARP, perhaps just when the captures begin.
#[test]
fn what_leaves_while_the_captures_begin_is_no_departure_of_ours() {
    require!(lab, ovs);
    let host = a_port_of_neutron();
    let rarp = rarp(MAC.parse().unwrap()).bytes;
    let is_over = AtomicBool::new(false);
    for _ in 0..10 {
        is_over.store(false, Ordering::Relaxed);
        let announce = std::thread::scope(|scope| {
            scope.spawn(|| {
                inside(&host, || {
                    let (socket, up0) = (packet::sender().unwrap(), if_nametoindex("up0").unwrap());
                    while !is_over.load(Ordering::Relaxed) {
                        // Some too many for the device.
                        let _ = packet::transmit(&socket, up0, &rarp);
                    }
                });
            });
            let announce = host.start_announce(&[&PORT[..], &["--count", "1", "--json", "-v"]].concat());
            announce.stderr.line_with("waiting:");
            is_over.store(true, Ordering::Relaxed);
            announce
        });
        host.sh("ovs-vsctl set Port tap0 tag=100");
        let report = report(&announce.finish());
        let departures = report["departures"].as_array().unwrap();
        let vlans: Vec<_> = departures.iter().map(|departure| &departure["vlan"]).collect();
        assert_eq!(vlans, [100], "{report:#}");
        host.sh("ovs-vsctl clear Port tap0 tag");
    }
}

/// What the first look of all finds may have been changed just before it.
#[test]
fn nothing_leaks_when_the_first_look_comes_right_after_a_hasty_writer() {
    require!(lab, ovs, tshark);
    let host = a_port_of_neutron();
    let wire = Capture::start(&host.wire(), "wire0", Direction::In, &format!("ether src {MAC}"));
    let command = format!("{} {} --count 1 -q", env!("CARGO_BIN_EXE_announce"), PORT.join(" "));
    for _ in 0..20 {
        host.sh(&format!("ovs-vsctl --no-wait set Port tap0 tag=100; {command}"));
        host.sh("ovs-vsctl clear Port tap0 tag");
    }
    all_in_their_vlan(&wire.stop());
}

/// ovs-vswitchd connects to a restarted ovsdb-server later than we do, and learns of the tag later.
#[test]
fn nothing_leaks_while_vswitchd_has_no_database() {
    require!(lab, ovs, libvirt, tshark);
    let site = Site::build(Attachment::Ovs);
    let wire = site.wire();
    let announce = site.waiting("no VLAN tag yet", &[]);
    ovs::stop(&site.host, "ovsdb-server");
    announce.stderr.line_with("OVSDB cannot be reached");
    ovs::start_ovsdb(&site.host);

    site.bind();

    assert_eq!(announce.finish().code, Some(0));
    assert!(wire.sees(12, DEADLINE));
    all_in_their_vlan(&wire.stop());
}

fn nothing_leaks_after(script: &str) {
    let host = a_port_of_neutron();
    let wire = Capture::start(&host.wire(), "wire0", Direction::In, &format!("ether src {MAC}"));
    for _ in 0..20 {
        announce(&host, &[], script);
        host.sh("ovs-vsctl clear Port tap0 tag");
    }
    all_in_their_vlan(&wire.stop());
}

fn a_port_of_neutron() -> Host {
    let host = Host::build().ovs().start();
    ovs::bridge(&host, "br-int");
    host.sh("ip tuntap add tap0 mode tap; ip link set tap0 up; ovs-vsctl add-port br-int tap0");
    ovs::promise(&host, "tap0", VLAN);
    host
}

/// Waits for the port, which `script` makes ready.
fn announce(host: &Host, more: &[&str], script: &str) {
    let announce = host.start_announce(&[&PORT[..], &["-v", "--count", "2"], more].concat());
    announce.stderr.line_with("waiting:");
    host.sh(script);
    let run = announce.finish();
    assert_eq!(run.code, Some(0), "{run:#?}");
}

fn all_in_their_vlan(frames: &[Frame]) {
    let leaked = frames.iter().filter(|frame| frame.vlan != Some(VLAN)).count();
    assert!(leaked == 0 && !frames.is_empty(), "{leaked} of {} frames leaked", frames.len());
}
