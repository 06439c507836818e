//! How far frames come: `announce trace` and `announce` name the hop at which they end, and why. tcpdump stands at every
//! hop, and must have seen the same.
//!
//! Where Open vSwitch takes frames from a device, as on a hybrid plug, a trace sees them only if they leave within milliseconds: such
//! tests run alone.

use crate::testbed::Direction::{In, Out};
use crate::testbed::proof::{Shows, announce, trace, trace_by};
use crate::testbed::stand::PROVIDER;
use crate::testbed::{IPV4, Place, Stand, VLAN, eventually, guest, ovs, require};
use serde_json::json;

const UP0: Shows<'static> = ("up0", Out);
/// A hybrid plug's devices, by their prefixes.
const HYBRID: [Shows<'static>; 5] = [("tap", In), ("qbr", In), ("qvb", Out), ("qvo", In), UP0];

#[test]
fn a_healthy_open_vswitch_port() {
    require!(alone, lab, ovs, tshark);
    let stand = Stand::open_vswitch();
    is_healthy(&stand, &[UP0], ("br-int", Some(VLAN)));
    // What redirect lets in at the tap is seen there, too.
    trace_by(&stand, "redirect", &[("tap", In), UP0]).has_left("up0", "br-int", Some(VLAN));
}

#[test]
fn a_healthy_hybrid_plug() {
    require!(alone, lab, ovs, tshark);
    is_healthy(&Stand::hybrid_plug(), &HYBRID, ("br-int", Some(VLAN)));
}

#[test]
fn a_healthy_linux_bridge() {
    require!(lab, tshark);
    is_healthy(&Stand::linux_bridge(), &[("tap", In), ("br0", In), UP0], ("br0", None));
}

#[test]
fn a_healthy_provider_bridge() {
    require!(lab, ovs, tshark);
    is_healthy(&Stand::provider_bridge(), &[UP0], ("br-ex", Some(PROVIDER)));
}

#[test]
fn a_healthy_trunk_bridge() {
    require!(lab, ovs, tshark);
    is_healthy(&Stand::trunk_bridge(), &[UP0], ("br-int", Some(VLAN)));
}

#[test]
fn a_healthy_macvtap() {
    require!(lab, tshark);
    let _alone = guest::macvtaps();
    is_healthy(&Stand::macvtap(), &[("mvt0", Out), UP0], ("mvt0", None));
}

/// Everything passes everywhere, and leaves `bridge` by up0.
fn is_healthy(stand: &Stand, shows: &[Shows<'_>], (bridge, vlan): (&str, Option<u16>)) {
    let told = trace(stand, shows);
    told.has_left("up0", bridge, vlan);
    let tag = vlan.map(|vlan| format!(" in VLAN {vlan}")).unwrap_or_default();
    let words = format!("\n  left {bridge} by up0{tag} after ");
    assert!(told.text.contains(&words), "{told:#?}");
    let told = announce(stand, &["up0"]);
    told.is_announced();
    told.has_left("up0", bridge, vlan);
    let text = stand.announce(&["--count", "3", "--interval", "300ms"]).stdout;
    assert!(text.contains(&words), "{text}");
}

#[test]
fn neutrons_dead_vlan() {
    require!(lab, ovs, tshark);
    let stand = Stand::provider_bridge();
    let tap = stand.nic.tap();
    stand.host.sh(&format!("ovs-vsctl set Port {tap} tag=4095"));
    let why = format!("the port {tap} has tag 4095, neutron's dead VLAN");
    let told = trace(&stand, &[UP0]);
    told.is_stuck(&format!("did not leave Open vSwitch (br-int -> br-ex): {why}"));
    announce(&stand, &["up0"]).is_not_ready(&why);
}

/// As neutron's agent marks ports since 2019.
#[test]
fn a_dead_port_behind_a_hybrid_plug() {
    require!(alone, lab, ovs, tshark);
    let stand = Stand::hybrid_plug();
    let qvo = stand.nic.device("qvo");
    let mut why =
        format!("the port {qvo} has vlan_mode trunk, not access; the port {qvo} has trunks [4095], not []");
    // Leftovers: the tag is right.
    stand.host.sh(&format!("ovs-vsctl set Port {qvo} vlan_mode=trunk trunks=4095"));
    let stuck = |why: &str| format!("reached {qvo}, did not leave br-int: {why}");
    trace(&stand, &HYBRID).is_stuck(&stuck(&why));
    announce(&stand, &["up0"]).is_not_ready(&why);

    ovs::dead(&stand.host, &qvo);
    why.insert_str(0, &format!("the port {qvo} has tag 4095, neutron's dead VLAN; "));
    trace(&stand, &HYBRID).is_stuck(&stuck(&why));
    announce(&stand, &["up0"]).is_not_ready(&why);
}

/// An access port: Open vSwitch does not look at its trunks, and a frame would leave.
#[test]
fn leftover_trunks_that_stop_nothing() {
    require!(alone, lab, ovs, tshark);
    let stand = Stand::hybrid_plug();
    let qvo = stand.nic.device("qvo");
    stand.host.sh(&format!("ovs-vsctl set Port {qvo} trunks=4095"));
    is_healthy(&stand, &HYBRID, ("br-int", Some(VLAN)));
}

/// As neutron's firewall did: ARP passes, and RARP does not.
#[test]
fn a_flow_that_drops_rarp() {
    require!(alone, lab, ovs, tshark);
    for (stand, shows, port) in
        [(Stand::open_vswitch(), &[UP0][..], "tap"), (Stand::hybrid_plug(), &HYBRID, "qvo")]
    {
        let reached = stand.nic.device("qvo");
        let reached = if port == "qvo" { format!(" reached {reached},") } else { String::new() };
        let port = stand.nic.device(port);
        stand.host.sh(&format!("ovs-ofctl add-flow br-int priority=100,rarp,in_port={port},actions=drop"));
        let why = format!("br-int table 0: priority=100,rarp,in_port={port} actions=drop");
        let stuck = format!("rarp{reached} did not leave br-int: {why}");
        let told = trace(&stand, shows);
        told.lacks_rarp(&stuck);
        told.names_departure("up0", "br-int", Some(VLAN));

        let told = announce(&stand, &["up0"]);
        told.is_announced();
        assert_eq!((&told.json["stuck"], &told.json["frames_left"]["rarp"]), (&json!([stuck]), &json!(0)));
    }
}

/// Each frame has its own reason: an anti-spoofing flow, and a firewall that knows no RARP.
#[test]
fn flows_that_drop_different_frames() {
    require!(lab, ovs, tshark);
    let stand = Stand::open_vswitch();
    let port = stand.nic.tap();
    stand.host.sh(&format!(
        "ovs-ofctl add-flow br-int priority=100,rarp,in_port={port},actions=drop
         ovs-ofctl add-flow br-int priority=90,arp,in_port={port},arp_spa={IPV4},actions=drop"
    ));
    let told = trace(&stand, &[UP0]);
    let arp = format!(
        "arp-request, arp-reply did not leave br-int: \
         br-int table 0: priority=90,arp,in_port={port},arp_spa={IPV4} actions=drop"
    );
    let rarp =
        format!("rarp did not leave br-int: br-int table 0: priority=100,rarp,in_port={port} actions=drop");
    assert_eq!(told.json["stuck"], json!([arp, rarp]), "{told:#?}");
    told.is_stuck_for(&rarp);
    told.names_departure("up0", "br-int", Some(VLAN));
}

/// What does not come to Open vSwitch is not held up by it.
#[test]
fn a_filter_on_the_bridge_of_a_hybrid_plug() {
    require!(alone, lab, ovs, tshark, nft);
    let stand = Stand::hybrid_plug();
    stand.host.sh("nft add table bridge filter
        nft 'add chain bridge filter first { type filter hook prerouting priority 0; }'
        nft add rule bridge filter first ether type 0x8035 drop");
    let [tap, qbr] = ["tap", "qbr"].map(|prefix| stand.nic.device(prefix));
    let stuck = format!(
        "rarp reached {tap}, did not leave {qbr}: a filter, perhaps: see nft list ruleset, and ebtables"
    );
    trace(&stand, &HYBRID).lacks_rarp(&stuck);
}

#[test]
fn an_open_vswitch_that_stands_still() {
    require!(alone, lab, ovs, tshark);
    let stand = Stand::hybrid_plug();
    stand.host.sh("kill -STOP $(cat /run/openvswitch/ovs-vswitchd.pid)");
    let qvo = stand.nic.device("qvo");
    let stuck =
        format!("reached {qvo}, did not leave br-int: the reason is unknown: ovs-vswitchd does not answer");
    trace_by(&stand, "redirect", &HYBRID[..4]).is_stuck(&stuck);
    stand.host.sh("kill -KILL $(cat /run/openvswitch/ovs-vswitchd.pid)");
}

/// As on most hosts of OpenStack: some networks are in tunnels, this one is not.
#[test]
fn a_tunnel_beside_the_provider_bridge() {
    require!(alone, lab, ovs, tshark);
    let stand = Stand::provider_bridge();
    stand.host.sh("ovs-vsctl add-br br-tun -- set Bridge br-tun datapath_type=netdev \
             -- add-port br-tun vxlan-1 -- set Interface vxlan-1 type=vxlan options:remote_ip=198.51.100.2 \
             -- add-port br-tun patch-int -- set Interface patch-int type=patch options:peer=patch-tun \
             -- add-port br-int patch-tun -- set Interface patch-tun type=patch options:peer=patch-int");
    is_healthy(&stand, &[UP0], ("br-ex", Some(PROVIDER)));
    trace_by(&stand, "redirect", &[("tap", In), UP0]).has_left("up0", "br-ex", Some(PROVIDER));

    stand.host.sh("ip link set up0 down");
    let stuck = "did not leave Open vSwitch (br-int -> br-ex): up0 is down";
    trace(&stand, &[]).is_stuck(stuck);
    announce(&stand, &[]).has_failed(stuck);
}

#[test]
fn a_filter_on_the_linux_bridge() {
    require!(lab, tshark, nft);
    const WHY: &str = "a filter, perhaps: see nft list ruleset, and ebtables";
    let stand = Stand::linux_bridge();
    let shows = [("tap", In), ("br0", In), UP0];
    // It has no say in what the bridge passes up to the host itself.
    stand.host.sh("nft add table bridge filter
        nft 'add chain bridge filter forward { type filter hook forward priority 0; }'
        nft add rule bridge filter forward ether type 0x8035 drop");
    let stuck = format!("rarp did not leave br0: {WHY}");
    trace(&stand, &shows).lacks_rarp(&stuck);
    let told = announce(&stand, &["up0"]);
    told.is_announced();
    assert_eq!((&told.json["stuck"], &told.json["frames_left"]["rarp"]), (&json!([stuck]), &json!(0)));

    // Before the bridge, and everything.
    stand.host.sh("nft flush ruleset
        nft add table bridge filter
        nft 'add chain bridge filter first { type filter hook prerouting priority 0; policy drop; }'");
    let stuck = format!("reached {}, did not leave br0: {WHY}", stand.nic.tap());
    trace(&stand, &shows).is_stuck(&stuck);
    announce(&stand, &["up0"]).has_failed(&stuck);
}

#[test]
fn a_provider_bridge_without_the_vlans_flow() {
    require!(lab, ovs, tshark);
    let stand = Stand::provider_bridge();
    stand.host.sh("ovs-ofctl --strict del-flows br-ex priority=4,in_port=phy-br-ex,dl_vlan=100");
    let stuck = "did not leave Open vSwitch (br-int -> br-ex): br-ex table 0: priority=2,in_port=phy-br-ex actions=drop";
    trace(&stand, &[UP0]).is_stuck_for(stuck);
    announce(&stand, &["up0"]).has_failed(stuck);
}

/// tcpdump does not listen on a device that is down: that one shows nothing to us either.
#[test]
fn an_uplink_that_is_down() {
    require!(lab, ovs, tshark);
    for (stand, shows, held_by) in [
        (Stand::open_vswitch(), &[][..], "did not leave br-int"),
        (Stand::linux_bridge(), &[("tap", In), ("br0", In)], "did not leave br0"),
    ] {
        stand.host.sh("ip link set up0 down");
        let stuck = format!("{held_by}: up0 is down");
        trace(&stand, shows).is_stuck_for(&stuck);
        announce(&stand, &[]).has_failed(&stuck);
    }
}

/// A bond of Open vSwitch: whichever member works has the frames.
#[test]
fn a_bond_with_a_member_down() {
    require!(lab, ovs, tshark);
    let stand = Stand::bond();
    for (down, works) in [("up1", "up0"), ("up0", "up1")] {
        stand.host.sh(&format!("ip link set up0 up; ip link set up1 up; ip link set {down} down"));
        eventually("the bond's failover", || {
            let shown = stand.host.sh("ovs-appctl bond/show bond0");
            shown.contains(&format!("member {works}: enabled")).then_some(())?;
            shown.contains(&format!("member {down}: disabled")).then_some(())
        });
        let told = trace(&stand, &[(works, Out)]);
        told.has_left(works, "br-int", Some(VLAN));
        let words = format!("left br-int by bond0 ({works}) in VLAN 100 after ");
        assert!(told.text.contains(&words), "{told:#?}");
        let told = announce(&stand, &[works]);
        told.is_announced();
        told.has_left(works, "br-int", Some(VLAN));
    }

    stand.host.sh("ip link set up0 down; ip link set up1 down");
    let told = [trace(&stand, &[]), announce(&stand, &[])];
    // Open vSwitch has the members in no order.
    for words in ["did not leave br-int: ", "up0 is down", "up1 is down"] {
        told[0].is_stuck_for(words);
        told[1].has_failed(words);
    }
}
