//! Broken netlink datagrams: walked to their end, and no further.

use std::os::fd::AsRawFd;

use announced::for_tests::link::Links;
use announced::for_tests::links::apply;
use announced::for_tests::netlink::{self, Request, attributes, error_of, messages, text, u16_at, u32_at};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::always;
use crate::bytes::{changed, changes};

const RTEXT_FILTER_BRVLAN_COMPRESSED: u32 = 1 << 2;
const RTM_NEWVLAN: u16 = 112;

/// Lengths at and beside every edge.
const POISON: &[&str] =
    &["\0\0", "\x01\0", "\x03\0", "\x04\0", "\x0f\0", "\x10\0\0\0", "\x7f\x7f\x7f\x7f", "\0\0\0\0"];

/// What the kernel of this machine says of its devices, in both families.
fn from_the_kernel() -> Vec<Vec<u8>> {
    let route = SockProtocol::NetlinkRoute;
    let socket = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, route).unwrap();
    let mut datagrams = Vec::new();
    for family in [libc::AF_UNSPEC, libc::AF_BRIDGE] {
        let mut header = [0; 16];
        header[0] = family as u8;
        let dump = Request::new(libc::RTM_GETLINK, libc::NLM_F_DUMP as u16)
            .fixed(&header)
            .attribute(libc::IFLA_EXT_MASK, &RTEXT_FILTER_BRVLAN_COMPRESSED.to_ne_bytes());
        send(socket.as_raw_fd(), &dump.finish(), MsgFlags::empty()).unwrap();
        let mut done = false;
        while !done {
            let mut buffer = vec![0; 1 << 16];
            let length = recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty()).unwrap();
            buffer.truncate(length);
            done = messages(&buffer).any(|message| i32::from(message.kind) == libc::NLMSG_DONE);
            datagrams.push(buffer);
        }
    }
    datagrams
}

/// A filtering bridge (7) and its port (8), as the kernel tells of them: not every machine has them.
fn of_a_bridge() -> Vec<u8> {
    let header = |family: i32, index: u32| {
        let mut header = [0; 16];
        header[0] = family as u8;
        header[4..8].copy_from_slice(&index.to_ne_bytes());
        header[8..12].copy_from_slice(&0x11043_u32.to_ne_bytes());
        header
    };
    let device = |family, index, name: &[u8]| {
        Request::new(libc::RTM_NEWLINK, 0).fixed(&header(family, index)).attribute(libc::IFLA_IFNAME, name)
    };
    let master = 7_u32.to_ne_bytes();
    let filtering = Request::new(0, 0).attribute(7, &[1]).finish().split_off(16);
    let forwarding = Request::new(0, 0).attribute(1, &[3]).finish().split_off(16);
    let pvid = Request::new(0, 0).attribute(2, &[6, 0, 100, 0]).finish().split_off(16);
    let bridge = device(libc::AF_UNSPEC, 7, b"br0\0").nested(
        libc::IFLA_LINKINFO,
        &[(libc::IFLA_INFO_KIND, b"bridge\0"), (libc::IFLA_INFO_DATA, &filtering)],
    );
    let port = device(libc::AF_UNSPEC, 8, b"tap0\0").attribute(libc::IFLA_MASTER, &master).nested(
        libc::IFLA_LINKINFO,
        &[
            (libc::IFLA_INFO_KIND, b"tun\0"),
            (libc::IFLA_INFO_SLAVE_KIND, b"bridge\0"),
            (libc::IFLA_INFO_SLAVE_DATA, &forwarding),
        ],
    );
    let vlans = device(libc::AF_BRIDGE, 8, b"tap0\0")
        .attribute(libc::IFLA_MASTER, &master)
        .attribute(libc::IFLA_PROTINFO | 1 << 15, &forwarding)
        .attribute(libc::IFLA_AF_SPEC, &pvid);
    // VLANs 10 to 12, in which it learns.
    let states = Request::new(RTM_NEWVLAN, 0)
        .fixed(&[libc::AF_BRIDGE as u8, 0, 0, 0, 8, 0, 0, 0])
        .nested(1 | 1 << 15, &[(1, &[0, 0, 10, 0]), (2, &12_u16.to_ne_bytes()), (3, &[2])]);
    [bridge, port, vlans, states].into_iter().flat_map(Request::finish).collect()
}

fn take(links: &mut Links, datagram: &[u8]) {
    for message in messages(datagram) {
        apply(links, &message);
    }
}

#[test]
fn unbroken_datagrams_tell_of_every_device() {
    let mut links = Links::default();
    from_the_kernel().iter().for_each(|datagram| take(&mut links, datagram));
    assert!(links.named("lo").is_some());
    take(&mut links, &of_a_bridge());
    assert!(links.named("br0").unwrap().bridge.unwrap().vlan_filtering);
    let port = links.named("tap0").unwrap();
    assert_eq!(
        (port.master, port.pvid, port.port.map(|port| port.state.word())),
        (Some(7), Some(100), Some("forwarding"))
    );
    assert_eq!([9, 10, 12].map(|vlan| port.vlan_state(vlan).word()), ["forwarding", "learning", "learning"]);
}

#[test]
fn ten_thousand_broken_datagrams_are_walked() {
    let mut known = from_the_kernel();
    // Changes are few: let them meet what matters.
    known.iter_mut().for_each(|datagram| datagram.truncate(3_000));
    known.extend((0..4).map(|_| of_a_bridge()));
    let which = 0..known.len();
    always(10_000, (which, changes(POISON)), |(which, changes)| {
        let mut links = Links::default();
        take(&mut links, &of_a_bridge());
        take(&mut links, &changed(&known[which], &changes));
        Ok(())
    });
}

#[test]
fn random_bytes_are_no_message() {
    let kinds = [libc::RTM_NEWLINK, libc::RTM_DELLINK, RTM_NEWVLAN, libc::NLMSG_ERROR as u16, 0, u16::MAX];
    always(10_000, (vec(any::<u8>(), 0..200), 0..kinds.len()), |(bytes, kind)| {
        let mut links = Links::default();
        take(&mut links, &of_a_bridge());
        take(&mut links, &bytes);
        let message = netlink::Message { kind: kinds[kind], body: &bytes, ..Default::default() };
        apply(&mut links, &message);
        let _ = error_of(&message);
        let walked: usize = attributes(&bytes).map(|(_, value)| 4 + value.len()).sum();
        prop_assert!(walked <= bytes.len());
        text(&bytes);
        prop_assert_eq!((u16_at(&bytes, usize::MAX), u32_at(&bytes, usize::MAX)), (None, None));
        Ok(())
    });
}

/// The least number has no opposite.
#[test]
fn any_error_number_is_an_error() {
    for number in [i32::MIN, i32::MIN + 1, -1, 1, i32::MAX] {
        let body = &number.to_ne_bytes();
        let message = netlink::Message { kind: libc::NLMSG_ERROR as u16, body, ..Default::default() };
        assert!(error_of(&message).is_err(), "{number}");
    }
}
