//! Reading and building frames.

use std::net::Ipv4Addr;

use pnet_base::MacAddr;
use pnet_packet::Packet;
use pnet_packet::arp::{ArpHardwareTypes, ArpOperation, ArpOperations, ArpPacket, MutableArpPacket};
use pnet_packet::ethernet::{EtherType, EtherTypes};
use pnet_packet::icmp::{IcmpPacket, IcmpTypes, MutableIcmpPacket};
use pnet_packet::ip::IpNextHeaderProtocols;
use pnet_packet::ipv4::{self, Ipv4Packet, MutableIpv4Packet};

/// The shortest Ethernet frame, without its check sequence (IEEE 802.3 section 3.2.8).
const MIN_FRAME: usize = 60;
const HEADER: usize = 14;
/// RFC 826, for Ethernet and IPv4.
const ARP: usize = 28;

pub struct Ethernet<'a> {
    pub destination: MacAddr,
    pub source: MacAddr,
    pub ethertype: EtherType,
    pub payload: &'a [u8],
}

impl<'a> Ethernet<'a> {
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (header, payload) = bytes.split_first_chunk::<HEADER>()?;
        let [d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, t0, t1] = *header;
        Some(Self {
            destination: MacAddr(d0, d1, d2, d3, d4, d5),
            source: MacAddr(s0, s1, s2, s3, s4, s5),
            ethertype: EtherType(u16::from_be_bytes([t0, t1])),
            payload,
        })
    }
}

pub fn ethernet(destination: MacAddr, source: MacAddr, ethertype: EtherType, payload: &[u8]) -> Vec<u8> {
    let mut bytes = [destination.octets(), source.octets()].concat();
    bytes.extend(ethertype.0.to_be_bytes());
    bytes.extend(payload);
    bytes.resize(bytes.len().max(MIN_FRAME), 0);
    bytes
}

/// An ARP packet for Ethernet and IPv4; anything else is none of ours.
pub struct Arp {
    pub operation: ArpOperation,
    pub sender: (MacAddr, Ipv4Addr),
    pub target: (MacAddr, Ipv4Addr),
}

impl Arp {
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let arp = ArpPacket::new(payload)?;
        let lengths = (arp.get_hw_addr_len(), arp.get_proto_addr_len());
        let types = (arp.get_hardware_type(), arp.get_protocol_type());
        if types != (ArpHardwareTypes::Ethernet, EtherTypes::Ipv4) || lengths != (6, 4) {
            return None;
        }
        Some(Self {
            operation: arp.get_operation(),
            sender: (arp.get_sender_hw_addr(), arp.get_sender_proto_addr()),
            target: (arp.get_target_hw_addr(), arp.get_target_proto_addr()),
        })
    }

    pub fn payload(&self) -> [u8; ARP] {
        let mut bytes = [0; ARP];
        if let Some(mut arp) = MutableArpPacket::new(&mut bytes) {
            arp.set_hardware_type(ArpHardwareTypes::Ethernet);
            arp.set_protocol_type(EtherTypes::Ipv4);
            arp.set_hw_addr_len(6);
            arp.set_proto_addr_len(4);
            arp.set_operation(self.operation);
            arp.set_sender_hw_addr(self.sender.0);
            arp.set_sender_proto_addr(self.sender.1);
            arp.set_target_hw_addr(self.target.0);
            arp.set_target_proto_addr(self.target.1);
        }
        bytes
    }
}

/// The kind of an announcement, and the address that it names; a RARP names none.
pub fn announcement(frame: &Ethernet) -> Option<(&'static str, Option<Ipv4Addr>)> {
    match frame.ethertype {
        EtherTypes::Rarp => Some(("rarp", None)),
        EtherTypes::Arp => {
            let arp = Arp::parse(frame.payload)?;
            let kind = if arp.operation == ArpOperations::Reply { "arp-reply" } else { "arp-request" };
            (arp.sender.1 == arp.target.1).then_some((kind, Some(arp.sender.1)))
        }
        _ => None,
    }
}

/// The IPv4 packet without Ethernet's padding. `None`: it is broken.
pub fn ipv4(payload: &[u8]) -> Option<Ipv4Packet<'_>> {
    let header = Ipv4Packet::new(payload)?;
    let headers = usize::from(header.get_header_length()) * 4;
    let length = usize::from(header.get_total_length());
    if header.get_version() != 4 || headers < 20 || length < headers || length > payload.len() {
        return None;
    }
    let packet = Ipv4Packet::new(&payload[..length])?;
    (ipv4::checksum(&packet) == packet.get_checksum()).then_some(packet)
}

/// The packet with another time to live.
pub fn with_ttl(packet: &Ipv4Packet, ttl: u8) -> Vec<u8> {
    let mut bytes = packet.packet().to_vec();
    if let Some(mut packet) = MutableIpv4Packet::new(&mut bytes) {
        packet.set_ttl(ttl);
        packet.set_checksum(ipv4::checksum(&packet.to_immutable()));
    }
    bytes
}

/// The answer to an ICMP echo request; `None`: it is something else.
pub fn echo_reply(request: &Ipv4Packet) -> Option<Vec<u8>> {
    let icmp = IcmpPacket::new(request.payload())?;
    let is_icmp = request.get_next_level_protocol() == IpNextHeaderProtocols::Icmp;
    if !is_icmp || icmp.get_icmp_type() != IcmpTypes::EchoRequest {
        return None;
    }
    let mut bytes = with_ttl(request, 64);
    let header = usize::from(request.get_header_length()) * 4;
    let mut icmp = MutableIcmpPacket::new(&mut bytes[header..])?;
    icmp.set_icmp_type(IcmpTypes::EchoReply);
    icmp.set_checksum(pnet_packet::icmp::checksum(&icmp.to_immutable()));
    let mut packet = MutableIpv4Packet::new(&mut bytes)?;
    // Swapping two addresses leaves the header's checksum as it is.
    packet.set_source(request.get_destination());
    packet.set_destination(request.get_source());
    Some(bytes)
}
