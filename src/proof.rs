//! What the frames that were seen prove: how far each round came, whether it left the host, and whether the network
//! answered.
//!
//! Time is a [`Duration`] since the event, as in [`crate::announcement`].

use std::fmt;
use std::time::Duration;

use pnet_base::MacAddr;

use crate::attachment::{Hop, Role, Via};
use crate::frame::{Frame, Kind};
use crate::trail::{Direction, Trail};

const ETHERNET_HEADER: usize = 14;
const VLAN_TAG: usize = 4;
/// The tags that a frame may carry in itself: 802.1Q, and 802.1ad.
const TAGGED: [[u8; 2]; 2] = [[0x81, 0x00], [0x88, 0xa8]];

/// A frame that was seen to pass a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sighting {
    /// The device.
    pub ifindex: u32,
    /// Which way it passed.
    pub direction: Direction,
    /// When.
    pub at: Duration,
    /// Its VLAN tag, whether the kernel told it or the frame carried it.
    pub vlan: Option<u16>,
    /// The frame without its tag; perhaps not to its end.
    pub frame: Vec<u8>,
}

impl Sighting {
    /// A sighting of `frame`, which may carry a tag; `vlan` is that which the kernel has taken out of it.
    pub fn new(
        ifindex: u32,
        direction: Direction,
        at: Duration,
        vlan: Option<u16>,
        frame: &[u8],
    ) -> Sighting {
        let (vlan, frame) = match (vlan, frame.get(12..14), frame.get(14..16)) {
            (None, Some(kind), Some(tag)) if TAGGED.iter().any(|tagged| tagged == kind) => {
                let tag = u16::from_be_bytes([tag[0], tag[1]]) & 0x0fff;
                (Some(tag), [&frame[..12], &frame[12 + VLAN_TAG..]].concat())
            }
            _ => (vlan, frame.to_vec()),
        };
        Sighting { ifindex, direction, at, vlan, frame }
    }
}

/// How a round fared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Every frame of it left the host.
    Left,
    /// Some did.
    Partly,
    /// None did.
    Lost,
    /// Nothing in the kernel shows it.
    Unseen,
}

/// The first departure from the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Departure {
    /// When.
    pub at: Duration,
    /// The last device.
    pub device: String,
    /// The bridge, and its port, that led there.
    pub via: Option<Via>,
    /// The VLAN tag on it.
    pub vlan: Option<u16>,
}

/// What came of a frame that never left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stuck {
    /// The kinds of frames.
    pub kinds: Vec<Kind>,
    /// The last device on which they showed.
    pub reached: Option<String>,
    /// What they did not leave: a bridge, several of Open vSwitch, or a device.
    pub held_by: String,
}

/// What the sightings of an announcement prove.
#[derive(Debug)]
pub struct Proof {
    trail: Trail,
    mac: MacAddr,
    frames: Vec<Frame>,
    /// When each frame of the last round was first seen at each hop: by hop, then by frame.
    seen: Vec<Vec<Option<Duration>>>,
    /// The tag that the last sighting at each hop showed.
    vlans: Vec<Option<u16>>,
    /// Whether each frame has left in any round, and how often.
    left: Vec<u64>,
    departure: Option<Departure>,
    returned: Option<Duration>,
}

impl Proof {
    /// Nothing was seen yet of rounds of `frames`, which take `trail`.
    pub fn new(mac: MacAddr, frames: &[Frame], trail: Trail) -> Proof {
        let hops = trail.hops().len();
        Proof {
            mac,
            frames: frames.to_vec(),
            seen: vec![vec![None; frames.len()]; hops],
            vlans: vec![None; hops],
            left: vec![0; frames.len()],
            departure: None,
            returned: None,
            trail,
        }
    }

    /// The trail that the frames take.
    pub fn trail(&self) -> &Trail {
        &self.trail
    }

    /// The frames take another trail from now on.
    pub fn follow(&mut self, trail: Trail) {
        let hops = trail.hops().len();
        self.seen = vec![vec![None; self.frames.len()]; hops];
        self.vlans = vec![None; hops];
        self.trail = trail;
    }

    /// A round begins.
    pub fn begin(&mut self) {
        self.seen.iter_mut().flatten().for_each(|at| *at = None);
    }

    /// Takes a sighting into account.
    pub fn saw(&mut self, sighting: &Sighting) {
        let hops = self.trail.hops().iter().enumerate();
        let at = hops.filter(|(_, hop)| hop.ifindex == Some(sighting.ifindex)).map(|(at, _)| at);
        for at in at.collect::<Vec<_>>() {
            if self.trail.outward(&self.trail.hops()[at]) == Some(sighting.direction) {
                self.passed(at, sighting);
            } else if self.is_reply(at, sighting) {
                self.returned.get_or_insert(sighting.at);
            }
        }
    }

    fn passed(&mut self, at: usize, sighting: &Sighting) {
        let same = |frame: &Frame| {
            let length = sighting.frame.len().min(frame.bytes.len());
            length > ETHERNET_HEADER && frame.bytes[..length] == sighting.frame[..length]
        };
        let Some(which) = self.frames.iter().position(same) else {
            return;
        };
        self.vlans[at] = sighting.vlan;
        let had_left = self.has_left(which);
        self.seen[at][which].get_or_insert(sighting.at);
        let hop = &self.trail.hops()[at];
        if hop.role == Role::Exit && !had_left {
            self.left[which] += 1;
            let (device, via) = (hop.name.clone(), hop.via.clone());
            let departure = Departure { at: sighting.at, device, via, vlan: sighting.vlan };
            self.departure.get_or_insert(departure);
        }
    }

    fn is_reply(&self, at: usize, sighting: &Sighting) -> bool {
        let after = self.departure.as_ref().is_some_and(|left| left.at <= sighting.at);
        let to_guest = sighting.frame.get(..6) == Some(&self.mac.octets());
        after && to_guest && self.trail.hops()[at].role == Role::Exit
    }

    fn has_left(&self, frame: usize) -> bool {
        let hops = self.trail.hops().iter().zip(&self.seen);
        hops.filter(|(hop, _)| hop.role == Role::Exit).any(|(_, seen)| seen[frame].is_some())
    }

    /// How the last round fared, by what was seen until now.
    pub fn fate(&self) -> Fate {
        if self.trail.unseen().is_some() {
            return Fate::Unseen;
        }
        match (0..self.frames.len()).filter(|frame| self.has_left(*frame)).count() {
            0 => Fate::Lost,
            left if left == self.frames.len() => Fate::Left,
            _ => Fate::Partly,
        }
    }

    /// The first departure from the host.
    pub fn departure(&self) -> Option<&Departure> {
        self.departure.as_ref()
    }

    /// When the first frame for the guest came in after that.
    pub fn returned(&self) -> Option<Duration> {
        self.returned
    }

    /// The frames that left the host, by kind; `None` where departures do not show.
    pub fn left(&self) -> Option<impl Iterator<Item = (Kind, u64)>> {
        let counts = self.frames.iter().zip(&self.left).map(|(frame, left)| (frame.kind, *left));
        self.trail.unseen().is_none().then_some(counts)
    }

    /// The last hop at which any frame of the last round showed; where they enter Open vSwitch unseen, its bridge.
    pub fn last_hop(&self) -> Option<&Hop> {
        let furthest = self.seen.iter().rposition(|seen| seen.iter().any(Option::is_some));
        let unseen_entry = self.trail.hops().first().filter(|hop| hop.role == Role::Ovs);
        furthest.map(|at| &self.trail.hops()[at]).or(unseen_entry)
    }

    /// For each hop, its name, the tag there, and when each frame of the last round passed it.
    pub fn hops(&self) -> impl Iterator<Item = (&Hop, Option<u16>, &[Option<Duration>])> {
        let hops = self.trail.hops().iter().zip(&self.vlans).zip(&self.seen);
        hops.map(|((hop, vlan), seen)| (hop, *vlan, seen.as_slice()))
    }

    /// The frames of a round.
    pub fn frames(&self) -> &[Frame] {
        &self.frames
    }

    /// The first of the frames that never left, where departures show.
    pub fn first_stuck(&self) -> Option<&Frame> {
        let mut frames = self.frames.iter().zip(&self.left).filter(|(_, left)| **left == 0);
        frames.next().filter(|_| self.trail.unseen().is_none()).map(|(frame, _)| frame)
    }

    /// The frames that never left, where departures show; those that came equally far together.
    pub fn stuck(&self) -> Vec<Stuck> {
        let mut all: Vec<Stuck> = Vec::new();
        if self.trail.unseen().is_some() {
            return all;
        }
        for (number, frame) in self.frames.iter().enumerate().filter(|(number, _)| self.left[*number] == 0) {
            let reached = self.seen.iter().rposition(|seen| seen[number].is_some());
            let (name, held_by) =
                (reached.map(|at| self.trail.hops()[at].name.clone()), self.held_by(reached));
            match all.iter_mut().find(|stuck| stuck.reached == name) {
                Some(stuck) if stuck.kinds.contains(&frame.kind) => {}
                Some(stuck) => stuck.kinds.push(frame.kind),
                None => all.push(Stuck { kinds: vec![frame.kind], reached: name, held_by }),
            }
        }
        all
    }

    fn held_by(&self, reached: Option<usize>) -> String {
        let hops = self.trail.hops();
        let holds = |hop: &&Hop| matches!(hop.role, Role::LinuxBridge | Role::Ovs | Role::Upper);
        if let (None, Some(first)) = (reached, hops.first())
            && self.trail.outward(first).is_some()
        {
            return first.name.clone();
        }
        // A bridge that shows them has them; any other device has passed them on.
        let from = reached.map_or(0, |at| if holds(&&hops[at]) { at } else { at + 1 });
        let unseen =
            hops[from.min(hops.len())..].iter().take_while(|hop| hop.role == Role::Ovs && hop.via.is_none());
        let unseen: Vec<&str> = unseen.map(|hop| hop.name.as_str()).collect();
        match unseen[..] {
            [] => hops[from.min(hops.len())..]
                .iter()
                .find(holds)
                .or(hops.last())
                .map_or(String::new(), |hop| hop.name.clone()),
            [bridge] => bridge.to_owned(),
            _ => format!("Open vSwitch ({})", unseen.join(" → ")),
        }
    }
}

impl fmt::Display for Departure {
    /// `left br-int by bond0 (eth1) in VLAN 100`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.via {
            Some(Via { bridge, port }) if *port != self.device => {
                write!(f, "left {bridge} by {port} ({})", self.device)?;
            }
            Some(Via { bridge, .. }) => write!(f, "left {bridge} by {}", self.device)?,
            None => write!(f, "left by {}", self.device)?,
        }
        match self.vlan {
            Some(vlan) => write!(f, " in VLAN {vlan}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Stuck {
    /// `rarp reached qvo6f7d3c1a-11, did not leave br-int`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds: Vec<&str> = self.kinds.iter().map(|kind| kind.word()).collect();
        f.write_str(&kinds.join(", "))?;
        if let Some(reached) = self.reached.as_ref().filter(|reached| **reached != self.held_by) {
            write!(f, " reached {reached},")?;
        }
        write!(f, " did not leave {}", self.held_by)
    }
}
