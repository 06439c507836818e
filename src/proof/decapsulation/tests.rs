//! Frames of each tunnel, as Linux and Open vSwitch build them, and hostile ones.

use proptest::prelude::*;

use super::*;

pub(crate) const VXLAN: Encapsulation = Encapsulation::Vxlan(4789);
pub(crate) const GENEVE: Encapsulation = Encapsulation::Geneve(6081);
pub(crate) const ALL: [Encapsulation; 3] = [VXLAN, GENEVE, Encapsulation::Gre];

/// `inner`, encapsulated for VNI 5001, in IPv4 or IPv6.
pub(crate) fn encapsulated(inner: &[u8], by: Encapsulation, is_ipv6: bool) -> Vec<u8> {
    let udp = |port: u16| [&[0xc0, 0x01][..], &port.to_be_bytes(), &[0; 4]].concat();
    let vni = [0, 0x13, 0x89, 0];
    let (protocol, header) = match by {
        Encapsulation::Vxlan(port) => (UDP, [&udp(port)[..], &[8, 0, 0, 0], &vni].concat()),
        // With OVN's option of eight bytes: class, type, length, logical ports.
        Encapsulation::Geneve(port) => {
            let option = [0x01, 0x02, 0x80, 0x01, 0, 1, 0, 2];
            (UDP, [&udp(port)[..], &[2, 0, 0x65, 0x58], &vni, &option].concat())
        }
        Encapsulation::Gre => (GRE, vec![0x20, 0, 0x65, 0x58, 0, 0, 0x13, 0x89]),
    };
    let ethernet = |ethertype: [u8; 2]| [&[2, 0, 0, 0, 0, 2][..], &[2, 0, 0, 0, 0, 1], &ethertype].concat();
    let mut packet = match is_ipv6 {
        false => {
            let mut ip = [&ethernet(IPV4)[..], &[0x45], &[0; 11], &[10, 1, 1, 1], &[10, 1, 1, 2]].concat();
            ip[14 + 9] = protocol;
            ip
        }
        true => {
            let mut ip = [&ethernet(IPV6)[..], &[0x60], &[0; 39]].concat();
            (ip[14 + 6], ip[14 + 23], ip[14 + 39]) = (protocol, 1, 2);
            ip
        }
    };
    packet.extend(header);
    packet.extend(inner);
    packet
}

fn tagged(frame: &[u8], tags: &[[u8; 4]]) -> Vec<u8> {
    [&frame[..12], &tags.concat(), &frame[12..]].concat()
}

#[test]
fn the_frame_inside_is_found_behind_any_outer_header() {
    let inner = [0xff; 60];
    for by in ALL {
        for is_ipv6 in [false, true] {
            for tags in [&[][..], &[[0x81, 0, 0, 100]], &[[0x88, 0xa8, 0, 7], [0x81, 0, 0, 100]]] {
                let frame = tagged(&encapsulated(&inner, by, is_ipv6), tags);
                let (outside, found) = decapsulated(&frame, &ALL).unwrap();
                let vni = (by != Encapsulation::Gre).then_some(5001);
                assert_eq!((outside.encapsulation, outside.vni, found), (by, vni, &inner[..]));
                let remote: IpAddr = if is_ipv6 { "::2" } else { "10.1.1.2" }.parse().unwrap();
                assert_eq!(outside.between.1, remote);
                let others: Vec<Encapsulation> = ALL.into_iter().filter(|other| *other != by).collect();
                assert_eq!(decapsulated(&frame, &others), None, "no such tunnel is known");
            }
        }
    }
}

#[test]
fn the_optional_fields_of_gre_and_options_of_ipv4_are_skipped() {
    let inner = [0xab; 42];
    let frame = encapsulated(&inner, Encapsulation::Gre, false);
    let (outer, key) = (&frame[..34], [0, 0, 0x13, 0x89]);
    for (flags, fields) in [
        (0x00, vec![]),
        (0x80, vec![[1; 4]]),
        (0xa0, vec![[1; 4], key]),
        (0xb0, vec![[1; 4], key, [9; 4]]),
        (0x30, vec![key, [9; 4]]),
    ] {
        let frame = [outer, &[flags, 0, 0x65, 0x58], &fields.concat(), &inner].concat();
        assert_eq!(decapsulated(&frame, &ALL).unwrap().1, inner, "{flags:#x}");
    }
    let mut frame = encapsulated(&inner, VXLAN, false);
    frame[14] = 0x46;
    frame.splice(34..34, [1; 4]);
    assert_eq!(decapsulated(&frame, &ALL).unwrap().1, inner);
}

#[test]
fn what_is_no_ethernet_inside_a_tunnel_is_not_taken_for_it() {
    let change = |by, at: usize, byte: u8| {
        let mut frame = encapsulated(&[0xff; 60], by, false);
        frame[at] = byte;
        frame
    };
    for (frame, why) in [
        (change(VXLAN, 42, 0), "no VNI"),
        (change(VXLAN, 20, 0x01), "a later fragment"),
        (change(VXLAN, 23, 6), "TCP"),
        (change(VXLAN, 36, 0), "another port"),
        (change(GENEVE, 44, 0x08), "IPv4 inside Geneve"),
        (change(Encapsulation::Gre, 36, 0x08), "IPv4 inside GRE"),
        (change(Encapsulation::Gre, 34, 0x40), "GRE with routing"),
    ] {
        assert_eq!(decapsulated(&frame, &ALL), None, "{why}");
    }
}

proptest! {
    #[test]
    fn no_bytes_are_read_that_are_not_there(
        inner in prop::collection::vec(any::<u8>(), 0..80),
        at in 0..120_usize,
        byte: u8,
        length in 0..160_usize,
        which in 0..3_usize,
        is_ipv6: bool,
    ) {
        let mut frame = encapsulated(&inner, ALL[which], is_ipv6);
        if let Some(changed) = frame.get_mut(at) {
            *changed = byte;
        }
        frame.truncate(length);
        let _ = decapsulated(&frame, &ALL);
    }
}
