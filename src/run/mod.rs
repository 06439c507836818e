//! One announcement on a real host, from order to report.

pub(crate) mod announcer;
pub(crate) mod asking;
pub(crate) mod diagnose;
#[cfg(test)]
pub(crate) mod fake;
pub(crate) mod guest_asker;
pub(crate) mod host;
pub(crate) mod interests;
pub(crate) mod inward;
mod lacking;
pub(crate) mod link_query;
mod news;
pub(crate) mod observer;
pub(crate) mod order;
pub(crate) mod pacer;
pub(crate) mod ports;
pub(crate) mod routed;
pub(crate) mod sent_frames;
pub(crate) mod settings;
mod showing;
pub(crate) mod signals;
pub(crate) mod slots;
pub(crate) mod solicitor;
mod stage;
pub(crate) mod targets;
#[cfg(test)]
pub(crate) mod testbed;
pub(crate) mod traces;
pub(crate) mod uplinks;
pub(crate) mod waiting;
pub(crate) mod wall_clock;
