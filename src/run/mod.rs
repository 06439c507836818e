//! One announcement on a real host, from order to report.

pub mod announcer;
pub mod diagnose;
pub mod observer;
pub mod order;
pub mod pacer;
