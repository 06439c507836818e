//! What became of each echo request, and what that makes of an outage.

use serde::Serialize;

/// One echo request; times are seconds since the Unix epoch.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Probe {
    pub seq: u64,
    pub sent: f64,
    /// When the first reply came, however late. `None`: none did.
    pub answered: Option<f64>,
    /// Why the request did not leave.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub struct Summary {
    pub sent: usize,
    pub answered: usize,
    pub lost: usize,
    /// From when the first of consecutive lost requests was sent until the next answered one was, or, when there is none,
    /// the last lost one.
    pub longest_gap_ms: f64,
    pub longest_gap_began: Option<f64>,
    /// `None` also when it has not ended.
    pub longest_gap_ended: Option<f64>,
    /// Whether the last request was answered.
    pub answered_last: bool,
}

/// `probes` are in the order in which they were sent.
pub fn summary(probes: &[Probe]) -> Summary {
    let answered = probes.iter().filter(|probe| probe.answered.is_some()).count();
    let mut summary = Summary {
        sent: probes.len(),
        answered,
        lost: probes.len() - answered,
        answered_last: probes.last().is_some_and(|probe| probe.answered.is_some()),
        ..Summary::default()
    };
    let runs = probes.chunk_by(|a, b| a.answered.is_some() == b.answered.is_some());
    let mut after = 0;
    for run in runs {
        after += run.len();
        let (Some(first), Some(last)) = (run.first(), run.last()) else { continue };
        if first.answered.is_some() {
            continue;
        }
        let ended = probes.get(after).map(|next| next.sent);
        let gap = (ended.unwrap_or(last.sent) - first.sent) * 1e3;
        if summary.longest_gap_began.is_none() || gap > summary.longest_gap_ms {
            summary.longest_gap_ms = gap;
            summary.longest_gap_began = Some(first.sent);
            summary.longest_gap_ended = ended;
        }
    }
    summary
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One request a second, `.` lost, `!` answered.
    fn probes(pattern: &str) -> Vec<Probe> {
        let probe = |(seq, sign): (usize, char)| {
            let sent = seq as f64;
            Probe { seq: seq as u64, sent, answered: (sign == '!').then_some(sent + 0.25), error: None }
        };
        pattern.chars().enumerate().map(probe).collect()
    }

    #[test]
    fn without_loss_there_is_no_gap() {
        let expected = Summary { sent: 3, answered: 3, answered_last: true, ..Summary::default() };
        assert_eq!(summary(&probes("!!!")), expected);
        assert_eq!(summary(&[]), Summary::default());
    }

    #[test]
    fn the_longest_gap_ends_when_an_answered_request_is_sent() {
        let summary = summary(&probes("!.!!...!.!"));
        assert_eq!((summary.sent, summary.answered, summary.lost), (10, 5, 5));
        assert_eq!(summary.longest_gap_ms, 3000.0);
        assert_eq!((summary.longest_gap_began, summary.longest_gap_ended), (Some(4.0), Some(7.0)));
    }

    #[test]
    fn a_gap_that_does_not_end_says_so() {
        let summary = summary(&probes("!...."));
        assert_eq!(summary.longest_gap_ms, 3000.0);
        assert_eq!((summary.longest_gap_began, summary.longest_gap_ended), (Some(1.0), None));
        assert!(!summary.answered_last);
    }

    #[test]
    fn a_single_lost_request_is_a_gap_too() {
        assert_eq!(summary(&probes("!.!")).longest_gap_ms, 1000.0);
        assert_eq!(summary(&probes("!.")).longest_gap_began, Some(1.0));
    }

    #[test]
    fn a_probe_is_one_line_of_json() {
        let line = |probe: &Probe| serde_json::to_string(probe).unwrap();
        let [lost, answered] = &probes(".!")[..] else { unreachable!() };
        assert_eq!(line(lost), r#"{"seq":0,"sent":0.0,"answered":null}"#);
        assert_eq!(line(answered), r#"{"seq":1,"sent":1.0,"answered":1.25}"#);
    }
}
