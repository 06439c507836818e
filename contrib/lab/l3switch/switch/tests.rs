mod router;
mod snooping;

use std::net::IpAddr;

use announced::for_tests::frame;
use pnet_packet::Packet;
use pnet_packet::arp::{ArpOperation, ArpOperations};
use pnet_packet::icmp::{self, IcmpPacket, IcmpTypes, MutableIcmpPacket};
use pnet_packet::ip::IpNextHeaderProtocols;
use pnet_packet::ipv4::{self as ip, Ipv4Packet, MutableIpv4Packet};
use proptest::prelude::*;

use super::packet::{Arp, ethernet, ipv4};
use super::*;

const SWITCH: MacAddr = MacAddr(0, 0, 0x5e, 0, 0x53, 0xfe);
const VM1: (MacAddr, Ipv4Addr) = (MacAddr(0xfa, 0x16, 0x3e, 0, 0, 0x11), Ipv4Addr::new(1, 1, 1, 1));
const VM2: (MacAddr, Ipv4Addr) = (MacAddr(0xfa, 0x16, 0x3e, 0, 0, 0x12), Ipv4Addr::new(1, 1, 1, 2));
const VM3: (MacAddr, Ipv4Addr) = (MacAddr(0xfa, 0x16, 0x3e, 0, 0, 0x13), Ipv4Addr::new(2, 1, 1, 2));
const GATEWAY1: Ipv4Addr = Ipv4Addr::new(1, 1, 1, 254);
const GATEWAY2: Ipv4Addr = Ipv4Addr::new(2, 1, 1, 254);
const BROADCAST: MacAddr = MacAddr(255, 255, 255, 255, 255, 255);

/// The switch of the analysis, and its clock.
struct Lab {
    switch: Switch,
    now: Time,
}

impl Lab {
    fn new(vendor: Vendor) -> Self {
        let config = Config {
            vendor,
            mac: SWITCH,
            ports: ["p1", "p2", "p3"].map(str::to_owned).into(),
            svis: ["100=1.1.1.254/24", "200=2.1.1.254/24"].map(|svi| svi.parse().unwrap()).into(),
            fdb_age: Duration::from_secs(300),
            arp_age: Duration::from_secs(1200),
            query_interval: None,
        };
        Self { switch: Switch::new(config), now: Duration::from_secs(1_000) }
    }

    /// VM1 is on p1, VM2 and VM3 are on p2, and the switch knows all of them.
    fn settled(vendor: Vendor) -> Self {
        let mut lab = Self::new(vendor);
        for (port, vlan, vm, gateway) in
            [("p1", 100, VM1, GATEWAY1), ("p2", 100, VM2, GATEWAY1), ("p2", 200, VM3, GATEWAY2)]
        {
            lab.receive(port, vlan, &arp(BROADCAST, ArpOperations::Request, vm, (MacAddr::zero(), gateway)));
        }
        lab
    }

    fn pass(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }

    fn actions(&mut self, port: &str, vlan: Option<u16>, bytes: &[u8]) -> Vec<Action> {
        self.switch.receive(self.now, port, vlan, bytes)
    }

    /// What leaves: port, VLAN and frame.
    fn receive(&mut self, port: &str, vlan: u16, bytes: &[u8]) -> Vec<(String, u16, Vec<u8>)> {
        let sent = self.actions(port, Some(vlan), bytes).into_iter();
        sent.filter_map(|action| match action {
            Action::Send { port, vlan, bytes } => Some((port, vlan, bytes)),
            Action::Log(_) => None,
        })
        .collect()
    }

    /// Where it leaves, as `p1.100`.
    fn ways(&mut self, port: &str, vlan: u16, bytes: &[u8]) -> Vec<String> {
        self.receive(port, vlan, bytes).iter().map(|(port, vlan, _)| format!("{port}.{vlan}")).collect()
    }

    /// What is written down.
    fn events(&mut self, port: &str, vlan: Option<u16>, bytes: &[u8]) -> Vec<What> {
        let actions = self.actions(port, vlan, bytes).into_iter();
        actions
            .filter_map(|action| match action {
                Action::Log(event) => Some(event.what),
                Action::Send { .. } => None,
            })
            .collect()
    }

    /// Where a routed packet from VM3 to VM1 leaves.
    fn vm3_to_vm1(&mut self) -> Vec<String> {
        self.ways("p2", 200, &echo((VM3.0, SWITCH), (VM3.1, VM1.1), 64))
    }

    /// Where a frame from VM2 to VM1 leaves.
    fn vm2_to_vm1(&mut self) -> Vec<String> {
        self.ways("p2", 100, &echo((VM2.0, VM1.0), (VM2.1, VM1.1), 64))
    }

    fn arp_of(&self, address: Ipv4Addr) -> Option<(MacAddr, String)> {
        let rows = self.switch.arp_rows();
        rows.into_iter().find(|row| row.address == address).map(|row| (row.mac, row.port.unwrap_or_default()))
    }
}

fn arp(
    to: MacAddr,
    operation: ArpOperation,
    sender: (MacAddr, Ipv4Addr),
    target: (MacAddr, Ipv4Addr),
) -> Vec<u8> {
    ethernet(to, sender.0, EtherTypes::Arp, &Arp { operation, sender, target }.payload())
}

fn garp(vm: (MacAddr, Ipv4Addr)) -> Vec<u8> {
    frame::arp_request(vm.0, vm.1, MacAddr::zero()).bytes
}

fn rarp(vm: (MacAddr, Ipv4Addr)) -> Vec<u8> {
    frame::rarp(vm.0).bytes
}

/// An ICMP echo request; both pairs are (from, to).
fn echo(macs: (MacAddr, MacAddr), addresses: (Ipv4Addr, Ipv4Addr), ttl: u8) -> Vec<u8> {
    let mut bytes = vec![0; 20 + 8 + 8];
    let mut request = MutableIcmpPacket::new(&mut bytes[20..]).unwrap();
    request.set_icmp_type(IcmpTypes::EchoRequest);
    request.set_checksum(icmp::checksum(&request.to_immutable()));
    let mut packet = MutableIpv4Packet::new(&mut bytes).unwrap();
    packet.set_version(4);
    packet.set_header_length(5);
    packet.set_total_length(36);
    packet.set_ttl(ttl);
    packet.set_next_level_protocol(IpNextHeaderProtocols::Icmp);
    packet.set_source(addresses.0);
    packet.set_destination(addresses.1);
    packet.set_checksum(ip::checksum(&packet.to_immutable()));
    ethernet(macs.1, macs.0, EtherTypes::Ipv4, &bytes)
}

#[test]
fn untagged_frames_and_those_of_other_vlans_are_dropped_and_counted() {
    let mut lab = Lab::new(Vendor::A);
    for (vlan, why) in [(None, "untagged"), (Some(4095), "other-vlan"), (Some(0), "other-vlan")] {
        let [Action::Log(event)] = &lab.actions("p1", vlan, &rarp(VM1))[..] else { panic!("{why}") };
        let (reason, port, kind) = (why, "p1".to_owned(), Some("rarp"));
        assert_eq!(event.what, What::Dropped { reason, port, vlan, mac: Some(VM1.0), kind });
    }
    assert_eq!(lab.switch.fdb_rows().len(), 2, "only the switch itself");
    assert_eq!(*lab.switch.dropped(), BTreeMap::from([("other-vlan", 2), ("untagged", 1)]));
}

#[test]
fn what_is_unknown_broadcast_or_multicast_goes_to_every_other_port() {
    let mut lab = Lab::new(Vendor::A);
    assert_eq!(lab.vm2_to_vm1(), ["p1.100", "p3.100"]);
    assert_eq!(lab.ways("p1", 100, &rarp(VM1)), ["p2.100", "p3.100"]);
    let na = frame::round(VM1.0, &["2001:db8::1".parse::<IpAddr>().unwrap()], &frame::Style::default());
    assert_eq!(lab.ways("p3", 100, &na[0].bytes), ["p1.100", "p2.100"]);
}

#[test]
fn frames_are_forwarded_as_they_came() {
    let mut lab = Lab::new(Vendor::A);
    let sent = lab.receive("p1", 200, &rarp(VM3));
    assert!(sent.len() == 2 && sent.iter().all(|(_, vlan, bytes)| (*vlan, bytes) == (200, &rarp(VM3))));
}

#[test]
fn a_known_mac_is_sent_to_by_its_port_only_and_in_its_vlan_only() {
    let mut lab = Lab::new(Vendor::A);
    lab.receive("p1", 100, &rarp(VM1));
    assert_eq!(lab.vm2_to_vm1(), ["p1.100"]);
    let other_vlan = echo((VM2.0, VM1.0), (VM2.1, VM1.1), 64);
    assert_eq!(lab.ways("p2", 200, &other_vlan), ["p1.200", "p3.200"]);
}

#[test]
fn nothing_goes_back_where_it_came_from() {
    let mut lab = Lab::new(Vendor::A);
    lab.receive("p2", 100, &rarp(VM1));
    assert!(lab.vm2_to_vm1().is_empty());
}

#[test]
fn no_other_host_may_send_as_the_switch() {
    let mut lab = Lab::new(Vendor::A);
    assert!(lab.ways("p1", 100, &rarp((SWITCH, GATEWAY1))).is_empty());
    assert_eq!(lab.switch.dropped()["bad-source"], 1);
}

#[test]
fn every_frame_moves_a_mac_and_keeps_it_young() {
    let mut lab = Lab::new(Vendor::B);
    let (vlan, mac) = (100, VM1.0);
    let learned = lab.events("p1", Some(100), &rarp(VM1));
    assert!(learned.contains(&What::FdbLearned { vlan, mac, port: "p1".into() }));
    lab.pass(299);
    let moved = lab.events("p3", Some(100), &echo((VM1.0, VM2.0), (VM1.1, VM2.1), 64));
    assert_eq!(moved, [What::FdbMoved { vlan, mac, from: "p1".into(), to: "p3".into() }]);
    lab.pass(300);
    assert_eq!(lab.vm2_to_vm1(), ["p3.100"]);
    lab.pass(1);
    let [Action::Log(aged)] = &lab.switch.age(lab.now)[..] else { panic!() };
    assert_eq!(aged.what, What::FdbAged { vlan, mac, port: "p3".into() });
    assert_eq!(lab.vm2_to_vm1(), ["p1.100", "p3.100"]);
}

#[test]
fn announcements_are_written_down() {
    let mut lab = Lab::new(Vendor::B);
    let reply = frame::arp_reply(VM1.0, VM1.1).bytes;
    for (bytes, kind, address) in [
        (rarp(VM1), "rarp", None),
        (garp(VM1), "arp-request", Some(VM1.1)),
        (reply, "arp-reply", Some(VM1.1)),
    ] {
        let announcement = What::Announcement { kind, port: "p3".into(), vlan: 100, mac: VM1.0, address };
        assert_eq!(lab.events("p3", Some(100), &bytes)[0], announcement);
    }
    let question = arp(BROADCAST, ArpOperations::Request, VM1, (MacAddr::zero(), VM2.1));
    assert_eq!(lab.events("p3", Some(100), &question), []);
}

#[test]
fn events_are_json_with_the_wall_clock() {
    let mut lab = Lab::new(Vendor::B);
    lab.receive("p1", 100, &rarp(VM1));
    lab.now += Duration::from_millis(250);
    let actions = lab.actions("p3", Some(100), &rarp(VM1));
    let lines: Vec<_> = actions
        .iter()
        .filter_map(|action| match action {
            Action::Log(event) => Some(serde_json::to_string(event).unwrap()),
            Action::Send { .. } => None,
        })
        .collect();
    let expected = [
        r#"{"at":1000.25,"event":"announcement","kind":"rarp","port":"p3","vlan":100,"mac":"fa:16:3e:00:00:11","address":null}"#,
        r#"{"at":1000.25,"event":"fdb-moved","vlan":100,"mac":"fa:16:3e:00:00:11","from":"p1","to":"p3"}"#,
    ];
    assert_eq!(lines, expected);
}

#[test]
fn an_svi_is_written_with_its_vlan_and_its_network() {
    let svi = "100=1.1.1.254/24".parse::<Svi>();
    assert_eq!(svi, Ok(Svi { vlan: 100, address: GATEWAY1, prefix: 24 }));
    for text in
        ["", "100", "100=1.1.1.254", "0=1.1.1.254/24", "4095=1.1.1.254/24", "1=1.1.1.254/33", "1=::/8"]
    {
        assert!(text.parse::<Svi>().unwrap_err().contains("as in 100="), "{text}");
    }
}

proptest! {
    /// Whatever comes, for the CPU or not, the switch goes on, and sends nothing that is longer or shorter than a frame.
    #[test]
    fn anything_may_come(
        kind in prop::sample::select(vec![0x0800_u16, 0x0806, 0x8035, 0x86dd]),
        to in prop::sample::select(vec![SWITCH, BROADCAST, VM1.0]),
        payload in prop::collection::vec(any::<u8>(), 0..80),
        head in prop::sample::select(vec![&[][..], &[0x45, 0, 0, 20], &[0x4f, 0, 0, 60], &[0, 1, 8, 0, 6, 4, 0, 1]]),
        cut in 0..100_usize,
    ) {
        let mut lab = Lab::settled(Vendor::A);
        let payload = [head, &payload].concat();
        let mut bytes = ethernet(to, VM2.0, pnet_packet::ethernet::EtherType(kind), &payload);
        bytes.truncate(cut.max(13));
        for (_, _, sent) in lab.receive("p2", 100, &bytes) {
            prop_assert!(sent.len() >= bytes.len().min(60));
        }
    }

    /// A packet that was routed is a correct one.
    #[test]
    fn routed_packets_have_a_correct_checksum(ttl in 2_u8.., host in 3_u8..254) {
        let mut lab = Lab::settled(Vendor::B);
        let from = Ipv4Addr::new(2, 1, 1, host);
        let sent = lab.receive("p2", 200, &echo((VM3.0, SWITCH), (from, VM1.1), ttl));
        let packet = Ipv4Packet::new(&sent[0].2[14..]).unwrap();
        prop_assert_eq!(packet.get_ttl(), ttl - 1);
        prop_assert_eq!(packet.get_checksum(), ip::checksum(&packet));
    }
}
