//! OVSDB's JSON for rows, read into [`Ovs`] (RFC 7047 sections 4.1.5 and 5.1).

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::path::ovs::{Bridge, Interface, Mirror, Ovs, Port, Touched};

/// The monitored columns: only those that an announcement depends on, so that changes of statistics cause no updates.
pub fn columns() -> Value {
    json!({
        "Open_vSwitch": {"columns": ["external_ids", "other_config", "next_cfg", "cur_cfg"]},
        "Bridge": {"columns": ["name", "ports", "mirrors"]},
        "Port": {"columns": ["name", "interfaces", "tag", "vlan_mode", "trunks", "bond_active_slave", "other_config"]},
        "Mirror": {"columns": ["output_port", "output_vlan"]},
        "Interface": {"columns": ["name", "type", "ofport", "error", "external_ids", "options", "status"]},
    })
}

/// The rows of an initial `<table-updates>` that arrived at `now`; `known` shows which of them have changed.
pub fn listed(updates: &Value, known: &Ovs, now: Duration) -> Ovs {
    let mut ovs = Ovs::default();
    ovs.changes.clone_from(&known.changes);
    apply(&mut ovs, updates, now);
    ovs.changes.everything();
    let next_cfg = ovs.next_cfg;
    for (uuid, port) in &mut ovs.ports {
        *port = std::mem::take(port).listed(known.ports.get(uuid), next_cfg, now);
    }
    ovs.answers = known.answers;
    if ovs.ports.values().any(|port| has_changed_uncounted(port, now)) {
        ovs.answers.changed_at = Some(now);
    }
    ovs
}

/// Applies `<table-updates>` that arrived at `now`; returns whether they had any row.
pub fn apply(ovs: &mut Ovs, updates: &Value, now: Duration) -> bool {
    let (mut changed, mut is_found_otherwise) = (false, false);
    let mut touched = Touched::default();
    let before = ovs.next_cfg;
    let rows = |table: &str| updates[table].as_object().into_iter().flatten();
    // First, since it numbers the change that the other rows belong to.
    for (_, update) in rows("Open_vSwitch") {
        changed = true;
        open_vswitch(ovs, &update["new"], &mut touched);
    }
    for (uuid, update) in rows("Bridge") {
        changed = true;
        let before = put(&mut ovs.bridges, uuid, update["new"].as_object().map(bridge));
        is_found_otherwise |= before.as_ref() != ovs.bridges.get(uuid);
        touched.bridge(before.as_ref(), ovs.bridges.get(uuid));
    }
    for (uuid, update) in rows("Port") {
        changed = true;
        let (next_cfg, old) = (ovs.next_cfg, ovs.ports.get(uuid));
        let has_ofport = |uuid: &String| updates["Interface"][uuid]["new"]["ofport"].is_number();
        let new = update["new"].as_object().map(port).map(|port| match old {
            // One update for several changes, as ovsdb-server sends to a client that reads slowly: ovs-vswitchd had made the
            // port before the last of them.
            None if port.interfaces.iter().any(has_ofport) => port.listed(None, next_cfg, now),
            _ => port.after(old, next_cfg != before, next_cfg, now),
        });
        if new.as_ref().is_some_and(|port| has_changed_uncounted(port, now)) {
            ovs.answers.changed_at = Some(now);
        }
        let before = put(&mut ovs.ports, uuid, new);
        is_found_otherwise |= before.as_ref().map(Port::found_by) != ovs.ports.get(uuid).map(Port::found_by);
        touched.port(uuid, before);
    }
    for (uuid, update) in rows("Interface") {
        changed = true;
        let before = put(&mut ovs.interfaces, uuid, update["new"].as_object().map(interface));
        let now = ovs.interfaces.get(uuid).map(Interface::found_by);
        is_found_otherwise |= before.as_ref().map(Interface::found_by) != now;
        touched.interface(uuid, before);
    }
    for (uuid, update) in rows("Mirror") {
        changed = true;
        let before = put(&mut ovs.mirrors, uuid, update["new"].as_object().map(mirror));
        if before.as_ref() != ovs.mirrors.get(uuid) {
            is_found_otherwise = true;
            touched.mirror();
        }
    }
    touched.note(ovs);
    // The index costs as much as all rows; most updates are of tags and port numbers.
    if is_found_otherwise {
        ovs.reindex();
    }
    changed
}

fn has_changed_uncounted(port: &Port, now: Duration) -> bool {
    port.uncounted.is_some_and(|change| change.at == now)
}

fn open_vswitch(ovs: &mut Ovs, new: &Value, touched: &mut Touched) {
    let cur_cfg = ovs.cur_cfg;
    let number = |column: &str| new[column].as_i64().unwrap_or_default();
    (ovs.next_cfg, ovs.cur_cfg) = (number("next_cfg"), number("cur_cfg"));
    let map_of = |column| new.as_object().map(|row| map(row, column)).unwrap_or_default();
    let settings = (map_of("external_ids"), map_of("other_config"));
    let has_same_settings = (&settings.0, &settings.1) == (&ovs.external_ids, &ovs.other_config);
    (ovs.external_ids, ovs.other_config) = settings;
    touched.open_vswitch((cur_cfg, has_same_settings), ovs);
}

/// Returns the row of before.
fn put<T>(table: &mut BTreeMap<String, T>, uuid: &str, row: Option<T>) -> Option<T> {
    match row {
        Some(row) => table.insert(uuid.to_owned(), row),
        None => table.remove(uuid),
    }
}

fn bridge(row: &Map<String, Value>) -> Bridge {
    Bridge {
        name: text(row, "name").unwrap_or_default(),
        ports: set(row, "ports").filter_map(uuid).collect(),
        mirrors: set(row, "mirrors").filter_map(uuid).collect(),
    }
}

fn mirror(row: &Map<String, Value>) -> Mirror {
    Mirror {
        output_port: set(row, "output_port").find_map(uuid),
        output_vlan: set(row, "output_vlan").find_map(vlan),
    }
}

fn port(row: &Map<String, Value>) -> Port {
    Port {
        name: text(row, "name").unwrap_or_default(),
        interfaces: set(row, "interfaces").filter_map(uuid).collect(),
        tag: set(row, "tag").find_map(vlan),
        vlan_mode: text(row, "vlan_mode"),
        trunks: set(row, "trunks").filter_map(vlan).collect(),
        bond_active_slave: text(row, "bond_active_slave"),
        other_config: map(row, "other_config"),
        ..Port::default()
    }
}

fn interface(row: &Map<String, Value>) -> Interface {
    Interface {
        name: text(row, "name").unwrap_or_default(),
        kind: text(row, "type").unwrap_or_default(),
        ofport: set(row, "ofport").find_map(Value::as_i64),
        error: text(row, "error"),
        external_ids: map(row, "external_ids"),
        options: map(row, "options"),
        egress: map(row, "status").remove("tunnel_egress_iface").filter(|name| !name.is_empty()),
    }
}

/// The elements of a column: OVSDB writes a set of one element as that element.
fn set<'a>(row: &'a Map<String, Value>, column: &str) -> impl Iterator<Item = &'a Value> {
    let value = row.get(column);
    let members = match value.and_then(|v| pair(v, "set")) {
        Some(members) => members.as_array().map_or(&[][..], Vec::as_slice),
        None => value.map_or(&[][..], std::slice::from_ref),
    };
    members.iter()
}

fn text(row: &Map<String, Value>, column: &str) -> Option<String> {
    set(row, column).find_map(Value::as_str).map(str::to_owned)
}

fn map(row: &Map<String, Value>, column: &str) -> BTreeMap<String, String> {
    let pairs = row.get(column).and_then(|v| pair(v, "map")).and_then(Value::as_array);
    let pairs = pairs.into_iter().flatten();
    pairs.filter_map(|p| Some((p.get(0)?.as_str()?.to_owned(), p.get(1)?.as_str()?.to_owned()))).collect()
}

fn vlan(value: &Value) -> Option<u16> {
    value.as_u64().and_then(|n| u16::try_from(n).ok()).filter(|n| *n < 4096)
}

fn uuid(value: &Value) -> Option<String> {
    pair(value, "uuid")?.as_str().map(str::to_owned)
}

/// The second element of `[word, value]`.
fn pair<'a>(value: &'a Value, word: &str) -> Option<&'a Value> {
    (value.get(0)?.as_str()? == word).then(|| value.get(1)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path::ovs::{Answers, CarriedOut};

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    fn updates() -> Value {
        json!({
            "Bridge": {"b": {"new": {"name": "br-int", "ports": ["set", [["uuid", "p"], ["uuid", "q"]]]}}},
            "Port": {"p": {"new": {
                "name": "tap0", "interfaces": ["uuid", "i"], "tag": 100, "vlan_mode": ["set", []],
                "trunks": ["set", [1, 2, 70000, "x"]], "other_config": ["map", [["net_uuid", "n"], ["odd"]]]}}},
            "Interface": {"i": {"new": {"name": "tap0", "type": "", "ofport": 5, "error": ["set", []]}}},
        })
    }

    #[test]
    fn rows_are_read_with_sets_maps_and_references() {
        let mut ovs = Ovs::default();
        assert!(apply(&mut ovs, &updates(), ms(0)));
        let plugged = ovs.named("tap0").unwrap();
        assert_eq!(plugged.bridge.name, "br-int");
        assert_eq!((plugged.port.tag, plugged.port.vlan_mode.as_deref()), (Some(100), None));
        assert_eq!(plugged.port.trunks, [1, 2], "an invalid VLAN is skipped");
        assert_eq!(plugged.port.other_config["net_uuid"], "n");
        assert_eq!(plugged.interface.plugged_ofport(), Some(5));
    }

    #[test]
    fn only_what_rows_are_found_by_is_indexed_again() {
        let mut ovs = Ovs::default();
        apply(&mut ovs, &updates(), ms(0));
        let indexed = ovs.clone();
        let mut tagged = updates();
        tagged["Port"]["p"]["new"]["tag"] = json!(7);
        tagged["Interface"]["i"]["new"]["ofport"] = json!(-1);
        assert!(apply(&mut ovs, &tagged, ms(1)) && ovs.is_indexed_like(&indexed));
        assert_eq!(
            ovs.named("tap0").map(|found| (found.port.tag, found.interface.ofport)),
            Some((Some(7), Some(-1)))
        );
        for (table, row, column, value) in [
            ("Bridge", "b", "ports", json!(["set", []])),
            ("Port", "p", "interfaces", json!(["set", []])),
            ("Port", "p", "other_config", json!(["map", []])),
            ("Interface", "i", "name", json!("tap1")),
            ("Interface", "i", "external_ids", json!(["map", [["iface-id", "x"]]])),
        ] {
            let (mut ovs, mut other) = (indexed.clone(), updates());
            other[table][row]["new"][column] = value;
            assert!(apply(&mut ovs, &other, ms(1)) && !ovs.is_indexed_like(&indexed), "{column}");
        }
        let mirror = |row: Value| json!({"Mirror": {"m": row}});
        let into_vlan = json!({"new": {"output_port": ["set", []], "output_vlan": 99}});
        assert!(apply(&mut ovs, &mirror(into_vlan), ms(2)));
        assert_eq!(ovs.mirrors["m"], Mirror { output_port: None, output_vlan: Some(99) });
        let of_bridge = json!({"Bridge": {"b": {"new": {"name": "br-int", "ports": ["set", []], "mirrors": ["uuid", "m"]}}}});
        assert!(apply(&mut ovs, &of_bridge, ms(2)));
        assert_eq!(ovs.copied_into(&ovs.bridges["b"]).collect::<Vec<_>>(), [99]);
        let to_port = json!({"new": {"output_port": ["uuid", "p"], "output_vlan": 99}});
        assert!(apply(&mut ovs, &mirror(to_port), ms(3)));
        assert_eq!(ovs.mirrors["m"].output_port.as_deref(), Some("p"));
        assert_eq!(ovs.copied_into(&ovs.bridges["b"]).next(), None, "Open vSwitch heeds the port");
        assert!(!ovs.is_indexed_like(&indexed));
        assert!(apply(&mut ovs, &mirror(json!({"old": {"output_port": ["uuid", "p"]}})), ms(4)));
        assert!(ovs.mirrors.is_empty());
    }

    #[test]
    fn a_port_knows_the_change_that_it_came_with() {
        let mut ovs = Ovs::default();
        let mut with_number = updates();
        with_number["Open_vSwitch"] = json!({"o": {"new": {"next_cfg": 8, "cur_cfg": 7}}});
        apply(&mut ovs, &with_number, ms(0));
        assert_eq!((ovs.cur_cfg, ovs.ports["p"].changed_in), (7, 8));
        apply(&mut ovs, &json!({"Open_vSwitch": {"o": {"new": {"next_cfg": 9, "cur_cfg": 8}}}}), ms(1));
        assert_eq!((ovs.cur_cfg, ovs.ports["p"].changed_in), (8, 8), "change 9 was not of this port");
    }

    /// A port in VLAN 100, or in `tag`; the change is counted as `next_cfg`, if given.
    fn tagged(tag: Value, next_cfg: Option<i64>) -> Value {
        let mut updates = updates();
        updates["Port"]["p"]["new"]["tag"] = tag;
        updates["Port"]["p"]["new"]["trunks"] = json!(["set", []]);
        if let Some(next_cfg) = next_cfg {
            updates["Open_vSwitch"] = json!({"o": {"new": {"next_cfg": next_cfg, "cur_cfg": 0}}});
        }
        updates
    }

    /// The same before ovs-vswitchd has made the port.
    fn unmade(mut updates: Value) -> Value {
        updates["Interface"]["i"]["new"]["ofport"] = json!(["set", []]);
        updates
    }

    fn settles(ovs: &Ovs, cur_cfg: i64, now: u64) -> Option<Duration> {
        match ovs.ports["p"].carried_out(cur_cfg, &Answers::default(), ms(now)) {
            CarriedOut::In(left) => Some(left),
            CarriedOut::Yes => None,
            CarriedOut::Unanswered => panic!("nothing was asked"),
        }
    }

    #[test]
    fn a_change_that_ovs_vswitchd_is_asked_about_is_carried_out_when_it_answers_and_not_before() {
        let mut ovs = Ovs::default();
        apply(&mut ovs, &unmade(tagged(json!(["set", []]), None)), ms(0));
        assert!(!ovs.answers.is_due(), "a new port");
        apply(&mut ovs, &tagged(json!(7), None), ms(100));
        assert!(ovs.answers.is_due());
        let carried_out = |ovs: &Ovs, now| ovs.ports["p"].carried_out(ovs.cur_cfg, &ovs.answers, ms(now));
        assert_eq!(carried_out(&ovs, 101), CarriedOut::In(ms(999)));
        assert_eq!(carried_out(&ovs, 5000), CarriedOut::Unanswered, "it hangs");
        ovs.answers.until = Some(ms(99));
        assert_eq!(carried_out(&ovs, 101), CarriedOut::In(ms(999)), "an earlier question");
        ovs.answers.until = Some(ms(100));
        assert_eq!((carried_out(&ovs, 101), ovs.answers.is_due()), (CarriedOut::Yes, false));
        let anew = listed(&tagged(json!(8), None), &ovs, ms(300));
        assert!(anew.answers.is_due());
        assert_eq!(carried_out(&anew, 301), CarriedOut::In(ms(19)), "it may have changed just now");
        assert_eq!(carried_out(&anew, 400), CarriedOut::Yes);
        apply(&mut ovs, &tagged(json!(9), None), ms(500));
        ovs.not_told_until(ms(500));
        assert!(!ovs.answers.is_due());
        assert_eq!(carried_out(&ovs, 501), CarriedOut::In(ms(19)), "it cannot be asked");
        ovs.answers.changed_at = Some(ms(9000));
        assert_eq!(carried_out(&ovs, 9000), CarriedOut::Yes, "whatever changes elsewhere later");
    }

    #[test]
    fn a_port_whose_change_was_not_counted_settles() {
        let mut ovs = Ovs::default();
        let settles = |ovs: &Ovs, now| settles(ovs, ovs.cur_cfg, now);
        apply(&mut ovs, &unmade(tagged(json!(["set", []]), None)), ms(0));
        assert_eq!(settles(&ovs, 0), None, "a new port receives no frame before it is made");
        apply(&mut ovs, &tagged(json!(7), None), ms(100));
        assert_eq!((settles(&ovs, 101), settles(&ovs, 120)), (Some(ms(19)), None));
        apply(&mut ovs, &tagged(json!(7), None), ms(110));
        assert_eq!(settles(&ovs, 111), Some(ms(9)), "another column");
        apply(&mut ovs, &json!({"Open_vSwitch": {"o": {"new": {"next_cfg": 1, "cur_cfg": 1}}}}), ms(112));
        assert_eq!(settles(&ovs, 113), None, "a later change is carried out, and this one with it");
        apply(&mut ovs, &tagged(json!(["set", []]), Some(2)), ms(200));
        assert_eq!(settles(&ovs, 200), None, "cur_cfg shows it");
    }

    /// ovsdb-server sends a client that reads slowly one update for several changes.
    #[test]
    fn a_new_port_that_has_its_number_already_settles() {
        let mut ovs = Ovs::default();
        apply(&mut ovs, &tagged(json!(7), Some(8)), ms(100));
        assert_eq!(settles(&ovs, 8, 101), Some(ms(19)));
        assert_eq!(settles(&ovs, 9, 101), None);
    }

    #[test]
    fn from_the_dead_vlan_a_port_settles_no_longer_than_it_did() {
        let mut ovs = Ovs::default();
        let settles = |ovs: &Ovs, now| settles(ovs, ovs.cur_cfg, now);
        apply(&mut ovs, &unmade(tagged(json!(4095), None)), ms(0));
        apply(&mut ovs, &tagged(json!(7), None), ms(1));
        assert_eq!(settles(&ovs, 1), None);
        apply(&mut ovs, &tagged(json!(4095), None), ms(100));
        apply(&mut ovs, &tagged(json!(7), None), ms(101));
        assert_eq!(settles(&ovs, 101), Some(ms(19)), "frames may still meet the state before both changes");
    }

    #[test]
    fn a_row_that_a_listing_shows_for_the_first_time_may_have_changed_just_now() {
        let ovs = listed(&tagged(json!(7), Some(8)), &Ovs::default(), ms(100));
        assert_eq!(settles(&ovs, 8, 100), Some(ms(20)));
        let again = listed(&tagged(json!(7), Some(8)), &ovs, ms(500));
        assert_eq!(settles(&again, 8, 500), None, "it has not changed");
        let other = listed(&tagged(json!(8), Some(8)), &ovs, ms(500));
        assert_eq!(settles(&other, 8, 500), Some(ms(20)));
    }

    #[test]
    fn a_row_without_new_is_deleted() {
        let mut ovs = Ovs::default();
        apply(&mut ovs, &updates(), ms(0));
        apply(&mut ovs, &json!({"Interface": {"i": {"old": {"name": "tap0"}}}}), ms(0));
        assert_eq!(ovs.named("tap0"), None);
    }
}
