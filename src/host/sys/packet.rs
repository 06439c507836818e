//! Packet sockets (packet(7)).

use std::io;
use std::mem::{size_of_val, zeroed};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use nix::errno::Errno;

use super::set;
use crate::proof::capture_filter::Instruction;

// include/uapi/linux/if_packet.h
const PACKET_IGNORE_OUTGOING: libc::c_int = 23;

/// A packet socket for [`transmit`], which receives nothing. Needs CAP_NET_RAW.
pub fn sender() -> io::Result<OwnedFd> {
    unbound(0)
}

/// Transmits a frame on a device, without waiting: `NetworkDown` if it is down, `WouldBlock` if too many frames of this socket are
/// still queued at devices.
pub fn transmit(fd: impl AsFd, ifindex: u32, frame: &[u8]) -> io::Result<()> {
    let to = address(ifindex, 0);
    let (frame, length, flags) = (frame.as_ptr().cast(), frame.len(), libc::MSG_DONTWAIT);
    let (to, to_length) = (std::ptr::from_ref(&to).cast(), size_of_val(&to) as libc::socklen_t);
    // SAFETY: both pointers are to values of the lengths given, which outlive the call.
    let sent = unsafe { libc::sendto(fd.as_fd().as_raw_fd(), frame, length, flags, to, to_length) };
    Errno::result(sent)?;
    Ok(())
}

/// A non-blocking packet socket that receives the frames that pass one device in either direction and that `program`
/// accepts; a VLAN tag that the kernel has removed is in PACKET_AUXDATA. With `incoming_only`, those that the device
/// transmits are ignored from the start, as by [`ignore_outgoing`] where the kernel can. Needs CAP_NET_RAW.
pub fn listener(ifindex: u32, program: &[Instruction], incoming_only: bool) -> io::Result<OwnedFd> {
    let fd = unbound(libc::SOCK_NONBLOCK)?;
    filter(&fd, program)?;
    let _ = ignore_outgoing(&fd, incoming_only);
    set(&fd, libc::SOL_PACKET, libc::PACKET_AUXDATA, &libc::c_int::from(true))?;
    bind(&fd, ifindex, libc::ETH_P_ALL as u16)?;
    Ok(fd)
}

/// Replaces the filter program of a socket (socket(7), SO_ATTACH_FILTER).
///
/// `InvalidInput` for a program that the kernel rejects.
pub fn filter(fd: impl AsFd, program: &[Instruction]) -> io::Result<()> {
    let one = |i: &Instruction| libc::sock_filter { code: i.code, jt: i.jt, jf: i.jf, k: i.k };
    let mut program: Vec<libc::sock_filter> = program.iter().map(one).collect();
    let length = program.len().try_into().map_err(|_| io::ErrorKind::InvalidInput)?;
    // The kernel copies the program; its pointer and length are those of a live vector.
    let program = libc::sock_fprog { len: length, filter: program.as_mut_ptr() };
    set(fd, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &program)
}

/// Sets whether a socket ignores frames that its device transmits (Linux 4.20; before, `InvalidInput`).
pub fn ignore_outgoing(fd: impl AsFd, ignore: bool) -> io::Result<()> {
    set(fd, libc::SOL_PACKET, PACKET_IGNORE_OUTGOING, &libc::c_int::from(ignore))
}

/// The number of frames that a socket has received and could not hold since the last call.
pub fn dropped(fd: impl AsFd) -> io::Result<u32> {
    let mut statistics = libc::tpacket_stats { tp_packets: 0, tp_drops: 0 };
    let mut length = size_of_val(&statistics) as libc::socklen_t;
    let (level, option) = (libc::SOL_PACKET, libc::PACKET_STATISTICS);
    let value = std::ptr::from_mut(&mut statistics).cast();
    // SAFETY: the pointers are to a value of the length given, and to that length; both outlive the call.
    let read = unsafe { libc::getsockopt(fd.as_fd().as_raw_fd(), level, option, value, &mut length) };
    Errno::result(read)?;
    Ok(statistics.tp_drops)
}

fn unbound(flags: libc::c_int) -> io::Result<OwnedFd> {
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | flags;
    // SAFETY: socket() takes no pointer.
    let fd = Errno::result(unsafe { libc::socket(libc::AF_PACKET, kind, 0) })?;
    // SAFETY: the kernel has just returned this descriptor, and no other code has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn bind(fd: &OwnedFd, ifindex: u32, protocol: u16) -> io::Result<()> {
    let address = address(ifindex, protocol);
    let length = size_of_val(&address) as libc::socklen_t;
    // SAFETY: the pointer is to a sockaddr_ll of the length given, which outlives the call.
    let bound = unsafe { libc::bind(fd.as_raw_fd(), std::ptr::from_ref(&address).cast(), length) };
    Errno::result(bound)?;
    Ok(())
}

fn address(ifindex: u32, protocol: u16) -> libc::sockaddr_ll {
    // SAFETY: sockaddr_ll holds only integers and arrays of them.
    let mut address: libc::sockaddr_ll = unsafe { zeroed() };
    address.sll_family = libc::AF_PACKET as libc::c_ushort;
    address.sll_protocol = protocol.to_be();
    address.sll_ifindex = ifindex as libc::c_int;
    address
}
