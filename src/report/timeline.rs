//! The moments of an announcement, as text.

use std::fmt::Write;

use crate::report::record::Report;

/// What happened in an announcement, and how many milliseconds after the event, in the order of time.
pub(super) fn moments(report: &Report) -> Vec<(&'static str, f64)> {
    let multicast = report.evidence.multicast.clone().unwrap_or_default();
    let guest = report.evidence.guest_announcement.clone().unwrap_or_default();
    let moments = [
        ("source stopped", report.source_stopped_after_ms),
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
        ("guest told", guest.told_after_ms),
        ("guest announces", guest.left_after_ms),
        ("groups queried", multicast.queried_after_ms),
        ("IGMP report left", multicast.igmp_left_after_ms),
        ("MLD report left", multicast.mld_left_after_ms),
    ];
    let moments = moments.into_iter().filter_map(|(what, at)| Some((what, at?)));
    let mut moments: Vec<(&str, f64)> = moments.collect();
    moments.sort_by(|(_, a), (_, b)| a.total_cmp(b));
    moments
}

/// A line for each moment of a report that has come, in their order: when it came, and how long after the one before.
pub(crate) fn draw(report: &Report) -> String {
    let (mut text, mut before) = (String::new(), None);
    for (what, at) in moments(report) {
        let _ = write!(text, "\n  {what:<16} {at:>12.3} ms");
        if let Some(before) = before.replace(at) {
            let _ = write!(text, "  {:+.3}", at - before);
        }
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
        let domain = DomainId { name: "web1".into(), uuid: "".into() };
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
    fn moments_stand_in_their_order_with_the_time_between_them() {
        let evidence = Evidence { left_host_after_ms: Some(99.9), ..Evidence::default() };
        let report = Report {
            runs_after_ms: Some(0.1),
            tagged_after_ms: Some(50.0),
            first_frame_after_ms: Some(100.0),
            evidence,
            ..report()
        };
        let expected = "\n  guest runs              0.100 ms\
                        \n  in its VLAN            50.000 ms  +49.900\
                        \n  left the host          99.900 ms  +49.900\
                        \n  first frame           100.000 ms  +0.100";
        assert_eq!(draw(&report), expected);
    }

    #[test]
    fn a_moment_that_did_not_happen_is_not_drawn() {
        assert_eq!(draw(&report()), "");
        let runs = Report { runs_after_ms: Some(0.0), ..report() };
        assert_eq!(draw(&runs), "\n  guest runs              0.000 ms");
    }
}
