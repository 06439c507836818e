//! A port that is protected against spoofing: an address that it may not use does not get out, whatever the way in.

use crate::testbed::{
    Attachment, Capture, DEADLINE, Direction, Frame, Kind, Place, Site, kinds, report, require, rounds,
    rounds_sent, sent,
};

use serde_json::json;

/// Not the guest's.
const STOLEN: &str = "192.0.2.1";
const STOLEN6: &str = "2001:db8::1";

/// As libvirt's and neutron's hybrid firewall do: the port may speak for its own address.
#[test]
fn by_a_bridge_firewall_on_the_tap() {
    require!(lab, libvirt, tshark, nft);
    let site = Site::ready(Attachment::LinuxBridge);
    protect_by_nft(&site);
    for way in ["redirect", "xdp"] {
        only_its_own_addresses_get_out(&site, way);
    }
}

#[test]
fn by_a_bridge_firewall_on_a_hybrid_plug() {
    require!(lab, ovs, libvirt, tshark, nft);
    let site = Site::ready(Attachment::Hybrid);
    protect_by_nft(&site);
    for way in ["redirect", "xdp"] {
        only_its_own_addresses_get_out(&site, way);
    }
}

#[test]
fn by_flows_of_the_integration_bridge() {
    require!(lab, ovs, libvirt, tshark);
    let site = Site::ready(Attachment::Ovs);
    protect_by_flows(&site);
    for way in ["packet-out", "redirect", "xdp"] {
        only_its_own_addresses_get_out(&site, way);
    }
}

#[test]
fn by_flows_on_a_hybrid_plug() {
    require!(lab, ovs, libvirt, tshark);
    let site = Site::ready(Attachment::Hybrid);
    protect_by_flows(&site);
    for way in ["redirect", "packet-out", "packet", "xdp"] {
        only_its_own_addresses_get_out(&site, way);
    }
}

/// Rules that let pass only IP and ARP drop RARP, which says nothing that the others do not.
#[test]
fn a_port_without_rarp_is_announced_by_the_others() {
    require!(lab, ovs, libvirt, tshark);
    let site = Site::ready(Attachment::Ovs);
    site.host.sh("ovs-ofctl add-flow br-int 'priority=10,dl_type=0x8035,actions=drop'");
    let wire = site.wire();

    let run = site.announce(&["--inject", "packet-out", "--json"]);

    assert_eq!(run.code, Some(0), "{run:#?}");
    let rounds = rounds_sent(&report(&run));
    assert!(wire.sees(3 * rounds, DEADLINE));
    assert_eq!(kinds(&wire.stop()), ["arp-request", "arp-reply", "na"].repeat(rounds));
}

fn protect_by_nft(site: &Site) {
    let tap = site.nic.tap();
    site.host.sh(&format!(
        "nft add table bridge port
         nft add chain bridge port in '{{ type filter hook prerouting priority 0; }}'
         nft add rule bridge port in iifname {tap} ether type arp arp saddr ip != 192.0.2.10 counter drop
         nft add rule bridge port in iifname {tap} icmpv6 type '{{ nd-neighbor-advert, nd-neighbor-solicit }}' \
             ip6 saddr != 2001:db8::10 counter drop"
    ));
}

fn protect_by_flows(site: &Site) {
    let port = site.port();
    site.host.sh(&format!(
        "ofport=$(ovs-vsctl get Interface {port} ofport)
         ovs-ofctl add-flow br-int priority=9,in_port=$ofport,arp,actions=drop
         ovs-ofctl add-flow br-int priority=10,in_port=$ofport,arp,arp_spa=192.0.2.10,actions=NORMAL
         ovs-ofctl add-flow br-int priority=9,in_port=$ofport,icmp6,icmp_type=136,actions=drop
         ovs-ofctl add-flow br-int \
             priority=10,in_port=$ofport,icmp6,icmp_type=136,nd_target=2001:db8::10,actions=NORMAL
         ovs-ofctl add-flow br-int priority=9,in_port=$ofport,icmp6,icmp_type=135,actions=drop
         ovs-ofctl add-flow br-int \
             priority=10,in_port=$ofport,icmp6,icmp_type=135,ipv6_src=2001:db8::10,actions=NORMAL"
    ));
}

/// `announce --ip` cannot make the port say what it may not, and fails for the addresses that did not leave.
fn only_its_own_addresses_get_out(site: &Site, way: &str) {
    let wire = Capture::start(&site.host.wire(), "wire0", Direction::In, &site.nic.all_sent());

    let run = site.announce(&["--inject", way, "--ip", STOLEN, "--ip", STOLEN6, "--json"]);

    assert_eq!(run.code, Some(1), "{way}: {run:#?}");
    let report = report(&run);
    assert_eq!(report["not_left"], json!([STOLEN, STOLEN6]), "{way}");
    // Seven announcements a round, of which three are for addresses that are not the guest's; and of two questions one.
    let asked = 3;
    assert_eq!((&report["rounds"], sent(&report)), (&3.into(), 7 * rounds_sent(&report)), "{way}");
    assert!(wire.sees(4 * rounds_sent(&report) + asked, DEADLINE), "{way}");
    let frames = wire.stop();
    assert!(!frames.iter().any(is_stolen), "{way}: {frames:#?}");
    assert_eq!(rounds(&frames, site.vlan()).len(), rounds_sent(&report), "{way}");
}

fn is_stolen(frame: &Frame) -> bool {
    match &frame.kind {
        Kind::ArpRequest(arp) | Kind::ArpReply(arp) => arp.sender_ip.to_string() == STOLEN,
        Kind::Na(na) => na.target.to_string() == STOLEN6,
        Kind::Ask(arp) => arp.sender_ip.to_string() == STOLEN,
        Kind::Solicit(solicitation) => solicitation.source.to_string() == STOLEN6,
        _ => false,
    }
}
