//! The answer of ovs-vswitchd to `ofproto/trace` (ovs-vswitchd(8)).
//!
//! It is a text for people: lines that are not understood are skipped, and quoted parts are truncated.

mod datapath;
mod foreign;
#[cfg(test)]
mod tests;
mod translation;

pub use datapath::Output;
use datapath::{leaves_by, names};
use foreign::lines;
pub use translation::End;
use translation::Walk;

/// The number of bridges and ports that a message names.
const MAX_NAMES: usize = 8;

/// What Open vSwitch does with a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The datapath's actions are "drop". A frame that is flooded to no port but the bridge's own is not dropped.
    pub dropped: bool,
    /// Where and why the frame ends, in one line: in the last bridge that passes it on, else in those that do not.
    pub deciding: String,
    /// How it ends in each bridge that it reaches, in order.
    pub ends: Vec<End>,
    /// The datapath ports by which it leaves, before any tunnel encapsulation or bond hash.
    pub outputs: Vec<Output>,
}

/// Reads the answer to `ofproto/trace` for a bridge; `None` if it has no datapath actions.
///
/// `ports` is the answer to `dpif/show`: a trace has port numbers only; names are an option of recent versions.
pub fn verdict(trace: &str, bridge: &str, ports: &str) -> Option<Verdict> {
    let names = names(ports, bridge);
    let mut walk = Walk::default();
    let mut actions = None;
    let mut outputs = Vec::new();
    for line in lines(trace) {
        match line.strip_prefix("Datapath actions: ") {
            Some(list) => {
                actions = Some(list);
                leaves_by(list, &names, &mut outputs);
            }
            None => walk.line(line),
        }
    }
    let ends = walk.ends();
    let dropped = actions? == "drop" || is_nowhere(&ends, &outputs);
    Some(Verdict { dropped, deciding: deciding(&ends, &outputs, None), ends, outputs })
}

fn is_nowhere(ends: &[End], outputs: &[Output]) -> bool {
    outputs.is_empty() && !ends.is_empty() && ends.iter().all(|end| end.dropped)
}

fn deciding(ends: &[End], outputs: &[Output], entry: Option<&str>) -> String {
    let (own, others): (Vec<&Output>, Vec<&Output>) =
        outputs.iter().partition(|output| ends.iter().any(|end| end.bridge == output.port));
    // Of a frame that leaves, a bridge for other networks drops a copy: that decides nothing.
    let is_deciding = |end: &&End| end.dropped == others.is_empty();
    let mut lines = ends.iter().filter(is_deciding).map(|end| end.line.clone());
    let mut words: Vec<String> = match others.is_empty() {
        true => lines.take(MAX_NAMES).collect(),
        false => lines.next_back().into_iter().collect(),
    };
    if words.is_empty() {
        words.push(ends.last().map_or_else(|| "no flow is named".into(), |end| end.line.clone()));
    }
    let is_entry = |output: &&Output| entry == Some(output.port.as_str());
    if let (Some(entry), false, true) = (entry, others.is_empty(), others.iter().all(is_entry)) {
        words.push(format!("goes to {entry} itself"));
    } else if !others.is_empty() {
        words.push(format!("goes to {}", list(&others)));
    } else if !own.is_empty() {
        words.push(format!("goes to no port but the bridge's own, {}", list(&own)));
    }
    words.join("; ")
}

fn list(outputs: &[&Output]) -> String {
    let named: Vec<String> = outputs.iter().take(MAX_NAMES).map(ToString::to_string).collect();
    match outputs.len().saturating_sub(MAX_NAMES) {
        0 => named.join(", "),
        more => format!("{} and {more} more", named.join(", ")),
    }
}

impl Verdict {
    /// The same for a frame that came in by this port: a flow may answer it, or send it back.
    pub fn entered_by(self, port: &str) -> Verdict {
        Verdict { deciding: deciding(&self.ends, &self.outputs, Some(port)), ..self }
    }

    /// The same without the outputs of mirrors, which copy also what is dropped.
    pub fn without(mut self, is_copy: impl Fn(&Output) -> bool) -> Verdict {
        self.outputs.retain(|output| !is_copy(output));
        let dropped = self.dropped || is_nowhere(&self.ends, &self.outputs);
        Verdict { dropped, deciding: deciding(&self.ends, &self.outputs, None), ..self }
    }

    /// The deciding line with port names in place of OpenFlow numbers, each number in its own bridge, as far as `name` knows
    /// them.
    pub fn deciding_by_name(&self, name: impl Fn(&str, u32) -> Option<String>) -> String {
        self.ends.iter().fold(self.deciding.clone(), |line, end| {
            line.replacen(&end.line, &with_port_names(&end.line, |ofport| name(&end.bridge, ofport)), 1)
        })
    }
}

/// `line` with port names in place of the OpenFlow numbers in `in_port=`, as far as `name` knows them.
pub fn with_port_names(line: &str, name: impl Fn(u32) -> Option<String>) -> String {
    let mut parts = line.split("in_port=");
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find(|c: char| !c.is_ascii_digit()).unwrap_or(part.len());
        let known = part[..end].parse().ok().and_then(&name);
        text += "in_port=";
        text += known.as_deref().unwrap_or(&part[..end]);
        text += &part[end..];
    }
    text
}
