//! What happened: one record for each announcement, its renderings, what the daemon counts, and the daemon's state at one
//! moment.

pub mod evidence;
pub mod metrics;
pub mod record;
pub mod snapshot;
mod text;
pub mod timeline;

pub use record::{Path, Report, VERSION};
