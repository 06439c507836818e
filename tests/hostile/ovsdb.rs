//! Broken OVSDB messages: whatever they leave behind can be assessed, and a port that must wait is never ready.

use std::collections::BTreeSet;
use std::sync::OnceLock;
use std::time::Duration;

use announced::for_tests::GuestState;
use announced::for_tests::attachment::{Attachment, Kind};
use announced::for_tests::jsonrpc::Connection;
use announced::for_tests::link::{Bridge, BridgePort, Link, Links, PortState};
use announced::for_tests::ovs::{Ovs, Port};
use announced::for_tests::owner::Owner;
use announced::for_tests::readiness::{Assessment, Facts, assess};
use announced::for_tests::rows;
use announced::for_tests::target::{Manager, Plug, Target};
use announced::for_tests::uplinks::Uplinks;
use pnet_base::MacAddr;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::bytes::{changed, changes};
use crate::tree::{grafted, grafts};
use crate::{always, ended, is_one_line};

/// What is put into a message, or in the place of one of its strings.
const POISON: &[&str] = &[
    "", "{", "}", "[", "]", "\"", "\\", ",", "\\u0000", "\\ud800", "\\n", "null", "1e999", "-0", "{}",
    "[[[[[[[[", "uuid", "set", "map", "patch", "peer", "ofport", "tag", "trunk", "tap0", "tap1", "br-int",
    "new", "old",
];

/// A device on each shape of attachment that Open vSwitch takes part in, every one of them ready.
fn listing() -> Value {
    let patch = |peer: &str| json!(["map", [["peer", peer]]]);
    let port = |interface: &str, name: &str, tag: Value| {
        json!({"new": {
            "name": name, "interfaces": ["uuid", interface], "tag": tag, "vlan_mode": ["set", []],
            "trunks": ["set", []], "other_config": ["map", [["net_uuid", "n"]]]}})
    };
    // Neutron's agent gives the patches of a trunk the iface-id of the parent.
    let interface = |name: &str, kind: &str, options: Value| {
        let nic = if name.starts_with("tp") { "tap2" } else { name };
        json!({"new": {
            "name": name, "type": kind, "ofport": 5, "error": ["set", []], "options": options,
            "external_ids": ["map", [["iface-id", format!("id-{nic}")], ["attached-mac", "52:54:00:00:00:01"]]]}})
    };
    // A port with an iface-id is a guest's, and so no edge.
    let uplink = |name: &str, kind: &str, options: Value| {
        let mut row = interface(name, kind, options);
        row["new"]["external_ids"] = json!(["map", []]);
        row
    };
    let (none, nothing) = (json!(["set", []]), json!(["map", []]));
    let socket = json!(["map", [["vhost-server-path", "/run/vhu3"]]]);
    json!({
        "Open_vSwitch": {"o": {"new": {"external_ids": ["map", [["hostname", "h"]]]}}},
        "Bridge": {
            "b1": {"new": {"name": "br-int", "ports": ["set", [
                ["uuid", "p0"], ["uuid", "p1"], ["uuid", "p2"], ["uuid", "p3"], ["uuid", "p5"]]]}},
            "b2": {"new": {"name": "tbr-2", "ports": ["set", [["uuid", "p6"], ["uuid", "p7"]]]}},
            "b3": {"new": {"name": "br-ex", "ports": ["set", [["uuid", "p8"], ["uuid", "p9"]]]}},
        },
        "Port": {
            "p0": port("i0", "tap0", json!(100)), "p1": port("i1", "qvo1", json!(["set", [101]])),
            "p2": port("i2", "tpi-2", json!(102)), "p3": port("i3", "vhu3", json!(103)),
            "p5": port("i5", "int-br-ex", none.clone()), "p6": port("i6", "tap2", none.clone()),
            "p7": port("i7", "tpt-2", none.clone()), "p8": port("i8", "phy-br-ex", none.clone()),
            "p9": port("i9", "eth0", none),
        },
        "Interface": {
            "i0": interface("tap0", "", nothing.clone()), "i1": interface("qvo1", "system", nothing.clone()),
            "i2": interface("tpi-2", "patch", patch("tpt-2")),
            "i3": interface("vhu3", "dpdkvhostuserclient", socket),
            "i5": uplink("int-br-ex", "patch", patch("phy-br-ex")), "i6": interface("tap2", "", nothing.clone()),
            "i7": interface("tpt-2", "patch", patch("tpi-2")),
            "i8": uplink("phy-br-ex", "patch", patch("int-br-ex")), "i9": uplink("eth0", "", nothing),
        },
    })
}

fn links() -> Links {
    let link = |index, name: &str, kind: &str, master: Option<u32>, peer| Link {
        index,
        name: name.into(),
        up: true,
        lower_up: true,
        kind: Some(kind.into()),
        master,
        link: peer,
        bridge: (kind == "bridge").then(Bridge::default),
        port: master.map(|_| BridgePort { state: PortState::Forwarding, ..BridgePort::default() }),
        ..Link::default()
    };
    Links::from_iter([
        link(1, "qbr1", "bridge", None, None),
        link(2, "tap1", "tun", Some(1), None),
        link(3, "qvb1", "veth", Some(1), Some(4)),
        link(4, "qvo1", "veth", None, Some(3)),
        link(5, "tap0", "tun", None, None),
        link(6, "tap2", "tun", None, None),
        Link { has_hardware: true, ..link(7, "eth0", "", None, None) },
    ])
}

/// When every change has settled.
const LATER: Duration = Duration::from_secs(1);

/// One guest behind each shape of attachment.
fn targets() -> Vec<Target> {
    let device = |name: &str| Plug { device: Some(name.into()), ..Plug::default() };
    let plugs = [
        device("tap0"),
        device("tap1"),
        device("tap2"),
        Plug { device: None, interface_id: Some("id-vhu3".into()), socket: Some("/run/vhu3".into()) },
    ];
    let mac = MacAddr(0x52, 0x54, 0, 0, 0, 1);
    plugs.map(|plug| Target { manager: Some(Manager::Nova), ..Target::of_device(plug, mac) }).into()
}

fn look(target: &Target, ovs: &Ovs, in_charge: Option<Owner>) -> Assessment {
    static LINKS: OnceLock<Links> = OnceLock::new();
    let links = LINKS.get_or_init(links);
    let (guest, uplinks) = (GuestState::Running, &Uplinks::default());
    let facts =
        Facts { links, ovs, ovsdb_error: None, guest, in_charge, untagged: false, now: LATER, uplinks };
    assess(target, &facts)
}

#[test]
fn the_unbroken_listing_is_ready_everywhere() {
    let mut ovs = Ovs::default();
    assert!(rows::apply(&mut ovs, &listing(), Duration::ZERO));
    let kinds = targets().into_iter().map(|target| {
        let seen = look(&target, &ovs, None);
        assert_eq!((seen.unmet.as_slice(), seen.in_charge.0), ([].as_slice(), Owner::Neutron));
        seen.attachment.map(|attachment| attachment.kind)
    });
    let all = [Kind::Ovs, Kind::Hybrid, Kind::TrunkBridge, Kind::VhostUser].map(Some);
    assert_eq!(kinds.collect::<Vec<_>>(), all);
}

#[test]
fn ten_thousand_broken_listings_make_no_port_ready_that_must_wait() {
    let listing = listing();
    let targets = targets();
    always(10_000, (grafts(), grafts(), any::<bool>()), |(first, then, evidence)| {
        let mut ovs = Ovs::default();
        rows::apply(&mut ovs, &grafted(listing.clone(), &first), Duration::ZERO);
        let mut update = grafted(listing.clone(), &then);
        if let Some(tables) = update.as_object_mut() {
            tables.retain(|table, _| table != "Bridge");
        }
        for _ in 0..2 {
            let unique = names_are_unique(&ovs);
            for target in &targets {
                let in_charge = (!evidence).then_some(Owner::Neutron);
                is_sound(target, &ovs, unique, &look(target, &ovs, in_charge))?;
            }
            rows::apply(&mut ovs, &update, Duration::ZERO);
        }
        Ok(())
    });
}

#[test]
fn a_vlan_that_cannot_be_read_is_still_waited_for() {
    let mut ovs = Ovs::default();
    rows::apply(&mut ovs, &listing(), Duration::ZERO);
    ovs.ports.values_mut().for_each(|port| port.tag = None);
    for target in targets() {
        let target = Target { vlan: Some(Box::default()), ..target };
        for owner in [Owner::Neutron, Owner::Vlan] {
            let seen = look(&target, &ovs, Some(owner));
            assert!(!seen.is_ready(), "{owner} owns {:?}", seen.attachment);
        }
    }
}

/// What is unmet is told in words; with neutron in charge, what is ready obeys neutron's rule.
fn is_sound(target: &Target, ovs: &Ovs, unique: bool, seen: &Assessment) -> Result<(), TestCaseError> {
    let Some(attachment) = seen.attachment.as_ref().filter(|_| seen.is_ready()) else {
        prop_assert!(!seen.unmet.is_empty(), "{seen:?}");
        return Ok(());
    };
    if attachment.kind == Kind::LinuxBridge {
        // Nothing in OVSDB tells of this one any more, and its name is none of neutron's.
        prop_assert_eq!(target.plug.device.as_deref(), Some("tap1"));
        return Ok(());
    }
    prop_assert!(seen.ofport.is_some_and(|port| port > 0), "{:?}", seen);
    let entry = attachment.entry.ovs.as_ref().map(|port| port.interface.as_str());
    let plugged = ovs.interfaces.values().any(|i| Some(i.name.as_str()) == entry && i.ofport > Some(0));
    prop_assert!(plugged, "{:?} is no OpenFlow port", entry);
    // Every guest here has nova's metadata; only ovn-controller's marks count for more.
    prop_assert!(matches!(seen.in_charge.0, Owner::Neutron | Owner::Ovn), "{:?}", seen);
    if seen.in_charge.0 == Owner::Neutron {
        prop_assert!(ports(ovs, attachment).any(obeys_neutron), "{:?} is ready", attachment);
        if unique {
            prop_assert!(ports(ovs, attachment).all(obeys_neutron), "{:?} is ready", attachment);
        }
    }
    Ok(())
}

/// An access port, or a tunnel, of a VLAN that is not the dead one: Open vSwitch ignores its trunks.
fn obeys_neutron(port: &Port) -> bool {
    let tag = port.tag.is_some_and(|tag| (1..=4094).contains(&tag));
    let mode = port.vlan_mode.as_deref().is_none_or(|mode| ["", "access", "dot1q-tunnel"].contains(&mode));
    tag && mode
}

/// The rows that can be the attachment's port.
fn ports<'a>(ovs: &'a Ovs, attachment: &'a Attachment) -> impl Iterator<Item = &'a Port> {
    ovs.bridges
        .values()
        .filter(|bridge| bridge.name == attachment.bridge)
        .flat_map(|bridge| &bridge.ports)
        .filter_map(|uuid| ovs.ports.get(uuid))
        .filter(|port| port.name == attachment.port)
}

/// As OVSDB's schema has it.
fn names_are_unique(ovs: &Ovs) -> bool {
    let unique = |names: Vec<&String>| names.iter().collect::<BTreeSet<_>>().len() == names.len();
    unique(ovs.bridges.values().map(|row| &row.name).collect())
        && unique(ovs.ports.values().map(|row| &row.name).collect())
        && unique(ovs.interfaces.values().map(|row| &row.name).collect())
}

#[test]
fn ten_thousand_broken_messages_are_cut_or_refused() {
    let tap0 = listing()["Port"]["p0"].take();
    let reply = json!({"id": 0, "error": null, "result": {"Port": {"p0": tap0}}}).to_string();
    let update = json!({"id": null, "method": "update", "params": [null, {
        "Bridge": {"b1": {"new": {"name": "br-int", "ports": ["uuid", "p0"]}}},
        "Interface": {"i0": {"old": {"ofport": 5}, "new": {"name": "tap0", "type": "", "ofport": -1}}}}]});
    let stream = format!("{reply}{update}{reply}").into_bytes();
    always(10_000, changes(POISON), |changes| {
        let bytes = changed(&stream, &changes);
        let ended = ended(async {
            let mut connection = Connection::over(tokio::io::join(&bytes[..], tokio::io::sink()));
            let mut ovs = Ovs::default();
            loop {
                match connection.receive().await {
                    Ok(message) => {
                        rows::apply(&mut ovs, &message["result"], Duration::ZERO);
                        rows::apply(&mut ovs, &message["params"][1], Duration::ZERO);
                    }
                    Err(error) => return error.to_string(),
                }
            }
        });
        prop_assert!(ended.as_deref().is_some_and(is_one_line), "{:?}", ended);
        Ok(())
    });
}

/// A megabyte of the smallest messages: each costs its own bytes, not those of all that follow.
#[test]
fn a_flood_of_small_messages_is_cut_in_linear_time() {
    let flood = b"{}".repeat(500_000);
    let count = ended(async {
        let mut connection = Connection::over(tokio::io::join(&flood[..], tokio::io::sink()));
        let mut count = 0;
        while connection.receive().await.is_ok() {
            count += 1;
        }
        count
    });
    assert_eq!(count, Some(500_000));
}
