//! Asks the kernel for the host's default route through a device (rtnetlink, `include/uapi/linux/rtnetlink.h`).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Message, Request, Socket, attributes};

const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
/// The answer is the route that matches, not what it makes of the address (Linux 4.13).
const RTM_F_FIB_MATCH: u32 = 0x2000;
/// The length of `struct rtmsg`.
const RTMSG: usize = 12;
/// Addresses for documentation (RFC 5737, RFC 9637): only a default route leads there.
const FAR: (Ipv4Addr, Ipv6Addr) = (Ipv4Addr::new(203, 0, 113, 1), Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 1));

/// The gateway of the host's default route through a device, of the family of `of`; `None` without one.
///
/// The kernel looks up a single route, whatever the size of the table.
///
/// # Errors
///
/// The socket cannot be made, or the kernel does not answer.
pub async fn gateway(device: u32, of: IpAddr) -> io::Result<Option<IpAddr>> {
    let mut header = [0; RTMSG];
    let destination = match of {
        IpAddr::V4(_) => {
            (header[0], header[1]) = (libc::AF_INET as u8, 32);
            FAR.0.octets().to_vec()
        }
        IpAddr::V6(_) => {
            (header[0], header[1]) = (libc::AF_INET6 as u8, 128);
            FAR.1.octets().to_vec()
        }
    };
    let request = Request::new(libc::RTM_GETROUTE, 0)
        .fixed(&header)
        .attribute(RTA_DST, &destination)
        .attribute(RTA_OIF, &device.to_ne_bytes());
    let mut found = None;
    let asked = Socket::open(0)?.request(request, |message| found = found.or(next_hop(message))).await;
    match asked.as_ref().err().and_then(io::Error::raw_os_error) {
        Some(libc::ENETUNREACH | libc::EHOSTUNREACH) => Ok(None),
        _ => asked.map(|()| found),
    }
}

/// Whether this host routes to the single address `to` by a device, without a gateway: whatever is behind it is on no network
/// that a bridge could lead to.
///
/// # Errors
///
/// No socket, or the kernel does not answer.
pub async fn is_host_route(device: u32, to: IpAddr) -> io::Result<bool> {
    let mut header = [0; RTMSG];
    let (family, length, destination) = match to {
        IpAddr::V4(to) => (libc::AF_INET as u8, 32, to.octets().to_vec()),
        IpAddr::V6(to) => (libc::AF_INET6 as u8, 128, to.octets().to_vec()),
    };
    (header[0], header[1]) = (family, length);
    header[8..12].copy_from_slice(&RTM_F_FIB_MATCH.to_ne_bytes());
    let request = Request::new(libc::RTM_GETROUTE, 0).fixed(&header).attribute(RTA_DST, &destination);
    let mut is_it = false;
    let asked = Socket::open(0)?.request(request, |message| is_it |= leads_by(message, device, length)).await;
    match asked.as_ref().err().and_then(io::Error::raw_os_error) {
        Some(libc::ENETUNREACH | libc::EHOSTUNREACH) => Ok(false),
        _ => asked.map(|()| is_it),
    }
}

/// The route is to one address, by this device, and to no gateway.
fn leads_by(message: &Message<'_>, device: u32, length: u8) -> bool {
    let Some(rest) = message.body.get(RTMSG..).filter(|_| message.body[1] == length) else {
        return false;
    };
    let is_by = attributes(rest).any(|(kind, value)| kind == RTA_OIF && value == device.to_ne_bytes());
    is_by && attributes(rest).all(|(kind, _)| kind != RTA_GATEWAY)
}

/// The gateway of a route (`RTM_NEWROUTE`).
pub fn next_hop(message: &Message<'_>) -> Option<IpAddr> {
    let mut gateways = attributes(message.body.get(RTMSG..)?).filter(|(kind, _)| *kind == RTA_GATEWAY);
    let (_, gateway) = gateways.next().filter(|_| message.kind == libc::RTM_NEWROUTE)?;
    match gateway.len() {
        4 => Some(IpAddr::from(<[u8; 4]>::try_from(gateway).ok()?)),
        16 => Some(IpAddr::from(<[u8; 16]>::try_from(gateway).ok()?)),
        _ => None,
    }
}
