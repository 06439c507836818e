//! What the captured frames prove: the hops that each round reached, whether it left the host, and whether frames for the
//! guest entered.
//!
//! Time is a [`Duration`] since the event, as in [`crate::announcement::machine`].

use std::time::Duration;

use pnet_base::MacAddr;

use crate::announcement::frame::{Frame, Kind};
use crate::announcement::frame_names::names;
use crate::path::hop::{Edge, Hop, Role};
use crate::path::ovs::DEAD_VLAN;
use crate::proof::capture_point::CapturePath;
use crate::proof::departure::{Departed, departure, note};
use crate::proof::ofproto_trace::Verdict;
use crate::proof::returned::Returned;
use crate::proof::sighting::Sighting;

mod missed;
pub(crate) mod stuck;
mod unseen;

use missed::Missed;

/// The fate of a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RoundFate {
    /// Every frame of it left the host.
    Left,
    /// Some of its frames left.
    Partly,
    /// No frame left: a departure would have been seen.
    Lost,
    /// Some frames were not seen to leave, but may have left by a blind edge.
    Unseen,
}

/// What the sightings of an announcement prove.
#[derive(Debug)]
pub struct Delivery {
    path: CapturePath,
    mac: MacAddr,
    frames: Vec<Frame>,
    /// When each frame of the last round was first seen at each hop: by hop, then by frame.
    seen: Vec<Vec<Option<Duration>>>,
    /// The tag of the last sighting at each hop.
    vlans: Vec<Option<u16>>,
    /// By hop: the number after that of the last frame that was seen there.
    next: Vec<usize>,
    /// How often each frame has left, in all rounds.
    left: Vec<u64>,
    /// The ways by which frames left, in the order of their first use.
    departures: Vec<Departed>,
    /// Frames seen at an edge in the wrong VLAN, as [`Delivery::departures`].
    astray: Vec<Departed>,
    /// When the first frame entered a tunnel that has a device.
    wrapped: Option<Duration>,
    /// By frame: Open vSwitch's verdict from `ofproto/trace`.
    verdicts: Vec<Option<Verdict>>,
    /// By frame: the verdict is of the present path.
    is_current: Vec<bool>,
    returned: Returned,
    missed: Missed,
    /// A round was sent, and the port is as it was then. Other frames with the same bytes are QEMU's or the guest's own.
    is_under_way: bool,
}

impl Delivery {
    /// A delivery of rounds of `frames` along `path`, with no sighting yet.
    pub fn new(mac: MacAddr, frames: &[Frame], path: CapturePath) -> Delivery {
        let hops = path.hops().len();
        Delivery {
            mac,
            frames: frames.to_vec(),
            seen: vec![vec![None; frames.len()]; hops],
            vlans: vec![None; hops],
            next: vec![0; hops],
            left: vec![0; frames.len()],
            departures: Vec::new(),
            astray: Vec::new(),
            wrapped: None,
            verdicts: vec![None; frames.len()],
            is_current: vec![false; frames.len()],
            returned: Returned::default(),
            missed: Missed::none(hops),
            is_under_way: false,
            path,
        }
    }

    /// The path of the frames.
    pub fn path(&self) -> &CapturePath {
        &self.path
    }

    /// Sets another path for the frames from now on.
    pub fn follow(&mut self, path: CapturePath) {
        if path.hops() != self.path.hops() {
            self.seen = vec![vec![None; self.frames.len()]; path.hops().len()];
            self.vlans = vec![None; path.hops().len()];
            self.next = vec![0; path.hops().len()];
            self.missed = Missed::none(path.hops().len());
            // A verdict holds until another one: few are asked for in a second, and without one a lost frame counts as unseen.
            self.is_current.fill(false);
        }
        self.path = path;
    }

    /// Records Open vSwitch's verdict for frames of this one's kind and VLAN.
    pub fn judged(&mut self, like: &Frame, verdict: &Verdict) {
        for (number, frame) in self.frames.iter().enumerate() {
            if (frame.kind, frame.vlan) == (like.kind, like.vlan) {
                self.verdicts[number] = Some(verdict.clone());
                self.is_current[number] = true;
            }
        }
    }

    /// Adds frames to the rounds from now on.
    pub fn add(&mut self, frames: impl Iterator<Item = Frame>) {
        self.frames.extend(frames);
        self.verdicts.resize(self.frames.len(), None);
        self.is_current.resize(self.frames.len(), false);
        self.left.resize(self.frames.len(), 0);
        self.seen.iter_mut().for_each(|seen| seen.resize(self.frames.len(), None));
    }

    /// Begins a round of all frames.
    pub fn begin(&mut self) {
        self.is_under_way = true;
        self.missed.begin();
        self.seen.iter_mut().flatten().for_each(|at| *at = None);
    }

    /// Begins a round of some of the frames; the others keep the sightings of their last round.
    pub fn begin_some(&mut self, round: &[Frame]) {
        self.is_under_way = true;
        self.missed.begin();
        for (number, _) in self.frames.iter().enumerate().filter(|(_, frame)| round.contains(frame)) {
            self.seen.iter_mut().for_each(|seen| seen[number] = None);
        }
    }

    /// Until the next round begins, no frame that passes is ours.
    pub fn suspend(&mut self) {
        self.is_under_way = false;
    }

    /// Records a sighting.
    pub fn saw(&mut self, sighting: &Sighting) {
        let hops = self.path.hops().iter().enumerate();
        let at = hops.filter(|(_, hop)| sighting.is_at(hop)).map(|(at, _)| at);
        for at in at.collect::<Vec<_>>() {
            if self.path.outward(&self.path.hops()[at]) == Some(sighting.direction) {
                self.passed(at, sighting);
            } else if self.is_reply(at, sighting) {
                self.returned.saw(sighting.at);
            }
        }
    }

    /// The edge by which it entered, if it is a frame for the guest that was sent after a frame had left by such an edge.
    pub fn came_in(&self, sighting: &Sighting) -> Option<Edge> {
        let mut hops = self.path.hops().iter().enumerate();
        let (_, hop) = hops.find(|(at, hop)| {
            sighting.is_at(hop)
                && self.path.outward(hop) != Some(sighting.direction)
                && self.is_reply(*at, sighting)
        })?;
        // Where a tunnel has a device, frames enter by that.
        if hop.role == Role::Tunnel { Some(Edge::Tunnel) } else { hop.edge() }
    }

    fn passed(&mut self, at: usize, sighting: &Sighting) {
        // IEEE 802.1Q reserves VLAN 4095, so no switch forwards such a frame: neutron's dead VLAN ends at the edge, too.
        let is_dead = sighting.vlan == Some(DEAD_VLAN) && self.path.hops()[at].role.is_edge();
        if is_dead || !self.is_under_way {
            return;
        }
        let Some(which) = self.which(at, sighting) else {
            return;
        };
        // A frame that the guest itself tags may be in the VLAN of the copies.
        let is_copy = |vlan: u16| self.path.way().is_copy(at, vlan) && self.frames[which].vlan != Some(vlan);
        if sighting.vlan.is_some_and(is_copy) {
            return;
        }
        self.vlans[at] = sighting.vlan;
        let hop = &self.path.hops()[at];
        let is_departure = self.path.proves(hop);
        if is_departure && !hop.tag.fits(sighting.vlan) {
            let departure = departure(hop, sighting);
            return note(&mut self.astray, departure, sighting.at);
        }
        let had_left = self.has_left(which);
        let is_tunnel = hop.role == Role::Tunnel || hop.role == Role::Edge(Edge::Tunnel);
        let departure = departure(hop, sighting);
        self.seen[at][which].get_or_insert(sighting.at);
        if is_tunnel {
            self.wrapped.get_or_insert(sighting.at);
        }
        if is_departure && !had_left {
            self.left[which] += 1;
            note(&mut self.departures, departure, sighting.at);
        }
    }

    /// The number of the frame. Frames pass a hop in the order of the round, so the search begins after the last one that did.
    fn which(&mut self, at: usize, sighting: &Sighting) -> Option<usize> {
        let same = |number: &usize| self.frames[*number].is(sighting.vlan, &sighting.frame);
        let next = self.next[at].min(self.frames.len());
        let which = (next..self.frames.len()).chain(0..next).find(same)?;
        self.next[at] = which + 1;
        Some(which)
    }

    fn is_reply(&self, at: usize, sighting: &Sighting) -> bool {
        let is_for_guest = sighting.frame.get(..6) == Some(&self.mac.octets());
        is_for_guest && self.follows_departure(&self.path.hops()[at], sighting)
    }

    /// Whether a frame passes an edge on its way out.
    pub fn goes_out(&self, sighting: &Sighting) -> bool {
        let mut hops = self.path.hops().iter().filter(|hop| sighting.is_at(hop));
        hops.any(|hop| self.path.proves(hop) && self.path.outward(hop) == Some(sighting.direction))
    }

    /// Whether the guest's MAC is the source.
    pub fn is_from_guest(&self, sighting: &Sighting) -> bool {
        sighting.frame.get(6..12) == Some(&self.mac.octets())
    }

    /// Whether it passes an edge after a frame has left by such an edge in its VLAN.
    pub fn follows_departure(&self, hop: &Hop, sighting: &Sighting) -> bool {
        // In another VLAN, a different guest may have the same MAC. VLAN 0 carries only a priority.
        let vlan = |tag: Option<u16>| tag.filter(|tag| *tag != 0);
        let is_answer =
            |left: &Departed| left.at <= sighting.at && vlan(left.departure.vlan) == vlan(sighting.vlan);
        match hop.role {
            Role::Tunnel => self.has_entered_tunnel(sighting.at),
            Role::Edge(Edge::Tunnel) if hop.tunnel.is_none() => self.has_entered_tunnel(sighting.at),
            _ => self.path.proves(hop) && self.departures.iter().any(is_answer),
        }
    }

    fn has_entered_tunnel(&self, by: Duration) -> bool {
        self.wrapped.is_some_and(|at| at <= by)
    }

    fn has_left(&self, frame: usize) -> bool {
        let hops = self.path.hops().iter().zip(&self.seen);
        hops.filter(|(_, seen)| seen[frame].is_some()).any(|(hop, _)| self.path.proves(hop))
    }

    /// The fate of the last round, by the sightings so far.
    pub fn fate(&self) -> RoundFate {
        let (left, mut others): (Vec<usize>, Vec<usize>) =
            (0..self.frames.len()).partition(|frame| self.has_left(*frame));
        others.retain(|frame| !self.is_kept_by_design(*frame));
        match (left.is_empty(), others.is_empty()) {
            (_, true) => RoundFate::Left,
            _ if others.iter().any(|frame| self.is_unseen_in_last_round(*frame)) => RoundFate::Unseen,
            (false, _) => RoundFate::Partly,
            (true, _) => RoundFate::Lost,
        }
    }

    /// Whether no frame with an address is among those of the last round that left.
    pub fn lacks_every_address(&self) -> bool {
        let has_address = |number: &usize| self.frames[*number].ip.is_some();
        let mut named = (0..self.frames.len()).filter(has_address).peekable();
        named.peek().is_some() && !named.any(|number| self.has_left(number) || self.is_kept_by_design(number))
    }

    /// Whether bridges hold a frame back by design, and its content reaches the network by other means.
    pub fn is_kept_by_design(&self, number: usize) -> bool {
        let holds = self.path.way().holds(self.frames[number].kind.cast());
        !holds.is_empty() && holds.iter().all(|hold| hold.setting.is_by_design())
    }

    /// The frames that bridges hold back by design, with the settings, as text.
    pub fn kept_by_design(&self) -> Option<String> {
        let is_kept = |number| self.left[number] == 0 && self.is_kept_by_design(number);
        let kept = (0..self.frames.len()).find(|number| is_kept(*number))?;
        Some(format!("{}: {}", names(&self.frames, is_kept).join(", "), self.kept_by(kept)?))
    }

    /// The settings of bridges that hold this frame back, as text.
    pub fn kept_by(&self, number: usize) -> Option<String> {
        let holds = self.path.way().holds(self.frames[number].kind.cast());
        let holds: Vec<String> = holds.iter().map(ToString::to_string).collect();
        (!holds.is_empty()).then(|| holds.join("; "))
    }

    /// How often this frame has left.
    pub fn times_left(&self, number: usize) -> u64 {
        self.left[number]
    }

    /// The ways by which frames left the host, in the order of their first use.
    pub fn departures(&self) -> &[Departed] {
        &self.departures
    }

    /// The frames that reached an edge in the wrong VLAN.
    pub fn astray(&self) -> &[Departed] {
        &self.astray
    }

    /// The first departure from the host.
    pub fn departure(&self) -> Option<&Departed> {
        self.departures.first()
    }

    /// When the first frame for the guest came in after that.
    pub fn returned(&self) -> Option<Duration> {
        self.returned.first
    }

    /// The frames for the guest that entered after that.
    pub fn all_returned(&self) -> &Returned {
        &self.returned
    }

    /// The number of frames that left the host, by kind; `None` if departures cannot be seen.
    pub fn left(&self) -> Option<impl Iterator<Item = (Kind, u64)>> {
        let counts = self.frames.iter().zip(&self.left).map(|(frame, left)| (frame.kind, *left));
        self.unseen().is_none().then_some(counts)
    }

    /// The last hop at which a frame of the last round was seen; if they enter Open vSwitch unseen, its bridge.
    pub fn last_hop(&self) -> Option<&Hop> {
        let furthest = self.seen.iter().rposition(|seen| seen.iter().any(Option::is_some));
        let unseen_entry = self.path.hops().first().filter(|hop| hop.role == Role::Ovs);
        furthest.map(|at| &self.path.hops()[at]).or(unseen_entry)
    }

    /// For each hop, its tag, and when each frame of the last round passed it.
    pub fn hops(&self) -> impl Iterator<Item = (&Hop, Option<u16>, &[Option<Duration>])> {
        let hops = self.path.hops().iter().zip(&self.vlans).zip(&self.seen);
        hops.map(|((hop, vlan), seen)| (hop, *vlan, seen.as_slice()))
    }

    /// The frames of a round.
    pub fn frames(&self) -> &[Frame] {
        &self.frames
    }
}

#[cfg(test)]
pub(crate) mod tests;
