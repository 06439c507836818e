//! The real thing: hosts in namespaces, their libvirtd, QEMU and Open vSwitch, and what tcpdump saw. [`testbed`] says how a test
//! builds its own.
//!
//! Whole parts run by their names, `cargo test --test real proof::`.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a broken lab is a failed test")]

#[path = "../testbed/mod.rs"]
mod testbed;

mod announce;
mod asking;
mod chaos;
mod cloud_pages;
mod clouds;
mod daemon;
mod daemon_hangs;
mod daemon_many;
mod daemon_service;
mod daemon_touched;
mod daemon_uplinks;
mod daemon_waits;
mod doctor;
mod elsewhere;
mod explain;
mod guest_itself;
mod guests;
mod handover;
mod hook;
mod lab;
mod leak;
mod learned;
mod libvirts;
mod lifecycle;
mod migration;
mod monitoring;
mod multicast;
mod nestings;
mod netlink;
mod neutron;
mod neutron_outage;
mod never_ready;
mod outage;
mod ovn;
mod ovn_outage;
mod page;
mod pausing;
mod proof;
mod proof_rounds;
mod readiness;
mod spoofing;
mod status;
mod tunnels;
mod ways;
mod witness;
