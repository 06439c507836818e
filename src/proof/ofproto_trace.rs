//! The answers of ovs-vswitchd to `ofproto/trace`, `dpif/show` and `fdb/show` (ovs-vswitchd(8)).
//!
//! These are texts for people: lines that are not understood are skipped, and quoted parts are truncated.

use std::collections::BTreeMap;
use std::fmt;

use pnet_base::MacAddr;

/// Longer traces are truncated. Open vSwitch ends a trace after 4096 resubmits.
const MAX_LINES: usize = 50_000;
const MAX_BRIDGES: usize = 64;
const MAX_OUTPUTS: usize = 10_000;
/// The nesting of copies from patch port to patch port.
const MAX_DEPTH: usize = 16;
/// The number of bridges and ports that a message names.
const MAX_NAMES: usize = 8;
const NO_MATCH: &str = "no flow matches,";
/// The length of a quotation, in characters.
const MAX_QUOTE: usize = 300;

/// What Open vSwitch does with a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The datapath's actions are "drop". A frame that is flooded to no port but the bridge's own is not dropped.
    pub dropped: bool,
    /// Where and why the frame ends, in one line: in the bridges that do not pass it on, else in the last one.
    pub deciding: String,
    /// How it ends in each bridge that it reaches, in order.
    pub ends: Vec<End>,
    /// The datapath ports by which it leaves, before any tunnel encapsulation or bond hash.
    pub outputs: Vec<Output>,
}

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

/// Reads the answer to `ofproto/trace` for a bridge; `None` if it has no datapath actions.
///
/// `ports` is the answer to `dpif/show`: a trace has port numbers only; names are an option of recent versions.
pub fn verdict(trace: &str, bridge: &str, ports: &str) -> Option<Verdict> {
    let names = names(ports, bridge);
    let mut walk = Walk::default();
    let mut actions = None;
    let mut outputs = Vec::new();
    for line in trace.lines().take(MAX_LINES) {
        match line.strip_prefix("Datapath actions: ") {
            Some(list) => {
                actions = Some(list);
                outputs.extend(leaves_by(list, &names));
            }
            None => walk.line(line),
        }
    }
    let dropped = actions? == "drop";
    let ends = walk.ends();
    Some(Verdict { dropped, deciding: deciding(&ends, &outputs), ends, outputs })
}

/// The port names of the datapath that contains the bridge, by number: `    up0 1/3: (system)` is number 3.
fn names<'a>(ports: &'a str, bridge: &str) -> BTreeMap<&'a str, &'a str> {
    let mut names = BTreeMap::new();
    let mut is_it = false;
    for line in ports.lines().take(MAX_LINES) {
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

fn deciding(ends: &[End], outputs: &[Output]) -> String {
    let mut words: Vec<String> =
        ends.iter().filter(|end| end.dropped).map(|end| end.line.clone()).take(MAX_NAMES).collect();
    if words.is_empty() {
        words.push(ends.last().map_or_else(|| "no flow is named".into(), |end| end.line.clone()));
    }
    let (own, others): (Vec<&Output>, Vec<&Output>) =
        outputs.iter().partition(|output| ends.iter().any(|end| end.bridge == output.port));
    if !others.is_empty() {
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

/// The ports in a list of datapath actions, each with the frame's VLAN at that point.
fn leaves_by(actions: &str, names: &BTreeMap<&str, &str>) -> Vec<Output> {
    let mut outputs = Vec::new();
    carry_out(actions, names, Frame::default(), MAX_DEPTH, &mut outputs);
    outputs
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

/// Foreign text, safe within a line. Quotes around names are removed.
fn quoted(text: &str) -> String {
    let mut kept: String = text.chars().filter(|c| !c.is_control() && *c != '"').take(MAX_QUOTE).collect();
    if text.chars().nth(MAX_QUOTE).is_some() {
        kept.push('…');
    }
    kept
}

/// A walk through a trace, whose indentation shows the bridge and flow of each line.
#[derive(Default)]
struct Walk {
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
    fn line(&mut self, line: &str) {
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

    fn ends(mut self) -> Vec<End> {
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
    if rule == "No match." || rule == "reg0=0x2, priority 0" {
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

impl Verdict {
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

/// A port in a bridge's FDB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Port {
    /// Its OpenFlow number.
    Number(u32),
    /// The bridge's own port.
    Local,
}

/// The port behind which `mac` was last seen, in `vlan` or in any VLAN, from the answer to `fdb/show`.
pub fn learned(table: &str, mac: MacAddr, vlan: Option<u16>) -> Option<Port> {
    // The most recent entry is the last one.
    table.lines().rev().find_map(|line| {
        let mut columns = line.split_whitespace();
        let port = match columns.next()? {
            "LOCAL" => Port::Local,
            number => Port::Number(number.parse().ok()?),
        };
        let of: u16 = columns.next()?.parse().ok()?;
        let address: MacAddr = columns.next()?.parse().ok()?;
        (address == mac && vlan.is_none_or(|vlan| vlan == of)).then_some(port)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::announcement::frame::{self, Kind, Style};
    use crate::proof::ofproto_flow::flow;

    /// Answers of Open vSwitch 3.1.0; OpenFlow port 5 is `tap0`, and `up0` the uplink.
    macro_rules! answer {
        ($name:literal) => {
            include_str!(concat!("../../tests/data/ofproto/", $name, ".txt"))
        };
    }

    #[test]
    fn a_port_number_belongs_to_its_bridge() {
        let line = |bridge: &str| format!("{bridge} table 0: priority=2,in_port=2 actions=drop");
        let end = |bridge: &str| End { bridge: bridge.into(), dropped: true, line: line(bridge) };
        let ends = vec![end("br-int"), end("br-ex")];
        let verdict = Verdict { dropped: true, deciding: deciding(&ends, &[]), ends, outputs: Vec::new() };
        let name = |bridge: &str, ofport| Some(format!("{bridge}-{ofport}"));
        let named = "br-int table 0: priority=2,in_port=br-int-2 actions=drop; \
                     br-ex table 0: priority=2,in_port=br-ex-2 actions=drop";
        assert_eq!(verdict.deciding_by_name(name), named);
    }

    #[test]
    fn known_ports_appear_by_name() {
        let name = |number| (number == 5).then(|| "tap0".to_owned());
        let line = "br-int table 0: priority=100,rarp,in_port=5 actions=drop, from in_port=51,in_port=";
        let named = "br-int table 0: priority=100,rarp,in_port=tap0 actions=drop, from in_port=51,in_port=";
        assert_eq!(with_port_names(line, name), named);
    }

    const MAC: MacAddr = MacAddr(0xfa, 0x16, 0x3e, 0, 0, 0x0a);

    fn read(answer: &str) -> Verdict {
        let (trace, ports) = answer.split_once("== dpif/show\n").unwrap();
        verdict(trace, "br-int", ports).unwrap()
    }

    fn passes(answer: &str, deciding: &str) {
        let verdict = read(answer);
        assert_eq!((verdict.dropped, verdict.deciding.as_str()), (false, deciding));
    }

    fn drops(answer: &str, deciding: &str) {
        let verdict = read(answer);
        assert_eq!((verdict.dropped, verdict.deciding.as_str()), (true, deciding));
        assert_eq!(verdict.outputs, []);
    }

    #[test]
    fn outputs_have_their_vlan() {
        passes(answer!("healthy"), "br-int table 0: priority=0 actions=NORMAL; goes to up0 in VLAN 100");
        passes(
            answer!("pipeline-arp"),
            "br-int table 94: priority=1 actions=NORMAL; goes to up0 in VLAN 100",
        );
    }

    /// Open vSwitch forwards in neutron's dead VLAN as in any other, and ignores an access port's trunks.
    #[test]
    fn a_wrong_tag_is_seen_in_the_vlan() {
        passes(answer!("dead-vlan"), "br-int table 0: priority=0 actions=NORMAL; goes to up0 in VLAN 4095");
        passes(
            answer!("leftover-trunks"),
            "br-int table 0: priority=0 actions=NORMAL; goes to up0 in VLAN 7",
        );
    }

    #[test]
    fn the_port_drops_it() {
        let remark = "br-int table 0: priority=0 actions=NORMAL: \
                      dropping VLAN 0 packet received on port tap0 not configured for trunking VLAN 0";
        drops(answer!("dead-port"), remark);
        drops(answer!("leftover-trunk-mode"), remark);
        drops(answer!("no-receive"), "br-int table 0: priority=32768 does nothing more");
    }

    #[test]
    fn the_uplink_is_not_in_the_vlan() {
        passes(
            answer!("uplink-without-vlan"),
            "br-int table 0: priority=0 actions=NORMAL; goes to no port but the bridge's own, br-int in VLAN 200",
        );
    }

    #[test]
    fn a_flow_drops_rarp_only() {
        drops(answer!("rarp-only-rarp"), "br-int table 0: priority=100,rarp,in_port=5 actions=drop");
        passes(
            answer!("rarp-only-arp"),
            "br-int table 0: priority=0 actions=NORMAL; goes to up0 in VLAN 100",
        );
    }

    #[test]
    fn a_catch_all_drop_names_the_flow_before_it() {
        drops(
            answer!("pipeline-rarp"),
            "br-int table 93: priority=0 actions=drop, from table 71: priority=10,reg5=0x5",
        );
    }

    #[test]
    fn no_flow_matches_it() {
        drops(answer!("no-flows"), "br-int table 0: no flow matches, actions=drop");
        drops(answer!("conntrack"), "br-int table 5: no flow matches, actions=drop");
    }

    #[test]
    fn a_flow_leads_nowhere() {
        let flow = "br-int table 0: priority=77,in_port=5 actions=resubmit(,0)";
        drops(answer!("loop"), &format!("{flow}: over max translation depth 64"));
        let flow = "br-int table 0: priority=1,in_port=5 actions=output:42";
        drops(answer!("no-such-output"), &format!("{flow}: Nonexistent output port"));
        passes(answer!("controller"), "br-int table 0: priority=77,in_port=5 actions=CONTROLLER:65535");
    }

    /// br-tun drops frames of networks without tunnels: that alone is no fault.
    const BR_TUN: &str = "br-tun table 22: priority=0 actions=drop, \
                          from table 2: priority=0,dl_dst=01:00:00:00:00:00/01:00:00:00:00:00";

    #[test]
    fn beyond_patch_ports_each_bridge_has_its_end() {
        passes(answer!("provider"), &format!("{BR_TUN}; goes to up0 in VLAN 100"));
        let ends = read(answer!("provider")).ends;
        let told: Vec<_> =
            ends.iter().map(|end| (end.bridge.as_str(), end.dropped, end.line.as_str())).collect();
        assert_eq!(
            told,
            [
                ("br-int", false, "br-int table 0: priority=32768 actions=NORMAL"),
                ("br-ex", false, "br-ex table 0: priority=4,in_port=2,dl_vlan=7 actions=NORMAL"),
                ("br-tun", true, BR_TUN),
            ]
        );
        let by_a_group = read(answer!("group"));
        assert_eq!(by_a_group.outputs, [Output { port: "up0".into(), vlan: Some(100), is_wrapped: false }]);
        assert_eq!(by_a_group.ends[1].line, "br-ex table 0: priority=4,in_port=2,dl_vlan=7 actions=output:1");
    }

    #[test]
    fn the_provider_bridge_does_not_know_the_vlan() {
        let own = "goes to no port but the bridge's own, br-int in VLAN 7";
        let line = "br-ex table 0: priority=2,in_port=2 actions=drop";
        passes(answer!("provider-without-translation"), &format!("{line}; {BR_TUN}; {own}"));
        let line = "br-ex table 0: no flow matches, actions=drop";
        passes(answer!("provider-without-flows"), &format!("{line}; {BR_TUN}; {own}"));
    }

    #[test]
    fn ports_are_distinguished_from_other_actions() {
        let outputs = leaves_by(
            "set(tunnel(a,b)),2,push_vlan(vid=7,pcp=0),1,push_vlan(vid=8,pcp=0),3,pop_vlan,4,pop_vlan,5",
            &BTreeMap::from([("1", "br-int")]),
        );
        let told: Vec<String> = outputs.iter().map(ToString::to_string).collect();
        assert_eq!(told, ["2 untagged", "br-int in VLAN 7", "3 in VLAN 8", "4 in VLAN 7", "5 untagged"]);
        let told = leaves_by("push_vlan(vid=7,pcp=0),clone(pop_vlan,clone(2),3),4", &BTreeMap::new());
        let told: Vec<String> = told.iter().map(ToString::to_string).collect();
        assert_eq!(told, ["2 untagged", "3 untagged", "4 in VLAN 7"]);
        assert_eq!(leaves_by(&"clone(".repeat(100_000), &BTreeMap::new()), []);
        assert_eq!(leaves_by("hash(hash_l4(0)),recirc(0x1)", &BTreeMap::new()), []);
    }

    /// Each datapath numbers its ports itself.
    #[test]
    fn the_ports_of_another_datapath_are_others() {
        let ports = "netdev@ovs-netdev: hit:0 missed:0\n  br-a:\n    br-a 65534/1: (tap)\n    a 1/2: (system)\n\
                     system@ovs-system: hit:0 missed:0\n  br-b:\n    b 1/2: (system)\n    p 2/none: (patch: peer=q)\n";
        assert_eq!(names(ports, "br-a"), BTreeMap::from([("1", "br-a"), ("2", "a")]));
        assert_eq!(names(ports, "br-b"), BTreeMap::from([("2", "b"), ("none", "p")]));
    }

    #[test]
    fn a_text_that_is_no_trace_has_no_verdict() {
        assert_eq!(verdict("", "br-int", ""), None);
        assert_eq!(verdict(answer!("fdb"), "br-int", answer!("fdb")), None);
    }

    #[test]
    fn the_most_recent_entry_counts() {
        let learned = |last, vlan| learned(answer!("fdb"), MacAddr(0xfa, 0x16, 0x3e, 0, 0, last), vlan);
        assert_eq!(learned(0x0a, None), Some(Port::Number(5)));
        assert_eq!(learned(0x0a, Some(7)), Some(Port::Number(5)));
        assert_eq!(learned(0x0a, Some(0)), Some(Port::Local));
        assert_eq!(learned(0x0a, Some(100)), None);
        assert_eq!(learned(0x0c, None), Some(Port::Number(5)), "a static entry");
        assert_eq!(learned(0x0d, None), None);
    }

    #[test]
    fn our_frames_are_described() {
        let addresses = ["192.0.2.10", "2001:db8::a"].map(|ip| ip.parse().unwrap());
        let frames = frame::round(MAC, &addresses, &Style::default());
        let told = |kind| {
            let frame = frames.iter().find(|frame| frame.kind == kind).unwrap();
            flow(5, &frame.bytes).unwrap()
        };
        let from = "in_port=5,dl_src=fa:16:3e:00:00:0a";
        assert_eq!(
            told(Kind::Rarp),
            format!(
                "{from},dl_dst=ff:ff:ff:ff:ff:ff,rarp,arp_op=3,arp_spa=0.0.0.0,arp_tpa=0.0.0.0,\
                 arp_sha=fa:16:3e:00:00:0a,arp_tha=fa:16:3e:00:00:0a"
            )
        );
        assert_eq!(
            told(Kind::Na),
            format!(
                "{from},dl_dst=33:33:00:00:00:01,icmp6,ipv6_src=2001:db8::a,ipv6_dst=ff02::1,nw_ttl=255,\
                 icmpv6_type=136,icmpv6_code=0,nd_target=2001:db8::a,nd_tll=fa:16:3e:00:00:0a"
            )
        );
        let of = |frame: frame::Frame| flow(5, &frame.bytes).unwrap();
        let guest = "2001:db8::a".parse().unwrap();
        assert_eq!(
            of(frame::ask(MAC, [192, 0, 2, 10].into(), [192, 0, 2, 1].into())),
            format!(
                "{from},dl_dst=ff:ff:ff:ff:ff:ff,arp,arp_op=1,arp_spa=192.0.2.10,arp_tpa=192.0.2.1,\
                 arp_sha=fa:16:3e:00:00:0a,arp_tha=00:00:00:00:00:00"
            )
        );
        assert_eq!(
            of(frame::solicitation(MAC, guest, "2001:db8::".parse().unwrap())),
            format!(
                "{from},dl_dst=33:33:ff:00:00:00,icmp6,ipv6_src=2001:db8::a,ipv6_dst=ff02::1:ff00:0,nw_ttl=255,\
                 icmpv6_type=135,icmpv6_code=0,nd_target=2001:db8::,nd_sll=fa:16:3e:00:00:0a"
            )
        );
        assert_eq!(
            of(frame::router_solicitation(MAC, guest)),
            format!(
                "{from},dl_dst=33:33:00:00:00:02,icmp6,ipv6_src=2001:db8::a,ipv6_dst=ff02::2,nw_ttl=255,\
                 icmpv6_type=133,icmpv6_code=0"
            )
        );
        assert_eq!(flow(5, &frames[0].bytes[..41]), None, "half an ARP");
    }
}
