//! ICMP echo on a raw socket.

use std::io::{self, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, bind,
    recvmsg, sendto, setsockopt, socket, sockopt,
};
use pnet_packet::Packet;
use pnet_packet::icmp::echo_reply::EchoReplyPacket;
use pnet_packet::icmp::echo_request::MutableEchoRequestPacket;
use pnet_packet::icmp::{self, IcmpPacket, IcmpTypes};
use pnet_packet::ipv4::Ipv4Packet;

/// ICMP's own header, and the whole sequence number: ICMP's wraps after eleven minutes of 10 ms.
const LENGTH: usize = 8 + 8;

#[derive(Debug)]
pub struct Echo {
    socket: OwnedFd,
    peer: Ipv4Addr,
    identifier: u16,
}

impl Echo {
    /// Needs CAP_NET_RAW.
    pub fn open(source: Option<Ipv4Addr>, peer: Ipv4Addr, identifier: u16) -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC;
        let socket = socket(AddressFamily::Inet, SockType::Raw, flags, SockProtocol::Icmp)?;
        setsockopt(&socket, sockopt::ReceiveTimestampns, &true)?;
        if let Some(source) = source {
            bind(socket.as_raw_fd(), &SockaddrIn::from(SocketAddrV4::new(source, 0)))?;
        }
        Ok(Self { socket, peer, identifier })
    }

    /// Sends the request with that number; returns when, in seconds since the Unix epoch, and what went wrong.
    pub fn send(&self, seq: u64) -> (f64, Option<String>) {
        let request = request(self.identifier, seq);
        let peer = SockaddrIn::from(SocketAddrV4::new(self.peer, 0));
        let at = now();
        let sent = sendto(self.socket.as_raw_fd(), &request, &peer, MsgFlags::empty());
        (at, sent.err().map(|error| error.to_string()))
    }

    /// Waits for the next reply; returns the number of its request, and when it came.
    pub fn receive(&self) -> io::Result<(u64, f64)> {
        let mut bytes = [0; 2048];
        loop {
            let mut control = nix::cmsg_space!(libc::timespec);
            let mut into = [IoSliceMut::new(&mut bytes)];
            let fd = self.socket.as_raw_fd();
            let message = match recvmsg::<SockaddrIn>(fd, &mut into, Some(&mut control), MsgFlags::empty()) {
                Err(Errno::EINTR) => continue,
                message => message?,
            };
            let at = message.cmsgs()?.find_map(|control| match control {
                ControlMessageOwned::ScmTimestampns(time) => Some(Duration::from(time).as_secs_f64()),
                _ => None,
            });
            let from = message.address.map(|address| address.ip());
            let length = message.bytes;
            let seq = if from == Some(self.peer) { reply(self.identifier, &bytes[..length]) } else { None };
            if let Some(seq) = seq {
                return Ok((seq, at.unwrap_or_else(now)));
            }
        }
    }
}

fn request(identifier: u16, seq: u64) -> [u8; LENGTH] {
    let mut bytes = [0; LENGTH];
    if let Some(mut request) = MutableEchoRequestPacket::new(&mut bytes) {
        request.set_icmp_type(IcmpTypes::EchoRequest);
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

/// The number of the request that this packet, with its IP header, replies to.
fn reply(identifier: u16, packet: &[u8]) -> Option<u64> {
    let packet = Ipv4Packet::new(packet)?;
    let reply = EchoReplyPacket::new(packet.payload())?;
    let seq = u64::from_be_bytes(*reply.payload().first_chunk()?);
    let ours = reply.get_icmp_type() == IcmpTypes::EchoReply
        && reply.get_identifier() == identifier
        && reply.get_sequence_number() == seq as u16;
    ours.then_some(seq)
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The reply to that request as a raw socket hands it over.
    fn replied(identifier: u16, seq: u64) -> Vec<u8> {
        let mut header = [0; 20];
        header[0] = 0x45;
        header[3] = 20 + LENGTH as u8;
        let mut reply = request(identifier, seq);
        reply[0] = IcmpTypes::EchoReply.0;
        [&header[..], &reply].concat()
    }

    #[test]
    fn a_reply_is_recognized_by_identifier_and_number() {
        assert_eq!(reply(7, &replied(7, 3)), Some(3));
        assert_eq!(reply(8, &replied(7, 3)), None);
        assert_eq!(reply(7, &replied(7, 65536 + 3)), Some(65536 + 3));
        assert_eq!(reply(7, &replied(7, 3)[..30]), None);
    }

    #[test]
    fn a_request_is_no_reply() {
        let mut packet = replied(7, 3);
        packet[20] = IcmpTypes::EchoRequest.0;
        assert_eq!(reply(7, &packet), None);
    }

    #[test]
    fn a_request_has_a_correct_checksum() {
        let request = request(7, 3);
        let packet = IcmpPacket::new(&request).unwrap();
        assert_eq!(packet.get_checksum(), icmp::checksum(&packet));
    }
}
