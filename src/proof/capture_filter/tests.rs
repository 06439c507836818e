//! The filter's program, run by an interpreter, over the frames that it is for and others.

use std::net::IpAddr;

use proptest::prelude::*;

use super::*;
use crate::announcement::frame::{Frame, Kind, Style, round};
use crate::announcement::question::{questions, to_all_routers};
use crate::guest::gateway::{Gateway, Source};
use crate::proof::decapsulation::tests::{ALL as TUNNELS, encapsulated};

fn mac(n: u8) -> MacAddr {
    MacAddr(0xfa, 0x16, 0x3e, 0, n.wrapping_mul(37), n)
}

/// The kernel's interpreter, for the instructions used here. A jump beyond the end panics, a load beyond it refuses the
/// frame.
fn run(program: &[Instruction], frame: &[u8], outgoing: bool) -> u32 {
    let (mut a, mut x, mut at, mut scratch) = (0u32, 0usize, 0, [0u32; 16]);
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
            LDB_X => load(x + index, 1),
            LDH_X => load(x + index, 2),
            LD_X => load(x + index, 4),
            LD_SCRATCH | LDX | LDX_SCRATCH | ST | STX | TAX | TXA | ADD | ADD_X | AND | LSH => {
                match code {
                    LD_SCRATCH => a = scratch[index],
                    LDX => x = index,
                    LDX_SCRATCH => x = scratch[index] as usize,
                    ST => scratch[index] = a,
                    STX => scratch[index] = x as u32,
                    TAX => x = a as usize,
                    TXA => a = x as u32,
                    ADD => a += k,
                    ADD_X => a += x as u32,
                    AND => a &= k,
                    _ => a <<= k,
                }
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
    program(Guests { outward, inward, ..Guests::default() })
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
        let program = program(Guests { answers: &answers, ..Guests::default() });
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
    let (all, reports) = (of(&[mac(1)], &[]), Guests { reports: &[mac(1)], ..Guests::default() });
    let only_these = program(reports);
    assert!(sent(mac(1)).iter().all(|frame| !passes(&only_these, &frame.bytes, false)));
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
            let frame = tagged(frame, tags);
            assert!(passes(&all, &frame, true) && passes(&only_these, &frame, false), "{frame:x?}");
        }
        let mut other = frame.clone();
        other[6..12].copy_from_slice(&mac(200).octets());
        assert!(!passes(&all, &other, true) && !passes(&only_these, &other, false));
    }
    let outward: Vec<MacAddr> = (2..60).map(mac).collect();
    let both = program(Guests { outward: &outward, reports: &[mac(1)], ..Guests::default() });
    for (from, all_pass) in [(1, false), (2, true), (59, true)] {
        let mut report = igmp.clone();
        report[6..12].copy_from_slice(&mac(from).octets());
        assert!(passes(&both, &report, true), "{from}");
        assert!(sent(mac(from)).iter().all(|frame| passes(&both, &frame.bytes, true) == all_pass), "{from}");
    }
    for other in [frame(0x0800, &[(23, 17)]), frame(0x86dd, &[(62, 130)]), frame(0x86dd, &[(20, 17)])] {
        assert!(!passes(&all, &other, true), "{other:x?}");
    }
}

#[test]
fn frames_inside_tunnels_pass_as_they_would_outside() {
    let (macs, tunnels) = ([mac(1)], TUNNELS);
    let within = program(Guests {
        outward: &macs,
        inward: &macs,
        answers: &macs,
        tunnels: &tunnels,
        ..Guests::default()
    });
    let blind = program(Guests { outward: &macs, inward: &macs, answers: &macs, ..Guests::default() });
    let arrives = unicast(mac(1));
    let inner = sent(mac(1)).into_iter().map(|frame| (frame.bytes, true, true));
    let inner = inner.chain(sent(mac(200)).into_iter().map(|frame| (frame.bytes, true, false)));
    for (inner, outgoing, meant) in inner.chain([(arrives.clone(), false, true), (arrives, true, false)]) {
        assert_eq!(passes(&within, &inner, outgoing), meant, "not encapsulated");
        for (by, is_ipv6) in TUNNELS.into_iter().flat_map(|by| [(by, false), (by, true)]) {
            for inner_tags in [&[][..], &[[0x81, 0, 0, 7]]] {
                let frame = encapsulated(&tagged(&inner, inner_tags), by, is_ipv6);
                for tags in [&[][..], &[[0x81, 0, 0, 100]], &[[0x88, 0xa8, 0, 7], [0x81, 0, 0, 100]]] {
                    let frame = tagged(&frame, tags);
                    assert_eq!(passes(&within, &frame, outgoing), meant, "{by:?} {is_ipv6} {tags:?}");
                    assert!(!passes(&blind, &frame, outgoing));
                    let other = [Encapsulation::Vxlan(4790), Encapsulation::Geneve(6082)];
                    let guests = Guests {
                        outward: &macs,
                        inward: &macs,
                        answers: &macs,
                        tunnels: &other,
                        ..Guests::default()
                    };
                    assert!(!passes(&program(guests), &frame, outgoing), "another port");
                }
            }
        }
    }
}

/// `BPF_MAXINSNS` instructions, and jumps of one byte.
#[test]
fn a_program_of_all_that_it_can_hold_is_small_enough() {
    let macs: Vec<MacAddr> = (0..MAX_GUESTS as u8).map(mac).collect();
    let tunnels: Vec<Encapsulation> = (0..64).map(Encapsulation::Vxlan).collect();
    let guests = Guests { outward: &macs, inward: &macs, reports: &macs, answers: &macs, tunnels: &tunnels };
    let program = program(guests);
    assert!(program.len() < 4096, "{}", program.len());
    for port in [0, 31] {
        let inner = &sent(mac(1))[0].bytes;
        assert!(passes(&program, &encapsulated(inner, Encapsulation::Vxlan(port), false), true), "{port}");
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
        for tunnels in [&[][..], &TUNNELS] {
            run(&program(Guests { outward: &macs, inward: &macs, answers: &macs, tunnels, ..Guests::default() }), &frame, outgoing);
        }
    }

    #[test]
    fn it_ends_for_any_frame_inside_a_tunnel(
        inner in prop::collection::vec(any::<u8>(), 0..100),
        at in 0..100_usize,
        byte: u8,
        which in 0..3_usize,
        is_ipv6: bool,
    ) {
        let mut frame = encapsulated(&inner, TUNNELS[which], is_ipv6);
        if let Some(changed) = frame.get_mut(at) {
            *changed = byte;
        }
        let macs = [mac(1)];
        run(&program(Guests { outward: &macs, inward: &macs, answers: &macs, tunnels: &TUNNELS, ..Guests::default() }), &frame, true);
    }
}
