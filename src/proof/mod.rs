//! The frames seen at the capture points, what they prove, and what Open vSwitch does with a frame.

pub(crate) mod answer;
pub(crate) mod capture_filter;
pub(crate) mod capture_point;
pub(crate) mod decapsulation;
pub(crate) mod delivery;
pub(crate) mod departure;
pub mod fdb_show;
pub(crate) mod foreign;
pub(crate) mod membership;
pub mod ofproto_flow;
pub mod ofproto_trace;
pub(crate) mod returned;
pub(crate) mod sighting;
