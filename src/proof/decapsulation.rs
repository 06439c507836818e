//! The Ethernet frame inside a tunnel's frame: VXLAN (RFC 7348), Geneve (RFC 8926), GRE (RFC 2784, RFC 2890).

use std::net::IpAddr;

use crate::path::tunnel::Encapsulation;

/// The two MAC addresses, before any tag.
const ADDRESSES: usize = 12;
const VLAN_TAG: usize = 4;
const ETHERTYPE: usize = 2;
const MAX_TAGS: usize = 2;
const TAGGED: [[u8; 2]; 2] = [[0x81, 0x00], [0x88, 0xa8]];
const IPV4: [u8; 2] = [0x08, 0x00];
const IPV6: [u8; 2] = [0x86, 0xdd];
const IPV6_HEADER: usize = 40;
const UDP: u8 = 17;
const GRE: u8 = 47;
const UDP_HEADER: usize = 8;
/// The length of VXLAN's header, and of Geneve's without options.
const HEADER: usize = 8;
const VXLAN_HAS_VNI: u8 = 0x08;
/// Geneve's length of options, in units of four bytes.
const GENEVE_OPTIONS: u8 = 0x3f;
/// The protocol type of an Ethernet frame inside Geneve and GRE.
const ETHERNET: [u8; 2] = [0x65, 0x58];
/// Flags of GRE: each adds four bytes to the header of four.
const GRE_CHECKSUM: u8 = 0x80;
const GRE_KEY: u8 = 0x20;
const GRE_SEQUENCE: u8 = 0x10;
/// Other flags of its first byte are of routing, which is obsolete.
const GRE_OTHERS: u8 = !(GRE_CHECKSUM | GRE_KEY | GRE_SEQUENCE);

/// The tunnel that a frame was inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outside {
    /// How it was encapsulated.
    pub encapsulation: Encapsulation,
    /// The VNI of VXLAN and Geneve.
    pub vni: Option<u32>,
    /// The outer source and destination.
    pub between: (IpAddr, IpAddr),
}

/// The frame inside this one, perhaps truncated, if one of these tunnels has encapsulated it.
pub fn decapsulated<'a>(frame: &'a [u8], tunnels: &[Encapsulation]) -> Option<(Outside, &'a [u8])> {
    let (protocol, between, packet) = ip(frame)?;
    let (encapsulation, vni, inner) = match protocol {
        UDP => by_udp(packet, tunnels)?,
        GRE if tunnels.contains(&Encapsulation::Gre) => (Encapsulation::Gre, None, gre(packet)?),
        _ => return None,
    };
    Some((Outside { encapsulation, vni, between }, inner))
}

/// The protocol, the addresses and the payload of an IP packet that is no later fragment.
fn ip(frame: &[u8]) -> Option<(u8, (IpAddr, IpAddr), &[u8])> {
    let mut at = ADDRESSES;
    for _ in 0..MAX_TAGS {
        if TAGGED.iter().any(|tag| frame.get(at..at + ETHERTYPE) == Some(tag)) {
            at += VLAN_TAG;
        }
    }
    let packet = frame.get(at + ETHERTYPE..)?;
    match [frame[at], frame[at + 1]] {
        IPV4 => {
            let offset = u16::from_be_bytes(packet.get(6..8)?.try_into().ok()?) & 0x1fff;
            let header = usize::from(packet.first()? & 0x0f) * 4;
            let address = |at: usize| Some(IpAddr::from(<[u8; 4]>::try_from(packet.get(at..at + 4)?).ok()?));
            let between = (address(12)?, address(16)?);
            (offset == 0).then_some((*packet.get(9)?, between, packet.get(header..)?))
        }
        IPV6 => {
            let address =
                |at: usize| Some(IpAddr::from(<[u8; 16]>::try_from(packet.get(at..at + 16)?).ok()?));
            Some((*packet.get(6)?, (address(8)?, address(24)?), packet.get(IPV6_HEADER..)?))
        }
        _ => None,
    }
}

fn by_udp<'a>(
    datagram: &'a [u8],
    tunnels: &[Encapsulation],
) -> Option<(Encapsulation, Option<u32>, &'a [u8])> {
    let port = u16::from_be_bytes(datagram.get(2..4)?.try_into().ok()?);
    let is_it = |tunnel: &&Encapsulation| matches!(tunnel, Encapsulation::Vxlan(own) | Encapsulation::Geneve(own) if *own == port);
    let encapsulation = *tunnels.iter().find(is_it)?;
    let message = datagram.get(UDP_HEADER..)?;
    let vni = u32::from_be_bytes(message.get(4..8)?.try_into().ok()?) >> 8;
    if let Encapsulation::Geneve(_) = encapsulation {
        let options = usize::from(message[0] & GENEVE_OPTIONS) * 4;
        let is_ethernet = message[2..4] == ETHERNET;
        return is_ethernet.then_some((encapsulation, Some(vni), message.get(HEADER + options..)?));
    }
    let vni = (message[0] & VXLAN_HAS_VNI != 0).then_some(vni)?;
    Some((encapsulation, Some(vni), &message[HEADER..]))
}

fn gre(packet: &[u8]) -> Option<&[u8]> {
    let flags = *packet.first()?;
    if flags & GRE_OTHERS != 0 || packet.get(2..4)? != ETHERNET {
        return None;
    }
    let field = |flag: u8| if flags & flag != 0 { 4 } else { 0 };
    let header = 4 + field(GRE_CHECKSUM) + field(GRE_KEY) + field(GRE_SEQUENCE);
    packet.get(header..)
}

#[cfg(test)]
pub(crate) mod tests;
