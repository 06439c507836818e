//! Asks the kernel behind which port a Linux bridge has learned an address (rtnetlink, `include/uapi/linux/neighbour.h`).

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{MsgFlags, SockFlag, recv, send, setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};
use pnet_base::MacAddr;

use super::{Message, Request, attributes, messages, u16_at, u32_at};
use crate::host::netlink;

// include/uapi/linux/neighbour.h
const NDA_LLADDR: u16 = 2;
const NDA_VLAN: u16 = 5;
const NDA_MASTER: u16 = 9;
const NUD_PERMANENT: u16 = 0x80;
/// The length of `struct ndmsg`, and of `struct ifinfomsg`.
const NDMSG: usize = 12;
const IFINFOMSG: usize = 16;
/// The kernel answers at once: this is for what nobody has thought of.
const PATIENCE_S: i64 = 1;

/// What went wrong in asking the kernel.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No socket.
    #[error("cannot open a netlink socket: {0}")]
    Open(io::Error),
    /// The kernel refused, or did not answer.
    #[error("cannot read what the bridge with index {0} has learned: {1}")]
    Read(u32, io::Error),
}

/// The index of the port behind which the bridge has learned `mac`; addresses of the host itself are not learned ones.
///
/// A bridge that filters VLANs has a table for each of them, and is to be asked for one; any other has a table without
/// a VLAN, and is to be asked for that.
///
/// Needs no capability, and costs the same however many entries there are. Waits for the kernel's lock on its devices,
/// which others may hold for some milliseconds.
pub fn on_linux_bridge(bridge: u32, mac: MacAddr, vlan: Option<u16>) -> Result<Option<u32>, Error> {
    let mut header = [0; NDMSG];
    header[0] = libc::AF_BRIDGE as u8;
    let mut request = Request::new(libc::RTM_GETNEIGH, libc::NLM_F_ACK as u16)
        .fixed(&header)
        .attribute(NDA_LLADDR, &mac.octets())
        .attribute(NDA_MASTER, &bridge.to_ne_bytes());
    if let Some(vlan) = vlan {
        request = request.attribute(NDA_VLAN, &vlan.to_ne_bytes());
    }
    match port(request, bridge, mac, vlan) {
        Err(Error::Read(_, error)) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
        Err(Error::Read(_, error)) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
            walk(bridge, mac, vlan)
        }
        found => found,
    }
}

/// What [`on_linux_bridge`] does on a kernel older than 5.0, which does not tell of a single entry: goes through all.
pub fn walk(bridge: u32, mac: MacAddr, vlan: Option<u16>) -> Result<Option<u32>, Error> {
    let mut header = [0; IFINFOMSG];
    header[0] = libc::AF_BRIDGE as u8;
    // This form of the request is the one that kernels of any age limit to one bridge.
    let request = Request::new(libc::RTM_GETNEIGH, libc::NLM_F_DUMP as u16)
        .fixed(&header)
        .attribute(libc::IFLA_MASTER, &bridge.to_ne_bytes());
    port(request, bridge, mac, vlan)
}

/// Sends a request, and picks from the answers.
fn port(request: Request, bridge: u32, mac: MacAddr, vlan: Option<u16>) -> Result<Option<u32>, Error> {
    let socket = netlink::open(0, SockFlag::empty()).map_err(Error::Open)?;
    let found = setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::seconds(PATIENCE_S))
        .map_err(io::Error::from)
        .and_then(|()| answer(&socket, request, |message| entry(message, bridge, mac, vlan)));
    found.map_err(|error| Error::Read(bridge, error))
}

fn answer(
    socket: &OwnedFd,
    request: Request,
    pick: impl Fn(&Message<'_>) -> Option<u32>,
) -> io::Result<Option<u32>> {
    send(socket.as_raw_fd(), &request.finish(), MsgFlags::empty())?;
    let mut buffer = vec![0; netlink::BUFFER];
    let mut found = None;
    loop {
        let length = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        for message in messages(&buffer[..length]) {
            match i32::from(message.kind) {
                libc::NLMSG_DONE => return Ok(found),
                libc::NLMSG_ERROR => return netlink::error_of(&message).map(|()| found),
                _ => found = found.or_else(|| pick(&message)),
            }
        }
    }
}

/// The port of an entry, if it is in this bridge's table (its ports have tables of their own), for this address.
fn entry(message: &Message<'_>, bridge: u32, mac: MacAddr, vlan: Option<u16>) -> Option<u32> {
    let port = u32_at(message.body, 4)?;
    let local = u16_at(message.body, 8)? & NUD_PERMANENT != 0;
    let (mut whose, mut master, mut of) = (None, None, None);
    for (kind, value) in attributes(message.body.get(NDMSG..)?) {
        match kind {
            NDA_LLADDR => whose = Some(value),
            NDA_MASTER => master = u32_at(value, 0),
            NDA_VLAN => of = u16_at(value, 0),
            _ => {}
        }
    }
    let is_it = message.kind == libc::RTM_NEWNEIGH
        && !local
        && (whose, master, of) == (Some(&mac.octets()), Some(bridge), vlan);
    is_it.then_some(port)
}
