//! The filter of a capture socket, as a classic BPF program (`Documentation/networking/filter.rst`): it passes outgoing
//! announcements, questions and membership reports of the given guests, and frames with a guest as their only destination. The kernel drops all
//! others without copying them. Where tunnels are given, the frames inside them are looked at instead.

use pnet_base::MacAddr;

use crate::path::tunnel::Encapsulation;
use crate::proof::membership::{HOP_BY_HOP, IGMP, MLDV1_REPORT, MLDV2_REPORT};

mod inner;

/// The number of bytes copied of a frame: all of any announcement or question with two VLAN tags, inside Geneve with all the options
/// that it can have, and eight groups of a membership report.
pub const SNAPLEN: usize = 512;
/// The number of guests in one program: a BPF jump reaches 255 instructions.
pub const MAX_GUESTS: usize = 64;

/// `struct sock_filter` (`include/uapi/linux/filter.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instruction {
    /// The operation code.
    pub code: u16,
    /// The number of instructions to skip if the comparison holds.
    pub jt: u8,
    /// The number of instructions to skip if it does not.
    pub jf: u8,
    /// The operand.
    pub k: u32,
}

// include/uapi/linux/bpf_common.h
const LD: u16 = 0x20;
const LD_X: u16 = 0x40;
const LDH_X: u16 = 0x48;
const LDB_X: u16 = 0x50;
const LD_SCRATCH: u16 = 0x60;
const LDX: u16 = 0x01;
const LDX_SCRATCH: u16 = 0x61;
const ST: u16 = 0x02;
const STX: u16 = 0x03;
const TAX: u16 = 0x07;
const TXA: u16 = 0x87;
const ADD: u16 = 0x04;
const ADD_X: u16 = 0x0c;
const AND: u16 = 0x54;
const LSH: u16 = 0x64;
const JA: u16 = 0x05;
const JEQ: u16 = 0x15;
const JGE: u16 = 0x35;
const JSET: u16 = 0x45;
const RET: u16 = 0x06;
/// `SKF_AD_OFF + SKF_AD_PKTTYPE`: the frame's direction.
const PACKET_TYPE: u32 = -0x1000i32 as u32 + 4;
const PACKET_OUTGOING: u32 = 4;
/// The place in the scratch memory for the offset of the frame that is looked at.
const BASE: u32 = 0;

const TAGGED: [u32; 2] = [0x8100, 0x88a8];
const ARP: u32 = 0x0806;
const RARP: u32 = 0x8035;
const IPV6: u32 = 0x86dd;
const ICMPV6: u32 = 58;
const IPV4: u32 = 0x0800;
const ROUTER_SOLICITATION: u32 = 133;
const ROUTER_ADVERTISEMENT: u32 = 134;
const NEIGHBOUR_SOLICITATION: u32 = 135;
const NEIGHBOUR_ADVERTISEMENT: u32 = 136;
const ARP_REPLY: u32 = 2;

/// The guests of a program, at most [`MAX_GUESTS`] per list; those beyond are not matched.
#[derive(Debug, Clone, Copy, Default)]
pub struct Guests<'a> {
    /// Guests whose outgoing announcements, questions and membership reports pass the filter.
    pub outward: &'a [MacAddr],
    /// Guests of whose frames only the membership reports pass.
    pub reports: &'a [MacAddr],
    /// Guests for which every incoming frame passes.
    pub inward: &'a [MacAddr],
    /// Guests for which ARP replies and advertisements pass, in either direction.
    pub answers: &'a [MacAddr],
    /// The tunnels inside which frames are looked for.
    pub tunnels: &'a [Encapsulation],
}

/// The program for `guests`. It compares the lower four bytes of a MAC.
pub fn program(guests: Guests<'_>) -> Vec<Instruction> {
    let (to_one, from_one) = (to_one(guests), from_one(guests));
    let mut program = inner::find_inner(guests.tunnels, BASE);
    program.extend([
        op(LDB_X, 0),        // the first byte of the destination:
        jump(JSET, 1, 0, 1), // a group address, perhaps an announcement;
        op(JA, to_one.len() as u32),
    ]);
    program.extend(to_one); // otherwise a unicast address
    program.extend(from_one);
    program
}

fn to_one(guests: Guests<'_>) -> Vec<Instruction> {
    let any = search(guests.inward);
    let mut program = vec![
        op(LD, PACKET_TYPE),
        jump(JEQ, PACKET_OUTGOING, 1 + any.len(), 0), // incoming,
        op(LD_X, 2),                                  // its destination
    ];
    program.extend(any);
    program.extend(ethertype());
    program.extend([
        jump(JEQ, ARP, 7, 0),
        jump(JEQ, IPV6, 0, 5),
        op(LDB_X, 20),
        jump(JEQ, ICMPV6, 0, 3),
        op(LDB_X, 54),
        jump(JEQ, NEIGHBOUR_ADVERTISEMENT, 5, 0),
        jump(JEQ, ROUTER_ADVERTISEMENT, 4, 0),
        op(RET, 0),
        op(LDH_X, 20),
        jump(JEQ, ARP_REPLY, 1, 0),
        op(RET, 0),
        op(LDX_SCRATCH, BASE),
        op(LD_X, 2), // its destination
    ]);
    program.extend(search(guests.answers));
    program.push(op(RET, 0));
    program
}

fn from_one(guests: Guests<'_>) -> Vec<Instruction> {
    let sender = [op(LDX_SCRATCH, BASE), op(LD_X, 8)];
    let reports = [&sender[..], &search(guests.reports)].concat();
    // Past the search among those of whom only reports pass.
    let past = reports.len();
    let mut program = ethertype().to_vec();
    program.extend([
        jump(JEQ, ARP, 16 + past, 0),
        jump(JEQ, RARP, 15 + past, 0),
        jump(JEQ, IPV4, 0, 2),
        op(LDB_X, 23),
        jump(JEQ, u32::from(IGMP), 12, 11),
        jump(JEQ, IPV6, 0, 10),
        op(LDB_X, 20),
        jump(JEQ, u32::from(HOP_BY_HOP), 0, 3),
        op(LDB_X, 62),
        jump(JEQ, u32::from(MLDV1_REPORT), 7, 0),
        jump(JEQ, u32::from(MLDV2_REPORT), 6, 5),
        jump(JEQ, ICMPV6, 0, 4),
        op(LDB_X, 54),
        jump(JEQ, NEIGHBOUR_ADVERTISEMENT, 3 + past, 0),
        jump(JEQ, NEIGHBOUR_SOLICITATION, 2 + past, 0),
        jump(JEQ, ROUTER_SOLICITATION, 1 + past, 0),
        op(RET, 0),
    ]);
    program.extend(reports);
    program.extend(sender);
    program.extend(search(guests.outward));
    program.push(op(RET, 0));
    program
}

/// Loads the Ethertype of the frame at the index register, behind up to two tags in the frame itself, whose length is added to that
/// register.
fn ethertype() -> [Instruction; 13] {
    [
        op(LDH_X, 12),
        jump(JEQ, TAGGED[0], 1, 0),
        jump(JEQ, TAGGED[1], 0, 10),
        op(TXA, 0),
        op(ADD, 4),
        op(TAX, 0),
        op(LDH_X, 12),
        jump(JEQ, TAGGED[0], 1, 0),
        jump(JEQ, TAGGED[1], 0, 4),
        op(TXA, 0),
        op(ADD, 4),
        op(TAX, 0),
        op(LDH_X, 12),
    ]
}

/// Passes a frame if the accumulator has one of these MACs (lower four bytes); otherwise the next instruction follows.
fn search(macs: &[MacAddr]) -> Vec<Instruction> {
    let mut keys: Vec<u32> = macs.iter().take(MAX_GUESTS).map(lower).collect();
    keys.sort_unstable();
    keys.dedup();
    let mut tree = Vec::new();
    if keys.is_empty() {
        tree.push(op(JA, 1));
    } else {
        let length = 2 * keys.len() - 1;
        branch(&keys, length, &mut tree);
    }
    tree.push(op(RET, SNAPLEN as u32));
    tree
}

/// The instruction at `length` passes the frame; the one after it continues.
fn branch(keys: &[u32], length: usize, tree: &mut Vec<Instruction>) {
    if let [key] = keys {
        let to_pass = length - tree.len() - 1;
        return tree.push(jump(JEQ, *key, to_pass, to_pass + 1));
    }
    let (left, right) = keys.split_at(keys.len() / 2);
    tree.push(jump(JGE, right[0], 2 * left.len() - 1, 0));
    branch(left, length, tree);
    branch(right, length, tree);
}

fn lower(mac: &MacAddr) -> u32 {
    u32::from_be_bytes([mac.2, mac.3, mac.4, mac.5])
}

fn op(code: u16, k: u32) -> Instruction {
    Instruction { code, jt: 0, jf: 0, k }
}

fn jump(code: u16, k: u32, jt: usize, jf: usize) -> Instruction {
    Instruction { code, jt: jt as u8, jf: jf as u8, k }
}

#[cfg(test)]
mod tests;
