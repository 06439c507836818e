//! A manual page in mdoc(7), and what is wrong with one.

use std::collections::BTreeSet;
use std::process::Command;

use crate::testbed::require;

/// The source of a page.
#[derive(Clone, Copy)]
pub struct Page(pub &'static str);

impl Page {
    /// The lines of a section.
    pub fn section(self, name: &str) -> impl Iterator<Item = &'static str> {
        self.part("Sh", name).lines()
    }

    /// The text below a heading, up to the next of its kind or above.
    pub fn part(self, heading: &str, name: &str) -> &'static str {
        let from = self.0.split_once(&format!("\n.{heading} {name}\n"));
        let from = from.unwrap_or_else(|| panic!("the page has no .{heading} {name}")).1;
        let to = from.split("\n.Sh ").next().unwrap();
        if heading == "Ss" { to.split("\n.Ss ").next().unwrap() } else { to }
    }

    /// The heads of all lists' items.
    pub fn items(self) -> Vec<&'static str> {
        self.0.lines().filter_map(|line| line.strip_prefix(".It ")).collect()
    }

    /// The options that lists describe.
    pub fn options(self) -> BTreeSet<String> {
        self.items().into_iter().flat_map(flags).collect()
    }

    /// The options that occur anywhere.
    pub fn mentioned_options(self) -> BTreeSet<String> {
        self.0.lines().filter(|line| line.starts_with('.')).flat_map(flags).collect()
    }

    /// The page marks each of these words up by `macro_name`.
    pub fn assert_marked<'a>(self, macro_name: &str, words: impl IntoIterator<Item = &'a str>) {
        assert_marked(self.0, macro_name, words);
    }

    /// The literal displays of a section, without escapes.
    pub fn displays(self, section: &str) -> Vec<String> {
        let parts = self.part("Sh", section).split("\n.Bd -literal -offset indent\n").skip(1);
        parts.map(|part| unescaped(part.split_once("\n.Ed").unwrap().0)).collect()
    }
}

/// In this text, each of these words is marked up by `macro_name`.
pub fn assert_marked<'a>(text: &str, macro_name: &str, words: impl IntoIterator<Item = &'a str>) {
    let lines = text.lines().filter_map(|line| line.strip_prefix('.'));
    let marked = lines.filter_map(|line| {
        let line = line.strip_prefix("It ").unwrap_or(line);
        line.strip_prefix(macro_name)?.strip_prefix(' ')
    });
    let marked: BTreeSet<&str> = marked.flat_map(|words| words.split([' ', ','])).collect();
    let missing: Vec<&str> = words.into_iter().filter(|word| !marked.contains(word)).collect();
    assert!(missing.is_empty(), "the page lacks {missing:?}");
}

/// The text of a line as it is read.
pub fn unescaped(line: &str) -> String {
    line.replace("\\-", "-").replace("\\(dq", "\"")
}

/// The options of a command, as a page writes them.
pub fn known_options(command: &clap::Command) -> BTreeSet<String> {
    let options = command.get_arguments().filter(|argument| !argument.is_positional());
    let names = options.flat_map(|option| {
        let long = option.get_long().map(|long| format!("--{long}"));
        long.into_iter().chain(option.get_short().map(|short| format!("-{short}")))
    });
    names.collect()
}

/// The options in a line of mdoc: `Fl v , Fl -verbose`, `Fl -json | -prometheus`.
fn flags(line: &str) -> Vec<String> {
    let words: Vec<&str> = line.trim_start_matches('.').split(' ').collect();
    let pairs = words.windows(2).filter(|pair| pair[0] == "Fl");
    pairs.map(|pair| format!("-{}", pair[1])).collect()
}

#[test]
fn mandoc_finds_nothing_wrong() {
    require!(mandoc);
    for page in ["announce.1", "announced.8", "announced.toml.5"] {
        let file = format!("{}/man/{page}", env!("CARGO_MANIFEST_DIR"));
        let lint = Command::new("mandoc").args(["-T", "lint", "-W", "warning", &file]).output().unwrap();
        assert!(lint.status.success(), "{}", String::from_utf8_lossy(&lint.stdout));
    }
}

#[test]
fn pages_refer_to_pages_that_are_there() {
    let ours = [("announce", "1"), ("announced", "8"), ("announced.toml", "5")];
    for (name, number) in ours {
        let file = format!("{}/man/{name}.{number}", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(file).unwrap();
        let references = text.lines().filter_map(|line| line.strip_prefix(".Xr "));
        let references: BTreeSet<(&str, &str)> = references
            .filter_map(|reference| {
                let mut words = reference.split(' ');
                words.next().zip(words.next())
            })
            .collect();
        for other in ours.into_iter().filter(|other| other.0 != name) {
            assert!(references.contains(&other), "{name}({number}) does not refer to {other:?}");
        }
        let to_us = references.iter().filter(|(name, _)| name.starts_with("announce"));
        assert!(to_us.clone().all(|page| ours.contains(page)), "{:?}", to_us.collect::<Vec<_>>());
    }
}
