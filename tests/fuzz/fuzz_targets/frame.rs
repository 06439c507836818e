//! Captured frames: a tag that is taken off can be put on again, and nothing counts as left that was not seen at the edge.
#![no_main]

use std::net::IpAddr;
use std::time::Duration;

use announced::for_tests::attachment::resolve;
use announced::for_tests::capture_point::{CapturePath, Direction};
use announced::for_tests::frame::{Frame, Style, round};
use announced::for_tests::hop::Tag;
use announced::for_tests::injection::Method;
use announced::for_tests::link::{Bridge, BridgePort, Link, Links, PortState};
use announced::for_tests::membership;
use announced::for_tests::ofproto_flow::flow;
use announced::for_tests::ovs::Ovs;
use announced::for_tests::proof::{AnsweredBy, Delivery, Foreign, Inquiry, RoundFate};
use announced::for_tests::sighting::Sighting;
use announced::for_tests::target::Plug;
use announced::for_tests::uplinks::Uplinks;
use announced_fuzz::Bytes;
use libfuzzer_sys::fuzz_target;
use pnet_base::MacAddr;

const MAC: MacAddr = MacAddr(0xfa, 0x16, 0x3e, 0, 0, 0x0a);
const BRIDGE: u32 = 1;
const TAP: u32 = 2;
const NIC: u32 = 3;

fuzz_target!(|input: &[u8]| {
    let mut bytes = Bytes(input);
    tags_are_kept(bytes.0);
    if let Some(flow) = flow(7, bytes.0) {
        assert!(
            flow.starts_with("in_port=7,") && !flow.contains(|c: char| c.is_whitespace() || c.is_control())
        );
    }
    let frames = round(MAC, &ips(bytes.below(4)), &Style::default());
    let path = path();
    let mut delivery = Delivery::new(MAC, &frames, path.clone());
    let (mut foreign, mut inquiry) = (Foreign::default(), Inquiry::new(MAC, Delivery::new(MAC, &[], path)));
    // By frame: the rounds in which it was sent, those in which it was seen at the edge, and whether that was in the last one.
    let mut seen = vec![(0_u64, 0_u64, false); frames.len()];
    let (mut at, mut is_under_way) = (Duration::ZERO, false);
    while !bytes.is_empty() {
        at += Duration::from_millis(bytes.u8().into());
        match bytes.below(8) {
            0 => {
                delivery.begin();
                is_under_way = true;
                seen.iter_mut().for_each(|(sent, _, is_seen)| (*sent, *is_seen) = (*sent + 1, false));
            }
            1 => {
                delivery.suspend();
                is_under_way = false;
            }
            2 => drop(foreign.settle()),
            _ => {
                let sighting = sighting(&frames, at, &mut bytes);
                foreign.saw(&delivery, &sighting);
                let by = delivery.came_in(&sighting).map(|_| AnsweredBy::Network);
                let _ = inquiry.answered(&sighting, by);
                delivery.saw(&sighting);
                let left = sighting.ifindex == NIC && sighting.direction == Direction::Out;
                let is_at_edge = left && is_under_way && Tag::Untagged.fits(sighting.vlan);
                for (frame, (_, times, is_seen)) in frames.iter().zip(&mut seen) {
                    if is_at_edge && is_seen_of(frame, &sighting.frame) {
                        *times += u64::from(!*is_seen);
                        *is_seen = true;
                    }
                }
            }
        }
        assert!((0..frames.len()).all(|number| delivery.times_left(number) <= seen[number].1));
    }
    if delivery.fate() == RoundFate::Left {
        assert!(seen.iter().all(|(_, _, is_seen)| *is_seen), "a frame was not seen to leave");
    }
    let why = vec![Some("a flow drops it".to_owned()); frames.len()];
    assert!(delivery.stuck(&why).len() <= 1 + delivery.hops().count());
});

/// Up to two tags are taken off: with them, the frame is as it was.
fn tags_are_kept(frame: &[u8]) {
    let sighting = Sighting::new(NIC, Direction::In, Duration::ZERO, None, frame);
    let taken = frame.len() - sighting.frame.len();
    assert!(matches!(taken, 0 | 4 | 8) && (taken > 0) == sighting.vlan.is_some());
    let start = frame.len().min(12);
    assert_eq!([&frame[..start], &frame[start + taken..]].concat(), sighting.frame);
    if let Some((_, groups)) = membership::report(&sighting.frame, MAC) {
        assert!(groups.len() <= frame.len() / 4 && groups.iter().all(IpAddr::is_multicast));
    }
}

fn ips(count: usize) -> Vec<IpAddr> {
    let ips = ["192.0.2.1", "2001:db8::1", "198.51.100.7"];
    ips.iter().take(count).map(|ip| ip.parse().expect("an address")).collect()
}

/// One of ours, perhaps broken or tagged, or any other.
fn sighting(frames: &[Frame], at: Duration, bytes: &mut Bytes<'_>) -> Sighting {
    let (device, direction) =
        (bytes.one_of(&[TAP, NIC, NIC, BRIDGE]), bytes.one_of(&[Direction::Out, Direction::In]));
    let vlan = Some(u16::from(bytes.u8())).filter(|vlan| *vlan > 200);
    let mut frame = match bytes.u8() {
        200.. => bytes.take::<64>().to_vec(),
        which => frames[usize::from(which) % frames.len()].bytes.clone(),
    };
    match bytes.u8() {
        240.. => frame.truncate(bytes.u8().into()),
        220.. => drop(frame.splice(12..12, [0x81, 0, 0, bytes.u8()])),
        200.. => {
            let place = bytes.below(frame.len());
            frame[place] ^= bytes.u8();
        }
        _ => {}
    }
    Sighting::new(device, direction, at, vlan, &frame)
}

/// Whether it has the frame's bytes, perhaps not to its end, or with others behind it.
fn is_seen_of(frame: &Frame, seen: &[u8]) -> bool {
    let length = seen.len().min(frame.bytes.len());
    length > 14 && frame.bytes[..length] == seen[..length]
}

/// tap1 and eth0 on br0.
fn path() -> CapturePath {
    let port = Some(BridgePort { state: PortState::Forwarding, ..BridgePort::default() });
    let device = |index, name: &str, kind: Option<&str>| Link {
        index,
        name: name.into(),
        up: true,
        lower_up: true,
        kind: kind.map(str::to_owned),
        ..Link::default()
    };
    let links = Links::from_iter([
        Link { bridge: Some(Bridge::default()), ..device(BRIDGE, "br0", Some("bridge")) },
        Link { master: Some(BRIDGE), port, ..device(TAP, "tap1", Some("tun")) },
        Link { master: Some(BRIDGE), port, has_hardware: true, ..device(NIC, "eth0", None) },
    ]);
    let plug = Plug { device: Some("tap1".into()), ..Plug::default() };
    let attachment = resolve(&plug, Tag::Untagged, &links, &Ovs::default(), &Uplinks::default());
    CapturePath::of(&attachment.expect("it is plugged"), Method::Redirect)
}
