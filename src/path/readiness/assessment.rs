//! What readiness is judged by, and the judgement.

use std::time::Duration;

use crate::guest::GuestState;
use crate::guest::target::Target;
use crate::path::attachment::Attachment;
use crate::path::condition::Condition;
use crate::path::link::Links;
use crate::path::ovs::{Ovs, Unreachable};
use crate::path::owner::Owner;
use crate::path::uplinks::Uplinks;

/// The state of the host and of the guest at one moment.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// The host's devices.
    pub links: &'a Links,
    /// Open vSwitch; empty on a host without it.
    pub ovs: &'a Ovs,
    /// Why OVSDB does not answer now; `ovs` may then be out of date.
    pub ovsdb_error: Option<&'a Unreachable>,
    /// The guest's state.
    pub guest: GuestState,
    /// The owner of the port according to the configuration.
    pub in_charge: Option<Owner>,
    /// The port's network has no VLAN according to the configuration, so that no agent sets one.
    pub untagged: bool,
    /// The present moment, on the same clock as the times in `ovs`.
    pub now: Duration,
    /// The devices by which frames leave the host, according to the configuration.
    pub uplinks: &'a Uplinks,
}

/// The attachment of a target, and its readiness.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assessment {
    /// Its attachment, as far as it exists.
    pub attachment: Option<Attachment>,
    /// The OpenFlow port number of the port by which the guest's frames enter; for a hybrid plug, that of its qvo.
    pub ofport: Option<u32>,
    /// How much longer a frame might meet the port's previous state.
    pub settles_in: Option<Duration>,
    /// The owner of the port, and the evidence.
    pub in_charge: (Owner, String),
    /// The VLAN of the guest's untagged frames, if the port puts them into one.
    pub vlan: Option<u16>,
    /// The unmet conditions; empty if it is ready.
    pub unmet: Vec<Condition>,
}

impl Assessment {
    /// Whether a frame sent now would leave the host in its VLAN.
    pub fn is_ready(&self) -> bool {
        self.unmet.is_empty() && self.settles_in.is_none()
    }

    /// The host's end of the NIC: as it was found, else its configured name.
    pub fn device(&self, target: &Target) -> Option<String> {
        let found = self.attachment.as_ref().map(|attachment| &attachment.entry.name);
        found.or(target.plug.device.as_ref()).cloned()
    }

    /// The guest does not use this NIC now: it has left, is paused, or the host's end is gone.
    pub fn is_gone(&self) -> bool {
        let gone = |c: &Condition| matches!(c, Condition::NoDevice { .. } | Condition::Paused(_));
        self.has_left() || self.unmet.iter().any(gone)
    }

    /// The guest will not run here again without a new event.
    pub fn has_left(&self) -> bool {
        self.unmet.iter().any(|c| matches!(c, Condition::Left(_)))
    }
}
