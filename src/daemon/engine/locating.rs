//! Finds the guests whose ports something has happened to: only libvirt knows whose a device is.

use std::sync::Arc;

use super::Engine;
use crate::guest::Known;
use crate::guest::domain::Interface;
use crate::guest::event::{Cause, Change};
use crate::path::attachment::{self, VhostUser};
use crate::path::port_events::PortEvent;

/// A guest that was read for port events: the connection, its UUID, the events, what was read.
pub(super) type Found = (usize, Arc<str>, Vec<PortEvent>, Result<Known, String>);

impl Engine {
    /// Something has happened to these ports.
    pub(super) fn locate(&mut self, mut events: Vec<PortEvent>) {
        events.retain(|event| self.config.libvirt.events.contains(&event.cause));
        if events.is_empty() {
            return;
        }
        for (number, connection) in self.connections.iter().enumerate() {
            let ovs = &self.host.ovs.borrow().ovs;
            let vm_of =
                |event: &PortEvent| ovs.named(&event.device)?.interface.external_ids.get("vm-id").cloned();
            for uuid in connection.ledger.running() {
                // Where OVSDB says whose a port is, no other guest needs to be read.
                let may_be_its =
                    |event: &&PortEvent| vm_of(event).is_none_or(|vm| vm.eq_ignore_ascii_case(uuid));
                let events: Vec<PortEvent> = events.iter().filter(may_be_its).cloned().collect();
                if events.is_empty() {
                    continue;
                }
                let read = (connection.search)(uuid.clone(), Vec::new());
                let uuid = uuid.clone();
                self.searches.spawn(async move { (number, uuid, events, read.await) });
            }
        }
    }

    pub(super) fn located(&mut self, (number, uuid, events, known): Found) {
        let domain = match known {
            Ok(known) => known.domain,
            Err(why) => return tracing::debug!("cannot read the VM {uuid}: {why}"),
        };
        for PortEvent { device, sub_port, cause } in events {
            let nic = {
                let ovs = &self.host.ovs.borrow().ovs;
                let row = ovs.named(&device).map(|port| port.interface).filter(|row| row.is_vhost_user());
                let is_its = |nic: &&Interface| {
                    let names = VhostUser {
                        interface_id: nic.interface_id.as_deref(),
                        socket: nic.socket.as_deref(),
                    };
                    nic.device.as_deref() == Some(&device)
                        || row.is_some_and(|row| attachment::is_vhost_user_of(names, row))
                };
                domain.interfaces.iter().find(is_its)
            };
            let Some(nic) = nic else {
                continue;
            };
            let Some(name) = sub_port.or_else(|| nic.alias.clone()).or_else(|| nic.device.clone()) else {
                continue;
            };
            self.touched(number, &uuid, cause, name);
        }
    }

    pub(super) fn touched(&mut self, number: usize, uuid: &str, cause: Cause, name: String) {
        let (change, now) = (Change::Touched(cause, name), self.epoch.elapsed());
        let ledger = &mut self.connections[number].ledger;
        let actions = ledger.change(uuid, None, &change, &self.config.libvirt.events, now);
        self.act(number, actions);
    }
}
