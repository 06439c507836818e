//! The configuration file: TOML, everything with a default, nothing unknown (announced.toml(5)).

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

/// Where the configuration is looked for when no file is named; it need not exist.
pub(crate) const DEFAULT_FILE: &str = "/etc/announced/announced.toml";

/// The rounds that a schedule may have at most: more would only be noise to the switches.
pub(crate) const MOST_ROUNDS: u32 = 1000;

/// A configuration as written, with defaults for what is not.
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
    /// `[network.NAME]`: by what the domain's XML plugs a NIC into: libvirt's network, a bridge or a lower device.
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
    /// What each gap is multiplied with.
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
    /// Which gateways are asked.
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
    /// ff:ff:ff:ff:ff:ff, for receivers that ignore the other.
    Broadcast,
}

/// `[ports]`: how a port is waited for and spoken through.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct PortsTable {
    /// How long a port may take to become ready.
    #[serde(deserialize_with = "duration")]
    pub wait: Duration,
    /// Who is in charge of every port of Open vSwitch; read from evidence when not set.
    pub in_charge: Option<Owner>,
    /// The way in; the best that works when not set.
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
    /// The devices that lead to the network; found by their hardware when none is named.
    pub uplinks: Uplinks,
}

/// `[proof]`: what is done to know that frames left the host, and that the network heard them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct ProofTable {
    /// Watch the devices on the frames' way.
    pub watch: bool,
    /// Rounds that may follow the schedule while no frame for the guest comes in.
    pub more_rounds: u32,
}

impl Default for ProofTable {
    fn default() -> Self {
        ProofTable { watch: true, more_rounds: 0 }
    }
}

/// `[addresses]`: whom to believe.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct AddressesTable {
    /// The sources.
    pub sources: Vec<Source>,
    /// Addresses that are never announced, whichever source has them: gateways, or those that guests share by VRRP.
    pub never: Prefixes,
    /// Where not empty, only addresses in these are announced.
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

/// `[libvirt]`: where the guests are known, and what the daemon announces them for.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct LibvirtTable {
    /// The connection URI.
    pub uri: Option<String>,
    /// More of them, for the daemon.
    pub more_uris: Vec<String>,
    /// What asks for an announcement.
    pub events: Vec<Cause>,
}

impl Default for LibvirtTable {
    fn default() -> Self {
        let events = vec![Cause::Migrated, Cause::Restored, Cause::Plugged];
        LibvirtTable { uri: None, more_uris: Vec::new(), events }
    }
}

/// `[limits]`: what the daemon may do to the network.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct LimitsTable {
    /// Frames a second, for the whole host.
    pub frames_per_second: u32,
    /// Each announcement begins up to this much later, a NIC always by as much.
    #[serde(deserialize_with = "duration")]
    pub jitter: Duration,
}

impl Default for LimitsTable {
    fn default() -> Self {
        LimitsTable { frames_per_second: 1000, jitter: Duration::ZERO }
    }
}

/// `[metrics]`: where Prometheus may ask.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct MetricsTable {
    /// The address of an HTTP listener; none when not set.
    pub listen: Option<SocketAddr>,
}

/// `[ovs]`: where Open vSwitch is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct OvsTable {
    /// OVSDB's unix socket.
    pub socket: Option<PathBuf>,
}

/// What is special about the NICs of a network, about those of a VM, or about one NIC.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Override {
    /// The guest routes: its neighbour advertisements carry the Router flag.
    pub router: Option<bool>,
    /// Who is in charge of the ports.
    pub in_charge: Option<Owner>,
    /// The network has no VLAN: no agent will ever set one on the ports.
    pub untagged: Option<bool>,
    /// The NICs are announced.
    pub announce: Option<bool>,
    /// More addresses that are never announced.
    pub never: Prefixes,
    /// In place of those of wider tables, the prefixes that addresses must be in.
    pub within: Prefixes,
    /// Gateways by prefix, before those of all.
    pub gateways: GatewayTable,
    /// Which gateways are asked.
    pub ask: Option<Ask>,
    /// Addresses to announce; only in `[nic]`.
    pub addresses: Vec<IpAddr>,
    /// The VLAN that its port must have; only in `[nic]`.
    pub vlan: Option<u16>,
}

/// Why a configuration cannot be used: one line, with the place.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be opened.
    #[error("{0}: {1}")]
    Read(PathBuf, io::Error),
    /// It is not TOML, or keys or values are not known.
    #[error("{}:{}", .0.display(), first(.1))]
    Mistakes(PathBuf, Vec<Mistake>),
    /// A value is out of its range.
    #[error("{0}: {1}")]
    Value(PathBuf, String),
}

/// The first mistake, and how many more there are.
fn first(mistakes: &[Mistake]) -> String {
    let first = mistakes.first().map(ToString::to_string).unwrap_or_default();
    match mistakes.len() {
        0 | 1 => first,
        several => format!("{first} ({} more: announce check)", several - 1),
    }
}

impl Error {
    /// Every mistake in a line of its own.
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
    /// Reads the file that was named, else the default one if it exists.
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
            return Err("libvirt names an empty URI: leave it out".into());
        }
        if self.ovs.socket.as_ref().is_some_and(|socket| !socket.is_absolute()) {
            return Err("ovs.socket is no absolute path".into());
        }
        if self.libvirt.events.contains(&Cause::Asked) {
            return Err("libvirt.events: \"asked\" is no event of libvirt".into());
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
            mac.parse::<MacAddr>().map_err(|_| format!("nic.{mac:?} is no MAC address"))?;
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

    /// The schedule, or which of its values is out of range.
    pub fn schedule(&self) -> Result<Schedule, String> {
        let ScheduleTable { count, interval, backoff, max_interval } = self.schedule;
        let hour = Duration::from_secs(3600);
        if !(1..=MOST_ROUNDS).contains(&count) {
            return Err(format!("count {count} is not between 1 and {MOST_ROUNDS}"));
        }
        if self.proof.more_rounds > MOST_ROUNDS {
            return Err(format!("more-rounds {} is above {MOST_ROUNDS}", self.proof.more_rounds));
        }
        if interval.is_zero() || interval > hour || max_interval.is_zero() || max_interval > hour {
            return Err("interval and max-interval must be above 0 and at most an hour".into());
        }
        if !(1.0..=100.0).contains(&backoff) {
            return Err(format!("backoff {backoff} is not between 1 and 100"));
        }
        Ok(Schedule { count, interval, backoff, max_interval })
    }

    /// The keys that are only read at the start, and have changed since the daemon was started with `first`.
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

    /// How the frames of `target` look.
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

    /// Who is in charge of the port of `target`, if that is configured.
    pub fn in_charge(&self, target: &Target) -> Option<Owner> {
        self.overrides(target).find_map(|o| o.in_charge).or(self.ports.in_charge)
    }

    /// Whether no agent will ever set a VLAN on the port of `target`.
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

    /// What is configured for the NIC of `target`, then for its VM, then for its networks.
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

/// A VLAN that a port can be in.
pub(crate) fn vlan_id(vlan: u16) -> Result<u16, String> {
    match vlan {
        1..=4094 => Ok(vlan),
        _ => Err(format!("VLAN {vlan} is not between 1 and 4094")),
    }
}

/// A duration in words. A number alone is refused: it may mean seconds or milliseconds.
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
    fn nothing_need_be_configured() {
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
            ("ovs.socket = \"db.sock\"", "no absolute path"),
            ("path.uplinks = [\"\"]", "an uplink has a name"),
            ("path.uplinks = [\"eth[\"]", "is no pattern"),
            ("[nic.tap0]", "no MAC address"),
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
    fn a_nics_entry_goes_before_its_vms_and_that_before_its_networks() {
        let mut text = String::new();
        let mut expect = |table: &str, who: &str, expected: Owner| {
            text += &format!("[{table}]\nin-charge = \"{who}\"\n");
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
    fn some_keys_hold_until_the_next_start() {
        let keys = |text: &str| parse(text).unwrap().needs_restart(&Config::default()).collect::<Vec<_>>();
        assert_eq!(keys("[limits]\nframes-per-second = 5\n[ports]\ninject = \"redirect\""), [""; 0]);
        let text = "libvirt.uri = \"a\"\nlibvirt.more-uris = [\"b\"]\novs.socket = \"/c\"\n\
                    metrics.listen = \"[::1]:1\"\nports.inject = \"fdb\"";
        let all = ["libvirt.uri", "libvirt.more-uris", "ovs.socket", "metrics.listen", "ports.inject"];
        assert_eq!(keys(text), all);
    }

    #[test]
    fn what_an_entry_does_not_say_the_next_one_does() {
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
