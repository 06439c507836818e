//! The unit tests of the lab's own tools (`contrib/lab`), which are examples of this package.

#![allow(dead_code, unused_imports, reason = "the programs use the rest")]
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a broken lab is a failed test")]

#[path = "../contrib/lab/probe/echo.rs"]
mod echo;
#[path = "../contrib/lab/probe/record.rs"]
mod record;
#[path = "../contrib/lab/l3switch/switch/mod.rs"]
mod switch;
