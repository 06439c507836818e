//! The ports by which a frame leaves the datapath: a list of datapath actions, and the port names of `dpif/show`.

use std::collections::BTreeMap;
use std::fmt;

use super::foreign::{lines, quoted};

const MAX_OUTPUTS: usize = 10_000;
/// The nesting of copies from patch port to patch port.
const MAX_DEPTH: usize = 16;

/// A port by which a frame leaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Its name in the datapath. The name of a bridge means the bridge's own port.
    pub port: String,
    /// The VLAN of its outer tag.
    pub vlan: Option<u16>,
    /// It was encapsulated before: in user space the port is that of the underlay.
    pub is_wrapped: bool,
}

impl fmt::Display for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.vlan {
            Some(vlan) => write!(f, "{} in VLAN {vlan}", self.port),
            None => write!(f, "{} untagged", self.port),
        }
    }
}

/// The port names of the datapath that contains the bridge, by number: `    up0 1/3: (system)` is number 3.
pub(super) fn names<'a>(ports: &'a str, bridge: &str) -> BTreeMap<&'a str, &'a str> {
    let mut names = BTreeMap::new();
    let mut is_it = false;
    for line in lines(ports) {
        if !line.starts_with(' ') {
            if is_it {
                break;
            }
            names.clear();
        } else if let Some(name) = line.strip_prefix("  ").and_then(|line| line.strip_suffix(':')) {
            is_it |= name == bridge;
        } else if let [name, numbers, ..] = *line.split_whitespace().collect::<Vec<_>>() {
            names.extend(numbers.trim_end_matches(':').split_once('/').map(|(_, number)| (number, name)));
        }
    }
    if is_it { names } else { BTreeMap::new() }
}

/// Adds the ports in a list of datapath actions to `outputs`, each with the frame's VLAN at that point.
pub(super) fn leaves_by(actions: &str, names: &BTreeMap<&str, &str>, outputs: &mut Vec<Output>) {
    carry_out(actions, names, Frame::default(), MAX_DEPTH, outputs);
}

/// The frame as the actions have changed it.
#[derive(Clone, Default)]
struct Frame {
    vlans: Vec<u16>,
    is_wrapped: bool,
}

fn carry_out(
    actions: &str,
    names: &BTreeMap<&str, &str>,
    mut frame: Frame,
    depth: usize,
    outputs: &mut Vec<Output>,
) {
    for action in top_level(actions).take(MAX_OUTPUTS) {
        match action {
            "" | "drop" | "pop_eth" | "ct_clear" => {}
            "pop_vlan" => drop(frame.vlans.pop()),
            action => match action.split_once('(') {
                Some(("push_vlan", tag)) => {
                    let vlan = tag.split(',').find_map(|field| field.strip_prefix("vid="));
                    frame.vlans.extend(vlan.and_then(|vlan| vlan.trim_end_matches(')').parse::<u16>().ok()));
                }
                // Actions on the copy do not affect the frame.
                Some(("clone", inner)) if depth > 0 => {
                    let inner = inner.strip_suffix(')').unwrap_or(inner);
                    carry_out(inner, names, frame.clone(), depth - 1, outputs);
                }
                Some(("tnl_push", _)) => frame.is_wrapped = true,
                Some(("set", inner)) => frame.is_wrapped |= inner.starts_with("tunnel("),
                Some(("tnl_pop", _)) => frame.is_wrapped = false,
                Some(_) => {}
                None if outputs.len() < MAX_OUTPUTS => {
                    let port = quoted(names.get(action).unwrap_or(&action));
                    outputs.push(Output {
                        port,
                        vlan: frame.vlans.last().copied(),
                        is_wrapped: frame.is_wrapped,
                    });
                }
                None => {}
            },
        }
    }
}

/// Splits at commas outside brackets.
fn top_level(list: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0_usize;
    list.split(move |c: char| {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == ',' && depth == 0
    })
}
