//! What the capture points saw, what that proves about each frame, and what Open vSwitch does with it.

pub(crate) mod answer;
pub(crate) mod capture_filter;
pub(crate) mod capture_point;
pub(crate) mod delivery;
pub mod ofproto_flow;
pub mod ofproto_trace;
pub(crate) mod returned;
