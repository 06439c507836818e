//! Questions to a real router: Linux beyond the wire, with its own settings, and this host where it is the router itself.

use std::net::Ipv4Addr;

use serde_json::{Value, json};

use crate::testbed::dissect::{Arp, Solicitation};
use crate::testbed::{Capture, Direction, IPV4, IPV6, Kind, Place, Stand, kinds, report, require};

const ROUTER: &str = "192.0.2.1";
const ANYCAST: &str = "2001:db8::";
const ANNOUNCEMENTS: &str = "arp-request,arp-reply,na,rarp";

/// A guest on a Linux bridge, and a router on the wire that makes no neighbour entry from an announcement.
fn beside_a_router() -> Stand {
    let stand = Stand::linux_bridge();
    stand.host.wire().sh(&format!(
        "sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1 net.ipv4.conf.wire0.arp_accept=0
         sysctl -qw net.ipv6.conf.all.disable_ipv6=0 net.ipv6.conf.wire0.disable_ipv6=0
         ip address add {ROUTER}/24 dev wire0
         ip address add 2001:db8::1/64 dev wire0 nodad"
    ));
    stand
}

/// The router's neighbour entry for an address of the guest.
fn entry(stand: &Stand, ip: &str) -> String {
    stand.host.wire().sh(&format!("ip neighbour show to {ip}"))
}

fn announce(stand: &Stand, more: &[&str]) -> Value {
    let run = stand.announce(&[&["--count", "2", "--interval", "1s", "--json"], more].concat());
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""), "{run:#?}");
    report(&run)
}

/// The fields of a gateway: the guest's address, the gateway's source, how often it was asked, and the origin of the answer.
fn told<'a>(report: &'a Value, gateway: &str) -> [&'a Value; 4] {
    let all = report["gateways"].as_array().unwrap();
    let of = all.iter().find(|asked| asked["gateway"] == gateway);
    let of = of.unwrap_or_else(|| panic!("no {gateway} in {report:#}"));
    assert_eq!(of["answered_by"].is_null(), of["answered_after_ms"].is_null(), "{of}");
    ["for", "source", "asked", "answered_by"].map(|key| &of[key])
}

#[test]
fn a_router_that_ignores_announcements_learns_from_being_asked() {
    require!(lab, tshark);
    let stand = beside_a_router();
    announce(&stand, &["--send", ANNOUNCEMENTS, "--ask", ROUTER]);
    assert_eq!([IPV4, IPV6].map(|ip| entry(&stand, ip)), ["", ""], "made by announcements");

    let report = announce(&stand, &["--ask", ROUTER]);

    for ip in [IPV4, IPV6] {
        let entry = entry(&stand, ip);
        assert!(entry.contains(&stand.nic.mac), "{entry}");
    }
    assert_eq!(told(&report, ROUTER), [&json!(IPV4), &json!("operator"), &json!(2), &json!("network")]);
    assert_eq!(told(&report, ANYCAST), [&json!(IPV6), &json!("anycast"), &json!(2), &json!("network")]);
    assert_eq!(report["answered_by"], "network");
    assert_eq!(
        (&report["outcome"], &report["rounds"], &report["lost_rounds"]),
        (&json!("announced"), &json!(2), &json!(0))
    );
    assert_eq!(report["stuck_questions"], json!([]));
}

#[test]
fn a_router_with_an_old_entry_learns_from_announcements_and_from_questions() {
    require!(lab, tshark);
    let stand = beside_a_router();
    // RARP has no address: only the questions tell it.
    for send in [ANNOUNCEMENTS, "rarp,ask,solicit"] {
        for ip in [IPV4, IPV6] {
            let old = format!("ip neighbour replace {ip} lladdr 02:00:00:00:00:99 dev wire0 nud stale");
            stand.host.wire().sh(&old);
        }
        announce(&stand, &["--send", send, "--ask", ROUTER]);
        for ip in [IPV4, IPV6] {
            let entry = entry(&stand, ip);
            assert!(entry.contains(&stand.nic.mac), "{send}: {entry}");
        }
    }
}

#[test]
fn questions_are_what_the_guest_would_ask() {
    require!(lab, tshark);
    let stand = beside_a_router();
    let wire = Capture::start(&stand.host.wire(), "wire0", Direction::In, &stand.nic.all_sent());
    let run = stand.announce(&["--count", "1", "--ask", ROUTER]);
    assert_eq!(run.code, Some(0), "{run:#?}");
    let frames = wire.stop();

    assert_eq!(kinds(&frames), ["arp-request", "arp-reply", "na", "rarp", "ask", "solicit"]);
    assert!(frames.iter().all(|frame| frame.complaints.is_empty()), "{frames:#?}");
    let ask = Arp {
        sender_mac: stand.nic.mac.clone(),
        sender_ip: IPV4.parse().unwrap(),
        target_mac: "00:00:00:00:00:00".into(),
        target_ip: ROUTER.parse::<Ipv4Addr>().unwrap(),
    };
    let solicit = Solicitation {
        source: IPV6.parse().unwrap(),
        destination: "ff02::1:ff00:0".parse().unwrap(),
        hop_limit: 255,
        target: Some(ANYCAST.parse().unwrap()),
        source_mac: Some(stand.nic.mac.clone()),
    };
    let said: Vec<Kind> = frames[4..].iter().map(|frame| frame.kind.clone()).collect();
    assert_eq!(said, [Kind::Ask(ask), Kind::Solicit(solicit)]);
    let to: Vec<&str> = frames[4..].iter().map(|frame| frame.destination.as_str()).collect();
    assert_eq!(to, ["ff:ff:ff:ff:ff:ff", "33:33:ff:00:00:00"]);
}

#[test]
fn a_host_that_is_the_router_asks_itself() {
    require!(lab, tshark);
    let stand = Stand::linux_bridge();
    stand.host.sh("ip address add 192.0.2.254/24 dev br0");
    let report = announce(&stand, &[]);
    assert_eq!(told(&report, "192.0.2.254"), [&json!(IPV4), &json!("bridge"), &json!(2), &json!("host")]);
    assert!(stand.host.sh(&format!("ip neighbour show to {IPV4}")).contains(&stand.nic.mac));

    let explained = stand.announce(&["explain"]).stdout;
    for words in [
        "asks        192.0.2.254 (bridge)\n",
        "router      net/ipv4/conf/br0/arp_accept is 0: only a question makes a neighbour entry here\n",
    ] {
        assert!(explained.contains(words), "no {words:?} in\n{explained}");
    }

    // With a gateway of its own there, it is none.
    stand.host.sh(&format!("ip route add default via {ROUTER} dev br0"));
    let explained = stand.announce(&["explain"]).stdout;
    assert!(explained.contains(&format!("asks        {ROUTER} (host-route)\n")), "{explained}");
}

#[test]
fn silence_and_a_filter_change_no_outcome() {
    require!(lab, tshark, nft);
    let stand = beside_a_router();
    stand.host.sh(&format!(
        "nft add table bridge filter
         nft 'add chain bridge filter forward {{ type filter hook forward priority 0; }}'
         nft add rule bridge filter forward ether type arp arp daddr ip {ROUTER} drop"
    ));
    let report = announce(&stand, &["--ask", ROUTER]);
    assert_eq!(told(&report, ROUTER)[3], &Value::Null);
    assert_eq!((&report["stuck"], &report["frames_left"]["ask"]), (&json!([]), &json!(0)));
    let stuck = report["stuck_questions"][0].as_str().unwrap();
    assert!(
        stuck.starts_with("ask ") && stuck.contains("did not leave the host: a filter, perhaps"),
        "{stuck}"
    );
    let trace = stand.announce(&["trace", "--ask", ROUTER]);
    assert_eq!(trace.code, Some(0), "{trace:#?}");
    assert!(
        trace.stdout.contains("ask reached") || trace.stdout.contains("ask did not leave br0"),
        "{trace:#?}"
    );
}

#[test]
fn a_flow_that_drops_a_question_is_named() {
    require!(lab, ovs, tshark);
    let stand = Stand::open_vswitch();
    let flows = [
        ("ask", format!("priority=110,arp,arp_tpa={ROUTER},arp_op=1")),
        ("solicit", format!("priority=110,icmp6,icmp_type=135,nd_target={ANYCAST}")),
    ];
    for (_, flow) in &flows {
        stand.host.sh(&format!("ovs-ofctl add-flow br-int {flow},actions=drop"));
    }
    let trace = stand.announce(&["trace", "--ask", ROUTER]);
    assert_eq!(trace.code, Some(0), "the announcements have left: {trace:#?}");
    for (kind, flow) in flows {
        let line = format!("  {kind} did not leave br-int: br-int table 0: {flow} actions=drop\n");
        assert!(trace.stdout.contains(&line), "no {line:?} in {trace:#?}");
    }
}
