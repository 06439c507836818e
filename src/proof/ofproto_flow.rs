//! A frame as a flow in the syntax of ovs-fields(7).

use std::borrow::Cow;

use pnet_base::MacAddr;
use pnet_packet::Packet;
use pnet_packet::arp::ArpPacket;
use pnet_packet::ethernet::{EtherTypes, EthernetPacket};
use pnet_packet::icmpv6::ndp::{NdpOptionType, NdpOptionTypes, NeighborSolicitPacket};
use pnet_packet::icmpv6::{Icmpv6Type, Icmpv6Types};
use pnet_packet::ip::{IpNextHeaderProtocol, IpNextHeaderProtocols};
use pnet_packet::ipv4::Ipv4Packet;
use pnet_packet::ipv6::Ipv6Packet;

/// The description of a frame for `ofproto/trace`, as received by the OpenFlow port `in_port`; `None` if the frame is
/// truncated.
///
/// Open vSwitch learns from the bytes of a frame but not from a description. The description contains every field that Open
/// vSwitch reads from an ARP, RARP, neighbour discovery, IGMP or MLD message with at most one tag.
pub fn flow(in_port: u32, frame: &[u8]) -> Option<String> {
    let (tag, untagged) = without_tag(frame);
    let ethernet = EthernetPacket::new(&untagged)?;
    let (from, to, kind) = (ethernet.get_source(), ethernet.get_destination(), ethernet.get_ethertype());
    let rest = match kind {
        EtherTypes::Arp => format!("arp,{}", arp(ethernet.payload())?),
        EtherTypes::Rarp => format!("rarp,{}", arp(ethernet.payload())?),
        EtherTypes::Ipv4 => ipv4(ethernet.payload())?,
        EtherTypes::Ipv6 => ipv6(ethernet.payload())?,
        other => format!("dl_type={:#06x}", other.0),
    };
    let vlan = tag.map(|vlan| format!("dl_vlan={vlan},dl_vlan_pcp=0,")).unwrap_or_default();
    Some(format!("in_port={in_port},{vlan}dl_src={from},dl_dst={to},{rest}"))
}

/// Whether connection tracking leaves such frames alone, so that Open vSwitch takes them for invalid: neighbour discovery and MLD (Linux:
/// `noct_valid_new` in `net/netfilter/nf_conntrack_proto_icmpv6.c`). A trace takes every frame for a new connection's, unless it is told.
pub fn is_untracked(frame: &[u8]) -> bool {
    let (_, untagged) = without_tag(frame);
    let ethernet =
        EthernetPacket::new(&untagged).filter(|ethernet| ethernet.get_ethertype() == EtherTypes::Ipv6);
    let message = ethernet.as_ref().and_then(|ethernet| behind_header(ethernet.payload()));
    matches!(message, Some((IpNextHeaderProtocols::Icmpv6, [130..=136 | 143, ..])))
}

/// The VLAN of a frame's 802.1Q tag.
pub fn vlan(frame: &[u8]) -> Option<u16> {
    without_tag(frame).0
}

/// The VLAN of a frame's 802.1Q tag, and the frame without it.
fn without_tag(frame: &[u8]) -> (Option<u16>, Cow<'_, [u8]>) {
    match frame.get(12..16) {
        Some(&[0x81, 0x00, high, low]) => {
            let vlan = u16::from_be_bytes([high, low]) & 0x0fff;
            (Some(vlan), [&frame[..12], &frame[16..]].concat().into())
        }
        _ => (None, frame.into()),
    }
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

/// Of IGMP, Open vSwitch reads no field of its own.
fn ipv4(payload: &[u8]) -> Option<String> {
    let ip = Ipv4Packet::new(payload)?;
    Some(format!(
        "ip,nw_src={},nw_dst={},nw_proto={},nw_ttl={}",
        ip.get_source(),
        ip.get_destination(),
        ip.get_next_level_protocol().0,
        ip.get_ttl()
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
    match behind_header(payload)? {
        (IpNextHeaderProtocols::Icmpv6, message) if !message.is_empty() => {
            Some(format!("icmp6,{header},{}", icmpv6(message)))
        }
        (other, _) => Some(format!("ipv6,{header},nw_proto={}", other.0)),
    }
}

/// What is behind the header of IPv6 and the options for each hop, and its protocol.
fn behind_header(payload: &[u8]) -> Option<(IpNextHeaderProtocol, &[u8])> {
    let next = Ipv6Packet::new(payload)?.get_next_header();
    let message = payload.get(Ipv6Packet::minimum_packet_size()..)?;
    match (next, message) {
        (IpNextHeaderProtocols::Hopopt, [after, length, ..]) => {
            Some((IpNextHeaderProtocol(*after), message.get((usize::from(*length) + 1) * 8..)?))
        }
        _ => Some((next, message)),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::announcement::frame::{self, Kind, Style};

    const MAC: MacAddr = MacAddr(0xfa, 0x16, 0x3e, 0, 0, 0x0a);

    #[test]
    fn our_frames_are_described() {
        let addresses = ["192.0.2.10", "2001:db8::a"].map(|ip| ip.parse().unwrap());
        let frames = frame::round(MAC, &addresses, &Style::default());
        let told = |kind| {
            let frame = frames.iter().find(|frame| frame.kind == kind).unwrap();
            flow(5, &frame.bytes).unwrap()
        };
        let from = "in_port=5,dl_src=fa:16:3e:00:00:0a";
        assert_eq!(
            told(Kind::Rarp),
            format!(
                "{from},dl_dst=ff:ff:ff:ff:ff:ff,rarp,arp_op=3,arp_spa=0.0.0.0,arp_tpa=0.0.0.0,\
                 arp_sha=fa:16:3e:00:00:0a,arp_tha=fa:16:3e:00:00:0a"
            )
        );
        assert_eq!(
            told(Kind::Na),
            format!(
                "{from},dl_dst=33:33:00:00:00:01,icmp6,ipv6_src=2001:db8::a,ipv6_dst=ff02::1,nw_ttl=255,\
                 icmpv6_type=136,icmpv6_code=0,nd_target=2001:db8::a,nd_tll=fa:16:3e:00:00:0a"
            )
        );
        let of = |frame: frame::Frame| flow(5, &frame.bytes).unwrap();
        let guest = "2001:db8::a".parse().unwrap();
        assert_eq!(
            of(frame::ask(MAC, [192, 0, 2, 10].into(), [192, 0, 2, 1].into())),
            format!(
                "{from},dl_dst=ff:ff:ff:ff:ff:ff,arp,arp_op=1,arp_spa=192.0.2.10,arp_tpa=192.0.2.1,\
                 arp_sha=fa:16:3e:00:00:0a,arp_tha=00:00:00:00:00:00"
            )
        );
        assert_eq!(
            of(frame::solicitation(MAC, guest, "2001:db8::".parse().unwrap())),
            format!(
                "{from},dl_dst=33:33:ff:00:00:00,icmp6,ipv6_src=2001:db8::a,ipv6_dst=ff02::1:ff00:0,nw_ttl=255,\
                 icmpv6_type=135,icmpv6_code=0,nd_target=2001:db8::,nd_sll=fa:16:3e:00:00:0a"
            )
        );
        assert_eq!(
            of(frame::router_solicitation(MAC, guest)),
            format!(
                "{from},dl_dst=33:33:00:00:00:02,icmp6,ipv6_src=2001:db8::a,ipv6_dst=ff02::2,nw_ttl=255,\
                 icmpv6_type=133,icmpv6_code=0"
            )
        );
        assert_eq!(flow(5, &frames[0].bytes[..41]), None, "half an ARP");
        let untracked = frames.iter().filter(|frame| is_untracked(&frame.bytes)).map(|frame| frame.kind);
        assert_eq!(untracked.collect::<Vec<_>>(), [Kind::Na]);
    }
}
