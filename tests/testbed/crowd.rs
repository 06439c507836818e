//! Guests by the hundred: libvirt's test driver stands in for QEMU, in a real libvirtd; the taps, the bridge and the frames
//! are real.

use std::fmt::Write;
use std::os::fd::OwnedFd;

use super::guest::{Guest, Nic};
use super::host::{Host, Place};
use super::stand;

/// That libvirt, by its address.
pub const URI: &str = "test+unix:///default?socket=/run/libvirt/libvirt-sock";

/// In br0, and with a carrier for as long as these are held. None is given the others' frames.
pub fn taps(host: &Host, nics: &[Nic]) -> Vec<OwnedFd> {
    let taps = stand::taps(host, nics);
    let plug = |nic: &Nic| {
        let tap = nic.tap();
        format!(
            "link set {tap} master br0 up\nlink set {tap} type bridge_slave bcast_flood off mcast_flood off\n"
        )
    };
    let batch = host.directory().join("taps");
    std::fs::write(&batch, nics.iter().map(plug).collect::<String>()).unwrap();
    host.sh(&format!("ip -batch {}", batch.display()));
    taps
}

/// They run, says libvirt.
pub fn create(host: &Host, nics: &[Nic]) {
    let mut commands = String::new();
    for nic in nics {
        let name = nic.tap().replace("tap", "web");
        let file = host.directory().join(format!("{name}.xml"));
        let guest = Guest::new(name).of_test_driver().nova().nic(nic);
        std::fs::write(&file, guest.xml()).unwrap();
        writeln!(commands, "create {}", file.display()).unwrap();
    }
    let file = host.directory().join("create");
    std::fs::write(&file, commands).unwrap();
    host.sh(&format!("virsh --quiet --connect '{URI}' <{}", file.display()));
}
