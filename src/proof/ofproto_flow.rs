//! A frame as a flow in the syntax of ovs-fields(7).

use pnet_base::MacAddr;
use pnet_packet::Packet;
use pnet_packet::arp::ArpPacket;
use pnet_packet::ethernet::{EtherTypes, EthernetPacket};
use pnet_packet::icmpv6::ndp::{NdpOptionType, NdpOptionTypes, NeighborSolicitPacket};
use pnet_packet::icmpv6::{Icmpv6Type, Icmpv6Types};
use pnet_packet::ip::IpNextHeaderProtocols;
use pnet_packet::ipv6::Ipv6Packet;

/// The description of a frame for `ofproto/trace`, as received by the OpenFlow port `in_port`; `None` if the frame is
/// truncated.
///
/// Open vSwitch learns from the bytes of a frame but not from a description. The description contains every field that Open
/// vSwitch reads from an untagged ARP, RARP or neighbour discovery message.
pub fn flow(in_port: u32, frame: &[u8]) -> Option<String> {
    let ethernet = EthernetPacket::new(frame)?;
    let (from, to, kind) = (ethernet.get_source(), ethernet.get_destination(), ethernet.get_ethertype());
    let rest = match kind {
        EtherTypes::Arp => format!("arp,{}", arp(ethernet.payload())?),
        EtherTypes::Rarp => format!("rarp,{}", arp(ethernet.payload())?),
        EtherTypes::Ipv6 => ipv6(ethernet.payload())?,
        other => format!("dl_type={:#06x}", other.0),
    };
    Some(format!("in_port={in_port},dl_src={from},dl_dst={to},{rest}"))
}

fn arp(payload: &[u8]) -> Option<String> {
    let arp = ArpPacket::new(payload)?;
    Some(format!(
        "arp_op={},arp_spa={},arp_tpa={},arp_sha={},arp_tha={}",
        arp.get_operation().0,
        arp.get_sender_proto_addr(),
        arp.get_target_proto_addr(),
        arp.get_sender_hw_addr(),
        arp.get_target_hw_addr()
    ))
}

fn ipv6(payload: &[u8]) -> Option<String> {
    let ip = Ipv6Packet::new(payload)?;
    let header = format!(
        "ipv6_src={},ipv6_dst={},nw_ttl={}",
        ip.get_source(),
        ip.get_destination(),
        ip.get_hop_limit()
    );
    let message = payload.get(Ipv6Packet::minimum_packet_size()..).filter(|message| !message.is_empty());
    match message.filter(|_| ip.get_next_header() == IpNextHeaderProtocols::Icmpv6) {
        Some(message) => Some(format!("icmp6,{header},{}", icmpv6(message))),
        None => Some(format!("ipv6,{header},nw_proto={}", ip.get_next_header().0)),
    }
}

/// The message's type and code, and the fields of neighbour discovery that Open vSwitch reads: targets and link-layer
/// addresses of neighbour solicitations and advertisements.
fn icmpv6(message: &[u8]) -> String {
    let kind = Icmpv6Type(message[0]);
    let mut words =
        format!("icmpv6_type={},icmpv6_code={}", kind.0, message.get(1).copied().unwrap_or_default());
    let (option, field) = match kind {
        Icmpv6Types::NeighborAdvert => (NdpOptionTypes::TargetLLAddr, "nd_tll"),
        Icmpv6Types::NeighborSolicit => (NdpOptionTypes::SourceLLAddr, "nd_sll"),
        _ => return words,
    };
    // Both types have the target at the same offset.
    if let Some(packet) = NeighborSolicitPacket::new(message) {
        words += &format!(",nd_target={}", packet.get_target_addr());
        if let Some(mac) = link_layer_address(packet.get_options_raw(), option) {
            words += &format!(",{field}={mac}");
        }
    }
    words
}

/// The address in the first option, if it is of this type (RFC 4861 section 4.6.1).
fn link_layer_address(options: &[u8], option: NdpOptionType) -> Option<MacAddr> {
    match options {
        [kind, 1, a, b, c, d, e, f, ..] if *kind == option.0 => Some(MacAddr(*a, *b, *c, *d, *e, *f)),
        _ => None,
    }
}
