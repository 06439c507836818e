//! Wakes announcements when something changes that concerns their port, or may: of thousands that wait, a change of one port wakes
//! one.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, watch};

use super::news::{News, Reader};
use crate::guest::target::Target;
use crate::host::openvswitch::ovsdb;
use crate::path::changes::CARRIED_OUT;
use crate::path::condition::Condition;
use crate::path::link::Links;
use crate::path::readiness::Assessment;
use crate::path::uplinks::Uplinks;

/// The announcements of this host, by what concerns them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Interests(Arc<Mutex<Registry>>);

#[derive(Debug, Default)]
struct Registry {
    /// By the hash of a name: two names with the same hash cost a look too many.
    by_name: BTreeSet<(u64, u64)>,
    all: BTreeMap<u64, Arc<Notify>>,
    /// The number of the last.
    last: u64,
    /// Devices that are a way out, though they be a guest's.
    uplinks: Uplinks,
    /// Announcements that were woken.
    #[cfg(test)]
    woken: usize,
}

/// What concerns one announcement.
#[derive(Debug)]
pub(crate) struct Interest {
    interests: Interests,
    number: u64,
    /// Sorted.
    names: Vec<u64>,
    woken: Arc<Notify>,
}

impl Interests {
    /// Watches the host for as long as `links` is written.
    pub(crate) fn start(
        mut links: watch::Receiver<Links>,
        mut ovs: watch::Receiver<ovsdb::State>,
    ) -> Interests {
        let interests = Interests::default();
        let to = interests.clone();
        tokio::spawn(async move {
            let mut reader = Reader::default();
            loop {
                let news = reader.look(&links.borrow_and_update(), &ovs.borrow_and_update());
                to.lock().wake(&news);
                let changed = tokio::select! {
                    changed = links.changed() => changed,
                    changed = ovs.changed() => changed,
                };
                if changed.is_err() {
                    return to.lock().wake(&News::Everything);
                }
            }
        });
        interests
    }

    /// An announcement begins, which is woken by whatever concerns all; `uplinks` are those of the configuration.
    pub(crate) fn begin(&self, uplinks: &Uplinks) -> Interest {
        let woken = Arc::new(Notify::new());
        let mut registry = self.lock();
        registry.last += 1;
        registry.uplinks.clone_from(uplinks);
        let number = registry.last;
        registry.all.insert(number, woken.clone());
        Interest { interests: self.clone(), number, names: Vec::new(), woken }
    }

    fn lock(&self) -> MutexGuard<'_, Registry> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many announcements were woken until now.
    #[cfg(test)]
    pub(crate) fn woken(&self) -> usize {
        self.lock().woken
    }
}

impl Registry {
    fn wake(&mut self, news: &News) {
        let numbers: Vec<u64> = match news {
            News::Ports(ports) if !ports.iter().any(|port| self.uplinks.has(port)) => {
                let of = |port: &String| {
                    let name = hash(port);
                    self.by_name.range((name, 0)..=(name, u64::MAX)).map(|(_, number)| *number)
                };
                ports.iter().flat_map(of).collect()
            }
            _ => self.all.keys().copied().collect(),
        };
        let woken = numbers.iter().filter_map(|number| self.all.get(number));
        woken.for_each(|woken| woken.notify_one());
        #[cfg(test)]
        {
            self.woken += numbers.len();
        }
    }
}

impl Interest {
    /// It is concerned by what `seen` depends on, from now on.
    pub(crate) fn follow(&mut self, target: &Target, seen: &Assessment) {
        let mut names: Vec<u64> = names(target, seen).into_iter().map(hash).collect();
        names.sort_unstable();
        names.dedup();
        if names != self.names {
            let mut registry = self.interests.lock();
            for name in &self.names {
                registry.by_name.remove(&(*name, self.number));
            }
            registry.by_name.extend(names.iter().map(|name| (*name, self.number)));
            drop(registry);
            names.shrink_to_fit();
            self.names = names;
        }
    }

    /// Waits for a change that may concern it since the last one.
    pub(crate) async fn changed(&self) {
        self.woken.notified().await;
    }
}

impl Drop for Interest {
    fn drop(&mut self) {
        let mut registry = self.interests.lock();
        for name in &self.names {
            registry.by_name.remove(&(*name, self.number));
        }
        registry.all.remove(&self.number);
    }
}

fn hash(name: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    hasher.finish()
}

/// The names of the devices and rows that are this target's alone.
fn names<'a>(target: &'a Target, seen: &'a Assessment) -> Vec<&'a str> {
    let plug = &target.plug;
    let mut names: Vec<&str> =
        [&plug.device, &plug.interface_id, &plug.socket].into_iter().flatten().map(String::as_str).collect();
    // By the name of its interface, too, a vhost-user socket is found.
    names.extend(plug.socket.as_ref().and_then(|socket| socket.rsplit('/').next()));
    if let Some(attachment) = &seen.attachment {
        let entry = &attachment.entry;
        names.extend([&entry.name, &attachment.port].map(String::as_str));
        names.extend(entry.ovs.as_ref().map(|port| port.interface.as_str()));
    }
    names.extend(seen.unmet.iter().filter_map(|unmet| match unmet {
        Condition::NotInOvs { device } => Some(device.as_str()),
        Condition::NotApplied { .. } => Some(CARRIED_OUT),
        _ => None,
    }));
    names.extend(seen.settles_in.map(|_| CARRIED_OUT));
    names
}

#[cfg(test)]
mod tests;
