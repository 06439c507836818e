//! A port that does not become ready: exit status 3, one line that names what is missing, and not a single frame.

use std::time::Duration;

use crate::testbed::{
    Attachment, DEADLINE, Guest, Host, Nic, Place, Plug, Site, guest, ovs, report, require, sent,
};

/// What is done to a port that is ready; what is then said; how it is undone.
type Case = (&'static str, &'static str, &'static str);

#[test]
fn on_an_open_vswitch_port() {
    require!(lab, ovs, libvirt, tshark);
    let site = Site::ready(Attachment::Ovs);
    for case in [
        (
            "ovs-vsctl clear Port TAP tag",
            "the port TAP has no VLAN tag yet",
            "ovs-vsctl set Port TAP tag=100",
        ),
        (
            "ovs-vsctl set Port TAP tag=4095",
            "the port TAP has tag 4095, neutron's dead VLAN",
            "ovs-vsctl set Port TAP tag=100",
        ),
        (
            "ovs-vsctl set Port TAP tag=0",
            "the port TAP has tag 0, which is no VLAN",
            "ovs-vsctl set Port TAP tag=100",
        ),
        (
            "ovs-vsctl set Port TAP vlan_mode=trunk",
            "the port TAP has vlan_mode trunk, not access",
            "ovs-vsctl clear Port TAP vlan_mode",
        ),
        (
            "ovs-vsctl set Interface TAP external_ids:ovn-installed=false",
            "ovn-controller has not installed the flows of TAP",
            "ovs-vsctl remove Interface TAP external_ids ovn-installed",
        ),
        (
            "ovs-vsctl set Open_vSwitch . external_ids:ovn-remote=ssl:192.0.2.254:6642",
            "ovn-controller has not installed the flows of TAP",
            "ovs-vsctl remove Open_vSwitch . external_ids ovn-remote",
        ),
        (
            "ovs-vsctl --no-wait set Interface TAP type=nonsense; while ovs-vsctl get Interface TAP ofport | grep -q '^[1-9]'; do :; done",
            "Open vSwitch has no OpenFlow port for TAP",
            "ovs-vsctl set Interface TAP type=system; ovs-vsctl wait-until Interface TAP 'ofport>0'",
        ),
        (
            "virsh domif-setlink web1 TAP down",
            "the guest's link is down in the domain's XML",
            "virsh domif-setlink web1 TAP up",
        ),
        (
            "ovs-vsctl del-port TAP",
            "TAP is not plugged into a bridge",
            "ovs-vsctl add-port br-int TAP tag=100; ovs-vsctl wait-until Interface TAP 'ofport>0'",
        ),
        (
            "mv /run/openvswitch/db.sock /run/db.sock",
            "OVSDB cannot be reached: cannot connect to /run/openvswitch/db.sock",
            "mv /run/db.sock /run/openvswitch/db.sock",
        ),
    ] {
        is_never_ready(&site, case);
    }
}

#[test]
fn on_an_open_vswitch_port_that_is_to_be_in_a_vlan() {
    require!(lab, ovs, libvirt, tshark);
    let site = Site::build(Attachment::Ovs);
    let wire = site.wire();
    for (tag, words) in [("100", "has tag 100, not 300"), ("[]", "has no VLAN tag yet (wants 300)")] {
        site.host.sh(&format!("ovs-vsctl set Port {} tag={tag}", site.port()));
        let run = site.announce(&["--wait", "0", "--vlan", "300"]);
        assert!(run.code == Some(3) && run.stderr.contains(words), "{run:#?}");
    }
    assert_eq!(wire.stop(), []);
}

#[test]
fn on_a_hybrid_plug() {
    require!(lab, ovs, libvirt, tshark);
    let site = Site::ready(Attachment::Hybrid);
    for case in [
        (
            "ovs-vsctl clear Port QVO tag",
            "the port QVO has no VLAN tag yet",
            "ovs-vsctl set Port QVO tag=100",
        ),
        (
            "ovs-vsctl del-port QVO",
            "QVO is not plugged into Open vSwitch",
            "ovs-vsctl add-port br-int QVO tag=100",
        ),
        ("ip link set QBR down", "QBR is down", "ip link set QBR up"),
        ("ip link set TAP down", "TAP is down", "ip link set TAP up"),
        ("ip link set QVB down", "QVB is down", "ip link set QVB up"),
        ("ip link set QVO down", "QVB has no carrier", "ip link set QVO up"),
        (
            "bridge link set dev QVB state 2",
            "the bridge QBR does not forward from QVB yet: the port is learning",
            "bridge link set dev QVB state 3",
        ),
        ("ip link set TAP nomaster", "TAP is not plugged into a bridge", "ip link set TAP master QBR"),
    ] {
        is_never_ready(&site, case);
    }
}

#[test]
fn on_a_linux_bridge() {
    require!(lab, libvirt, tshark);
    let site = Site::ready(Attachment::LinuxBridge);
    for case in [
        ("ip link set br0 down", "br0 is down", "ip link set br0 up"),
        ("ip link set TAP down", "TAP is down", "ip link set TAP up"),
        (
            "bridge link set dev TAP state 2",
            "the bridge br0 does not forward from TAP yet: the port is learning",
            "bridge link set dev TAP state 3",
        ),
        ("ip link set TAP nomaster", "TAP is not plugged into a bridge", "ip link set TAP master br0"),
        (
            "ip link set TAP down; ip link set TAP name gone; ip link set gone up",
            "TAP does not exist",
            "ip link set gone down; ip link set gone name TAP; ip link set TAP up",
        ),
    ] {
        is_never_ready(&site, case);
    }
}

#[test]
fn on_a_trunk_bridge_without_its_patch() {
    require!(lab, ovs, libvirt, tshark);
    let host = Host::build().ovs().libvirt().start();
    ovs::bridge(&host, "br-int");
    host.sh("ovs-vsctl add-br tbr-567a450b -- set Bridge tbr-567a450b datapath_type=netdev");
    let nic = Nic::new(11, Plug::Ovs("tbr-567a450b"));
    Guest::new("web1").nova().nic(&nic).start(&host);
    let run = host.announce(&["--vm", "web1", "--wait", "0"]);
    assert_eq!(run.code, Some(3), "{run:#?}");
    let words = "the bridge tbr-567a450b has no patch port to the integration bridge";
    assert!(run.stderr.contains(words), "{run:#?}");
}

#[test]
fn on_a_macvtap_whose_lower_device_is_down() {
    require!(lab, libvirt, tshark);
    let _alone = guest::macvtaps();
    let host = Host::build().libvirt().start();
    let nic = Nic::new(12, Plug::Direct("up0"));
    Guest::new("web1").nic(&nic).start(&host);
    host.sh("ip link set up0 down");
    let run = host.announce(&["--vm", "web1", "--wait", "0"]);
    assert_eq!(run.code, Some(3), "{run:#?}");
    assert!(run.stderr.contains("up0 is down"), "{run:#?}");
}

/// The patience that was asked for, and no more.
#[test]
fn it_waits_for_as_long_as_it_may() {
    require!(lab, ovs, libvirt, tshark);
    let site = Site::build(Attachment::Ovs);
    let wire = site.wire();

    let run = site.announce(&["--wait", "700ms", "--json"]);

    assert_eq!(run.code, Some(3), "{run:#?}");
    assert!(run.took >= Duration::from_millis(700), "{run:#?}");
    let report = report(&run);
    assert_eq!((&report["outcome"], &report["rounds"]), (&"not-ready".into(), &0.into()));
    let unmet = format!("the port {} has no VLAN tag yet", site.port());
    assert_eq!(report["unmet"], serde_json::json!([unmet]));
    assert_eq!(wire.stop(), []);
}

/// Both once with a look and no more, and with some patience: the words are the same.
fn is_never_ready(site: &Site, (spoil, words, repair): Case) {
    let named = |text: &str| {
        let names = [("TAP", "tap"), ("QBR", "qbr"), ("QVB", "qvb"), ("QVO", "qvo")];
        names
            .iter()
            .fold(text.to_owned(), |text, (name, prefix)| text.replace(name, &site.nic.device(prefix)))
    };
    let wire = site.wire();
    site.host.sh(&named(spoil));

    for wait in ["0", "100ms"] {
        let run = site.announce(&["--wait", wait]);

        let line = format!(": not-ready: {}", named(words));
        // Where nothing can be told of the port, that is a failure of its own.
        let code = if words.starts_with("OVSDB") { 1 } else { 3 };
        assert_eq!((run.code, run.stdout.as_str()), (Some(code), ""), "{spoil}: {run:#?}");
        assert!(run.stderr.contains(&line), "{spoil}: no {line:?} in {run:#?}");
        assert_eq!(run.stderr.lines().count(), 1, "{spoil}: {run:#?}");
    }

    site.host.sh(&named(repair));
    // Nothing else was wrong; and the capture was looking.
    let run = site.announce(&["--json"]);
    assert_eq!(run.code, Some(0), "after {repair}: {run:#?}");
    assert!(wire.sees(12, DEADLINE));
    assert!(wire.stop().len() <= sent(&report(&run)), "frames left while it was not ready: {spoil}");
}
