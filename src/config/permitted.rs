//! The addresses that may be announced: `never`, `within`, and their prefixes.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer};

use super::Config;
use crate::guest::target::Target;

/// A list of prefixes; an address stands for itself.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Prefixes(Vec<IpNet>);

impl Prefixes {
    /// It has no prefix.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn contain(&self, ip: IpAddr) -> bool {
        self.0.iter().any(|prefix| prefix.contains(&ip))
    }
}

impl<'de> Deserialize<'de> for Prefixes {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let prefix = |text: String| {
            let address = || text.parse::<IpAddr>().ok().map(IpNet::from);
            text.parse().ok().or_else(address).ok_or_else(|| {
                let words = format!("{text:?} is neither an address nor a prefix such as \"192.0.2.0/24\"");
                serde::de::Error::custom(words)
            })
        };
        Vec::<String>::deserialize(from)?.into_iter().map(prefix).collect::<Result<_, _>>().map(Prefixes)
    }
}

impl Config {
    /// Whether `ip` may be announced for `target`: it is in no `never`, and in the `within` that is nearest to the NIC.
    pub fn permits(&self, target: &Target, ip: IpAddr) -> bool {
        let forbidden = |prefixes: &Prefixes| prefixes.contain(ip);
        let mut within = self.overrides(target).map(|o| &o.within).chain([&self.addresses.within]);
        let within = within.find(|prefixes| !prefixes.is_empty());
        !forbidden(&self.addresses.never)
            && !self.overrides(target).any(|o| forbidden(&o.never))
            && within.is_none_or(|prefixes| prefixes.contain(ip))
    }

    /// Whether the configuration restricts the addresses of `target`.
    pub fn restricts(&self, target: &Target) -> bool {
        let says = |never: &Prefixes, within: &Prefixes| !never.is_empty() || !within.is_empty();
        says(&self.addresses.never, &self.addresses.within)
            || self.overrides(target).any(|o| says(&o.never, &o.within))
    }

    /// Whether `target` is announced at all.
    pub fn announces(&self, target: &Target) -> bool {
        self.overrides(target).find_map(|o| o.announce).unwrap_or(true)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use pnet_base::MacAddr;

    use super::*;
    use crate::guest::target::{DomainId, Plug};

    fn parse(text: &str) -> Config {
        Config::parse(Path::new("a.toml"), text).unwrap()
    }

    fn target() -> Target {
        let domain = Some(DomainId { name: "web1".into(), uuid: "u".into() });
        let networks = vec!["blue".into()];
        Target { domain, networks, ..Target::of_device(Plug::default(), MacAddr(2, 0, 0, 0, 0, 1)) }
    }

    fn permits(text: &str, ip: &str) -> bool {
        parse(text).permits(&target(), ip.parse().unwrap())
    }

    #[test]
    fn every_address_is_permitted_by_default() {
        assert!(permits("", "192.0.2.254"));
        assert!(!parse("").restricts(&target()));
        assert!(parse("addresses.never = [\"192.0.2.1\"]").restricts(&target()));
    }

    #[test]
    fn never_lists_add_up() {
        let text = "addresses.never = [\"192.0.2.254\", \"2001:db8:1::/48\"]\n[vm.web1]\nnever = [\"192.0.2.253\"]\n\
                    [network.red]\nnever = [\"192.0.2.1\"]";
        for (ip, expected) in [
            ("192.0.2.254", false),
            ("192.0.2.253", false),
            ("2001:db8:1::7", false),
            ("2001:db8:2::7", true),
            ("192.0.2.1", true),
        ] {
            assert_eq!(permits(text, ip), expected, "{ip}");
        }
    }

    #[test]
    fn the_nearest_within_list_applies() {
        let mut text = "addresses.within = [\"192.0.2.0/24\"]\n".to_owned();
        assert_eq!(["192.0.2.9", "198.51.100.9"].map(|ip| permits(&text, ip)), [true, false]);
        text += "[network.blue]\nwithin = [\"198.51.100.0/24\"]\n";
        assert_eq!(["192.0.2.9", "198.51.100.9"].map(|ip| permits(&text, ip)), [false, true]);
        text += "[nic.\"02:00:00:00:00:01\"]\nwithin = [\"192.0.2.9\"]\n";
        assert_eq!(
            ["192.0.2.9", "192.0.2.8", "198.51.100.9"].map(|ip| permits(&text, ip)),
            [true, false, false]
        );
    }

    #[test]
    fn a_nic_may_be_excluded() {
        assert!(parse("").announces(&target()));
        assert!(!parse("[network.blue]\nannounce = false").announces(&target()));
        let but = "[network.blue]\nannounce = false\n[vm.web1]\nannounce = true";
        assert!(parse(but).announces(&target()));
    }

    #[test]
    fn a_text_that_is_no_prefix_is_refused_with_its_place() {
        let error = Config::parse(Path::new("a.toml"), "addresses.never = [\"gateway\"]").unwrap_err();
        assert!(
            error.to_string().starts_with("a.toml:1:19: \"gateway\" is neither an address nor a prefix"),
            "{error}"
        );
    }
}
