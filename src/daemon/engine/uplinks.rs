//! Finds the guests whose frames leave by an uplink that has changed.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use pnet_base::MacAddr;

use super::Engine;
use crate::announcement::uplink;
use crate::guest::event::Cause;
use crate::guest::{GuestState, Known};
use crate::path::uplink_events::Wanted;
use crate::run::signals::Number;
use crate::run::{pacer, targets};

/// A guest that was read for a change of uplinks: the connection, its UUID, the uplinks, what was read.
pub(super) type Behind = (usize, Arc<str>, BTreeSet<String>, Result<Known, String>);

impl Engine {
    /// The uplinks that count by the configuration.
    pub(super) fn wanted_uplinks(&self) -> Wanted {
        Wanted { uplinks: self.config.path.uplinks.clone(), ovs_bonds: self.config.path.ovs_bonds }
    }

    /// These uplinks have changed: each guest that runs is looked at.
    pub(super) fn uplinks_changed(&mut self, uplinks: &BTreeSet<String>) {
        if !self.config.libvirt.events.contains(&Cause::Uplink) {
            return;
        }
        let names: Vec<&str> = uplinks.iter().map(String::as_str).collect();
        tracing::info!("the uplink {} has changed: the VMs behind it are announced", names.join(", "));
        for (number, connection) in self.connections.iter().enumerate() {
            for uuid in connection.ledger.running() {
                let read = (connection.search)(uuid.clone(), self.config.addresses.sources.clone());
                let (uuid, uplinks) = (uuid.clone(), uplinks.clone());
                self.behind.spawn(async move { (number, uuid, uplinks, read.await) });
            }
        }
    }

    /// How long the announcement of a NIC waits after a change of its uplink.
    pub(super) fn wait_for_uplink(&mut self, connection: usize, uuid: &Arc<str>, mac: MacAddr) -> Duration {
        let longest = self.config.limits.jitter.saturating_add(uplink::MAX_JITTER);
        let (nic, now) = ((connection, uuid.clone(), mac), self.epoch.elapsed());
        self.uplink_pace.wait(nic, now, pacer::jitter(mac, longest))
    }

    /// Announces the NICs of a guest that are behind these uplinks.
    pub(super) fn is_behind(&mut self, (number, uuid, uplinks, known): Behind) {
        let known = match known {
            Ok(known) => known,
            Err(why) => return tracing::debug!("cannot read the VM {uuid}: {why}"),
        };
        let nics = targets::of(known, &self.config, &self.host.ovs.borrow().ovs);
        for (at, nic) in nics.into_iter().enumerate() {
            let Ok(target) = nic.target else {
                continue;
            };
            let order = self.order(number, target, Cause::Uplink);
            let seen = order.look(&self.host, GuestState::Running);
            let mut hops = seen.attachment.iter().flat_map(|attachment| &attachment.way.hops);
            if !hops.any(|hop| uplinks.contains(&hop.name)) {
                continue;
            }
            let name = nic.name.unwrap_or_else(|| at.to_string());
            let mac = order.target.mac;
            let has_more_rounds = |run: &Number| {
                let running = self.running.get(run);
                let order = running.map(|running| running.signals.order());
                order.is_some_and(|order| order.target.mac == mac && order.cause != Cause::Uplink)
            };
            let under_way = self.runs_of(number, &uuid).into_iter().find(has_more_rounds);
            // An announcement with more rounds goes on; this one follows it.
            match under_way {
                Some(run) => drop(self.then_uplink.insert(run, name)),
                None => self.touched(number, &uuid, Cause::Uplink, name),
            }
        }
    }
}
