//! The part of a filter that finds the Ethernet frame inside a tunnel's frame. It does not judge: what it takes for such a frame
//! is parsed by [`crate::proof::decapsulation`] once it is captured.

use super::{
    ADD, ADD_X, AND, IPV4, IPV6, Instruction, JA, JEQ, JSET, LD_SCRATCH, LDB_X, LDH_X, LDX, LSH, ST, STX,
    TAX, TXA, ethertype, op,
};
use crate::path::tunnel::Encapsulation;

/// The number of tunnels' UDP ports in one program; those beyond are not looked for.
const MAX_PORTS: usize = 32;
const UDP: u32 = 17;
const GRE: u32 = 47;
const IPV6_HEADER: u32 = 40;
/// From the end of the IP header, less the Ethernet header, to the frame inside VXLAN, and inside Geneve without options.
const TO_INNER: u32 = 14 + 8 + 8;
/// The same inside GRE without optional fields.
const TO_INNER_OF_GRE: u32 = 14 + 4;
const ETHERNET: u32 = 0x6558;
/// The place in the scratch memory for the protocol, then for GRE's flags.
const KEPT: u32 = 1;

/// The places to jump to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Label {
    Ipv4,
    Ipv6,
    Transport,
    Udp,
    Vxlan,
    Geneve,
    Headers,
    Gre,
    Fields,
    Plain,
    Found,
}

enum Line {
    Op(Instruction),
    /// Go there if the comparison holds; else the next line follows.
    If(u16, u32, Label),
    Go(Label),
    At(Label),
}

/// Puts the offset of the frame inside one of these tunnels, or 0 for any other frame, into the index register and into the
/// scratch memory at `base`.
pub(super) fn find_inner(tunnels: &[Encapsulation], base: u32) -> Vec<Instruction> {
    if tunnels.is_empty() {
        return vec![op(LDX, 0), op(STX, base)];
    }
    let mut lines = vec![Line::Op(op(LDX, 0))];
    lines.extend(ethertype().map(Line::Op));
    lines.extend([
        Line::If(JEQ, IPV4, Label::Ipv4),
        Line::If(JEQ, IPV6, Label::Ipv6),
        Line::Go(Label::Plain),
    ]);
    let has_gre = tunnels.contains(&Encapsulation::Gre);
    lines.extend(internet(has_gre));
    lines.extend(by_udp(tunnels));
    if has_gre {
        lines.extend(by_gre());
    }
    lines.extend([
        Line::At(Label::Plain),
        Line::Op(op(LDX, 0)),
        Line::At(Label::Found),
        Line::Op(op(STX, base)),
    ]);
    assembled(&lines)
}

/// From here on, the transport's header is 14 bytes behind the index register: what the tags and the IP header add to an Ethernet
/// header.
fn internet(has_gre: bool) -> Vec<Line> {
    let mut lines = vec![Line::At(Label::Ipv4)];
    // The protocol; then the header's length, in units of four bytes.
    lines.extend(
        [op(LDB_X, 23), op(ST, KEPT), op(LDB_X, 14), op(AND, 0x0f), op(LSH, 2), op(ADD_X, 0)].map(Line::Op),
    );
    lines.extend([Line::Op(op(TAX, 0)), Line::Go(Label::Transport), Line::At(Label::Ipv6)]);
    lines.extend([op(LDB_X, 20), op(ST, KEPT), op(TXA, 0), op(ADD, IPV6_HEADER), op(TAX, 0)].map(Line::Op));
    lines.extend([
        Line::At(Label::Transport),
        Line::Op(op(LD_SCRATCH, KEPT)),
        Line::If(JEQ, UDP, Label::Udp),
    ]);
    lines.extend(has_gre.then_some(Line::If(JEQ, GRE, Label::Gre)));
    lines.push(Line::Go(Label::Plain));
    lines
}

fn by_udp(tunnels: &[Encapsulation]) -> Vec<Line> {
    // The destination port.
    let mut lines = vec![Line::At(Label::Udp), Line::Op(op(LDH_X, 16))];
    lines.extend(tunnels.iter().take(MAX_PORTS).filter_map(|tunnel| match tunnel {
        Encapsulation::Vxlan(port) => Some(Line::If(JEQ, u32::from(*port), Label::Vxlan)),
        Encapsulation::Geneve(port) => Some(Line::If(JEQ, u32::from(*port), Label::Geneve)),
        Encapsulation::Gre => None,
    }));
    lines.extend([Line::Go(Label::Plain), Line::At(Label::Geneve)]);
    // The options' length, in units of four bytes.
    lines.extend([op(LDB_X, 22), op(AND, 0x3f), op(LSH, 2), op(ADD_X, 0)].map(Line::Op));
    lines.extend([Line::Go(Label::Headers), Line::At(Label::Vxlan), Line::Op(op(TXA, 0))]);
    lines.extend([Line::At(Label::Headers), Line::Op(op(ADD, TO_INNER)), Line::Op(op(TAX, 0))]);
    lines.push(Line::Go(Label::Found));
    lines
}

fn by_gre() -> Vec<Line> {
    let mut lines = vec![Line::At(Label::Gre), Line::Op(op(LDH_X, 16))];
    lines.extend([Line::If(JEQ, ETHERNET, Label::Fields), Line::Go(Label::Plain), Line::At(Label::Fields)]);
    lines.extend(
        [op(LDB_X, 14), op(ST, KEPT), op(TXA, 0), op(ADD, TO_INNER_OF_GRE), op(TAX, 0)].map(Line::Op),
    );
    for flag in [0x80, 0x20, 0x10] {
        lines.extend(
            [
                op(LD_SCRATCH, KEPT),
                Instruction { code: JSET, jt: 0, jf: 3, k: flag },
                op(TXA, 0),
                op(ADD, 4),
                op(TAX, 0),
            ]
            .map(Line::Op),
        );
    }
    lines.push(Line::Go(Label::Found));
    lines
}

/// The program, with jumps by numbers of instructions. Every label is behind its jumps.
fn assembled(lines: &[Line]) -> Vec<Instruction> {
    let is_instruction = |line: &&Line| !matches!(line, Line::At(_));
    let distance = |from: usize, label: Label| {
        let between =
            lines[from + 1..].iter().take_while(|line| !matches!(line, Line::At(at) if *at == label));
        between.filter(is_instruction).count() as u32
    };
    let instruction = |(at, line): (usize, &Line)| match line {
        Line::Op(instruction) => Some(*instruction),
        Line::If(code, k, label) => {
            Some(Instruction { code: *code, jt: distance(at, *label) as u8, jf: 0, k: *k })
        }
        Line::Go(label) => Some(op(JA, distance(at, *label))),
        Line::At(_) => None,
    };
    lines.iter().enumerate().filter_map(instruction).collect()
}
