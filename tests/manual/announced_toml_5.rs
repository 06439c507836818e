//! `man/announced.toml.5` and `contrib/announced.toml` against the parser.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use announced::for_tests::address::Source;
use announced::for_tests::config::{Config, LibvirtTable, PeersTable, PortsTable};
use announced::for_tests::event::Cause;
use announced::for_tests::frame;
use announced::for_tests::injection::Method;

use crate::page::{Page, assert_marked, unescaped};

const PAGE: Page = Page(include_str!("../../man/announced.toml.5"));
const SAMPLE: &str = include_str!("../../contrib/announced.toml");

/// Tables and their keys.
type Tables = BTreeMap<String, BTreeSet<String>>;

#[test]
fn the_page_has_every_table_and_key_and_no_other() {
    let tables = PAGE.part("Sh", "TABLES").strip_prefix(".Ss ").unwrap().split("\n.Ss ");
    let documented: Tables = tables
        .map(|section| {
            let (name, text) = section.split_once('\n').unwrap();
            let items = text.lines().filter_map(|line| line.strip_prefix(".It Cm "));
            (table(&unescaped(name)), items.map(str::to_owned).collect())
        })
        .collect();
    assert_eq!(documented, known());
}

#[test]
fn the_sample_has_every_table_and_key_and_no_other() {
    let settings = settings();
    let mut written = Tables::new();
    let mut current = String::new();
    for line in settings.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        match line.split_once(" = ") {
            // Its keys are prefixes.
            Some(_) if current == "gateways" => {}
            Some((key, _)) => assert!(written.get_mut(&current).unwrap().insert(key.into()), "{line} twice"),
            None => {
                current = table(line);
                written.insert(current.clone(), BTreeSet::new());
            }
        }
    }
    assert_eq!(written, known());
}

#[test]
fn the_sample_changes_nothing_and_its_settings_are_the_defaults() {
    assert_eq!(parse(SAMPLE), Config::default());
    let sample = parse(&settings());
    // What has no default is an example there.
    let config = Config {
        ports: PortsTable { in_charge: None, inject: None, ..sample.ports },
        libvirt: LibvirtTable { uri: None, ..sample.libvirt },
        peers: PeersTable { listen: None, key_file: None, ..sample.peers },
        ovs: Default::default(),
        metrics: Default::default(),
        network: BTreeMap::new(),
        gateways: Default::default(),
        vm: BTreeMap::new(),
        nic: BTreeMap::new(),
        ..sample
    };
    assert_eq!(config, Config::default());
}

#[test]
fn every_setting_of_the_sample_says_why() {
    let lines: Vec<&str> = SAMPLE.lines().collect();
    for pair in lines.windows(2).filter(|pair| is_setting(pair[1])) {
        assert!(pair[0].starts_with("# "), "{}", pair[1]);
    }
}

#[test]
fn the_defaults_are_those_of_the_page() {
    let mut table = "";
    for line in SAMPLE.lines().filter(|line| is_setting(line)).map(|line| &line[1..]) {
        let Some((key, value)) = line.split_once(" = ") else {
            table = line;
            continue;
        };
        if ["[gateways]", "[network.", "[vm.", "[nic."].iter().any(|several| table.starts_with(several)) {
            continue;
        }
        let section = PAGE.part("Ss", table);
        let item = section.split(&format!("\n.It Cm {key}\n")).nth(1).unwrap();
        let item = item.split("\n.It ").next().unwrap().split("\n.El").next().unwrap();
        // The comment above the setting tells which it is, as the page does.
        let before = SAMPLE.split_once(&format!("\n#{line}")).unwrap().0.lines().last().unwrap();
        let expected = match before.contains("No default") {
            true => "The default is none:".to_owned(),
            false => format!("The default is\n.Li {value} ."),
        };
        assert!(unescaped(item).contains(&expected), "{table} {key}: {expected}: {item}");
    }
}

#[test]
fn the_page_has_every_value() {
    let sources = Source::DEFAULT.iter().chain(&[Source::GuestAgent]).map(|source| source.word());
    assert_marked(PAGE.part("Ss", "[addresses]"), "Cm", sources);
    assert_marked(PAGE.part("Ss", "[frames]"), "Cm", frame::Kind::ALL.map(frame::Kind::word));
    assert_marked(PAGE.part("Ss", "[frames]"), "Cm", ["zero", "broadcast", "known", "guess"]);
    assert_marked(PAGE.part("Ss", "[ports]"), "Cm", Method::ALL.map(Method::word));
    assert_marked(PAGE.part("Ss", "[ports]"), "Cm", ["neutron", "ovn", "vlan", "agent", "nobody"]);
    let events = [Cause::Migrated, Cause::Restored, Cause::Started, Cause::Plugged];
    assert_marked(PAGE.part("Ss", "[libvirt]"), "Cm", events.map(Cause::word));
}

#[test]
fn the_page_names_what_is_unwise() {
    // All that can be unwise at the same time, and what else can be.
    let texts = [
        "schedule = {count = 5, interval = \"1ms\"}\nframes.send = [\"na\"]\naddresses.sources = [\"guest-agent\"]\n\
         ports = {wait = \"0s\", in-charge = \"nobody\", inject = \"fdb\"}\nmetrics.listen = \"[::]:1\"\nproof.watch = false\n\
         limits = {frames-per-second = 1, jitter = \"1m\"}\n\
         libvirt = {uri = \"a://b/\", more-uris = [\"a://b/\"], events = []}",
        "schedule.count = 1\npeers.key-file = \"/etc/announced/peers.key\"",
    ];
    let advice = texts.map(|text| parse(text).advice()).concat();
    let keys = advice.iter().map(|line| line.split([' ', ':']).next().unwrap());
    let keys: BTreeSet<&str> = keys.collect();
    assert!(keys.len() >= 11, "{keys:?}");
    let items = PAGE.section("UNWISE VALUES").filter_map(|line| line.strip_prefix(".It Cm "));
    assert_eq!(items.collect::<BTreeSet<_>>(), keys);
}

#[test]
fn every_example_is_a_configuration() {
    let examples = PAGE.displays("EXAMPLES");
    assert!(examples.len() >= 5, "{examples:?}");
    for example in examples {
        assert_ne!(parse(&example), Config::default(), "{example}");
        assert!(example.lines().all(|line| line.len() <= 67), "it would be broken in a terminal: {example}");
    }
}

fn parse(text: &str) -> Config {
    Config::parse(Path::new("announced.toml"), text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// The sample with the comment markers of its settings removed.
fn settings() -> String {
    let lines = SAMPLE.lines().map(|line| if is_setting(line) { &line[1..] } else { line });
    lines.collect::<Vec<_>>().join("\n")
}

fn is_setting(line: &str) -> bool {
    line.starts_with('#') && line.len() > 1 && !line.starts_with("# ")
}

/// `[network.NAME]`, `[vm.NAME]` and `[nic."MAC"]` go by the names of their kind.
fn table(head: &str) -> String {
    head.trim_matches(['[', ']']).split('.').next().unwrap().to_owned()
}

/// What the parser knows: it lists that for each unknown name.
fn known() -> Tables {
    let tables = expected("nosuch = 1");
    let known = tables.into_iter().map(|table| {
        let head = match table.as_str() {
            "network" | "vm" | "nic" => format!("{table}.a"),
            _ => table.clone(),
        };
        // Its keys are prefixes.
        if table == "gateways" {
            return (table, BTreeSet::new());
        }
        let mut keys = expected(&format!("[{head}]\nnosuch = 1"));
        // The type is a NIC's, too; a VM's addresses are refused, and a network's.
        let of_several = ["network", "vm"].contains(&table.as_str());
        keys.retain(|key| !of_several || !["addresses", "vlan"].contains(&key.as_str()));
        (table, keys)
    });
    known.collect()
}

/// The names in "unknown field `nosuch`, expected one of `a`, `b`".
fn expected(text: &str) -> BTreeSet<String> {
    let error = toml::from_str::<Config>(text).unwrap_err().to_string();
    let list = error.split_once("expected ").unwrap_or_else(|| panic!("{error}")).1;
    list.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}
