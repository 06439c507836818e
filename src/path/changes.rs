//! Which guests' ports have changed lately: what concerns one guest only need not wake the others.

use std::collections::VecDeque;

/// So many changes are kept; a reader that is further behind looks at everything.
const MAX_CHANGES: usize = 1024;
/// In place of a port: ovs-vswitchd has carried out more of OVSDB's configuration (`cur_cfg`).
pub(crate) const CARRIED_OUT: &str = "cur_cfg";

/// The ports of guests that have changed, in order.
#[derive(Debug, Clone, Default)]
pub struct Changes {
    /// Counts the changes.
    revision: u64,
    ports: VecDeque<String>,
}

impl Changes {
    /// Something changed that concerns only the guest with the port of this name.
    pub fn port(&mut self, name: &str) {
        self.revision += 1;
        self.ports.push_back(name.to_owned());
        if self.ports.len() > MAX_CHANGES {
            self.ports.pop_front();
        }
    }

    /// Something changed that may concern every guest.
    pub fn everything(&mut self) {
        self.revision += 1;
        self.ports.clear();
    }

    /// The number of changes so far.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The ports that have changed since there were `revision` changes; `None` if anything may have.
    pub fn since(&self, revision: u64) -> Option<impl Iterator<Item = &str>> {
        let behind = usize::try_from(self.revision.checked_sub(revision)?).ok()?;
        let from = self.ports.len().checked_sub(behind)?;
        Some(self.ports.range(from..).map(String::as_str))
    }
}

/// How it came about is no part of a state.
impl PartialEq for Changes {
    fn eq(&self, _: &Changes) -> bool {
        true
    }
}

impl Eq for Changes {}

#[cfg(test)]
mod tests {
    use super::*;

    fn since(changes: &Changes, revision: u64) -> Option<Vec<&str>> {
        changes.since(revision).map(Iterator::collect)
    }

    #[test]
    fn a_reader_gets_what_it_has_not_read_or_looks_at_everything() {
        let mut changes = Changes::default();
        assert_eq!(since(&changes, 0), Some(vec![]));
        changes.port("tap0");
        changes.port("tap1");
        assert_eq!(since(&changes, 0), Some(vec!["tap0", "tap1"]));
        assert_eq!(since(&changes, 1), Some(vec!["tap1"]));
        changes.everything();
        assert_eq!((since(&changes, 2), since(&changes, 3)), (None, Some(vec![])));
        (0..2 * MAX_CHANGES).for_each(|_| changes.port("tap2"));
        assert_eq!(since(&changes, 3), None, "it is too far behind");
        assert_eq!(since(&changes, changes.revision() - 1), Some(vec!["tap2"]));
        assert_eq!(since(&changes, changes.revision() + 1), None, "of another history");
    }
}
