//! What has changed on the host since a task last looked: the ports of some guests, or anything.

use std::collections::BTreeSet;

use crate::host::openvswitch::ovsdb;
use crate::path::link::Links;

/// Remembers what a task has seen of the host.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    /// The revisions of the devices and of OVSDB's rows.
    seen: Option<(u64, u64)>,
    error: Option<String>,
}

/// What has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum News {
    /// Only the ports of guests by which these names lead.
    Ports(BTreeSet<String>),
    /// Perhaps more.
    Everything,
}

impl Reader {
    /// What has changed since the last look; at the first, everything has.
    pub(crate) fn look(&mut self, links: &Links, state: &ovsdb::State) -> News {
        let now = (links.changes().revision(), state.ovs.changes.revision());
        let before = self.seen.replace(now);
        let error = state.error.as_ref().map(|error| error.why.clone());
        if std::mem::replace(&mut self.error, error.clone()) != error {
            return News::Everything;
        }
        let since = before.and_then(|(of_links, of_ovs)| {
            Some((links.changes().since(of_links)?, state.ovs.changes.since(of_ovs)?))
        });
        let Some((devices, rows)) = since else {
            return News::Everything;
        };
        let devices: BTreeSet<&str> = devices.collect();
        // A device in Open vSwitch that is not one guest's leads on, whichever device it is.
        let leads_on = |device: &&str| {
            let plugged = state.ovs.named(device);
            plugged.is_some_and(|plugged| plugged.interface.names().is_none())
        };
        // A marked port may be the far end of a veth, behind which there are other guests, or in a Linux bridge, too.
        let is_between = |row: &&str| {
            links
                .named(row)
                .is_some_and(|link| !(link.is_one_guests() || link.is_representor && link.master.is_none()))
        };
        let rows: BTreeSet<&str> = rows.collect();
        if devices.iter().any(leads_on) || rows.iter().any(is_between) {
            return News::Everything;
        }
        News::Ports(devices.into_iter().chain(rows).map(str::to_owned).collect())
    }
}
