//! Joins multicast groups, by IPv4 and IPv6, and is a member of them until it is killed. The kernel answers the pings.
//!
//! ```text
//! member 239.1.2.3 ff05::1234
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::process::ExitCode;
use std::{env, io, thread};

/// The kernel chooses the device by its routes.
const ANY_DEVICE: u32 = 0;

fn main() -> ExitCode {
    let mut sockets = Vec::new();
    for group in env::args().skip(1) {
        match join(&group) {
            Ok(socket) => sockets.push(socket),
            Err(error) => {
                eprintln!("member: {group}: {error}");
                return ExitCode::FAILURE;
            }
        }
    }
    loop {
        thread::park();
    }
}

fn join(group: &str) -> io::Result<UdpSocket> {
    match group.parse().map_err(io::Error::other)? {
        IpAddr::V4(group) => {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
            socket.join_multicast_v4(&group, &Ipv4Addr::UNSPECIFIED)?;
            Ok(socket)
        }
        IpAddr::V6(group) => {
            let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0))?;
            socket.join_multicast_v6(&group, ANY_DEVICE)?;
            Ok(socket)
        }
    }
}
