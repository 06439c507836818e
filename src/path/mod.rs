//! Where a NIC is plugged: the host's devices and OVSDB's rows, the path from the guest's port to the host's edges, the
//! owner of the port, and the conditions that are still unmet.

pub mod attachment;
pub mod condition;
pub mod hop;
pub mod link;
mod memo;
pub mod ovs;
pub mod owner;
pub mod readiness;
pub mod uplinks;
pub mod walk;
