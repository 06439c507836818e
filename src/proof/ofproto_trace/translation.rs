//! The translation of a frame in a trace: the bridges that it reaches, and the flow that decides in each.

use super::foreign::quoted;

const MAX_BRIDGES: usize = 64;
const NO_MATCH: &str = "no flow matches,";

/// How a frame ends in one bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// The bridge's name.
    pub bridge: String,
    /// The bridge does not pass it on.
    pub dropped: bool,
    /// The flow, its actions and Open vSwitch's remark: `br-int table 0: priority=100,rarp,in_port=tap0 actions=drop`.
    pub line: String,
}

/// A walk through a trace, whose indentation shows the bridge and flow of each line.
#[derive(Default)]
pub(super) struct Walk {
    /// The bridges and flows that the next line may belong to, with their indentation, innermost last.
    open: Vec<(usize, CapturePoint)>,
    visits: Vec<Visit>,
    step: Option<Step>,
}

enum CapturePoint {
    /// The index of the visit.
    Bridge(usize),
    Flow(Flow),
}

/// A flow that matched.
#[derive(Clone)]
struct Flow {
    /// The index of its visit.
    visit: usize,
    line: String,
    /// The flow before it, if this one matches everything.
    from: Option<String>,
}

/// The visit of a frame to one bridge.
#[derive(Default)]
struct Visit {
    bridge: String,
    /// The last flow that matched, without the bridge.
    flow: Option<String>,
    dropped: Option<String>,
    passed: Option<String>,
}

/// An action, with the remark that explains why it has no effect.
struct Step {
    flow: Flow,
    action: String,
    why_not: Option<String>,
}

impl Walk {
    /// Reads the next line.
    pub(super) fn line(&mut self, line: &str) {
        let text = line.trim_start_matches(' ');
        // Table numbers and the signs before remarks are indented a little further.
        let indent = (line.len() - text.len()) / 4 * 4;
        if let Some(remark) = text.strip_prefix("->").or_else(|| text.strip_prefix(">>")) {
            self.remark(text, remark);
        } else if let Some(name) = text.strip_prefix("bridge(\"").and_then(|t| t.strip_suffix("\")")) {
            self.close(|at, _| at >= indent);
            if self.visits.len() < MAX_BRIDGES {
                self.open.push((indent, CapturePoint::Bridge(self.visits.len())));
                self.visits.push(Visit { bridge: quoted(name), ..Visit::default() });
            }
        } else if let Some((table, flow)) = table_and_flow(text) {
            self.close(|at, place| at > indent || at == indent && matches!(place, CapturePoint::Flow(_)));
            if let Some((_, CapturePoint::Bridge(visit) | CapturePoint::Flow(Flow { visit, .. }))) =
                self.open.last()
            {
                let visit = *visit;
                let stay = &mut self.visits[visit];
                let takes_all = flow == NO_MATCH || !flow.contains(',');
                let flow = format!("table {table}: {flow}");
                let line = format!("{} {flow}", stay.bridge);
                let from = stay.flow.replace(flow).filter(|_| takes_all);
                self.open.push((indent, CapturePoint::Flow(Flow { visit, line, from })));
            }
        } else if indent > 0 && !text.starts_with("---") {
            self.close(|at, _| at >= indent);
            if let Some((_, CapturePoint::Flow(flow))) = self.open.last() {
                self.step = Some(Step { flow: flow.clone(), action: text.to_owned(), why_not: None });
            }
        }
    }

    fn close(&mut self, ends: impl Fn(usize, &CapturePoint) -> bool) {
        self.settle();
        while self.open.last().is_some_and(|(at, place)| ends(*at, place)) {
            self.open.pop();
        }
    }

    fn remark(&mut self, sign: &str, remark: &str) {
        let remark = remark.trim_matches(['<', '>', ' ']);
        let Some(step) = &mut self.step else {
            return;
        };
        // After ct() the trace drops packets that are not recirculated.
        if remark.contains("recirculate") {
            self.step = None;
        } else if step.why_not.is_none() && (sign.starts_with(">>") || remark.ends_with("dropping")) {
            step.why_not = Some(quoted(remark));
        }
    }

    /// Applies the last action after all remarks on it were read.
    fn settle(&mut self) {
        let Some(Step { flow: Flow { visit, line, from }, action, why_not }) = self.step.take() else {
            return;
        };
        let visit = &mut self.visits[visit];
        // While some client speaks OpenFlow below 1.3, Open vSwitch offers it the packets that no flow matches (`packet-in`).
        let is_miss = line.ends_with(NO_MATCH) && action.starts_with("controller");
        let action = if is_miss { "drop".into() } else { action };
        let line = format!("{line} actions={}", quoted(&action));
        match (why_not, from) {
            (Some(why), _) => visit.dropped = Some(format!("{line}: {why}")),
            (None, from) if action == "drop" => {
                visit.dropped = Some(line + &from.map_or_else(String::new, |from| format!(", from {from}")));
            }
            _ if passes_on(&action) => visit.passed = Some(line),
            _ => {}
        }
    }

    /// How the frame ended in each bridge.
    pub(super) fn ends(mut self) -> Vec<End> {
        self.settle();
        let end = |visit: Visit| {
            let Visit { bridge, flow, dropped, passed } = visit;
            let silent = || flow.map(|flow| format!("{bridge} {flow} does nothing more"));
            let (dropped, line) = match passed {
                Some(line) => (false, line),
                None if dropped.is_some() => (true, dropped?),
                None => (false, silent()?),
            };
            Some(End { bridge, dropped, line })
        };
        self.visits.into_iter().filter_map(end).collect()
    }
}

/// ` 0. in_port=2,dl_vlan=7, priority 4, cookie 0xabc` in the form of `ovs-ofctl dump-flows`.
fn table_and_flow(text: &str) -> Option<(u8, String)> {
    let (table, rule) = text.split_once(". ")?;
    let table = table.parse().ok()?;
    // The second is Open vSwitch's own flow for packets that match no other (`no_packet_in_rule`, ofproto-dpif.c).
    if rule.starts_with("No match") || rule == "reg0=0x2, priority 0" {
        return Some((table, NO_MATCH.into()));
    }
    let mut words = rule.split(", ");
    let (mut matches, mut priority) = ("", None);
    for word in &mut words {
        match word.strip_prefix("priority ") {
            Some(number) => priority = priority.or(Some(number)),
            None if priority.is_none() => matches = word,
            None => {}
        }
    }
    let priority = format!("priority={}", quoted(priority?));
    let matches = quoted(matches);
    Some((table, if matches.is_empty() { priority } else { format!("{priority},{matches}") }))
}

fn passes_on(action: &str) -> bool {
    let name = action.split([':', '(']).next().unwrap_or_default().to_ascii_lowercase();
    matches!(
        name.as_str(),
        "normal" | "flood" | "all" | "local" | "in_port" | "output" | "enqueue" | "controller"
    )
}
