//! The manual pages, the default configuration and the unit against the program: nothing is missing in them, and nothing in
//! them is made up.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a broken page is a failed test")]

#[path = "../testbed/mod.rs"]
mod testbed;

mod announce_1;
mod announced_8;
mod announced_toml_5;
mod diagnostics;
mod names;
mod page;
mod unit;
