//! The configuration file: TOML; every key has a default, and unknown keys are errors (announced.toml(5)).

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use pnet_base::MacAddr;
use serde::{Deserialize, Deserializer};

use crate::announcement::frame::{Kind, Style};
use crate::announcement::injection::Method;
use crate::announcement::schedule::Schedule;
use crate::config::mistakes::Mistake;
use crate::guest::address::{self, Source};
use crate::guest::event::Cause;
use crate::guest::gateway::Gateway;
use crate::guest::target::Target;
use crate::path::owner::Owner;
use crate::path::uplinks::Uplinks;

pub(crate) use gateways::{Ask, GatewayTable};

pub mod duration;
mod gateways;
mod lint;
mod mistakes;
mod permitted;

use permitted::Prefixes;

/// The configuration file if none is named; it need not exist.
pub(crate) const DEFAULT_FILE: &str = "/etc/announced/announced.toml";

/// The largest number of rounds in a schedule: more would be noise to the switches.
pub(crate) const MAX_ROUNDS: u32 = 1000;

/// The configuration as written; absent keys have their defaults.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Config {
    /// `[schedule]`.
    pub schedule: ScheduleTable,
    /// `[frames]`.
    pub frames: FramesTable,
    /// `[ports]`.
    pub ports: PortsTable,
    /// `[path]`.
    pub path: PathTable,
    /// `[proof]`.
    pub proof: ProofTable,
    /// `[addresses]`.
    pub addresses: AddressesTable,
    /// `[libvirt]`.
    pub libvirt: LibvirtTable,
    /// `[ovs]`.
    pub ovs: OvsTable,
    /// `[gateways]`: by the prefix of a guest's address.
    pub gateways: GatewayTable,
    /// `[limits]`.
    pub limits: LimitsTable,
    /// `[metrics]`.
    pub metrics: MetricsTable,
    /// `[network.NAME]`: by the NIC's network in the domain's XML: a libvirt network, a bridge or a lower device.
    pub network: BTreeMap<String, Override>,
    /// `[vm.NAME]`: by the domain's name or UUID.
    pub vm: BTreeMap<String, Override>,
    /// `[nic."MAC"]`: by the NIC's MAC.
    pub nic: BTreeMap<String, Override>,
}

/// `[schedule]`: when the rounds are sent.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct ScheduleTable {
    /// Rounds in all.
    pub count: u32,
    /// The first gap.
    #[serde(deserialize_with = "duration")]
    pub interval: Duration,
    /// The factor from each gap to the next.
    pub backoff: f64,
    /// The longest gap.
    #[serde(deserialize_with = "duration")]
    pub max_interval: Duration,
}

impl Default for ScheduleTable {
    fn default() -> Self {
        let Schedule { count, interval, backoff, max_interval } = Schedule::default();
        ScheduleTable { count, interval, backoff, max_interval }
    }
}

/// `[frames]`: what is sent.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct FramesTable {
    /// The kinds.
    pub send: Vec<Kind>,
    /// The target hardware address of an ARP announcement's request form.
    pub arp_target: ArpTarget,
    /// Which gateways to ask.
    pub ask: Ask,
    /// Ask all IPv6 routers, too.
    pub router_solicitation: bool,
}

impl Default for FramesTable {
    fn default() -> Self {
        FramesTable {
            send: Kind::ALL.to_vec(),
            arp_target: ArpTarget::Zero,
            ask: Ask::Known,
            router_solicitation: false,
        }
    }
}

/// The target hardware address of an ARP announcement's request form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ArpTarget {
    /// 00:00:00:00:00:00 (RFC 5227 section 1.1: not used, should be zero).
    Zero,
    /// ff:ff:ff:ff:ff:ff, for receivers that ignore the zero address.
    Broadcast,
}

/// `[ports]`: how a port is waited for, and how frames are injected.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct PortsTable {
    /// How long a port may take to become ready.
    #[serde(deserialize_with = "duration")]
    pub wait: Duration,
    /// The owner of every Open vSwitch port; detected from evidence if not set.
    pub in_charge: Option<Owner>,
    /// The injection method; the best that works if not set.
    pub inject: Option<Method>,
}

impl Default for PortsTable {
    fn default() -> Self {
        PortsTable { wait: Duration::from_secs(60), in_charge: None, inject: None }
    }
}

/// `[path]`: how frames leave the host.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct PathTable {
    /// The devices that lead to the network; detected by their hardware if none is named.
    pub uplinks: Uplinks,
}

/// `[proof]`: how the departure of frames is observed, and what follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct ProofTable {
    /// Capture frames on the devices of their path.
    pub watch: bool,
    /// Rounds that may follow the schedule while no frame for the guest enters.
    pub more_rounds: u32,
}

impl Default for ProofTable {
    fn default() -> Self {
        ProofTable { watch: true, more_rounds: 0 }
    }
}

/// `[addresses]`: which addresses are announced.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct AddressesTable {
    /// The sources.
    pub sources: Vec<Source>,
    /// Addresses that are never announced, from any source: gateways, or addresses that guests share by VRRP.
    pub never: Prefixes,
    /// If not empty, only addresses in these prefixes are announced.
    pub within: Prefixes,
}

impl Default for AddressesTable {
    fn default() -> Self {
        AddressesTable {
            sources: Source::DEFAULT.to_vec(),
            never: Prefixes::default(),
            within: Prefixes::default(),
        }
    }
}

/// `[libvirt]`: the connections, and the events that ask for an announcement.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct LibvirtTable {
    /// The connection URI.
    pub uri: Option<String>,
    /// Further URIs, for the daemon.
    pub more_uris: Vec<String>,
    /// The events that ask for an announcement.
    pub events: Vec<Cause>,
}

impl Default for LibvirtTable {
    fn default() -> Self {
        let events = vec![Cause::Migrated, Cause::Restored, Cause::Plugged];
        LibvirtTable { uri: None, more_uris: Vec::new(), events }
    }
}

/// `[limits]`: the load that the daemon may put on the network.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct LimitsTable {
    /// Frames per second for the whole host.
    pub frames_per_second: u32,
    /// The maximum delay of an announcement; the delay of a NIC is always the same.
    #[serde(deserialize_with = "duration")]
    pub jitter: Duration,
}

impl Default for LimitsTable {
    fn default() -> Self {
        LimitsTable { frames_per_second: 1000, jitter: Duration::ZERO }
    }
}

/// `[metrics]`: the listener for Prometheus.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct MetricsTable {
    /// The address of an HTTP listener; `None` for no listener.
    pub listen: Option<SocketAddr>,
}

/// `[ovs]`: Open vSwitch.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct OvsTable {
    /// OVSDB's unix socket.
    pub socket: Option<PathBuf>,
}

/// Settings of the NICs of a network, of those of a VM, or of one NIC.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Override {
    /// The guest routes: its neighbour advertisements carry the Router flag.
    pub router: Option<bool>,
    /// The owner of the ports.
    pub in_charge: Option<Owner>,
    /// The network has no VLAN, so that no agent sets one on the ports.
    pub untagged: Option<bool>,
    /// Whether the NICs are announced.
    pub announce: Option<bool>,
    /// More addresses that are never announced.
    pub never: Prefixes,
    /// The prefixes that addresses must be in, in place of those of wider tables.
    pub within: Prefixes,
    /// Gateways by prefix, with precedence over the global table.
    pub gateways: GatewayTable,
    /// Which gateways to ask.
    pub ask: Option<Ask>,
    /// Addresses to announce; only in `[nic]`.
    pub addresses: Vec<IpAddr>,
    /// The VLAN that its port must have; only in `[nic]`.
    pub vlan: Option<u16>,
}

/// Why a configuration cannot be used: one line with the place.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be opened.
    #[error("{0}: {1}")]
    Read(PathBuf, io::Error),
    /// It is not TOML, or has unknown keys or unusable values.
    #[error("{}:{}", .0.display(), first(.1))]
    Mistakes(PathBuf, Vec<Mistake>),
    /// A value is out of its range.
    #[error("{0}: {1}")]
    Value(PathBuf, String),
}

/// The first mistake, and the number of the others.
fn first(mistakes: &[Mistake]) -> String {
    let first = mistakes.first().map(ToString::to_string).unwrap_or_default();
    match mistakes.len() {
        0 | 1 => first,
        several => format!("{first} ({} more: announce check)", several - 1),
    }
}

impl Error {
    /// Every mistake on a line of its own.
    pub fn lines(&self) -> Vec<String> {
        match self {
            Error::Mistakes(file, mistakes) => {
                mistakes.iter().map(|mistake| format!("{}:{mistake}", file.display())).collect()
            }
            other => vec![other.to_string()],
        }
    }
}

impl Config {
    /// Reads the named file, else the default one if it exists.
    pub fn load(named: Option<&Path>) -> Result<Config, Error> {
        let file = named.unwrap_or(Path::new(DEFAULT_FILE));
        match std::fs::read_to_string(file) {
            Ok(text) => Config::parse(file, &text),
            Err(error) if named.is_none() && error.kind() == io::ErrorKind::NotFound => Ok(Config::default()),
            Err(error) => Err(Error::Read(file.into(), error)),
        }
    }

    /// Reads the text of `file`.
    pub fn parse(file: &Path, text: &str) -> Result<Config, Error> {
        let config: Config =
            mistakes::read(text).map_err(|mistakes| Error::Mistakes(file.into(), mistakes))?;
        config.check().map_err(|why| Error::Value(file.into(), why))?;
        Ok(config)
    }

    fn check(&self) -> Result<(), String> {
        self.schedule()?;
        if self.frames.send.is_empty() {
            return Err("frames.send is empty: nothing would be sent".into());
        }
        if self.limits.frames_per_second == 0 {
            return Err("limits.frames-per-second is 0: nothing would be sent".into());
        }
        if self.libvirt.uri.iter().chain(&self.libvirt.more_uris).any(String::is_empty) {
            return Err("libvirt names an empty URI: remove it".into());
        }
        if self.ovs.socket.as_ref().is_some_and(|socket| !socket.is_absolute()) {
            return Err("ovs.socket is not an absolute path".into());
        }
        if self.libvirt.events.contains(&Cause::Asked) {
            return Err("libvirt.events: \"asked\" is not an event of libvirt".into());
        }
        let of_several = (self.network.iter().map(|entry| ("network", entry)))
            .chain(self.vm.iter().map(|entry| ("vm", entry)));
        for (table, (name, several)) in of_several {
            if !several.addresses.is_empty() || several.vlan.is_some() {
                return Err(format!(
                    "{table}.{name}: addresses and vlan belong to a NIC: put them under [nic.\"MAC\"]"
                ));
            }
        }
        for (mac, nic) in &self.nic {
            mac.parse::<MacAddr>().map_err(|_| format!("nic.{mac:?} is not a MAC address"))?;
            for ip in &nic.addresses {
                if let Some(why) = address::unannounceable(*ip) {
                    return Err(format!("nic.{mac:?}: {ip} {why}"));
                }
            }
            if let Some(vlan) = nic.vlan {
                vlan_id(vlan).map_err(|why| format!("nic.{mac:?}: {why}"))?;
            }
        }
        Ok(())
    }

    /// The schedule, or the value that is out of range.
    pub fn schedule(&self) -> Result<Schedule, String> {
        let ScheduleTable { count, interval, backoff, max_interval } = self.schedule;
        let hour = Duration::from_secs(3600);
        if !(1..=MAX_ROUNDS).contains(&count) {
            return Err(format!("count {count} is not between 1 and {MAX_ROUNDS}"));
        }
        if self.proof.more_rounds > MAX_ROUNDS {
            return Err(format!("more-rounds {} is above {MAX_ROUNDS}", self.proof.more_rounds));
        }
        if interval.is_zero() || interval > hour || max_interval.is_zero() || max_interval > hour {
            return Err("interval and max-interval must be above 0 and at most an hour".into());
        }
        if !(1.0..=100.0).contains(&backoff) {
            return Err(format!("backoff {backoff} is not between 1 and 100"));
        }
        Ok(Schedule { count, interval, backoff, max_interval })
    }

    /// The keys that take effect at the start only and have changed since the daemon started with `first`.
    pub fn needs_restart(&self, first: &Config) -> impl Iterator<Item = &'static str> {
        let for_fdb = |config: &Config| config.ports.inject == Some(Method::Fdb);
        let keys = [
            ("libvirt.uri", self.libvirt.uri != first.libvirt.uri),
            ("libvirt.more-uris", self.libvirt.more_uris != first.libvirt.more_uris),
            ("ovs.socket", self.ovs.socket != first.ovs.socket),
            ("metrics.listen", self.metrics.listen != first.metrics.listen),
            ("ports.inject", for_fdb(self) && !for_fdb(first)),
        ];
        keys.into_iter().filter_map(|(key, has_changed)| has_changed.then_some(key))
    }

    /// The settings of the frames of `target`.
    pub fn style(&self, target: &Target) -> Style {
        Style {
            send: self.frames.send.clone(),
            arp_target: match self.frames.arp_target {
                ArpTarget::Zero => MacAddr::zero(),
                ArpTarget::Broadcast => MacAddr::broadcast(),
            },
            router: self.overrides(target).find_map(|o| o.router).unwrap_or(false),
        }
    }

    /// The owner of the port of `target`, if configured.
    pub fn in_charge(&self, target: &Target) -> Option<Owner> {
        self.overrides(target).find_map(|o| o.in_charge).or(self.ports.in_charge)
    }

    /// Whether no agent sets a VLAN on the port of `target`.
    pub fn untagged(&self, target: &Target) -> bool {
        self.overrides(target).find_map(|o| o.untagged).unwrap_or(false)
    }

    /// The gateways of the addresses `ips` of `target`.
    pub fn gateways(&self, target: &Target, ips: &[IpAddr]) -> Vec<Gateway> {
        let of_ip = |ip: &IpAddr| {
            let mut tables = self.overrides(target).map(|o| &o.gateways).chain([&self.gateways]);
            tables.find_map(|table| table.of(*ip)).unwrap_or_default()
        };
        ips.iter().flat_map(of_ip).collect()
    }

    /// Which gateways the addresses of `target` ask.
    pub fn ask(&self, target: &Target) -> Ask {
        self.overrides(target).find_map(|o| o.ask).unwrap_or(self.frames.ask)
    }

    /// The overrides for the NIC of `target`, then for its VM, then for its networks.
    pub fn overrides(&self, target: &Target) -> impl Iterator<Item = &Override> {
        let mac = Some(target.mac);
        let nic = self.nic.iter().filter(move |(key, _)| key.parse().ok() == mac);
        let domain = target.domain.clone();
        let vm = self.vm.iter().filter(move |(key, _)| {
            let same = |domain: &crate::guest::target::DomainId| {
                domain.name == **key || domain.uuid.eq_ignore_ascii_case(key)
            };
            domain.as_ref().is_some_and(same)
        });
        let networks = target.networks.clone();
        let network = networks.into_iter().filter_map(|name| self.network.get(&name));
        nic.chain(vm).map(|(_, o)| o).chain(network)
    }
}

/// Checks that a port can be in this VLAN.
pub(crate) fn vlan_id(vlan: u16) -> Result<u16, String> {
    match vlan {
        1..=4094 => Ok(vlan),
        _ => Err(format!("VLAN {vlan} is not between 1 and 4094")),
    }
}

/// A duration with a unit. A number alone is refused: it may mean seconds or milliseconds.
fn duration<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Written {
        Words(String),
        Number(f64),
    }
    use serde::de::Error;
    match Written::deserialize(from)
        .map_err(|_| D::Error::custom("write a duration, such as \"50ms\" or \"2s\""))?
    {
        Written::Words(text) => duration::parse(&text).map_err(D::Error::custom),
        Written::Number(number) => Err(D::Error::custom(format!("write \"{number}ms\" or \"{number}s\""))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(Path::new("a.toml"), text).map_err(|e| e.to_string())
    }

    #[test]
    fn an_empty_file_is_valid() {
        let config = parse("").unwrap();
        assert_eq!(config, Config::default());
        assert_eq!(config.schedule(), Ok(Schedule::default()));
    }

    #[test]
    fn an_unknown_key_is_an_error_with_its_place() {
        let error = parse("[schedule]\ncount = 3\n\n  cuont = 4\n").unwrap_err();
        assert!(
            error.starts_with("a.toml:4:3: [schedule] has no key \"cuont\"; did you mean count?"),
            "{error}"
        );
        assert_eq!(error.lines().count(), 1);
    }

    #[test]
    fn a_value_of_the_wrong_kind_is_an_error_with_its_place() {
        let error = parse("[schedule]\ninterval = \"soon\"\n").unwrap_err();
        assert!(error.starts_with("a.toml:2:12: \"soon\" is not a duration"), "{error}");
    }

    #[test]
    fn values_out_of_range_are_refused() {
        for (text, words) in [
            ("schedule.count = 0", "count 0"),
            ("schedule.backoff = 0.5", "backoff 0.5"),
            ("schedule.interval = \"0s\"", "above 0"),
            ("frames.send = []", "nothing would be sent"),
            ("libvirt.uri = \"\"", "empty URI"),
            ("libvirt.more-uris = [\"\"]", "empty URI"),
            ("ovs.socket = \"db.sock\"", "not an absolute path"),
            ("path.uplinks = [\"\"]", "an uplink has a name"),
            ("path.uplinks = [\"eth[\"]", "is not a valid pattern"),
            ("[nic.tap0]", "not a MAC address"),
            ("[nic.\"52:54:00:00:00:01\"]\naddresses = [\"127.0.0.1\"]", "loopback"),
            ("[nic.\"52:54:00:00:00:01\"]\nvlan = 4095", "VLAN 4095"),
            ("[vm.web1]\nvlan = 5", "vm.web1: addresses and vlan belong to a NIC"),
            ("[network.br0]\naddresses = [\"192.0.2.1\"]", "network.br0: addresses and vlan belong to a NIC"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
    }

    #[test]
    fn a_nics_entry_precedes_its_vms_and_that_its_networks() {
        let mut text = String::new();
        let mut expect = |table: &str, owner: &str, expected: Owner| {
            text += &format!("[{table}]\nin-charge = \"{owner}\"\n");
            let mut target =
                Target::of_device(crate::guest::target::Plug::default(), MacAddr(0x52, 0x54, 0, 0, 0, 1));
            target.domain = Some(crate::guest::target::DomainId { name: "web1".into(), uuid: "u".into() });
            target.networks = vec!["blue".into(), "virbr1".into()];
            assert_eq!(parse(&text).unwrap().in_charge(&target), Some(expected), "{text}");
        };
        expect("ports", "ovn", Owner::Ovn);
        expect("network.red", "neutron", Owner::Ovn);
        expect("network.virbr1", "vlan", Owner::Vlan);
        expect("network.blue", "nobody", Owner::Nobody);
        expect("vm.web1", "ovn", Owner::Ovn);
        expect("nic.\"52:54:00:00:00:01\"", "neutron", Owner::Neutron);
    }

    #[test]
    fn some_keys_take_effect_at_the_next_start() {
        let keys = |text: &str| parse(text).unwrap().needs_restart(&Config::default()).collect::<Vec<_>>();
        assert_eq!(keys("[limits]\nframes-per-second = 5\n[ports]\ninject = \"redirect\""), [""; 0]);
        let text = "libvirt.uri = \"a\"\nlibvirt.more-uris = [\"b\"]\novs.socket = \"/c\"\n\
                    metrics.listen = \"[::1]:1\"\nports.inject = \"fdb\"";
        let all = ["libvirt.uri", "libvirt.more-uris", "ovs.socket", "metrics.listen", "ports.inject"];
        assert_eq!(keys(text), all);
    }

    #[test]
    fn a_key_that_an_entry_lacks_comes_from_the_next_entry() {
        let config = parse(
            "[network.blue]\nrouter = true\n[vm.web1]\nin-charge = \"ovn\"\n\
             [nic.\"52:54:00:00:00:01\"]\naddresses = [\"192.0.2.1\"]\n",
        )
        .unwrap();
        let mut target =
            Target::of_device(crate::guest::target::Plug::default(), MacAddr(0x52, 0x54, 0, 0, 0, 1));
        target.domain = Some(crate::guest::target::DomainId { name: "web1".into(), uuid: "u".into() });
        target.networks = vec!["blue".into()];
        assert!(config.style(&target).router);
        assert_eq!(config.in_charge(&target), Some(Owner::Ovn));
    }
}
