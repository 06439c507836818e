//! The two tables: where a MAC is, and which MAC and port an address has.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use pnet_base::MacAddr;
use serde::Serialize;

use super::Time;

/// The forwarding database: the port of each MAC, per VLAN.
#[derive(Default)]
pub struct Fdb(BTreeMap<(u16, MacAddr), Seen>);

struct Seen {
    port: String,
    at: Time,
}

impl Fdb {
    /// The MAC has sent by this port. Returns its port until now.
    pub fn learn(&mut self, now: Time, vlan: u16, mac: MacAddr, port: &str) -> Option<String> {
        let before = self.0.insert((vlan, mac), Seen { port: port.into(), at: now });
        before.map(|seen| seen.port)
    }

    pub fn port_of(&self, vlan: u16, mac: MacAddr) -> Option<&str> {
        self.0.get(&(vlan, mac)).map(|seen| seen.port.as_str())
    }

    /// Removes and returns what was not seen for longer than `age`.
    pub fn expire(&mut self, now: Time, age: Duration) -> Vec<(u16, MacAddr, String)> {
        let mut old = Vec::new();
        self.0.retain(|(vlan, mac), seen| {
            let keep = now.saturating_sub(seen.at) <= age;
            if !keep {
                old.push((*vlan, *mac, seen.port.clone()));
            }
            keep
        });
        old
    }

    pub fn rows(&self, now: Time) -> impl Iterator<Item = FdbRow> {
        self.0.iter().map(move |((vlan, mac), seen)| FdbRow {
            vlan: *vlan,
            mac: *mac,
            kind: "dynamic",
            age: Some(now.saturating_sub(seen.at).as_secs_f64()),
            port: seen.port.clone(),
        })
    }
}

/// The ARP table, by address.
#[derive(Default)]
pub struct ArpTable(BTreeMap<Ipv4Addr, ArpEntry>);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArpEntry {
    pub mac: MacAddr,
    pub vlan: u16,
    /// Where packets for the address leave, whatever the FDB says.
    pub port: String,
    /// When ARP confirmed it last.
    pub at: Time,
}

impl ArpTable {
    pub fn get(&self, address: Ipv4Addr) -> Option<&ArpEntry> {
        self.0.get(&address)
    }

    /// Returns the entry until now.
    pub fn put(&mut self, address: Ipv4Addr, entry: ArpEntry) -> Option<ArpEntry> {
        self.0.insert(address, entry)
    }

    /// Gives every entry of the MAC that port; returns the addresses of those that had another one, and that.
    pub fn follow(&mut self, vlan: u16, mac: MacAddr, port: &str) -> Vec<(Ipv4Addr, String)> {
        let of_mac = self.0.iter_mut().filter(|(_, entry)| (entry.vlan, entry.mac) == (vlan, mac));
        let moved = of_mac.filter(|(_, entry)| entry.port != port);
        moved.map(|(address, entry)| (*address, std::mem::replace(&mut entry.port, port.into()))).collect()
    }

    /// Removes and returns what was not confirmed for longer than `age`.
    pub fn expire(&mut self, now: Time, age: Duration) -> Vec<(Ipv4Addr, ArpEntry)> {
        let mut old = Vec::new();
        self.0.retain(|address, entry| {
            let keep = now.saturating_sub(entry.at) <= age;
            if !keep {
                old.push((*address, entry.clone()));
            }
            keep
        });
        old
    }

    pub fn rows(&self, now: Time) -> impl Iterator<Item = ArpRow> {
        self.0.iter().map(move |(address, entry)| ArpRow {
            address: *address,
            age: Some(now.saturating_sub(entry.at).as_secs_f64()),
            mac: entry.mac,
            interface: format!("Vlan{}", entry.vlan),
            port: Some(entry.port.clone()),
        })
    }
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FdbRow {
    pub vlan: u16,
    pub mac: MacAddr,
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// Seconds since the MAC was seen.
    pub age: Option<f64>,
    pub port: String,
}

impl FdbRow {
    pub fn own(vlan: u16, mac: MacAddr) -> Self {
        Self { vlan, mac, kind: "static", age: None, port: "CPU".into() }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ArpRow {
    pub address: Ipv4Addr,
    /// Seconds since ARP confirmed it.
    pub age: Option<f64>,
    pub mac: MacAddr,
    pub interface: String,
    pub port: Option<String>,
}

impl ArpRow {
    pub fn own(address: Ipv4Addr, mac: MacAddr, interface: String) -> Self {
        Self { address, age: None, mac, interface, port: None }
    }
}
