//! A guest's membership reports, by IGMP (RFC 1112, 2236 and 3376) and MLD (RFC 2710 and 3810).
//!
//! Time is a [`Duration`] since the event.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use pnet_base::MacAddr;

use crate::announcement::query::Protocol;
use crate::proof::sighting::Sighting;

const ETHERNET_HEADER: usize = 14;
const IPV4: [u8; 2] = [0x08, 0x00];
const IPV6: [u8; 2] = [0x86, 0xdd];
const IPV6_HEADER: usize = 40;
pub(super) const IGMP: u8 = 2;
pub(super) const HOP_BY_HOP: u8 = 0;
const ICMPV6: u8 = 58;
const IGMPV1_REPORT: u8 = 0x12;
const IGMPV2_REPORT: u8 = 0x16;
const IGMPV3_REPORT: u8 = 0x22;
pub(super) const MLDV1_REPORT: u8 = 131;
pub(super) const MLDV2_REPORT: u8 = 143;
/// The header of a report of several groups, in both protocols.
const REPORT_HEADER: usize = 8;
/// A record that names no source and includes only those that it names: the guest leaves the group (RFC 3376 section 4.2.12).
const INCLUDE: [u8; 2] = [1, 3];
/// The number of groups that are kept.
const MAX_GROUPS: usize = 64;

/// The membership reports of one guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    mac: MacAddr,
    /// When the first query was sent.
    pub queried_at: Duration,
    /// By protocol: its first report, at the guest's own device and at an edge.
    first: [First; 2],
    groups: BTreeSet<IpAddr>,
}

/// The first report of a protocol.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct First {
    /// It was seen to leave the host then.
    pub left: Option<Duration>,
    /// The guest has sent this one.
    pub sent: Option<Vec<u8>>,
}

impl Membership {
    /// No report yet of the guest `mac`, which was queried at `queried_at`.
    pub fn new(mac: MacAddr, queried_at: Duration) -> Membership {
        Membership { mac, queried_at, first: Default::default(), groups: BTreeSet::new() }
    }

    /// Records a frame that has left the host, if it is a report of the guest; returns whether it is.
    pub fn left(&mut self, sighting: &Sighting) -> bool {
        let Some((protocol, groups)) = report(&sighting.frame, self.mac) else {
            return false;
        };
        self.add(groups);
        self.of(protocol).left.get_or_insert(sighting.at);
        true
    }

    /// Records a frame that has passed the guest's own device.
    pub fn passed_guest(&mut self, sighting: &Sighting) {
        if let Some((protocol, groups)) = report(&sighting.frame, self.mac) {
            self.add(groups);
            self.of(protocol).sent.get_or_insert_with(|| sighting.frame.clone());
        }
    }

    /// The first report of each protocol.
    pub fn first(&self) -> impl Iterator<Item = (Protocol, &First)> {
        Protocol::ALL.into_iter().zip(&self.first)
    }

    /// The groups that the guest has reported.
    pub fn groups(&self) -> impl Iterator<Item = IpAddr> {
        self.groups.iter().copied()
    }

    fn add(&mut self, groups: Vec<IpAddr>) {
        let free = MAX_GROUPS.saturating_sub(self.groups.len());
        self.groups.extend(groups.into_iter().take(free));
    }

    fn of(&mut self, protocol: Protocol) -> &mut First {
        &mut self.first[protocol as usize]
    }
}

/// Whether a frame of `mac`, perhaps truncated, is a membership report: its protocol, and the groups that it names.
pub fn report(frame: &[u8], mac: MacAddr) -> Option<(Protocol, Vec<IpAddr>)> {
    if frame.get(6..12)? != mac.octets() {
        return None;
    }
    let packet = frame.get(ETHERNET_HEADER..)?;
    match [*frame.get(12)?, *frame.get(13)?] {
        IPV4 => Some((Protocol::Igmp, igmp(packet)?)),
        IPV6 => Some((Protocol::Mld, mld(packet)?)),
        _ => None,
    }
}

fn igmp(packet: &[u8]) -> Option<Vec<IpAddr>> {
    let header = usize::from(packet.first()? & 0x0f) * 4;
    let message = packet.get(header..).filter(|_| packet.get(9) == Some(&IGMP))?;
    match *message.first()? {
        IGMPV1_REPORT | IGMPV2_REPORT => Some(group::<4>(message.get(4..)?).into_iter().collect()),
        IGMPV3_REPORT => Some(records::<4>(message)),
        _ => None,
    }
}

fn mld(packet: &[u8]) -> Option<Vec<IpAddr>> {
    let (mut next, mut message) = (*packet.get(6)?, packet.get(IPV6_HEADER..)?);
    if next == HOP_BY_HOP {
        let length = (usize::from(*message.get(1)?) + 1) * 8;
        (next, message) = (*message.first()?, message.get(length..)?);
    }
    match *message.first().filter(|_| next == ICMPV6)? {
        MLDV1_REPORT => Some(group::<16>(message.get(8..)?).into_iter().collect()),
        MLDV2_REPORT => Some(records::<16>(message)),
        _ => None,
    }
}

/// The groups of the records of a report, as far as they were captured.
fn records<const N: usize>(message: &[u8]) -> Vec<IpAddr> {
    let mut groups = Vec::new();
    let mut rest = message.get(REPORT_HEADER..).unwrap_or_default();
    while let [kind, words, high, low, from_group @ ..] = rest {
        let sources = usize::from(u16::from_be_bytes([*high, *low]));
        let is_left = INCLUDE.contains(kind) && sources == 0;
        groups.extend(group::<N>(from_group).filter(|_| !is_left));
        let length = N * (1 + sources) + usize::from(*words) * 4;
        rest = from_group.get(length..).unwrap_or_default();
    }
    groups
}

fn group<const N: usize>(bytes: &[u8]) -> Option<IpAddr> {
    let bytes = bytes.get(..N)?;
    let ip = match N {
        4 => IpAddr::from(<[u8; 4]>::try_from(bytes).map(Ipv4Addr::from).ok()?),
        _ => IpAddr::from(<[u8; 16]>::try_from(bytes).map(Ipv6Addr::from).ok()?),
    };
    Some(ip).filter(IpAddr::is_multicast)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proof::capture_point::Direction;

    const MAC: MacAddr = MacAddr(0x52, 0x54, 0, 0, 0, 0x11);
    /// As Linux 6.18 sent them: of 239.1.2.3 by IGMPv3 and IGMPv2, of ff05::1234 by MLDv2 with a second group, and by MLDv1.
    const REPORTS: [(&str, Protocol, &str); 4] = [
        (
            "01005e00001652540000001108004600002800004000010243c90a090002e0000016940400002200e9fa0000000104000000ef010203",
            Protocol::Igmp,
            "239.1.2.3",
        ),
        (
            "01005e010203525400000011080046000020000040000102330f0a090002ef0102039404000016 00f9fbef010203",
            Protocol::Igmp,
            "239.1.2.3",
        ),
        (
            "33330000001652540000001186dd6000000000380001fe80000000000000505400fffe000011ff0200000000000000000000000000163a000502000001008f00\
             00000000000204000000ff05000000000000000000000000123404000000ff0200000000000000000001ff000011",
            Protocol::Mld,
            "ff02::1:ff00:11 ff05::1234",
        ),
        (
            "33330000123452540000001186dd6000000000200001fe80000000000000505400fffe000011ff0500000000000000000000000012343a00050200000100\
             8300000000000000ff050000000000000000000000001234",
            Protocol::Mld,
            "ff05::1234",
        ),
    ];

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
        let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        digits.chunks(2).map(byte).collect()
    }

    fn sighting(frame: Vec<u8>, ms: u64) -> Sighting {
        Sighting {
            ifindex: 1,
            direction: Direction::Out,
            at: Duration::from_millis(ms),
            vlan: None,
            frame,
            outside: None,
        }
    }

    #[test]
    fn reports_of_every_version_are_read() {
        for (hex, protocol, expected) in REPORTS {
            let mut membership = Membership::new(MAC, Duration::ZERO);
            assert!(membership.left(&sighting(bytes(hex), 40)), "{hex}");
            assert!(membership.left(&sighting(bytes(hex), 90)), "{hex}");
            let groups: Vec<String> = membership.groups().map(|ip| ip.to_string()).collect();
            assert_eq!(groups.join(" "), expected);
            let left: Vec<Protocol> =
                membership.first().filter(|(_, first)| first.left.is_some()).map(|(of, _)| of).collect();
            assert_eq!(left, [protocol]);
        }
    }

    #[test]
    fn a_report_that_passed_the_guests_device_only_has_not_left() {
        let mut membership = Membership::new(MAC, Duration::ZERO);
        membership.passed_guest(&sighting(bytes(REPORTS[0].0), 40));
        let (_, igmp) = membership.first().next().unwrap();
        assert!(igmp.left.is_none() && igmp.sent.is_some());
    }

    #[test]
    fn other_frames_and_other_guests_are_none() {
        for (hex, ..) in REPORTS {
            let frame = bytes(hex);
            assert_eq!(report(&frame, MacAddr(2, 0, 0, 0, 0, 1)), None);
            for length in 0..frame.len() {
                let _ = report(&frame[..length], MAC);
            }
        }
        let query = crate::announcement::query::igmp(MAC);
        assert_eq!(report(&query, MAC), None);
        let mut left = bytes(REPORTS[0].0);
        left[46] = 3;
        assert_eq!(report(&left, MAC), Some((Protocol::Igmp, Vec::new())), "the guest leaves the group");
    }
}
