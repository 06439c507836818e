//! The table of names in `man/announce.1`: one thing has the same name wherever it is told.

use std::collections::BTreeSet;
use std::process::Command;

use announced::for_tests::args::Cli;
use announced::for_tests::metrics::{Gauges, Metrics};
use announced::for_tests::snapshot::{Peer, Snapshot};
use announced::for_tests::waiting::Waiting;
use clap::CommandFactory;
use serde_json::Value;

use crate::page::{Page, known_options};

const PAGE: Page = Page(include_str!("../../man/announce.1"));

/// The rows without the head: text, JSON, metrics and journal, options and keys.
fn rows() -> Vec<[&'static str; 4]> {
    let rows = PAGE.part("Ss", "Names").lines().filter_map(|line| line.strip_prefix(".It "));
    let rows = rows.skip(1).map(|row| {
        let mut cells = row.split(" Ta").map(str::trim);
        std::array::from_fn(|_| cells.next().unwrap_or_default())
    });
    rows.collect()
}

fn names(cell: &'static str) -> impl Iterator<Item = &'static str> {
    cell.split(" , ").filter(|name| !name.is_empty())
}

#[test]
fn every_key_of_json_is_there() {
    let mut known = BTreeSet::new();
    let nic = ["--dev", "nosuch0", "--mac", "52:54:00:12:34:56", "--json"];
    for command in [&["--wait", "0"][..], &["explain"], &["trace"]] {
        let run = Command::new(env!("CARGO_BIN_EXE_announce")).args(command).args(nic).output().unwrap();
        add_keys(&serde_json::from_slice(&run.stdout).unwrap(), &mut known);
    }
    let waiting = Waiting {
        subject: String::new(),
        condition: String::new(),
        reason: String::new(),
        code: String::new(),
        text: String::new(),
        vm: None,
        device: None,
        mac: None,
    };
    let status = Snapshot { waiting: vec![waiting], peers: vec![Peer::default()], ..<Snapshot>::default() };
    add_keys(&serde_json::to_value(status).unwrap(), &mut known);
    let told = rows().into_iter().flat_map(|[_, json, ..]| names(json));
    assert_eq!(told.filter(|name| !known.contains(*name)).collect::<Vec<_>>(), [""; 0], "{known:?}");
}

#[test]
fn every_metric_and_field_of_the_journal_is_there() {
    let metrics = Metrics::default().text(&Gauges::default(), &[]);
    let publish = include_str!("../../src/daemon/publish.rs");
    let fields = publish.split_once("tracing::$level!(").unwrap().1.split_once("\"{line}\"").unwrap().0;
    for name in rows().into_iter().flat_map(|[_, _, told, _]| names(told)) {
        let is_there = match name.chars().all(|c| c.is_ascii_uppercase() || c == '_') {
            true => fields.split([',', ' ']).any(|field| field.trim() == name.to_lowercase()),
            false => metrics.contains(&format!("# TYPE announced_{name} ")),
        };
        assert!(is_there, "nothing is called {name}");
    }
}

#[test]
fn every_option_and_configuration_key_is_there() {
    let configuration = include_str!("../../contrib/announced.toml");
    let options = known_options(&Cli::command());
    for name in rows().into_iter().flat_map(|[.., told]| names(told)) {
        let is_there = match name.split_once(' ') {
            Some(("Fl", option)) => options.contains(&format!("-{option}")),
            Some(("Li", key)) if key.starts_with('[') => configuration.contains(&key.replace(']', "")),
            Some((_, key)) => configuration.contains(&format!("{key} = ")),
            None => false,
        };
        assert!(is_there, "nothing is called {name}");
    }
}

/// A name that is told is a contract, and so is an older one beside it.
#[test]
fn older_keys_stay_beside_the_names() {
    let run = |arguments: &[&str]| {
        let nic = ["--dev", "nosuch0", "--mac", "52:54:00:12:34:56", "--json"];
        let run = Command::new(env!("CARGO_BIN_EXE_announce")).args(arguments).args(nic).output().unwrap();
        serde_json::from_slice::<Value>(&run.stdout).unwrap()
    };
    let (report, explained) = (run(&["--wait", "0"]), run(&["explain"]));
    for (object, older, name) in [
        (&report, "cause", "event"),
        (&report, "lost_rounds", "rounds_lost"),
        (&report, "left_host_after_ms", "departure_after_ms"),
        (&report, "returned_after_ms", "reply_after_ms"),
        (&explained, "in_charge", "owner"),
        (&explained, "disbelieved", "ignored_addresses"),
    ] {
        assert_eq!(object.get(older), object.get(name), "{older}");
        assert!(object.get(name).is_some(), "{name}");
    }
    assert_eq!((&report["vm"], &report["domain"]), (&Value::Null, &Value::Null));
    assert_eq!(report["error_code"], "no-device");
}

fn add_keys(value: &Value, known: &mut BTreeSet<String>) {
    match value {
        Value::Object(object) => object.iter().for_each(|(key, value)| {
            known.insert(key.clone());
            add_keys(value, known);
        }),
        Value::Array(values) => values.iter().for_each(|value| add_keys(value, known)),
        _ => {}
    }
}
