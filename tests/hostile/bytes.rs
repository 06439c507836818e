//! Breaks a text or a message byte by byte.

use proptest::collection::vec;
use proptest::prelude::*;

/// One thing done to some bytes; positions are taken modulo their length.
#[derive(Debug, Clone)]
pub enum Change {
    Flip {
        at: usize,
        with: u8,
    },
    Delete {
        at: usize,
        length: usize,
    },
    Repeat {
        at: usize,
        length: usize,
        times: usize,
    },
    Truncate {
        at: usize,
    },
    Insert {
        at: usize,
        what: Vec<u8>,
    },
    /// Exchanges two quoted texts.
    SwapQuoted {
        one: usize,
        other: usize,
    },
    /// Writes over a quoted text.
    Quote {
        which: usize,
        what: Vec<u8>,
    },
}

/// One to five changes, whose inserted texts are among `poison` or random.
pub fn changes(poison: &'static [&'static str]) -> impl Strategy<Value = Vec<Change>> {
    let at = || any::<u16>().prop_map(usize::from);
    let what = || {
        let known = proptest::sample::select(poison).prop_map(|text| text.as_bytes().to_vec());
        prop_oneof![4 => known, 1 => vec(any::<u8>(), 0..8)]
    };
    let change = prop_oneof![
        (at(), 1u8..).prop_map(|(at, with)| Change::Flip { at, with }),
        (at(), 1usize..200).prop_map(|(at, length)| Change::Delete { at, length }),
        (at(), 1usize..400, 1usize..4).prop_map(|(at, length, times)| Change::Repeat { at, length, times }),
        at().prop_map(|at| Change::Truncate { at }),
        (at(), what()).prop_map(|(at, what)| Change::Insert { at, what }),
        (at(), at()).prop_map(|(one, other)| Change::SwapQuoted { one, other }),
        (at(), what()).prop_map(|(which, what)| Change::Quote { which, what }),
    ];
    vec(change, 1..6)
}

/// `bytes` after all of `changes`.
pub fn changed(bytes: &[u8], changes: &[Change]) -> Vec<u8> {
    changes.iter().fold(bytes.to_vec(), change)
}

fn change(mut bytes: Vec<u8>, change: &Change) -> Vec<u8> {
    if bytes.is_empty() {
        return bytes;
    }
    let size = bytes.len();
    match change {
        Change::Flip { at, with } => bytes[at % size] ^= with,
        Change::Delete { at, length } => drop(bytes.drain(at % size..size.min(at % size + length))),
        Change::Repeat { at, length, times } => {
            let piece = bytes[at % size..size.min(at % size + length)].repeat(*times);
            bytes.splice(at % size..at % size, piece);
        }
        Change::Truncate { at } => bytes.truncate(at % size),
        Change::Insert { at, what } => drop(bytes.splice(at % size..at % size, what.clone())),
        Change::SwapQuoted { one, other } => {
            let spans = quoted(&bytes);
            if !spans.is_empty() {
                let mut pair = [spans[one % spans.len()].clone(), spans[other % spans.len()].clone()];
                pair.sort_by_key(|span| span.start);
                let [first, second] = pair;
                if first.end <= second.start {
                    let texts = (bytes[first.clone()].to_vec(), bytes[second.clone()].to_vec());
                    bytes.splice(second, texts.0);
                    bytes.splice(first, texts.1);
                }
            }
        }
        Change::Quote { which, what } => {
            let spans = quoted(&bytes);
            if !spans.is_empty() {
                bytes.splice(spans[which % spans.len()].clone(), what.clone());
            }
        }
    }
    bytes
}

/// Where the texts between quotes are.
fn quoted(bytes: &[u8]) -> Vec<std::ops::Range<usize>> {
    let mut spans = Vec::new();
    let mut open: Option<(u8, usize)> = None;
    for (at, byte) in bytes.iter().enumerate() {
        match open {
            Some((quote, start)) if quote == *byte => {
                spans.push(start..at);
                open = None;
            }
            None if matches!(byte, b'"' | b'\'') => open = Some((*byte, at + 1)),
            _ => {}
        }
    }
    spans
}
