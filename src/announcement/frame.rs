//! The frames that announce a guest, and those that ask its routers, byte for byte.
//!
//! | frame | source |
//! |---|---|
//! | ARP announcement, request form | RFC 5227 section 3 |
//! | ARP announcement, reply form | RFC 5944 section 4.6 |
//! | unsolicited neighbour advertisement | RFC 4861 section 7.2.6 |
//! | RARP request | RFC 903, as QEMU's `net/announce.c` sends it |
//! | ARP request for a gateway | RFC 826 |
//! | neighbour solicitation for a router | RFC 4861 section 7.2.2 |
//! | router solicitation | RFC 4861 section 6.3.7 |

use std::collections::HashSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use pnet_base::MacAddr;
use pnet_packet::arp::{ArpHardwareTypes, ArpOperation, ArpOperations, MutableArpPacket};
use pnet_packet::ethernet::{EtherType, EtherTypes, MutableEthernetPacket};
use pnet_packet::icmpv6::ndp::{MutableNeighborAdvertPacket, NdpOption, NdpOptionTypes, NeighborAdvertFlags};
use pnet_packet::icmpv6::ndp::{MutableNeighborSolicitPacket, MutableRouterSolicitPacket, NdpOptionType};
use pnet_packet::icmpv6::{self, Icmpv6Packet, Icmpv6Types, MutableIcmpv6Packet};
use pnet_packet::ip::IpNextHeaderProtocols;
use pnet_packet::ipv6::MutableIpv6Packet;
use serde::{Deserialize, Serialize};

use crate::path::hop::Cast;

/// The shortest Ethernet frame, without its check sequence (IEEE 802.3 section 3.2.8).
const MIN_FRAME: usize = 60;
const ETHERNET_HEADER: usize = 14;
/// The two MAC addresses, behind which a tag stands.
const ADDRESSES: usize = 12;
/// A tag of 802.1Q.
const TAG: usize = 4;
const IPV6_HEADER: usize = 40;
/// A neighbour advertisement or solicitation with one link-layer address option (RFC 4861 sections 4.3, 4.4 and 4.6.1).
const NEIGHBOUR_MESSAGE: usize = 24 + 8;
/// A router solicitation with that option (RFC 4861 section 4.1).
const ROUTER_SOLICITATION: usize = 8 + 8;
/// RFC 903: the operation code of a request.
const RARP_REQUEST: ArpOperation = ArpOperation(3);
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// The destination of a router solicitation.
pub const ALL_ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);

/// One kind of frame. The order is that within a round: the announcements, then the questions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// ARP announcement as a request.
    ArpRequest,
    /// ARP announcement as a reply.
    ArpReply,
    /// Unsolicited neighbour advertisement.
    Na,
    /// RARP request.
    Rarp,
    /// ARP request for a gateway.
    Ask,
    /// Neighbour solicitation for a router, or a router solicitation.
    Solicit,
}

impl Kind {
    /// Every kind, in the order within a round.
    pub const ALL: [Kind; 6] =
        [Kind::ArpRequest, Kind::ArpReply, Kind::Na, Kind::Rarp, Kind::Ask, Kind::Solicit];
    /// The kinds that announce a guest. Whether they leave the host decides the outcome of an announcement.
    pub const ANNOUNCEMENTS: [Kind; 4] = [Kind::ArpRequest, Kind::ArpReply, Kind::Na, Kind::Rarp];

    /// Which flood settings of a bridge port apply to it.
    pub fn cast(self) -> Cast {
        match self {
            Kind::ArpRequest | Kind::ArpReply => Cast::ArpAnnouncement,
            Kind::Na => Cast::Advertisement,
            Kind::Rarp | Kind::Ask => Cast::Broadcast,
            Kind::Solicit => Cast::Multicast,
        }
    }

    /// The name of this kind on the command line, in the configuration and in output.
    pub fn word(self) -> &'static str {
        match self {
            Kind::ArpRequest => "arp-request",
            Kind::ArpReply => "arp-reply",
            Kind::Na => "na",
            Kind::Rarp => "rarp",
            Kind::Ask => "ask",
            Kind::Solicit => "solicit",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// A word that is no kind of frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected rarp, arp-request, arp-reply, na, ask or solicit")]
pub struct UnknownKind;

impl std::str::FromStr for Kind {
    type Err = UnknownKind;

    fn from_str(word: &str) -> Result<Self, UnknownKind> {
        Kind::ALL.into_iter().find(|kind| kind.word() == word).ok_or(UnknownKind)
    }
}

/// One frame, without its check sequence: from the destination address on, at least 60 bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// What it is.
    pub kind: Kind,
    /// The guest's address in it: the announced one, or the sender of a question; `None` for a RARP.
    pub ip: Option<IpAddr>,
    /// The target address of a question.
    pub asked: Option<IpAddr>,
    /// The VLAN whose tag it carries: the guest sends it tagged.
    pub vlan: Option<u16>,
    /// The bytes on the wire.
    pub bytes: Vec<u8>,
}

/// The settings of a round that differ between guests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Style {
    /// Which kinds are sent.
    pub send: Vec<Kind>,
    /// The target hardware address in the request form of an ARP announcement: zero, or broadcast for receivers that need
    /// it.
    pub arp_target: MacAddr,
    /// The guest routes: its advertisements carry the Router flag. Without the flag, the neighbours of a routing guest drop
    /// their default route (RFC 4861 section 7.2.5).
    pub router: bool,
}

impl Default for Style {
    fn default() -> Self {
        Style { send: Kind::ALL.to_vec(), arp_target: MacAddr::zero(), router: false }
    }
}

impl Frame {
    /// The frame with an 802.1Q tag of this VLAN, of priority 0 (IEEE 802.1Q section 9.6).
    fn in_vlan(self, vlan: u16) -> Frame {
        Frame { vlan: Some(vlan), bytes: tagged(self.bytes, vlan), ..self }
    }

    /// Whether it is what was seen in a VLAN, perhaps not to its end, without the tag.
    pub fn is(&self, vlan: Option<u16>, seen: &[u8]) -> bool {
        let tag = if self.vlan.is_some() { TAG } else { 0 };
        let length = seen.len().min(self.bytes.len() - tag);
        let rest = self.bytes.get(ADDRESSES + tag..length + tag);
        length > ETHERNET_HEADER
            && (self.vlan.is_none() || self.vlan == vlan)
            && self.bytes.get(..ADDRESSES) == seen.get(..ADDRESSES)
            && rest == seen.get(ADDRESSES..length)
    }
}

/// A frame's bytes with an 802.1Q tag of this VLAN.
pub(crate) fn tagged(mut bytes: Vec<u8>, vlan: u16) -> Vec<u8> {
    let [high, low] = vlan.to_be_bytes();
    let [tag_high, tag_low] = EtherTypes::Vlan.0.to_be_bytes();
    bytes.splice(ADDRESSES..ADDRESSES, [tag_high, tag_low, high, low]);
    bytes
}

/// The first frame of each kind and VLAN: flows treat the others like it.
pub fn one_of_each<'a>(frames: impl Iterator<Item = &'a Frame>) -> Vec<&'a Frame> {
    let mut known = HashSet::new();
    frames.filter(|frame| known.insert((frame.kind, frame.vlan))).collect()
}

/// A RARP in each of these VLANs, of a guest whose port is a trunk. What it says of its addresses would have to name their VLANs.
pub fn tagged_round(mac: MacAddr, vlans: &[u16], style: &Style) -> Vec<Frame> {
    let is_sent = style.send.contains(&Kind::Rarp);
    vlans.iter().filter(|_| is_sent).map(|vlan| rarp(mac).in_vlan(*vlan)).collect()
}

/// The announcements of one round for the NIC `mac` with the addresses `ips`, in the order of sending.
pub fn round(mac: MacAddr, ips: &[IpAddr], style: &Style) -> Vec<Frame> {
    let mut frames = Vec::new();
    for kind in Kind::ANNOUNCEMENTS {
        if !style.send.contains(&kind) {
            continue;
        }
        if kind == Kind::Rarp {
            frames.push(rarp(mac));
            continue;
        }
        frames.extend(ips.iter().filter_map(|ip| match (kind, *ip) {
            (Kind::ArpRequest, IpAddr::V4(ip)) => Some(arp_request(mac, ip, style.arp_target)),
            (Kind::ArpReply, IpAddr::V4(ip)) => Some(arp_reply(mac, ip)),
            (Kind::Na, IpAddr::V6(ip)) => Some(advertisement(mac, ip, style.router)),
            _ => None,
        }));
    }
    frames
}

/// The request form of an ARP announcement (RFC 5227 section 3): sender and target address are both `ip`.
pub fn arp_request(mac: MacAddr, ip: Ipv4Addr, target: MacAddr) -> Frame {
    let bytes = arp(EtherTypes::Arp, ArpOperations::Request, (mac, ip), (target, ip));
    announcement(Kind::ArpRequest, ip.into(), bytes)
}

/// The reply form of an ARP announcement (RFC 5944 section 4.6): broadcast; sender and target are both the guest.
pub fn arp_reply(mac: MacAddr, ip: Ipv4Addr) -> Frame {
    let bytes = arp(EtherTypes::Arp, ArpOperations::Reply, (mac, ip), (mac, ip));
    announcement(Kind::ArpReply, ip.into(), bytes)
}

/// The RARP request that QEMU sends: both hardware addresses are the guest's, both IP addresses zero.
pub fn rarp(mac: MacAddr) -> Frame {
    let half = (mac, Ipv4Addr::UNSPECIFIED);
    let bytes = arp(EtherTypes::Rarp, RARP_REQUEST, half, half);
    Frame { kind: Kind::Rarp, ip: None, asked: None, vlan: None, bytes }
}

/// An ARP request for `gateway` (RFC 826) from the guest's own address.
///
/// Not a probe: the receiver makes no neighbour entry for the sender 0.0.0.0. Broadcast, since the gateway's MAC may be
/// unknown, and every neighbour that has an entry for the guest updates it.
pub fn ask(mac: MacAddr, from: Ipv4Addr, gateway: Ipv4Addr) -> Frame {
    let bytes = arp(EtherTypes::Arp, ArpOperations::Request, (mac, from), (MacAddr::zero(), gateway));
    question(Kind::Ask, from.into(), gateway.into(), bytes)
}

fn announcement(kind: Kind, ip: IpAddr, bytes: Vec<u8>) -> Frame {
    Frame { kind, ip: Some(ip), asked: None, vlan: None, bytes }
}

fn question(kind: Kind, from: IpAddr, asked: IpAddr, bytes: Vec<u8>) -> Frame {
    Frame { kind, ip: Some(from), asked: Some(asked), vlan: None, bytes }
}

fn arp(
    ethertype: EtherType,
    operation: ArpOperation,
    sender: (MacAddr, Ipv4Addr),
    target: (MacAddr, Ipv4Addr),
) -> Vec<u8> {
    let mut bytes = ethernet(MIN_FRAME, MacAddr::broadcast(), sender.0, ethertype);
    if let Some(mut arp) = MutableArpPacket::new(&mut bytes[ETHERNET_HEADER..]) {
        arp.set_hardware_type(ArpHardwareTypes::Ethernet);
        arp.set_protocol_type(EtherTypes::Ipv4);
        arp.set_hw_addr_len(6);
        arp.set_proto_addr_len(4);
        arp.set_operation(operation);
        arp.set_sender_hw_addr(sender.0);
        arp.set_sender_proto_addr(sender.1);
        arp.set_target_hw_addr(target.0);
        arp.set_target_proto_addr(target.1);
    }
    bytes
}

/// An unsolicited neighbour advertisement (RFC 4861 section 7.2.6): Override set, Solicited clear, hop limit 255.
pub fn advertisement(mac: MacAddr, ip: Ipv6Addr, router: bool) -> Frame {
    let bytes = icmpv6(mac, (ip, ALL_NODES), NEIGHBOUR_MESSAGE, |message| {
        if let Some(mut packet) = MutableNeighborAdvertPacket::new(message) {
            let router = if router { NeighborAdvertFlags::Router } else { 0 };
            packet.set_icmpv6_type(Icmpv6Types::NeighborAdvert);
            packet.set_flags(NeighborAdvertFlags::Override | router);
            packet.set_target_addr(ip);
            packet.set_options(&[link_layer_address(NdpOptionTypes::TargetLLAddr, mac)]);
        }
    });
    announcement(Kind::Na, ip.into(), bytes)
}

/// A neighbour solicitation for `router` (RFC 4861 section 7.2.2) from the guest's own address, to the solicited-node
/// multicast address.
pub fn solicitation(mac: MacAddr, from: Ipv6Addr, router: Ipv6Addr) -> Frame {
    let bytes = icmpv6(mac, (from, solicited_node(router)), NEIGHBOUR_MESSAGE, |message| {
        if let Some(mut packet) = MutableNeighborSolicitPacket::new(message) {
            packet.set_icmpv6_type(Icmpv6Types::NeighborSolicit);
            packet.set_target_addr(router);
            packet.set_options(&[link_layer_address(NdpOptionTypes::SourceLLAddr, mac)]);
        }
    });
    question(Kind::Solicit, from.into(), router.into(), bytes)
}

/// A router solicitation (RFC 4861 section 6.3.7) from the guest's own address: each router makes an entry for the guest
/// (section 6.2.6), and may send an advertisement to all nodes.
pub fn router_solicitation(mac: MacAddr, from: Ipv6Addr) -> Frame {
    let bytes = icmpv6(mac, (from, ALL_ROUTERS), ROUTER_SOLICITATION, |message| {
        if let Some(mut packet) = MutableRouterSolicitPacket::new(message) {
            packet.set_icmpv6_type(Icmpv6Types::RouterSolicit);
            packet.set_options(&[link_layer_address(NdpOptionTypes::SourceLLAddr, mac)]);
        }
    });
    question(Kind::Solicit, from.into(), ALL_ROUTERS.into(), bytes)
}

fn link_layer_address(option_type: NdpOptionType, mac: MacAddr) -> NdpOption {
    NdpOption { option_type, length: 1, data: mac.octets().to_vec() }
}

/// RFC 4291 section 2.7.1.
fn solicited_node(ip: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = ip.octets();
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), u16::from_be_bytes([b, c]))
}

/// A multicast message of `length` bytes from `from` to `to`, hop limit 255. `fill` writes it without its checksum.
fn icmpv6(
    mac: MacAddr,
    (from, to): (Ipv6Addr, Ipv6Addr),
    length: usize,
    fill: impl FnOnce(&mut [u8]),
) -> Vec<u8> {
    // RFC 2464 section 7.
    let [.., a, b, c, d] = to.octets();
    let destination = MacAddr(0x33, 0x33, a, b, c, d);
    let mut bytes = ethernet(ETHERNET_HEADER + IPV6_HEADER + length, destination, mac, EtherTypes::Ipv6);
    let (header, message) = bytes[ETHERNET_HEADER..].split_at_mut(IPV6_HEADER);
    if let Some(mut packet) = MutableIpv6Packet::new(header) {
        packet.set_version(6);
        packet.set_payload_length(length as u16);
        packet.set_next_header(IpNextHeaderProtocols::Icmpv6);
        packet.set_hop_limit(255);
        packet.set_source(from);
        packet.set_destination(to);
    }
    fill(message);
    let checksum = Icmpv6Packet::new(message).map(|m| icmpv6::checksum(&m, &from, &to));
    if let (Some(sum), Some(mut m)) = (checksum, MutableIcmpv6Packet::new(message)) {
        m.set_checksum(sum);
    }
    bytes
}

fn ethernet(length: usize, destination: MacAddr, source: MacAddr, ethertype: EtherType) -> Vec<u8> {
    let mut bytes = vec![0; length];
    if let Some(mut ethernet) = MutableEthernetPacket::new(&mut bytes) {
        ethernet.set_destination(destination);
        ethernet.set_source(source);
        ethernet.set_ethertype(ethertype);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: MacAddr = MacAddr(0xfa, 0x16, 0x3e, 0, 0, 0x11);

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }

    /// Golden bytes, then zeros up to the shortest Ethernet frame.
    fn padded(golden: &str) -> String {
        format!("{golden:0<120}")
    }

    #[test]
    fn rarp_is_what_qemu_sends() {
        // Captured on a migration's destination from QEMU 7.2, without the VLAN tag that the port added.
        let golden = "fffffffffffffa163e00001180350001080006040003fa163e00001100000000fa163e00001100000000";
        assert_eq!(hex(&rarp(MAC).bytes), padded(golden));
    }

    #[test]
    fn arp_request_names_the_address_twice_and_no_target_mac() {
        let frame = arp_request(MAC, Ipv4Addr::new(1, 1, 1, 1), MacAddr::zero());
        let golden = "fffffffffffffa163e00001108060001080006040001fa163e0000110101010100000000000001010101";
        assert_eq!(hex(&frame.bytes), padded(golden));
    }

    #[test]
    fn arp_request_may_carry_a_broadcast_target_mac() {
        let frame = arp_request(MAC, Ipv4Addr::new(1, 1, 1, 1), MacAddr::broadcast());
        assert_eq!(hex(&frame.bytes[32..38]), "ffffffffffff");
    }

    #[test]
    fn arp_reply_has_the_guest_in_both_halves() {
        let frame = arp_reply(MAC, Ipv4Addr::new(1, 1, 1, 1));
        let golden = "fffffffffffffa163e00001108060001080006040002fa163e00001101010101fa163e00001101010101";
        assert_eq!(hex(&frame.bytes), padded(golden));
    }

    #[test]
    fn advertisement_overrides_and_names_the_guest() {
        let frame = advertisement(MAC, "2001:db8::1".parse().unwrap(), false);
        let golden = concat!(
            "333300000001fa163e00001186dd",
            "6000000000203aff20010db8000000000000000000000001ff020000000000000000000000000001",
            // The checksum is scapy's.
            "8800c3032000000020010db80000000000000000000000010201fa163e000011"
        );
        assert_eq!(hex(&frame.bytes), golden);
    }

    #[test]
    fn a_question_names_its_guest_and_its_gateway() {
        let frame = ask(MAC, Ipv4Addr::new(10, 1, 10, 50), Ipv4Addr::new(10, 1, 10, 1));
        let golden = "fffffffffffffa163e00001108060001080006040001fa163e0000110a010a320000000000000a010a01";
        assert_eq!(hex(&frame.bytes), padded(golden));
    }

    #[test]
    fn a_solicitation_is_sent_to_the_solicited_node_address() {
        let frame = solicitation(MAC, "2001:db8:10::50".parse().unwrap(), "2001:db8:10::".parse().unwrap());
        let golden = concat!(
            "3333ff000000fa163e00001186dd",
            "6000000000203aff20010db8001000000000000000000050ff0200000000000000000001ff000000",
            // The checksum is scapy's.
            "8700e5940000000020010db80010000000000000000000000101fa163e000011"
        );
        assert_eq!(hex(&frame.bytes), golden);
    }

    #[test]
    fn a_router_solicitation_has_the_guests_own_source_and_its_link_layer_address() {
        let frame = router_solicitation(MAC, "2001:db8:10::50".parse().unwrap());
        let golden = concat!(
            "333300000002fa163e00001186dd",
            "6000000000103aff20010db8001000000000000000000050ff020000000000000000000000000002",
            // The checksum is scapy's.
            "8500146e000000000101fa163e000011"
        );
        assert_eq!(hex(&frame.bytes), golden);
    }

    #[test]
    fn a_routing_guest_advertises_the_router_flag() {
        let frame = advertisement(MAC, "2001:db8::1".parse().unwrap(), true);
        assert_eq!(frame.bytes[ETHERNET_HEADER + IPV6_HEADER + 4], 0xa0);
    }

    #[test]
    fn a_round_has_a_frame_of_each_kind_for_each_address_and_one_rarp() {
        let ips: Vec<IpAddr> = ["192.0.2.1", "2001:db8::1", "192.0.2.2"].map(|a| a.parse().unwrap()).into();
        let sent: Vec<String> = round(MAC, &ips, &Style::default())
            .iter()
            .map(|f| f.ip.map_or(f.kind.to_string(), |ip| format!("{} {ip}", f.kind)))
            .collect();
        assert_eq!(
            sent,
            [
                "arp-request 192.0.2.1",
                "arp-request 192.0.2.2",
                "arp-reply 192.0.2.1",
                "arp-reply 192.0.2.2",
                "na 2001:db8::1",
                "rarp"
            ]
        );
    }

    #[test]
    fn a_trunk_gets_a_tagged_rarp_for_each_vlan() {
        let mac = MacAddr(0x52, 0x54, 0, 0, 0, 1);
        let frames = tagged_round(mac, &[42, 4094], &Style::default());
        let plain = rarp(mac);
        let tagged = |vlan: [u8; 2]| [&plain.bytes[..12], &[0x81, 0x00], &vlan, &plain.bytes[12..]].concat();
        let bytes: Vec<_> = frames.iter().map(|frame| frame.bytes.clone()).collect();
        assert_eq!(bytes, [tagged([0, 42]), tagged([0x0f, 0xfe])]);
        assert!(frames[0].is(Some(42), &plain.bytes) && frames[0].is(Some(42), &plain.bytes[..40]));
        assert!(!frames[0].is(Some(43), &plain.bytes) && !frames[0].is(None, &plain.bytes));
        assert!(!frames[0].is(Some(42), &plain.bytes[..12]) && !frames[0].is(Some(42), &plain.bytes[..5]));
        assert!(plain.is(Some(42), &plain.bytes) && plain.is(None, &plain.bytes));
        assert_eq!(tagged_round(mac, &[42], &Style { send: vec![Kind::Na], ..Style::default() }), []);
    }

    #[test]
    fn a_nic_without_addresses_gets_rarp_only() {
        let kinds: Vec<Kind> = round(MAC, &[], &Style::default()).iter().map(|f| f.kind).collect();
        assert_eq!(kinds, [Kind::Rarp]);
    }
}
