//! The membership queries that a guest is asked, byte for byte, and when. They go to the guest and to no one else: its
//! reports, which it sends itself, move its multicast groups to the port where it is now.
//!
//! | query | source |
//! |---|---|
//! | IGMPv3 general query | RFC 3376 section 4.1 |
//! | MLDv2 general query | RFC 3810 section 5.1 |
//!
//! Never an older version: a guest that hears one uses that version for minutes (RFC 3376 section 7.2.1, RFC 3810 section 8.2.1). A
//! guest that uses an older one anyway answers in that.
//!
//! The Ethernet destination is the guest's own MAC address, not that of all systems. A host takes multicast packets at
//! its unicast address, too (RFC 6085 for IPv6). A bridge inside the guest does not snoop such a frame, and so remains the querier of
//! its segment: Linux's bridge gives way to any IGMP query that it snoops, also to one from 0.0.0.0, for 255 s (measured, Linux 6.18).

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use pnet_base::MacAddr;
use pnet_packet::ethernet::{EtherTypes, MutableEthernetPacket};
use pnet_packet::icmpv6::{self, Icmpv6Packet};
use pnet_packet::ip::IpNextHeaderProtocols;
use pnet_packet::ipv4::{self, MutableIpv4Packet};
use pnet_packet::ipv6::MutableIpv6Packet;
use pnet_packet::util;

use crate::announcement::frame::tagged;

/// The most queries of each protocol in one announcement.
pub(crate) const MAX_QUERIES: u32 = 10;
/// From each query to the next.
const INTERVAL: Duration = Duration::from_secs(1);

const MIN_FRAME: usize = 60;
const ETHERNET_HEADER: usize = 14;
/// With the router alert option.
const IPV4_HEADER: usize = 24;
const IPV6_HEADER: usize = 40;
const ALL_SYSTEMS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 1);
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// The highest link-local address: the lowest one wins the election of a querier (RFC 3810 section 7.6.2).
const HIGHEST_LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0xffff, 0xffff, 0xffff, 0xffff);
/// Internetwork Control, the precedence of IGMP (RFC 3376 section 4).
const INTERNETWORK_CONTROL: u8 = 0xc0 >> 2;
/// The router alert option (RFC 2113).
const ROUTER_ALERT: [u8; 4] = [0x94, 4, 0, 0];
/// A hop-by-hop options header before ICMPv6 with the router alert for MLD (RFC 2711) and two bytes of padding.
const HOP_BY_HOP: [u8; 8] = [58, 0, 5, 2, 0, 0, 1, 0];
/// Suppress router-side processing, and a robustness variable of 2.
const SUPPRESS_AND_ROBUSTNESS: u8 = 0x08 | 2;
/// The query interval that it tells, in seconds: the default of both RFCs.
const QUERY_INTERVAL: u8 = 125;
/// The guest answers within 100 ms.
const MAX_RESPONSE_TENTHS: u8 = 1;
const MAX_RESPONSE_MS: u16 = 100;
const IGMP_QUERY: u8 = 0x11;
const MLD_QUERY: u8 = 130;

/// A protocol of group membership.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// IGMP, of IPv4.
    Igmp,
    /// MLD, of IPv6.
    Mld,
}

impl Protocol {
    /// Both, in the order of sending.
    pub const ALL: [Protocol; 2] = [Protocol::Igmp, Protocol::Mld];

    /// Its name in configuration and output.
    pub fn word(self) -> &'static str {
        match self {
            Protocol::Igmp => "igmp",
            Protocol::Mld => "mld",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Protocol::Igmp => "IGMP",
            Protocol::Mld => "MLD",
        })
    }
}

/// The general queries of both protocols for the guest `mac`; in each of `vlans` with its tag, or untagged where there is none.
pub(crate) fn queries(mac: MacAddr, vlans: &[u16]) -> Vec<Vec<u8>> {
    let untagged = [igmp(mac), mld(mac)];
    match vlans {
        [] => untagged.into(),
        vlans => vlans.iter().flat_map(|vlan| untagged.clone().map(|bytes| tagged(bytes, *vlan))).collect(),
    }
}

/// An IGMPv3 general query from 0.0.0.0.
pub(crate) fn igmp(mac: MacAddr) -> Vec<u8> {
    let mut bytes = ethernet(MIN_FRAME, mac, EtherTypes::Ipv4);
    let (header, rest) = bytes[ETHERNET_HEADER..].split_at_mut(IPV4_HEADER);
    let message = &mut rest[..12];
    message[..2].copy_from_slice(&[IGMP_QUERY, MAX_RESPONSE_TENTHS]);
    message[8..10].copy_from_slice(&[SUPPRESS_AND_ROBUSTNESS, QUERY_INTERVAL]);
    let sum = util::checksum(message, 1);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    header[20..].copy_from_slice(&ROUTER_ALERT);
    if let Some(mut packet) = MutableIpv4Packet::new(header) {
        packet.set_version(4);
        packet.set_header_length((IPV4_HEADER / 4) as u8);
        packet.set_dscp(INTERNETWORK_CONTROL);
        packet.set_total_length((IPV4_HEADER + message.len()) as u16);
        packet.set_ttl(1);
        packet.set_next_level_protocol(IpNextHeaderProtocols::Igmp);
        packet.set_destination(ALL_SYSTEMS);
        let sum = ipv4::checksum(&packet.to_immutable());
        packet.set_checksum(sum);
    }
    bytes
}

/// An MLDv2 general query from the highest link-local address.
pub(crate) fn mld(mac: MacAddr) -> Vec<u8> {
    const MESSAGE: usize = 28;
    let length = HOP_BY_HOP.len() + MESSAGE;
    let mut bytes = ethernet(ETHERNET_HEADER + IPV6_HEADER + length, mac, EtherTypes::Ipv6);
    let (header, rest) = bytes[ETHERNET_HEADER..].split_at_mut(IPV6_HEADER);
    if let Some(mut packet) = MutableIpv6Packet::new(header) {
        packet.set_version(6);
        packet.set_payload_length(length as u16);
        packet.set_next_header(IpNextHeaderProtocols::Hopopt);
        packet.set_hop_limit(1);
        packet.set_source(HIGHEST_LINK_LOCAL);
        packet.set_destination(ALL_NODES);
    }
    let (options, message) = rest.split_at_mut(HOP_BY_HOP.len());
    options.copy_from_slice(&HOP_BY_HOP);
    message[0] = MLD_QUERY;
    message[4..6].copy_from_slice(&MAX_RESPONSE_MS.to_be_bytes());
    message[24..26].copy_from_slice(&[SUPPRESS_AND_ROBUSTNESS, QUERY_INTERVAL]);
    let sum = Icmpv6Packet::new(message).map(|m| icmpv6::checksum(&m, &HIGHEST_LINK_LOCAL, &ALL_NODES));
    message[2..4].copy_from_slice(&sum.unwrap_or_default().to_be_bytes());
    bytes
}

fn ethernet(length: usize, guest: MacAddr, ethertype: pnet_packet::ethernet::EtherType) -> Vec<u8> {
    let mut bytes = vec![0; length];
    if let Some(mut ethernet) = MutableEthernetPacket::new(&mut bytes) {
        ethernet.set_destination(guest);
        ethernet.set_source(hosts_end(guest));
        ethernet.set_ethertype(ethertype);
    }
    bytes
}

/// The source address: that of the tap, as libvirt derives it from the guest's, which never begins with this byte. No other
/// host has it, and it is not the guest's.
fn hosts_end(guest: MacAddr) -> MacAddr {
    let first = if guest.0 == 0xfe { 0xfa } else { 0xfe };
    MacAddr(first, guest.1, guest.2, guest.3, guest.4, guest.5)
}

/// When the queries of one announcement are sent: the first with the first round that has left, the others a second apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Queries {
    sent: u32,
    due: Option<Duration>,
}

impl Queries {
    /// The first round has left, at the latest at `now`.
    pub(crate) fn begin(&mut self, now: Duration) {
        self.due.get_or_insert(now);
    }

    /// When the next one is due, if `count` are to be sent.
    pub(crate) fn due(&self, count: u32) -> Option<Duration> {
        self.due.filter(|_| self.sent < count)
    }

    /// One was sent at `now`.
    pub(crate) fn sent(&mut self, now: Duration) {
        (self.sent, self.due) = (self.sent + 1, Some(now.saturating_add(INTERVAL)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: MacAddr = MacAddr(0xfa, 0x16, 0x3e, 0, 0, 0x11);

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }

    #[test]
    fn the_queries_are_those_that_linux_guests_answered() {
        // Written by another program, with checksums of its own.
        let golden = "fa163e000011fe163e0000110800\
                      46c00024000000000102441300000000e000000194040000\
                      1101e481000000000a7d0000";
        assert_eq!(hex(&igmp(MAC)), format!("{golden:0<120}"));
        let golden = "fa163e000011fe163e00001186dd\
                      6000000000240001fe80000000000000ffffffffffffffffff020000000000000000000000000001\
                      3a00050200000100\
                      8200754300640000000000000000000000000000000000000a7d0000";
        assert_eq!(hex(&mld(MAC)), golden);
    }

    #[test]
    fn the_source_is_never_the_guest() {
        for first in [0x52, 0xfe, 0xfa] {
            let guest = MacAddr(first, 0, 0, 0, 0, 1);
            assert_ne!(hosts_end(guest), guest);
        }
    }

    #[test]
    fn a_trunk_is_asked_in_each_of_its_vlans() {
        let all = queries(MAC, &[7, 8]);
        let tags: Vec<&[u8]> = all.iter().map(|bytes| &bytes[12..18]).collect();
        let expected: [&[u8]; 4] = [
            &[0x81, 0, 0, 7, 8, 0],
            &[0x81, 0, 0, 7, 0x86, 0xdd],
            &[0x81, 0, 0, 8, 8, 0],
            &[0x81, 0, 0, 8, 0x86, 0xdd],
        ];
        assert_eq!(tags, expected);
    }

    #[test]
    fn the_second_query_follows_a_second_after_the_first() {
        let ms = Duration::from_millis;
        let mut queries = Queries::default();
        assert_eq!(queries.due(2), None, "no round has left");
        queries.begin(ms(40));
        queries.begin(ms(90));
        assert_eq!(queries.due(2), Some(ms(40)));
        assert_eq!(queries.due(0), None);
        queries.sent(ms(41));
        assert_eq!(queries.due(2), Some(ms(1041)));
        queries.sent(ms(1041));
        assert_eq!(queries.due(2), None);
    }
}
