//! Breaks a JSON value node by node.

use std::sync::LazyLock;

use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::{Value, json};

/// The way from the root to a node: at each fork, which member to go on with.
type Way = u64;
/// Of how many nodes on the way one is the last.
const STOP: u64 = 16;

/// One thing done to some nodes.
#[derive(Debug, Clone)]
pub enum Graft {
    /// Writes over a node.
    Put { at: Way, poison: usize },
    /// Copies one node over another: dangling and circular references come of it.
    Copy { from: Way, to: Way },
    /// Takes a member out of an object or of an array.
    Remove { at: Way },
    /// Makes an array's members twice as many.
    Double { at: Way },
}

/// One to five grafts.
pub fn grafts() -> impl Strategy<Value = Vec<Graft>> {
    let at = any::<Way>;
    let graft = prop_oneof![
        2 => (at(), 0..POISONS).prop_map(|(at, poison)| Graft::Put { at, poison }),
        2 => (at(), at()).prop_map(|(from, to)| Graft::Copy { from, to }),
        1 => at().prop_map(|at| Graft::Remove { at }),
        1 => at().prop_map(|at| Graft::Double { at }),
    ];
    vec(graft, 1..6)
}

/// `value` after all of `grafts`.
pub fn grafted(mut value: Value, grafts: &[Graft]) -> Value {
    for graft in grafts {
        match graft {
            Graft::Put { at, poison } => *node(&mut value, *at) = POISON[*poison].clone(),
            Graft::Copy { from, to } => {
                let copy = node(&mut value, *from).clone();
                *node(&mut value, *to) = copy;
            }
            Graft::Remove { at } => match node(&mut value, *at) {
                Value::Object(members) => {
                    drop(members.keys().next().cloned().map(|key| members.remove(&key)))
                }
                Value::Array(members) => drop(members.pop()),
                leaf => *leaf = Value::Null,
            },
            Graft::Double { at } => {
                if let Value::Array(members) = node(&mut value, *at) {
                    members.extend_from_within(..);
                }
            }
        }
    }
    value
}

const POISONS: usize = 28;

static POISON: LazyLock<[Value; POISONS]> = LazyLock::new(|| {
    [
        Value::Null,
        json!(true),
        json!(0),
        json!(-1),
        json!(4095),
        json!(4096),
        json!(65_536),
        json!(4_294_967_296_u64),
        json!(u64::MAX),
        json!(1e300),
        json!(100.5),
        json!(""),
        json!("\n\u{1b}[2J"),
        json!("trunk"),
        json!("patch"),
        json!("../../etc"),
        json!([]),
        json!({}),
        json!(["set"]),
        json!(["set", []]),
        json!(["set", [0, 7]]),
        json!(["set", ["set", 7]]),
        json!(["map", []]),
        json!(["map", [["peer", "tap0"], ["peer"], "peer", [1, 2]]]),
        json!(["map", [["ovn-installed", "true"]]]),
        json!(["uuid"]),
        json!(["uuid", 7]),
        json!(["uuid", "no such row"]),
    ]
});

fn node(value: &mut Value, way: Way) -> &mut Value {
    let forks = match value {
        Value::Array(members) => members.len(),
        Value::Object(members) => members.len(),
        _ => 0,
    } as u64;
    if forks == 0 || way % STOP == 0 {
        return value;
    }
    let (way, member) = (way / STOP / forks, (way / STOP % forks) as usize);
    match value {
        Value::Array(members) => node(&mut members[member], way),
        Value::Object(members) => node(members.values_mut().nth(member).unwrap(), way),
        _ => value,
    }
}
