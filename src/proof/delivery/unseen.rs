//! The frames that were not seen to leave, and may have: by an edge where they would not show, as far as Open vSwitch's verdict on them
//! tells.

use crate::announcement::frame::{self, Frame};
use crate::path::hop::{Edge, Hop, Role};
use crate::path::way_out::Reach;
use crate::proof::delivery::{Delivery, RoundFate};
use crate::proof::ofproto_trace::Verdict;

/// The number of edges that a message names.
const MAX_NAMES: usize = 8;

impl Delivery {
    /// The first frame of each kind and VLAN for which a verdict would show whether it was lost. After a lost round, and on
    /// another path, earlier verdicts are asked for again, since they may have changed.
    pub fn unjudged(&self) -> Vec<&Frame> {
        let is_lost = self.fate() == RoundFate::Lost;
        let is_open = |number: usize| (is_lost || !self.is_current[number]) && !self.has_left(number);
        let is_in_ovs = self.path.hops().iter().any(|hop| hop.role == Role::Ovs);
        let hides = self.path.blind().next().is_some() || self.missed.last.contains(&true);
        if !is_in_ovs || !hides {
            return Vec::new();
        }
        let open = self.frames.iter().enumerate().filter(|(number, _)| is_open(*number));
        frame::one_of_each(open.map(|(_, frame)| frame))
    }

    /// Open vSwitch's verdicts on frames that may have left unseen, by number, as far as they were asked for.
    pub fn verdicts_on_unseen(&self) -> impl Iterator<Item = (usize, &Verdict)> {
        let verdicts = self.verdicts.iter().enumerate().filter(|(number, _)| self.left[*number] == 0);
        let verdicts = verdicts.filter_map(|(number, verdict)| Some((number, verdict.as_ref()?)));
        verdicts.filter(|(number, _)| self.unseen_way(*number).is_some())
    }

    /// The capture on this device has lost frames since the round began.
    pub fn missed_on(&mut self, ifindex: u32) {
        let hops = self.path.hops().iter().enumerate();
        hops.filter(|(_, hop)| hop.ifindex == Some(ifindex)).for_each(|(at, _)| self.missed.at(at));
    }

    /// Whether a frame of the last round that was not seen to leave may have left.
    pub(super) fn is_unseen_in_last_round(&self, number: usize) -> bool {
        self.unseen_way_in(number, &self.missed.last).is_some()
    }

    /// Why a frame that was not seen to leave may have left.
    pub fn unseen_way(&self, number: usize) -> Option<String> {
        self.unseen_way_in(number, &self.missed.ever)
    }

    /// The same for rounds of which frames may have passed these hops unseen.
    fn unseen_way_in(&self, number: usize, missed: &[bool]) -> Option<String> {
        if self.path.way().is_alone {
            return Some("its network uses tunnels, and none exists: no other host has a port of it".into());
        }
        let is_closed = !self.path.way().holds(self.frames[number].kind.cast()).is_empty();
        if is_closed || self.is_held_before_ovs(number) {
            return None;
        }
        // Without a port the verdict does not tell: the member of a bond is chosen later.
        let verdict =
            self.verdicts[number].as_ref().filter(|verdict| verdict.dropped || !verdict.outputs.is_empty());
        let is_bound = |at: &usize| verdict.is_none_or(|verdict| self.is_bound(*at, verdict));
        let has_entered = |at: &usize| self.may_have_entered(number, *at, missed);
        if let Some(at) = self.path.blind().filter(has_entered).find(is_bound) {
            return Some(self.path.blindness(at));
        }
        let mut lossy = (0..missed.len()).filter(|at| missed[*at] && self.path.hops()[*at].role.is_edge());
        if let Some(at) = lossy.find(is_bound) {
            let name = &self.path.hops()[at].name;
            return Some(format!("{name} had more frames like them than the capture could hold"));
        }
        let edges = self.path.way().hops.iter().zip(&self.seen).filter(|(hop, _)| hop.role.is_edge());
        let is_seen = edges.clone().any(|(_, seen)| seen[number].is_some());
        (self.path.reach() == Reach::Several && is_seen).then(|| {
            let names: Vec<&str> = edges.take(MAX_NAMES).map(|(hop, _)| hop.name.as_str()).collect();
            format!("none of {} is known to lead to the network (see [path] uplinks)", names.join(", "))
        })
    }

    /// Whether a frame has entered the tunnel of the blind edge at this index, or may have: the tunnel's device, if it has one,
    /// shows what it is given.
    fn may_have_entered(&self, number: usize, at: usize, missed: &[bool]) -> bool {
        let hops = self.path.hops();
        let tunnel = match hops[at].role {
            Role::Edge(Edge::Tunnel) if hops[at].tunnel.is_none() => Some(at),
            _ => hops[at].from.filter(|from| hops[*from].role == Role::Tunnel),
        };
        tunnel.is_none_or(|tunnel| {
            hops[tunnel].ifindex.is_none() || missed[tunnel] || self.seen[tunnel][number].is_some()
        })
    }

    /// Whether a frame with this verdict is on its way to the edge at this index.
    fn is_bound(&self, at: usize, verdict: &Verdict) -> bool {
        let way: Vec<&Hop> = self.path.back_from(at).collect();
        let mut onward = way.iter().rev().skip_while(|hop| hop.role != Role::Ovs);
        // The first device behind Open vSwitch is the port of its datapath.
        let port = onward.find(|hop| hop.role != Role::Ovs).or(way.first());
        let is_tunnel = port.is_some_and(|hop| matches!(hop.role, Role::Tunnel | Role::Edge(Edge::Tunnel)));
        verdict.outputs.iter().any(|output| match output.is_wrapped {
            true => is_tunnel,
            false => port.is_some_and(|hop| hop.name == output.port),
        })
    }

    /// Whether a frame with this verdict is on its way to some edge, as far as the verdict tells.
    pub fn is_bound_out(&self, verdict: &Verdict) -> bool {
        let tells = verdict.dropped || !verdict.outputs.is_empty();
        let mut edges = (0..self.path.hops().len()).filter(|at| self.path.hops()[*at].role.is_edge());
        !tells || edges.any(|at| self.is_bound(at, verdict))
    }

    /// Why departures cannot be seen, if they cannot, and not all frames were seen to leave.
    pub fn unseen(&self) -> Option<String> {
        let never = (0..self.frames.len()).filter(|number| self.left[*number] == 0);
        never.into_iter().find_map(|number| self.unseen_way(number))
    }

    /// The first frame whose departure cannot be seen; the first frame if all were seen to leave or are held.
    pub fn first_unseen(&self) -> Option<&Frame> {
        let is_unseen = |number: &usize| self.left[*number] == 0 && self.unseen_way(*number).is_some();
        self.frames.get((0..self.frames.len()).find(is_unseen).unwrap_or_default())
    }
}
