//! The results: one record per announcement, its renderings, the daemon's counters, and the daemon's state at one moment.

pub(crate) mod evidence;
pub(crate) mod inquiry;
pub mod metrics;
pub(crate) mod record;
pub mod snapshot;
mod text;
pub(crate) mod timeline;
pub mod waiting;

pub(crate) use record::{Path, Report, VERSION};
