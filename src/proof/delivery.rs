//! What the captured frames prove: the hops that each round reached, whether it left the host, and whether frames for the
//! guest entered.
//!
//! Time is a [`Duration`] since the event, as in [`crate::announcement::machine`].

use std::fmt;
use std::time::Duration;

use pnet_base::MacAddr;
use serde::{Deserialize, Serialize};

use crate::announcement::frame::{Frame, Kind};
use crate::path::hop::{Edge, Hop, Role, Via};
use crate::path::ovs::DEAD_VLAN;
use crate::path::walk::Reach;
use crate::proof::capture_point::{CapturePath, Direction};
use crate::proof::ofproto_trace::Verdict;
use crate::proof::returned::Returned;

const ETHERNET_HEADER: usize = 14;
/// The two MAC addresses, before any tag.
const ADDRESSES: usize = 12;
const VLAN_TAG: usize = 4;
/// The number of device and VLAN pairs by which departures are counted.
const MAX_DEPARTURES: usize = 16;
/// The number of edges that a message names.
const MAX_NAMES: usize = 8;
/// A frame with more VLAN tags is not one of ours.
const MAX_TAGS: usize = 2;
/// The Ethertypes of tags in a frame: 802.1Q and 802.1ad.
const TAGGED: [[u8; 2]; 2] = [[0x81, 0x00], [0x88, 0xa8]];

/// A captured frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sighting {
    /// The device's ifindex.
    pub ifindex: u32,
    /// The direction in which it passed.
    pub direction: Direction,
    /// When.
    pub at: Duration,
    /// Its VLAN tag, from the kernel or from the frame; the outermost of several.
    pub vlan: Option<u16>,
    /// The frame without its tags, perhaps truncated.
    pub frame: Vec<u8>,
}

impl Sighting {
    /// A sighting of `frame`, which may carry tags; `vlan` is the tag that the kernel has removed from it.
    pub fn new(
        ifindex: u32,
        direction: Direction,
        at: Duration,
        mut vlan: Option<u16>,
        frame: &[u8],
    ) -> Sighting {
        let mut frame = frame.to_vec();
        // A VLAN device on a VLAN device, or a provider bridge that adds a tag, makes two tags.
        for _ in 0..MAX_TAGS {
            match frame.get(ADDRESSES..ADDRESSES + VLAN_TAG) {
                Some(&[a, b, c, d]) if TAGGED.contains(&[a, b]) => {
                    vlan.get_or_insert(u16::from_be_bytes([c, d]) & 0x0fff);
                    frame.drain(ADDRESSES..ADDRESSES + VLAN_TAG);
                }
                _ => break,
            }
        }
        Sighting { ifindex, direction, at, vlan, frame }
    }
}

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

/// The way by which a frame left the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Departure {
    /// The last device.
    pub device: String,
    /// The last bridge before it.
    pub bridge: Option<String>,
    /// The bridge's port towards the device.
    pub port: Option<String>,
    /// The VLAN tag on the frame.
    pub vlan: Option<u16>,
    /// The kind of edge that the device is.
    #[serde(default)]
    pub edge: Option<Edge>,
}

/// The frames that left by one device in one VLAN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Departed {
    /// How.
    pub departure: Departure,
    /// When the first one left.
    pub at: Duration,
    /// Their number.
    pub frames: u64,
}

/// Frames that never left the host, and where they ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stuck {
    /// The frames, as text; empty if they are all of a round.
    pub frames: Vec<String>,
    /// The last device on which they were seen.
    pub reached: Option<String>,
    /// What they did not leave: a bridge, several Open vSwitch bridges, a device, or the host if only edges are captured.
    pub held_by: String,
    /// The reason, if known.
    pub why: Option<String>,
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
    returned: Returned,
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
            left: vec![0; frames.len()],
            departures: Vec::new(),
            astray: Vec::new(),
            wrapped: None,
            verdicts: vec![None; frames.len()],
            returned: Returned::default(),
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
            self.forget_verdicts();
        }
        self.path = path;
    }

    /// Records Open vSwitch's verdict for frames of this kind.
    pub fn judged(&mut self, kind: Kind, verdict: &Verdict) {
        let frames = self.frames.iter().zip(&mut self.verdicts);
        frames.filter(|(frame, _)| frame.kind == kind).for_each(|(_, known)| *known = Some(verdict.clone()));
    }

    /// Open vSwitch's flows may have changed.
    pub fn forget_verdicts(&mut self) {
        self.verdicts.fill(None);
    }

    /// The first frame of each kind for which a verdict would show whether it was lost. After a lost round, earlier verdicts
    /// are asked for again, since they may have changed.
    pub fn unjudged(&self) -> Vec<&Frame> {
        let mut frames: Vec<&Frame> = Vec::new();
        let is_lost = self.fate() == RoundFate::Lost;
        let is_open = |number: usize| (is_lost || self.verdicts[number].is_none()) && !self.has_left(number);
        let is_in_ovs = self.path.hops().iter().any(|hop| hop.role == Role::Ovs);
        if is_in_ovs && self.path.blind().next().is_some() {
            for (_, frame) in self.frames.iter().enumerate().filter(|(number, _)| is_open(*number)) {
                if frames.iter().all(|known| known.kind != frame.kind) {
                    frames.push(frame);
                }
            }
        }
        frames
    }

    /// Adds frames to the rounds from now on.
    pub fn add(&mut self, frames: impl Iterator<Item = Frame>) {
        self.frames.extend(frames);
        self.verdicts.resize(self.frames.len(), None);
        self.left.resize(self.frames.len(), 0);
        self.seen.iter_mut().for_each(|seen| seen.resize(self.frames.len(), None));
    }

    /// Begins a round of all frames.
    pub fn begin(&mut self) {
        self.seen.iter_mut().flatten().for_each(|at| *at = None);
    }

    /// Begins a round of some of the frames; the others keep the sightings of their last round.
    pub fn begin_some(&mut self, round: &[Frame]) {
        for (number, _) in self.frames.iter().enumerate().filter(|(_, frame)| round.contains(frame)) {
            self.seen.iter_mut().for_each(|seen| seen[number] = None);
        }
    }

    /// Records a sighting.
    pub fn saw(&mut self, sighting: &Sighting) {
        let hops = self.path.hops().iter().enumerate();
        let at = hops.filter(|(_, hop)| hop.ifindex == Some(sighting.ifindex)).map(|(at, _)| at);
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
            let is_there = hop.ifindex == Some(sighting.ifindex);
            is_there && self.path.outward(hop) != Some(sighting.direction) && self.is_reply(*at, sighting)
        })?;
        hop.edge()
    }

    fn passed(&mut self, at: usize, sighting: &Sighting) {
        // IEEE 802.1Q reserves VLAN 4095, so no switch forwards such a frame: neutron's dead VLAN ends at the edge, too.
        if sighting.vlan == Some(DEAD_VLAN) && self.path.hops()[at].role.is_edge() {
            return;
        }
        let same = |frame: &Frame| {
            let length = sighting.frame.len().min(frame.bytes.len());
            length > ETHERNET_HEADER && frame.bytes[..length] == sighting.frame[..length]
        };
        let Some(which) = self.frames.iter().position(same) else {
            return;
        };
        self.vlans[at] = sighting.vlan;
        let hop = &self.path.hops()[at];
        let is_departure = self.path.proves(hop);
        if is_departure && !hop.tag.fits(sighting.vlan) {
            let departure = departure(hop, sighting);
            return note(&mut self.astray, departure, sighting.at);
        }
        let had_left = self.has_left(which);
        let is_tunnel = hop.edge() == Some(Edge::Tunnel);
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

    fn is_reply(&self, at: usize, sighting: &Sighting) -> bool {
        // In another VLAN, a different guest may have the same MAC. VLAN 0 carries only a priority.
        let vlan = |tag: Option<u16>| tag.filter(|tag| *tag != 0);
        let is_answer =
            |left: &Departed| left.at <= sighting.at && vlan(left.departure.vlan) == vlan(sighting.vlan);
        let hop = &self.path.hops()[at];
        let has_left = match hop.edge() {
            Some(Edge::Tunnel) => self.wrapped.is_some_and(|at| at <= sighting.at),
            _ => self.path.proves(hop) && self.departures.iter().any(is_answer),
        };
        has_left && sighting.frame.get(..6) == Some(&self.mac.octets())
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
            _ if others.iter().any(|frame| self.unseen_way(*frame).is_some()) => RoundFate::Unseen,
            (false, _) => RoundFate::Partly,
            (true, _) => RoundFate::Lost,
        }
    }

    /// Whether bridges hold a frame back by design, and its content reaches the network by other means.
    fn is_kept_by_design(&self, number: usize) -> bool {
        let holds = self.path.way().holds(self.frames[number].kind.cast());
        !holds.is_empty() && holds.iter().all(|hold| hold.setting.is_by_design())
    }

    /// The frames that bridges hold back by design, with the settings, as text.
    pub fn kept_by_design(&self) -> Option<String> {
        let is_kept = |number| self.left[number] == 0 && self.is_kept_by_design(number);
        let kept = (0..self.frames.len()).find(|number| is_kept(*number))?;
        let holds = self.path.way().holds(self.frames[kept].kind.cast());
        let holds: Vec<String> = holds.iter().map(ToString::to_string).collect();
        Some(format!("{}: {}", names(&self.frames, is_kept).join(", "), holds.join("; ")))
    }

    /// Why a frame that was not seen to leave may have left.
    fn unseen_way(&self, number: usize) -> Option<String> {
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
        if let Some(at) = self.path.blind().find(is_bound) {
            return Some(self.path.blindness(at));
        }
        let edges = self.path.way().hops.iter().zip(&self.seen).filter(|(hop, _)| hop.role.is_edge());
        let is_seen = edges.clone().any(|(_, seen)| seen[number].is_some());
        (self.path.reach() == Reach::Several && is_seen).then(|| {
            let names: Vec<&str> = edges.take(MAX_NAMES).map(|(hop, _)| hop.name.as_str()).collect();
            format!("none of {} is known to lead to the network (see [path] uplinks)", names.join(", "))
        })
    }

    /// Whether a frame with this verdict is on its way to the edge at this index.
    fn is_bound(&self, at: usize, verdict: &Verdict) -> bool {
        let edge = &self.path.hops()[at];
        let way: Vec<&Hop> = self.path.back_from(at).collect();
        let mut onward = way.iter().rev().skip_while(|hop| hop.role != Role::Ovs);
        // The first device behind Open vSwitch is the port of its datapath.
        let port = onward.find(|hop| hop.role != Role::Ovs).map(|hop| hop.name.as_str());
        let is_tunnel = edge.edge() == Some(Edge::Tunnel);
        verdict.outputs.iter().any(|output| match output.is_wrapped {
            true => is_tunnel,
            false => port == Some(output.port.as_str()),
        })
    }

    /// Why departures cannot be seen, if they cannot, and not all frames were seen to leave.
    pub fn unseen(&self) -> Option<String> {
        let never = (0..self.frames.len()).filter(|number| self.left[*number] == 0);
        never.into_iter().find_map(|number| self.unseen_way(number))
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

    /// The frames that never left, with their numbers, if departures can be seen.
    pub fn held(&self) -> impl Iterator<Item = (usize, &Frame)> {
        let held = self.frames.iter().enumerate().filter(|(number, _)| self.left[*number] == 0);
        held.filter(|(number, _)| self.unseen_way(*number).is_none() && !self.is_kept_by_design(*number))
    }

    /// Whether this frame was seen to end before it reached Open vSwitch.
    pub fn is_held_before_ovs(&self, number: usize) -> bool {
        let is_ovs = |hop: &Hop| hop.role == Role::Ovs;
        let onward = &self.path.hops()[self.holder(self.reached(number))..];
        !self.path.is_exits_only() && onward.iter().any(is_ovs) && !onward.first().is_some_and(is_ovs)
    }

    /// The frames that never left, if departures can be seen, grouped by the hop that they reached and the reason. `why` has
    /// the reasons by frame number.
    pub fn stuck(&self, why: &[Option<String>]) -> Vec<Stuck> {
        self.stuck_of(why, |_| true)
    }

    /// The same for frames whose number `is_one`.
    pub fn stuck_of(&self, why: &[Option<String>], is_one: impl Fn(&usize) -> bool) -> Vec<Stuck> {
        let mut places: Vec<(Option<usize>, Option<&String>, Vec<usize>)> = Vec::new();
        for (number, _) in self.held().filter(|(number, _)| is_one(number)) {
            let (reached, why) = (self.reached(number), why.get(number).and_then(Option::as_ref));
            match places.iter_mut().find(|place| (place.0, place.1) == (reached, why)) {
                Some((_, _, frames)) => frames.push(number),
                None => places.push((reached, why, vec![number])),
            }
        }
        let stuck = places.into_iter().map(|(reached, why, frames)| {
            let all = frames.len() == self.frames.len();
            Stuck {
                frames: if all { Vec::new() } else { names(&self.frames, |number| frames.contains(&number)) },
                reached: reached.map(|at| self.path.hops()[at].name.clone()),
                held_by: self.held_by(reached),
                why: why.cloned(),
            }
        });
        stuck.collect()
    }

    /// The last hop at which a frame was seen.
    fn reached(&self, number: usize) -> Option<usize> {
        self.seen.iter().rposition(|seen| seen[number].is_some())
    }

    fn held_by(&self, reached: Option<usize>) -> String {
        if self.path.is_exits_only() {
            return "the host".into();
        }
        let onward = &self.path.hops()[self.holder(reached)..];
        let bridges = onward.iter().take_while(|hop| hop.is_ovs_bridge());
        match bridges.map(|hop| hop.name.as_str()).collect::<Vec<_>>()[..] {
            [] => onward.first().map_or(String::new(), |hop| hop.name.clone()),
            [bridge] => bridge.to_owned(),
            ref bridges => format!("Open vSwitch ({})", bridges.join(" → ")),
        }
    }

    /// The hop that a frame did not leave, given the hop at which it was last seen.
    fn holder(&self, reached: Option<usize>) -> usize {
        let hops = self.path.hops();
        let holds = |hop: &Hop| matches!(hop.role, Role::LinuxBridge | Role::Ovs | Role::Upper);
        match reached {
            None if hops.first().is_some_and(|hop| self.path.outward(hop).is_some()) => 0,
            // A bridge that shows a frame holds it; any other device has passed it on.
            _ => {
                let from = reached.unwrap_or_default();
                (from..hops.len()).find(|at| holds(&hops[*at])).unwrap_or(hops.len().saturating_sub(1))
            }
        }
    }
}

/// The departure of a frame that was seen at an edge.
fn departure(hop: &Hop, sighting: &Sighting) -> Departure {
    let (bridge, port) = hop.via.clone().map(|Via { bridge, port }| (bridge, port)).unzip();
    Departure { device: hop.name.clone(), bridge, port, vlan: sighting.vlan, edge: hop.edge() }
}

/// Counts a departure.
fn note(departures: &mut Vec<Departed>, departure: Departure, at: Duration) {
    let known = departures.iter().position(|known| known.departure == departure);
    match known {
        Some(known) => departures[known].frames += 1,
        None if departures.len() < MAX_DEPARTURES => departures.push(Departed { departure, at, frames: 1 }),
        None => {}
    }
}

/// Some frames of a round as text: their kinds, with the address unless all of a kind are included.
pub(crate) fn names(round: &[Frame], is_one: impl Fn(usize) -> bool) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for (_, frame) in round.iter().enumerate().filter(|(number, _)| is_one(*number)) {
        let all = round.iter().enumerate().all(|(number, other)| other.kind != frame.kind || is_one(number));
        let name = if all { frame.kind.to_string() } else { name(frame) };
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// `arp-request 192.0.2.10`, or `ask 192.0.2.1 from 192.0.2.10`.
pub(crate) fn name(frame: &Frame) -> String {
    match (frame.asked, frame.ip) {
        (Some(asked), Some(from)) => format!("{} {asked} from {from}", frame.kind),
        (_, Some(ip)) => format!("{} {ip}", frame.kind),
        (_, None) => frame.kind.to_string(),
    }
}

impl fmt::Display for Departure {
    /// `left br-int by bond0 (eth1) in VLAN 100`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.bridge, &self.port) {
            (Some(bridge), Some(port)) if *port != self.device => {
                write!(f, "left {bridge} by {port} ({})", self.device)?;
            }
            (Some(bridge), _) => write!(f, "left {bridge} by {}", self.device)?,
            (None, _) => write!(f, "left by {}", self.device)?,
        }
        if let Some(vlan) = self.vlan {
            write!(f, " in VLAN {vlan}")?;
        }
        match self.edge.and_then(Edge::remark) {
            Some(remark) => write!(f, ", {remark}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Stuck {
    /// `rarp reached qvo6f7d3c1a-11, did not leave br-int: a flow drops it`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.frames.join(", "), if self.frames.is_empty() { "" } else { " " })?;
        if let Some(reached) = self.reached.as_ref().filter(|reached| **reached != self.held_by) {
            write!(f, "reached {reached}, ")?;
        }
        write!(f, "did not leave {}", self.held_by)?;
        self.why.as_ref().map_or(Ok(()), |why| write!(f, ": {why}"))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::announcement::frame::{Style, round};
    use crate::announcement::injection::Method;
    use crate::path::attachment::tests::{find, link, ovs};
    use crate::path::link::Links;
    use crate::path::ovs::Ovs;

    const GUEST: MacAddr = MacAddr(0xfa, 0x16, 0x3e, 0, 0, 0x11);
    /// An ARP request, an ARP reply and a RARP, by their places in the round.
    const ALL: [usize; 3] = [0, 1, 2];
    const ARP: [usize; 2] = [0, 1];

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    fn nothing_seen(links: Vec<crate::path::link::Link>, ovs: &Ovs, method: Method) -> Delivery {
        let attachment = find("tap0", &Links::from_iter(links), ovs).unwrap();
        let frames = round(GUEST, &["192.0.2.1".parse().unwrap()], &Style::default());
        Delivery::new(GUEST, &frames, CapturePath::of(&attachment, method))
    }

    /// tap0 → br-int → eth0, injected at br-int.
    pub(crate) fn on_br_int() -> Delivery {
        let links = vec![link(2, "tap0", "tun", 0, 0), link(4, "eth0", "", 0, 0)];
        nothing_seen(links, &ovs(&[("br-int", &["tap0", "eth0"])]), Method::PacketOut)
    }

    fn hybrid() -> Delivery {
        let links = vec![
            link(1, "qbr0", "bridge", 0, 0),
            link(2, "tap0", "tun", 1, 0),
            link(3, "qvb0", "veth", 1, 4),
            link(4, "qvo0", "veth", 0, 3),
            link(5, "eth0", "", 0, 0),
        ];
        nothing_seen(links, &ovs(&[("br-int", &["qvo0", "eth0"])]), Method::Redirect)
    }

    /// tap0 → br-int → br-ex → eth0.
    fn provider() -> Delivery {
        let links = vec![link(2, "tap0", "tun", 0, 0), link(4, "eth0", "", 0, 0)];
        let bridges: [(&str, &[&str]); 2] = [
            ("br-int", &["tap0", "int-br-ex:patch:phy-br-ex"]),
            ("br-ex", &["phy-br-ex:patch:int-br-ex", "eth0"]),
        ];
        nothing_seen(links, &ovs(&bridges), Method::PacketOut)
    }

    /// tap0 → br-int → bond0, a bond of Open vSwitch → eth0, eth1.
    fn ovs_bond() -> Delivery {
        let links = vec![link(2, "tap0", "tun", 0, 0), link(5, "eth0", "", 0, 0), link(6, "eth1", "", 0, 0)];
        let mut ovs = ovs(&[("br-int", &["tap0", "bond0", "eth0", "eth1"])]);
        ovs.bridges.values_mut().for_each(|bridge| bridge.ports.truncate(2));
        ovs.ports.get_mut("p-bond0").unwrap().interfaces = vec!["i-eth0".into(), "i-eth1".into()];
        nothing_seen(links, &ovs, Method::PacketOut)
    }

    /// tap0 → br0 → bond0.100 → bond0 → eth0, eth1.
    fn linux_bond() -> Delivery {
        let links = vec![
            link(1, "br0", "bridge", 0, 0),
            link(2, "tap0", "tun", 1, 0),
            link(3, "bond0.100", "vlan", 1, 4),
            link(4, "bond0", "bond", 0, 0),
            link(5, "eth0", "", 4, 0),
            link(6, "eth1", "", 4, 0),
        ];
        nothing_seen(links, &Ovs::default(), Method::Redirect)
    }

    fn dpdk() -> Delivery {
        let links = vec![link(2, "tap0", "tun", 0, 0)];
        nothing_seen(links, &ovs(&[("br-int", &["tap0", "dpdk0:dpdk"])]), Method::PacketOut)
    }

    /// These frames of a round pass a hop, outward, in a VLAN.
    pub(crate) fn pass(proof: &mut Delivery, hop: &str, frames: &[usize], at: Duration, vlan: Option<u16>) {
        let hop = proof.path.hops().iter().find(|known| known.name == hop).unwrap();
        let (ifindex, direction) = (hop.ifindex.unwrap(), proof.path.outward(hop).unwrap());
        for frame in frames {
            let bytes = proof.frames[*frame].bytes.clone();
            proof.saw(&Sighting::new(ifindex, direction, at, vlan, &bytes));
        }
    }

    /// Another frame for the guest passes that device.
    pub(crate) fn pass_for_guest(proof: &mut Delivery, ifindex: u32, direction: Direction, at: Duration) {
        let mut frame = [0; 60];
        frame[..6].copy_from_slice(&GUEST.octets());
        proof.saw(&Sighting::new(ifindex, direction, at, Some(100), &frame));
    }

    fn departed(proof: &Delivery) -> String {
        proof.departure().map(|left| left.departure.to_string()).unwrap_or_default()
    }

    fn stuck(proof: &Delivery) -> Vec<String> {
        proof.stuck(&[]).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_tag_is_taken_from_the_kernel_or_from_the_frame() {
        let frame = hybrid().frames[0].bytes.clone();
        let tagged = |tag: &[u8]| [&frame[..12], tag, &frame[12..]].concat();
        for (told, bytes, vlan) in [
            (None, frame.clone(), None),
            (Some(100), frame.clone(), Some(100)),
            (None, tagged(&[0x81, 0, 0, 100]), Some(100)),
            (None, tagged(&[0x88, 0xa8, 0xe0, 101]), Some(101)),
            (None, tagged(&[0x81, 0, 0xe0, 0]), Some(0)),
        ] {
            let sighting = Sighting::new(1, Direction::In, ms(0), told, &bytes);
            assert_eq!((sighting.vlan, &sighting.frame), (vlan, &frame), "{told:?} {bytes:02x?}");
        }
        // The outermost tag counts, whether the kernel or the test removed it.
        let inner = [0x81, 0, 0, 7];
        let double = tagged(&[&[0x88, 0xa8, 0, 100][..], &inner].concat());
        for (told, bytes) in [(Some(100), tagged(&inner)), (None, double.clone())] {
            let sighting = Sighting::new(1, Direction::In, ms(0), told, &bytes);
            assert_eq!((sighting.vlan, &sighting.frame), (Some(100), &frame));
        }
        let triple = tagged(&[inner; 3].concat());
        assert_ne!(Sighting::new(1, Direction::In, ms(0), None, &triple).frame, frame);
        for length in 0..24 {
            let runt = &double[..length];
            Sighting::new(1, Direction::In, ms(0), None, runt);
        }
    }

    #[test]
    fn only_our_outgoing_frames_count() {
        let mut proof = on_br_int();
        proof.begin();
        let [ours, another] = [0, 1].map(|frame| proof.frames[frame].bytes.clone());
        let saw = |proof: &mut Delivery, ifindex, direction, frame: &[u8]| {
            proof.saw(&Sighting::new(ifindex, direction, ms(1), None, frame));
        };
        saw(&mut proof, 4, Direction::In, &ours);
        saw(&mut proof, 9, Direction::Out, &ours);
        saw(&mut proof, 4, Direction::Out, &ours[..14]);
        saw(&mut proof, 4, Direction::Out, &[&ours[..40], &[1]].concat());
        assert_eq!((proof.fate(), proof.departure()), (RoundFate::Lost, None));
        // A captured frame may be truncated or padded.
        saw(&mut proof, 4, Direction::Out, &ours[..42]);
        saw(&mut proof, 4, Direction::Out, &[&another[..], &[0; 4]].concat());
        assert_eq!(proof.fate(), RoundFate::Partly);
    }

    #[test]
    fn the_fate_of_a_round_is_that_of_its_frames() {
        for (left, fate) in [
            (&[][..], RoundFate::Lost),
            (&[2], RoundFate::Partly),
            (&ARP, RoundFate::Partly),
            (&ALL, RoundFate::Left),
        ] {
            let mut proof = on_br_int();
            proof.begin();
            pass(&mut proof, "eth0", left, ms(1), Some(100));
            assert_eq!(proof.fate(), fate, "{left:?}");
            // Only the last round counts.
            proof.begin();
            assert_eq!(proof.fate(), RoundFate::Lost);
        }
        let mut unseen = dpdk();
        unseen.begin();
        assert_eq!(
            (unseen.fate(), unseen.left().is_none(), stuck(&unseen)),
            (RoundFate::Unseen, true, vec![])
        );
    }

    /// In the kernel datapath all tunnels share one device.
    #[test]
    fn a_frame_that_enters_a_tunnel_is_not_known_to_have_left() {
        let links = vec![link(2, "tap0", "tun", 0, 0), link(4, "vxlan_sys_4789", "vxlan", 0, 0)];
        let ovs = ovs(&[("br-int", &["tap0", "vxlan-1:vxlan", "vxlan-2:vxlan"])]);
        let mut proof = nothing_seen(links, &ovs, Method::PacketOut);
        proof.begin();
        assert_eq!((proof.fate(), stuck(&proof)), (RoundFate::Unseen, vec![]));
        let mut answer = [0; 60];
        answer[..6].copy_from_slice(&GUEST.octets());
        proof.saw(&Sighting::new(4, Direction::In, ms(1), None, &answer));
        assert_eq!(proof.returned(), None);
        for _remote in 1..=2 {
            pass(&mut proof, "vxlan_sys_4789", &ALL, ms(1), None);
        }
        assert_eq!((proof.fate(), departed(&proof).as_str()), (RoundFate::Unseen, ""));
        proof.saw(&Sighting::new(4, Direction::In, ms(2), None, &answer));
        assert_eq!(proof.returned(), Some(ms(2)));
    }

    /// A host whose other networks use tunnels.
    #[test]
    fn a_frame_seen_to_leave_has_left_whatever_other_edges_exist() {
        let links = vec![link(2, "tap0", "tun", 0, 0), link(4, "eth0", "", 0, 0)];
        let ovs = ovs(&[("br-int", &["tap0", "eth0", "vxlan-1:vxlan"])]);
        let mut proof = nothing_seen(links, &ovs, Method::PacketOut);
        proof.begin();
        pass(&mut proof, "eth0", &ARP, ms(1), Some(100));
        assert_eq!((proof.fate(), proof.left().is_none(), stuck(&proof)), (RoundFate::Unseen, true, vec![]));
        assert_eq!(
            proof.unseen().as_deref(),
            Some("vxlan-1 is a tunnel, and its outgoing frames are not captured")
        );
        pass(&mut proof, "eth0", &ALL, ms(1), Some(100));
        assert_eq!((proof.fate(), proof.unseen(), proof.left().unwrap().count()), (RoundFate::Left, None, 3));
    }

    fn verdict(outputs: &[(&str, bool)]) -> Verdict {
        let outputs = outputs.iter().map(|(port, is_wrapped)| crate::proof::ofproto_trace::Output {
            port: (*port).into(),
            vlan: None,
            is_wrapped: *is_wrapped,
        });
        Verdict {
            dropped: outputs.len() == 0,
            deciding: String::new(),
            ends: Vec::new(),
            outputs: outputs.collect(),
        }
    }

    /// A tunnel matters only for frames that Open vSwitch sends into it.
    #[test]
    fn a_verdict_decides_what_is_lost_on_a_host_with_tunnels() {
        let links = || vec![link(2, "tap0", "tun", 0, 0), link(4, "eth0", "", 0, 0)];
        let ovs = ovs(&[("br-int", &["tap0", "eth0", "vxlan-1:vxlan"])]);
        for (outputs, fate) in [
            (&[][..], RoundFate::Lost),
            (&[("eth0", false)], RoundFate::Lost),
            (&[("br-int", false)], RoundFate::Lost),
            (&[("tun0", true)], RoundFate::Unseen),
            (&[("eth0", false), ("tun0", true)], RoundFate::Unseen),
        ] {
            let mut proof = nothing_seen(links(), &ovs, Method::PacketOut);
            proof.begin();
            assert_eq!(proof.unjudged().len(), 3);
            for kind in Kind::ALL {
                proof.judged(kind, &verdict(outputs));
            }
            let again = if fate == RoundFate::Lost { 3 } else { 0 };
            assert_eq!((proof.unjudged().len(), proof.fate()), (again, fate), "{outputs:?}");
            proof.forget_verdicts();
            assert_eq!(proof.fate(), RoundFate::Unseen);
        }
    }

    #[test]
    fn a_verdict_is_of_one_kind_of_frame() {
        let links = vec![link(2, "tap0", "tun", 0, 0), link(4, "eth0", "", 0, 0)];
        let ovs = ovs(&[("br-int", &["tap0", "eth0", "vxlan-1:vxlan"])]);
        let mut proof = nothing_seen(links, &ovs, Method::PacketOut);
        proof.begin();
        proof.judged(Kind::Rarp, &verdict(&[]));
        pass(&mut proof, "eth0", &ARP, ms(1), Some(100));
        assert_eq!(
            (proof.fate(), stuck(&proof)),
            (RoundFate::Partly, vec!["rarp did not leave br-int".into()])
        );
    }

    /// Such as a container's veth, or a VM's in another namespace.
    #[test]
    fn of_several_ends_on_this_host_none_proves_a_departure() {
        let veths = |count: u32| {
            let veth = |n: u32| link(10 + n, &format!("veth{n}"), "veth", 1, 0);
            let rest = [link(1, "br0", "bridge", 0, 0), link(2, "tap0", "tun", 1, 0)];
            rest.into_iter().chain((0..count).map(veth)).collect::<Vec<_>>()
        };
        let mut proof = nothing_seen(veths(1), &Ovs::default(), Method::Redirect);
        proof.begin();
        pass(&mut proof, "veth0", &ALL, ms(1), None);
        assert_eq!(proof.fate(), RoundFate::Left);
        assert_eq!(departed(&proof), "left br0 by veth0, which leads into another network namespace");

        let mut proof = nothing_seen(veths(2), &Ovs::default(), Method::Redirect);
        proof.begin();
        assert_eq!(proof.fate(), RoundFate::Lost, "each would show it");
        pass(&mut proof, "veth0", &ALL, ms(1), None);
        assert_eq!((proof.fate(), departed(&proof).as_str()), (RoundFate::Unseen, ""));
        let why = "none of veth0, veth1 is known to lead to the network (see [path] uplinks)";
        assert_eq!(proof.unseen().as_deref(), Some(why));
    }

    #[test]
    fn in_another_vlan_than_its_own_a_frame_has_not_left() {
        let mut proof = linux_bond();
        proof.begin();
        pass(&mut proof, "eth0", &ALL, ms(1), None);
        assert_eq!((proof.fate(), proof.departure()), (RoundFate::Lost, None));
        assert_eq!(proof.astray()[0].departure.vlan, None);
        pass(&mut proof, "eth0", &ALL, ms(2), Some(100));
        assert_eq!((proof.fate(), proof.departures().len()), (RoundFate::Left, 1));
    }

    /// The settings of an EVPN host in FRR's documentation.
    #[test]
    fn neigh_suppress_keeps_frames_in_by_design() {
        let suppress = |mut link: crate::path::link::Link| {
            link.port.as_mut().unwrap().neigh_suppress = true;
            link
        };
        let mut proof = nothing_seen(
            vec![
                link(1, "br0", "bridge", 0, 0),
                link(2, "tap0", "tun", 1, 0),
                suppress(link(3, "eth0", "", 1, 0)),
            ],
            &Ovs::default(),
            Method::Redirect,
        );
        proof.begin();
        assert_eq!(proof.fate(), RoundFate::Lost, "RARP is not held back");
        pass(&mut proof, "eth0", &[2], ms(1), None);
        assert_eq!((proof.fate(), stuck(&proof)), (RoundFate::Left, vec![]));
        let words = proof.kept_by_design().unwrap();
        assert!(
            words.starts_with("arp-request, arp-reply: the port eth0 of br0 has neigh_suppress on"),
            "{words}"
        );
    }

    #[test]
    fn departures_are_counted_by_vlan() {
        let mut proof = on_br_int();
        for (at, vlan) in [(1, None), (50, Some(100)), (150, Some(100))] {
            proof.begin();
            pass(&mut proof, "eth0", &ALL, ms(at), vlan);
        }
        let told: Vec<_> =
            proof.departures().iter().map(|left| (left.departure.vlan, left.at, left.frames)).collect();
        assert_eq!(told, [(None, ms(1), 3), (Some(100), ms(50), 6)]);
    }

    #[test]
    fn the_first_departure_names_bridge_port_and_device() {
        for (mut proof, device, vlan, words) in [
            (on_br_int(), "eth0", Some(100), "left br-int by eth0 in VLAN 100"),
            (hybrid(), "eth0", Some(100), "left br-int by eth0 in VLAN 100"),
            (provider(), "eth0", Some(1100), "left br-ex by eth0 in VLAN 1100"),
            (ovs_bond(), "eth1", Some(100), "left br-int by bond0 (eth1) in VLAN 100"),
            (linux_bond(), "eth0", Some(100), "left br0 by bond0.100 (eth0) in VLAN 100"),
            (linux_bond(), "eth1", Some(100), "left br0 by bond0.100 (eth1) in VLAN 100"),
        ] {
            proof.begin();
            pass(&mut proof, device, &ALL, ms(2), vlan);
            proof.begin();
            pass(&mut proof, device, &ALL, ms(50), vlan);
            assert_eq!(departed(&proof), words);
            let Departed { at, departure, .. } = proof.departure().unwrap();
            assert_eq!((*at, departure.device.as_str()), (ms(2), device));
            assert_eq!((proof.fate(), proof.last_hop().unwrap().name.as_str()), (RoundFate::Left, device));
        }
    }

    /// Such as when both members of a bond flood.
    #[test]
    fn a_frame_leaves_once_in_a_round() {
        let mut proof = ovs_bond();
        for at in [1, 50] {
            proof.begin();
            pass(&mut proof, "eth0", &ALL, ms(at), None);
            pass(&mut proof, "eth1", &ALL, ms(at + 1), None);
        }
        let left: Vec<_> = proof.left().unwrap().collect();
        assert_eq!(left, [(Kind::ArpRequest, 2), (Kind::ArpReply, 2), (Kind::Rarp, 2)]);
    }

    #[test]
    fn stuck_frames_are_reported_with_the_place() {
        for (mut proof, reached, words) in [
            (on_br_int(), &[][..], "did not leave br-int"),
            (provider(), &[], "did not leave Open vSwitch (br-int → br-ex)"),
            (ovs_bond(), &[], "did not leave br-int"),
            (hybrid(), &[], "did not leave tap0"),
            (hybrid(), &["tap0"], "reached tap0, did not leave qbr0"),
            (hybrid(), &["tap0", "qbr0"], "did not leave qbr0"),
            (hybrid(), &["tap0", "qbr0", "qvb0"], "reached qvb0, did not leave br-int"),
            (hybrid(), &["tap0", "qbr0", "qvb0", "qvo0"], "reached qvo0, did not leave br-int"),
            (linux_bond(), &["tap0"], "reached tap0, did not leave br0"),
            (linux_bond(), &["tap0", "br0"], "did not leave br0"),
            (linux_bond(), &["tap0", "br0", "bond0.100"], "did not leave bond0.100"),
            (linux_bond(), &["tap0", "br0", "bond0.100", "bond0"], "did not leave bond0"),
        ] {
            proof.begin();
            reached.iter().for_each(|hop| pass(&mut proof, hop, &ALL, ms(1), None));
            assert_eq!(stuck(&proof), [words], "{reached:?}");
            let last = proof.last_hop().map(|hop| hop.name.as_str());
            let entry = proof.path.hops().first().filter(|hop| hop.role == Role::Ovs);
            assert_eq!(last, reached.last().copied().or(entry.map(|hop| hop.name.as_str())));
        }
    }

    #[test]
    fn a_frame_in_the_dead_vlan_has_not_left() {
        let mut proof = on_br_int();
        proof.begin();
        pass(&mut proof, "eth0", &ALL, ms(1), Some(4095));
        assert_eq!((proof.fate(), proof.departure()), (RoundFate::Lost, None));
    }

    #[test]
    fn captures_at_the_edges_alone_do_not_show_where_a_frame_ended() {
        let mut proof = hybrid();
        let whole = proof.path().clone();
        proof.follow(whole.clone().exits_only());
        proof.begin();
        pass(&mut proof, "eth0", &ARP, ms(2), Some(100));
        assert_eq!(
            (proof.fate(), stuck(&proof)),
            (RoundFate::Partly, vec!["rarp did not leave the host".to_owned()])
        );
        proof.follow(whole);
        proof.begin();
        pass(&mut proof, "qvo0", &ALL, ms(60), None);
        assert_eq!(stuck(&proof), ["rarp reached qvo0, did not leave br-int"]);
    }

    #[test]
    fn a_frame_that_a_round_omits_keeps_its_sightings_of_the_round_before() {
        let mut proof = hybrid();
        proof.begin();
        pass(&mut proof, "qvo0", &ALL, ms(1), None);
        let without_reply = [proof.frames[0].clone(), proof.frames[2].clone()];
        proof.begin_some(&without_reply);
        pass(&mut proof, "qvo0", &[0, 2], ms(50), None);
        assert_eq!(stuck(&proof), ["reached qvo0, did not leave br-int"]);
    }

    /// Neutron's firewall has this effect.
    #[test]
    fn arp_passes_and_rarp_does_not() {
        let mut proof = hybrid();
        proof.begin();
        ["tap0", "qbr0", "qvb0", "qvo0"].iter().for_each(|hop| pass(&mut proof, hop, &ALL, ms(1), None));
        pass(&mut proof, "eth0", &ARP, ms(2), Some(100));
        assert_eq!(proof.fate(), RoundFate::Partly);
        assert_eq!(stuck(&proof), ["rarp reached qvo0, did not leave br-int"]);
        assert_eq!(
            proof.held().map(|(number, frame)| (number, frame.kind)).collect::<Vec<_>>(),
            [(2, Kind::Rarp)]
        );
        assert_eq!(departed(&proof), "left br-int by eth0 in VLAN 100");
    }

    #[test]
    fn frames_that_ended_in_different_places_are_reported_apart() {
        let mut proof = hybrid();
        proof.begin();
        pass(&mut proof, "tap0", &ALL, ms(1), None);
        pass(&mut proof, "qvo0", &ARP, ms(1), None);
        assert_eq!(
            stuck(&proof),
            [
                "arp-request, arp-reply reached qvo0, did not leave br-int",
                "rarp reached tap0, did not leave qbr0"
            ]
        );
    }

    /// Such as when one of a guest's addresses is not allowed.
    #[test]
    fn frames_that_ended_for_different_reasons_are_reported_apart_with_their_addresses() {
        let ips = ["192.0.2.1", "192.0.2.2"].map(|ip| ip.parse().unwrap());
        let path = on_br_int().path;
        let mut proof = Delivery::new(GUEST, &round(GUEST, &ips, &Style::default()), path);
        proof.begin();
        let first = (0..proof.frames.len()).filter(|number| proof.frames[*number].ip == Some(ips[0]));
        let first: Vec<usize> = first.collect();
        pass(&mut proof, "eth0", &first, ms(1), None);
        let why =
            |frame: &Frame| Some(format!("no {}", if frame.kind == Kind::Rarp { "rarp" } else { "arp" }));
        let why: Vec<_> = proof.frames.iter().map(why).collect();
        let words: Vec<String> = proof.stuck(&why).iter().map(ToString::to_string).collect();
        assert_eq!(
            words,
            [
                "arp-request 192.0.2.2, arp-reply 192.0.2.2 did not leave br-int: no arp",
                "rarp did not leave br-int: no rarp"
            ]
        );
    }

    #[test]
    fn a_frame_that_did_not_reach_open_vswitch_is_recognized() {
        for (mut proof, reached, expected) in [
            (on_br_int(), &[][..], false),
            (linux_bond(), &[], false),
            (hybrid(), &[], true),
            (hybrid(), &["tap0", "qbr0"], true),
            (hybrid(), &["tap0", "qbr0", "qvb0"], false),
        ] {
            proof.begin();
            reached.iter().for_each(|hop| pass(&mut proof, hop, &ALL, ms(1), None));
            assert_eq!(proof.is_held_before_ovs(0), expected, "{reached:?}");
        }
    }

    #[test]
    fn a_frame_that_left_once_is_not_stuck() {
        let mut proof = on_br_int();
        proof.begin();
        pass(&mut proof, "eth0", &ALL, ms(1), None);
        proof.begin();
        assert_eq!((proof.fate(), stuck(&proof), proof.held().next()), (RoundFate::Lost, vec![], None));
    }

    #[test]
    fn a_reply_enters_by_the_uplink_after_the_departure() {
        let mut proof = linux_bond();
        let (br0, eth0, eth1) = (1, 5, 6);
        pass_for_guest(&mut proof, eth0, Direction::In, ms(1));
        assert_eq!(proof.returned(), None, "nothing has left");
        proof.begin();
        pass(&mut proof, "eth0", &ALL, ms(10), Some(100));
        for (ifindex, direction, at, why) in [
            (eth0, Direction::In, 9, "sent before"),
            (eth0, Direction::Out, 11, "on its way out"),
            (br0, Direction::In, 11, "from another guest"),
            (99, Direction::In, 11, "elsewhere"),
        ] {
            pass_for_guest(&mut proof, ifindex, direction, ms(at));
            assert_eq!(proof.returned(), None, "{why}");
        }
        let mut for_another = [0; 60];
        for_another[..6].copy_from_slice(&[0xfa, 0x16, 0x3e, 0, 0, 0x12]);
        proof.saw(&Sighting::new(eth1, Direction::In, ms(11), Some(100), &for_another));
        assert_eq!(proof.returned(), None, "for another guest");
        let mut in_another_vlan = for_another;
        in_another_vlan[..6].copy_from_slice(&GUEST.octets());
        proof.saw(&Sighting::new(eth1, Direction::In, ms(11), Some(7), &in_another_vlan));
        assert_eq!(proof.returned(), None, "for a guest in another VLAN that has the same MAC");

        pass_for_guest(&mut proof, eth1, Direction::In, ms(12));
        pass_for_guest(&mut proof, eth0, Direction::In, ms(13));
        assert_eq!(proof.returned(), Some(ms(12)));
    }

    #[test]
    fn a_new_path_keeps_what_was_proved() {
        let mut proof = on_br_int();
        proof.begin();
        pass(&mut proof, "eth0", &ARP, ms(1), Some(100));
        let other = provider();
        proof.follow(other.path().clone());

        assert_eq!(departed(&proof), "left br-int by eth0 in VLAN 100");
        assert_eq!(proof.fate(), RoundFate::Lost, "of the round on the new path");
        assert!(proof.hops().all(|(_, vlan, seen)| vlan.is_none() && seen.iter().all(Option::is_none)));
        assert_eq!(stuck(&proof), ["rarp did not leave Open vSwitch (br-int → br-ex)"]);
        pass(&mut proof, "eth0", &ALL, ms(2), Some(1100));
        assert_eq!(
            (proof.fate(), departed(&proof)),
            (RoundFate::Left, "left br-int by eth0 in VLAN 100".into())
        );
        let left: Vec<u64> = proof.left().unwrap().map(|(_, left)| left).collect();
        assert_eq!(left, [2, 2, 1]);
    }
}
