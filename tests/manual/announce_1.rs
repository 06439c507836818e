//! `man/announce.1` against the program.

use std::collections::BTreeSet;
use std::process::Command;

use announced::for_tests::address::Source;
use announced::for_tests::args::Cli;
use announced::for_tests::config::{AddressesTable, Config};
use announced::for_tests::event::Cause;
use announced::for_tests::injection::Method;
use announced::for_tests::progress::Outcome;
use announced::for_tests::report::{Path, VERSION};
use announced::for_tests::snapshot::Snapshot;
use announced::for_tests::{attachment, frame};
use clap::{CommandFactory, Parser};

use crate::page::{Page, known_options, unescaped};

const PAGE: Page = Page(include_str!("../../man/announce.1"));

#[test]
fn the_page_has_every_option_and_no_other() {
    let cli = cli();
    let commands = std::iter::once(&cli).chain(documented(&cli));
    let known: BTreeSet<String> = commands.flat_map(known_options).collect();
    assert_eq!(PAGE.options(), known);
}

#[test]
fn options_that_are_mentioned_exist() {
    let (listed, mentioned) = (PAGE.options(), PAGE.mentioned_options());
    assert_eq!(mentioned.difference(&listed).collect::<Vec<_>>(), Vec::<&String>::new());
}

#[test]
fn the_page_has_every_command_and_no_other() {
    let heads = PAGE.items().into_iter().filter_map(|item| item.strip_prefix("Ic ")?.split(' ').next());
    let cli = cli();
    let known: BTreeSet<&str> = documented(&cli).map(|command| command.get_name()).collect();
    assert_eq!(heads.collect::<BTreeSet<_>>(), known);
}

#[test]
fn the_page_has_every_exit_status() {
    let documented: Vec<&str> =
        PAGE.section("EXIT STATUS").filter_map(|line| line.strip_prefix(".It ")).collect();
    assert_eq!(documented, ["0", "1", "2", "3", "4", "78"]);
}

#[test]
fn the_page_has_every_value_of_the_output() {
    use Outcome::*;
    use attachment::Kind::*;
    let attachments = [LinuxBridge, Ovs, Hybrid, TrunkBridge, PerPortBridge, Macvtap, VhostUser];
    let outcomes = [Announced, NotReady, Cancelled, Superseded, Failed];
    let causes = [
        Cause::Migrated,
        Cause::Restored,
        Cause::Started,
        Cause::Plugged,
        Cause::Handover,
        Cause::Kept,
        Cause::Asked,
    ];
    let sources = [Source::Operator, Source::Configuration, Source::GuestAgent];
    let words = (Method::ALL.iter().map(|method| method.word()))
        .chain(frame::Kind::ALL.iter().map(|kind| kind.word()))
        .chain(attachments.iter().map(|kind| kind.word()))
        .chain(outcomes.iter().map(|outcome| outcome.word()))
        .chain(sources.iter().chain(&Source::DEFAULT).map(|source| source.word()))
        .chain(causes.iter().map(|cause| cause.word()))
        .chain(["neutron", "ovn", "vlan", "nobody"]);
    PAGE.assert_marked("Cm", words);
}

#[test]
fn the_page_has_every_key_of_the_json() {
    let of_a_nic = ["--dev", "nosuch0", "--mac", "52:54:00:12:34:56", "--json"];
    for arguments in [[&of_a_nic[..], &["--wait", "0"]].concat(), [&["explain"], &of_a_nic[..]].concat()] {
        let run = Command::new(env!("CARGO_BIN_EXE_announce")).args(arguments).output().unwrap();
        let object = serde_json::from_slice(&run.stdout).unwrap();
        PAGE.assert_marked("Va", keys(&object).iter().map(String::as_str));
    }
    let kind = attachment::Kind::Ovs;
    let (bridge, port) = (String::new(), String::new());
    let path = Path { kind, bridge, port, vlan: None, hops: Vec::new(), from: Vec::new() };
    PAGE.assert_marked("Va", keys(&serde_json::to_value(path).unwrap()).iter().map(String::as_str));
    PAGE.assert_marked("Va", ["name", "uuid", "ip", "source"]);
}

#[test]
fn the_page_has_every_key_of_the_status() {
    let status = serde_json::to_value(Snapshot { version: VERSION, ..<Snapshot>::default() }).unwrap();
    PAGE.assert_marked("Va", status.as_object().unwrap().keys().map(String::as_str));
    PAGE.assert_marked("Va", keys(&status["gauges"]).iter().map(String::as_str));
}

#[test]
fn the_defaults_are_those_of_the_page() {
    let config = Config::default();
    let schedule = config.schedule;
    let defaults = [
        ("-wait", config.ports.wait),
        ("-interval", schedule.interval),
        ("-max-interval", schedule.max_interval),
    ];
    let defaults = defaults.map(|(option, time)| (option, format!("{time:?}")));
    let numbers = [("-count", schedule.count.to_string()), ("-backoff", schedule.backoff.to_string())];
    for (option, default) in defaults.into_iter().chain(numbers) {
        let item = PAGE.0.split(&format!(".It Fl {option} ")).nth(1).unwrap().split("\n.It ").next().unwrap();
        assert!(item.contains(&format!("The default is {default}.")), "{option} {default}: {item}");
    }
    assert_eq!(
        config.addresses,
        AddressesTable { sources: Source::DEFAULT.to_vec(), ..AddressesTable::default() }
    );
    assert_eq!(config.frames.send, frame::Kind::ALL);
    let offsets = config_schedule().join(" ");
    assert_eq!(offsets, "0 50 150 350 750 1550 3150 5150 7150 9150", "see FRAMES AND SCHEDULE");
}

#[test]
fn every_example_is_a_command_line() {
    let examples: Vec<String> =
        PAGE.section("EXAMPLES").filter_map(|line| line.strip_prefix(".Dl ")).map(unescaped).collect();
    assert!(examples.len() >= 8, "{examples:?}");
    for example in examples {
        let words = example.split_whitespace().take_while(|word| *word != ">");
        let parsed = Cli::try_parse_from(words);
        assert!(parsed.is_ok(), "{example}: {}", parsed.unwrap_err());
        assert!(example.len() <= 67, "it would be broken in a terminal of 80 columns: {example}");
    }
}

fn config_schedule() -> Vec<String> {
    let schedule = Config::default().schedule().unwrap();
    schedule.offsets().map(|at| at.as_millis().to_string()).collect()
}

fn cli() -> clap::Command {
    let mut cli = Cli::command();
    cli.build();
    cli
}

/// The commands that are for people.
fn documented(cli: &clap::Command) -> impl Iterator<Item = &clap::Command> {
    cli.get_subcommands().filter(|command| !command.is_hide_set())
}

/// The keys of an object and of the objects in it.
fn keys(value: &serde_json::Value) -> Vec<String> {
    let object = value.as_object().into_iter().flatten();
    object.flat_map(|(key, value)| [vec![key.clone()], keys(value)].concat()).collect()
}
