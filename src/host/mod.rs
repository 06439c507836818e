//! Everything that touches the machine, one adapter per thing touched; adapters never call each other.
pub mod injector;
pub mod libvirt;
pub mod netlink;
pub mod openvswitch;
mod patience;
pub mod pcap;
pub mod privileges;
pub mod sys;
pub mod witness;
