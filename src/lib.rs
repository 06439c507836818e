//! Announces a live-migrated virtual machine from its hypervisor as soon as its port carries traffic, and proves that the
//! frames left the host.
//!
//! ```text
//! event, hook, announce --vm
//!       │
//!       ▼
//! domain ──► target           one per NIC, with its trusted addresses
//!       │
//!       ▼
//! link, ovs ──► attachment    the path from its port, hop by hop, to the host's edges
//!       │
//!       ▼
//! readiness                   the conditions that keep a frame from leaving the host
//!       │ nothing
//!       ▼
//! frame × schedule ──► injection ──► bridge, Open vSwitch ──► uplink
//!       │                                  │
//!       │                       capture points and filters
//!       │                                  │
//!       │           proof ◄────────────────┘  which hops the frames reached, and what was answered
//!       ▼             │
//! report ◄── evidence ┘       as text, JSON and metrics
//! ```
//!
//! The rooms `guest`, `path`, `announcement`, `proof` and `report` use no socket, clock, runtime or logger: they take facts
//! and the time, and return actions. `host` contains all that touches the machine, and `run` connects the two.

#![warn(unreachable_pub)]

mod announcement;
mod cli;
mod config;
mod daemon;
mod guest;
mod host;
mod log;
mod path;
mod proof;
mod report;
mod run;

pub use cli::{Linked, in_one_line, main as run_announce};
pub use daemon::{for_hook, main as run_announced};
pub use host::libvirt::CALLS as LIBVIRT;
pub use host::sys::name_process;

/// What the tests under `tests/` and the lab's programs use. No other program may rely on it.
#[doc(hidden)]
pub mod for_tests {
    pub use crate::announcement::{failure, frame, handover, injection, progress};
    pub use crate::cli::{args, command_first};
    pub use crate::config::duration;
    pub use crate::guest::{GuestState, address, domain, event, gateway, ledger, network, target};
    pub use crate::host::netlink::{self, fdb, links, routes};
    pub use crate::host::openvswitch::fdb as ovs_fdb;
    pub use crate::host::openvswitch::{jsonrpc, openflow, packet_outs, rows, unixctl};
    pub use crate::host::{injector, sys};
    pub use crate::path::{attachment, condition, hop, link, ovs, owner, readiness, tunnel, uplinks, walk};
    pub use crate::proof::{
        capture_filter, capture_point, decapsulation, fdb_show, membership, ofproto_flow, ofproto_trace,
        sighting,
    };
    pub use crate::report::{metrics, page, snapshot, svg, waiting};

    /// The configuration file.
    pub mod config {
        pub use crate::config::{AddressesTable, Config, LibvirtTable, PeerAddress, PeersTable, PortsTable};
    }
    /// What captured frames prove.
    pub mod proof {
        pub use crate::proof::answer::{AnsweredBy, Inquiry};
        pub use crate::proof::delivery::{Delivery, RoundFate};
        pub use crate::proof::foreign::Foreign;
    }
    /// The record of one announcement.
    pub mod report {
        pub use crate::report::note::Note;
        pub use crate::report::path::Path;
        pub use crate::report::record::{Report, VERSION};
    }
}
