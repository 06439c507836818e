//! Reads a device's settings for announcements (`Documentation/networking/ip-sysctl.rst`).

use std::net::IpAddr;

/// The setting that lets a device make neighbour entries from announcements of the family of `ip`, with its value; `None` if
/// the kernel has none.
pub(crate) fn neighbours(device: &str, ip: IpAddr) -> Option<(String, String)> {
    let name = match ip {
        IpAddr::V4(_) => format!("net/ipv4/conf/{device}/arp_accept"),
        IpAddr::V6(_) => format!("net/ipv6/conf/{device}/accept_untracked_na"),
    };
    let value = std::fs::read_to_string(format!("/proc/sys/{name}")).ok()?;
    Some((name, value.trim().to_owned()))
}
