//! The switch's ports: packet sockets on network devices, whose frames have VLAN tags.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, bind, recvmsg,
    sendmsg, setsockopt, socket, sockopt,
};
use nix::{setsockopt_impl, sockopt_impl};

use crate::switch::Time;

// The kernel strips the tag before a packet socket sees the frame, and tells it in this control message.
sockopt_impl!(PacketAuxdata, SetOnly, libc::SOL_PACKET, libc::PACKET_AUXDATA, bool);
sockopt_impl!(IgnoreOutgoing, SetOnly, libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, bool);

/// Where the tag goes: after both addresses.
const ADDRESSES: usize = 12;
/// IEEE 802.1Q.
const TPID: [u8; 2] = [0x81, 0x00];
/// More than the kernel puts together out of segments.
const LONGEST_FRAME: usize = 1 << 17;

#[derive(Debug)]
pub struct Port {
    socket: OwnedFd,
    ifindex: usize,
}

/// A frame that came in, without its tag.
#[derive(Debug)]
pub struct Received {
    /// By the kernel's clock, when it came in.
    pub at: Time,
    pub vlan: Option<u16>,
    pub bytes: Vec<u8>,
}

impl Port {
    /// The device of that name in this network namespace. It must hand over all frames, as a veth does: it is not made
    /// promiscuous. Needs CAP_NET_RAW.
    pub fn open(name: &str) -> io::Result<Self> {
        let mut addresses = getifaddrs()?.filter(|address| address.interface_name == name);
        let link = addresses.find_map(|address| address.address?.as_link_addr().copied());
        let link = link.ok_or_else(|| io::Error::other("there is no such device"))?;
        let flags = SockFlag::SOCK_CLOEXEC;
        let socket = socket(AddressFamily::Packet, SockType::Raw, flags, SockProtocol::EthAll)?;
        setsockopt(&socket, PacketAuxdata, &true)?;
        setsockopt(&socket, IgnoreOutgoing, &true)?;
        setsockopt(&socket, sockopt::ReceiveTimestampns, &true)?;
        bind(socket.as_raw_fd(), &link)?;
        Ok(Self { socket, ifindex: link.ifindex() })
    }

    /// Waits for the next frame.
    pub fn receive(&self) -> io::Result<Received> {
        let mut bytes = vec![0; LONGEST_FRAME];
        loop {
            let mut control = nix::cmsg_space!(libc::timespec, libc::tpacket_auxdata);
            let mut into = [IoSliceMut::new(&mut bytes)];
            let fd = self.socket.as_raw_fd();
            let message = match recvmsg::<LinkAddr>(fd, &mut into, Some(&mut control), MsgFlags::empty()) {
                Err(Errno::EINTR | Errno::ENETDOWN) => continue,
                message => message?,
            };
            // Until it was bound, the socket was given the frames of every device.
            if message.address.map(|from| from.ifindex()) != Some(self.ifindex) {
                continue;
            }
            let (mut at, mut vlan) = (None, None);
            for control in message.cmsgs()? {
                match control {
                    ControlMessageOwned::ScmTimestampns(time) => at = Some(Duration::from(time)),
                    ControlMessageOwned::Unknown(other)
                        if (other.cmsg_header.cmsg_level, other.cmsg_header.cmsg_type)
                            == (libc::SOL_PACKET, libc::PACKET_AUXDATA) =>
                    {
                        vlan = vlan_of(&other.data_bytes);
                    }
                    _ => {}
                }
            }
            let length = message.bytes;
            bytes.truncate(length);
            return Ok(Received { at: at.unwrap_or_else(now), vlan, bytes });
        }
    }

    /// Transmits a frame with a tag of that VLAN.
    pub fn send(&self, vlan: u16, bytes: &[u8]) -> io::Result<()> {
        let (addresses, rest) = bytes.split_at(ADDRESSES.min(bytes.len()));
        let tag = vlan.to_be_bytes();
        let parts = [addresses, &TPID, &tag, rest].map(IoSlice::new);
        sendmsg::<LinkAddr>(self.socket.as_raw_fd(), &parts, &[], MsgFlags::empty(), None)?;
        Ok(())
    }
}

/// The VLAN in a `struct tpacket_auxdata` (packet(7)): four 32-bit words' status first, the tag 16 bytes on.
fn vlan_of(auxdata: &[u8]) -> Option<u16> {
    let status = u32::from_ne_bytes(*auxdata.first_chunk()?);
    let tag = u16::from_ne_bytes(*auxdata.get(16..)?.first_chunk()?);
    (status & libc::TP_STATUS_VLAN_VALID != 0).then_some(tag & 0xfff)
}

/// The wall clock.
pub fn now() -> Time {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}
