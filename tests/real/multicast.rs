//! Membership queries into guests with a kernel of their own, before a switch that snoops.

use std::thread::sleep;
use std::time::Duration;

use announced::for_tests::injection::Inward;
use announced::for_tests::injector::Injectors;
use serde_json::{Value, json};

use crate::testbed::guest::macvtaps;
use crate::testbed::kernel_guest::KernelGuest;
use crate::testbed::snooping::{GROUP, GROUP6, Snooping, groups_at, join};
use crate::testbed::{Capture, DEADLINE, Direction, Place, Running, Stand, report, require};

/// Queries of either protocol, and by protocol.
const QUERIES: &str = "(igmp and ip[24] = 0x11) or (ip6[6] = 0 and ip6[48] = 130)";
const IGMP_QUERY: &str = "igmp and ip[24] = 0x11";
const MLD_QUERY: &str = "ip6[6] = 0 and ip6[48] = 130";
/// Long enough for two queries and their answers.
const SCHEDULE: [&str; 4] = ["--count", "4", "--interval", "500ms"];

/// The guest's own reports of the two groups, of any version.
const REPORTS: [&str; 2] = [
    "ip proto 2 and (ip[28:4] = 0xef010203 or ip[36:4] = 0xef010203)",
    "ip6[6] = 0 and (ip6[68:4] = 0x1234 or ip6[72:4] = 0x1234)",
];
/// Reports of any version, and by version: those of IGMPv3 and MLDv2, of IGMPv2 and MLDv1.
const ANY: &str = "(igmp and ip[24] != 0x11) or (ip6[6] = 0 and ip6[48] != 130)";
const NEWER: &str = "(igmp and ip[24] = 0x22) or (ip6[6] = 0 and ip6[48] = 143)";
const OLD: &str = "(igmp and ip[24] = 0x16) or (ip6[6] = 0 and ip6[48] = 131)";
/// What it says without being asked, it says at once.
const HASTY: &str = "cd /proc/sys/net
    echo 1 | tee ipv4/conf/eth0/igmpv[23]_unsolicited_report_interval ipv6/conf/eth0/mldv[12]_unsolicited_report_interval >/dev/null";

/// A member of both groups that the switch does not know at the guest's port.
fn moved(stand: &Stand, before: &str) -> (KernelGuest, Running) {
    let guest = KernelGuest::behind(stand, &format!("{HASTY}\n{before}"));
    let said = REPORTS.map(|reports| Capture::start(&stand.host.wire(), "wire0", Direction::In, reports));
    let member = join(&KernelGuest::place(stand));
    // Each protocol says so twice (RFC 3376 section 8.1), and the switch forgets it.
    assert!(
        said.iter().all(|said| said.sees(2, DEADLINE)),
        "{:?} reports",
        said.each_ref().map(Capture::count)
    );
    // And for a second it may answer the query that the switch sent when it came up.
    sleep(Duration::from_millis(1100));
    for group in [GROUP, GROUP6] {
        stand.host.wire().sh(&format!("bridge mdb del dev sw port wire0 grp {group} temp"));
    }
    (guest, member)
}

fn versions(stand: &Stand) -> String {
    KernelGuest::place(stand).sh("awk '/eth0/ { print $NF }' /proc/net/igmp")
}

fn announce(stand: &Stand, more: &[&str]) -> Value {
    let run = stand.announce(&[&SCHEDULE[..], &["--json"], more].concat());
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""), "{run:#?}");
    report(&run)
}

/// The groups come to the guest, and no query goes to the network.
fn groups_follow(stand: &Stand, before: &str, version: &str, answers: &str) {
    let _snooping = Snooping::beyond(stand);
    let (_guest, _member) = moved(stand, before);
    let known = groups_at(stand, "wire0");
    assert!(!known.contains(GROUP) && !known.contains(GROUP6), "{known}");
    let given = [GROUP, GROUP6].map(|group| {
        Capture::start(&stand.host, &stand.nic.tap(), Direction::Out, &format!("udp and dst {group}"))
    });
    let wire = Capture::start(&stand.host.wire(), "wire0", Direction::In, QUERIES);
    let [all, answers] =
        [ANY, answers].map(|reports| Capture::start(&stand.host.wire(), "wire0", Direction::In, reports));

    assert_eq!(given.each_ref().map(Capture::count), [0, 0], "datagrams that the switch sends to the guest");

    let report = announce(stand, &[]);

    for (group, given) in [GROUP, GROUP6].iter().zip(&given) {
        assert!(given.sees(1, DEADLINE), "{group}");
        assert!(groups_at(stand, "wire0").contains(group));
    }
    assert_eq!(wire.count(), 0, "queries on the wire");
    assert_eq!(versions(stand).trim(), version);
    let [all, answers] = [all, answers].map(|reports| reports.stop().len());
    assert!(answers >= 4, "{answers} answers to two queries of each protocol");
    assert_eq!(all, answers, "none of another version");
    let multicast = &report["multicast"];
    assert_eq!(multicast["queries"], 2, "{multicast:#}");
    let at = |key: &str| multicast[key].as_f64().unwrap_or_else(|| panic!("no {key} in {multicast:#}"));
    let first_left = report["left_host_after_ms"].as_f64().unwrap();
    assert!(first_left < at("queried_after_ms"), "{report:#}");
    for key in ["igmp_left_after_ms", "mld_left_after_ms"] {
        assert!(at("queried_after_ms") < at(key), "{multicast:#}");
    }
    let groups = multicast["groups"].as_array().unwrap();
    assert!(groups.contains(&json!(GROUP)) && groups.contains(&json!(GROUP6)), "{multicast:#}");
    assert_eq!((&multicast["held"], &multicast["unavailable"]), (&json!([]), &Value::Null));
}

const OLDER: &str =
    "sysctl -qw net.ipv4.conf.eth0.force_igmp_version=2 net.ipv6.conf.eth0.force_mld_version=1";

#[test]
fn the_groups_of_a_guest_follow_it() {
    require!(lab, tshark);
    groups_follow(&Stand::linux_bridge(), "", "V3", NEWER);
}

#[test]
fn the_groups_of_a_guest_with_older_versions_follow_it() {
    require!(lab, tshark);
    groups_follow(&Stand::linux_bridge(), OLDER, "V2", OLD);
}

#[test]
fn the_groups_of_a_guest_on_open_vswitch_follow_it() {
    require!(lab, ovs, tshark);
    groups_follow(&Stand::untagged_open_vswitch(), "", "V3", NEWER);
}

#[test]
fn a_guest_that_routes_and_one_that_is_left_out_are_not_queried() {
    require!(lab, tshark);
    let stand = Stand::linux_bridge();
    let _snooping = Snooping::beyond(&stand);
    let (_guest, _member) = moved(&stand, "");
    let given = Capture::start(&stand.host, &stand.nic.tap(), Direction::Out, QUERIES);
    let file = stand.host.directory().join("a.toml");
    let nic = format!("[nic.\"{}\"]\n", stand.nic.mac);
    for text in ["[multicast]\nqueries = 0".to_owned(), nic.clone() + "queries = 0", nic + "router = true"] {
        std::fs::write(&file, &text).unwrap();
        let report = announce(&stand, &["--config", file.to_str().unwrap()]);
        assert_eq!(report["multicast"], Value::Null, "{text}");
        let explained = stand.announce(&["explain", "--config", file.to_str().unwrap()]).stdout;
        assert!(
            explained.contains("\n  queries     none: [multicast] queries is 0, or router is true"),
            "{explained}"
        );
    }
    assert_eq!(given.count(), 0, "queries to the guest");
    let known = groups_at(&stand, "wire0");
    assert!(!known.contains(GROUP) && !known.contains(GROUP6), "{known}");
}

/// A query from a lower address than its own would make it silent for as long as it takes the querier to be alive, 255 s.
fn stays_querier(start: &str, queries: &[&str]) {
    let stand = Stand::linux_bridge();
    let _guest = KernelGuest::behind(&stand, "");
    KernelGuest::place(&stand).sh(start);
    let asks = |count| {
        let asked =
            queries.iter().map(|query| Capture::start(&stand.host.wire(), "wire0", Direction::In, query));
        asked.collect::<Vec<_>>().iter().all(|asked| asked.sees(count, DEADLINE))
    };
    assert!(asks(1), "it is no querier");

    let report = announce(&stand, &[]);

    assert_eq!(report["multicast"]["queries"], 2, "{report:#}");
    assert!(asks(2), "it is no querier any more");
}

#[test]
fn a_guest_that_is_a_bridge_stays_querier() {
    require!(lab, tshark);
    stays_querier(
        "ip link add br0 type bridge forward_delay 0 mcast_querier 1 mcast_query_use_ifaddr 1 mcast_startup_query_interval 100 \
             mcast_query_interval 100 mcast_query_response_interval 50 mcast_igmp_version 3 mcast_mld_version 2
         sysctl -qw net.ipv6.conf.br0.disable_ipv6=0 net.ipv6.conf.br0.accept_dad=0
         ip address flush dev eth0
         ip link set eth0 master br0
         ip address add 192.0.2.10/24 dev br0
         ip link set br0 up",
        &[IGMP_QUERY, MLD_QUERY],
    );
}

#[test]
fn a_guest_with_pimd_stays_querier() {
    require!(lab, tshark, frr);
    let pimd = "mkdir -p /run/frr/guest
        cd /run/frr/guest
        : >zebra.conf
        printf 'interface eth0\n ip igmp\n ip igmp query-max-response-time 10\n ip igmp query-interval 2\n' >pimd.conf
        chown -R frr:frr /run/frr
        for daemon in zebra pimd; do
            /usr/lib/frr/$daemon --daemon -N guest -A 127.0.0.1 -f $PWD/$daemon.conf -i $PWD/$daemon.pid >$daemon.log 2>&1
        done";
    stays_querier(pimd, &[IGMP_QUERY]);
}

#[test]
fn a_guest_behind_a_macvtap_gets_the_queries_and_the_network_does_not() {
    require!(lab, tshark);
    let _alone = macvtaps();
    let stand = Stand::macvtap();
    let wire = Capture::start(&stand.host.wire(), "wire0", Direction::In, QUERIES);
    let given = Capture::start(&stand.host, "mvt0", Direction::In, QUERIES);
    let report = announce(&stand, &[]);
    assert_eq!((&report["multicast"]["queries"], wire.count()), (&json!(2), 0), "{report:#}");
    let frames = given.stop();
    assert_eq!(frames.len(), 4);
    assert!(frames.iter().all(|frame| frame.complaints.is_empty()), "{frames:#?}");
}

#[test]
fn a_guest_that_answers_nothing_is_no_fault() {
    require!(lab, tshark);
    let stand = Stand::linux_bridge();
    let report = announce(&stand, &[]);
    let multicast = &report["multicast"];
    assert_eq!((&multicast["queries"], &multicast["groups"]), (&json!(2), &json!([])));
    assert_eq!(multicast["igmp_left_after_ms"], Value::Null);
    let text = stand.announce(&SCHEDULE).stdout;
    assert!(!text.contains("multicast"), "{text}");
}

#[test]
fn a_report_that_a_firewall_holds_up_is_named() {
    require!(lab, tshark, nft);
    let stand = Stand::linux_bridge();
    let _guest = KernelGuest::behind(&stand, HASTY);
    let _member = join(&KernelGuest::place(&stand));
    stand.host.sh("nft add table bridge filter
         nft 'add chain bridge filter forward { type filter hook forward priority 0; }'
         nft add rule bridge filter forward icmpv6 type mld2-listener-report drop");
    let report = announce(&stand, &[]);
    let multicast = &report["multicast"];
    assert!(multicast["igmp_left_after_ms"].is_f64(), "{multicast:#}");
    let held = multicast["held"][0].as_str().unwrap();
    assert!(held.starts_with("its MLD reports did not leave the host: a filter, perhaps"), "{held}");
}

#[test]
fn a_flow_that_holds_up_a_report_is_named() {
    require!(lab, ovs, tshark);
    let stand = Stand::untagged_open_vswitch();
    let _guest = KernelGuest::behind(&stand, HASTY);
    let _member = join(&KernelGuest::place(&stand));
    stand.host.sh("ovs-ofctl add-flow br-int priority=110,icmp6,icmp_type=143,actions=drop");
    let report = announce(&stand, &[]);
    let held = report["multicast"]["held"][0].as_str().unwrap();
    assert!(held.contains("br-int table 0: priority=110,icmp6,icmp_type=143 actions=drop"), "{held}");
}

#[test]
fn a_port_without_a_device_is_reached_by_its_number() {
    require!(lab, ovs, tshark);
    let stand = Stand::untagged_open_vswitch();
    let _guest = KernelGuest::behind(&stand, "");
    let tap = stand.nic.tap();
    let port = stand.host.sh(&format!("ovs-vsctl get Interface {tap} ofport")).trim().parse().unwrap();
    let given = Capture::start(&KernelGuest::place(&stand), "eth0", Direction::In, "icmp6 or udp");
    let wire = Capture::start(&stand.host.wire(), "wire0", Direction::In, "udp");
    let directory = format!("/proc/{}/root/run/openvswitch", stand.host.pid());
    let to = Inward::PacketOut { bridge: "br-int".into(), port };
    let frame = udp_for(&stand.nic.mac);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(Injectors::new(directory.into()).send_inward(&to, &[&frame])).unwrap();
    assert!(given.sees_of(0x0800, 1, DEADLINE));
    assert_eq!(wire.count(), 0);
}

/// A frame of UDP, for the guest.
fn udp_for(mac: &str) -> Vec<u8> {
    let to: Vec<u8> = mac.split(':').map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
    let mut frame = [&to[..], &[0xfe, 0, 0, 0, 0, 1, 8, 0]].concat();
    frame.extend([
        0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 192, 0, 2, 1, 192, 0, 2, 10, 0, 7, 0, 7, 0, 8, 0, 0,
    ]);
    frame.resize(60, 0);
    frame
}
