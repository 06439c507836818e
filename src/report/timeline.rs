//! The moments of an announcement, drawn as text.

use std::fmt::Write;

use crate::report::record::Report;

/// The columns of the time axis.
const WIDTH: f64 = 40.0;

/// A line for each moment of a report, in order of time, with its position on a common time axis.
pub(crate) fn draw(report: &Report) -> String {
    let moments = [
        ("guest runs", report.runs_after_ms),
        ("port plugged", report.plugged_after_ms),
        ("in its VLAN", report.tagged_after_ms),
        ("port ready", report.ready_after_ms),
        ("first frame", report.first_frame_after_ms),
        ("left the host", report.evidence.left_host_after_ms),
        ("learned locally", report.evidence.learned_after_ms),
        ("first frame back", report.evidence.returned_after_ms),
        ("last frame back", report.evidence.last_returned_after_ms),
        ("first answer", report.evidence.answered_after_ms),
    ];
    let moments = moments.into_iter().filter_map(|(what, at)| Some((what, at?)));
    let mut moments: Vec<(&str, f64)> = moments.collect();
    moments.sort_by(|(_, a), (_, b)| a.total_cmp(b));
    let end = moments.last().map_or(0.0, |(_, at)| *at).max(f64::MIN_POSITIVE);
    let mut text = String::new();
    for (what, at) in moments {
        let before = (at / end * WIDTH).clamp(0.0, WIDTH) as usize;
        let _ = write!(text, "\n  {what:<16} {at:>12.3} ms  {}●", "─".repeat(before));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::event::Cause;
    use crate::guest::target::{DomainId, Unannounceable};
    use crate::report::evidence::Evidence;

    fn report() -> Report {
        let domain = DomainId { name: "web1".into(), uuid: String::new() };
        let nic = Unannounceable {
            domain: Some(domain),
            device: None,
            mac: None,
            reason: String::new(),
            by_representor: None,
        };
        Report::refused(&nic, Cause::Migrated)
    }

    #[test]
    fn moments_appear_in_order_on_one_axis() {
        let evidence = Evidence { left_host_after_ms: Some(99.9), ..Evidence::default() };
        let report = Report {
            runs_after_ms: Some(0.1),
            tagged_after_ms: Some(50.0),
            first_frame_after_ms: Some(100.0),
            evidence,
            ..report()
        };
        let expected = format!(
            "\n  guest runs              0.100 ms  ●\
             \n  in its VLAN            50.000 ms  {}●\
             \n  left the host          99.900 ms  {}●\
             \n  first frame           100.000 ms  {}●",
            "─".repeat(20),
            "─".repeat(39),
            "─".repeat(40)
        );
        assert_eq!(draw(&report), expected);
    }

    #[test]
    fn a_moment_that_did_not_happen_is_not_drawn() {
        assert_eq!(draw(&report()), "");
        let runs = Report { runs_after_ms: Some(0.0), ..report() };
        assert_eq!(draw(&runs), "\n  guest runs              0.000 ms  ●");
    }
}
