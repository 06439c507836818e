//! Watches the host's uplinks.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::host::openvswitch::ovsdb;
use crate::path::link::Links;
use crate::path::uplink_events::{UplinkStates, Wanted};
use crate::run::news::{News, Reader};

/// Changes are told together so long after the first: a port forwards again some milliseconds after its carrier is back.
const SETTLING_TIME: Duration = Duration::from_millis(300);

/// Tells which uplinks have changed, until nothing is listened to any more.
pub(crate) fn watch(
    mut links: watch::Receiver<Links>,
    mut ovs: watch::Receiver<ovsdb::State>,
    mut wanted: watch::Receiver<Wanted>,
) -> mpsc::UnboundedReceiver<BTreeSet<String>> {
    let (to, events) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let (mut states, mut changed) = (UplinkStates::default(), BTreeSet::new());
        let (mut due, mut reader) = (Instant::now(), Reader::default());
        loop {
            let new = {
                let (links, ovs) = (links.borrow_and_update(), ovs.borrow_and_update());
                let is_another = wanted.has_changed().unwrap_or(false);
                let wanted = wanted.borrow_and_update();
                // A port of a guest's is an uplink only where the configuration says so.
                match reader.look(&links, &ovs) {
                    News::Ports(names)
                        if !is_another && !names.iter().any(|name| wanted.uplinks.has(name)) =>
                    {
                        BTreeSet::new()
                    }
                    _ => states.look(&links, &ovs.ovs, &wanted),
                }
            };
            if changed.is_empty() {
                due = Instant::now() + SETTLING_TIME;
            }
            changed.extend(new);
            let alive = tokio::select! {
                alive = links.changed() => alive,
                alive = ovs.changed() => alive,
                alive = wanted.changed() => alive,
                () = tokio::time::sleep_until(due), if !changed.is_empty() => {
                    let _ = to.send(std::mem::take(&mut changed));
                    Ok(())
                }
                () = to.closed() => return,
            };
            if alive.is_err() {
                return;
            }
        }
    });
    events
}
