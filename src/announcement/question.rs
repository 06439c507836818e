//! The questions that follow the announcements of a round.
//!
//! An announcement changes a router's neighbour entry but by policy creates none (Linux: `arp_accept=0`,
//! `accept_untracked_na=0`). A question creates one (RFC 826; RFC 4861 sections 7.2.3 and 6.2.6), and is answered. In an
//! EVPN fabric the old leaf withdraws the guest's MAC-IP route after the MAC has moved, and only a later question restores
//! the route. So every round asks, even after an answer.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use pnet_base::MacAddr;

use crate::announcement::frame::{self, Frame, Kind};
use crate::guest::gateway::{Gateway, Source};

/// The number of gateways asked from each address: more would add only noise.
pub(crate) const MAX_GATEWAYS: usize = 8;
/// The prefix length of an IPv6 guest's subnet where none is known (RFC 4291 section 2.5.4).
const SUBNET: u8 = 64;
/// A router has no subnet-router anycast address on a link with this prefix length (RFC 6164 section 6).
const POINT_TO_POINT: u8 = 127;
/// A router solicitation is due in the first round at or after this, and again in the first round that much later: each may
/// cause an advertisement to all nodes (RFC 4861 section 6.3.7, `RTR_SOLICITATION_INTERVAL`).
const FIRST_SOLICITATION: Duration = Duration::from_millis(300);
const SECOND_SOLICITATION: Duration = Duration::from_secs(4);
/// The number of router solicitations that a link permits in [`SECOND`].
const MAX_SOLICITATIONS: usize = 10;
const SECOND: Duration = Duration::from_secs(1);

/// A question: its sender and its target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Question {
    /// The guest's address.
    pub from: IpAddr,
    /// The router's.
    pub to: IpAddr,
    /// Where the router's address is recorded.
    pub source: Source,
}

impl Question {
    /// Its frame.
    pub(crate) fn frame(&self, mac: MacAddr) -> Option<Frame> {
        match (self.from, self.to) {
            (IpAddr::V4(from), IpAddr::V4(to)) => Some(frame::ask(mac, from, to)),
            (IpAddr::V6(from), IpAddr::V6(to)) if self.source == Source::AllRouters => {
                debug_assert_eq!(to, frame::ALL_ROUTERS);
                Some(frame::router_solicitation(mac, from))
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => Some(frame::solicitation(mac, from, to)),
            _ => None,
        }
    }
}

/// The questions of each round for a guest with the addresses `ips`, in order: for each address its gateways, and for IPv6
/// the subnet-router anycast address. A guest that is itself the gateway is skipped.
///
/// With `guess`, an IPv4 address without a known gateway asks the first and the last host address of its /24.
pub(crate) fn questions(ips: &[IpAddr], known: &[Gateway], guess: bool, send: &[Kind]) -> Vec<Question> {
    let is_sent = |ip: &&IpAddr| send.contains(if ip.is_ipv4() { &Kind::Ask } else { &Kind::Solicit });
    let of_ip = ips.iter().filter(is_sent).flat_map(|ip| {
        let mut routers: Vec<(IpAddr, Source)> = Vec::new();
        let serving = known.iter().filter(|gateway| gateway.serves.contains(ip));
        for gateway in serving.filter(|gateway| gateway.ip.is_ipv4() == ip.is_ipv4()) {
            if routers.iter().all(|(known, _)| *known != gateway.ip) {
                routers.push((gateway.ip, gateway.source));
            }
        }
        match ip {
            IpAddr::V4(ip) if guess && routers.is_empty() => routers.extend(guesses(*ip)),
            IpAddr::V4(_) => {}
            IpAddr::V6(ip) => routers.extend(anycast(*ip, known).map(|to| (to.into(), Source::Anycast))),
        }
        let question = |(to, source)| Question { from: *ip, to, source };
        routers.into_iter().filter(|(to, _)| !ips.contains(to)).take(MAX_GATEWAYS).map(question)
    });
    of_ip.collect()
}

/// The router solicitations, one from each global address, up to the limit of a link.
pub(crate) fn to_all_routers(ips: &[IpAddr], send: &[Kind]) -> Vec<Question> {
    let global = ips.iter().filter(|ip| matches!(ip, IpAddr::V6(ip) if !ip.is_unicast_link_local()));
    let global = global.filter(|_| send.contains(&Kind::Solicit)).take(MAX_SOLICITATIONS);
    let question =
        |ip: &IpAddr| Question { from: *ip, to: frame::ALL_ROUTERS.into(), source: Source::AllRouters };
    global.map(question).collect()
}

fn guesses(ip: Ipv4Addr) -> impl Iterator<Item = (IpAddr, Source)> {
    let hosts = Ipv4Net::new(ip, 24).ok().map(|net| net.hosts());
    let ends = hosts.into_iter().flat_map(|hosts| [hosts.clone().next(), hosts.last()]).flatten();
    ends.map(|ip| (ip.into(), Source::Guess))
}

/// The subnet-router anycast address of the subnet of `ip`.
fn anycast(ip: Ipv6Addr, known: &[Gateway]) -> Option<Ipv6Addr> {
    if ip.is_unicast_link_local() {
        return None;
    }
    let subnets = known.iter().filter_map(|gateway| gateway.subnet);
    let lengths = subnets.filter(|net| matches!(net, IpNet::V6(net) if net.contains(&ip)));
    let length = lengths.map(|net| net.prefix_len()).max().unwrap_or(SUBNET);
    let net = Ipv6Net::new(ip, length).ok().filter(|net| net.prefix_len() < POINT_TO_POINT)?;
    Some(net.network())
}

/// When the router solicitations of one announcement are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Solicitations {
    sent: u32,
    /// When the last one was sent.
    last: Duration,
}

impl Solicitations {
    /// Whether a round that is sent so long after the first includes one.
    pub(crate) fn is_due(&self, since_first: Duration) -> bool {
        match self.sent {
            0 => since_first >= FIRST_SOLICITATION,
            1 => since_first >= self.last + SECOND_SOLICITATION,
            _ => false,
        }
    }

    /// One was sent.
    pub(crate) fn sent(&mut self, since_first: Duration) {
        (self.sent, self.last) = (self.sent + 1, since_first);
    }
}

/// The router solicitations sent recently on each link.
#[derive(Debug)]
pub(crate) struct SolicitationLimit<L> {
    sent: HashMap<L, VecDeque<Duration>>,
}

impl<L> Default for SolicitationLimit<L> {
    fn default() -> Self {
        SolicitationLimit { sent: HashMap::new() }
    }
}

impl<L: Eq + Hash> SolicitationLimit<L> {
    /// Whether `link` permits `count` more at `now`; if so, they count. Time runs from any fixed moment.
    pub(crate) fn permits(&mut self, link: L, count: usize, now: Duration) -> bool {
        self.sent.retain(|_, times| {
            times.retain(|at| *at + SECOND > now);
            !times.is_empty()
        });
        let times = self.sent.entry(link).or_default();
        let permitted = times.len() + count <= MAX_SOLICITATIONS;
        if permitted {
            times.extend(std::iter::repeat_n(now, count));
        }
        permitted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: MacAddr = MacAddr(0xfa, 0x16, 0x3e, 0, 0, 0x11);

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn of_subnet(ip: &str, subnet: &str) -> Gateway {
        Gateway::of_subnet(ip.parse().unwrap(), subnet.parse().unwrap(), Source::Network)
    }

    fn asked(ips: &[&str], known: &[Gateway], guess: bool) -> Vec<String> {
        let ips: Vec<IpAddr> = ips.iter().map(|text| ip(text)).collect();
        let questions = questions(&ips, known, guess, &Kind::ALL);
        questions.iter().map(|q| format!("{} {} {}", q.from, q.to, q.source)).collect()
    }

    #[test]
    fn each_address_asks_the_gateways_of_its_own_subnet() {
        let known = [
            of_subnet("10.1.10.1", "10.1.10.0/24"),
            of_subnet("10.1.20.1", "10.1.20.0/24"),
            Gateway::of_all(ip("10.9.9.9"), Source::Operator),
            Gateway::of_all(ip("fe80::1"), Source::Operator),
        ];
        assert_eq!(
            asked(&["10.1.10.50", "10.1.20.50", "2001:db8:10::50"], &known, false),
            [
                "10.1.10.50 10.1.10.1 network",
                "10.1.10.50 10.9.9.9 operator",
                "10.1.20.50 10.1.20.1 network",
                "10.1.20.50 10.9.9.9 operator",
                "2001:db8:10::50 fe80::1 operator",
                "2001:db8:10::50 2001:db8:10:: anycast",
            ]
        );
    }

    #[test]
    fn without_a_known_gateway_ipv4_asks_nothing_and_ipv6_its_subnets_routers() {
        assert_eq!(
            asked(&["10.1.10.50", "2001:db8:10::50", "fe80::50"], &[], false),
            ["2001:db8:10::50 2001:db8:10:: anycast"]
        );
    }

    #[test]
    fn the_subnet_is_shorter_or_longer_where_that_is_known() {
        for (subnet, expected) in [
            ("2001:db8:10::/56", "2001:db8:10:: anycast"),
            ("2001:db8:10:ff::/80", "2001:db8:10:ff:: anycast"),
        ] {
            let known = [of_subnet("2001:db8:10:ff::1", subnet)];
            let last = asked(&["2001:db8:10:ff::50"], &known, false).pop().unwrap();
            assert_eq!(last, format!("2001:db8:10:ff::50 {expected}"), "{subnet}");
        }
        let point_to_point = [of_subnet("2001:db8::", "2001:db8::/127")];
        assert_eq!(asked(&["2001:db8::1"], &point_to_point, false), ["2001:db8::1 2001:db8:: network"]);
    }

    #[test]
    fn a_guest_that_is_the_gateway_does_not_ask_itself() {
        let known = [of_subnet("10.1.10.1", "10.1.10.0/24")];
        assert_eq!(asked(&["10.1.10.1", "2001:db8::"], &known, true), [""; 0]);
    }

    #[test]
    fn gateways_are_guessed_only_where_none_is_known() {
        assert_eq!(
            asked(&["10.1.10.50"], &[], true),
            ["10.1.10.50 10.1.10.1 guess", "10.1.10.50 10.1.10.254 guess"]
        );
        assert_eq!(asked(&["10.1.10.254"], &[], true), ["10.1.10.254 10.1.10.1 guess"]);
        let known = [Gateway::of_all(ip("10.9.9.9"), Source::DomainRoute)];
        assert_eq!(asked(&["10.1.10.50"], &known, true), ["10.1.10.50 10.9.9.9 domain-route"]);
    }

    #[test]
    fn an_explicit_list_of_kinds_is_honoured() {
        let known = [Gateway::of_all(ip("10.1.10.1"), Source::Operator)];
        let ips = [ip("10.1.10.50"), ip("2001:db8::50")];
        let kinds = |send: &[Kind]| {
            let all = [questions(&ips, &known, false, send), to_all_routers(&ips, send)].concat();
            all.iter().map(|question| question.frame(MAC).unwrap().kind).collect::<Vec<_>>()
        };
        assert_eq!(kinds(&[Kind::Rarp, Kind::Ask]), [Kind::Ask]);
        assert_eq!(kinds(&[Kind::Na, Kind::Solicit]), [Kind::Solicit; 2]);
        assert_eq!(kinds(&Kind::ANNOUNCEMENTS), []);
    }

    #[test]
    fn routers_are_solicited_after_300_ms_and_once_more_4_s_later() {
        let mut it = Solicitations::default();
        let rounds = [0, 50, 150, 350, 750, 1550, 3150, 5150, 7150, 9150];
        let due = rounds.map(Duration::from_millis).map(|at| {
            let is_due = it.is_due(at);
            if is_due {
                it.sent(at);
            }
            is_due
        });
        let due = rounds.iter().zip(due).filter(|(_, due)| *due).map(|(at, _)| *at).collect::<Vec<_>>();
        assert_eq!(due, [350, 5150]);
    }

    #[test]
    fn ten_solicitations_a_second_are_permitted_on_a_link() {
        let mut limit = SolicitationLimit::default();
        let at = |ms| Duration::from_millis(ms);
        let permitted = (0..20).filter(|n| limit.permits("br0", 1, at(*n))).count();
        assert_eq!(permitted, 10);
        assert!(limit.permits("br1", 10, at(20)), "another link");
        assert!(!limit.permits("br0", 1, at(999)));
        assert!(!limit.permits("br0", 2, at(1000)), "all of a guest's or none");
        assert!(limit.permits("br0", 1, at(1000)));
        assert!(!limit.permits("br0", 1, at(1000)));
    }
}
