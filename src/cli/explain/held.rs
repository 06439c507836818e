//! The frames that would not leave the host, as far as that is known before any is sent.

use std::collections::BTreeSet;
use std::fmt;

use serde::Serialize;

use crate::announcement::frame::{Frame, Kind};
use crate::path::readiness::Assessment;
use crate::run::diagnose::{self, KeptIn};
use crate::run::host::Host;
use crate::run::order::Order;

/// Why some frames would not leave.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Held {
    /// `no-way-out`, `setting` or `flow`.
    code: &'static str,
    /// The kinds; empty for all.
    kinds: Vec<Kind>,
    /// The VLANs in which a trunk's frames would not leave; empty for all.
    vlans: BTreeSet<u16>,
    text: String,
}

/// No edge, settings of bridges, or Open vSwitch's flows.
pub(super) async fn held(order: &Order, host: &Host, seen: &Assessment) -> Vec<Held> {
    let Some(way) = seen.attachment.as_ref().map(|attachment| &attachment.way) else {
        return Vec::new();
    };
    if let Some(text) = way.nowhere() {
        return vec![Held { code: "no-way-out", kinds: Vec::new(), vlans: BTreeSet::new(), text }];
    }
    let round = order.round();
    let mut all: Vec<Held> = Vec::new();
    for frame in &round {
        for hold in diagnose::way_of(host, seen, order, frame).holds(frame.kind.cast()) {
            add(&mut all, "setting", frame, hold.to_string());
        }
    }
    for KeptIn { frame, by_flow, why } in diagnose::kept_in(host, seen, order).await {
        add(&mut all, if by_flow { "flow" } else { "setting" }, &frame, why);
    }
    let vlans: BTreeSet<u16> = round.iter().filter_map(|frame| frame.vlan).collect();
    all.iter_mut().filter(|held| held.vlans == vlans).for_each(|held| held.vlans.clear());
    all
}

fn add(all: &mut Vec<Held>, code: &'static str, frame: &Frame, text: String) {
    match all.iter_mut().find(|known| known.text == text) {
        Some(known) => {
            if !known.kinds.contains(&frame.kind) {
                known.kinds.push(frame.kind);
            }
            known.vlans.extend(frame.vlan);
        }
        None => {
            all.push(Held { code, kinds: vec![frame.kind], vlans: frame.vlan.into_iter().collect(), text })
        }
    }
}

impl fmt::Display for Held {
    /// `rarp in VLAN 42, 43: br-int table 0: …`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds: Vec<String> = self.kinds.iter().map(ToString::to_string).collect();
        let vlans: Vec<String> = self.vlans.iter().map(ToString::to_string).collect();
        match (kinds.is_empty(), vlans.is_empty()) {
            (true, _) => {}
            (false, true) => write!(f, "{}: ", kinds.join(", "))?,
            (false, false) => write!(f, "{} in VLAN {}: ", kinds.join(", "), vlans.join(", "))?,
        }
        f.write_str(&self.text)
    }
}
