//! OVSDB's JSON for rows, read into [`Ovs`] (RFC 7047 sections 4.1.5 and 5.1).

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::path::ovs::{Bridge, Interface, Ovs, Port};

/// The columns to monitor: only those that an announcement depends on, so that statistics wake nobody.
pub fn columns() -> Value {
    json!({
        "Open_vSwitch": {"columns": ["external_ids", "next_cfg", "cur_cfg"]},
        "Bridge": {"columns": ["name", "ports"]},
        "Port": {"columns": ["name", "interfaces", "tag", "vlan_mode", "trunks", "other_config"]},
        "Interface": {"columns": ["name", "type", "ofport", "error", "external_ids", "options"]},
    })
}

/// Takes `<table-updates>` into account; tells whether there was any row in them.
pub fn apply(ovs: &mut Ovs, updates: &Value) -> bool {
    let mut changed = false;
    let before = ovs.next_cfg;
    let rows = |table: &str| updates[table].as_object().into_iter().flatten();
    // First, since it numbers the change that the other rows are part of.
    for (_, update) in rows("Open_vSwitch") {
        changed = true;
        open_vswitch(ovs, &update["new"]);
    }
    for (uuid, update) in rows("Bridge") {
        changed = true;
        put(&mut ovs.bridges, uuid, update["new"].as_object().map(bridge));
    }
    for (uuid, update) in rows("Port") {
        changed = true;
        let (changed_in, counted) = (ovs.next_cfg, ovs.next_cfg != before);
        let new = update["new"].as_object().map(|row| Port { changed_in, counted, ..port(row) });
        put(&mut ovs.ports, uuid, new);
    }
    for (uuid, update) in rows("Interface") {
        changed = true;
        put(&mut ovs.interfaces, uuid, update["new"].as_object().map(interface));
    }
    ovs.changed();
    changed
}

fn open_vswitch(ovs: &mut Ovs, new: &Value) {
    let number = |column: &str| new[column].as_i64().unwrap_or_default();
    (ovs.next_cfg, ovs.cur_cfg) = (number("next_cfg"), number("cur_cfg"));
    ovs.external_ids = new.as_object().map(|row| map(row, "external_ids")).unwrap_or_default();
}

fn put<T>(table: &mut BTreeMap<String, T>, uuid: &str, row: Option<T>) {
    match row {
        Some(row) => table.insert(uuid.to_owned(), row),
        None => table.remove(uuid),
    };
}

fn bridge(row: &Map<String, Value>) -> Bridge {
    Bridge {
        name: text(row, "name").unwrap_or_default(),
        ports: set(row, "ports").filter_map(uuid).collect(),
    }
}

fn port(row: &Map<String, Value>) -> Port {
    Port {
        name: text(row, "name").unwrap_or_default(),
        interfaces: set(row, "interfaces").filter_map(uuid).collect(),
        tag: set(row, "tag").find_map(vlan),
        vlan_mode: text(row, "vlan_mode"),
        trunks: set(row, "trunks").filter_map(vlan).collect(),
        other_config: map(row, "other_config"),
        changed_in: 0,
        counted: false,
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
    }
}

/// The members of a column: a set of one is written as its only member.
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

/// The second of `[word, value]`.
fn pair<'a>(value: &'a Value, word: &str) -> Option<&'a Value> {
    (value.get(0)?.as_str()? == word).then(|| value.get(1)).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert!(apply(&mut ovs, &updates()));
        let plugged = ovs.named("tap0").unwrap();
        assert_eq!(plugged.bridge.name, "br-int");
        assert_eq!((plugged.port.tag, plugged.port.vlan_mode.as_deref()), (Some(100), None));
        assert_eq!(plugged.port.trunks, [1, 2], "what is no VLAN is passed over");
        assert_eq!(plugged.port.other_config["net_uuid"], "n");
        assert_eq!(plugged.interface.plugged_ofport(), Some(5));
    }

    #[test]
    fn a_port_knows_the_change_that_it_came_with() {
        let mut ovs = Ovs::default();
        let mut with_number = updates();
        with_number["Open_vSwitch"] = json!({"o": {"new": {"next_cfg": 8, "cur_cfg": 7}}});
        apply(&mut ovs, &with_number);
        assert_eq!((ovs.cur_cfg, ovs.ports["p"].changed_in, ovs.ports["p"].counted), (7, 8, true));
        apply(&mut ovs, &json!({"Open_vSwitch": {"o": {"new": {"next_cfg": 9, "cur_cfg": 8}}}}));
        assert_eq!((ovs.cur_cfg, ovs.ports["p"].changed_in), (8, 8), "the change 9 was not its own");
        apply(&mut ovs, &updates());
        assert!(!ovs.ports["p"].counted, "who changed it did not count");
    }

    #[test]
    fn a_row_without_new_has_gone() {
        let mut ovs = Ovs::default();
        apply(&mut ovs, &updates());
        apply(&mut ovs, &json!({"Interface": {"i": {"old": {"name": "tap0"}}}}));
        assert_eq!(ovs.named("tap0"), None);
    }
}
