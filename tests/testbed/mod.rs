//! Real hosts, real guests and real captures, for the tests that run against the real thing.
//!
//! A test asks for what it needs, builds its own [`Host`], and looks at the wire:
//!
//! ```ignore
//! require!(lab, ovs, libvirt, tshark);
//! let host = Host::build().ovs().libvirt().start();
//! ovs::bridge(&host, "br-int");
//! let nic = Nic::new(1, Plug::Ovs("br-int")).address("192.0.2.10");
//! Guest::new("web1").nova().nic(&nic).start(&host);
//! ovs::bind(&host, &nic.tap(), 100);
//! let wire = Capture::start(&host.wire(), "wire0", Direction::In, &nic.sent());
//! assert_eq!(host.announce(&["--vm", "web1"]).code, Some(0));
//! let frames = wire.stop();
//! ```
//!
//! All of it goes with the test, also when that panics or is killed. Nothing here sleeps for a time and hopes.
#![allow(dead_code, unused_imports, unused_macros, reason = "each test binary uses its own part of this")]
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a broken lab is a failed test")]

pub mod booted;
pub mod capture;
pub mod crowd;
pub mod daemon;
pub mod dissect;
pub mod guest;
pub mod host;
pub mod kernel_guest;
pub mod linux_bridge;
pub mod need;
pub mod network;
pub mod neutron;
pub mod ovn;
pub mod ovs;
pub mod proof;
pub mod rack;
pub mod rounds;
pub mod running;
pub mod site;
pub mod snooping;
pub mod stand;

pub use capture::{Capture, Direction};
pub use daemon::Daemon;
pub use dissect::{Arp, Frame, Kind, Na};
pub use guest::{Guest, Nic, Plug};
pub use host::{Host, Place};
pub(crate) use need::require;
pub use neutron::Neutron;
pub use ovn::Ovn;
pub use rack::Rack;
pub use rounds::{has_all, kinds, report, rounds, rounds_sent, sent};
pub use running::{DEADLINE, Run, Running, eventually};
pub use site::{Attachment, IPV4, IPV6, Site, VLAN, now, timed};
pub use stand::Stand;
