//! The adapters to the machine, one per thing; adapters do not call each other.
pub(crate) mod backoff;
pub mod injector;
pub(crate) mod libvirt;
pub mod netlink;
pub(crate) mod openvswitch;
pub(crate) mod pcap;
pub(crate) mod peers;
pub(crate) mod privileges;
pub mod sys;
pub(crate) mod sysctl;
pub(crate) mod witness;
