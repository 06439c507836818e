//! The addresses of a guest, and the source of each.
//!
//! An address is announced only if a source other than the guest names it: a guest may claim its gateway's address, and the
//! host would then spoof for it. [`Source::GuestAgent`] is therefore off unless the configuration enables it.

use std::collections::HashSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use pnet_base::MacAddr;
use serde::{Deserialize, Serialize};

/// An address of a guest's NIC, and its source.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// The address, without a prefix length: no announcement carries one.
    pub ip: IpAddr,
    /// Where the address is recorded.
    pub source: Source,
}

/// Where an address of a guest is recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// `--ip` on the command line.
    Operator,
    /// The configuration file's entry for the NIC.
    Configuration,
    /// A fixed address in the `nova:ports` metadata of the domain XML.
    Nova,
    /// An `IP` parameter of the NIC's libvirt network filter.
    Nwfilter,
    /// A static DHCP host of the libvirt network.
    NetworkHost,
    /// A DHCP lease of the libvirt network's server.
    Lease,
    /// The link-local address that the MAC implies (RFC 4291 appendix A). Many guests use another one (RFC 7217), so it
    /// counts only where the configuration enables it.
    Implied,
    /// The guest itself, through its agent. Off unless the configuration enables it.
    GuestAgent,
}

impl Source {
    /// The sources that count without any configuration.
    pub const DEFAULT: [Source; 4] = [Source::Nova, Source::Nwfilter, Source::NetworkHost, Source::Lease];

    /// The name of this source in output and configuration.
    pub fn word(self) -> &'static str {
        match self {
            Source::Operator => "operator",
            Source::Configuration => "configuration",
            Source::Nova => "nova",
            Source::Nwfilter => "nwfilter",
            Source::NetworkHost => "network-host",
            Source::Lease => "lease",
            Source::Implied => "implied",
            Source::GuestAgent => "guest-agent",
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// Keeps the addresses that may be announced: from the operator or one of `sources`, assignable to one host, each once.
///
/// The order is kept. An address that has two sources keeps the first one.
pub fn believed(candidates: impl IntoIterator<Item = Address>, sources: &[Source]) -> Vec<Address> {
    let mut known = HashSet::new();
    let is_believed = |address: &Address| {
        let by_operator = matches!(address.source, Source::Operator | Source::Configuration);
        (by_operator || sources.contains(&address.source))
            && unannounceable(address.ip).is_none()
            && known.insert(address.ip)
    };
    candidates.into_iter().filter(is_believed).collect()
}

/// The link-local address that a MAC implies: the modified EUI-64 of RFC 4291 appendix A.
pub fn implied(mac: MacAddr) -> Ipv6Addr {
    let MacAddr(a, b, c, d, e, f) = mac;
    let id = [a ^ 2, b, c, 0xff, 0xfe, d, e, f].map(u16::from);
    Ipv6Addr::new(
        0xfe80,
        0,
        0,
        0,
        id[0] << 8 | id[1],
        id[2] << 8 | id[3],
        id[4] << 8 | id[5],
        id[6] << 8 | id[7],
    )
}

/// Why `ip` cannot belong to a single host on a link, or `None` if it can.
pub fn unannounceable(ip: IpAddr) -> Option<&'static str> {
    if ip.is_unspecified() {
        Some("is the unspecified address")
    } else if ip.is_loopback() {
        Some("is a loopback address")
    } else if ip.is_multicast() {
        Some("is a multicast address")
    } else {
        match ip {
            IpAddr::V4(Ipv4Addr::BROADCAST) => Some("is the broadcast address"),
            // RFC 1122 section 3.2.1.3: "this network", a source address during start-up only.
            IpAddr::V4(v4) if v4.octets()[0] == 0 => Some("is in 0.0.0.0/8"),
            IpAddr::V6(v6) if is_v4_mapped(v6) => Some("is an IPv4-mapped address"),
            _ => None,
        }
    }
}

fn is_v4_mapped(ip: Ipv6Addr) -> bool {
    ip.to_ipv4_mapped().is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(ip: &str, source: Source) -> Address {
        Address { ip: ip.parse().unwrap(), source }
    }

    #[test]
    fn an_address_from_the_guest_agent_counts_only_if_enabled() {
        let claimed = address("192.0.2.1", Source::GuestAgent);
        assert_eq!(believed([claimed], &Source::DEFAULT), []);
        assert_eq!(believed([claimed], &[Source::GuestAgent]), [claimed]);
    }

    #[test]
    fn a_mac_implies_a_link_local_address() {
        let ip: Ipv6Addr = "fe80::f816:3eff:fe00:11".parse().unwrap();
        assert_eq!(implied(MacAddr(0xfa, 0x16, 0x3e, 0, 0, 0x11)), ip);
        let address = Address { ip: ip.into(), source: Source::Implied };
        assert_eq!(believed([address], &Source::DEFAULT), []);
        assert_eq!(believed([address], &[Source::Implied]), [address]);
    }

    #[test]
    fn an_address_from_the_operator_counts_with_any_sources() {
        let asked = address("192.0.2.1", Source::Operator);
        assert_eq!(believed([asked], &[]), [asked]);
    }

    #[test]
    fn an_address_is_kept_once_under_its_first_source() {
        let first = address("2001:db8::1", Source::Nova);
        let again = address("2001:db8::1", Source::Lease);
        assert_eq!(believed([first, again], &Source::DEFAULT), [first]);
    }

    #[test]
    fn addresses_of_no_single_host_are_never_announced() {
        for ip in [
            "0.0.0.0",
            "0.1.2.3",
            "127.0.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "ff02::1",
            "::ffff:192.0.2.1",
        ] {
            assert!(unannounceable(ip.parse().unwrap()).is_some(), "{ip}");
            assert_eq!(believed([address(ip, Source::Operator)], &[]), []);
        }
    }

    #[test]
    fn link_local_addresses_are_announced_if_a_source_names_them() {
        assert_eq!(unannounceable("fe80::1".parse().unwrap()), None);
        assert_eq!(unannounceable("169.254.1.1".parse().unwrap()), None);
    }
}
