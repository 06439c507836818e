//! The configuration file: TOML; every key has a default, and unknown keys are errors (announced.toml(5)).

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use pnet_base::MacAddr;
use serde::Deserialize;

use crate::announcement::frame::Style;
use crate::announcement::injection::Method;
use crate::config::mistakes::Mistake;
use crate::guest::gateway::Gateway;
use crate::guest::target::Target;
use crate::path::owner::Owner;

pub(crate) use gateways::{Ask, GatewayTable};
pub use peers::{PeerAddress, PeersTable};
pub use tables::{AddressesTable, LibvirtTable, PortsTable};
pub(crate) use tables::{ArpTarget, MetricsTable, Override, ProofTable};
use tables::{FramesTable, LimitsTable, MulticastTable, OvsTable, PathTable, ScheduleTable};

pub mod duration;
mod gateways;
mod lint;
mod mistakes;
mod peers;
mod permitted;
mod tables;
mod unusable;

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
    /// `[multicast]`.
    pub multicast: MulticastTable,
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
    /// `[peers]`.
    pub peers: PeersTable,
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

/// Line and column of the key that a line of [`Config::advice`] begins with, where `text` has it.
pub(crate) fn place_of(text: &str, advice: &str) -> Option<(usize, usize)> {
    let key = advice.split(' ').next().unwrap_or_default();
    mistakes::place(text, &key.split('.').collect::<Vec<_>>())
}

/// Why a configuration cannot be used: one line with the place.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be opened.
    #[error("{0}: {1}")]
    Read(PathBuf, io::Error),
    /// It is not TOML, or has unknown keys or unusable values.
    #[error("{}:{}", .0.display(), first(.1))]
    Mistakes(PathBuf, Vec<Mistake>),
}

/// The first mistake, and the number of the others.
fn first(mistakes: &[Mistake]) -> String {
    let first = mistakes.first().map(ToString::to_string).unwrap_or_default();
    match mistakes.len() {
        0 | 1 => first,
        several => format!("{first} ({} more: announce check)", several - 1),
    }
}

impl ConfigError {
    /// Every mistake on a line of its own.
    pub fn lines(&self) -> Vec<String> {
        match self {
            ConfigError::Mistakes(file, mistakes) => {
                mistakes.iter().map(|mistake| format!("{}:{mistake}", file.display())).collect()
            }
            other => vec![other.to_string()],
        }
    }
}

impl Config {
    /// Reads the named file, else the default one if it exists.
    pub fn load(named: Option<&Path>) -> Result<Config, ConfigError> {
        let file = named.unwrap_or(Path::new(DEFAULT_FILE));
        match std::fs::read_to_string(file) {
            Ok(text) => Config::parse(file, &text),
            Err(error) if named.is_none() && error.kind() == io::ErrorKind::NotFound => Ok(Config::default()),
            Err(error) => Err(ConfigError::Read(file.into(), error)),
        }
    }

    /// Reads the text of `file`.
    pub fn parse(file: &Path, text: &str) -> Result<Config, ConfigError> {
        let check = |config: &Config| {
            let unusable = config.unusable().into_iter();
            unusable.map(|value| mistakes::at(text, &value.path, value.message)).collect()
        };
        mistakes::read(text, check).map_err(|mistakes| ConfigError::Mistakes(file.into(), mistakes))
    }

    /// The keys that take effect at the start only and have changed since the daemon started with `first`.
    pub fn needs_restart(&self, first: &Config) -> impl Iterator<Item = &'static str> {
        let for_fdb = |config: &Config| config.ports.inject == Some(Method::Fdb);
        let keys = [
            ("libvirt.uri", self.libvirt.uri != first.libvirt.uri),
            ("libvirt.more-uris", self.libvirt.more_uris != first.libvirt.more_uris),
            ("ovs.socket", self.ovs.socket != first.ovs.socket),
            ("metrics.listen", self.metrics.listen != first.metrics.listen),
            ("metrics.page", self.metrics.page != first.metrics.page),
            ("ports.inject", for_fdb(self) && !for_fdb(first)),
            ("peers.port", self.peers.is_configured() && self.peers.port != first.peers.port),
            ("peers.listen", self.peers.is_configured() && self.peers.listen != first.peers.listen),
            ("peers.addresses", self.peers.is_configured() != first.peers.is_configured()),
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

    /// How often the guest of `target` is queried for its multicast groups.
    pub fn queries(&self, target: &Target) -> u32 {
        self.overrides(target).find_map(|o| o.queries).unwrap_or(self.multicast.queries)
    }

    /// The overrides for the NIC of `target`, then for its VM, then for its networks.
    pub fn overrides(&self, target: &Target) -> impl Iterator<Item = &Override> {
        let mac = Some(target.mac);
        let nic = self.nic.iter().filter(move |(key, _)| key.parse().ok() == mac);
        let domain = target.domain.clone();
        let vm = self.vm.iter().filter(move |(key, _)| {
            let same = |domain: &crate::guest::target::DomainId| {
                *domain.name == **key || domain.uuid.eq_ignore_ascii_case(key)
            };
            domain.as_ref().is_some_and(same)
        });
        let networks = target.networks.clone();
        let network = networks.into_iter().filter_map(|name| self.network.get(&name));
        nic.chain(vm).map(|(_, o)| o).chain(network)
    }
}

/// No port can be in this VLAN.
#[derive(Debug, thiserror::Error)]
#[error("VLAN {0} is not between 1 and 4094")]
pub(crate) struct BadVlan(u16);

/// Checks that a port can be in this VLAN.
pub(crate) fn vlan_id(vlan: u16) -> Result<u16, BadVlan> {
    if matches!(vlan, 1..=4094) { Ok(vlan) } else { Err(BadVlan(vlan)) }
}

#[cfg(test)]
mod tests;
