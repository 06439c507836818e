//! Reads the text of a configuration, and lists every mistake with its place and the remedy.

use std::fmt;
use std::ops::Range;

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// The number of mistakes listed: a file with more is not a configuration.
const MAX_MISTAKES: usize = 20;
/// The similarity (Jaro–Winkler, 0 to 1) above which a known key is suggested.
const SIMILAR: f64 = 0.8;

/// A part of the text that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// The line, from 1.
    pub line: usize,
    /// The character in the line, from 1.
    pub column: usize,
    /// The fault and the remedy.
    pub message: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.line, self.column, self.message)
    }
}

/// Reads `text`, or returns every mistake in it, in the order of the text; `check` finds those in what can be read.
///
/// A value that cannot be read is removed and the rest is read again, until no such mistake remains.
pub(super) fn read<T: DeserializeOwned>(
    text: &str,
    check: impl FnOnce(&T) -> Vec<Mistake>,
) -> Result<T, Vec<Mistake>> {
    let (document, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        return Err(errors.iter().take(MAX_MISTAKES).map(|error| mistake(text, &[], error)).collect());
    }
    let (mut document, mut mistakes) = (document, Vec::new());
    loop {
        match T::deserialize(toml::Deserializer::from(document.clone())) {
            Ok(config) => {
                mistakes.extend(check(&config));
                if mistakes.is_empty() {
                    return Ok(config);
                }
                break;
            }
            Err(error) => {
                let mut path = Vec::new();
                let at = error.span().unwrap_or_default();
                let is_left_out = leave_out(document.get_mut(), at.start, &mut path);
                mistakes.push(mistake(text, &path, &error));
                if !is_left_out || mistakes.len() == MAX_MISTAKES {
                    break;
                }
            }
        }
    }
    mistakes.sort_by_key(|mistake| (mistake.line, mistake.column));
    Err(mistakes)
}

/// What is wrong with the value of the key `path`: at its place in `text`, or at that of the table that would have it.
pub(super) fn at(text: &str, path: &[String], message: String) -> Mistake {
    let (line, column) = place(text, path).unwrap_or((1, 1));
    Mistake { line, column, message }
}

/// Line and column of the value of the key `path`, of its nearest table where only that is in `text`; `None` where neither is.
pub(super) fn place<S: AsRef<str>>(text: &str, path: &[S]) -> Option<(usize, usize)> {
    let document = DeTable::parse(text).ok()?;
    let (mut table, mut found) = (document.get_ref(), None);
    for (depth, key) in path.iter().enumerate() {
        let Some((name, value)) = table.get_key_value(key.as_ref()) else { break };
        let is_last = depth + 1 == path.len();
        match value.get_ref() {
            DeValue::Table(inner) => (found, table) = (Some(name.span().start), inner),
            _ if is_last => found = Some(value.span().start),
            _ => break,
        }
    }
    found.map(|at| line_and_column(text, at))
}

fn line_and_column(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or_default();
    let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
    (before.matches('\n').count() + 1, column)
}

/// Removes the innermost entry at byte `at` from the table; `path` becomes its key, from the root.
fn leave_out(table: &mut DeTable<'_>, at: usize, path: &mut Vec<String>) -> bool {
    let holds = |span: Range<usize>| span.contains(&at);
    let entry =
        table.iter().find(|(key, value)| holds(key.span()) || holds(value.span()) || is_below(value, at));
    let Some(key) = entry.map(|(key, _)| key.clone()) else {
        return false;
    };
    path.push(key.get_ref().to_string());
    let inner = table.get_mut(key.get_ref().as_ref()).filter(|_| !holds(key.span()));
    if let Some(DeValue::Table(inner)) = inner.map(Spanned::get_mut) {
        if leave_out(inner, at, path) {
            return true;
        }
    }
    table.remove(key.get_ref().as_ref()).is_some()
}

/// Whether an entry at byte `at` is in the table `value`, whose own span covers only its header.
fn is_below(value: &Spanned<DeValue<'_>>, at: usize) -> bool {
    let DeValue::Table(table) = value.get_ref() else {
        return false;
    };
    table
        .iter()
        .any(|(key, value)| key.span().contains(&at) || value.span().contains(&at) || is_below(value, at))
}

fn mistake(text: &str, path: &[String], error: &toml::de::Error) -> Mistake {
    let span = error.span().unwrap_or_default();
    let (line, column) = line_and_column(text, span.start);
    let quoted = text.get(span).unwrap_or_default();
    Mistake {
        line,
        column,
        message: reworded(&error.message().lines().collect::<Vec<_>>().join(", "), path, quoted),
    }
}

/// The parser's message in terms of the file: its tables, keys and values.
fn reworded(message: &str, path: &[String], quoted: &str) -> String {
    let names: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    let (table, key) = match path {
        [tables @ .., key] => (tables.join("."), key.as_str()),
        [] => (String::new(), ""),
    };
    if message.starts_with("unknown field") {
        let place = if table.is_empty() { "the file".into() } else { format!("[{table}]") };
        let (unknown, known) = names.split_first().map_or(("", &[][..]), |(first, rest)| (*first, rest));
        return format!("{place} has no key {unknown:?}; {}", suggestion(unknown, known));
    }
    if message.starts_with("unknown variant") {
        let (unknown, known) = names.split_first().map_or(("", &[][..]), |(first, rest)| (*first, rest));
        return format!("{key} = {unknown:?}: write one of {}", known.join(", "));
    }
    if message.contains("invalid IP address syntax") {
        return format!("{key} = {quoted}: write an IPv4 or IPv6 address without a prefix length");
    }
    if message.contains("invalid socket address syntax") {
        return format!(
            "{key} = {quoted}: write an address and a port, such as 127.0.0.1:9891 or [::1]:9891"
        );
    }
    if message.starts_with("write ") {
        return format!("{key} = {quoted}: {message}");
    }
    match message.strip_prefix("invalid type: ") {
        Some(kinds) if !key.is_empty() => format!("{key} = {quoted}: it is {kinds}"),
        _ => message.to_owned(),
    }
}

fn suggestion(unknown: &str, known: &[&str]) -> String {
    let similarity = |name: &str| strsim::jaro_winkler(&unknown.to_lowercase(), name);
    let nearest = known.iter().max_by(|a, b| similarity(a).total_cmp(&similarity(b)));
    match nearest.filter(|name| similarity(name) > SIMILAR) {
        Some(name) => format!("did you mean {name}?"),
        None => format!("its keys are {}", known.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    fn mistakes(text: &str) -> Vec<String> {
        read::<Config>(text, |_| Vec::new()).unwrap_err().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_mistake_is_named_with_its_place() {
        let text = "[schedule]\ncuont = 3\ninterval = 50\n\n[frames]\nsend = [\"garp\"]\n[vm.web1]\nrouter = \"yes\"\n";
        let found = read::<Config>(text, |_| Vec::new()).unwrap_err();
        let places: Vec<(usize, usize)> =
            found.iter().map(|mistake| (mistake.line, mistake.column)).collect();
        assert_eq!(places, [(2, 1), (3, 12), (6, 9), (8, 10)], "{found:#?}");
    }

    #[test]
    fn the_remedy_is_named() {
        for (text, words) in [
            ("[schedule]\ncuont = 3", "[schedule] has no key \"cuont\"; did you mean count?"),
            ("[shedule]", "the file has no key \"shedule\"; did you mean schedule?"),
            ("[vm.web1]\nfoo = 1", "[vm.web1] has no key \"foo\"; its keys are "),
            ("[ports]\nin-charge = \"Neutron\"", "in-charge = \"Neutron\": write one of neutron, ovn"),
            ("[schedule]\ninterval = 50", "interval = 50: write \"50ms\" or \"50s\""),
            ("[schedule]\ninterval = \"soon\"", "\"soon\" is not a duration: write a number and a unit"),
            ("[nic.\"52:54:00:00:00:01\"]\naddresses = [\"10.0.0.1/24\"]", "without a prefix length"),
            (
                "[metrics]\nlisten = \"localhost:9891\"",
                "listen = \"localhost:9891\": write an address and a port",
            ),
            ("[schedule]\ncount = \"many\"", "count = \"many\": it is string \"many\", expected u32"),
            ("[schedule", "1:10: "),
        ] {
            let found = mistakes(text);
            assert!(found.len() == 1 && found[0].contains(words), "{text}: {found:?}");
        }
    }
}
