//! The configuration file: every mistake has its place in the text and one line, and what is accepted can be carried out.
#![no_main]

use std::path::Path;
use std::time::Duration;

use announced::for_tests::config::Config;
use announced::for_tests::duration;
use announced_fuzz::is_one_line;
use libfuzzer_sys::fuzz_target;

const FILE: &str = "f";
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

fuzz_target!(|text: &str| {
    if let Ok(duration) = duration::parse(text) {
        assert!(duration <= YEAR);
    }
    let config = match Config::parse(Path::new(FILE), text) {
        Ok(config) => config,
        Err(error) => {
            let lines = error.lines();
            assert!(!lines.is_empty() && lines.len() <= 21);
            lines.iter().for_each(|line| has_its_place(line, text));
            return;
        }
    };
    assert!(config.advice().iter().all(|line| !line.is_empty() && !line.contains('\n')));
    assert_eq!(config.needs_restart(&config).count(), 0);
    let schedule = config.schedule().expect("it was checked");
    let offsets: Vec<Duration> = schedule.offsets().collect();
    assert!((1..=1000).contains(&offsets.len()) && offsets[0].is_zero() && offsets.is_sorted());
});

/// `f:LINE:COLUMN: what is wrong`.
fn has_its_place(line: &str, text: &str) {
    let mut parts = line.splitn(4, ':');
    let (file, row, column, why) = (parts.next(), parts.next(), parts.next(), parts.next());
    let number = |part: Option<&str>| part.and_then(|part| part.parse::<usize>().ok()).expect("a number");
    let (row, column) = (number(row), number(column));
    assert!(file == Some(FILE) && why.is_some_and(|why| !why.contains('\n')), "{line:?}");
    let rows = text.split('\n').count();
    assert!((1..=rows).contains(&row), "{line:?}");
    let length = text.split('\n').nth(row - 1).unwrap_or_default().chars().count();
    assert!((1..=length + 1).contains(&column), "{line:?} of {length}");
    let _ = is_one_line(line);
}
