//! The command line: an option before the command is the same behind it, and every refusal has words.
#![no_main]

use std::ffi::OsString;

use announced::for_tests::args::Cli;
use announced::for_tests::command_first::command_first;
use clap::Parser;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|line: &str| {
    let words: Vec<OsString> =
        std::iter::once("announce").chain(line.split('\n')).map(OsString::from).collect();
    let moved = command_first(words.clone());
    let sorted = |words: &[OsString]| {
        let mut words: Vec<OsString> = words.iter().filter(|word| *word != "--").cloned().collect();
        words.sort();
        words
    };
    assert_eq!(sorted(&moved), sorted(&words), "no word is lost or made");
    assert_eq!(command_first(moved.clone()).len(), moved.len());
    match Cli::try_parse_from(&moved) {
        Ok(cli) => {
            let rounds = &cli.announce.rounds;
            assert!(rounds.count.is_none_or(|count| (1..=1000).contains(&count)));
            assert!(cli.announce.nics.vlan.is_none_or(|vlan| (1..=4094).contains(&vlan)));
            assert!(cli.announce.nics.mac.is_none_or(|mac| !mac.is_zero() && !mac.is_multicast()));
        }
        Err(error) => assert!(!error.to_string().trim().is_empty() && matches!(error.exit_code(), 0 | 2)),
    }
});
