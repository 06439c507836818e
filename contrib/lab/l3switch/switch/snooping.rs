//! IGMP and MLD snooping (RFC 4541): a group's packets go to the ports that have reported it, and this switch is the querier.
//!
//! Reports of every version count, and are not passed on. What no port has reported, and what stays on the link (224.0.0.0/24, ff02::/16),
//! is flooded. A host that leaves a group is forgotten when it no longer reports it.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use pnet_base::MacAddr;
use pnet_packet::Packet;
use pnet_packet::ethernet::{EtherType, EtherTypes};
use pnet_packet::icmpv6::{self, Icmpv6Packet};
use pnet_packet::ip::IpNextHeaderProtocols;
use pnet_packet::ipv4::{self, Ipv4Packet, MutableIpv4Packet};
use pnet_packet::ipv6::{Ipv6Packet, MutableIpv6Packet};
use pnet_packet::util;
use serde::Serialize;

use super::packet::ethernet;
use super::{Ingress, Svi, Switch, Time, What};

/// The time that hosts have to answer a query, in seconds, and the robustness variable: the defaults of RFC 3376 and RFC 3810.
const RESPONSE: u64 = 10;
const ROBUSTNESS: u8 = 2;
const ALL_SYSTEMS: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 1);
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ROUTER_ALERT: [u8; 4] = [0x94, 4, 0, 0];
/// Hop-by-hop options before ICMPv6: router alert for MLD (RFC 2711), and padding.
const HOP_BY_HOP: [u8; 8] = [58, 0, 5, 2, 0, 0, 1, 0];

/// The groups that were reported, and when the next query is due.
#[derive(Default)]
pub struct Snooping {
    /// By VLAN and group: each port, and when it was reported there last.
    groups: BTreeMap<(u16, IpAddr), BTreeMap<String, Time>>,
    query_at: Time,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct GroupRow {
    pub vlan: u16,
    pub group: IpAddr,
    /// Seconds since it was reported there.
    pub age: f64,
    pub port: String,
}

impl Snooping {
    pub fn rows(&self, now: Time) -> impl Iterator<Item = GroupRow> {
        self.groups.iter().flat_map(move |((vlan, group), ports)| {
            ports.iter().map(move |(port, at)| GroupRow {
                vlan: *vlan,
                group: *group,
                age: now.saturating_sub(*at).as_secs_f64(),
                port: port.clone(),
            })
        })
    }
}

impl Switch {
    /// Queries the hosts when that is due, and forgets the groups that they no longer report.
    pub(super) fn query_groups(&mut self) {
        let Some(interval) = self.config.query_interval else { return };
        let (now, age) = (self.now, interval * u32::from(ROBUSTNESS) + Duration::from_secs(RESPONSE));
        self.snooping.groups.retain(|_, ports| {
            ports.retain(|_, at| now.saturating_sub(*at) <= age);
            !ports.is_empty()
        });
        if now < self.snooping.query_at {
            return;
        }
        self.snooping.query_at = now + interval;
        for svi in self.config.svis.clone() {
            for query in [igmp_query(self.config.mac, &svi, interval), mld_query(self.config.mac, interval)] {
                self.flood(None, svi.vlan, &query);
            }
        }
        self.log(What::Queried);
    }

    /// Whether it was a multicast packet that does not go to every port: a report, or one for a known group.
    pub(super) fn snoop(
        &mut self,
        ingress: Ingress,
        ethertype: EtherType,
        payload: &[u8],
        bytes: &[u8],
    ) -> bool {
        if self.config.query_interval.is_none() {
            return false;
        }
        if let Some(groups) = reported(ethertype, payload) {
            groups.into_iter().for_each(|group| self.join(ingress, group));
            return true;
        }
        let group = destination(ethertype, payload).filter(is_routed);
        let ports = group.and_then(|group| self.snooping.groups.get(&(ingress.vlan, group)));
        let Some(ports) = ports else { return false };
        let ports: Vec<String> = ports.keys().filter(|port| *port != ingress.port).cloned().collect();
        ports.iter().for_each(|port| self.send(port, ingress.vlan, bytes.to_vec()));
        true
    }

    fn join(&mut self, Ingress { port, vlan }: Ingress, group: IpAddr) {
        if is_routed(&group) {
            let ports = self.snooping.groups.entry((vlan, group)).or_default();
            if ports.insert(port.to_owned(), self.now).is_none() {
                self.log(What::GroupJoined { vlan, group, port: port.into() });
            }
        }
    }
}

/// Whether routers may pass packets of this group on.
fn is_routed(group: &IpAddr) -> bool {
    match group {
        IpAddr::V4(group) => group.is_multicast() && group.octets()[..3] != [224, 0, 0],
        IpAddr::V6(group) => group.is_multicast() && group.segments()[0] & 0xf > 2,
    }
}

fn destination(ethertype: EtherType, payload: &[u8]) -> Option<IpAddr> {
    match ethertype {
        EtherTypes::Ipv4 => Some(Ipv4Packet::new(payload)?.get_destination().into()),
        EtherTypes::Ipv6 => Some(Ipv6Packet::new(payload)?.get_destination().into()),
        _ => None,
    }
}

/// The groups that a membership report names; `None`: it is something else.
fn reported(ethertype: EtherType, payload: &[u8]) -> Option<Vec<IpAddr>> {
    match ethertype {
        EtherTypes::Ipv4 => {
            let packet = super::packet::ipv4(payload)?;
            let message = packet.payload();
            if packet.get_next_level_protocol() != IpNextHeaderProtocols::Igmp {
                return None;
            }
            match message.first()? {
                // RFC 1112 and RFC 2236.
                0x12 | 0x16 => Some(vec![address::<4>(message.get(4..)?)?]),
                0x22 => records::<4>(message),
                _ => None,
            }
        }
        EtherTypes::Ipv6 => {
            let packet = Ipv6Packet::new(payload)?;
            let message = packet.payload().get(HOP_BY_HOP.len()..)?;
            if packet.get_next_header() != IpNextHeaderProtocols::Hopopt
                || packet.payload()[0] != HOP_BY_HOP[0]
            {
                return None;
            }
            match message.first()? {
                // RFC 2710.
                131 => Some(vec![address::<16>(message.get(8..)?)?]),
                143 => records::<16>(message),
                _ => None,
            }
        }
        _ => None,
    }
}

/// The groups of a report of IGMPv3 or MLDv2, but for those that are left.
fn records<const N: usize>(message: &[u8]) -> Option<Vec<IpAddr>> {
    let count = u16::from_be_bytes(*message.get(6..)?.first_chunk()?);
    let (mut groups, mut rest) = (Vec::new(), message.get(8..)?);
    for _ in 0..count {
        let [kind, auxiliary, high, low] = *rest.first_chunk()?;
        let sources = usize::from(u16::from_be_bytes([high, low]));
        // INCLUDE of no source: the host has left (RFC 3376 section 4.2.12).
        if !(matches!(kind, 1 | 3) && sources == 0) {
            groups.push(address::<N>(rest.get(4..)?)?);
        }
        rest = rest.get(4 + N + sources * N + usize::from(auxiliary) * 4..)?;
    }
    Some(groups)
}

fn address<const N: usize>(bytes: &[u8]) -> Option<IpAddr> {
    let bytes = bytes.get(..N)?;
    match N {
        4 => Some(<[u8; 4]>::try_from(bytes).ok()?.into()),
        _ => Some(<[u8; 16]>::try_from(bytes).ok()?.into()),
    }
}

/// QQIC of both protocols, which is the number of seconds below 128 (RFC 3376 section 4.1.7).
fn interval_code(interval: Duration) -> u8 {
    interval.as_secs().min(127) as u8
}

/// An IGMPv3 general query (RFC 3376 section 4.1).
fn igmp_query(mac: MacAddr, svi: &Svi, interval: Duration) -> Vec<u8> {
    let mut message =
        [0x11, RESPONSE as u8 * 10, 0, 0, 0, 0, 0, 0, ROBUSTNESS, interval_code(interval), 0, 0];
    let sum = util::checksum(&message, 1);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let mut bytes = [&[0; 20][..], &ROUTER_ALERT, &message].concat();
    let length = bytes.len() as u16;
    if let Some(mut packet) = MutableIpv4Packet::new(&mut bytes) {
        packet.set_version(4);
        packet.set_header_length(6);
        packet.set_total_length(length);
        packet.set_ttl(1);
        packet.set_next_level_protocol(IpNextHeaderProtocols::Igmp);
        packet.set_source(svi.address);
        packet.set_destination(ALL_SYSTEMS);
        let sum = ipv4::checksum(&packet.to_immutable());
        packet.set_checksum(sum);
    }
    ethernet(MacAddr(1, 0, 0x5e, 0, 0, 1), mac, EtherTypes::Ipv4, &bytes)
}

/// An MLDv2 general query (RFC 3810 section 5.1).
fn mld_query(mac: MacAddr, interval: Duration) -> Vec<u8> {
    let mut message = [0; 28];
    message[0] = 130;
    message[4..6].copy_from_slice(&(RESPONSE as u16 * 1000).to_be_bytes());
    message[24..26].copy_from_slice(&[ROBUSTNESS, interval_code(interval)]);
    // Of the switch's MAC address (RFC 4291, appendix A).
    let MacAddr(a, b, c, d, e, f) = mac;
    let source = Ipv6Addr::from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, a ^ 2, b, c, 0xff, 0xfe, d, e, f]);
    let sum = Icmpv6Packet::new(&message).map(|message| icmpv6::checksum(&message, &source, &ALL_NODES));
    message[2..4].copy_from_slice(&sum.unwrap_or_default().to_be_bytes());
    let payload = [&HOP_BY_HOP[..], &message].concat();
    let mut bytes = [&[0; 40][..], &payload].concat();
    if let Some(mut packet) = MutableIpv6Packet::new(&mut bytes) {
        packet.set_version(6);
        packet.set_payload_length(payload.len() as u16);
        packet.set_next_header(IpNextHeaderProtocols::Hopopt);
        packet.set_hop_limit(1);
        packet.set_source(source);
        packet.set_destination(ALL_NODES);
    }
    ethernet(MacAddr(0x33, 0x33, 0, 0, 0, 1), mac, EtherTypes::Ipv6, &bytes)
}
