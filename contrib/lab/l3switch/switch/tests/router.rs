//! The CPU: ARP and routing.

use super::*;

#[test]
fn the_switch_answers_arp_for_itself_and_keeps_the_asking_host() {
    let mut lab = Lab::new(Vendor::B);
    let question = arp(BROADCAST, ArpOperations::Request, VM1, (MacAddr::zero(), GATEWAY1));
    let sent = lab.receive("p1", 100, &question);
    let answer = arp(VM1.0, ArpOperations::Reply, (SWITCH, GATEWAY1), VM1);
    assert!(sent.contains(&("p1".into(), 100, answer)));
    assert_eq!(lab.arp_of(VM1.1), Some((VM1.0, "p1".into())));
}

#[test]
fn hosts_that_address_other_hosts_are_not_kept() {
    let mut lab = Lab::new(Vendor::B);
    lab.receive("p1", 100, &garp(VM1));
    lab.receive("p1", 100, &arp(BROADCAST, ArpOperations::Request, VM1, (MacAddr::zero(), VM2.1)));
    assert_eq!(lab.arp_of(VM1.1), None);
}

#[test]
fn an_address_probe_is_answered_and_not_remembered() {
    let mut lab = Lab::new(Vendor::B);
    let prober = (VM1.0, Ipv4Addr::UNSPECIFIED);
    let probe = arp(BROADCAST, ArpOperations::Request, prober, (MacAddr::zero(), GATEWAY1));
    assert_eq!(lab.ways("p1", 100, &probe), ["p2.100", "p3.100", "p1.100"]);
    assert_eq!(lab.switch.arp_rows().len(), 2);
}

#[test]
fn an_address_of_another_subnet_or_the_switchs_own_is_not_believed() {
    let mut lab = Lab::settled(Vendor::B);
    for (port, vlan, address) in [("p3", 100, VM3.1), ("p3", 100, GATEWAY1)] {
        lab.receive(port, vlan, &arp(SWITCH, ArpOperations::Reply, (VM1.0, address), (SWITCH, GATEWAY1)));
    }
    assert_eq!(lab.arp_of(VM3.1), Some((VM3.0, "p2".into())));
    let gateways = lab.switch.arp_rows().into_iter().filter(|row| row.address == GATEWAY1);
    assert_eq!(gateways.map(|row| row.mac).collect::<Vec<_>>(), [SWITCH]);
}

#[test]
fn packets_are_routed_between_the_vlans() {
    let mut lab = Lab::settled(Vendor::B);
    let sent = lab.receive("p2", 200, &echo((VM3.0, SWITCH), (VM3.1, VM1.1), 64));
    // TTL and checksum as in a packet that was built so.
    assert_eq!(sent, [("p1".to_owned(), 100, echo((SWITCH, VM1.0), (VM3.1, VM1.1), 63))]);
}

#[test]
fn what_follows_a_packet_is_not_routed() {
    let mut lab = Lab::settled(Vendor::B);
    let mut padded = echo((VM3.0, SWITCH), (VM3.1, VM1.1), 64);
    padded.truncate(50);
    padded.extend([0xaa; 14]);
    let sent = lab.receive("p2", 200, &padded);
    assert_eq!(sent[0].2, echo((SWITCH, VM1.0), (VM3.1, VM1.1), 63));
}

#[test]
fn an_unknown_neighbour_is_asked_for_and_the_packet_waits() {
    let mut lab = Lab::new(Vendor::B);
    let sent = lab.receive("p2", 200, &echo((VM3.0, SWITCH), (VM3.1, VM1.1), 64));
    let question = arp(BROADCAST, ArpOperations::Request, (SWITCH, GATEWAY1), (MacAddr::zero(), VM1.1));
    let asked = ["p1", "p2", "p3"].map(|port| (port.to_owned(), 100, question.clone()));
    assert_eq!(sent, asked);

    assert!(lab.vm3_to_vm1().is_empty(), "asked once a second only");
    let answer = arp(SWITCH, ArpOperations::Reply, VM1, (SWITCH, GATEWAY1));
    assert_eq!(lab.ways("p3", 100, &answer), ["p3.100", "p3.100"], "both packets");
    assert_eq!(lab.vm3_to_vm1(), ["p3.100"]);
}

#[test]
fn it_asks_again_while_packets_come_and_keeps_the_last_ones() {
    let mut lab = Lab::new(Vendor::B);
    let ways: Vec<usize> = (0..4)
        .map(|_| {
            lab.pass(1);
            lab.vm3_to_vm1().len()
        })
        .collect();
    assert_eq!(ways, [3, 3, 3, 3]);
    let answer = arp(SWITCH, ArpOperations::Reply, VM1, (SWITCH, GATEWAY1));
    assert_eq!(lab.ways("p1", 100, &answer).len(), 3);
}

#[test]
fn packets_that_waited_too_long_are_forgotten() {
    let mut lab = Lab::new(Vendor::B);
    lab.vm3_to_vm1();
    lab.pass(3);
    let answer = arp(SWITCH, ArpOperations::Reply, VM1, (SWITCH, GATEWAY1));
    assert!(lab.receive("p1", 100, &answer).is_empty());
}

#[test]
fn the_switch_answers_pings_of_both_its_addresses() {
    let mut lab = Lab::settled(Vendor::B);
    for gateway in [GATEWAY1, GATEWAY2] {
        let sent = lab.receive("p1", 100, &echo((VM1.0, SWITCH), (VM1.1, gateway), 1));
        let [(port, vlan, bytes)] = &sent[..] else { panic!("{sent:?}") };
        assert_eq!((port.as_str(), *vlan), ("p1", 100));
        let reply = ipv4(&bytes[14..]).expect("the header's checksum");
        assert_eq!((reply.get_source(), reply.get_destination()), (gateway, VM1.1));
        assert_eq!(reply.get_ttl(), 64);
        let reply = IcmpPacket::new(reply.payload()).unwrap();
        assert_eq!(reply.get_icmp_type(), IcmpTypes::EchoReply);
        assert_eq!(reply.get_checksum(), icmp::checksum(&reply));
    }
}

#[test]
fn what_cannot_be_routed_is_dropped_and_counted() {
    let mut lab = Lab::settled(Vendor::B);
    let mut broken = echo((VM3.0, SWITCH), (VM3.1, VM1.1), 64);
    broken[14 + 8] = 63;
    let nowhere = echo((VM3.0, SWITCH), (VM3.1, Ipv4Addr::new(3, 1, 1, 1)), 64);
    let old = echo((VM3.0, SWITCH), (VM3.1, VM1.1), 1);
    for frame in [broken, nowhere, old] {
        assert!(lab.receive("p2", 200, &frame).is_empty());
    }
    assert_eq!(*lab.switch.dropped(), BTreeMap::from([("malformed", 1), ("no-route", 1), ("ttl", 1)]));
}

/// Scenario 1 of the analysis: the RARP moves the FDB entry, and the ARP entry stays.
#[test]
fn on_vendor_b_a_rarp_brings_back_the_subnet_but_no_routed_traffic() {
    let mut lab = Lab::settled(Vendor::B);
    assert_eq!((lab.vm2_to_vm1(), lab.vm3_to_vm1()), (vec!["p1.100".into()], vec!["p1.100".into()]));

    lab.receive("p3", 100, &rarp(VM1));

    assert_eq!(lab.vm2_to_vm1(), ["p3.100"]);
    assert_eq!(lab.vm3_to_vm1(), ["p1.100"]);
    assert_eq!(lab.arp_of(VM1.1), Some((VM1.0, "p1".into())));
}

#[test]
fn on_vendor_b_either_form_of_gratuitous_arp_moves_both() {
    for announcement in [garp(VM1), frame::arp_reply(VM1.0, VM1.1).bytes] {
        let mut lab = Lab::settled(Vendor::B);
        lab.receive("p3", 100, &rarp(VM1));

        let events = lab.events("p3", Some(100), &announcement);

        let (from, to) = ("p1".to_owned(), "p3".to_owned());
        let moved = What::ArpMoved { address: VM1.1, mac: VM1.0, from, to, cause: Cause::Arp };
        assert_eq!(events[1..], [moved]);
        assert_eq!((lab.vm2_to_vm1(), lab.vm3_to_vm1()), (vec!["p3.100".into()], vec!["p3.100".into()]));
    }
}

#[test]
fn on_vendor_a_a_rarp_moves_both() {
    let mut lab = Lab::settled(Vendor::A);

    let events = lab.events("p3", Some(100), &rarp(VM1));

    let (from, to) = ("p1".to_owned(), "p3".to_owned());
    let moved = What::ArpMoved { address: VM1.1, mac: VM1.0, from, to, cause: Cause::Fdb };
    assert_eq!(events.last(), Some(&moved));
    assert_eq!((lab.vm2_to_vm1(), lab.vm3_to_vm1()), (vec!["p3.100".into()], vec!["p3.100".into()]));
}

#[test]
fn on_vendor_a_a_mac_that_the_fdb_had_forgotten_takes_its_address_along() {
    let mut lab = Lab::settled(Vendor::A);
    lab.pass(301);
    lab.receive("p3", 100, &rarp(VM1));
    assert_eq!(lab.vm3_to_vm1(), ["p3.100"]);
}

#[test]
fn on_vendor_a_the_same_mac_in_another_vlan_moves_nothing() {
    let mut lab = Lab::settled(Vendor::A);
    lab.receive("p3", 200, &rarp(VM1));
    assert_eq!(lab.vm3_to_vm1(), ["p1.100"]);
}

#[test]
fn on_vendor_b_arp_that_does_not_reach_the_cpu_changes_nothing() {
    let mut lab = Lab::settled(Vendor::B);
    let to_vm2 = arp(VM2.0, ArpOperations::Request, VM1, (VM2.0, VM2.1));
    lab.receive("p3", 100, &to_vm2);
    assert_eq!(lab.vm3_to_vm1(), ["p1.100"]);
    let to_switch = arp(SWITCH, ArpOperations::Request, VM1, (SWITCH, GATEWAY1));
    lab.receive("p3", 100, &to_switch);
    assert_eq!(lab.vm3_to_vm1(), ["p3.100"]);
}

#[test]
fn an_address_may_get_another_mac() {
    let mut lab = Lab::settled(Vendor::B);
    let events = lab.events("p1", Some(100), &garp((VM2.0, VM1.1)));
    let changed = What::ArpChanged { address: VM1.1, was: VM1.0, mac: VM2.0, port: "p1".into() };
    assert!(events.contains(&changed), "{events:?}");
}

#[test]
fn an_arp_entry_ages_whatever_the_traffic_and_is_then_asked_for() {
    let mut lab = Lab::settled(Vendor::B);
    for _ in 0..12 {
        lab.pass(100);
        lab.receive("p3", 100, &rarp(VM1));
        assert_eq!(lab.vm3_to_vm1(), ["p1.100"]);
    }
    lab.pass(1);
    assert_eq!(lab.vm3_to_vm1(), ["p1.100", "p2.100", "p3.100"]);
    let answer = arp(SWITCH, ArpOperations::Reply, VM1, (SWITCH, GATEWAY1));
    assert_eq!(lab.ways("p3", 100, &answer), ["p3.100"]);
}
