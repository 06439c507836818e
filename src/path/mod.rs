//! The path of a NIC: the host's devices and OVSDB's rows, the hops from the guest's port to the host's edges, the owner of
//! the port, and its unmet conditions.

pub mod attachment;
pub(crate) mod changes;
pub mod condition;
pub mod hop;
pub mod link;
mod neutron_network;
pub mod ovs;
pub mod owner;
pub(crate) mod port_events;
pub mod readiness;
pub mod tunnel;
pub(crate) mod uplink_events;
pub mod uplinks;
pub mod walk;
pub(crate) mod way_out;
