//! Watches the ports of guests for what libvirt does not tell.

use tokio::sync::{mpsc, watch};

use crate::host::openvswitch::ovsdb;
use crate::path::link::Links;
use crate::path::port_events::{PortEvent, Ports};
use crate::run::news::{News, Reader};

/// Tells what happens to the ports of guests, until nothing is listened to any more.
pub(crate) fn watch(
    mut links: watch::Receiver<Links>,
    mut ovs: watch::Receiver<ovsdb::State>,
) -> mpsc::UnboundedReceiver<Vec<PortEvent>> {
    let (to, events) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let (mut ports, mut reader) = (Ports::default(), Reader::default());
        loop {
            let happened = {
                let (links, ovs) = (links.borrow_and_update(), ovs.borrow_and_update());
                match reader.look(&links, &ovs) {
                    News::Ports(names) => ports.look_at(&names, &links, &ovs.ovs),
                    News::Everything => ports.look(&links, &ovs.ovs),
                }
            };
            if !happened.is_empty() && to.send(happened).is_err() {
                return;
            }
            let changed = tokio::select! {
                changed = links.changed() => changed,
                changed = ovs.changed() => changed,
                () = to.closed() => return,
            };
            if changed.is_err() {
                return;
            }
        }
    });
    events
}
