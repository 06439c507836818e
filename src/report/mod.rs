//! The results: one record per announcement, its renderings, the daemon's counters, and the daemon's state at one moment.

pub(crate) mod evidence;
pub(crate) mod guest_announcement;
pub(crate) mod handed_over;
pub(crate) mod inquiry;
pub(crate) mod kind_fate;
pub mod metrics;
pub(crate) mod multicast;
pub(crate) mod names;
pub(crate) mod note;
pub mod page;
pub(crate) mod path;
pub(crate) mod record;
mod round_time;
pub mod snapshot;
pub(crate) mod standing;
pub mod svg;
mod text;
pub(crate) mod timeline;
pub(crate) mod unmet;
pub mod waiting;

pub(crate) use path::Path;
pub(crate) use record::{Report, VERSION};
pub(crate) use text::{TRUNK, count};
