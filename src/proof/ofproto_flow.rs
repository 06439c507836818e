//! A frame as a flow, in the words of ovs-fields(7).

use pnet_base::MacAddr;
use pnet_packet::Packet;
use pnet_packet::arp::ArpPacket;
use pnet_packet::ethernet::{EtherTypes, EthernetPacket};
use pnet_packet::icmpv6::Icmpv6Types;
use pnet_packet::icmpv6::ndp::{NdpOptionTypes, NeighborAdvertPacket};
use pnet_packet::ip::IpNextHeaderProtocols;
use pnet_packet::ipv6::Ipv6Packet;

/// Describes a frame for `ofproto/trace`, as received by the OpenFlow port `in_port`; `None` if it is no whole frame.
///
/// Given the frame itself, Open vSwitch would learn from it; from a description it does not. All is described that Open
/// vSwitch reads in an untagged ARP, RARP or neighbour advertisement.
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
    let advert = payload.get(Ipv6Packet::minimum_packet_size()..).and_then(NeighborAdvertPacket::new);
    match advert.filter(|advert| {
        ip.get_next_header() == IpNextHeaderProtocols::Icmpv6
            && advert.get_icmpv6_type() == Icmpv6Types::NeighborAdvert
    }) {
        Some(advert) => {
            let target = advert.get_target_addr();
            let tll = target_link_layer(&advert).map_or_else(String::new, |mac| format!(",nd_tll={mac}"));
            Some(format!("icmp6,{header},icmpv6_type=136,icmpv6_code=0,nd_target={target}{tll}"))
        }
        None => Some(format!("ipv6,{header},nw_proto={}", ip.get_next_header().0)),
    }
}

/// The address in the first option, if that is what it is for (RFC 4861 section 4.6.1).
fn target_link_layer(advert: &NeighborAdvertPacket<'_>) -> Option<MacAddr> {
    match advert.get_options_raw() {
        [kind, 1, a, b, c, d, e, f, ..] if *kind == NdpOptionTypes::TargetLLAddr.0 => {
            Some(MacAddr(*a, *b, *c, *d, *e, *f))
        }
        _ => None,
    }
}
