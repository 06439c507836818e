//! Values of the right type that cannot be used all the same: each with its key, so that its place in the file can be named.

use std::time::Duration;

use pnet_base::MacAddr;

use super::{Config, MAX_ROUNDS, Override, ScheduleTable, vlan_id};
use crate::announcement::query::MAX_QUERIES;
use crate::announcement::schedule::Schedule;
use crate::guest::address;
use crate::guest::event::Cause;

const HOUR: Duration = Duration::from_secs(3600);

/// A value that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Unusable {
    /// The key, from the root.
    pub(super) path: Vec<String>,
    /// What is wrong, and the remedy.
    pub(super) message: String,
}

impl Unusable {
    fn of(path: &[&str], message: impl Into<String>) -> Unusable {
        Unusable { path: path.iter().map(|key| (*key).to_owned()).collect(), message: message.into() }
    }
}

impl Config {
    /// The schedule, or the first of its values that is out of range.
    pub fn schedule(&self) -> Result<Schedule, Unusable> {
        let ScheduleTable { count, interval, backoff, max_interval } = self.schedule;
        match self.schedule_out_of_range().into_iter().next() {
            Some(unusable) => Err(unusable),
            None => Ok(Schedule { count, interval, backoff, max_interval }),
        }
    }

    /// Every value that cannot be used.
    pub(super) fn unusable(&self) -> Vec<Unusable> {
        let overrides = (self.network.iter().map(|(name, table)| ("network", name, table)))
            .chain(self.vm.iter().map(|(name, table)| ("vm", name, table)));
        let of_several = overrides.flat_map(|(kind, name, table)| for_one_nic(kind, name, table));
        let of_nics = self.nic.iter().flat_map(|(mac, nic)| of_nic(mac, nic));
        let all = self.schedule_out_of_range().into_iter().chain(self.tables()).chain(self.unusable_peers());
        let all = all.chain(self.too_many_queries());
        all.chain(of_several).chain(of_nics).collect()
    }

    fn schedule_out_of_range(&self) -> Vec<Unusable> {
        let ScheduleTable { count, interval, backoff, max_interval } = self.schedule;
        let mut unusable = Vec::new();
        if !(1..=MAX_ROUNDS).contains(&count) {
            let words = format!("count {count} is not between 1 and {MAX_ROUNDS}");
            unusable.push(Unusable::of(&["schedule", "count"], words));
        }
        for (key, gap) in [("interval", interval), ("max-interval", max_interval)] {
            if gap.is_zero() || gap > HOUR {
                let words = format!("{key} {gap:?} is not above 0 and at most an hour");
                unusable.push(Unusable::of(&["schedule", key], words));
            }
        }
        if !(1.0..=100.0).contains(&backoff) {
            let words = format!("backoff {backoff} is not between 1 and 100");
            unusable.push(Unusable::of(&["schedule", "backoff"], words));
        }
        if self.proof.more_rounds > MAX_ROUNDS {
            let words = format!("more-rounds {} is above {MAX_ROUNDS}", self.proof.more_rounds);
            unusable.push(Unusable::of(&["proof", "more-rounds"], words));
        }
        unusable
    }

    fn too_many_queries(&self) -> Vec<Unusable> {
        let tables = [("network", &self.network), ("vm", &self.vm), ("nic", &self.nic)];
        let overrides = tables.iter().flat_map(|(kind, all)| {
            all.iter()
                .filter_map(|(name, table)| Some((vec![*kind, name.as_str(), "queries"], table.queries?)))
        });
        let all = overrides.chain([(vec!["multicast", "queries"], self.multicast.queries)]);
        let wrong = all.filter(|(_, queries)| *queries > MAX_QUERIES);
        let words = |queries| format!("queries {queries} is above {MAX_QUERIES}: use 2, or 0 for none");
        wrong.map(|(path, queries)| Unusable::of(&path, words(queries))).collect()
    }

    fn tables(&self) -> Vec<Unusable> {
        let is_relative = |socket: &std::path::PathBuf| !socket.is_absolute();
        let uris = &self.libvirt.more_uris;
        let checks = [
            (
                self.frames.send.is_empty(),
                ["frames", "send"],
                "frames.send is empty: nothing would be sent; leave it out to send all kinds",
            ),
            (
                self.limits.frames_per_second == 0,
                ["limits", "frames-per-second"],
                "frames-per-second is 0: nothing would be sent; leave it out for 1000",
            ),
            (
                self.libvirt.uri.as_ref().is_some_and(String::is_empty),
                ["libvirt", "uri"],
                "libvirt.uri is an empty URI: leave it out",
            ),
            (
                uris.iter().any(String::is_empty),
                ["libvirt", "more-uris"],
                "libvirt.more-uris has an empty URI: leave it out",
            ),
            (
                self.ovs.socket.as_ref().is_some_and(is_relative),
                ["ovs", "socket"],
                "ovs.socket is not an absolute path: begin it with /",
            ),
            (
                self.metrics.page && self.metrics.listen.is_none(),
                ["metrics", "page"],
                "metrics.page needs an address: set metrics.listen, such as \"127.0.0.1:9891\"",
            ),
            (
                self.libvirt.events.contains(&Cause::Asked),
                ["libvirt", "events"],
                "\"asked\" is not an event of libvirt: leave it out",
            ),
            (
                self.libvirt.events.iter().any(|event| matches!(event, Cause::Handover | Cause::Kept)),
                ["libvirt", "events"],
                "\"handover\" and \"kept\" are turned on by [peers]: leave them out",
            ),
        ];
        wrong(checks)
    }

    fn unusable_peers(&self) -> Vec<Unusable> {
        let is_relative = |file: &std::path::PathBuf| !file.is_absolute();
        wrong([
            (
                self.peers.is_configured() && self.peers.key_file.is_none(),
                ["peers", "addresses"],
                "peers.addresses needs peers.key-file: a file with a key that all hosts have, as openssl rand -base64 32 prints it",
            ),
            (self.peers.port == 0, ["peers", "port"], "peers.port is 0: leave it out for 9892"),
            (
                self.peers.key_file.as_ref().is_some_and(is_relative),
                ["peers", "key-file"],
                "peers.key-file is not an absolute path: begin it with /",
            ),
        ])
    }
}

/// The checks that say so, with their key and the words.
fn wrong<const N: usize>(checks: [(bool, [&str; 2], &str); N]) -> Vec<Unusable> {
    let wrong = checks.into_iter().filter(|(is_wrong, ..)| *is_wrong);
    wrong.map(|(_, path, words)| Unusable::of(&path, words)).collect()
}

/// What of a network's or a VM's table belongs to one NIC.
fn for_one_nic(kind: &str, name: &str, table: &Override) -> Vec<Unusable> {
    let keys = [("addresses", !table.addresses.is_empty()), ("vlan", table.vlan.is_some())];
    let wrong = keys.into_iter().filter(|(_, is_set)| *is_set);
    let words = format!("{kind}.{name}: addresses and vlan belong to a NIC: put them under [nic.\"MAC\"]");
    wrong.map(|(key, _)| Unusable::of(&[kind, name, key], words.clone())).collect()
}

fn of_nic(mac: &str, nic: &Override) -> Vec<Unusable> {
    let mut unusable = Vec::new();
    if mac.parse::<MacAddr>().is_err() {
        let words = format!("nic.{mac:?} is not a MAC address: write six bytes, such as 52:54:00:12:34:56");
        unusable.push(Unusable::of(&["nic", mac], words));
    }
    for ip in &nic.addresses {
        let why = address::unannounceable(*ip).map(|why| format!("nic.{mac:?}: {ip} {why}"));
        unusable.extend(why.map(|words| Unusable::of(&["nic", mac, "addresses"], words)));
    }
    let vlan = nic.vlan.and_then(|vlan| vlan_id(vlan).err());
    unusable.extend(vlan.map(|why| Unusable::of(&["nic", mac, "vlan"], format!("nic.{mac:?}: {why}"))));
    unusable
}
