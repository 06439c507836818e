//! Frames as text.

use crate::announcement::frame::Frame;

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
        (_, None) => match frame.vlan {
            Some(vlan) => format!("{} in VLAN {vlan}", frame.kind),
            None => frame.kind.to_string(),
        },
    }
}
