//! Loads the configuration again, and applies it to the announcements that wait.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Engine;
use crate::config::Config;
use crate::daemon::advise;
use crate::daemon::reading::patiently;
use crate::daemon::source::ConfigSource;
use crate::guest::Known;
use crate::guest::target::Target;
use crate::run::order::Order;
use crate::run::signals::{Number, Stop};
use crate::run::targets;

/// A guest that was read again for a new configuration: the connection, its UUID, what was read.
pub(super) type ReadAgain = (usize, Arc<str>, Result<Known, String>);

impl Engine {
    pub(super) fn reload(&mut self) {
        let source = ConfigSource::look(self.file.as_deref());
        let loaded = Config::load(self.file.as_deref()).map_err(|error| error.to_string());
        let loaded = loaded.and_then(|config| match config.peers.keys() {
            Ok(keys) => Ok((config, keys)),
            Err(error) => Err(error.to_string()),
        });
        match loaded {
            Ok((config, keys)) => {
                advise(self.file.as_deref(), &config);
                for key in config.needs_restart(&self.first) {
                    tracing::warn!(
                        "{key} has changed, which takes effect at the next start: restart announced"
                    );
                }
                if let Some(pace) = &self.host.pace {
                    pace.change(config.limits.frames_per_second);
                }
                if let (Some(peers), Some(keys)) = (&self.peers, keys) {
                    peers.change(keys, &config.peers);
                }
                self.config = config;
                self.wanted_uplinks.send_replace(self.wanted_uplinks());
                self.reorder();
                self.publisher.describe(|daemon| source.describe(daemon));
                tracing::info!(
                    "the configuration is reloaded; it applies to announcements that wait and to new ones"
                );
            }
            Err(error) => {
                self.publisher.describe(|daemon| daemon.config_error = Some(error.clone()));
                tracing::error!("the previous configuration stays in effect: {error}");
            }
        }
    }

    /// Applies the configuration to the announcements that wait: at once, with the addresses that are known, and again when
    /// libvirt has been asked for the addresses of other sources.
    fn reorder(&mut self) {
        let runs: Vec<Number> = self.running.keys().copied().collect();
        runs.into_iter().for_each(|run| self.reorder_one(run, None));
        // Readings for the previous configuration no longer count.
        self.again.abort_all();
        let guests = self.by_guest.iter().map(|(uuid, run)| (run.connection(), uuid.clone()));
        for (number, uuid) in guests.collect::<BTreeSet<_>>() {
            let state = self.state_of(number, &uuid);
            let read = self.connections[number].search.clone();
            let sources = self.config.addresses.sources.clone();
            self.again.spawn(async move {
                let known = patiently(|| read(uuid.clone(), sources.clone()), state).await;
                (number, uuid, known)
            });
        }
        let now = self.epoch.elapsed();
        for number in 0..self.connections.len() {
            let actions = self.connections[number].ledger.read_again(now);
            self.act(number, actions);
        }
    }

    /// A guest was read for the new configuration.
    pub(super) fn read_again(&mut self, (number, uuid, known): ReadAgain) {
        self.was_read(number, &uuid);
        let known = match known {
            Ok(known) => known,
            Err(why) if !self.connections[number].ledger.knows(&uuid) => {
                return tracing::debug!("cannot read the VM {uuid}: {why}");
            }
            Err(why) => {
                return tracing::warn!(
                    "cannot read the VM {uuid} again: {why}; what waits for it is announced with the addresses known before"
                );
            }
        };
        let nics = targets::of(known, &self.config, &self.host.ovs.borrow().ovs);
        for target in nics.into_iter().filter_map(|nic| nic.target.ok()) {
            let is_its = |old: &Target| (old.mac, &old.plug.device) == (target.mac, &target.plug.device);
            let of_nic = |run: &Number| {
                self.running.get(run).is_some_and(|running| is_its(&running.signals.order().target))
            };
            let mut runs = self.runs_of(number, &uuid);
            runs.retain(of_nic);
            let target = Arc::new(target);
            runs.into_iter().for_each(|run| self.reorder_one(run, Some(target.clone())));
        }
    }

    /// Orders an announcement anew, for what its NIC has become if that has changed.
    fn reorder_one(&mut self, run: Number, read: Option<Arc<Target>>) {
        let Some(signals) = self.running.get(&run).map(|running| running.signals.clone()) else {
            return;
        };
        let before = signals.order();
        let target = match read {
            Some(read) if read == before.target => return,
            Some(read) => read,
            None => before.target.clone(),
        };
        if !self.config.announces(&target) {
            return signals.stop(Stop::LeftOut);
        }
        let order = self.order(run.connection(), target, before.cause);
        signals.reorder(Arc::new(Order { source_stopped: before.source_stopped, ..order }));
    }
}
