//! The fate of rounds, over each kind of path.

use super::*;
use crate::announcement::frame::{Style, round};
use crate::announcement::injection::Method;
use crate::path::attachment::tests::{find, link, ovs};
use crate::path::link::Links;
use crate::path::ovs::Ovs;
use crate::path::tunnel::{Encapsulation, TunnelDevice};
use crate::proof::capture_point::Direction;
use crate::proof::decapsulation::Outside;

pub(super) const GUEST: MacAddr = MacAddr(0xfa, 0x16, 0x3e, 0, 0, 0x11);
/// An ARP request, an ARP reply and a RARP, by their places in the round.
pub(super) const ALL: [usize; 3] = [0, 1, 2];
pub(super) const ARP: [usize; 2] = [0, 1];

pub(super) fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

pub(super) fn nothing_seen(links: Vec<crate::path::link::Link>, ovs: &Ovs, method: Method) -> Delivery {
    let attachment = find("tap0", &Links::from_iter(links), ovs).unwrap();
    let frames = round(GUEST, &["192.0.2.1".parse().unwrap()], &Style::default());
    Delivery::new(GUEST, &frames, CapturePath::of(&attachment, method))
}

/// tap0 → br-int → eth0, injected at br-int.
pub(crate) fn on_br_int() -> Delivery {
    let links = vec![link(2, "tap0", "tun", 0, 0), link(4, "eth0", "", 0, 0)];
    nothing_seen(links, &ovs(&[("br-int", &["tap0", "eth0"])]), Method::PacketOut)
}

pub(super) fn hybrid() -> Delivery {
    let links = vec![
        link(1, "qbr0", "bridge", 0, 0),
        link(2, "tap0", "tun", 1, 0),
        link(3, "qvb0", "veth", 1, 4),
        link(4, "qvo0", "veth", 0, 3),
        link(5, "eth0", "", 0, 0),
    ];
    nothing_seen(links, &ovs(&[("br-int", &["qvo0", "eth0"])]), Method::Redirect)
}

/// tap0 → br-int → br-ex → eth0.
pub(super) fn provider() -> Delivery {
    let links = vec![link(2, "tap0", "tun", 0, 0), link(4, "eth0", "", 0, 0)];
    let bridges: [(&str, &[&str]); 2] = [
        ("br-int", &["tap0", "int-br-ex:patch:phy-br-ex"]),
        ("br-ex", &["phy-br-ex:patch:int-br-ex", "eth0"]),
    ];
    nothing_seen(links, &ovs(&bridges), Method::PacketOut)
}

/// tap0 → br-int → bond0, a bond of Open vSwitch → eth0, eth1.
pub(super) fn ovs_bond() -> Delivery {
    let links = vec![link(2, "tap0", "tun", 0, 0), link(5, "eth0", "", 0, 0), link(6, "eth1", "", 0, 0)];
    let mut ovs = ovs(&[("br-int", &["tap0", "bond0", "eth0", "eth1"])]);
    ovs.bridges.values_mut().for_each(|bridge| bridge.ports.truncate(2));
    ovs.ports.get_mut("p-bond0").unwrap().interfaces = vec!["i-eth0".into(), "i-eth1".into()];
    ovs.reindex();
    nothing_seen(links, &ovs, Method::PacketOut)
}

/// tap0 → br0 → bond0.100 → bond0 → eth0, eth1.
pub(super) fn linux_bond() -> Delivery {
    let links = vec![
        link(1, "br0", "bridge", 0, 0),
        link(2, "tap0", "tun", 1, 0),
        link(3, "bond0.100", "vlan", 1, 4),
        link(4, "bond0", "bond", 0, 0),
        link(5, "eth0", "", 4, 0),
        link(6, "eth1", "", 4, 0),
    ];
    nothing_seen(links, &Ovs::default(), Method::Redirect)
}

pub(super) fn dpdk() -> Delivery {
    let links = vec![link(2, "tap0", "tun", 0, 0)];
    nothing_seen(links, &ovs(&[("br-int", &["tap0", "dpdk0:dpdk"])]), Method::PacketOut)
}

/// These frames of a round pass a hop, outward, in a VLAN.
pub(crate) fn pass(proof: &mut Delivery, hop: &str, frames: &[usize], at: Duration, vlan: Option<u16>) {
    let hop = proof.path.hops().iter().find(|known| known.name == hop).unwrap();
    let (ifindex, direction) = (hop.ifindex.unwrap(), proof.path.outward(hop).unwrap());
    for frame in frames {
        let bytes = proof.frames[*frame].bytes.clone();
        proof.saw(&Sighting::new(ifindex, direction, at, vlan, &bytes));
    }
}

/// Another frame for the guest passes that device.
pub(crate) fn pass_for_guest(proof: &mut Delivery, ifindex: u32, direction: Direction, at: Duration) {
    let mut frame = [0; 60];
    frame[..6].copy_from_slice(&GUEST.octets());
    proof.saw(&Sighting::new(ifindex, direction, at, Some(100), &frame));
}

pub(super) fn departed(proof: &Delivery) -> String {
    proof.departure().map(|left| left.departure.to_string()).unwrap_or_default()
}

pub(super) fn stuck(proof: &Delivery) -> Vec<String> {
    proof.stuck(&[]).iter().map(ToString::to_string).collect()
}

#[test]
fn only_our_outgoing_frames_count() {
    let mut proof = on_br_int();
    proof.begin();
    let [ours, another] = [0, 1].map(|frame| proof.frames[frame].bytes.clone());
    let saw = |proof: &mut Delivery, ifindex, direction, frame: &[u8]| {
        proof.saw(&Sighting::new(ifindex, direction, ms(1), None, frame));
    };
    saw(&mut proof, 4, Direction::In, &ours);
    saw(&mut proof, 9, Direction::Out, &ours);
    saw(&mut proof, 4, Direction::Out, &ours[..14]);
    saw(&mut proof, 4, Direction::Out, &[&ours[..40], &[1]].concat());
    assert_eq!((proof.fate(), proof.departure()), (RoundFate::Lost, None));
    // A captured frame may be truncated or padded.
    saw(&mut proof, 4, Direction::Out, &ours[..42]);
    saw(&mut proof, 4, Direction::Out, &[&another[..], &[0; 4]].concat());
    assert_eq!(proof.fate(), RoundFate::Partly);
}

/// QEMU's RARPs have the same bytes.
#[test]
fn what_leaves_before_the_first_round_or_while_the_port_is_not_ready_is_not_ours() {
    let mut proof = on_br_int();
    pass(&mut proof, "eth0", &ALL, ms(2), None);
    proof.begin();
    assert_eq!((proof.fate(), proof.departure()), (RoundFate::Lost, None));
    pass(&mut proof, "eth0", &ALL, ms(47), Some(100));
    proof.suspend();
    pass(&mut proof, "eth0", &ALL, ms(60), None);
    let vlans: Vec<_> = proof.departures().iter().map(|left| left.departure.vlan).collect();
    assert_eq!(vlans, [Some(100)]);
}

/// A NIC with many addresses: each frame is looked for where it is expected, and found elsewhere, too.
#[test]
fn frames_count_in_whichever_order_they_pass() {
    let mut proof = on_br_int();
    let ips: Vec<_> = (0..5_000_u32).map(|n| std::net::Ipv4Addr::from(0x0a00_0001 + n).into()).collect();
    proof.add(round(GUEST, &ips, &Style::default()).into_iter());
    let (mut numbers, at) = ((0..proof.frames.len()).collect::<Vec<_>>(), proof.path.hops().len() - 1);
    for _ in 0..2 {
        proof.begin();
        pass(&mut proof, "eth0", &numbers, ms(1), None);
        assert_eq!((proof.fate(), proof.next[at]), (RoundFate::Left, numbers.last().unwrap() + 1));
        numbers[5_000..5_100].reverse();
    }
}

#[test]
fn the_fate_of_a_round_is_that_of_its_frames() {
    for (left, fate) in [
        (&[][..], RoundFate::Lost),
        (&[2], RoundFate::Partly),
        (&ARP, RoundFate::Partly),
        (&ALL, RoundFate::Left),
    ] {
        let mut proof = on_br_int();
        proof.begin();
        pass(&mut proof, "eth0", left, ms(1), Some(100));
        assert_eq!(proof.fate(), fate, "{left:?}");
        assert_eq!(proof.lacks_every_address(), [&[][..], &[2]].contains(&left), "{left:?}");
        // Only the last round counts.
        proof.begin();
        assert_eq!(proof.fate(), RoundFate::Lost);
    }
    let mut unseen = dpdk();
    unseen.begin();
    assert_eq!((unseen.fate(), unseen.left().is_none(), stuck(&unseen)), (RoundFate::Unseen, true, vec![]));
}

/// In the kernel datapath all tunnels share one device.
#[test]
fn a_frame_that_enters_a_tunnel_is_not_known_to_have_left() {
    let links = vec![link(2, "tap0", "tun", 0, 0), link(4, "vxlan_sys_4789", "vxlan", 0, 0)];
    let ovs = ovs(&[("br-int", &["tap0", "vxlan-1:vxlan", "vxlan-2:vxlan"])]);
    let mut proof = nothing_seen(links, &ovs, Method::PacketOut);
    proof.begin();
    assert_eq!((proof.fate(), stuck(&proof)), (RoundFate::Lost, vec!["did not leave br-int".into()]));
    let mut answer = [0; 60];
    answer[..6].copy_from_slice(&GUEST.octets());
    proof.saw(&Sighting::new(4, Direction::In, ms(1), None, &answer));
    assert_eq!(proof.returned(), None);
    for _remote in 1..=2 {
        pass(&mut proof, "vxlan_sys_4789", &ALL, ms(1), None);
    }
    assert_eq!((proof.fate(), departed(&proof).as_str()), (RoundFate::Unseen, ""));
    proof.saw(&Sighting::new(4, Direction::In, ms(2), None, &answer));
    assert_eq!(proof.returned(), Some(ms(2)));
}

/// These frames of a round pass a device inside the tunnel that the hop is of.
fn pass_inside(proof: &mut Delivery, at: usize, frames: &[usize], at_ms: u64) {
    let hop = &proof.path.hops()[at];
    let (ifindex, direction) = (hop.ifindex.unwrap(), proof.path.outward(hop).unwrap());
    let encapsulation = hop.tunnel.as_ref().unwrap().encapsulation;
    let between = ("10.1.1.1".parse().unwrap(), "10.1.1.2".parse().unwrap());
    let outside = Some(Outside { encapsulation, vni: Some(5001), between });
    for frame in frames {
        let bytes = proof.frames[*frame].bytes.clone();
        proof.saw(&Sighting { outside, ..Sighting::new(ifindex, direction, ms(at_ms), None, &bytes) });
    }
}

/// tap0 → br-int → vxlan-1 → eth0, by Open vSwitch in user space; eth0 is another network's uplink, too.
fn tunnel_in_user_space() -> Delivery {
    let links = vec![link(2, "tap0", "tun", 0, 0), link(4, "eth0", "", 0, 0), link(5, "br-phy", "tun", 0, 0)];
    let bridges: [(&str, &[&str]); 3] = [
        ("br-int", &["tap0", "int-br-ex:patch:phy-br-ex", "vxlan-1:vxlan"]),
        ("br-ex", &["phy-br-ex:patch:int-br-ex", "eth0"]),
        ("br-phy", &["br-phy:internal", "eth0"]),
    ];
    let mut ovs = ovs(&bridges);
    let tunnel = ovs.interfaces.get_mut("i-vxlan-1").unwrap();
    tunnel.options = [("remote_ip".into(), "10.1.1.2".into())].into();
    tunnel.egress = Some("br-phy".into());
    ovs.reindex();
    nothing_seen(links, &ovs, Method::PacketOut)
}

#[test]
fn a_frame_inside_a_tunnel_has_left_by_it_and_one_that_is_not_seen_is_lost() {
    let mut proof = tunnel_in_user_space();
    let hops = proof.path.hops().iter();
    let inside = hops.clone().position(|hop| hop.tunnel.is_some()).unwrap();
    let points: Vec<_> = proof.path.points().iter().map(|point| (point.ifindex, point.tunnel)).collect();
    assert_eq!(points, [(4, None), (4, Some(Encapsulation::Vxlan(4789)))]);
    proof.begin();
    assert_eq!((proof.fate(), proof.unseen()), (RoundFate::Lost, None));
    pass_inside(&mut proof, inside, &ARP, 1);
    assert_eq!(departed(&proof), "left br-int by vxlan-1 over eth0 with VNI 5001");
    assert_eq!(
        (proof.fate(), proof.left().unwrap().map(|(_, left)| left).sum::<u64>()),
        (RoundFate::Partly, 2)
    );
    // Another round, outside.
    proof.begin();
    pass(&mut proof, "eth0", &ALL, ms(2), Some(100));
    let departures: Vec<String> = proof.departures().iter().map(|left| left.departure.to_string()).collect();
    assert_eq!(departures[1], "left br-ex by eth0 in VLAN 100");
    // An answer inside the tunnel, after a frame had left by it.
    let answer = |at_ms, encapsulation| {
        let mut frame = [0; 60];
        frame[..6].copy_from_slice(&GUEST.octets());
        let between = ("10.1.1.2".parse().unwrap(), "10.1.1.1".parse().unwrap());
        let outside = Some(Outside { encapsulation, vni: Some(5001), between });
        Sighting { outside, ..Sighting::new(4, Direction::In, ms(at_ms), None, &frame) }
    };
    proof.saw(&answer(3, Encapsulation::Geneve(6081)));
    assert_eq!(proof.returned(), None, "no tunnel of the path");
    proof.saw(&answer(4, Encapsulation::Vxlan(4789)));
    assert_eq!(proof.returned(), Some(ms(4)));
    assert_eq!(proof.came_in(&answer(4, Encapsulation::Vxlan(4789))), Some(Edge::Tunnel));
}

/// The kernel may have no remote end for a frame, or encrypt it; but it shows what enters the tunnel.
#[test]
fn what_enters_a_tunnel_of_the_kernel_may_leave_unseen_and_what_does_not_is_lost() {
    let vxlan = crate::path::link::Link {
        tunnel: Some(TunnelDevice { encapsulation: Encapsulation::Vxlan(4789), lower: Some(4) }),
        ..link(3, "vxlan0", "vxlan", 1, 0)
    };
    let links =
        vec![link(1, "br0", "bridge", 0, 0), link(2, "tap0", "tun", 1, 0), vxlan, link(4, "eth0", "", 0, 0)];
    let mut proof = nothing_seen(links, &Ovs::default(), Method::Redirect);
    proof.begin();
    pass(&mut proof, "br0", &ALL, ms(1), None);
    assert_eq!((proof.fate(), stuck(&proof)), (RoundFate::Lost, vec!["did not leave br0".into()]));
    pass(&mut proof, "vxlan0", &ALL, ms(1), None);
    let why = "vxlan0 is a tunnel, and no encapsulated frame was seen on eth0: \
               vxlan0 has no remote end for it, sends it by another device, or the host encrypts it";
    assert_eq!((proof.fate(), proof.unseen().as_deref()), (RoundFate::Unseen, Some(why)));
    pass_inside(&mut proof, 3, &ALL, 1);
    assert_eq!((proof.fate(), proof.unseen()), (RoundFate::Left, None));
    assert_eq!(departed(&proof), "left br0 by vxlan0 over eth0 with VNI 5001");
}

/// A host whose other networks use tunnels.
#[test]
fn a_frame_seen_to_leave_has_left_whatever_other_edges_exist() {
    let links = vec![link(2, "tap0", "tun", 0, 0), link(4, "eth0", "", 0, 0)];
    let ovs = ovs(&[("br-int", &["tap0", "eth0", "vxlan-1:vxlan"])]);
    let mut proof = nothing_seen(links, &ovs, Method::PacketOut);
    proof.begin();
    pass(&mut proof, "eth0", &ARP, ms(1), Some(100));
    assert_eq!((proof.fate(), proof.left().is_none(), stuck(&proof)), (RoundFate::Unseen, true, vec![]));
    assert_eq!(
        proof.unseen().as_deref(),
        Some("vxlan-1 is a tunnel, and its outgoing frames are not captured")
    );
    pass(&mut proof, "eth0", &ALL, ms(1), Some(100));
    assert_eq!((proof.fate(), proof.unseen(), proof.left().unwrap().count()), (RoundFate::Left, None, 3));
}

pub(super) fn verdict(outputs: &[(&str, bool)]) -> Verdict {
    let outputs = outputs.iter().map(|(port, is_wrapped)| crate::proof::ofproto_trace::Output {
        port: (*port).into(),
        vlan: None,
        is_wrapped: *is_wrapped,
    });
    Verdict {
        dropped: outputs.len() == 0,
        deciding: String::new(),
        ends: Vec::new(),
        outputs: outputs.collect(),
    }
}

/// A tunnel matters only for frames that Open vSwitch sends into it.
#[test]
fn a_verdict_decides_what_is_lost_on_a_host_with_tunnels() {
    let links = || vec![link(2, "tap0", "tun", 0, 0), link(4, "eth0", "", 0, 0)];
    let ovs = ovs(&[("br-int", &["tap0", "eth0", "vxlan-1:vxlan"])]);
    for (outputs, fate) in [
        (&[][..], RoundFate::Lost),
        (&[("eth0", false)], RoundFate::Lost),
        (&[("br-int", false)], RoundFate::Lost),
        (&[("tun0", true)], RoundFate::Unseen),
        (&[("eth0", false), ("tun0", true)], RoundFate::Unseen),
    ] {
        let mut proof = nothing_seen(links(), &ovs, Method::PacketOut);
        proof.begin();
        assert_eq!(proof.unjudged().len(), 3);
        for kind in Kind::ANNOUNCEMENTS {
            proof.judged(&like(kind), &verdict(outputs));
        }
        let again = if fate == RoundFate::Lost { 3 } else { 0 };
        assert_eq!((proof.unjudged().len(), proof.fate()), (again, fate), "{outputs:?}");
        let elsewhere = [links(), vec![link(5, "eth1", "", 0, 0)]].concat();
        let ovs = self::ovs(&[("br-int", &["tap0", "eth0", "vxlan-1:vxlan", "eth1"])]);
        proof.follow(nothing_seen(elsewhere, &ovs, Method::PacketOut).path);
        let words = "on another path it is asked for again, and holds until then";
        assert_eq!((proof.unjudged().len(), proof.fate()), (3, fate), "{outputs:?}: {words}");
    }
}

/// Such as a container's veth, or a VM's in another namespace.
#[test]
fn of_several_ends_on_this_host_none_proves_a_departure() {
    let veths = |count: u32| {
        let veth = |n: u32| link(10 + n, &format!("veth{n}"), "veth", 1, 0);
        let rest = [link(1, "br0", "bridge", 0, 0), link(2, "tap0", "tun", 1, 0)];
        rest.into_iter().chain((0..count).map(veth)).collect::<Vec<_>>()
    };
    let mut proof = nothing_seen(veths(1), &Ovs::default(), Method::Redirect);
    proof.begin();
    pass(&mut proof, "veth0", &ALL, ms(1), None);
    assert_eq!(proof.fate(), RoundFate::Left);
    assert_eq!(departed(&proof), "left br0 by veth0 into another network namespace");

    let mut proof = nothing_seen(veths(2), &Ovs::default(), Method::Redirect);
    proof.begin();
    assert_eq!(proof.fate(), RoundFate::Lost, "each would show it");
    pass(&mut proof, "veth0", &ALL, ms(1), None);
    assert_eq!((proof.fate(), departed(&proof).as_str()), (RoundFate::Unseen, ""));
    let why = "none of veth0, veth1 is known to lead to the network (see [path] uplinks)";
    assert_eq!(proof.unseen().as_deref(), Some(why));
}

#[test]
fn in_another_vlan_than_its_own_a_frame_has_not_left() {
    let mut proof = linux_bond();
    proof.begin();
    pass(&mut proof, "eth0", &ALL, ms(1), None);
    assert_eq!((proof.fate(), proof.departure()), (RoundFate::Lost, None));
    assert_eq!(proof.astray()[0].departure.vlan, None);
    pass(&mut proof, "eth0", &ALL, ms(2), Some(100));
    assert_eq!((proof.fate(), proof.departures().len()), (RoundFate::Left, 1));
}

/// The settings of an EVPN host in FRR's documentation.
#[test]
fn neigh_suppress_keeps_frames_in_by_design() {
    let suppress = |mut link: crate::path::link::Link| {
        link.port.as_mut().unwrap().neigh_suppress = true;
        link
    };
    let mut proof = nothing_seen(
        vec![
            link(1, "br0", "bridge", 0, 0),
            link(2, "tap0", "tun", 1, 0),
            suppress(link(3, "eth0", "", 1, 0)),
        ],
        &Ovs::default(),
        Method::Redirect,
    );
    proof.begin();
    assert_eq!(proof.fate(), RoundFate::Lost, "RARP is not held back");
    pass(&mut proof, "eth0", &[2], ms(1), None);
    assert_eq!((proof.fate(), stuck(&proof)), (RoundFate::Left, vec![]));
    let words = proof.kept_by_design().unwrap();
    assert!(
        words.starts_with("arp-request, arp-reply: the port eth0 of br0 has neigh_suppress on"),
        "{words}"
    );
}

#[test]
fn departures_are_counted_by_vlan() {
    let mut proof = on_br_int();
    for (at, vlan) in [(1, None), (50, Some(100)), (150, Some(100))] {
        proof.begin();
        pass(&mut proof, "eth0", &ALL, ms(at), vlan);
    }
    let told: Vec<_> =
        proof.departures().iter().map(|left| (left.departure.vlan, left.at, left.frames)).collect();
    assert_eq!(told, [(None, ms(1), 3), (Some(100), ms(50), 6)]);
}

#[test]
fn the_first_departure_names_bridge_port_and_device() {
    for (mut proof, device, vlan, words) in [
        (on_br_int(), "eth0", Some(100), "left br-int by eth0 in VLAN 100"),
        (hybrid(), "eth0", Some(100), "left br-int by eth0 in VLAN 100"),
        (provider(), "eth0", Some(1100), "left br-ex by eth0 in VLAN 1100"),
        (ovs_bond(), "eth1", Some(100), "left br-int by bond0 (eth1) in VLAN 100"),
        (linux_bond(), "eth0", Some(100), "left br0 by bond0.100 (eth0) in VLAN 100"),
        (linux_bond(), "eth1", Some(100), "left br0 by bond0.100 (eth1) in VLAN 100"),
    ] {
        proof.begin();
        pass(&mut proof, device, &ALL, ms(2), vlan);
        proof.begin();
        pass(&mut proof, device, &ALL, ms(50), vlan);
        assert_eq!(departed(&proof), words);
        let Departed { at, departure, .. } = proof.departure().unwrap();
        assert_eq!((*at, departure.device.as_str()), (ms(2), device));
        assert_eq!((proof.fate(), proof.last_hop().unwrap().name.as_str()), (RoundFate::Left, device));
    }
}

/// Such as when both members of a bond flood.
#[test]
fn a_frame_leaves_once_in_a_round() {
    let mut proof = ovs_bond();
    for at in [1, 50] {
        proof.begin();
        pass(&mut proof, "eth0", &ALL, ms(at), None);
        pass(&mut proof, "eth1", &ALL, ms(at + 1), None);
    }
    let left: Vec<_> = proof.left().unwrap().collect();
    assert_eq!(left, [(Kind::ArpRequest, 2), (Kind::ArpReply, 2), (Kind::Rarp, 2)]);
}

#[test]
fn a_frame_in_the_dead_vlan_has_not_left() {
    let mut proof = on_br_int();
    proof.begin();
    pass(&mut proof, "eth0", &ALL, ms(1), Some(4095));
    assert_eq!((proof.fate(), proof.departure()), (RoundFate::Lost, None));
}

#[test]
fn a_reply_enters_by_the_uplink_after_the_departure() {
    let mut proof = linux_bond();
    let (br0, eth0, eth1) = (1, 5, 6);
    pass_for_guest(&mut proof, eth0, Direction::In, ms(1));
    assert_eq!(proof.returned(), None, "nothing has left");
    proof.begin();
    pass(&mut proof, "eth0", &ALL, ms(10), Some(100));
    for (ifindex, direction, at, why) in [
        (eth0, Direction::In, 9, "sent before"),
        (eth0, Direction::Out, 11, "on its way out"),
        (br0, Direction::In, 11, "from another guest"),
        (99, Direction::In, 11, "elsewhere"),
    ] {
        pass_for_guest(&mut proof, ifindex, direction, ms(at));
        assert_eq!(proof.returned(), None, "{why}");
    }
    let mut for_another = [0; 60];
    for_another[..6].copy_from_slice(&[0xfa, 0x16, 0x3e, 0, 0, 0x12]);
    proof.saw(&Sighting::new(eth1, Direction::In, ms(11), Some(100), &for_another));
    assert_eq!(proof.returned(), None, "for another guest");
    let mut in_another_vlan = for_another;
    in_another_vlan[..6].copy_from_slice(&GUEST.octets());
    proof.saw(&Sighting::new(eth1, Direction::In, ms(11), Some(7), &in_another_vlan));
    assert_eq!(proof.returned(), None, "for a guest in another VLAN that has the same MAC");

    pass_for_guest(&mut proof, eth1, Direction::In, ms(12));
    pass_for_guest(&mut proof, eth0, Direction::In, ms(13));
    assert_eq!(proof.returned(), Some(ms(12)));
}

/// Any frame of the kind.
pub(super) fn like(kind: Kind) -> Frame {
    let ips = ["192.0.2.1", "2001:db8::1"].map(|ip| ip.parse().unwrap());
    round(GUEST, &ips, &Style::default()).into_iter().find(|frame| frame.kind == kind).unwrap()
}

#[test]
fn the_frames_of_a_trunk_are_told_apart_by_their_vlans() {
    let links = vec![link(2, "tap0", "tun", 0, 0), link(4, "eth0", "", 0, 0)];
    let attachment = find("tap0", &Links::from_iter(links), &ovs(&[("br-int", &["tap0", "eth0"])])).unwrap();
    let frames = crate::announcement::frame::tagged_round(GUEST, &[42, 43, 44], &Style::default());
    let mut proof = Delivery::new(GUEST, &frames, CapturePath::of(&attachment, Method::PacketOut));
    proof.begin();
    proof.saw(&Sighting::new(4, Direction::Out, ms(1), None, &frames[1].bytes));
    // The kernel takes the tag out of a frame.
    let untagged = [&frames[2].bytes[..12], &frames[2].bytes[16..]].concat();
    proof.saw(&Sighting::new(4, Direction::Out, ms(1), Some(44), &untagged));
    proof.saw(&Sighting::new(4, Direction::Out, ms(1), None, &untagged));
    assert_eq!(proof.fate(), RoundFate::Partly);
    assert_eq!(proof.held().map(|(number, _)| number).collect::<Vec<_>>(), [0]);
    assert_eq!(proof.stuck(&[])[0].to_string(), "rarp in VLAN 42 did not leave br-int");
    let vlans: Vec<_> = proof.departures().iter().map(|left| left.departure.vlan).collect();
    assert_eq!(vlans, [Some(43), Some(44)]);
}
