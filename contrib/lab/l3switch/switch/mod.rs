//! An L3 switch as a state machine: a frame and the time go in, frames and events come out.
//!
//! It has a FDB per VLAN, an interface with an address (SVI) in each VLAN, and an ARP table whose entries hold the egress
//! port. Only ARP frames that reach its CPU touch the ARP table; what else does is the [`Vendor`]'s choice.

mod event;
mod packet;
mod router;
mod snooping;
mod tables;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::str::FromStr;
use std::time::Duration;

use pnet_base::MacAddr;
use pnet_packet::ethernet::EtherTypes;

pub use event::{Cause, Event, What};
use packet::{Ethernet, announcement};
use router::Question;
pub use snooping::GroupRow;
use snooping::Snooping;
pub use tables::{ArpRow, FdbRow};
use tables::{ArpTable, Fdb};

/// Since the Unix epoch.
pub type Time = Duration;

/// What happens to an ARP entry whose MAC the FDB has just seen on another port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Vendor {
    /// The entry moves along.
    #[value(name = "A", alias = "a")]
    A,
    /// The entry keeps its port until ARP says otherwise.
    #[value(name = "B", alias = "b")]
    B,
}

/// The switch's own interface in a VLAN: `100=1.1.1.254/24`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Svi {
    pub vlan: u16,
    pub address: Ipv4Addr,
    pub prefix: u8,
}

impl Svi {
    fn contains(&self, address: Ipv4Addr) -> bool {
        let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix)).unwrap_or(0);
        u32::from(self.address) & mask == u32::from(address) & mask
    }

    fn name(&self) -> String {
        format!("Vlan{}", self.vlan)
    }
}

impl FromStr for Svi {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = || {
            let (vlan, network) = text.split_once('=')?;
            let (address, prefix) = network.split_once('/')?;
            let svi = Svi {
                vlan: vlan.parse().ok()?,
                address: address.parse().ok()?,
                prefix: prefix.parse().ok()?,
            };
            ((1..4095).contains(&svi.vlan) && svi.prefix <= 32).then_some(svi)
        };
        parsed().ok_or_else(|| "expected VLAN=ADDRESS/LENGTH, as in 100=1.1.1.254/24".into())
    }
}

/// How the switch is set up.
#[derive(Debug, Clone)]
pub struct Config {
    pub vendor: Vendor,
    /// The MAC of every SVI.
    pub mac: MacAddr,
    /// Every port is a trunk of the SVIs' VLANs.
    pub ports: Vec<String>,
    pub svis: Vec<Svi>,
    /// For how long the FDB and the ARP table keep what is not confirmed.
    pub fdb_age: Duration,
    pub arp_age: Duration,
    /// IGMP and MLD are snooped, and hosts queried for their groups so often; `None`: every multicast frame is flooded.
    pub query_interval: Option<Duration>,
}

/// What the switch wants done.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Transmit; `bytes` are without the tag.
    Send {
        port: String,
        vlan: u16,
        bytes: Vec<u8>,
    },
    Log(Event),
}

/// Where a frame came in.
#[derive(Debug, Clone, Copy)]
struct Ingress<'a> {
    port: &'a str,
    vlan: u16,
}

pub struct Switch {
    config: Config,
    fdb: Fdb,
    arp: ArpTable,
    snooping: Snooping,
    /// The next hops that ARP is asking for.
    questions: BTreeMap<Ipv4Addr, Question>,
    /// Frames and packets dropped, by reason.
    dropped: BTreeMap<&'static str, u64>,
    now: Time,
    actions: Vec<Action>,
}

impl Switch {
    pub fn new(config: Config) -> Self {
        Self {
            fdb: Fdb::default(),
            arp: ArpTable::default(),
            snooping: Snooping::default(),
            questions: BTreeMap::new(),
            dropped: BTreeMap::new(),
            now: Time::ZERO,
            actions: Vec::new(),
            config,
        }
    }

    /// A frame came in by `port`; `bytes` are without the tag, `vlan` is the tag's, `None` without a tag.
    pub fn receive(&mut self, now: Time, port: &str, vlan: Option<u16>, bytes: &[u8]) -> Vec<Action> {
        self.pass_time(now);
        self.take_in(port, vlan, bytes);
        std::mem::take(&mut self.actions)
    }

    /// Forgets what is too old.
    pub fn age(&mut self, now: Time) -> Vec<Action> {
        self.pass_time(now);
        std::mem::take(&mut self.actions)
    }

    fn pass_time(&mut self, now: Time) {
        self.now = now;
        for (vlan, mac, port) in self.fdb.expire(now, self.config.fdb_age) {
            self.log(What::FdbAged { vlan, mac, port });
        }
        for (address, entry) in self.arp.expire(now, self.config.arp_age) {
            self.log(What::ArpAged { address, mac: entry.mac, port: entry.port });
        }
        self.forget_questions();
        self.query_groups();
    }

    fn take_in(&mut self, port: &str, vlan: Option<u16>, bytes: &[u8]) {
        let Some(frame) = Ethernet::parse(bytes) else {
            return self.drop_frame("malformed", port, vlan, None);
        };
        let svi = |svi: &&Svi| Some(svi.vlan) == vlan;
        let Some(svi) = self.config.svis.iter().find(svi).copied() else {
            let reason = if vlan.is_some() { "other-vlan" } else { "untagged" };
            return self.drop_frame(reason, port, vlan, Some(&frame));
        };
        // No other host may send with the switch's address, nor with a group address.
        if frame.source == self.config.mac || frame.source.is_multicast() {
            return self.drop_frame("bad-source", port, vlan, Some(&frame));
        }
        let ingress = Ingress { port, vlan: svi.vlan };
        if let Some((kind, address)) = announcement(&frame) {
            self.log(What::Announcement {
                kind,
                port: port.into(),
                vlan: svi.vlan,
                mac: frame.source,
                address,
            });
        }
        self.learn(ingress, frame.source);
        if frame.destination != self.config.mac {
            self.forward(ingress, &frame, bytes);
        }
        match frame.ethertype {
            EtherTypes::Arp if self.is_for_cpu(&frame) => self.hear_arp(ingress, &svi, frame.payload),
            EtherTypes::Ipv4 if frame.destination == self.config.mac => self.route(ingress, frame.payload),
            _ => {}
        }
    }

    fn is_for_cpu(&self, frame: &Ethernet) -> bool {
        frame.destination == self.config.mac || frame.destination.is_broadcast()
    }

    fn learn(&mut self, Ingress { port, vlan }: Ingress, mac: MacAddr) {
        match self.fdb.learn(self.now, vlan, mac, port) {
            Some(before) if before == port => return,
            Some(from) => self.log(What::FdbMoved { vlan, mac, from, to: port.into() }),
            None => self.log(What::FdbLearned { vlan, mac, port: port.into() }),
        }
        if self.config.vendor == Vendor::A {
            for (address, from) in self.arp.follow(vlan, mac, port) {
                self.log(What::ArpMoved { address, mac, from, to: port.into(), cause: Cause::Fdb });
            }
        }
    }

    /// Switches the frame within its VLAN.
    fn forward(&mut self, ingress: Ingress, frame: &Ethernet, bytes: &[u8]) {
        if frame.destination.is_multicast() && self.snoop(ingress, frame.ethertype, frame.payload, bytes) {
            return;
        }
        match self.fdb.port_of(ingress.vlan, frame.destination).map(str::to_owned) {
            Some(port) if port == ingress.port => {}
            Some(port) => self.send(&port, ingress.vlan, bytes.to_vec()),
            None => self.flood(Some(ingress.port), ingress.vlan, bytes),
        }
    }

    fn flood(&mut self, except: Option<&str>, vlan: u16, bytes: &[u8]) {
        for port in self.config.ports.clone() {
            if Some(port.as_str()) != except {
                self.send(&port, vlan, bytes.to_vec());
            }
        }
    }

    fn send(&mut self, port: &str, vlan: u16, bytes: Vec<u8>) {
        self.actions.push(Action::Send { port: port.into(), vlan, bytes });
    }

    fn log(&mut self, what: What) {
        self.actions.push(Action::Log(Event { at: self.now.as_secs_f64(), what }));
    }

    fn drop_frame(&mut self, reason: &'static str, port: &str, vlan: Option<u16>, frame: Option<&Ethernet>) {
        *self.dropped.entry(reason).or_default() += 1;
        self.log(What::Dropped {
            reason,
            port: port.into(),
            vlan,
            mac: frame.map(|frame| frame.source),
            kind: frame.and_then(announcement).map(|(kind, _)| kind),
        });
    }

    /// The FDB as it is printed; the switch's own MAC comes first.
    pub fn fdb_rows(&self) -> Vec<FdbRow> {
        let own = self.config.svis.iter().map(|svi| FdbRow::own(svi.vlan, self.config.mac));
        own.chain(self.fdb.rows(self.now)).collect()
    }

    /// The ARP table as it is printed; the switch's own addresses come first.
    pub fn arp_rows(&self) -> Vec<ArpRow> {
        let own = self.config.svis.iter().map(|svi| ArpRow::own(svi.address, self.config.mac, svi.name()));
        own.chain(self.arp.rows(self.now)).collect()
    }

    /// Where the groups are, as it is printed.
    pub fn group_rows(&self) -> Vec<GroupRow> {
        self.snooping.rows(self.now).collect()
    }

    /// How many frames and packets were dropped, by reason.
    pub fn dropped(&self) -> &BTreeMap<&'static str, u64> {
        &self.dropped
    }
}
