//! The answers to an announcement's questions, and what they prove.
//!
//! Time is a [`Duration`] since the event.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use pnet_base::MacAddr;
use pnet_packet::Packet;
use pnet_packet::arp::{ArpOperations, ArpPacket};
use pnet_packet::ethernet::{EtherTypes, EthernetPacket};
use pnet_packet::icmpv6::Icmpv6Types;
use pnet_packet::icmpv6::ndp::NeighborAdvertPacket;
use pnet_packet::ip::IpNextHeaderProtocols;
use pnet_packet::ipv6::Ipv6Packet;
use serde::{Deserialize, Serialize};

use crate::announcement::frame::ALL_ROUTERS;
use crate::announcement::question::Question;
use crate::proof::delivery::Delivery;
use crate::proof::sighting::Sighting;

/// The origin of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AnsweredBy {
    /// The network: the answer entered by an edge, so the network knows that the guest is here.
    Network,
    /// This host: a responder of OVN or neutron, or the host's own address on the bridge.
    Host,
}

impl AnsweredBy {
    /// Every origin.
    pub const ALL: [AnsweredBy; 2] = [AnsweredBy::Network, AnsweredBy::Host];

    /// The name of this origin in output.
    pub fn word(self) -> &'static str {
        match self {
            AnsweredBy::Network => "network",
            AnsweredBy::Host => "host",
        }
    }
}

/// The questions of an announcement, how their frames left, and the answers.
#[derive(Debug)]
pub struct Inquiry {
    mac: MacAddr,
    asked: Vec<Asked>,
    /// The delivery of the questions' frames.
    pub passage: Delivery,
}

/// One question, which is repeated in each round.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// The question.
    pub question: Question,
    /// How often it was asked.
    pub times: u32,
    /// The first answer: when, and its origin if known.
    pub answer: Option<(Duration, Option<AnsweredBy>)>,
    /// When it was asked last.
    last: Duration,
    /// The last one was answered.
    is_last_answered: bool,
}

impl Inquiry {
    /// No question asked yet for the guest `mac`; `passage` has no frames yet, and the path of the announcements.
    pub fn new(mac: MacAddr, passage: Delivery) -> Inquiry {
        Inquiry { mac, asked: Vec::new(), passage }
    }

    /// Every question.
    pub fn asked(&self) -> &[Asked] {
        &self.asked
    }

    /// Records that these questions are sent at `at`.
    pub fn ask(&mut self, questions: &[Question], at: Duration) {
        let new =
            questions.iter().filter(|question| self.asked.iter().all(|asked| asked.question != **question));
        let new: Vec<Question> = new.copied().collect();
        self.passage.add(new.iter().filter_map(|question| question.frame(self.mac)));
        self.asked.extend(new.into_iter().map(|question| Asked {
            question,
            times: 0,
            answer: None,
            last: at,
            is_last_answered: false,
        }));
        self.passage.begin();
        for asked in self.asked.iter_mut().filter(|asked| questions.contains(&asked.question)) {
            (asked.times, asked.last, asked.is_last_answered) = (asked.times + 1, at, false);
        }
    }

    /// Records a frame for the guest if it is an answer; returns whether it is. `by` is its origin, if known.
    pub fn answered(&mut self, sighting: &Sighting, by: Option<AnsweredBy>) -> bool {
        let Some(answer) = answer(&sighting.frame, self.mac) else {
            return false;
        };
        let is_to = |question: &Question| {
            let router = answer.router == question.to || question.to == IpAddr::from(ALL_ROUTERS);
            router
                && answer.is_advertisement == (question.to == IpAddr::from(ALL_ROUTERS))
                && answer.guest == question.from
        };
        let mut is_one = false;
        for asked in self.asked.iter_mut().filter(|asked| is_to(&asked.question)) {
            is_one = true;
            asked.is_last_answered |= sighting.at >= asked.last;
            let is_first = match asked.answer {
                None => true,
                // An answer seen at the edge has the earlier time, whichever socket is read first.
                Some((at, _)) => by == Some(AnsweredBy::Network) && sighting.at <= at,
            };
            if is_first {
                asked.answer = Some((sighting.at, by));
            }
        }
        is_one
    }

    /// An answer entered by an edge.
    pub fn is_answered_by_network(&self) -> bool {
        self.asked.iter().any(|asked| matches!(asked.answer, Some((_, Some(AnsweredBy::Network)))))
    }

    /// Questions were asked, and no question's last repetition was answered.
    pub fn is_unanswered(&self) -> bool {
        let last = self.asked.iter().map(|asked| asked.last).max();
        let mut of_last = self.asked.iter().filter(|asked| Some(asked.last) == last).peekable();
        of_last.peek().is_some() && of_last.all(|asked| !asked.is_last_answered)
    }

    /// Whether the question with this number in `passage` was never answered.
    pub fn is_open(&self, number: usize) -> bool {
        self.asked.get(number).is_some_and(|asked| asked.answer.is_none())
    }
}

/// The fields of an answer that matter.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    router: IpAddr,
    guest: IpAddr,
    /// A router advertisement, which answers no particular question.
    is_advertisement: bool,
}

/// An ARP reply, neighbour or router advertisement with the guest as its only destination.
fn answer(frame: &[u8], mac: MacAddr) -> Option<Answer> {
    let ethernet = EthernetPacket::new(frame).filter(|ethernet| ethernet.get_destination() == mac)?;
    match ethernet.get_ethertype() {
        EtherTypes::Arp => {
            let arp = ArpPacket::new(ethernet.payload())?;
            (arp.get_operation() == ArpOperations::Reply).then(|| Answer {
                router: arp.get_sender_proto_addr().into(),
                guest: arp.get_target_proto_addr().into(),
                is_advertisement: false,
            })
        }
        EtherTypes::Ipv6 => advertisement(ethernet.payload()),
        _ => None,
    }
}

fn advertisement(packet: &[u8]) -> Option<Answer> {
    let ip = Ipv6Packet::new(packet).filter(|ip| ip.get_next_header() == IpNextHeaderProtocols::Icmpv6)?;
    let message = packet.get(Ipv6Packet::minimum_packet_size()..)?;
    let (router, is_advertisement): (Ipv6Addr, bool) = match *message.first()? {
        kind if kind == Icmpv6Types::NeighborAdvert.0 => {
            (NeighborAdvertPacket::new(message)?.get_target_addr(), false)
        }
        kind if kind == Icmpv6Types::RouterAdvert.0 => (ip.get_source(), true),
        _ => return None,
    };
    Some(Answer { router: router.into(), guest: ip.get_destination().into(), is_advertisement })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::gateway::Source;
    use crate::proof::capture_point::Direction;
    use crate::proof::delivery::tests::on_br_int;

    const GUEST: MacAddr = MacAddr(0xfa, 0x16, 0x3e, 0, 0, 0x11);
    const ROUTER: MacAddr = MacAddr(2, 0, 0x5e, 0, 0, 1);

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    fn question(from: &str, to: &str) -> Question {
        Question { from: from.parse().unwrap(), to: to.parse().unwrap(), source: Source::Operator }
    }

    fn questions() -> [Question; 2] {
        [question("192.0.2.10", "192.0.2.1"), question("2001:db8::10", "2001:db8::")]
    }

    fn inquiry() -> Inquiry {
        let path = on_br_int().path().clone();
        Inquiry::new(GUEST, Delivery::new(GUEST, &[], path))
    }

    /// A router's reply to one of [`questions`]: the question with its two halves swapped.
    fn reply(number: usize, at: Duration) -> Sighting {
        let mut frame = questions()[number].frame(GUEST).unwrap().bytes;
        frame[..6].copy_from_slice(&GUEST.octets());
        frame[6..12].copy_from_slice(&ROUTER.octets());
        if number == 0 {
            frame[21] = 2;
            let (sender, target) = (frame[22..32].to_vec(), frame[32..42].to_vec());
            frame[22..32].copy_from_slice(&target);
            frame[32..42].copy_from_slice(&sender);
        } else {
            frame.copy_within(22..38, 38);
            frame[54] = 136;
        }
        Sighting::new(4, Direction::In, at, None, &frame)
    }

    #[test]
    fn the_first_answer_is_recorded_with_its_origin() {
        let mut it = inquiry();
        it.ask(&questions(), ms(1));
        assert!(it.is_unanswered());
        assert!(it.answered(&reply(0, ms(3)), Some(AnsweredBy::Host)));
        assert!(it.answered(&reply(0, ms(50)), Some(AnsweredBy::Network)), "later");
        assert!(it.answered(&reply(1, ms(5)), None));
        let answers: Vec<_> = it.asked().iter().map(|asked| asked.answer).collect();
        assert_eq!(answers, [Some((ms(3), Some(AnsweredBy::Host))), Some((ms(5), None))]);
        assert!(!it.is_unanswered() && !it.is_answered_by_network());
    }

    #[test]
    fn an_answer_seen_at_an_edge_is_the_networks_whichever_socket_is_read_first() {
        let mut it = inquiry();
        it.ask(&questions(), ms(1));
        it.answered(&reply(0, ms(3)), Some(AnsweredBy::Host));
        it.answered(&reply(0, ms(2)), Some(AnsweredBy::Network));
        assert_eq!(it.asked()[0].answer, Some((ms(2), Some(AnsweredBy::Network))));
        assert!(it.is_answered_by_network());
    }

    #[test]
    fn each_round_asks_anew() {
        let mut it = inquiry();
        it.ask(&questions(), ms(1));
        it.answered(&reply(0, ms(2)), Some(AnsweredBy::Network));
        it.ask(&questions(), ms(50));
        assert!(it.is_unanswered(), "the last one");
        it.answered(&reply(1, ms(51)), Some(AnsweredBy::Network));
        assert!(!it.is_unanswered());
        assert_eq!(it.asked().iter().map(|asked| asked.times).collect::<Vec<_>>(), [2, 2]);
    }

    #[test]
    fn a_frame_without_a_question_is_no_answer() {
        let mut it = inquiry();
        it.ask(&questions()[..1], ms(1));
        let network = Some(AnsweredBy::Network);
        assert!(!it.answered(&reply(1, ms(2)), network), "not asked");
        let mut request = reply(0, ms(2));
        request.frame[21] = 1;
        assert!(!it.answered(&request, network), "a question of the router's");
        let mut to_all = reply(0, ms(2));
        to_all.frame[..6].copy_from_slice(&[0xff; 6]);
        assert!(!it.answered(&to_all, network), "an announcement of the router's");
        for length in 0..42 {
            let short = Sighting { frame: reply(0, ms(2)).frame[..length].to_vec(), ..reply(0, ms(2)) };
            assert!(!it.answered(&short, network), "{length} bytes");
        }
        assert_eq!(it.asked()[0].answer, None);
    }
}
