//! The guests of this host: what libvirt says of them, and the NICs to announce.

pub mod address;
pub mod domain;
pub mod event;
pub(crate) mod ledger;
pub mod target;

use std::any::Any;

use tokio::sync::watch;

use crate::guest::address::{Address, Source};
use crate::guest::domain::Domain;

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
    /// These: each by name, UUID or id.
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
}

/// A guest that runs here.
#[derive(Debug)]
pub struct Guest {
    /// What is known of it.
    pub known: Known,
    /// Whether it runs.
    pub state: watch::Receiver<GuestState>,
}

/// Why a guest that was asked for cannot be announced.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Absent {
    /// libvirt does not know it.
    #[error("no VM {0} on this host (virsh list --all shows those there are)")]
    Unknown(String),
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

/// What came of looking for guests.
#[derive(Debug)]
pub struct Found {
    /// The guests that were asked for, in that order.
    pub guests: Vec<Result<Guest, Absent>>,
    /// What keeps their states up to date.
    pub watching: Box<dyn Any + Send>,
}

/// Looks for guests: libvirt's URI (none for the default), which ones, and the sources whose addresses are wanted.
///
/// Blocks. The error is one line for the operator.
pub(crate) type Find = fn(Option<&str>, &Wanted, &[Source]) -> Result<Found, String>;
