//! The capture filter: for any guests and any frame, the program in an interpreter says what the description says, of a frame inside a
//! tunnel as of one outside.
#![no_main]

use announced::for_tests::capture_filter::{Guests, Instruction, MAX_GUESTS, SNAPLEN, program};
use announced::for_tests::decapsulation::decapsulated;
use announced::for_tests::tunnel::Encapsulation;
use announced_fuzz::Bytes;
use libfuzzer_sys::fuzz_target;
use pnet_base::MacAddr;

fuzz_target!(|input: &[u8]| {
    let mut bytes = Bytes(input);
    let counts = bytes.take::<4>().map(|count| usize::from(count) % (MAX_GUESTS + 8));
    let outgoing = bytes.bit();
    let [outward, inward, reports, answers] = counts.map(|count| macs(count, &mut bytes));
    let tunnels = &TUNNELS[..bytes.below(TUNNELS.len() + 1)];
    let guests = Guests { outward: &outward, inward: &inward, reports: &reports, answers: &answers, tunnels };
    let program = program(guests);
    assert!(program.len() <= 4096, "the kernel's limit (BPF_MAXINSNS)");
    let frame = framed(&mut bytes, &guests);
    let passes = run(&program, &frame, outgoing);
    assert!(passes == 0 || passes == SNAPLEN as u32);
    let judged = match decapsulated(&frame, tunnels) {
        Some((_, inner)) => inner,
        None if tunnels.is_empty() => &frame,
        // The filter may take it for one inside a tunnel: it does not judge.
        None => return,
    };
    assert_eq!(passes > 0, is_described(&guests, judged, outgoing), "{frame:02x?}");
});

const TUNNELS: [Encapsulation; 4] =
    [Encapsulation::Vxlan(4789), Encapsulation::Geneve(6081), Encapsulation::Gre, Encapsulation::Vxlan(6081)];

/// Some MACs that are alike.
fn macs(count: usize, bytes: &mut Bytes<'_>) -> Vec<MacAddr> {
    let start = bytes.u8();
    (0..count).map(|n| MacAddr(0xfa, 0x16, 0x3e, 0, start, (n as u8).wrapping_mul(37))).collect()
}

/// The rest of the input as a frame, for or from one of the guests if it says so.
fn framed(bytes: &mut Bytes<'_>, guests: &Guests<'_>) -> Vec<u8> {
    let (list, which, place) = (bytes.u8(), usize::from(bytes.u8()), bytes.u8());
    let mut frame = bytes.0.to_vec();
    let list = [guests.outward, guests.inward, guests.answers, guests.reports][usize::from(list % 4)];
    // As a destination or a source, outside or in some tunnel.
    let start = [0, 50, 54, 42, 70][usize::from(place / 2) % 5];
    let at = if place & 1 != 0 { start..start + 6 } else { start + 6..start + 12 };
    if let (Some(mac), Some(to)) = (list.get(which % list.len().max(1)), frame.get_mut(at)) {
        to.copy_from_slice(&mac.octets());
    }
    frame
}

/// As the module's page tells.
fn is_described(guests: &Guests<'_>, frame: &[u8], outgoing: bool) -> bool {
    let is_of = |list: &[MacAddr], at: usize| {
        let tail = frame.get(at + 2..at + 6);
        list.iter().take(MAX_GUESTS).any(|mac| tail == Some(&mac.octets()[2..]))
    };
    let Some(first) = frame.first() else { return false };
    let is_group = first & 1 != 0;
    if !is_group && !outgoing && is_of(guests.inward, 0) {
        return true;
    }
    let number = |at: usize| Some(u16::from_be_bytes([*frame.get(at)?, *frame.get(at + 1)?]));
    let is_tag = |at: usize| matches!(number(at), Some(0x8100 | 0x88a8));
    let at = 12
        + if !is_tag(12) {
            0
        } else if !is_tag(16) {
            4
        } else {
            8
        };
    let byte = |from: usize| frame.get(at + from).copied();
    // Offsets behind the Ethertype's place: 8 is IPv6's next header, 11 IPv4's protocol, 42 and 50 the types of ICMPv6.
    match (number(at), is_group) {
        (Some(0x0806), false) => number(at + 8) == Some(2) && is_of(guests.answers, 0),
        (Some(0x86dd), false) => {
            byte(8) == Some(58) && matches!(byte(42), Some(134 | 136)) && is_of(guests.answers, 0)
        }
        (Some(0x0806 | 0x8035), true) => is_of(guests.outward, 6),
        (Some(0x0800), true) => byte(11) == Some(2) && (is_of(guests.outward, 6) || is_of(guests.reports, 6)),
        (Some(0x86dd), true) => {
            let is_report = byte(8) == Some(0) && matches!(byte(50), Some(131 | 143));
            let is_other = byte(8) == Some(58) && matches!(byte(42), Some(133 | 135 | 136));
            (is_report && is_of(guests.reports, 6)) || ((is_report || is_other) && is_of(guests.outward, 6))
        }
        _ => false,
    }
}

/// The kernel's interpreter (`Documentation/networking/filter.rst`), for the instructions of such programs; a load beyond the
/// frame ends it, and a jump beyond the program panics.
fn run(program: &[Instruction], frame: &[u8], outgoing: bool) -> u32 {
    let (mut a, mut x, mut at, mut scratch) = (0_u32, 0_u32, 0, [None; 16]);
    loop {
        let Instruction { code, jt, jf, k } = program[at];
        at += 1;
        // BPF_CLASS, BPF_SIZE, BPF_MODE, BPF_OP of include/uapi/linux/bpf_common.h.
        match code & 7 {
            0 => {
                let size = match code & 0x18 {
                    0x00 => 4,
                    0x08 => 2,
                    _ => 1,
                };
                let from = match code & 0xe0 {
                    0x20 => k,
                    0x40 => k.wrapping_add(x),
                    0x60 => {
                        a = scratch[k as usize].expect("it was stored");
                        continue;
                    }
                    mode => panic!("load of mode {mode:#x}"),
                };
                // SKF_AD_OFF + SKF_AD_PKTTYPE.
                if from == 0xffff_f004 {
                    a = if outgoing { 4 } else { 0 };
                    continue;
                }
                let Some(loaded) = frame.get(from as usize..from as usize + size) else { return 0 };
                a = loaded.iter().fold(0, |sum, byte| sum << 8 | u32::from(*byte));
            }
            1 => x = if code & 0xe0 == 0x60 { scratch[k as usize].expect("it was stored") } else { k },
            2 => scratch[k as usize] = Some(a),
            3 => scratch[k as usize] = Some(x),
            4 => {
                let operand = if code & 8 != 0 { x } else { k };
                a = match code & 0xf0 {
                    0x00 => a.wrapping_add(operand),
                    0x50 => a & operand,
                    0x60 => a << operand,
                    op => panic!("operation {op:#x}"),
                };
            }
            5 => {
                let holds = match code & 0xf0 {
                    0x00 => {
                        at += k as usize;
                        continue;
                    }
                    0x10 => a == k,
                    0x20 => a > k,
                    0x30 => a >= k,
                    0x40 => a & k != 0,
                    op => panic!("jump {op:#x}"),
                };
                at += usize::from(if holds { jt } else { jf });
            }
            6 => return k,
            7 => {
                if code & 0x80 != 0 {
                    a = x
                } else {
                    x = a
                }
            }
            class => panic!("class {class}"),
        }
    }
}
