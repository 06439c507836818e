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

pub mod address;
pub mod announcement;
pub mod announcer;
pub mod attachment;
pub mod budget;
pub mod cli;
pub mod config;
pub mod daemon;
pub mod domain;
pub mod duration;
pub mod event;
pub mod evidence;
pub mod explain;
pub mod filter;
pub mod frame;
pub mod guest;
pub mod host;
pub mod injection;
pub mod inquiry;
pub mod link;
pub mod log;
mod memo;
pub mod metrics;
pub mod observer;
pub mod ofproto;
pub mod oneshot;
pub mod orders;
pub mod ovs;
pub mod pace;
pub mod proof;
pub mod readiness;
pub mod report;
pub mod roster;
pub mod schedule;
pub mod status;
pub mod target;
pub mod timeline;
pub mod trace;
pub mod trail;
