//! The path over any devices and any rows: rings end, and its length is that of the host, not of the ways through it.
#![no_main]

use std::time::Duration;

use announced::for_tests::GuestState;
use announced::for_tests::hop::Hop;
use announced::for_tests::link::{Bridge, BridgePort, Link, Links, PortState, PortVlans};
use announced::for_tests::ovs::{self, Interface, Mirror, Ovs, Port};
use announced::for_tests::readiness::{Facts, assess};
use announced::for_tests::target::{Plug, Target};
use announced::for_tests::uplinks::Uplinks;
use announced_fuzz::Bytes;
use libfuzzer_sys::fuzz_target;
use pnet_base::MacAddr;

const DEVICES: u32 = 12;
const ROWS: usize = 10;
const KINDS: [Option<&str>; 8] = [
    Some("bridge"),
    Some("tun"),
    Some("veth"),
    Some("vlan"),
    Some("macvtap"),
    Some("bond"),
    Some("vxlan"),
    None,
];
const ROW_KINDS: [&str; 6] = ["", "patch", "patch", "internal", "vxlan", "dpdk"];
/// Each device is met as sent and as received in each of few VLANs, each row once for each bridge that has it.
const MAX_HOPS: usize = 1_000;

fuzz_target!(|input: &[u8]| {
    let mut bytes = Bytes(input);
    let links = Links::from_iter((1..=DEVICES).map(|index| link(index, &mut bytes)));
    let ovs = ovs(&mut bytes);
    let names = (0..DEVICES as usize).map(name).chain((0..ROWS).map(row));
    for name in names {
        let plug = Plug { device: Some(name), ..Plug::default() };
        let target = Target::of_device(plug, MacAddr(2, 0, 0, 0, 0, 1));
        let (guest, uplinks, now) = (GuestState::Running, &Uplinks::default(), Duration::from_secs(1));
        let facts = Facts {
            links: &links,
            ovs: &ovs,
            ovsdb_error: None,
            guest,
            in_charge: None,
            untagged: false,
            now,
            uplinks,
        };
        let seen = assess(&target, &facts);
        assert!(seen.is_ready() || !seen.unmet.is_empty() || seen.settles_in.is_some());
        assert!(seen.unmet.iter().all(|condition| !condition.to_string().is_empty()));
        let Some(attachment) = seen.attachment else { continue };
        let way = &attachment.way;
        assert!(
            way.hops.len() <= MAX_HOPS && way.edges().count() <= 64 && way.dead_ends.len() <= 9,
            "{way:?}"
        );
        let is_behind = |(at, hop): (usize, &Hop)| hop.from.is_none_or(|from| from < at);
        assert!(way.hops.iter().enumerate().all(is_behind));
        assert!(way.dead_ends.is_empty() || way.edges().next().is_none(), "{way:?}");
    }
});

fn name(number: usize) -> String {
    format!("d{number}")
}

/// Some rows have the names of devices.
fn row(number: usize) -> String {
    if number % 2 == 0 { name(number) } else { format!("r{number}") }
}

fn link(index: u32, bytes: &mut Bytes<'_>) -> Link {
    let flags = bytes.u8();
    let kind = bytes.one_of(&KINDS);
    let mut other = || Some(u32::from(bytes.u8()) % (DEVICES + 2)).filter(|other| *other > 0);
    let (master, lower) = (other(), other());
    let port = BridgePort { state: PortState::Forwarding, isolated: flags & 8 != 0, ..BridgePort::default() };
    Link {
        index,
        name: name(index as usize - 1),
        up: flags & 1 == 0,
        lower_up: flags & 2 == 0,
        kind: kind.map(str::to_owned),
        has_hardware: kind.is_none() && flags & 4 != 0,
        master,
        link: lower,
        link_is_elsewhere: flags & 16 != 0,
        vlan_id: (kind == Some("vlan")).then_some(u16::from(flags % 3)),
        bridge: (kind == Some("bridge"))
            .then_some(Bridge { vlan_filtering: flags & 32 != 0, mst: flags & 96 == 96 }),
        port: master.map(|_| port),
        pvid: Some(1).filter(|_| flags & 64 == 0),
        vlans: vec![PortVlans { first: 1, last: u16::from(flags % 4), untagged: flags & 128 != 0 }],
        ..Link::default()
    }
}

fn ovs(bytes: &mut Bytes<'_>) -> Ovs {
    let mut ovs = Ovs::default();
    ovs.mirrors.insert("m".into(), Mirror { output_port: None, output_vlan: Some(3) });
    for number in 0..ROWS {
        let some = |bytes: &mut Bytes<'_>| -> Vec<String> {
            let bits = bytes.u16();
            (0..ROWS).filter(|row| bits >> row & 1 != 0).map(|row| row.to_string()).collect()
        };
        if number < ROWS / 2 {
            let (ports, mirrors) = (some(bytes), vec!["m".to_owned()]);
            let bridge = ovs::Bridge { name: format!("b{number}"), ports, mirrors };
            ovs.bridges.insert(number.to_string(), bridge);
        }
        let tag = Some(u16::from(bytes.u8())).filter(|tag| *tag < 4);
        // Most ports have the interface of their number.
        let interfaces = if bytes.u8() < 200 { vec![number.to_string()] } else { some(bytes) };
        let port = Port { name: row(number), interfaces, tag, ..Port::default() };
        ovs.ports.insert(number.to_string(), port);
        let mut interface = Interface {
            name: row(number),
            kind: bytes.one_of(&ROW_KINDS).into(),
            ofport: Some(i64::from(bytes.u8()) - 1),
            ..Interface::default()
        };
        interface.options.insert("peer".into(), row(bytes.below(ROWS)));
        if bytes.u8() > 220 {
            interface.external_ids.insert("iface-id".into(), "id".into());
        }
        ovs.interfaces.insert(number.to_string(), interface);
    }
    ovs.reindex();
    ovs
}
