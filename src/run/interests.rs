//! Wakes announcements when something changes that concerns their port, or may: of thousands that wait, a change of one port wakes
//! one.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

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

/// What is woken.
pub(crate) trait Woken: std::fmt::Debug + Send + Sync {
    /// Something has changed on the host that concerns the announcement, or may.
    fn host_has_changed(&self);
    /// How often that was told.
    fn host_changes(&self) -> u64;
}

#[derive(Debug, Default)]
struct Registry {
    /// By the hash of a name: two names with the same hash cost a look too many.
    by_name: BTreeSet<(u64, u64)>,
    all: BTreeMap<u64, Arc<dyn Woken>>,
    /// The number of the last.
    last: u64,
    /// The revisions of the devices and of OVSDB's rows up to which all that changed has woken what it concerns.
    read: Option<Revisions>,
    /// Devices that are a way out, though they be a guest's.
    uplinks: Uplinks,
    /// Announcements that were woken.
    #[cfg(test)]
    woken: usize,
}

type Revisions = (u64, u64);

/// What concerns one announcement.
#[derive(Debug)]
pub(crate) struct Interest {
    interests: Interests,
    number: u64,
    /// Sorted.
    names: Box<[u64]>,
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
                let (news, read) = {
                    let (links, ovs) = (links.borrow_and_update(), ovs.borrow_and_update());
                    (reader.look(&links, &ovs), revisions(&links, &ovs))
                };
                to.lock().take_in(&news, read);
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
    pub(crate) fn begin(&self, uplinks: &Uplinks, woken: Arc<dyn Woken>) -> Interest {
        let mut registry = self.lock();
        registry.last += 1;
        registry.uplinks.clone_from(uplinks);
        let number = registry.last;
        registry.all.insert(number, woken);
        Interest { interests: self.clone(), number, names: Box::default() }
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
    /// Wakes what is concerned by the news until these revisions.
    fn take_in(&mut self, news: &News, read: Revisions) {
        self.wake(news);
        self.read = Some(read);
    }

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
        woken.for_each(|woken| woken.host_has_changed());
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
        if *names != *self.names {
            let mut registry = self.interests.lock();
            for name in &*self.names {
                registry.by_name.remove(&(*name, self.number));
            }
            registry.by_name.extend(names.iter().map(|name| (*name, self.number)));
            drop(registry);
            self.names = names.into();
        }
    }

    /// How often something that may concern it has changed, until the host was as it is here; `None` if that is not known yet.
    pub(crate) fn changes(&self, links: &Links, ovs: &ovsdb::State) -> Option<u64> {
        let registry = self.interests.lock();
        let is_read = registry.read == Some(revisions(links, ovs));
        registry.all.get(&self.number).filter(|_| is_read).map(|woken| woken.host_changes())
    }
}

impl Drop for Interest {
    fn drop(&mut self) {
        let mut registry = self.interests.lock();
        for name in &*self.names {
            registry.by_name.remove(&(*name, self.number));
        }
        registry.all.remove(&self.number);
    }
}

fn revisions(links: &Links, ovs: &ovsdb::State) -> Revisions {
    (links.changes().revision(), ovs.ovs.changes.revision())
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
