//! The proof in a report: the hops that frames reached, whether they left, and where the bridge has learned the guest.

use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::announcement::frame::{self, Frame, Kind};
use crate::announcement::query::Protocol;
use crate::proof::answer::{AnsweredBy, Asked, Inquiry};
use crate::proof::delivery::Delivery;
use crate::proof::delivery::stuck::Stuck;
use crate::proof::departure::{Departed, Departure};
use crate::proof::foreign::Foreign;
use crate::proof::membership::Membership;
use crate::report::guest_announcement::GuestAnnouncement;
use crate::report::inquiry::{self, Answer, Inquired};
use crate::report::kind_fate::KindFate;
use crate::report::multicast::Multicast;

/// The subject of a line about all questions.
const ALL_QUESTIONS: &str = "the questions ";

/// The keys of a report that depend on captured frames.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Evidence {
    /// From the event to the first frame's departure from the host.
    pub left_host_after_ms: Option<f64>,
    /// The way by which it left.
    pub departure: Option<Departure>,
    /// The ways by which frames left, by device and VLAN, in the order of their first use.
    pub departures: Vec<Departures>,
    /// Frames seen at an edge in the wrong VLAN.
    pub astray: Vec<Departures>,
    /// Frames from the guest's MAC that are no copies of ours, by the way they entered.
    pub seen_elsewhere: Vec<Departures>,
    /// The last hop at which a frame of the last round was seen.
    pub last_hop: Option<String>,
    /// Frames that left the host; `None` if that cannot be seen.
    pub frames_left: Option<Tally>,
    /// Rounds of which no frame left the host, and first ones that were sent again since only the RARP left.
    pub lost_rounds: u32,
    /// The frames that never left, the hop that they reached, and the reason.
    pub stuck: Vec<String>,
    /// Announced addresses of which no frame left the host.
    pub not_left: Vec<IpAddr>,
    /// The frames that bridges hold back by design, and the settings that do.
    pub by_design: Option<String>,
    /// What became of each kind of frame.
    pub kinds: Vec<KindFate>,
    /// Why departures from the host cannot be seen.
    pub unseen: Option<String>,
    /// From the event to the first frame for the guest that entered after that and answers no question.
    pub returned_after_ms: Option<f64>,
    /// From the event to the last such frame that was captured.
    pub last_returned_after_ms: Option<f64>,
    /// Such frames entered for a while and have ceased, and no question is answered any more.
    pub ceased: bool,
    /// From the event to the first answer to a question.
    pub answered_after_ms: Option<f64>,
    /// The origin of that answer, if known.
    pub answered_by: Option<AnsweredBy>,
    /// The address that gave it.
    pub answered_from: Option<IpAddr>,
    /// The gateways that were asked.
    pub gateways: Vec<Inquired>,
    /// The questions that never left and were not answered, the hop that they reached, and the reason.
    pub stuck_questions: Vec<String>,
    /// The membership queries, and the guest's reports; null without queries.
    pub multicast: Option<Multicast>,
    /// What was asked of the guest itself; null if nothing was.
    pub guest_announcement: Option<GuestAnnouncement>,
    /// From the event to when the bridge's FDB was seen to have the guest's MAC behind the guest's port.
    pub learned_after_ms: Option<f64>,
    /// The port behind which the bridge's FDB had the guest's MAC at the last check.
    pub learned_on: Option<String>,
    /// The fault of that entry.
    pub stale: Option<String>,
}

/// The frames that left by one device in one VLAN.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Departures {
    /// The way.
    #[serde(flatten)]
    pub departure: Departure,
    /// From the event to the first one's departure.
    pub after_ms: f64,
    /// Their number.
    pub frames: u64,
}

impl From<&Departed> for Departures {
    fn from(departed: &Departed) -> Departures {
        let Departed { departure, at, frames } = departed;
        Departures { departure: departure.clone(), after_ms: millis(*at), frames: *frames }
    }
}

/// Frames by kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Tally {
    rarp: u64,
    arp_request: u64,
    arp_reply: u64,
    na: u64,
    ask: u64,
    solicit: u64,
}

impl Tally {
    /// The counts, by kind.
    pub fn by_kind(&self) -> impl Iterator<Item = (frame::Kind, u64)> + use<> {
        let counts = [self.arp_request, self.arp_reply, self.na, self.rarp, self.ask, self.solicit];
        frame::Kind::ALL.into_iter().zip(counts)
    }

    /// Counts a frame.
    pub fn add(&mut self, kind: frame::Kind) {
        *self.of(kind) += 1;
    }

    fn of(&mut self, kind: frame::Kind) -> &mut u64 {
        match kind {
            frame::Kind::Rarp => &mut self.rarp,
            frame::Kind::ArpRequest => &mut self.arp_request,
            frame::Kind::ArpReply => &mut self.arp_reply,
            frame::Kind::Na => &mut self.na,
            frame::Kind::Ask => &mut self.ask,
            frame::Kind::Solicit => &mut self.solicit,
        }
    }
}

impl FromIterator<(frame::Kind, u64)> for Tally {
    fn from_iter<I: IntoIterator<Item = (frame::Kind, u64)>>(counts: I) -> Self {
        let mut tally = Tally::default();
        for (kind, count) in counts {
            *tally.of(kind) += count;
        }
        tally
    }
}

/// The FDB entry of the guest on the deciding bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Learned {
    /// Behind the guest's own port.
    Here(String),
    /// Behind another port: frames for the guest from this host go to the wrong port.
    Elsewhere(String),
    /// None: frames for the guest are flooded.
    Nowhere,
}

impl Evidence {
    /// The evidence of `proof`; `why` has the reasons for stuck frames by frame number. `blind` is why nothing can be captured.
    pub fn of(proof: &Delivery, blind: Option<String>, why: &[Option<String>]) -> Evidence {
        let departure = proof.departure();
        // Without captures, no frame can be called stuck.
        let stuck = if blind.is_none() { proof.stuck(why) } else { Vec::new() };
        let not_left = if blind.is_none() { not_left(proof) } else { Vec::new() };
        let kinds = KindFate::all(proof, blind.as_deref(), why);
        let unseen = blind.or_else(|| proof.unseen());
        Evidence {
            left_host_after_ms: departure.map(|left| millis(left.at)),
            departure: departure.map(|left| left.departure.clone()),
            departures: proof.departures().iter().map(Departures::from).collect(),
            astray: proof.astray().iter().map(Departures::from).collect(),
            last_hop: proof.last_hop().map(|hop| hop.name.clone()),
            frames_left: proof.left().filter(|_| unseen.is_none()).map(Tally::from_iter),
            stuck: stuck.iter().map(ToString::to_string).collect(),
            not_left,
            by_design: proof.kept_by_design(),
            kinds,
            unseen,
            returned_after_ms: proof.returned().map(millis),
            last_returned_after_ms: proof.all_returned().last.map(millis),
            ..Evidence::default()
        }
    }

    /// Adds the frames of other hosts.
    pub fn with_foreign(self, foreign: &Foreign) -> Evidence {
        let seen_elsewhere = foreign.seen().iter().map(Departures::from).collect();
        Evidence { seen_elsewhere, ..self }
    }

    /// That other hosts have sent frames from the guest's MAC, one line for each way they entered.
    pub fn lines_of_foreign(&self) -> impl Iterator<Item = String> {
        self.seen_elsewhere.iter().map(|Departures { departure, after_ms, frames }| {
            let vlan = departure.vlan.map(|vlan| format!(" in VLAN {vlan}")).unwrap_or_default();
            let device = &departure.device;
            format!(
                "frames from its MAC have come in by {device}{vlan}, {frames} since {after_ms} ms: another host sends them, \
                 or the network returns them"
            )
        })
    }

    /// An address was not announced, or no frame left at all. A RARP alone is not missed if other frames announce the MAC:
    /// OVN's port security drops every RARP.
    pub fn is_lacking(&self) -> bool {
        let may_have_left = self.departure.is_some() || self.unseen.is_some();
        !self.not_left.is_empty() || (!may_have_left && !self.stuck.is_empty())
    }

    /// Adds the questions, as they stand at `now`; `why` has the reasons for stuck questions by frame number.
    pub fn with_inquiry(
        mut self,
        inquiry: &Inquiry,
        proof: &Delivery,
        blind: Option<&str>,
        why: &[Option<String>],
        now: Duration,
    ) -> Evidence {
        self.gateways = inquiry.asked().iter().map(inquired).collect();
        let answered = self.gateways.iter().filter_map(|asked| Some((asked.gateway, asked.answer?)));
        let first = answered.min_by(|(_, a), (_, b)| a.after_ms.total_cmp(&b.after_ms));
        if let Some((gateway, Answer { after_ms, by })) = first {
            (self.answered_after_ms, self.answered_by, self.answered_from) =
                (Some(after_ms), by, Some(gateway));
        }
        self.kinds.extend(KindFate::all(&inquiry.passage, blind, why));
        self.ceased = proof.all_returned().has_ceased(now) && inquiry.is_unanswered();
        if self.unseen.is_none() {
            let open = |number: &usize| inquiry.is_open(*number);
            let words = |stuck: &Stuck| match stuck.frames.is_empty() {
                true => format!("{ALL_QUESTIONS}{stuck}"),
                false => stuck.to_string(),
            };
            self.stuck_questions = inquiry.passage.stuck_of(why, open).iter().map(words).collect();
            let left = self.frames_left.iter().flat_map(Tally::by_kind);
            self.frames_left = inquiry.passage.left().map(|questions| left.chain(questions).collect());
        }
        self
    }

    /// The lines about stuck questions, without those that the announcements have, too.
    pub fn lines_of_questions(&self) -> impl Iterator<Item = &String> {
        let is_known = |line: &str| {
            self.stuck.iter().any(|known| known == line.strip_prefix(ALL_QUESTIONS).unwrap_or(line))
        };
        self.stuck_questions.iter().filter(move |line| !is_known(line))
    }

    /// The gateways that certainly are gateways and have not answered.
    pub fn silent(&self) -> Vec<IpAddr> {
        inquiry::silent(&self.gateways)
    }

    /// Adds the guest's membership reports; `held` names those that did not leave.
    pub(crate) fn with_membership(self, membership: &Membership, held: Vec<String>) -> Evidence {
        let left = |wanted| {
            let mut first = membership.first().filter(|(protocol, _)| *protocol == wanted);
            first.find_map(|(_, first)| first.left).map(millis)
        };
        let multicast = Multicast {
            queried_after_ms: Some(millis(membership.queried_at)),
            igmp_left_after_ms: left(Protocol::Igmp),
            mld_left_after_ms: left(Protocol::Mld),
            groups: membership.groups().collect(),
            held,
            ..Multicast::default()
        };
        Evidence { multicast: Some(multicast), ..self }
    }

    /// Adds the queries that were sent, to what was captured of their answers.
    pub(crate) fn with_multicast(self, sent: Option<Multicast>) -> Evidence {
        let captured = self.multicast.unwrap_or_default();
        let multicast =
            sent.map(|Multicast { queries, unavailable, .. }| Multicast { queries, unavailable, ..captured });
        Evidence { multicast, ..self }
    }

    /// Adds the FDB entry found at the last check, with the time of that check.
    pub fn with_learned(mut self, learned: Option<&(Learned, Duration)>) -> Evidence {
        match learned {
            Some((Learned::Here(port), at)) => {
                (self.learned_on, self.learned_after_ms) = (Some(port.clone()), Some(millis(*at)));
            }
            Some((Learned::Elsewhere(port), _)) => {
                self.stale = Some(format!("the FDB of this host's bridge still points to {port}"));
                self.learned_on = Some(port.clone());
            }
            Some((Learned::Nowhere, _)) => self.stale = Some("this host's bridge has not learned it".into()),
            None => {}
        }
        self
    }

    /// `left br-int by bond0 (eth1) in VLAN 100 after 1.9 ms; first frame for it after 4.2 ms`, and each fault, one per
    /// line; empty without a departure or fault.
    pub fn lines(&self) -> Vec<String> {
        let departed = match (&self.departure, self.left_host_after_ms, &self.unseen) {
            (Some(departure), Some(after), _) => {
                let reply = self.returned_after_ms;
                let last = self.last_returned_after_ms.filter(|last| Some(*last) != reply);
                let last = last.map(|at| format!(", last after {at} ms")).unwrap_or_default();
                let reply = reply.map(|at| format!("; first frame for it after {at} ms{last}"));
                Some(format!("{departure} after {after} ms{}", reply.unwrap_or_default()))
            }
            (_, _, Some(why)) => Some(format!("departure not observable: {why}")),
            _ => None,
        };
        let answers = inquiry::answers(&self.gateways);
        // The VLAN changed during the announcement.
        let others = self.departures.iter().skip(1);
        let others = others.map(|left| format!("then {} after {} ms", left.departure, left.after_ms));
        let astray = self.astray.iter().map(|seen| {
            let vlan = seen.departure.vlan.map_or("untagged".into(), |vlan| format!("in VLAN {vlan}"));
            format!(
                "{} frames came to {} {vlan}, which is not their VLAN there",
                seen.frames, seen.departure.device
            )
        });
        departed
            .into_iter()
            .chain(others)
            .chain(astray)
            .chain(self.lines_of_foreign())
            .chain(answers)
            .chain(
                self.guest_announcement
                    .iter()
                    .filter(|told| told.error.is_none())
                    .map(GuestAnnouncement::line),
            )
            .chain(self.multicast.iter().flat_map(Multicast::lines))
            .chain(self.by_design.clone())
            .chain(self.stuck.iter().chain(&self.stale).cloned())
            .collect()
    }
}

/// The addresses of which no announcement left, if departures can be seen.
fn not_left(proof: &Delivery) -> Vec<IpAddr> {
    let held: Vec<usize> = proof.held().map(|(number, _)| number).collect();
    let announces = |frame: &&Frame| matches!(frame.kind, Kind::ArpRequest | Kind::ArpReply | Kind::Na);
    let frames = || proof.frames().iter().enumerate();
    let has_left = |ip: IpAddr| {
        frames().any(|(number, frame)| frame.ip == Some(ip) && announces(&frame) && !held.contains(&number))
    };
    let mut silent: Vec<IpAddr> = Vec::new();
    for ip in proof.frames().iter().filter(announces).filter_map(|frame| frame.ip) {
        if !silent.contains(&ip) && !has_left(ip) {
            silent.push(ip);
        }
    }
    silent
}

/// The record of a question.
fn inquired(asked: &Asked) -> Inquired {
    Inquired {
        gateway: asked.question.to,
        guest: asked.question.from,
        source: asked.question.source,
        asked: asked.times,
        answer: asked.answer.map(|(at, by)| Answer { after_ms: millis(at), by }),
    }
}

/// Milliseconds with three decimals.
pub(crate) fn millis(d: Duration) -> f64 {
    (d.as_micros() as f64) / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proof::capture_point::Direction;
    use crate::proof::delivery::tests::{on_br_int, pass, pass_for_guest};

    const ETH0: u32 = 4;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    /// A round on br-int of which these frames left after 2 ms.
    fn left(frames: &[usize]) -> Delivery {
        let mut proof = on_br_int();
        proof.begin();
        pass(&mut proof, "eth0", frames, ms(2), Some(100));
        proof
    }

    #[test]
    fn the_text_names_the_departure_and_the_answer() {
        let mut proof = left(&[0, 1, 2]);
        let here = (Learned::Here("tap0".into()), ms(3));
        let elsewhere = (Learned::Elsewhere("eth0".into()), ms(3));
        let nowhere = (Learned::Nowhere, ms(3));
        let departed = "left br-int by eth0 in VLAN 100 after 2 ms";
        for (learned, expected) in [
            (None, ""),
            (Some(&here), ""),
            (Some(&elsewhere), "; the FDB of this host's bridge still points to eth0"),
            (Some(&nowhere), "; this host's bridge has not learned it"),
        ] {
            let evidence = Evidence::of(&proof, None, &[]).with_learned(learned);
            assert_eq!(evidence.lines().join("; "), format!("{departed}{expected}"));
        }
        pass_for_guest(&mut proof, ETH0, Direction::In, ms(5));
        let words = Evidence::of(&proof, None, &[]).lines().join("; ");
        assert_eq!(words, format!("{departed}; first frame for it after 5 ms"));
    }

    #[test]
    fn stuck_frames_are_reported_with_the_reason_if_known() {
        let proof = left(&[0, 1]);
        let stuck = |why| Evidence::of(&proof, None, why).stuck;
        let why = [None, None, Some("a flow drops it".to_owned())];
        assert_eq!(stuck(&[]), ["rarp did not leave br-int"]);
        assert_eq!(stuck(&why), ["rarp did not leave br-int: a flow drops it"]);
        let words = Evidence::of(&proof, None, &[]).lines().join("; ");
        assert!(words.ends_with("after 2 ms; rarp did not leave br-int"), "{words}");
        let why = [0; 3].map(|_| Some("why".to_owned()));
        assert_eq!(Evidence::of(&left(&[]), None, &why).lines(), ["did not leave br-int: why"]);
    }

    #[test]
    fn an_address_is_not_announced_when_none_of_its_frames_left() {
        let of = |frames: &[usize]| {
            let evidence = Evidence::of(&left(frames), None, &[]);
            (evidence.not_left.len(), evidence.is_lacking())
        };
        assert_eq!(of(&[0, 1, 2]), (0, false));
        assert_eq!(of(&[0, 1]), (0, false), "without its RARP");
        assert_eq!(of(&[1]), (0, false), "one form of ARP announces the address");
        assert_eq!(of(&[2]), (1, true), "a RARP does not");
        assert_eq!(of(&[]), (1, true));
        let blind = Evidence::of(&left(&[]), Some("why".into()), &[]);
        assert_eq!((blind.not_left.len(), blind.is_lacking()), (0, false));
    }

    #[test]
    fn frames_that_cannot_be_seen_are_not_counted() {
        let why = || Some("cannot see frames pass: no".to_owned());
        let unseen = Evidence::of(&left(&[]), why(), &[]);
        let words = unseen.lines().join("; ");
        assert_eq!(words, "departure not observable: cannot see frames pass: no");
        assert_eq!((unseen.frames_left, unseen.left_host_after_ms), (None, None));
    }

    #[test]
    fn the_record_has_all_of_it() {
        let here = (Learned::Here("tap0".into()), ms(3));
        let evidence = Evidence::of(&left(&[0, 1, 2]), None, &[]).with_learned(Some(&here));
        let departure = serde_json::json!({"device": "eth0", "bridge": "br-int", "port": "eth0", "vlan": 100, "edge": "nic", "vni": null});
        assert_eq!(serde_json::to_value(&evidence.departure).unwrap(), departure);
        assert_eq!(
            (evidence.left_host_after_ms, evidence.learned_after_ms, evidence.learned_on.as_deref()),
            (Some(2.0), Some(3.0), Some("tap0"))
        );
        let left: Vec<u64> = evidence.frames_left.unwrap().by_kind().map(|(_, left)| left).collect();
        assert_eq!((left, evidence.last_hop.as_deref()), (vec![1, 1, 0, 1, 0, 0], Some("eth0")));
    }
}
