//! A captured frame, without its VLAN tags.

use std::time::Duration;

use crate::path::hop::Hop;
use crate::proof::capture_point::Direction;
use crate::proof::decapsulation::Outside;

/// The two MAC addresses, before any tag.
const ADDRESSES: usize = 12;
const VLAN_TAG: usize = 4;
/// A frame with more VLAN tags is not one of ours.
const MAX_TAGS: usize = 2;
/// The Ethertypes of tags in a frame: 802.1Q and 802.1ad.
const TAGGED: [[u8; 2]; 2] = [[0x81, 0x00], [0x88, 0xa8]];

/// A captured frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sighting {
    /// The device's ifindex.
    pub ifindex: u32,
    /// The direction in which it passed.
    pub direction: Direction,
    /// When.
    pub at: Duration,
    /// Its VLAN tag, from the kernel or from the frame; the outermost of several.
    pub vlan: Option<u16>,
    /// The frame without its tags, perhaps truncated.
    pub frame: Vec<u8>,
    /// The tunnel that it is inside.
    pub outside: Option<Outside>,
}

impl Sighting {
    /// A sighting of `frame`, which may carry tags; `vlan` is the tag that the kernel has removed from it.
    pub fn new(
        ifindex: u32,
        direction: Direction,
        at: Duration,
        mut vlan: Option<u16>,
        frame: &[u8],
    ) -> Sighting {
        let mut frame = frame.to_vec();
        // A VLAN device on a VLAN device, or a provider bridge that adds a tag, makes two tags.
        for _ in 0..MAX_TAGS {
            match frame.get(ADDRESSES..ADDRESSES + VLAN_TAG) {
                Some(&[a, b, c, d]) if TAGGED.contains(&[a, b]) => {
                    vlan.get_or_insert(u16::from_be_bytes([c, d]) & 0x0fff);
                    frame.drain(ADDRESSES..ADDRESSES + VLAN_TAG);
                }
                _ => break,
            }
        }
        Sighting { ifindex, direction, at, vlan, frame, outside: None }
    }

    /// Whether it is of this hop: on its device, and inside its tunnel or none.
    pub fn is_at(&self, hop: &Hop) -> bool {
        let tunnel = hop.tunnel.as_ref().map(|tunnel| tunnel.encapsulation);
        hop.ifindex == Some(self.ifindex) && tunnel == self.outside.map(|outside| outside.encapsulation)
    }
}

#[cfg(test)]
mod tests {
    use pnet_base::MacAddr;

    use super::*;
    use crate::announcement::frame::rarp;

    #[test]
    fn a_tag_is_taken_from_the_kernel_or_from_the_frame() {
        let frame = rarp(MacAddr(0xfa, 0x16, 0x3e, 0, 0, 0x11)).bytes;
        let tagged = |tag: &[u8]| [&frame[..12], tag, &frame[12..]].concat();
        for (told, bytes, vlan) in [
            (None, frame.clone(), None),
            (Some(100), frame.clone(), Some(100)),
            (None, tagged(&[0x81, 0, 0, 100]), Some(100)),
            (None, tagged(&[0x88, 0xa8, 0xe0, 101]), Some(101)),
            (None, tagged(&[0x81, 0, 0xe0, 0]), Some(0)),
        ] {
            let sighting = Sighting::new(1, Direction::In, Duration::ZERO, told, &bytes);
            assert_eq!((sighting.vlan, &sighting.frame), (vlan, &frame), "{told:?} {bytes:02x?}");
        }
        // The outermost tag counts, whether the kernel or the test removed it.
        let inner = [0x81, 0, 0, 7];
        let double = tagged(&[&[0x88, 0xa8, 0, 100][..], &inner].concat());
        for (told, bytes) in [(Some(100), tagged(&inner)), (None, double.clone())] {
            let sighting = Sighting::new(1, Direction::In, Duration::ZERO, told, &bytes);
            assert_eq!((sighting.vlan, &sighting.frame), (Some(100), &frame));
        }
        let triple = tagged(&[inner; 3].concat());
        assert_ne!(Sighting::new(1, Direction::In, Duration::ZERO, None, &triple).frame, frame);
        for length in 0..24 {
            let runt = &double[..length];
            Sighting::new(1, Direction::In, Duration::ZERO, None, runt);
        }
    }
}
