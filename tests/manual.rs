//! `man/announce.1` against the program: nothing is missing in the page, and nothing in it is made up.

#![allow(clippy::unwrap_used, reason = "a broken page is a failed test")]

mod common;

use std::collections::BTreeSet;
use std::process::Command;

use announced::address::Source;
use announced::announcement::Outcome;
use announced::cli::Cli;
use announced::config::{AddressesTable, Config};
use announced::injection::Method;
use announced::report::Path;
use announced::{attachment, frame};
use clap::{CommandFactory, Parser};

use common::require;

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/man/announce.1");
const PAGE: &str = include_str!("../man/announce.1");

#[test]
fn the_page_has_every_option_and_no_other() {
    let documented: BTreeSet<String> = items().iter().flat_map(|item| flags(item)).collect();
    let mut known = BTreeSet::new();
    let mut cli = Cli::command();
    cli.build();
    for command in std::iter::once(&cli).chain(cli.get_subcommands()) {
        for option in command.get_arguments().filter(|argument| !argument.is_positional()) {
            known.extend(option.get_long().map(|long| format!("--{long}")));
            known.extend(option.get_short().map(|short| format!("-{short}")));
        }
    }
    assert_eq!(documented, known);
}

#[test]
fn options_that_are_mentioned_exist() {
    let listed: BTreeSet<String> = items().iter().flat_map(|item| flags(item)).collect();
    let mentioned: BTreeSet<String> =
        PAGE.lines().filter(|line| line.starts_with('.')).flat_map(flags).collect();
    assert_eq!(mentioned.difference(&listed).collect::<Vec<_>>(), Vec::<&String>::new());
}

#[test]
fn the_page_has_every_command_and_no_other() {
    let documented: BTreeSet<&str> =
        items().into_iter().filter_map(|item| item.strip_prefix("Ic ")?.split(' ').next()).collect();
    let mut cli = Cli::command();
    cli.build();
    let known: BTreeSet<&str> = cli.get_subcommands().map(|command| command.get_name()).collect();
    assert_eq!(documented, known);
}

#[test]
fn the_page_has_every_exit_status() {
    let documented: Vec<&str> = section("EXIT STATUS").filter_map(|line| line.strip_prefix(".It ")).collect();
    assert_eq!(documented, ["0", "1", "2", "3", "4", "78"]);
}

#[test]
fn the_page_has_every_word_of_the_output() {
    use attachment::Kind::*;
    let attachments = [LinuxBridge, Ovs, Hybrid, TrunkBridge, Macvtap, VhostUser];
    let outcomes = [Outcome::Announced, Outcome::NotReady, Outcome::Cancelled, Outcome::Failed];
    let sources = [Source::Operator, Source::Configuration, Source::GuestAgent];
    let words = (Method::ALL.iter().map(|method| method.word()))
        .chain(frame::Kind::ALL.iter().map(|kind| kind.word()))
        .chain(attachments.iter().map(|kind| kind.word()))
        .chain(outcomes.iter().map(|outcome| outcome.word()))
        .chain(sources.iter().chain(&Source::DEFAULT).map(|source| source.word()))
        .chain(["neutron", "ovn", "vlan", "nobody", "asked"]);
    assert_marked("Cm", words);
}

#[test]
fn the_page_has_every_key_of_the_json() {
    let of_a_nic = ["--dev", "nosuch0", "--mac", "52:54:00:12:34:56", "--wait", "0", "--json"];
    for arguments in [of_a_nic.to_vec(), [&["explain"], &of_a_nic[..]].concat()] {
        let run = Command::new(env!("CARGO_BIN_EXE_announce")).args(arguments).output().unwrap();
        let object = serde_json::from_slice(&run.stdout).unwrap();
        assert_marked("Va", keys(&object).iter().map(String::as_str));
    }
    let kind = attachment::Kind::Ovs;
    let path = Path { kind, bridge: String::new(), port: String::new(), vlan: None, hops: Vec::new() };
    assert_marked("Va", keys(&serde_json::to_value(path).unwrap()).iter().map(String::as_str));
    assert_marked("Va", ["name", "uuid", "ip", "source"]);
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
        let item = PAGE.split(&format!(".It Fl {option} ")).nth(1).unwrap().split("\n.It ").next().unwrap();
        assert!(item.contains(&format!("The default is {default}.")), "{option} {default}: {item}");
    }
    assert_eq!(config.addresses, AddressesTable { sources: Source::DEFAULT.to_vec() });
    assert_eq!(config.frames.send, frame::Kind::ALL);
    let offsets = config_schedule().join(" ");
    assert_eq!(offsets, "0 50 150 350 750 1550 3150 5150 7150 9150", "see FRAMES AND SCHEDULE");
}

#[test]
fn every_example_is_a_command_line() {
    let examples: Vec<String> =
        section("EXAMPLES").filter_map(|line| line.strip_prefix(".Dl ")).map(unescaped).collect();
    assert!(examples.len() >= 8, "{examples:?}");
    for example in examples {
        let words = example.split_whitespace().take_while(|word| *word != ">");
        let parsed = Cli::try_parse_from(words);
        assert!(parsed.is_ok(), "{example}: {}", parsed.unwrap_err());
        assert!(example.len() <= 67, "it would be broken in a terminal of 80 columns: {example}");
    }
}

#[test]
fn mandoc_finds_nothing_wrong() {
    require!(mandoc);
    let lint = Command::new("mandoc").args(["-T", "lint", "-W", "warning", FILE]).output().unwrap();
    assert!(lint.status.success(), "{}", String::from_utf8_lossy(&lint.stdout));
}

fn config_schedule() -> Vec<String> {
    let schedule = Config::default().schedule().unwrap();
    schedule.offsets().map(|at| at.as_millis().to_string()).collect()
}

/// The lines of a section.
fn section(name: &str) -> impl Iterator<Item = &'static str> {
    let from = PAGE.split_once(&format!(".Sh {name}\n")).unwrap().1;
    from.split("\n.Sh ").next().unwrap().lines()
}

/// The heads of all lists' items.
fn items() -> Vec<&'static str> {
    PAGE.lines().filter_map(|line| line.strip_prefix(".It ")).collect()
}

/// The options in a line of mdoc: `Fl v , Fl -verbose`.
fn flags(line: &str) -> Vec<String> {
    let words: Vec<&str> = line.trim_start_matches('.').split(' ').collect();
    let pairs = words.windows(2).filter(|pair| pair[0] == "Fl");
    pairs.map(|pair| format!("-{}", pair[1])).collect()
}

/// The page marks each of these words up by `macro_name`.
fn assert_marked<'a>(macro_name: &str, words: impl IntoIterator<Item = &'a str>) {
    let lines = PAGE.lines().filter_map(|line| line.strip_prefix('.'));
    let marked = lines.filter_map(|line| {
        let line = line.strip_prefix("It ").unwrap_or(line);
        line.strip_prefix(macro_name)?.strip_prefix(' ')
    });
    let marked: BTreeSet<&str> = marked.flat_map(|words| words.split([' ', ','])).collect();
    let missing: Vec<&str> = words.into_iter().filter(|word| !marked.contains(word)).collect();
    assert!(missing.is_empty(), "the page lacks {missing:?}");
}

/// The keys of an object and of the objects in it.
fn keys(value: &serde_json::Value) -> Vec<String> {
    let object = value.as_object().into_iter().flatten();
    object.flat_map(|(key, value)| [vec![key.clone()], keys(value)].concat()).collect()
}

fn unescaped(line: &str) -> String {
    line.replace("\\-", "-")
}
