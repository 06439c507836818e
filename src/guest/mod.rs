//! The guests of this host: what libvirt reports about them, and the NICs to announce.

pub mod address;
pub mod domain;
pub mod event;
pub mod gateway;
pub mod ledger;
pub mod network;
pub mod target;
pub(crate) mod xml;

use crate::guest::address::Address;
use crate::guest::domain::Domain;
use crate::guest::gateway::Gateway;

/// A guest's state on this host. The texts are libvirt's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum GuestState {
    /// It runs, or its state is unknown.
    #[default]
    Running,
    /// It does not run now but may resume.
    Paused(&'static str),
    /// It no longer runs here.
    Left(&'static str),
}

/// Which guests to announce.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// These: each by name, UUID or id, by nova's display name, or by the UUID of one of its neutron ports.
    These(Vec<String>),
    /// Every running guest.
    All,
}

/// What libvirt knows of a guest.
#[derive(Debug, Clone)]
pub struct Known {
    /// Its parsed XML.
    pub domain: Domain,
    /// Addresses that are not in the XML: one list per interface of the domain.
    pub addresses: Vec<Vec<Address>>,
    /// Gateways of the interface's libvirt network: one list per interface of the domain.
    pub gateways: Vec<Vec<Gateway>>,
}

/// Why a requested guest cannot be announced.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Absent {
    /// libvirt does not know it.
    #[error("no VM {0} is on this host (virsh list shows the running ones); it may run on another host")]
    Unknown(String),
    /// Several guests match the name.
    #[error("{name} may be any of {}: say which", candidates.join(", "))]
    Ambiguous {
        /// The requested name.
        name: String,
        /// libvirt's names of the matches.
        candidates: Vec<String>,
    },
    /// The guest exists but does not run.
    #[error("the VM {name} is not running: it is {state}{}", resume(.name, .state))]
    NotRunning {
        /// Its name.
        name: String,
        /// libvirt's name of its state.
        state: &'static str,
    },
    /// libvirt's answer about the guest cannot be used.
    #[error("the VM {name}: {why}")]
    Unreadable {
        /// Its name, as requested.
        name: String,
        /// What is wrong.
        why: String,
    },
}

/// The command that makes a paused guest run again.
fn resume(name: &str, state: &str) -> String {
    if state == "paused" { format!(" (virsh resume {name})") } else { String::new() }
}
