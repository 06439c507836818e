//! The tables of the configuration file, with their defaults.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Deserializer};

use crate::announcement::frame::Kind;
use crate::announcement::injection::Method;
use crate::announcement::schedule::Schedule;
use crate::config::duration;
use crate::config::gateways::{Ask, GatewayTable};
use crate::config::permitted::Prefixes;
use crate::guest::address::Source;
use crate::guest::event::Cause;
use crate::path::owner::Owner;
use crate::path::uplinks::Uplinks;

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

/// `[multicast]`: the guests' multicast groups.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct MulticastTable {
    /// How often each guest is queried for its groups.
    pub queries: u32,
}

impl Default for MulticastTable {
    fn default() -> Self {
        MulticastTable { queries: 2 }
    }
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
    /// A bond of Open vSwitch that fails over is an event, too. Open vSwitch itself sends a RARP for each MAC that it has learned.
    pub ovs_bonds: bool,
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
    /// libvirt has each guest announce itself, too; that takes a connection that may write.
    pub ask_guest: bool,
}

impl Default for LibvirtTable {
    fn default() -> Self {
        let events = vec![
            Cause::Migrated,
            Cause::Restored,
            Cause::Plugged,
            Cause::Moved,
            Cause::LinkUp,
            Cause::Uplink,
        ];
        LibvirtTable { uri: None, more_uris: Vec::new(), events, ask_guest: false }
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
    /// The listener has a page about the host's VMs, too.
    pub page: bool,
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
    /// How often a guest is queried for its multicast groups.
    pub queries: Option<u32>,
    /// Addresses to announce; only in `[nic]`.
    pub addresses: Vec<IpAddr>,
    /// The VLAN that its port must have; only in `[nic]`.
    pub vlan: Option<u16>,
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
