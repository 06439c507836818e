//! Everything that touches the machine, one adapter per thing touched; adapters never call each other.
pub mod clients;
pub mod http;
pub mod injector;
pub mod jsonrpc;
pub mod keep;
pub mod learned;
pub mod libvirt;
pub mod links;
pub mod netlink;
pub mod openflow;
pub mod ovsdb;
mod patience;
pub mod pcap;
pub mod privileges;
pub mod sys;
pub mod unixctl;
pub mod witness;
