//! Asks the kernel for the host's default route through a device (rtnetlink, `include/uapi/linux/rtnetlink.h`).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Message, Request, Socket, attributes};

const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
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

fn next_hop(message: &Message<'_>) -> Option<IpAddr> {
    let mut gateways = attributes(message.body.get(RTMSG..)?).filter(|(kind, _)| *kind == RTA_GATEWAY);
    let (_, gateway) = gateways.next().filter(|_| message.kind == libc::RTM_NEWROUTE)?;
    match gateway.len() {
        4 => Some(IpAddr::from(<[u8; 4]>::try_from(gateway).ok()?)),
        16 => Some(IpAddr::from(<[u8; 16]>::try_from(gateway).ok()?)),
        _ => None,
    }
}
