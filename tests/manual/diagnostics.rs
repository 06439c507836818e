//! DIAGNOSTICS of `man/announce.1` against the messages in the code.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use announced::for_tests::condition::Condition;
use announced::for_tests::failure::Failure;
use announced::for_tests::link::PortState;
use announced::for_tests::report::Note;

use crate::page::{Page, unescaped};

const PAGE: Page = Page(include_str!("../../man/announce.1"));

/// One condition of each kind, with the names of the page.
fn conditions() -> Vec<Condition> {
    let [tap, port, br0] = ["tap0", "tap0", "br0"].map(str::to_owned);
    vec![
        Condition::Paused("paused"),
        Condition::Left("shut off"),
        Condition::GuestLinkDown,
        Condition::NoHostEnd,
        Condition::NoDevice { device: tap.clone() },
        Condition::NotPlugged { device: tap.clone() },
        Condition::NotInOvs { device: "qvo0".into() },
        Condition::NoPatch { bridge: "tbr-1".into() },
        Condition::NoLowerDevice { device: "macvtap0".into() },
        Condition::NoOvsdb { why: "Permission denied (os error 13)".into() },
        Condition::NoWayOut { why: "br-ex has no uplink".into() },
        Condition::Down { device: tap.clone() },
        Condition::NoCarrier { device: tap.clone() },
        Condition::NotForwarding { device: tap.clone(), bridge: br0.clone(), state: PortState::Listening },
        Condition::VlanNotForwarding {
            device: tap.clone(),
            bridge: br0.clone(),
            vlans: vec![100],
            state: PortState::Listening,
        },
        Condition::Pvid { device: tap.clone(), pvid: None, wanted: None },
        Condition::NotInVlans { device: tap.clone(), vlans: vec![100] },
        Condition::NoVlanFiltering { device: tap, bridge: br0, wanted: 100 },
        Condition::NoOfport { port: port.clone(), error: None },
        Condition::Tag { port: port.clone(), tag: None, wanted: None },
        Condition::VlanMode { port: port.clone(), mode: Some("trunk".into()), wanted: "access" },
        Condition::Trunks { port: port.clone(), trunks: vec![4095], wanted: Vec::new() },
        Condition::NoVlanSetting { port: port.clone() },
        Condition::NotApplied { port: port.clone() },
        Condition::NotInstalled { port },
    ]
}

/// The items of a subsection: what each begins with, and its text.
fn items(heading: &str) -> Vec<(&'static str, &'static str)> {
    let part = PAGE.part("Ss", heading);
    let part = part.split("\n.El").next().unwrap();
    part.split(".It ").skip(1).map(|item| item.split_once('\n').unwrap_or((item, ""))).collect()
}

#[test]
fn every_condition_is_there_with_its_code_and_its_words() {
    let items = items("What a port waits for");
    let known: BTreeSet<&str> = conditions().iter().map(Condition::code).collect();
    assert_eq!(known, Condition::CODES.into(), "one of each kind");
    assert_eq!(items.iter().filter_map(|(head, _)| head.strip_prefix("Cm ")).collect::<BTreeSet<_>>(), known);
    for condition in conditions() {
        let (_, text) = items.iter().find(|(head, _)| head[3..] == *condition.code()).unwrap();
        let quoted = unescaped(text.lines().next().unwrap().strip_prefix(".Dq ").unwrap());
        assert!(condition.to_string().starts_with(&quoted), "{quoted:?} is not {condition}");
    }
}

#[test]
fn every_note_is_there_with_its_code() {
    let items = items("What is worth knowing about an announcement");
    let heads = items.iter().filter_map(|(head, _)| head.strip_prefix("Cm "));
    assert_eq!(heads.collect::<BTreeSet<_>>(), Note::CODES.into());
}

#[test]
fn every_failure_is_there_with_its_code() {
    let items = items("Why an announcement ended");
    let heads: BTreeSet<&str> = items.iter().filter_map(|(head, _)| head.strip_prefix("Cm ")).collect();
    assert_eq!(heads, Failure::ALL.map(Failure::code).into());
    PAGE.assert_marked("Cm", Failure::ALL.map(Failure::code));
}

#[test]
fn other_messages_are_in_the_code() {
    let sources = sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    let (items, notes) = (items("Other messages"), items("What is worth knowing about an announcement"));
    let failures = self::items("Why an announcement ended");
    let of_notes =
        notes.iter().chain(&failures).filter_map(|(_, text)| text.lines().next()?.strip_prefix(".Dq "));
    let messages: Vec<String> = items
        .iter()
        .filter_map(|(head, _)| head.strip_prefix("Dq "))
        .chain(of_notes)
        .map(unescaped)
        .collect();
    assert!(messages.len() >= 10, "{messages:?}");
    for message in messages {
        // Names and numbers stand for any; the code has placeholders in their places.
        let is_name = |word: &str| {
            word.contains('/')
                || word.contains(|c: char| c.is_ascii_digit())
                || ["fdb", "paused", "rarp", "br-int", "VLAN"].contains(&word)
        };
        let words: Vec<&str> = message.split(' ').collect();
        for part in words.split(|word| is_name(word)).filter(|part| part.len() > 1) {
            let part = part.join(" ");
            let part = part.trim_matches(|c| c == '(' || c == ')');
            assert!(sources.contains(part), "no message has {part:?} of {message:?}");
        }
    }
}

/// The text of all sources below a directory, with broken string literals joined.
fn sources(directory: &Path) -> String {
    let paths: Vec<PathBuf> =
        std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    let texts = paths.iter().map(|path| match path.is_dir() {
        true => sources(path),
        false => {
            let text = std::fs::read_to_string(path).unwrap();
            let mut parts = text.split("\\\n");
            let first = parts.next().unwrap_or_default().to_owned();
            parts.fold(first, |text, part| text + part.trim_start())
        }
    });
    texts.collect::<Vec<_>>().join("\n")
}
