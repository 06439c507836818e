//! The tables of gateways, which assign gateways to prefixes of addresses.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::announcement::question::MAX_GATEWAYS;
use crate::guest::address::unannounceable;
use crate::guest::gateway::{Gateway, Source};

/// Gateways by prefix. The longest prefix of an address applies.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GatewayTable(BTreeMap<IpNet, Vec<IpAddr>>);

/// Which gateways to ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ask {
    /// Those that are known.
    #[default]
    Known,
    /// If none is known, also the first and the last host address of the /24.
    Guess,
}

impl GatewayTable {
    /// The gateways of `ip`; `None` if no prefix contains it.
    pub fn of(&self, ip: IpAddr) -> Option<Vec<Gateway>> {
        let longest = if ip.is_ipv4() { 32 } else { 128 };
        let mut prefixes =
            (0..=longest).rev().filter_map(|length| Some(IpNet::new(ip, length).ok()?.trunc()));
        let (prefix, gateways) = prefixes.find_map(|prefix| self.0.get_key_value(&prefix))?;
        let gateway = |gateway: &IpAddr| Gateway {
            ip: *gateway,
            serves: ip.into(),
            subnet: Some(*prefix).filter(|prefix| prefix.contains(gateway)),
            source: Source::Configuration,
        };
        Some(gateways.iter().map(gateway).collect())
    }
}

impl<'de> Deserialize<'de> for GatewayTable {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Table;
        impl<'de> Visitor<'de> for Table {
            type Value = GatewayTable;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a table of prefixes and gateways")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<GatewayTable, A::Error> {
                let mut table = BTreeMap::new();
                while let Some(Prefix(prefix)) = entries.next_key()? {
                    let gateways = entries.next_value_seed(Gateways(prefix))?;
                    if table.insert(prefix, gateways).is_some() {
                        return Err(A::Error::custom(format!("{prefix} appears twice")));
                    }
                }
                Ok(GatewayTable(table))
            }
        }
        from.deserialize_map(Table)
    }
}

struct Prefix(IpNet);

impl<'de> Deserialize<'de> for Prefix {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let prefix: IpNet = text.parse().map_err(|_| {
            D::Error::custom(format!(
                "{text:?} is not a prefix such as \"192.0.2.0/24\" or \"2001:db8::/64\""
            ))
        })?;
        if prefix.addr() != prefix.network() {
            return Err(D::Error::custom(format!(
                "{text:?} is an address within a prefix: write \"{}\"",
                prefix.trunc()
            )));
        }
        Ok(Prefix(prefix))
    }
}

/// One gateway or a list of them, for a prefix.
struct Gateways(IpNet);

impl Gateways {
    fn checked<E: Error>(&self, text: &str) -> Result<IpAddr, E> {
        let ip =
            text.parse().map_err(|_| E::custom(format_args!("{text:?} is not the address of a gateway")))?;
        if let Some(why) = unannounceable(ip) {
            return Err(E::custom(format_args!("{ip} {why}: no gateway has it")));
        }
        if ip.is_ipv4() != self.0.addr().is_ipv4() {
            let prefix = self.0;
            return Err(E::custom(format_args!(
                "{ip} is not of the family of {prefix}: such a gateway cannot be asked"
            )));
        }
        Ok(ip)
    }
}

impl<'de> DeserializeSeed<'de> for Gateways {
    type Value = Vec<IpAddr>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Vec<IpAddr>, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Gateways {
    type Value = Vec<IpAddr>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the address of a gateway, or a list of such")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Vec<IpAddr>, E> {
        self.checked(text).map(|ip| vec![ip])
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<IpAddr>, A::Error> {
        let mut gateways = Vec::new();
        while let Some(text) = list.next_element::<String>()? {
            gateways.push(self.checked(&text)?);
        }
        if gateways.is_empty() || gateways.len() > MAX_GATEWAYS {
            let count = gateways.len();
            return Err(A::Error::custom(format!(
                "{} has {count} gateways: name 1 to {MAX_GATEWAYS}, or leave it out",
                self.0
            )));
        }
        Ok(gateways)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Config;

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(Path::new("a.toml"), text).map_err(|error| error.to_string())
    }

    fn gateways(table: &GatewayTable, ip: &str) -> Vec<String> {
        let found = table.of(ip.parse().unwrap()).unwrap_or_default();
        found.iter().map(|gateway| gateway.ip.to_string()).collect()
    }

    #[test]
    fn the_longest_prefix_applies() {
        let text = r#"
            [gateways]
            "0.0.0.0/0" = "192.0.2.1"
            "10.0.0.0/8" = "10.0.0.1"
            "10.1.10.0/24" = ["10.1.10.1", "10.1.10.254"]
            "10.1.10.7/32" = "172.16.0.1"
            "2001:db8:10::/64" = "fe80::1"
        "#;
        let table = parse(text).unwrap().gateways;
        for (ip, expected) in [
            ("198.51.100.1", &["192.0.2.1"][..]),
            ("10.1.11.5", &["10.0.0.1"]),
            ("10.1.10.5", &["10.1.10.1", "10.1.10.254"]),
            ("10.1.10.7", &["172.16.0.1"]),
            ("2001:db8:10::7", &["fe80::1"]),
            ("2001:db8:11::7", &[]),
        ] {
            assert_eq!(gateways(&table, ip), expected, "{ip}");
        }
    }

    #[test]
    fn a_subnet_is_known_if_it_contains_its_gateway() {
        let text = "[gateways]\n\"2001:db8::/56\" = [\"fe80::1\", \"2001:db8::1\"]";
        let found = parse(text).unwrap().gateways.of("2001:db8::7".parse().unwrap()).unwrap();
        let subnets: Vec<Option<u8>> = found.iter().map(|g| g.subnet.map(|net| net.prefix_len())).collect();
        assert_eq!(subnets, [None, Some(56)]);
    }

    #[test]
    fn bad_values_are_reported_with_their_place() {
        for (line, words) in [
            ("\"10.1.10.0\" = \"10.1.10.1\"", "a.toml:2:1: \"10.1.10.0\" is not a prefix"),
            (
                "\"10.1.10.5/24\" = \"10.1.10.1\"",
                "a.toml:2:1: \"10.1.10.5/24\" is an address within a prefix: write \"10.1.10.0/24\"",
            ),
            ("\"10.1.10.0/33\" = \"10.1.10.1\"", "a.toml:2:1: \"10.1.10.0/33\" is not a prefix"),
            ("\"10.1.10.0/24\" = \"gw\"", "a.toml:2:18: \"gw\" is not the address"),
            ("\"10.1.10.0/24\" = \"fe80::1\"", "a.toml:2:18: fe80::1 is not of the family of 10.1.10.0/24"),
            (
                "\"10.1.10.0/24\" = [\"10.1.10.1\", \"0.0.0.0\"]",
                "a.toml:2:18: 0.0.0.0 is the unspecified address",
            ),
            ("\"10.1.10.0/24\" = []", "a.toml:2:18: 10.1.10.0/24 has 0 gateways: name 1 to 8"),
            (
                "\"10.1.10.0/24\" = 7",
                "a.toml:2:18: 10.1.10.0/24 = 7: it is integer `7`, expected the address of a gateway, or a list",
            ),
        ] {
            let error = parse(&format!("[gateways]\n{line}\n")).unwrap_err();
            assert!(error.starts_with(words), "{line}: {error}");
            assert_eq!(error.lines().count(), 1);
        }
    }
}
