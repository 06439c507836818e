//! ICMP echo on a raw socket.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrStorage, bind,
    recvmsg, sendto, setsockopt, socket, sockopt,
};
use pnet_packet::Packet;
use pnet_packet::icmp::echo_reply::EchoReplyPacket;
use pnet_packet::icmp::echo_request::MutableEchoRequestPacket;
use pnet_packet::icmp::{self, IcmpPacket, IcmpType, IcmpTypes};
use pnet_packet::icmpv6::Icmpv6Types;
use pnet_packet::ipv4::Ipv4Packet;

/// ICMP's own header, and the whole sequence number: ICMP's wraps after eleven minutes of 10 ms.
const LENGTH: usize = 8 + 8;

#[derive(Debug)]
pub struct Echo {
    socket: OwnedFd,
    peer: IpAddr,
    identifier: u16,
}

impl Echo {
    /// Needs CAP_NET_RAW.
    pub fn open(source: Option<IpAddr>, peer: IpAddr, identifier: u16) -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC;
        let (family, protocol) = match peer {
            IpAddr::V4(_) => (AddressFamily::Inet, SockProtocol::Icmp),
            IpAddr::V6(_) => (AddressFamily::Inet6, SockProtocol::IcmpV6),
        };
        let socket = socket(family, SockType::Raw, flags, protocol)?;
        setsockopt(&socket, sockopt::ReceiveTimestampns, &true)?;
        if let Some(source) = source {
            bind(socket.as_raw_fd(), &storage(source))?;
        }
        Ok(Self { socket, peer, identifier })
    }

    /// Sends the request with that number; returns when, in seconds since the Unix epoch, and what went wrong.
    pub fn send(&self, seq: u64) -> (f64, Option<String>) {
        let (ask, _) = types(self.peer);
        let request = request(ask, self.identifier, seq);
        let at = now();
        let sent = sendto(self.socket.as_raw_fd(), &request, &storage(self.peer), MsgFlags::empty());
        (at, sent.err().map(|error| error.to_string()))
    }

    /// Waits for the next reply; returns the number of its request, and when it came.
    pub fn receive(&self) -> io::Result<(u64, f64)> {
        let mut bytes = [0; 2048];
        loop {
            let mut control = nix::cmsg_space!(libc::timespec);
            let mut into = [IoSliceMut::new(&mut bytes)];
            let fd = self.socket.as_raw_fd();
            let message =
                match recvmsg::<SockaddrStorage>(fd, &mut into, Some(&mut control), MsgFlags::empty()) {
                    Err(Errno::EINTR) => continue,
                    message => message?,
                };
            let at = message.cmsgs()?.find_map(|control| match control {
                ControlMessageOwned::ScmTimestampns(time) => Some(Duration::from(time).as_secs_f64()),
                _ => None,
            });
            let from = message.address.and_then(address);
            let length = message.bytes;
            // The members of a group reply with addresses of their own.
            if from != Some(self.peer) && !self.peer.is_multicast() {
                continue;
            }
            if let Some(seq) = self.reply(&bytes[..length]) {
                return Ok((seq, at.unwrap_or_else(now)));
            }
        }
    }

    /// The number of the request that a received packet replies to. IPv4's have their IP header, IPv6's have none.
    fn reply(&self, packet: &[u8]) -> Option<u64> {
        let (_, answer) = types(self.peer);
        match self.peer {
            IpAddr::V4(_) => reply(answer, self.identifier, Ipv4Packet::new(packet)?.payload()),
            IpAddr::V6(_) => reply(answer, self.identifier, packet),
        }
    }
}

/// The types of a request and of its reply, which have one form in ICMP and ICMPv6.
fn types(peer: IpAddr) -> (IcmpType, IcmpType) {
    match peer {
        IpAddr::V4(_) => (IcmpTypes::EchoRequest, IcmpTypes::EchoReply),
        IpAddr::V6(_) => (IcmpType(Icmpv6Types::EchoRequest.0), IcmpType(Icmpv6Types::EchoReply.0)),
    }
}

fn storage(address: IpAddr) -> SockaddrStorage {
    SockaddrStorage::from(SocketAddr::new(address, 0))
}

fn address(storage: SockaddrStorage) -> Option<IpAddr> {
    let v4 = storage.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
    v4.or_else(|| storage.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
}

/// The kernel replaces the checksum of ICMPv6, which covers the addresses.
fn request(ask: IcmpType, identifier: u16, seq: u64) -> [u8; LENGTH] {
    let mut bytes = [0; LENGTH];
    if let Some(mut request) = MutableEchoRequestPacket::new(&mut bytes) {
        request.set_icmp_type(ask);
        request.set_identifier(identifier);
        request.set_sequence_number(seq as u16);
        request.set_payload(&seq.to_be_bytes());
    }
    let checksum = IcmpPacket::new(&bytes).map(|packet| icmp::checksum(&packet));
    if let (Some(checksum), Some(mut request)) = (checksum, MutableEchoRequestPacket::new(&mut bytes)) {
        request.set_checksum(checksum);
    }
    bytes
}

/// The number of the request that this message replies to.
fn reply(answer: IcmpType, identifier: u16, message: &[u8]) -> Option<u64> {
    let reply = EchoReplyPacket::new(message)?;
    let seq = u64::from_be_bytes(*reply.payload().first_chunk()?);
    let ours = reply.get_icmp_type() == answer
        && reply.get_identifier() == identifier
        && reply.get_sequence_number() == seq as u16;
    ours.then_some(seq)
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    const V4: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
    const V6: IpAddr = IpAddr::V6(Ipv6Addr::LOCALHOST);

    /// The reply to that request.
    fn replied(peer: IpAddr, identifier: u16, seq: u64) -> [u8; LENGTH] {
        let (ask, answer) = types(peer);
        let mut reply = request(ask, identifier, seq);
        reply[0] = answer.0;
        reply
    }

    fn read(peer: IpAddr, identifier: u16, message: &[u8]) -> Option<u64> {
        reply(types(peer).1, identifier, message)
    }

    #[test]
    fn a_reply_is_recognized_by_identifier_and_number() {
        for peer in [V4, V6] {
            assert_eq!(read(peer, 7, &replied(peer, 7, 3)), Some(3));
            assert_eq!(read(peer, 8, &replied(peer, 7, 3)), None);
            assert_eq!(read(peer, 7, &replied(peer, 7, 65536 + 3)), Some(65536 + 3));
            assert_eq!(read(peer, 7, &replied(peer, 7, 3)[..10]), None);
        }
    }

    #[test]
    fn a_request_and_the_other_family_s_reply_are_no_reply() {
        for (peer, other) in [(V4, V6), (V6, V4)] {
            assert_eq!(read(peer, 7, &request(types(peer).0, 7, 3)), None);
            assert_eq!(read(peer, 7, &replied(other, 7, 3)), None);
        }
    }

    #[test]
    fn a_request_has_a_correct_checksum() {
        let request = request(types(V4).0, 7, 3);
        let packet = IcmpPacket::new(&request).unwrap();
        assert_eq!(packet.get_checksum(), icmp::checksum(&packet));
    }
}
