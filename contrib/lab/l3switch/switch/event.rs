//! What the switch writes down, one JSON object a line.

use std::net::{IpAddr, Ipv4Addr};

use pnet_base::MacAddr;
use serde::Serialize;

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Event {
    /// Seconds since the Unix epoch.
    pub at: f64,
    #[serde(flatten)]
    pub what: What,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum What {
    FdbLearned {
        vlan: u16,
        mac: MacAddr,
        port: String,
    },
    FdbMoved {
        vlan: u16,
        mac: MacAddr,
        from: String,
        to: String,
    },
    FdbAged {
        vlan: u16,
        mac: MacAddr,
        port: String,
    },
    ArpCreated {
        address: Ipv4Addr,
        mac: MacAddr,
        vlan: u16,
        port: String,
    },
    /// The entry's egress port is another one.
    ArpMoved {
        address: Ipv4Addr,
        mac: MacAddr,
        from: String,
        to: String,
        cause: Cause,
    },
    /// The address has another MAC.
    ArpChanged {
        address: Ipv4Addr,
        was: MacAddr,
        mac: MacAddr,
        port: String,
    },
    ArpAged {
        address: Ipv4Addr,
        mac: MacAddr,
        port: String,
    },
    /// A group is reported at another port, too.
    GroupJoined {
        vlan: u16,
        group: IpAddr,
        port: String,
    },
    /// The hosts were queried for their groups.
    Queried,
    /// A frame that announces a host arrived: `kind` is `rarp`, `arp-request` or `arp-reply`.
    Announcement {
        kind: &'static str,
        port: String,
        vlan: u16,
        mac: MacAddr,
        address: Option<Ipv4Addr>,
    },
    /// `kind` as above, if it was an announcement.
    Dropped {
        reason: &'static str,
        port: String,
        vlan: Option<u16>,
        mac: Option<MacAddr>,
        kind: Option<&'static str>,
    },
}

/// What moved an ARP entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Cause {
    Arp,
    Fdb,
}
