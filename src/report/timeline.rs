//! When what happened in an announcement, drawn as text.

use std::fmt::Write;

use serde_json::Value;

/// What is told, and the key of its time in a report, in milliseconds from the event; in the usual order.
const MOMENTS: [(&str, &str); 8] = [
    ("guest runs", "runs_after_ms"),
    ("port plugged", "plugged_after_ms"),
    ("in its VLAN", "tagged_after_ms"),
    ("port ready", "ready_after_ms"),
    ("first frame", "first_frame_after_ms"),
    ("left the host", "left_host_after_ms"),
    ("learned locally", "learned_after_ms"),
    ("first frame back", "returned_after_ms"),
];
/// Columns of the time axis.
const WIDTH: f64 = 40.0;

/// A line for each moment of a report (as JSON) that has come, in their order, with its place on a common time axis.
pub fn draw(report: &Value) -> String {
    let moments = MOMENTS.iter().filter_map(|(what, key)| Some((*what, report[*key].as_f64()?)));
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
    use serde_json::json;

    use super::*;

    #[test]
    fn moments_stand_in_their_order_on_one_axis() {
        let report = json!({
            "runs_after_ms": 0.1, "tagged_after_ms": 50.0, "plugged_after_ms": null, "first_frame_after_ms": 100.0,
            "left_host_after_ms": 99.9,
        });
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
    fn nothing_that_came_is_drawn_as_nothing() {
        assert_eq!(draw(&json!({"runs_after_ms": null})), "");
        assert_eq!(draw(&json!({"runs_after_ms": 0.0})), "\n  guest runs              0.000 ms  ●");
    }
}
