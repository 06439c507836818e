//! A libvirt network's XML: the addresses that it reserves, and its gateways (libvirt's `docs/formatnetwork.rst`).

use std::net::IpAddr;

use ipnet::IpNet;
use pnet_base::MacAddr;
use roxmltree::{Document, Node};

use crate::guest::address::{Address, Source};
use crate::guest::gateway::{self, Gateway};
use crate::guest::xml;

/// What a libvirt network knows of its guests.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Network {
    /// `<dhcp><host mac= ip=>`: the address that it reserves for a MAC.
    pub hosts: Vec<(MacAddr, IpAddr)>,
    /// `<ip address= prefix=>`, or `netmask=`: the addresses of its bridge on this host.
    pub gateways: Vec<Gateway>,
}

impl Network {
    /// Reads the XML of `virNetworkGetXMLDesc`; what cannot be read has neither.
    pub fn parse(xml: &str) -> Network {
        let xml = xml::bounded(xml).unwrap_or_default();
        let Ok(document) = Document::parse(&xml) else {
            return Network::default();
        };
        let is_of_dhcp = |host: &Node<'_, '_>| host.parent().is_some_and(|dhcp| dhcp.has_tag_name("dhcp"));
        let hosts = document.descendants().filter(|n| n.has_tag_name("host")).filter(is_of_dhcp);
        let ips = document.root_element().children().filter(|n| n.has_tag_name("ip"));
        Network { hosts: hosts.filter_map(host).collect(), gateways: ips.filter_map(gateway).collect() }
    }

    /// The addresses that it reserves for a MAC.
    pub fn reserved(&self, mac: MacAddr) -> impl Iterator<Item = Address> {
        let its = self.hosts.iter().filter(move |(of, _)| *of == mac);
        its.map(|(_, ip)| Address { ip: *ip, source: Source::NetworkHost })
    }
}

fn host(node: Node<'_, '_>) -> Option<(MacAddr, IpAddr)> {
    Some((node.attribute("mac")?.parse().ok()?, node.attribute("ip")?.parse().ok()?))
}

fn gateway(node: Node<'_, '_>) -> Option<Gateway> {
    let ip: IpAddr = node.attribute("address")?.parse().ok()?;
    let subnet = match (node.attribute("prefix"), node.attribute("netmask")) {
        (Some(length), _) => IpNet::new(ip, length.parse().ok()?).ok()?,
        (None, Some(netmask)) => IpNet::with_netmask(ip, netmask.parse().ok()?).ok()?,
        (None, None) => return None,
    };
    Some(Gateway::of_subnet(ip, subnet, gateway::Source::Network))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_reserves_addresses_by_mac() {
        let xml = "<network><ip><dhcp><host mac='52:54:00:00:00:01' name='a' ip='192.0.2.9'/>\
                   <host mac='52:54:00:00:00:02' ip='192.0.2.8'/></dhcp></ip>\
                   <dns><host ip='192.0.2.7' mac='52:54:00:00:00:01'/></dns></network>";
        let network = Network::parse(xml);
        let found: Vec<Address> = network.reserved(MacAddr(0x52, 0x54, 0, 0, 0, 1)).collect();
        let expected = Address { ip: "192.0.2.9".parse().unwrap(), source: Source::NetworkHost };
        assert_eq!(found, [expected]);
    }

    #[test]
    fn a_network_whose_bridge_has_an_address_has_a_gateway() {
        let xml = "<network><ip address='192.168.122.1' netmask='255.255.255.0'><dhcp/></ip>\
                   <ip family='ipv6' address='2001:db8::1' prefix='64'/><ip address='10.0.0.1'/>\
                   <route address='0.0.0.0' prefix='0' gateway='192.168.122.9'/></network>";
        let found = Network::parse(xml).gateways;
        let found: Vec<String> = found.iter().map(|g| format!("{} {}", g.ip, g.serves)).collect();
        assert_eq!(found, ["192.168.122.1 192.168.122.0/24", "2001:db8::1 2001:db8::/64"]);
        assert_eq!(Network::parse("<network"), Network::default());
    }
}
