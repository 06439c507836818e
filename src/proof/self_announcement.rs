//! What a guest announces itself: the addresses that its own announcements name and ours do not. A frame of the guest that names one of
//! ours has the bytes of ours, and proves nothing.
//!
//! Time is a [`Duration`] since the event.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use pnet_packet::Packet;
use pnet_packet::arp::ArpPacket;
use pnet_packet::ethernet::{EtherTypes, EthernetPacket};
use pnet_packet::icmpv6::Icmpv6Types;
use pnet_packet::ip::IpNextHeaderProtocols;

use crate::proof::delivery::Delivery;
use crate::proof::sighting::Sighting;

/// The places in a neighbour advertisement without extension headers (RFC 4861 section 4.4): IPv6's next header, ICMPv6's type, the
/// target.
const NEXT_HEADER: usize = 20;
const TYPE: usize = 54;
const TARGET: usize = 62;
/// The number of addresses that are kept.
const MAX_ADDRESSES: usize = 64;

/// The announcements of one guest.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct SelfAnnouncement {
    first: Option<Duration>,
    addresses: BTreeSet<IpAddr>,
}

impl SelfAnnouncement {
    /// Records a frame that leaves the host.
    pub(crate) fn left(&mut self, proof: &Delivery, sighting: &Sighting) {
        let named = announced(&sighting.frame).filter(|_| proof.is_from_guest(sighting));
        let is_ours = |ip: IpAddr| proof.frames().iter().any(|frame| frame.ip == Some(ip));
        let Some(ip) = named.filter(|ip| !is_ours(*ip)) else { return };
        self.first.get_or_insert(sighting.at);
        if self.addresses.len() < MAX_ADDRESSES {
            self.addresses.insert(ip);
        }
    }

    /// When the first one left the host.
    pub(crate) fn first(&self) -> Option<Duration> {
        self.first
    }

    /// The addresses that they name, and ours do not.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.addresses.iter().copied()
    }
}

/// The address that an announcement to all names: gratuitous ARP of either form, or an unsolicited neighbour advertisement.
fn announced(frame: &[u8]) -> Option<IpAddr> {
    let ethernet = EthernetPacket::new(frame).filter(|ethernet| ethernet.get_destination().is_multicast())?;
    match ethernet.get_ethertype() {
        EtherTypes::Arp => {
            let arp = ArpPacket::new(ethernet.payload())?;
            let ip = arp.get_sender_proto_addr();
            (ip == arp.get_target_proto_addr()).then_some(ip.into())
        }
        EtherTypes::Ipv6 => {
            let is_advertisement = frame.get(NEXT_HEADER) == Some(&IpNextHeaderProtocols::Icmpv6.0)
                && frame.get(TYPE) == Some(&Icmpv6Types::NeighborAdvert.0);
            let target: [u8; 16] = *frame.get(TARGET..)?.first_chunk()?;
            is_advertisement.then_some(Ipv6Addr::from(target).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use pnet_base::MacAddr;

    use super::*;
    use crate::announcement::frame::{Kind, Style, round};
    use crate::proof::capture_point::Direction;
    use crate::proof::delivery::tests::on_br_int;

    const ETH0: u32 = 4;
    const GUEST: MacAddr = MacAddr(0xfa, 0x16, 0x3e, 0, 0, 0x11);

    /// What is found after all frames of a round for these addresses from that MAC have left.
    fn after(mac: MacAddr, ips: &[&str]) -> (Option<u64>, Vec<String>) {
        let (proof, mut announced) = (on_br_int(), SelfAnnouncement::default());
        let ips: Vec<IpAddr> = ips.iter().map(|ip| ip.parse().unwrap()).collect();
        for (ms, frame) in round(mac, &ips, &Style::default()).into_iter().enumerate() {
            let at = Duration::from_millis(ms as u64);
            announced.left(&proof, &Sighting::new(ETH0, Direction::Out, at, Some(100), &frame.bytes));
        }
        let first = announced.first().map(|at| at.as_millis() as u64);
        (first, announced.addresses().map(|ip| ip.to_string()).collect())
    }

    #[test]
    fn the_addresses_that_ours_do_not_name_are_the_guests_own() {
        let ours: Vec<String> =
            on_br_int().frames().iter().filter_map(|frame| Some(frame.ip?.to_string())).collect();
        let ours: Vec<&str> = ours.iter().map(String::as_str).collect();
        assert_eq!(after(GUEST, &ours), (None, vec![]));
        let (first, named) = after(GUEST, &["192.0.2.77", "2001:db8::77"]);
        assert_eq!((first, named), (Some(0), vec!["192.0.2.77".into(), "2001:db8::77".into()]));
        assert_eq!(after(MacAddr(2, 0, 0, 0, 0, 1), &["192.0.2.77"]), (None, vec![]), "another guest");
    }

    #[test]
    fn other_frames_name_no_address() {
        let question = |mut frame: Vec<u8>| {
            frame[41] = 1;
            frame
        };
        let frames = round(
            GUEST,
            &["192.0.2.77".parse().unwrap(), "2001:db8::77".parse().unwrap()],
            &Style::default(),
        );
        for frame in frames {
            match frame.kind {
                Kind::ArpRequest => assert_eq!(announced(&question(frame.bytes.clone())), None),
                Kind::Rarp => assert_eq!(announced(&frame.bytes), None),
                _ => assert_eq!(announced(&frame.bytes), frame.ip),
            }
            for length in 0..frame.bytes.len() {
                let _ = announced(&frame.bytes[..length]);
            }
        }
    }
}
