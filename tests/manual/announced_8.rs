//! `man/announced.8` against the program.

use std::collections::BTreeSet;
use std::process::Command;

use announced::for_tests::config::LibvirtTable;
use announced::for_tests::event::Cause;
use announced::for_tests::frame;
use announced::for_tests::metrics::{Gauges, Metrics};
use announced::for_tests::progress::Outcome;
use announced::for_tests::waiting::waited_for;

use crate::page::{Page, assert_marked};

const PAGE: Page = Page(include_str!("../../man/announced.8"));

#[test]
fn the_page_has_every_option_and_no_other() {
    let help = Command::new(env!("CARGO_BIN_EXE_announced")).arg("--help").output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let heads = help.lines().map(str::trim_start).filter(|line| line.starts_with('-'));
    let known: BTreeSet<String> = heads
        .flat_map(|head| head.split([' ', ',']).filter(|word| word.starts_with('-')))
        .map(str::to_owned)
        .collect();
    assert_eq!(PAGE.options(), known);
}

#[test]
fn the_page_has_every_metric_and_no_other() {
    let text = Metrics::default().text(&Gauges::default(), &[]);
    let families = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    let known: BTreeSet<&str> = families.collect();
    assert!(known.len() >= 9, "{known:?}");
    let items = PAGE.section("METRICS").filter_map(|line| line.strip_prefix(".It Va "));
    assert_eq!(items.collect::<BTreeSet<_>>(), known);
}

#[test]
fn the_page_has_every_value_of_the_metrics_labels() {
    use Outcome::*;
    let outcomes = [Announced, NotReady, Cancelled, Superseded, Failed];
    let words = (outcomes.iter().map(|outcome| outcome.word()))
        .chain(frame::Kind::ALL.iter().map(|kind| kind.word()))
        .chain(waited_for())
        .chain(["libvirt", "ovsdb"]);
    assert_marked(PAGE.part("Sh", "METRICS"), "Cm", words);
}

#[test]
fn the_page_has_every_event_and_says_which_are_on() {
    let events = PAGE.part("Ss", "Events");
    let default = LibvirtTable::default().events;
    for cause in Cause::EVENTS {
        let item = events.split(&format!("\n.It Cm {}\n", cause.word())).nth(1).unwrap();
        let item = item.split("\n.It ").next().unwrap();
        let words = if default.contains(&cause) { "On by default" } else { "Off by default" };
        assert!(item.contains(words), "{}: {item}", cause.word());
    }
}

#[test]
fn the_page_has_every_field_of_the_journal() {
    let source = include_str!("../../src/daemon/publish.rs");
    // The one line that has fields: `tracing::$level!(domain, …, name = value, "{line}")`.
    let fields = source.split_once("tracing::$level!(").unwrap().1.split_once("\"{line}\"").unwrap().0;
    let fields = fields.split(',').map(str::trim).filter(|field| !field.is_empty());
    let known = fields.map(|field| field.split(" =").next().unwrap().to_uppercase());
    let known: BTreeSet<String> = known.map(|field| format!("ANNOUNCE_{field}")).collect();
    let items = PAGE.section("LOGGING").filter_map(|line| line.strip_prefix(".It Va "));
    assert_eq!(items.map(str::to_owned).collect::<BTreeSet<_>>(), known);
}

#[test]
fn the_page_has_every_exit_status() {
    let items: Vec<&str> = PAGE.section("EXIT STATUS").filter_map(|line| line.strip_prefix(".It ")).collect();
    assert_eq!(items, ["0", "1", "2", "78"]);
}
