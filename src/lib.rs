//! Says where a virtual machine lives now, from the hypervisor, the moment its port can carry the words.
//!
//! ```text
//! event, hook, announce --vm
//!       │
//!       ▼
//! domain ──► target           one per NIC, with the addresses that somebody vouches for
//!       │
//!       ▼
//! link, ovs ──► attachment    where it is plugged, hop by hop to the uplink
//!       │
//!       ▼
//! readiness                   what is missing before a frame would leave the host
//!       │ nothing
//!       ▼
//! frame × schedule ──► injection ──► bridge, Open vSwitch ──► uplink
//!       │                                  │
//!       │                       trail, filter: where frames are looked for
//!       │                                  │
//!       │           proof ◄────────────────┘  how far they came, whether they left, what came back
//!       ▼             │
//! report ◄── evidence ┘       for a person, or as JSON
//! ```
//!
//! This half knows no socket, no clock, no runtime and no logger: it is given facts and the time, and says what to do.
//! Everything that touches the machine is under [`host`]; [`announcer`] runs the one with the other.

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

pub use cli::{Linked, main as run_announce};
pub use daemon::{for_hook, main as run_announced};
pub use host::libvirt::find;

/// What the tests under `tests/` and the lab's programs reach. No other program may rely on it.
#[doc(hidden)]
pub mod for_tests {
    pub use crate::announcement::{frame, injection, machine};
    pub use crate::cli::args;
    pub use crate::config::duration;
    pub use crate::guest::{GuestState, address, domain, event, target};
    pub use crate::host::netlink::{self, fdb, links};
    pub use crate::host::openvswitch::{jsonrpc, openflow, rows, unixctl};
    pub use crate::host::{injector, sys};
    pub use crate::path::{attachment, condition, hop, link, ovs, owner, readiness, uplinks, walk};
    pub use crate::proof::{ofproto_flow, ofproto_trace};
    pub use crate::report::{metrics, snapshot};

    /// The configuration as written.
    pub mod config {
        pub use crate::config::{AddressesTable, Config, LibvirtTable, PortsTable};
    }
    /// One announcement's record.
    pub mod report {
        pub use crate::report::record::{Path, VERSION};
    }
}
