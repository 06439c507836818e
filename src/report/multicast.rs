//! The membership queries in a report, and the guest's answers.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::announcement::query::Protocol;
use crate::report::count;

/// The membership queries of an announcement, and the guest's reports.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Multicast {
    /// How often the guest was queried, by both protocols each time.
    pub queries: u32,
    /// From the event to the first query.
    pub queried_after_ms: Option<f64>,
    /// From the event to the first IGMP report that left the host.
    pub igmp_left_after_ms: Option<f64>,
    /// From the event to the first MLD report that left the host.
    pub mld_left_after_ms: Option<f64>,
    /// The groups that the guest has reported.
    pub groups: Vec<IpAddr>,
    /// The reports that the guest has sent and that did not leave the host, and the reason.
    pub held: Vec<String>,
    /// Why the guest cannot be queried.
    pub unavailable: Option<String>,
}

impl Multicast {
    /// The guest cannot be queried, or not any more.
    pub(crate) fn unavailable(why: String) -> Multicast {
        Multicast { unavailable: Some(why), ..Multicast::default() }
    }

    /// From the event to the first report of each protocol that left the host.
    pub(crate) fn left_after_ms(&self) -> [(Protocol, Option<f64>); 2] {
        [(Protocol::Igmp, self.igmp_left_after_ms), (Protocol::Mld, self.mld_left_after_ms)]
    }

    /// `its multicast groups: IGMP report after 52.1 ms, MLD report after 14 ms (3 groups)`, and each fault, one per line.
    pub(crate) fn lines(&self) -> Vec<String> {
        let left = self.left_after_ms().into_iter();
        let left = left.filter_map(|(protocol, at)| Some(format!("{protocol} report after {} ms", at?)));
        let left: Vec<String> = left.collect();
        let groups = count(self.groups.len(), "group");
        let told = format!("its multicast groups: {} ({groups})", left.join(", "));
        let told = (!left.is_empty()).then_some(told);
        let unavailable = self.unavailable.as_ref().map(|why| format!("no membership query: {why}"));
        told.into_iter().chain(self.held.iter().cloned()).chain(unavailable).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_without_groups_has_no_line() {
        assert_eq!(Multicast { queries: 2, ..Multicast::default() }.lines(), [""; 0]);
    }

    #[test]
    fn reports_and_faults_have_a_line_each() {
        let multicast = Multicast {
            queries: 2,
            igmp_left_after_ms: Some(52.1),
            groups: vec!["239.1.2.3".parse().unwrap()],
            held: vec!["its MLD reports did not leave the host".into()],
            ..Multicast::default()
        };
        let expected = [
            "its multicast groups: IGMP report after 52.1 ms (1 group)",
            "its MLD reports did not leave the host",
        ];
        assert_eq!(multicast.lines(), expected);
        let line = Multicast::unavailable("tap0 is not the guest's".into()).lines();
        assert_eq!(line, ["no membership query: tap0 is not the guest's"]);
    }
}
