//! The filter of a capture socket, as a classic BPF program (`Documentation/networking/filter.rst`): it passes outgoing
//! announcements, questions and membership reports of the given guests, and frames with a guest as their only destination. The kernel drops all
//! others without copying them.

use pnet_base::MacAddr;

/// The number of bytes copied of a frame: all of any announcement or question with two VLAN tags, and eight groups of a membership
/// report.
pub(crate) const SNAPLEN: usize = 256;
/// The number of guests in one program: a BPF jump reaches 255 instructions.
pub(crate) const MAX_GUESTS: usize = 64;

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
const LDB: u16 = 0x30;
const LDH: u16 = 0x28;
const LD: u16 = 0x20;
const LDH_X: u16 = 0x48;
const LDB_X: u16 = 0x50;
const LDX: u16 = 0x01;
const JA: u16 = 0x05;
const JEQ: u16 = 0x15;
const JGE: u16 = 0x35;
const JSET: u16 = 0x45;
const RET: u16 = 0x06;
/// `SKF_AD_OFF + SKF_AD_PKTTYPE`: the frame's direction.
const PACKET_TYPE: u32 = -0x1000i32 as u32 + 4;
const PACKET_OUTGOING: u32 = 4;

const TAGGED: [u32; 2] = [0x8100, 0x88a8];
const ARP: u32 = 0x0806;
const RARP: u32 = 0x8035;
const IPV6: u32 = 0x86dd;
const ICMPV6: u32 = 58;
const HOP_BY_HOP: u32 = 0;
const IPV4: u32 = 0x0800;
const IGMP: u32 = 2;
const MLDV1_REPORT: u32 = 131;
const MLDV2_REPORT: u32 = 143;
const ROUTER_SOLICITATION: u32 = 133;
const ROUTER_ADVERTISEMENT: u32 = 134;
const NEIGHBOUR_SOLICITATION: u32 = 135;
const NEIGHBOUR_ADVERTISEMENT: u32 = 136;
const ARP_REPLY: u32 = 2;

/// The guests of a program, at most [`MAX_GUESTS`] per list; those beyond are not matched.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Guests<'a> {
    /// Guests whose outgoing announcements, questions and membership reports pass the filter.
    pub outward: &'a [MacAddr],
    /// Guests for which every incoming frame passes.
    pub inward: &'a [MacAddr],
    /// Guests for which ARP replies and advertisements pass, in either direction.
    pub answers: &'a [MacAddr],
}

/// The program for `guests`. It compares the lower four bytes of a MAC.
pub(crate) fn program(guests: Guests<'_>) -> Vec<Instruction> {
    let (to_one, from_one) = (to_one(guests), from_one(guests.outward));
    let mut program = vec![
        op(LDB, 0),          // the first byte of the destination:
        jump(JSET, 1, 0, 1), // a group address, perhaps an announcement;
        op(JA, to_one.len() as u32),
    ];
    program.extend(to_one); // otherwise a unicast address
    program.extend(from_one);
    program
}

fn to_one(guests: Guests<'_>) -> Vec<Instruction> {
    let any = search(guests.inward);
    let mut program = vec![
        op(LD, PACKET_TYPE),
        jump(JEQ, PACKET_OUTGOING, 1 + any.len(), 0), // incoming,
        op(LD, 2),                                    // its destination
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
        op(LD, 2), // its destination
    ]);
    program.extend(search(guests.answers));
    program.push(op(RET, 0));
    program
}

fn from_one(outward: &[MacAddr]) -> Vec<Instruction> {
    let mut program = ethertype().to_vec();
    program.extend([
        jump(JEQ, ARP, 16, 0),
        jump(JEQ, RARP, 15, 0),
        jump(JEQ, IPV4, 0, 2),
        op(LDB_X, 23),
        jump(JEQ, IGMP, 12, 11),
        jump(JEQ, IPV6, 0, 10),
        op(LDB_X, 20),
        jump(JEQ, HOP_BY_HOP, 0, 3),
        op(LDB_X, 62),
        jump(JEQ, MLDV1_REPORT, 7, 0),
        jump(JEQ, MLDV2_REPORT, 6, 5),
        jump(JEQ, ICMPV6, 0, 4),
        op(LDB_X, 54),
        jump(JEQ, NEIGHBOUR_ADVERTISEMENT, 3, 0),
        jump(JEQ, NEIGHBOUR_SOLICITATION, 2, 0),
        jump(JEQ, ROUTER_SOLICITATION, 1, 0),
        op(RET, 0),
        op(LD, 8), // its sender hardware address
    ]);
    program.extend(search(outward));
    program.push(op(RET, 0));
    program
}

/// Loads the Ethertype behind up to two tags in the frame itself. The index register gets the tags' length.
fn ethertype() -> [Instruction; 10] {
    [
        op(LDX, 0),
        op(LDH, 12),
        jump(JEQ, TAGGED[0], 1, 0),
        jump(JEQ, TAGGED[1], 0, 6),
        op(LDX, 4),
        op(LDH_X, 12),
        jump(JEQ, TAGGED[0], 1, 0),
        jump(JEQ, TAGGED[1], 0, 2),
        op(LDX, 8),
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
mod tests {
    use std::net::IpAddr;

    use proptest::prelude::*;

    use super::*;
    use crate::announcement::frame::{Frame, Kind, Style, round};
    use crate::announcement::question::{questions, to_all_routers};
    use crate::guest::gateway::{Gateway, Source};

    fn mac(n: u8) -> MacAddr {
        MacAddr(0xfa, 0x16, 0x3e, 0, n.wrapping_mul(37), n)
    }

    /// The kernel's interpreter, for the instructions used here. A jump beyond the end panics, a load beyond it refuses the
    /// frame.
    fn run(program: &[Instruction], frame: &[u8], outgoing: bool) -> u32 {
        let (mut a, mut x, mut at) = (0, 0usize, 0);
        loop {
            let Instruction { code, jt, jf, k } = program[at];
            at += 1;
            let mut load = |from: usize, bytes: usize| {
                let bytes = frame.get(from..from + bytes)?;
                a = bytes.iter().fold(0, |sum, byte| sum << 8 | u32::from(*byte));
                Some(())
            };
            let index = k as usize;
            let loaded = match code {
                LD if k == PACKET_TYPE => {
                    a = if outgoing { PACKET_OUTGOING } else { 0 };
                    Some(())
                }
                LDB => load(index, 1),
                LDH => load(index, 2),
                LD => load(index, 4),
                LDB_X => load(x + index, 1),
                LDH_X => load(x + index, 2),
                LDX => {
                    x = index;
                    Some(())
                }
                JA => {
                    at += index;
                    Some(())
                }
                RET => return k,
                _ => {
                    let holds = match code {
                        JEQ => a == k,
                        JGE => a >= k,
                        JSET => a & k != 0,
                        other => panic!("{other:#x} is no known instruction"),
                    };
                    at += usize::from(if holds { jt } else { jf });
                    Some(())
                }
            };
            if loaded.is_none() {
                return 0;
            }
        }
    }

    fn passes(program: &[Instruction], frame: &[u8], outgoing: bool) -> bool {
        run(program, frame, outgoing) as usize == SNAPLEN
    }

    fn tagged(frame: &[u8], tags: &[[u8; 4]]) -> Vec<u8> {
        [&frame[..12], &tags.concat(), &frame[12..]].concat()
    }

    fn unicast(to: MacAddr) -> Vec<u8> {
        let mut frame = vec![0; 60];
        frame[..6].copy_from_slice(&to.octets());
        frame
    }

    fn of(outward: &[MacAddr], inward: &[MacAddr]) -> Vec<Instruction> {
        program(Guests { outward, inward, answers: &[] })
    }

    /// Every frame that is sent for a guest with two addresses.
    fn sent(mac: MacAddr) -> Vec<Frame> {
        let ips: [IpAddr; 2] = ["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()];
        let gateway = Gateway::of_all("192.0.2.254".parse().unwrap(), Source::Operator);
        let mut questions = questions(&ips, &[gateway], false, &Kind::ALL);
        questions.extend(to_all_routers(&ips, &Kind::ALL));
        let asked = questions.iter().filter_map(|question| question.frame(mac));
        round(mac, &ips, &Style::default()).into_iter().chain(asked).collect()
    }

    #[test]
    fn the_frames_of_the_given_guests_pass_with_and_without_tags() {
        const INNER: [u8; 4] = [0x81, 0, 0, 100];
        const OUTER: [u8; 4] = [0x88, 0xa8, 0, 7];
        for count in [1, 2, 3, 7, MAX_GUESTS] {
            let macs: Vec<MacAddr> = (0..count as u8).map(mac).collect();
            let program = of(&macs, &[]);
            for (mac, meant) in macs.iter().map(|mac| (*mac, true)).chain([(mac(200), false)]) {
                for frame in sent(mac) {
                    for tags in [&[][..], &[INNER], &[OUTER], &[OUTER, INNER], &[INNER, INNER]] {
                        let frame_on_wire = tagged(&frame.bytes, tags);
                        assert!(frame_on_wire.len() <= SNAPLEN);
                        assert_eq!(
                            passes(&program, &frame_on_wire, true),
                            meant,
                            "{count}: {} of {mac} with {tags:?}",
                            frame.kind
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn a_frame_for_a_guest_passes_only_if_incoming() {
        let program = of(&[mac(1), mac(2)], &[mac(2)]);
        assert!(passes(&program, &unicast(mac(2)), false));
        assert!(!passes(&program, &unicast(mac(2)), true));
        assert!(!passes(&program, &unicast(mac(1)), false));
    }

    #[test]
    fn of_the_frames_for_a_guest_only_answers_pass_in_either_direction() {
        let arp = |operation: u8| {
            let mut frame = unicast(mac(2));
            frame[12..14].copy_from_slice(&[8, 6]);
            frame[21] = operation;
            frame
        };
        let icmpv6 = |kind: u8| {
            let mut frame = unicast(mac(2));
            frame[12..14].copy_from_slice(&[0x86, 0xdd]);
            (frame[20], frame[54]) = (58, kind);
            frame
        };
        for count in [1, 3, MAX_GUESTS as u8] {
            let answers: Vec<MacAddr> = (2..2 + count).map(mac).collect();
            let program = program(Guests { outward: &[], inward: &[], answers: &answers });
            for outgoing in [false, true] {
                for (frame, answer) in [
                    (arp(2), true),
                    (arp(1), false),
                    (icmpv6(136), true),
                    (icmpv6(134), true),
                    (icmpv6(135), false),
                    (unicast(mac(2)), false),
                ] {
                    for tags in [&[][..], &[[0x81, 0, 0, 100]], &[[0x88, 0xa8, 0, 7], [0x81, 0, 0, 100]]] {
                        assert_eq!(passes(&program, &tagged(&frame, tags), outgoing), answer, "{frame:x?}");
                    }
                    let mut other = frame;
                    other[..6].copy_from_slice(&mac(200).octets());
                    assert!(!passes(&program, &other, outgoing));
                }
            }
        }
    }

    #[test]
    fn membership_reports_of_the_given_guests_pass() {
        let program = of(&[mac(1)], &[]);
        let frame = |ethertype: u16, at: &[(usize, u8)]| {
            let mut frame = unicast(MacAddr(0x33, 0x33, 0, 0, 0, 0x16));
            frame.resize(90, 0);
            frame[6..12].copy_from_slice(&mac(1).octets());
            frame[12..14].copy_from_slice(&ethertype.to_be_bytes());
            at.iter().for_each(|(at, byte)| frame[*at] = *byte);
            frame
        };
        let igmp = frame(0x0800, &[(23, 2)]);
        let mld = [131, 143].map(|kind| frame(0x86dd, &[(20, 0), (62, kind)]));
        for frame in [&igmp, &mld[0], &mld[1]] {
            for tags in [&[][..], &[[0x81, 0, 0, 100]]] {
                assert!(passes(&program, &tagged(frame, tags), true), "{frame:x?}");
            }
            let mut other = frame.clone();
            other[6..12].copy_from_slice(&mac(200).octets());
            assert!(!passes(&program, &other, true));
        }
        for other in [frame(0x0800, &[(23, 17)]), frame(0x86dd, &[(62, 130)]), frame(0x86dd, &[(20, 17)])] {
            assert!(!passes(&program, &other, true), "{other:x?}");
        }
    }

    #[test]
    fn nothing_else_passes() {
        let program = of(&[mac(1)], &[mac(1)]);
        let mut broadcast = unicast(MacAddr::broadcast());
        broadcast[6..12].copy_from_slice(&mac(1).octets());
        broadcast[12..14].copy_from_slice(&[8, 0]);
        assert!(!passes(&program, &broadcast, true), "an IPv4 broadcast");
        assert!(!passes(&program, &[], true));
        let advertisement = &round(mac(1), &["2001:db8::1".parse().unwrap()], &Style::default())[0].bytes;
        let mut echo = advertisement.clone();
        echo[54] = 128;
        assert!(passes(&program, advertisement, true) && !passes(&program, &echo, true));
    }

    proptest! {
        #[test]
        fn the_program_ends_for_any_frame(frame in prop::collection::vec(any::<u8>(), 0..100), outgoing: bool, count in 0..70u8) {
            let macs: Vec<MacAddr> = (0..count).map(mac).collect();
            run(&program(Guests { outward: &macs, inward: &macs, answers: &macs }), &frame, outgoing);
        }
    }
}
