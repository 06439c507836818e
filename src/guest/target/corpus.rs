//! Domains of the kinds that other projects write: of every NIC something is said, and no NIC is skipped.

use super::*;

/// What is made of each NIC: its device or socket, MAC and addresses, or why no host can speak for it.
fn told(xml: &str) -> Vec<String> {
    let domain = Domain::parse(xml).unwrap();
    let nics = of(&domain, |_| None);
    assert_eq!(nics.len(), xml.matches("<interface ").count(), "a NIC is skipped");
    let told = |nic: Result<Target, Unannounceable>| match nic {
        Ok(target) => {
            let plug = &target.plug;
            let end = plug.device.as_ref().or(plug.socket.as_ref()).cloned().unwrap_or_default();
            let known = target.addresses.iter().filter(|address| address.source != Source::Implied);
            let ips: Vec<String> = known.map(|address| format!(" {}", address.ip)).collect();
            let vlan = target.vlan.map(|vlan| format!(" VLAN {:?}", vlan.tags)).unwrap_or_default();
            let manager = target.manager.map(|manager| format!(" {manager:?}")).unwrap_or_default();
            let link = if target.link_up { "" } else { " down" };
            format!("{end}{}{vlan}{manager}{link}", ips.concat())
        }
        Err(refused) => refused.reason.split(',').next().unwrap_or_default().to_owned(),
    };
    nics.into_iter().map(told).collect()
}

#[test]
fn nova() {
    assert_eq!(
        told(include_str!("../../../tests/data/domains/nova.xml")),
        [
            "tap11111111-aa 10.20.0.5 2001:db8:20::5 Nova",
            "tap22222222-aa 10.21.0.5 Nova",
            "/var/lib/vhost_sockets/vhu33333333-aa 10.22.0.5 Nova",
            "macvtap3 Nova",
            "a NIC of type hostdev bypasses the host",
            "a NIC of type vdpa bypasses the host",
        ]
    );
}

#[test]
fn ovirt() {
    let xml = include_str!("../../../tests/data/domains/ovirt.xml");
    assert_eq!(told(xml), ["vnet12", "vnet13 down"]);
    assert_eq!(*Domain::parse(xml).unwrap().name, *"db 01");
}

#[test]
fn opennebula() {
    assert_eq!(
        told(include_str!("../../../tests/data/domains/opennebula.xml")),
        ["one-217-0 OpenNebula", "one-217-1 192.168.101.7"]
    );
}

#[test]
fn virt_manager() {
    assert_eq!(
        told(include_str!("../../../tests/data/domains/virt-manager.xml")),
        [
            "vnet0",
            "vnet1 VLAN [42, 47]",
            "macvtap0",
            "a NIC of passt's is on no network that can be announced"
        ]
    );
}

#[test]
fn kubevirt() {
    assert_eq!(told(include_str!("../../../tests/data/domains/kubevirt.xml")), ["tap0", "tap16477688c0e"]);
}

#[test]
fn hosting_panels() {
    assert_eq!(
        told(include_str!("../../../tests/data/domains/hosting.xml")),
        [
            "tap101i0 203.0.113.101 203.0.113.102 2001:db8:101::1",
            "tap101i1 VLAN [30]",
            "the domain's XML gives it no MAC address"
        ]
    );
}

#[test]
fn cloud_hypervisor() {
    let xml = include_str!("../../../tests/data/domains/cloud-hypervisor.xml");
    assert_eq!(told(xml), ["chtap0", "vnet21"]);
}

#[test]
fn cloudstack() {
    assert_eq!(
        told(include_str!("../../../tests/data/domains/cloudstack.xml")),
        ["vnet20", "vnet21 down", "vnet22 VLAN [2102]"]
    );
}

#[test]
fn vagrant() {
    assert_eq!(
        told(include_str!("../../../tests/data/domains/vagrant.xml")),
        ["vnet4", "vnet5", "macvtap1", "a NIC of type udp is on no network that can be announced"]
    );
}

#[test]
fn terraform() {
    assert_eq!(
        told(include_str!("../../../tests/data/domains/terraform.xml")),
        ["vnet9", "vnet10", "macvtap4", "macvtap5", "a NIC of type hostdev bypasses the host"]
    );
}

/// Of a user's session: no NIC but the last is on a network of the host.
#[test]
fn cockpit() {
    let passt = "a NIC of passt's is on no network that can be announced";
    assert_eq!(
        told(include_str!("../../../tests/data/domains/cockpit.xml")),
        [passt, "a NIC of type user is on no network that can be announced", passt, "tap0"]
    );
}

#[test]
fn multipass() {
    assert_eq!(
        told(include_str!("../../../tests/data/domains/multipass.xml")),
        ["vnet7", "tap4d5e6f70", "veth-tap3"]
    );
}

#[test]
fn passed_through() {
    assert_eq!(
        told(include_str!("../../../tests/data/domains/passed-through.xml")),
        [
            "vnet31",
            "a NIC of type hostdev bypasses the host",
            "macvtap9",
            "a NIC of type vdpa bypasses the host",
            "vhu31"
        ]
    );
}

#[test]
fn other_drivers() {
    let none = |kind: &str| format!("a NIC of type {kind} is on no network that can be announced");
    let kinds = ["mcast", "server", "client", "internal", "vds", "null"];
    let expected: Vec<String> = kinds.map(none).into_iter().chain(["vif9.0".to_owned()]).collect();
    assert_eq!(told(include_str!("../../../tests/data/domains/other-drivers.xml")), expected);
}
