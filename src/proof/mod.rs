//! What the capture points saw, what that proves about each frame, and what Open vSwitch does with it.

pub mod capture_filter;
pub mod capture_point;
pub mod delivery;
pub mod ofproto_flow;
pub mod ofproto_trace;
