//! What happens to the ports of guests that run, and of which libvirt tells nothing; and a libvirt that does not answer.

use crate::testbed::daemon::{self, CALM, QUICK, has_announced_nothing, is_announced};
use crate::testbed::{
    Attachment, Capture, DEADLINE, Daemon, Direction, Guest, Host, Nic, Place, Plug, Site, VLAN, ovs, require,
};

#[test]
fn a_nic_that_comes_to_another_bridge_is_announced() {
    require!(lab, libvirt, tshark);
    let site = Site::build(Attachment::LinuxBridge);
    let daemon = Daemon::start(&site.host, QUICK);
    let tap = site.port();
    site.host.sh("ip link add br1 type bridge forward_delay 0 mcast_snooping 0; ip link set br1 up");
    site.host.sh("ip link set up0 nomaster; ip link set up0 master br1");
    let wire = site.wire();
    site.host.sh(&format!("ip link set {tap} nomaster; ip link set {tap} master br1"));
    let report = &daemon.reports(1)[0];
    is_announced(&site.nic, None, &wire.stop(), report, "moved");

    // Down on its new bridge, so that the daemon is seen to know that it is down.
    site.host
        .sh(&format!("ip link set {tap} down; ip link set {tap} master br0; ip link set up0 master br0"));
    daemon.comes_to("one that waits", |status| status["waiting"][0]["condition"] == "down");
    site.host.sh(&format!("ip link set {tap} up"));
    daemon.comes_to("link-up", |status| {
        let recent = status["recent"].as_array().unwrap();
        recent.iter().any(|report| report["cause"] == "link-up" && report["outcome"] == "announced")
    });
    let metrics = site.host.announce(&["status", "--prometheus"]).stdout;
    for line in [r#"announced_events_total{cause="moved"} 2"#, r#"announced_events_total{cause="link-up"} 1"#]
    {
        assert!(metrics.contains(line), "{metrics}");
    }
}

/// The tap stays in its `qbr`: only the row of the far end of its veth changes its bridge.
#[test]
fn a_hybrid_plug_that_comes_to_another_bridge_is_announced() {
    require!(lab, ovs, libvirt, tshark);
    let site = Site::ready(Attachment::Hybrid);
    let daemon = Daemon::start(&site.host, CALM);
    let qvo = site.port();
    site.host.sh(&format!(
        "ovs-vsctl add-br br-new -- set Bridge br-new datapath_type=netdev
         ovs-vsctl del-port br-int up0 -- add-port br-new up0
         ovs-vsctl del-port br-int {qvo}"
    ));
    let wire = site.wire();
    site.host.sh(&format!("ovs-vsctl add-port br-new {qvo} tag=7"));
    let report = &daemon.reports(1)[0];
    assert_eq!(
        (&report["outcome"], &report["cause"], &report["departure"]["vlan"]),
        (&"announced".into(), &"moved".into(), &7.into()),
        "{report:#}"
    );
    assert!(wire.sees(12, DEADLINE));
}

/// It has no device: OVSDB alone says where it is. Open vSwitch without DPDK makes the row, and no port.
#[test]
fn a_vhost_user_port_that_comes_to_another_bridge_is_announced() {
    require!(lab, ovs, libvirt);
    let host = Host::build().ovs().start();
    let plug = |bridge: &str| {
        format!(
            "add-port {bridge} vhu567a450a-b0 -- set Interface vhu567a450a-b0 type=dpdkvhostuserclient \
                 options:vhost-server-path=/run/vhu567a450a-b0"
        )
    };
    host.sh(&format!(
        "for bridge in br-a br-b; do ovs-vsctl add-br $bridge -- set Bridge $bridge datapath_type=netdev; done
         ovs-vsctl {} || true",
        plug("br-a")
    ));
    let nic = "<interface type='vhostuser'><mac address='fa:16:3e:00:00:10'/>\
               <source type='unix' path='/run/vhu567a450a-b0' mode='server'/><model type='virtio'/></interface>";
    let file = host.directory().join("node.xml");
    let guest = Guest::new("web1").of_test_driver().device(nic).xml();
    std::fs::write(&file, format!("<node>{guest}</node>")).unwrap();
    let uri = format!("test://{}", file.display());
    let daemon = Daemon::start(&host, &format!("{CALM}[libvirt]\nuri = \"{uri}\"\n"));
    daemon.knows(1);
    host.sh(&format!("ovs-vsctl del-port vhu567a450a-b0 -- {} || true", plug("br-b")));
    // What it waits for shows a little later than that it has begun.
    let status = daemon.comes_to("one that waits", |status| status["waiting"][0]["condition"] == "no-ofport");
    assert_eq!(status["announcements"][0]["cause"], "moved", "{status:#}");
}

#[test]
fn a_guest_that_boots_is_no_link_that_comes_up() {
    require!(lab, libvirt, tshark);
    let site = Site::build(Attachment::LinuxBridge);
    let daemon = Daemon::start(&site.host, QUICK);
    site.host.sh("virsh --quiet destroy web1");
    daemon.knows(0);
    let wire = site.wire();
    site.guest.start(&site.host);
    daemon.knows(1);
    site.host.sh("virsh --quiet destroy web1");
    has_announced_nothing(&daemon.knows(0));
    assert_eq!(wire.stop(), []);
}

#[test]
fn a_sub_port_that_is_wired_late_is_announced() {
    require!(lab, ovs, libvirt, tshark);
    let host = Host::build().ovs().libvirt().start();
    ovs::bridge(&host, "br-int");
    ovs::trunk_bridge(&host, "567a450b");
    let nic = Nic::new(11, Plug::Ovs("tbr-567a450b")).address("192.0.2.11");
    Guest::new("web1").nova().nic(&nic).start(&host);
    ovs::bind(&host, "tpi-567a450b", 42);
    let daemon = Daemon::start(&host, CALM);
    let wire = Capture::start(&host.wire(), "wire0", Direction::In, "ether src fa:16:3e:00:00:99");
    host.sh("ovs-vsctl add-port tbr-567a450b spt-99 tag=99 -- set Interface spt-99 type=patch options:peer=spi-99 \
             -- add-port br-int spi-99 -- set Interface spi-99 type=patch options:peer=spt-99 \
                external_ids:attached-mac=fa:16:3e:00:00:99 external_ids:iface-id=0f");
    daemon.is_at(1);
    assert_eq!(wire.count(), 0);
    ovs::bind(&host, "spi-99", 43);
    let report = &daemon.reports(1)[0];
    assert_eq!(
        (&report["outcome"], &report["cause"], &report["device"]),
        (&"announced".into(), &"plugged".into(), &"spi-99".into()),
        "{report:#}"
    );
    assert!(wire.sees(3, DEADLINE));
    assert!(wire.stop().iter().all(|frame| frame.vlan == Some(43)));
}

/// As while a post-copy migration runs: the event has come, and the XML cannot be had.
#[test]
fn a_guest_that_libvirt_does_not_describe_is_announced_by_what_ovsdb_knows() {
    require!(lab, ovs, libvirt, tshark);
    let site = Site::ready(Attachment::Ovs);
    site.host.sh("virsh --quiet destroy web1");
    let config = format!("{CALM}[libvirt]\nevents = [\"started\"]\n");
    let daemon = Daemon::start(&site.host, &config);
    daemon.knows(0);
    let wire = site.wire();
    daemon.program.held(|| {
        site.guest.start(&site.host);
        site.bind();
        site.host.sh("kill -STOP $(cat /run/libvirtd.pid)");
    });
    let warning = daemon.program.stderr.line_with("libvirt does not describe the VM");
    assert!(warning.contains("what Open vSwitch knows of it is announced"), "{warning}");
    let report = daemon.reports(1)[0].clone();
    assert_eq!(
        (&report["outcome"], &report["cause"]),
        (&"announced".into(), &"started".into()),
        "{report:#}"
    );
    assert_eq!((&report["frames"]["rarp"], &report["frames"]["arp_request"]), (&3.into(), &0.into()));
    site.host.sh("kill -CONT $(cat /run/libvirtd.pid)");
    let report = &daemon.reports(2)[1];
    assert_eq!((&report["outcome"], &report["frames"]["arp_request"]), (&"announced".into(), &3.into()));
    let frames = wire.stop();
    assert!(frames.iter().all(|frame| frame.vlan == Some(VLAN)), "{frames:#?}");
}

/// libvirt tells no event when a link is set up.
#[test]
fn a_link_that_is_set_up_while_it_is_waited_for() {
    require!(lab, libvirt, tshark);
    let site = Site::build(Attachment::LinuxBridge);
    let tap = site.port();
    site.host.sh(&format!("virsh --quiet domif-setlink web1 {tap} down"));
    let wire = site.wire();
    let announce = site.waiting("the guest's link is down in the domain's XML", &[]);
    site.host.sh(&format!("virsh --quiet domif-setlink web1 {tap} up"));
    let run = announce.finish();
    assert_eq!(run.code, Some(0), "{run:#?}");
    assert!(wire.sees(12, DEADLINE));
    drop(wire);

    site.host.sh(&format!("virsh --quiet domif-setlink web1 {tap} down"));
    let (daemon, wire) = daemon::restored(&site, QUICK, "");
    daemon.is_at(1);
    site.host.sh(&format!("virsh --quiet domif-setlink web1 {tap} up"));
    let report = &daemon.reports(1)[0];
    is_announced(&site.nic, None, &wire.stop(), report, "restored");
}
