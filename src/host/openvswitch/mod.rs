//! Open vSwitch: its database (RFC 7047), its bridges' OpenFlow sockets, and ovs-vswitchd's control socket.

mod arrival;
mod carried_out;
pub mod fdb;
pub(crate) mod flow_monitor;
pub mod jsonrpc;
pub mod openflow;
pub(crate) mod ovsdb;
pub mod packet_outs;
pub mod rows;
pub mod unixctl;
