//! Frames as text.

use std::collections::HashSet;

use crate::announcement::frame::{Frame, Kind};

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
        (_, None) => match frame.vlan {
            Some(vlan) => format!("{} in VLAN {vlan}", frame.kind),
            None => frame.kind.to_string(),
        },
    }
}
