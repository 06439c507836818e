//! Options before the command.

use std::ffi::OsString;

use clap::CommandFactory;

use crate::cli::args::Cli;

/// The command line with the command moved before preceding options: `announce --json status`, as in `ip -j link`.
pub fn command_first(words: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut words: Vec<OsString> = words.into_iter().collect();
    if let [_, hook, _, after, _] = &words[..] {
        // A VM may be called --help.
        if hook == "hook" && after == "--after" {
            let guest = words.remove(2);
            words.extend(["--".into(), guest]);
        }
    }
    let cli = Cli::command();
    let takes_value = |word: &str| {
        let of_long = |long: &str| cli.get_arguments().find(|arg| arg.get_long() == Some(long));
        let arg = match word.strip_prefix("--") {
            Some(long) => of_long(long),
            None => word
                .chars()
                .next_back()
                .and_then(|c| cli.get_arguments().find(|arg| arg.get_short() == Some(c))),
        };
        arg.is_some_and(|arg| arg.get_action().takes_values())
    };
    let mut at = 1;
    while let Some(word) = words.get(at).map(|word| word.to_string_lossy().into_owned()) {
        match word.strip_prefix('-') {
            None => break,
            Some("-") => return words,
            Some(_) => at += if takes_value(&word) { 2 } else { 1 },
        }
    }
    let is_command = |word: &OsString| word.to_str().is_some_and(|word| cli.find_subcommand(word).is_some());
    if at > 1 && words.get(at).is_some_and(is_command) {
        let command = words.remove(at);
        words.insert(1, command);
    }
    words
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::args::Command;

    fn first(line: &str) -> String {
        let words = command_first(line.split(' ').map(OsString::from));
        words.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn options_may_stand_before_the_command() {
        for (line, expected) in [
            ("announce --json status", "announce status --json"),
            ("announce -p --json status web1", "announce status -p --json web1"),
            ("announce --vm explain", "announce --vm explain"),
            (
                "announce --connect test:///default explain web1",
                "announce explain --connect test:///default web1",
            ),
            (
                "announce --connect=test:///default explain web1",
                "announce explain --connect=test:///default web1",
            ),
            ("announce web1 status", "announce web1 status"),
            ("announce -- status", "announce -- status"),
            ("announce --json", "announce --json"),
        ] {
            assert_eq!(first(line), expected);
        }
    }

    #[test]
    fn the_hook_takes_every_name() {
        for name in ["web1", "-dash", "-h", "--help", "-v", "--after", "--after=1", "--", "-", "", "hook"] {
            for words in [["hook", name, "--after", "1", ""], ["hook", "--after", "1", "--", name]] {
                let words = words.iter().take(if words[1] == "--after" && words[3] == "--" { 5 } else { 4 });
                let words = ["announce"].iter().chain(words).map(OsString::from);
                match Cli::try_parse_from(command_first(words)).unwrap().command {
                    Some(Command::Hook { guest, after: 1 }) => assert_eq!(guest, name),
                    _ => panic!("{name}"),
                }
            }
        }
    }
}
