//! Frames as text, and as objects of JSON.

use std::collections::HashSet;
use std::net::IpAddr;

use serde::Serialize;

use crate::announcement::frame::{Frame, Kind};

/// A frame of a round, without its bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Named {
    kind: Kind,
    /// The address that it announces, or from which it asks.
    ip: Option<IpAddr>,
    /// The gateway that it asks.
    gateway: Option<IpAddr>,
    /// The tag that it has already: that of a trunk without a native VLAN.
    vlan: Option<u16>,
}

impl Named {
    /// The names of `frame`.
    pub(crate) fn of(frame: &Frame) -> Named {
        Named { kind: frame.kind, ip: frame.ip, gateway: frame.asked, vlan: frame.vlan }
    }
}

/// Some frames of a round as text: their kinds, with the address unless all of a kind are included.
pub(crate) fn names(round: &[Frame], is_one: impl Fn(usize) -> bool) -> Vec<String> {
    let excluded = round.iter().enumerate().filter(|(number, _)| !is_one(*number));
    let partial: HashSet<Kind> = excluded.map(|(_, frame)| frame.kind).collect();
    let included = round.iter().enumerate().filter(|(number, _)| is_one(*number));
    let names = included.map(|(_, frame)| match partial.contains(&frame.kind) {
        true => name(frame),
        false => frame.kind.to_string(),
    });
    let mut known = HashSet::new();
    names.filter(|name| known.insert(name.clone())).collect()
}

/// `arp-request 192.0.2.10`, or `ask 192.0.2.1 from 192.0.2.10`.
pub(crate) fn name(frame: &Frame) -> String {
    match (frame.asked, frame.ip) {
        (Some(asked), Some(from)) => format!("{} {asked} from {from}", frame.kind),
        (_, Some(ip)) => format!("{} {ip}", frame.kind),
        (_, None) => of_kind(frame),
    }
}

/// `arp-request`, or `rarp in VLAN 43`.
pub(crate) fn of_kind(frame: &Frame) -> String {
    match frame.vlan {
        Some(vlan) => format!("{} in VLAN {vlan}", frame.kind),
        None => frame.kind.to_string(),
    }
}
