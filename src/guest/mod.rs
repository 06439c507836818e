//! The guests of this host: what libvirt says of them, and the NICs to announce.

pub mod address;
pub mod domain;
pub mod event;
pub(crate) mod gateway;
pub(crate) mod ledger;
pub mod target;

use crate::guest::address::Address;
use crate::guest::domain::Domain;
use crate::guest::gateway::Gateway;

/// The guest's state on this host; the words are libvirt's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum GuestState {
    /// It runs, or its state is not known.
    #[default]
    Running,
    /// It does not run at present, and may go on.
    Paused(&'static str),
    /// It does not run here any more.
    Left(&'static str),
}

/// Which guests are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// These: each by name, UUID or id, by nova's name for it, or by the UUID of one of its ports in nova.
    These(Vec<String>),
    /// Every one that runs.
    All,
}

/// What is known of a guest.
#[derive(Debug, Clone)]
pub struct Known {
    /// What its XML says.
    pub domain: Domain,
    /// For each of the domain's interfaces, addresses that are not in its XML.
    pub addresses: Vec<Vec<Address>>,
    /// For each of them, the gateways that its libvirt network has.
    pub gateways: Vec<Vec<Gateway>>,
}

/// Why a guest that was asked for cannot be announced.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Absent {
    /// libvirt does not know it.
    #[error("no VM {0} is on this host (virsh list shows the running ones); it may run on another host")]
    Unknown(String),
    /// Several are called so.
    #[error("{name} may be any of {}: say which", candidates.join(", "))]
    Ambiguous {
        /// What was asked for.
        name: String,
        /// libvirt's names for them.
        candidates: Vec<String>,
    },
    /// It is there, but does not run.
    #[error("the VM {name} is not running: it is {state}")]
    NotRunning {
        /// Its name.
        name: String,
        /// libvirt's word for its state.
        state: &'static str,
    },
    /// libvirt's answer about it cannot be used.
    #[error("the VM {name}: {why}")]
    Unreadable {
        /// Its name, as asked for.
        name: String,
        /// What is wrong.
        why: String,
    },
}
