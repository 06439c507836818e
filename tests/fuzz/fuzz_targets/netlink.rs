//! Rtnetlink: a datagram is walked to its end and no further, as the kernel's own macros do it, and whatever it says of devices
//! can be looked up and followed.
#![no_main]

use announced::for_tests::attachment::resolve;
use announced::for_tests::hop::Tag;
use announced::for_tests::link::Links;
use announced::for_tests::links::apply;
use announced::for_tests::netlink::{Message, attributes, error_of, messages};
use announced::for_tests::ovs::Ovs;
use announced::for_tests::target::Plug;
use announced::for_tests::uplinks::Uplinks;
use announced::for_tests::{fdb, routes};
use libfuzzer_sys::fuzz_target;
use pnet_base::MacAddr;

const MAC: MacAddr = MacAddr(2, 0, 0, 0, 0, 1);

fuzz_target!(|datagram: &[u8]| {
    let read: Vec<Message<'_>> = messages(datagram).collect();
    let bodies: Vec<&[u8]> = read.iter().map(|message| message.body).collect();
    assert_eq!(bodies, walked(datagram));
    let mut links = Links::default();
    for message in &read {
        assert_eq!(
            attributes(message.body).map(|(_, value)| value).collect::<Vec<_>>(),
            listed(message.body)
        );
        apply(&mut links, message);
        assert!(!apply(&mut links, message) || is_bridges(message), "the same again changes nothing");
        let _ = error_of(message);
        if let Some(entry) = fdb::entry(message, 7, MAC, None) {
            assert_eq!(message.body[4..8], entry.port.to_ne_bytes());
        }
        assert!(routes::next_hop(message).is_none() || message.kind == libc_kinds::RTM_NEWROUTE);
    }
    are_sound(&links);
});

mod libc_kinds {
    pub const RTM_NEWLINK: u16 = 16;
    pub const RTM_NEWROUTE: u16 = 24;
}

/// Only a whole description, of the other family, has the same effect twice: the VLANs of a port are known from the bridge's.
fn is_bridges(message: &Message<'_>) -> bool {
    message.kind == libc_kinds::RTM_NEWLINK && message.body.first() == Some(&7)
}

/// `NLMSG_OK` and `NLMSG_NEXT` of `include/uapi/linux/netlink.h`: the messages' bodies.
fn walked(datagram: &[u8]) -> Vec<&[u8]> {
    let (mut bodies, mut at) = (Vec::new(), 0);
    while datagram.len() - at >= 16 {
        let length = u32::from_ne_bytes(datagram[at..at + 4].try_into().unwrap()) as usize;
        if length < 16 || length > datagram.len() - at {
            break;
        }
        bodies.push(&datagram[at + 16..at + length]);
        at = (at + length.div_ceil(4) * 4).min(datagram.len());
    }
    bodies
}

/// `RTA_OK` and `RTA_NEXT` of `include/uapi/linux/rtnetlink.h`: the attributes' values.
fn listed(payload: &[u8]) -> Vec<&[u8]> {
    let (mut values, mut at) = (Vec::new(), 0);
    while payload.len() - at >= 4 {
        let length = usize::from(u16::from_ne_bytes(payload[at..at + 2].try_into().unwrap()));
        if length < 4 || length > payload.len() - at {
            break;
        }
        values.push(&payload[at + 4..at + length]);
        at = (at + length.div_ceil(4) * 4).min(payload.len());
    }
    values
}

fn are_sound(links: &Links) {
    let (ovs, uplinks) = (Ovs::default(), Uplinks::default());
    for link in links.all() {
        assert_eq!(links.get(link.index), Some(link));
        for port in links.leading_on(link.index).chain(links.taps_of(link.index)) {
            assert_eq!(port.master, Some(link.index));
        }
        for upper in links.stacked_on(link.index) {
            assert_eq!(upper.link, Some(link.index));
        }
        let plug = Plug { device: Some(link.name.clone()), ..Plug::default() };
        if let Ok(attachment) = resolve(&plug, Tag::Untagged, links, &ovs, &uplinks) {
            let hops = &attachment.way.hops;
            assert!(hops.iter().enumerate().all(|(at, hop)| hop.from.is_none_or(|from| from < at)));
        }
    }
}
