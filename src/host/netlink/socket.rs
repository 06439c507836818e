//! One route socket: a request and its acknowledgement, a dump, or the notifications of a group (netlink(7)).
//!
//! Every request has a sequence number, and its answers have this number and this socket's port id. All other messages are
//! notifications.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, getsockname, recv, send,
    setsockopt, socket, sockopt,
};
use tokio::io::unix::AsyncFd;

use super::{Message, Request, error_of, messages};
use crate::host::sys;

/// Larger than any datagram of a dump (`NLMSG_GOODSIZE`, 32 KiB at most).
const BUFFER: usize = 1 << 16;
// include/uapi/linux/netlink.h
const NLM_F_DUMP_INTR: u16 = 0x10;

/// A route socket. It never blocks in a system call until the kernel answers; but send(2) and recv(2) may wait for the
/// kernel's lock on its devices (`rtnl_mutex`), which the deletion of a device holds for milliseconds.
#[derive(Debug)]
pub struct Socket {
    fd: AsyncFd<OwnedFd>,
    buffer: Vec<u8>,
    port_id: u32,
    sequence: u32,
}

/// The result of a dump.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dump {
    /// It is complete, and was true at some time while it was made.
    Consistent,
    /// The table changed during the dump, so that an entry may be missing (`NLM_F_DUMP_INTR`).
    Interrupted,
}

impl Socket {
    /// A socket that receives the multicast groups of a bit mask (`RTMGRP_*`).
    ///
    /// # Errors
    ///
    /// The socket cannot be made, or there is no runtime.
    pub fn open(groups: u32) -> io::Result<Socket> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let fd = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkRoute)?;
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
        let port_id = getsockname::<NetlinkAddr>(fd.as_raw_fd())?.pid();
        Ok(Socket { fd: sys::readable(fd)?, buffer: vec![0; BUFFER], port_id, sequence: 0 })
    }

    /// Sets the buffer for unread notifications to `bytes`. Without CAP_NET_ADMIN, the host's limit applies
    /// (`net.core.rmem_max`).
    pub fn set_receive_buffer(&self, bytes: usize) -> io::Result<()> {
        setsockopt(self.fd.get_ref(), sockopt::RcvBufForce, &bytes)
            .or_else(|_| setsockopt(self.fd.get_ref(), sockopt::RcvBuf, &bytes))
            .map_err(io::Error::from)
    }

    /// Receives one more multicast group (`RTNLGRP_*`).
    pub fn join(&self, group: u32) -> io::Result<()> {
        sys::join(self.fd.get_ref(), group)
    }

    /// Sends a request and passes the kernel's answers to `each`, until it is acknowledged.
    ///
    /// # Errors
    ///
    /// The kernel's error number for the request.
    pub async fn request(&mut self, request: Request, mut each: impl FnMut(&Message<'_>)) -> io::Result<()> {
        let sequence = self.send(request, libc::NLM_F_ACK as u16)?;
        let port_id = self.port_id;
        loop {
            for message in messages(self.datagram().await?) {
                match i32::from(message.kind) {
                    _ if !message.answers(sequence, port_id) => {}
                    libc::NLMSG_ERROR => return error_of(&message),
                    _ => each(&message),
                }
            }
        }
    }

    /// Sends a dump request and passes every message to `each`, in the order of the kernel's changes: the entries of the
    /// dump, and notifications that arrive during it.
    ///
    /// # Errors
    ///
    /// The kernel's error number for the request; `ENOBUFS` if notifications were lost during it.
    pub async fn dump(&mut self, request: Request, mut each: impl FnMut(&Message<'_>)) -> io::Result<Dump> {
        let sequence = self.send(request, libc::NLM_F_DUMP as u16)?;
        let port_id = self.port_id;
        let mut dump = Dump::Consistent;
        loop {
            for message in messages(self.datagram().await?) {
                let is_ours = message.answers(sequence, port_id);
                if is_ours && message.flags & NLM_F_DUMP_INTR != 0 {
                    dump = Dump::Interrupted;
                }
                match i32::from(message.kind) {
                    libc::NLMSG_DONE if is_ours => return error_of(&message).map(|()| dump),
                    libc::NLMSG_ERROR if is_ours => error_of(&message)?,
                    _ => each(&message),
                }
            }
        }
    }

    /// The next datagram, mostly of notifications.
    ///
    /// # Errors
    ///
    /// `ENOBUFS`: notifications were lost. The kernel reports no further loss until [`Socket::drain`] has emptied the queue.
    pub async fn datagram(&mut self) -> io::Result<&[u8]> {
        let length = self.fd.async_io(tokio::io::Interest::READABLE, |fd| {
            Ok(recv(fd.as_raw_fd(), &mut self.buffer, MsgFlags::empty())?)
        });
        let length = length.await?;
        Ok(&self.buffer[..length])
    }

    /// Reads and discards all queued messages, including the rest of an abandoned dump. After this, the kernel reports
    /// losses again.
    ///
    /// # Errors
    ///
    /// The socket is broken.
    pub fn drain(&mut self) -> io::Result<()> {
        loop {
            match recv(self.fd.get_ref().as_raw_fd(), &mut self.buffer, MsgFlags::empty()) {
                Ok(_) | Err(Errno::ENOBUFS | Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn send(&mut self, request: Request, flags: u16) -> io::Result<u32> {
        self.sequence = self.sequence.wrapping_add(1).max(1);
        send(
            self.fd.get_ref().as_raw_fd(),
            &request.numbered(flags, self.sequence).finish(),
            MsgFlags::empty(),
        )?;
        Ok(self.sequence)
    }
}
