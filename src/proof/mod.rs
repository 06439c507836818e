//! The frames seen at the capture points, what they prove, and what Open vSwitch does with a frame.

pub(crate) mod answer;
pub mod capture_filter;
pub mod capture_point;
pub mod decapsulation;
pub(crate) mod delivery;
pub(crate) mod departure;
pub mod fdb_show;
pub(crate) mod findings;
pub(crate) mod foreign;
pub mod membership;
pub mod ofproto_flow;
pub mod ofproto_trace;
pub(crate) mod returned;
pub(crate) mod self_announcement;
pub mod sighting;
