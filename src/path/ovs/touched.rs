//! The guests' ports that an update of OVSDB's rows concerns.

use std::collections::{BTreeSet, HashSet};

use super::{Bridge, Interface, Ovs, Port, Uuid};
use crate::path::changes::CARRIED_OUT;

/// A bridge with so few ports may be one guest's own, whose shape each port decides.
const MAX_PORTS_OF_SMALL: usize = 3;

/// The rows that an update has touched.
#[derive(Debug, Default)]
pub struct Touched {
    ports: BTreeSet<Uuid>,
    interfaces: BTreeSet<Uuid>,
    /// The interfaces of before.
    replaced: Vec<Interface>,
    /// It may concern every guest.
    everything: bool,
    carried_out: bool,
}

impl Touched {
    /// The single row of `Open_vSwitch` has changed; `before` is the state with the row of before.
    pub fn open_vswitch(&mut self, before: (i64, bool), ovs: &Ovs) {
        let (cur_cfg, has_same_settings) = before;
        // Another ovs-vswitchd counts anew.
        self.everything |= !has_same_settings || ovs.cur_cfg < cur_cfg;
        self.carried_out |= ovs.cur_cfg != cur_cfg;
    }

    /// A bridge's row has changed.
    pub fn bridge(&mut self, before: Option<&Bridge>, now: Option<&Bridge>) {
        let (Some(before), Some(now)) = (before, now) else {
            self.everything = true;
            return;
        };
        let is_small = before.ports.len().min(now.ports.len()) <= MAX_PORTS_OF_SMALL;
        self.everything |= is_small || (&before.name, &before.mirrors) != (&now.name, &now.mirrors);
        let [old, new] = [before, now].map(|bridge| bridge.ports.iter().collect::<HashSet<_>>());
        self.ports.extend(old.symmetric_difference(&new).map(|uuid| (**uuid).clone()));
    }

    /// A mirror has another output: a port or a VLAN is a way out no longer, or again.
    pub fn mirror(&mut self) {
        self.everything = true;
    }

    /// A port's row has changed.
    pub fn port(&mut self, uuid: &str, before: Option<Port>) {
        self.ports.insert(uuid.to_owned());
        self.interfaces.extend(before.into_iter().flat_map(|port| port.interfaces));
    }

    /// An interface's row has changed.
    pub fn interface(&mut self, uuid: &str, before: Option<Interface>) {
        self.interfaces.insert(uuid.to_owned());
        self.replaced.extend(before);
    }

    /// Adds the ports to the changes of `ovs`, which has been updated.
    pub fn note(mut self, ovs: &mut Ovs) {
        let ports = self.ports.iter().filter_map(|uuid| ovs.ports.get(uuid));
        let interfaces: Vec<&[Uuid]> = ports.map(|port| &port.interfaces[..]).collect();
        self.everything |= interfaces.iter().any(|of_port| of_port.len() > 1);
        self.interfaces.extend(interfaces.into_iter().flatten().cloned());
        let now = self.interfaces.iter().filter_map(|uuid| ovs.interfaces.get(uuid));
        let names: Option<Vec<Vec<&str>>> = self.replaced.iter().chain(now).map(Interface::names).collect();
        let Some(names) = names.filter(|_| !self.everything) else {
            return ovs.changes.everything();
        };
        let names: BTreeSet<String> = names.into_iter().flatten().map(str::to_owned).collect();
        names.iter().for_each(|name| ovs.changes.port(name));
        if self.carried_out {
            ovs.changes.port(CARRIED_OUT);
        }
    }
}
