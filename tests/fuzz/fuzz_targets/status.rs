//! The status as another daemon or another version writes it, and a line of history.jsonl: read, it is written the same, and
//! every rendering is well-formed.
#![no_main]

use announced::for_tests::page;
use announced::for_tests::report::Report;
use announced::for_tests::snapshot::{Ended, Snapshot};
use announced::for_tests::svg;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(ended) = serde_json::from_str::<Ended>(text) {
        let line = serde_json::to_string(&ended).expect("a report is JSON");
        assert!(!line.contains('\n'), "it is a line of the history");
        assert_eq!(serde_json::from_str::<Ended>(&line).expect("it is read again"), ended);
        is_rendered(&[&ended.report]);
    }
    let Ok(status) = serde_json::from_str::<Snapshot>(text) else { return };
    let written = serde_json::to_string(&status).expect("a status is JSON");
    assert_eq!(serde_json::from_str::<Snapshot>(&written).expect("it is read again"), status);
    is_exposition(&status.metrics.text(&status.gauges, &status.waiting));
    let page = page::draw("host", "2026-01-01T00:00:00.000Z", &status, &[]);
    assert!(!page.to_ascii_lowercase().contains("<script"));
    is_rendered(&status.recent.iter().map(|ended| &ended.report).collect::<Vec<_>>());
});

fn is_rendered(reports: &[&Report]) {
    let picture = svg::document(reports);
    if let Err(error) = roxmltree::Document::parse(&picture) {
        panic!("{error}: {picture}");
    }
    for report in reports {
        let _ = (report.line(), report.warnings(), report.notices(), report.subject());
    }
}

/// Prometheus' text format: comments, and samples with a number.
fn is_exposition(text: &str) {
    for line in text.lines().filter(|line| !line.starts_with("# ")) {
        let (name, value) = line.rsplit_once(' ').expect("a sample has a value");
        assert!(name.starts_with("announced_") && value.parse::<f64>().is_ok(), "{line:?}");
    }
}
