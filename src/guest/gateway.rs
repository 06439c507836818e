//! The gateways of a guest's subnets, and the source of each.
//!
//! A wrong gateway costs one unanswered broadcast: the sender of a question is always a trusted address of the guest.

use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// A gateway, and the addresses that use it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gateway {
    /// Its address; it may be outside the guest's subnet, or link-local.
    pub ip: IpAddr,
    /// The guest's addresses that use it.
    pub serves: IpNet,
    /// The subnet on the guest's link, if known.
    pub subnet: Option<IpNet>,
    /// Where the gateway is recorded.
    pub source: Source,
}

/// Where a gateway is recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// `--ask` on the command line.
    Operator,
    /// A `gateways` table of the configuration file.
    Configuration,
    /// A default route in the domain's XML, under the NIC's `<interface>`.
    DomainRoute,
    /// The `<ip>` of the NIC's libvirt network.
    Network,
    /// An address of the guest's bridge on this host: this host is the router.
    Bridge,
    /// This host's own next hop through that bridge.
    HostRoute,
    /// The first and the last host address of the /24.
    Guess,
    /// The subnet-router anycast address (RFC 4291 section 2.6.1), which every IPv6 router of the subnet has.
    Anycast,
    /// All routers of the link.
    AllRouters,
}

impl Source {
    /// The name of this source in output.
    pub fn word(self) -> &'static str {
        match self {
            Source::Operator => "operator",
            Source::Configuration => "configuration",
            Source::DomainRoute => "domain-route",
            Source::Network => "network",
            Source::Bridge => "bridge",
            Source::HostRoute => "host-route",
            Source::Guess => "guess",
            Source::Anycast => "anycast",
            Source::AllRouters => "all-routers",
        }
    }

    /// The address was given as a gateway's, so a missing answer is worth a warning.
    pub fn is_certain(self) -> bool {
        !matches!(self, Source::Guess | Source::Anycast | Source::AllRouters)
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl Gateway {
    /// A gateway for every address of its family.
    pub fn of_all(ip: IpAddr, source: Source) -> Gateway {
        let serves = match ip {
            IpAddr::V4(_) => IpNet::V4(ipnet::Ipv4Net::default()),
            IpAddr::V6(_) => IpNet::V6(ipnet::Ipv6Net::default()),
        };
        Gateway { ip, serves, subnet: None, source }
    }

    /// The gateway of a subnet on the guest's link.
    pub fn of_subnet(ip: IpAddr, subnet: IpNet, source: Source) -> Gateway {
        let subnet = subnet.trunc();
        Gateway { ip, serves: subnet, subnet: Some(subnet), source }
    }
}

/// The addresses of this host, each with its ifindex, whose subnet contains one of the guest's addresses.
pub(crate) fn with_neighbours(addresses: &[(u32, IpNet)], ips: &[IpAddr]) -> Vec<(u32, IpNet)> {
    let with_neighbour = addresses.iter().copied().filter(|(_, address)| {
        let is_neighbour = |ip: &IpAddr| address.contains(ip) && address.addr() != *ip;
        ips.iter().any(is_neighbour)
    });
    with_neighbour.collect()
}

/// The gateway of the subnet in which a bridge of this host has `address`: the host itself, unless it has a next hop through
/// that bridge.
pub(crate) fn on_bridge(address: IpNet, next_hop: Option<IpAddr>) -> Gateway {
    match next_hop {
        Some(next_hop) => Gateway::of_subnet(next_hop, address, Source::HostRoute),
        None => Gateway::of_subnet(address.addr(), address, Source::Bridge),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(addresses: &[&str], ips: &[&str], next_hop: Option<&str>) -> Vec<String> {
        let addresses: Vec<(u32, IpNet)> = addresses.iter().map(|text| (1, text.parse().unwrap())).collect();
        let ips: Vec<IpAddr> = ips.iter().map(|text| text.parse().unwrap()).collect();
        let next_hop = next_hop.map(|text| text.parse().unwrap());
        let neighbours = with_neighbours(&addresses, &ips).into_iter();
        let gateways = neighbours.map(|(_, address)| on_bridge(address, next_hop));
        gateways.map(|g| format!("{} for {} ({})", g.ip, g.serves, g.source)).collect()
    }

    #[test]
    fn a_host_that_is_the_leaf_is_the_gateway_of_the_guests_subnets() {
        let addresses = ["10.1.10.1/24", "10.1.20.1/24", "2001:db8:10::1/64", "fe80::1/64"];
        assert_eq!(
            told(&addresses, &["10.1.10.50", "2001:db8:10::50"], None),
            ["10.1.10.1 for 10.1.10.0/24 (bridge)", "2001:db8:10::1 for 2001:db8:10::/64 (bridge)"]
        );
    }

    #[test]
    fn a_host_with_a_gateway_of_its_own_there_is_none() {
        assert_eq!(
            told(&["10.1.10.7/24"], &["10.1.10.50"], Some("10.1.10.254")),
            ["10.1.10.254 for 10.1.10.0/24 (host-route)"]
        );
        assert_eq!(told(&["10.1.10.7/24"], &["10.2.10.50"], Some("10.1.10.254")), [""; 0], "another subnet");
    }
}
