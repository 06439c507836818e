//! The attachment of a NIC in a report, with its path.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use crate::path::attachment;
use crate::path::readiness::Assessment;
use crate::path::way_out::WayOut;

/// The number of branches of a path that are shown as text.
const MAX_BRANCHES: usize = 8;

/// The attachment of a NIC in a report.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Path {
    /// Its shape.
    pub kind: attachment::Kind,
    /// The bridge that decides the VLAN.
    pub bridge: String,
    /// The port there.
    pub port: String,
    /// The VLAN of the guest's untagged frames.
    pub vlan: Option<u16>,
    /// The hops from the host's end of the NIC to the edges.
    pub hops: Vec<String>,
    /// For each of them, the index of the hop before it; null for the first one.
    #[serde(default)]
    pub from: Vec<Option<usize>>,
}

impl Path {
    /// The path of the last observation, if it has one.
    pub fn of(seen: &Assessment) -> Option<Path> {
        seen.attachment.as_ref().map(|attachment| {
            let (hops, from) = tree(&attachment.way);
            Path {
                kind: attachment.kind,
                bridge: attachment.bridge.clone(),
                port: attachment.port.clone(),
                vlan: seen.vlan,
                hops,
                from,
            }
        })
    }

    /// `ovs: tap0 -> br-int -> eth0`; where it has branches, what they have in common, and a line for each.
    pub fn lines(&self) -> Vec<String> {
        let branches = self.branches();
        let common = common(&branches);
        let (trunk, rest) = match branches.split_first() {
            Some((first, [_, ..])) => (&first[..common], branches.iter()),
            Some((only, [])) => (&only[..], [].iter()),
            None => (&[][..], [].iter()),
        };
        let names =
            |hops: &[usize]| hops.iter().map(|at| self.hops[*at].as_str()).collect::<Vec<_>>().join(" -> ");
        let mut lines = vec![format!("{}: {}", self.kind.word(), names(trunk))];
        lines.extend(
            rest.clone().take(MAX_BRANCHES).map(|branch| format!("  -> {}", names(&branch[common..]))),
        );
        let more = rest.len().saturating_sub(MAX_BRANCHES);
        lines.extend((more > 0).then(|| format!("  and {more} more")));
        lines
    }

    /// The hops from the first one to each that leads to no other.
    fn branches(&self) -> Vec<Vec<usize>> {
        // A hop comes after the one before it.
        let before = |at: &usize| self.from.get(*at).copied().flatten().filter(|from| from < at);
        let lead_on: HashSet<usize> = (0..self.hops.len()).filter_map(|at| before(&at)).collect();
        let ends = (0..self.hops.len()).filter(|at| !lead_on.contains(at));
        let branches = ends.map(|end| {
            let mut branch: Vec<usize> = std::iter::successors(Some(end), before).collect();
            branch.reverse();
            branch
        });
        branches.collect()
    }
}

/// The names of the hops, and for each the index of the one before it.
fn tree(way: &WayOut) -> (Vec<String>, Vec<Option<usize>>) {
    let mut places = vec![None; way.hops.len()];
    let (mut names, mut from) = (Vec::new(), Vec::new());
    for (at, hop) in way.hops.iter().enumerate().filter(|(_, hop)| hop.is_named()) {
        places[at] = Some(names.len());
        names.push(hop.name.clone());
        from.push(hop.from.and_then(|from| places[from]));
    }
    (names, from)
}

/// The number of hops with which all branches begin.
fn common(branches: &[Vec<usize>]) -> usize {
    let Some(first) = branches.first() else { return 0 };
    let is_shared = |at: &usize| branches.iter().all(|branch| branch.get(*at) == first.get(*at));
    (0..first.len()).take_while(is_shared).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each hop with the one before it.
    fn path(hops: &[(&str, Option<usize>)]) -> Path {
        let (hops, from) = hops.iter().map(|(name, from)| ((*name).to_owned(), *from)).unzip();
        let (bridge, port) = ("br-int".into(), "tap0".into());
        Path { kind: attachment::Kind::Ovs, bridge, port, vlan: None, hops, from }
    }

    #[test]
    fn a_path_without_branches_is_one_line() {
        let one = path(&[("tap0", None), ("br-int", Some(0)), ("eth0", Some(1))]);
        assert_eq!(one.lines(), ["ovs: tap0 -> br-int -> eth0"]);
        assert_eq!(path(&[("tap0", None)]).lines(), ["ovs: tap0"]);
        assert_eq!(path(&[]).lines(), ["ovs: "]);
    }

    #[test]
    fn each_branch_has_a_line() {
        let uplink_and_tunnel = [
            ("tap0", None),
            ("br-int", Some(0)),
            ("br-ex", Some(1)),
            ("bond0", Some(2)),
            ("eth0", Some(3)),
            ("eth1", Some(3)),
            ("vxlan-1", Some(1)),
            ("eth2", Some(6)),
        ];
        let lines = [
            "ovs: tap0 -> br-int",
            "  -> br-ex -> bond0 -> eth0",
            "  -> br-ex -> bond0 -> eth1",
            "  -> vxlan-1 -> eth2",
        ];
        assert_eq!(path(&uplink_and_tunnel).lines(), lines);
        let names: Vec<String> = (0..12).map(|number| format!("eth{number}")).collect();
        let many = names.iter().map(|name| (name.as_str(), Some(1)));
        let many: Vec<_> = [("tap0", None), ("br-int", Some(0))].into_iter().chain(many).collect();
        let lines = path(&many).lines();
        assert_eq!((lines.len(), lines[9].as_str()), (10, "  and 4 more"));
    }

    /// An earlier daemon's report has none, and another program's may have any.
    #[test]
    fn hops_whose_order_is_not_known_are_all_named() {
        let mut unknown = path(&[("tap0", None), ("br-int", Some(7)), ("eth0", Some(2))]);
        assert_eq!(unknown.lines(), ["ovs: ", "  -> tap0", "  -> br-int", "  -> eth0"]);
        unknown.from.clear();
        assert_eq!(unknown.lines().len(), 4);
    }
}
