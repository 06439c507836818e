//! OVSDB's messages: however they arrive, they are cut as a JSON parser reads them; whatever the rows say can be looked up and
//! assessed, and a port of neutron's that must wait is never ready.
#![no_main]

use std::time::Duration;

use announced::for_tests::GuestState;
use announced::for_tests::jsonrpc::Connection;
use announced::for_tests::link::{Link, Links};
use announced::for_tests::ovs::Ovs;
use announced::for_tests::owner::Owner;
use announced::for_tests::readiness::{Facts, assess};
use announced::for_tests::rows;
use announced::for_tests::target::{Manager, Plug, Target};
use announced::for_tests::uplinks::Uplinks;
use announced_fuzz::{Stream, ended, is_one_line};
use libfuzzer_sys::fuzz_target;
use pnet_base::MacAddr;
use serde_json::Value;

const LATER: Duration = Duration::from_secs(1);
const MAC: MacAddr = MacAddr(2, 0, 0, 0, 0, 1);

fuzz_target!(|input: &[u8]| {
    let (&piece, stream) = input.split_first().unwrap_or((&0, &[]));
    let messages = cut(stream, usize::MAX);
    assert_eq!(cut(stream, piece.into()), messages);
    let mut expected = serde_json::Deserializer::from_slice(stream).into_iter::<Value>();
    let expected: Vec<Value> = expected.by_ref().map_while(Result::ok).collect();
    if expected.iter().all(|value| value.is_object()) {
        assert!(messages.starts_with(&expected), "{expected:?} became {messages:?}");
    }
    let mut ovs = Ovs::default();
    for message in &messages {
        rows::apply(&mut ovs, &message["result"], Duration::ZERO);
        rows::apply(&mut ovs, &message["params"][1], Duration::ZERO);
        let listed = rows::listed(&message["result"], &ovs, Duration::ZERO);
        assert!(listed.ports.keys().all(|uuid| message["result"]["Port"].get(uuid).is_some()));
    }
    are_found(&ovs);
    let links = Links::from_iter([Link {
        index: 1,
        name: "tap0".into(),
        up: true,
        lower_up: true,
        ..Link::default()
    }]);
    let names = ovs.interfaces.values().map(|interface| interface.name.clone()).take(8);
    for name in names.chain(["tap0".to_owned()]) {
        is_sound(&name, &links, &ovs);
    }
});

/// The messages of a stream that arrives in pieces of this size.
fn cut(stream: &[u8], piece: usize) -> Vec<Value> {
    ended(async {
        let mut connection = Connection::over(Stream::of(stream.to_owned(), piece));
        let mut messages = Vec::new();
        loop {
            match connection.receive().await {
                Ok(message) => messages.push(message),
                Err(error) => {
                    assert!(is_one_line(&error.to_string()));
                    return messages;
                }
            }
        }
    })
}

/// Every interface of a bridge is found by its name, its bridge's and its id.
fn are_found(ovs: &Ovs) {
    for bridge in ovs.bridges.values() {
        for plugged in ovs.plugged_into(bridge) {
            let name = &plugged.interface.name;
            assert!(ovs.named(name).is_some_and(|found| found.interface.name == *name));
            if let Some(id) = plugged.interface.external_ids.get("iface-id") {
                let is_it = |found: &str| found.eq_ignore_ascii_case(id);
                assert!(
                    ovs.of_interface_id(id).all(|found| is_it(&found.interface.external_ids["iface-id"]))
                );
                assert!(ovs.of_interface_id(id).next().is_some());
            }
        }
    }
}

fn is_sound(name: &str, links: &Links, ovs: &Ovs) {
    let plug = Plug { device: Some(name.into()), ..Plug::default() };
    let target = Target { manager: Some(Manager::Nova), ..Target::of_device(plug, MAC) };
    let (guest, uplinks, in_charge) = (GuestState::Running, &Uplinks::default(), Some(Owner::Neutron));
    let facts =
        Facts { links, ovs, ovsdb_error: None, guest, in_charge, untagged: false, now: LATER, uplinks };
    let seen = assess(&target, &facts);
    if !seen.is_ready() {
        return assert!(!seen.unmet.is_empty());
    }
    let attachment = seen.attachment.as_ref().expect("what is ready is somewhere");
    assert!(seen.ofport.is_some_and(|port| port > 0));
    let mut ports = ovs.ports.values().filter(|port| port.name == attachment.port);
    let obeys = |tag: Option<u16>, mode: Option<&str>| {
        tag.is_some_and(|tag| (1..=4094).contains(&tag))
            && matches!(mode, None | Some("" | "access" | "dot1q-tunnel"))
    };
    assert!(ports.any(|port| obeys(port.tag, port.vlan_mode.as_deref())), "{attachment:?} is ready");
}
