use std::net::Ipv6Addr;

use super::*;

const GROUP: Ipv4Addr = Ipv4Addr::new(239, 1, 2, 3);
const GROUP6: Ipv6Addr = Ipv6Addr::new(0xff05, 0, 0, 0, 0, 0, 0, 0x1234);

/// An IPv4 packet of VM2 to a group; IGMP has the router alert option.
fn to_group(protocol: u8, to: Ipv4Addr, message: &[u8]) -> Vec<u8> {
    let header = if protocol == 2 { 24 } else { 20 };
    let mut bytes = [&vec![0; header][..], message].concat();
    let length = bytes.len() as u16;
    let mut packet = MutableIpv4Packet::new(&mut bytes).unwrap();
    packet.set_version(4);
    packet.set_header_length(header as u8 / 4);
    packet.set_total_length(length);
    packet.set_next_level_protocol(pnet_packet::ip::IpNextHeaderProtocol(protocol));
    packet.set_source(VM1.1);
    packet.set_destination(to);
    let sum = ip::checksum(&packet.to_immutable());
    packet.set_checksum(sum);
    let [_, b, c, d] = to.octets();
    ethernet(MacAddr(1, 0, 0x5e, b & 0x7f, c, d), VM1.0, EtherTypes::Ipv4, &bytes)
}

/// An IPv6 packet to a group, with a hop-by-hop header before MLD.
fn to_group6(next: u8, to: Ipv6Addr, message: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x60, 0, 0, 0, 0, message.len() as u8, next, 1];
    bytes.extend("fe80::1".parse::<Ipv6Addr>().unwrap().octets());
    bytes.extend(to.octets());
    bytes.extend(message);
    let [.., a, b, c, d] = to.octets();
    ethernet(MacAddr(0x33, 0x33, a, b, c, d), VM1.0, EtherTypes::Ipv6, &bytes)
}

fn igmp(message: &[u8]) -> Vec<u8> {
    to_group(2, Ipv4Addr::new(224, 0, 0, 22), message)
}

fn mld(message: &[u8]) -> Vec<u8> {
    let message = [&[58, 0, 5, 2, 0, 0, 1, 0], message].concat();
    to_group6(0, "ff02::16".parse().unwrap(), &message)
}

/// Reports of the groups, of each version, and one by which a host leaves.
fn reports() -> [(&'static str, Vec<u8>); 4] {
    let record = |kind: u8| [&[0x22, 0, 0, 0, 0, 0, 0, 1, kind, 0, 0, 0], &GROUP.octets()[..]].concat();
    let record6 = [&[143, 0, 0, 0, 0, 0, 0, 1, 4, 0, 0, 0], &GROUP6.octets()[..]].concat();
    [
        ("IGMPv2", igmp(&[&[0x16, 0, 0, 0], &GROUP.octets()[..]].concat())),
        ("IGMPv3", igmp(&record(4))),
        ("MLDv1", mld(&[&[131, 0, 0, 0, 0, 0, 0, 0], &GROUP6.octets()[..]].concat())),
        ("MLDv2", mld(&record6)),
    ]
}

fn snooping() -> Lab {
    let mut lab = Lab::settled(Vendor::A);
    lab.switch.config.query_interval = Some(Duration::from_secs(125));
    lab
}

/// By which ports a packet for the group of this protocol leaves that came in by p2.
fn ways(lab: &mut Lab, version: &str) -> Vec<String> {
    let packet = match version.starts_with("IGMP") {
        true => to_group(17, GROUP, &[0; 8]),
        false => to_group6(17, GROUP6, &[0; 8]),
    };
    lab.ways("p2", 100, &packet)
}

#[test]
fn a_group_goes_to_the_ports_that_have_reported_it() {
    for (version, report) in reports() {
        let mut lab = snooping();
        lab.pass(1);
        lab.receive("p2", 100, &rarp(VM2)); // and what it queries
        assert_eq!(ways(&mut lab, version), ["p1.100", "p3.100"], "{version}: an unknown group");
        assert_eq!(lab.ways("p1", 100, &report), [""; 0], "{version}: to routers only");
        assert_eq!(ways(&mut lab, version), ["p1.100"], "{version}");
        assert_eq!(lab.ways("p3", 100, &report), [""; 0]);
        assert_eq!(ways(&mut lab, version), ["p1.100", "p3.100"], "{version}");
        assert_eq!(lab.switch.group_rows().len(), 2);
        lab.pass(261);
        lab.receive("p2", 100, &rarp(VM2));
        assert_eq!(lab.switch.group_rows(), [], "{version}: no longer reported");
    }
}

#[test]
fn what_stays_on_the_link_is_flooded() {
    let mut lab = snooping();
    lab.receive("p2", 100, &rarp(VM2));
    for to in ["224.0.0.251", "239.1.2.3"] {
        let to: Ipv4Addr = to.parse().unwrap();
        lab.receive("p1", 100, &igmp(&[&[0x16, 0, 0, 0], &to.octets()[..]].concat()));
    }
    assert_eq!(lab.switch.group_rows().len(), 1);
    assert_eq!(
        lab.ways("p2", 100, &to_group(17, Ipv4Addr::new(224, 0, 0, 251), &[0; 8])),
        ["p1.100", "p3.100"]
    );
}

#[test]
fn the_hosts_of_each_vlan_are_queried_at_once_and_then_at_the_interval() {
    let mut lab = snooping();
    let mut queries = |seconds| {
        lab.pass(seconds);
        let actions = lab.switch.age(lab.now);
        actions.iter().filter(|action| matches!(action, Action::Send { .. })).count()
    };
    // By both protocols, in two VLANs, to three ports.
    assert_eq!([queries(0), queries(124), queries(1), queries(124)], [12, 0, 12, 0]);
}
