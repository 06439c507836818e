//! What became of each kind of frame.

use serde::{Deserialize, Serialize};

use crate::announcement::frame::Kind;
use crate::proof::delivery::Delivery;

/// What became of the frames of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KindFate {
    /// The kind.
    pub kind: Kind,
    /// Its fate.
    pub fate: Fate,
    /// The number of frames that were seen to leave.
    pub left: u64,
    /// Why some did not, or were not seen to.
    pub why: Option<String>,
}

/// The fates of the frames of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fate {
    /// Each has left, at least once.
    Left,
    /// Those of some addresses, questions or VLANs have left, and others never.
    Partly,
    /// None has left.
    NotLeft,
    /// Some may have left unseen.
    Unseen,
    /// None has left: a setting of a bridge holds them back by design.
    ByDesign,
}

impl KindFate {
    /// The fate of each kind of frame; `blind` is why nothing is captured at all, and `why` has the reasons by frame number.
    pub fn all(proof: &Delivery, blind: Option<&str>, why: &[Option<String>]) -> Vec<KindFate> {
        let kinds =
            Kind::ALL.into_iter().filter(|kind| proof.frames().iter().any(|frame| frame.kind == *kind));
        kinds.map(|kind| KindFate::of(kind, proof, blind, why)).collect()
    }

    fn of(kind: Kind, proof: &Delivery, blind: Option<&str>, why: &[Option<String>]) -> KindFate {
        let numbers: Vec<usize> =
            (0..proof.frames().len()).filter(|number| proof.frames()[*number].kind == kind).collect();
        let left = numbers.iter().map(|number| proof.times_left(*number)).sum();
        let mut missing = numbers.iter().filter(|number| proof.times_left(**number) == 0).copied().peekable();
        let known = |number: usize| why.get(number).cloned().flatten();
        let Some(first) = missing.peek().copied() else {
            return KindFate { kind, fate: Fate::Left, left, why: None };
        };
        if let Some(blind) = blind {
            return KindFate { kind, fate: Fate::Unseen, left, why: Some(blind.to_owned()) };
        }
        let unseen = missing.clone().find_map(|number| Some((number, proof.unseen_way(number)?)));
        let (fate, why) = match unseen {
            Some((number, way)) => (Fate::Unseen, Some(with_verdict(way, known(number).as_deref()))),
            None if proof.is_kept_by_design(first) => (Fate::ByDesign, proof.kept_by(first)),
            None if left > 0 => (Fate::Partly, missing.find_map(known)),
            None => (Fate::NotLeft, missing.find_map(known)),
        };
        KindFate { kind, fate, left, why }
    }
}

/// Why a frame may have left unseen, with Open vSwitch's verdict on it.
fn with_verdict(way: String, verdict: Option<&str>) -> String {
    match verdict {
        Some(verdict) => format!("{way}; Open vSwitch's verdict: {verdict}"),
        None => way,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::proof::delivery::tests::{on_br_int, pass};

    #[test]
    fn each_kind_has_a_fate_of_its_own() {
        let mut proof = on_br_int();
        proof.begin();
        pass(&mut proof, "eth0", &[0], Duration::from_millis(2), Some(100));
        let why = [None, None, Some("a flow drops it".to_owned())];
        let fates = KindFate::all(&proof, None, &why);
        let fates: Vec<_> =
            fates.iter().map(|fate| (fate.kind, fate.fate, fate.left, fate.why.as_deref())).collect();
        assert_eq!(
            fates,
            [
                (Kind::ArpRequest, Fate::Left, 1, None),
                (Kind::ArpReply, Fate::NotLeft, 0, None),
                (Kind::Rarp, Fate::NotLeft, 0, Some("a flow drops it"))
            ]
        );
        let blind = KindFate::all(&proof, Some("cannot see"), &[]);
        assert_eq!((blind[0].fate, blind[1].fate), (Fate::Left, Fate::Unseen));
    }
}
