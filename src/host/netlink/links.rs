//! Watches the host's devices by rtnetlink, and keeps a [`Links`] up to date.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, SockFlag, recv, send, setsockopt, sockopt};
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;

use super::{Message, Request, attributes, messages, text, u16_at, u32_at};
use crate::host::netlink;
use crate::host::sys;
use crate::path::link::{Bridge, BridgePort, Link, Links, PortState};

// include/uapi/linux/if_link.h
const IFLA_BR_VLAN_FILTERING: u16 = 7;
const IFLA_BRPORT_STATE: u16 = 1;
// include/uapi/linux/if_bridge.h
const IFLA_BRIDGE_VLAN_INFO: u16 = 2;
const BRIDGE_VLAN_INFO_PVID: u16 = 1 << 1;
// include/uapi/linux/rtnetlink.h
const RTEXT_FILTER_BRVLAN_COMPRESSED: u32 = 1 << 2;
const RTMGRP_LINK: u32 = 1;

/// The length of `struct ifinfomsg`.
const IFINFOMSG: usize = 16;
const FAMILIES: [u8; 2] = [libc::AF_UNSPEC as u8, libc::AF_BRIDGE as u8];
/// Room for the notifications of a few hundred ports that come at once.
const RECEIVE_BUFFER: usize = 1 << 20;

/// What went wrong in watching the host's devices.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No socket.
    #[error("cannot open a netlink socket: {0}")]
    Open(io::Error),
    /// The kernel did not answer.
    #[error("cannot list the network devices: {0}")]
    Dump(io::Error),
}

/// Lists the devices, then keeps the list up to date for as long as somebody holds the receiver.
pub async fn watch() -> Result<watch::Receiver<Links>, Error> {
    let mut watcher = Watcher::open().map_err(Error::Open)?;
    let links = watcher.dump().await.map_err(Error::Dump)?;
    let (sender, receiver) = watch::channel(links);
    tokio::spawn(async move {
        tokio::select! {
            error = watcher.follow(&sender) => tracing::error!("lost sight of the network devices: {error}"),
            () = sender.closed() => {}
        }
    });
    Ok(receiver)
}

struct Watcher {
    socket: AsyncFd<OwnedFd>,
    buffer: Vec<u8>,
}

impl Watcher {
    fn open() -> io::Result<Self> {
        let fd = netlink::open(RTMGRP_LINK, SockFlag::SOCK_NONBLOCK)?;
        // Without CAP_NET_ADMIN the limit of the host applies: a full buffer then only costs another dump.
        if setsockopt(&fd, sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err() {
            setsockopt(&fd, sockopt::RcvBuf, &RECEIVE_BUFFER)?;
        }
        Ok(Watcher { socket: sys::readable(fd)?, buffer: vec![0; netlink::BUFFER] })
    }

    /// Asks for every device, twice: the ports' VLANs come only with the family of bridges.
    async fn dump(&mut self) -> io::Result<Links> {
        let mut links = Links::default();
        for family in FAMILIES {
            let mut header = [0; IFINFOMSG];
            header[0] = family;
            let request = Request::new(libc::RTM_GETLINK, libc::NLM_F_DUMP as u16)
                .fixed(&header)
                .attribute(libc::IFLA_EXT_MASK, &RTEXT_FILTER_BRVLAN_COMPRESSED.to_ne_bytes());
            send(self.socket.as_raw_fd(), &request.finish(), MsgFlags::empty())?;
            let mut done = false;
            while !done {
                for message in messages(self.datagram().await?) {
                    match i32::from(message.kind) {
                        libc::NLMSG_DONE => done = true,
                        libc::NLMSG_ERROR => netlink::error_of(&message)?,
                        _ => drop(apply(&mut links, &message)),
                    }
                }
            }
        }
        Ok(links)
    }

    async fn follow(&mut self, to: &watch::Sender<Links>) -> io::Error {
        loop {
            match self.datagram().await {
                Ok(datagram) => drop(to.send_if_modified(|links| {
                    let mut changed = false;
                    for message in messages(datagram) {
                        changed |= apply(links, &message);
                    }
                    changed
                })),
                // Notifications were dropped: what is known may be wrong.
                Err(error) if error.raw_os_error() == Some(Errno::ENOBUFS as i32) => {
                    match self.dump().await {
                        Ok(links) => drop(to.send_replace(links)),
                        Err(error) => return error,
                    }
                }
                Err(error) => return error,
            }
        }
    }

    async fn datagram(&mut self) -> io::Result<&[u8]> {
        loop {
            let mut ready = self.socket.readable().await?;
            let buffer = &mut self.buffer;
            let received = ready.try_io(|fd| Ok(recv(fd.as_raw_fd(), buffer, MsgFlags::empty())?));
            if let Ok(length) = received {
                return Ok(&self.buffer[..length?]);
            }
        }
    }
}

/// Takes a message about a device into account; tells whether that changed anything.
pub fn apply(links: &mut Links, message: &Message<'_>) -> bool {
    let (Some(family), Some(index)) = (message.body.first(), u32_at(message.body, 4)) else {
        return false;
    };
    let bridge_family = i32::from(*family) == libc::AF_BRIDGE;
    match (message.kind, bridge_family) {
        (libc::RTM_NEWLINK, false) => {
            let Some(mut link) = device(index, message.body) else {
                return false;
            };
            let known = links.get(index);
            // Only messages of the bridges' family carry the VLAN.
            link.pvid = known.filter(|k| k.master == link.master).and_then(|k| k.pvid);
            let changed = known != Some(&link);
            links.insert(link);
            changed
        }
        (libc::RTM_NEWLINK, true) => links.get_mut(index).is_some_and(|link| bridge_port(link, message.body)),
        (libc::RTM_DELLINK, false) => links.remove(index).is_some(),
        // The port left its bridge; the device stays.
        (libc::RTM_DELLINK, true) => links.get_mut(index).is_some_and(|link| {
            let was_port = link.port.is_some() || link.master.is_some();
            (link.port, link.master, link.pvid) = (None, None, None);
            was_port
        }),
        _ => false,
    }
}

fn device(index: u32, body: &[u8]) -> Option<Link> {
    let flags = u32_at(body, 8)? as i32;
    let mut link = Link {
        index,
        up: flags & libc::IFF_UP != 0,
        lower_up: flags & libc::IFF_LOWER_UP != 0,
        ..Link::default()
    };
    let mut link_is_elsewhere = false;
    for (kind, value) in attributes(body.get(IFINFOMSG..)?) {
        match kind {
            libc::IFLA_IFNAME => link.name = text(value),
            libc::IFLA_LINK => link.link = u32_at(value, 0).filter(|index| *index > 0),
            libc::IFLA_LINK_NETNSID => link_is_elsewhere = true,
            libc::IFLA_MASTER => link.master = u32_at(value, 0),
            libc::IFLA_LINKINFO => link_info(&mut link, value),
            _ => {}
        }
    }
    if link_is_elsewhere {
        link.link = None;
    }
    Some(link)
}

fn link_info(link: &mut Link, info: &[u8]) {
    let (mut own, mut slave, mut slave_kind) = (&[][..], &[][..], String::new());
    for (kind, value) in attributes(info) {
        match kind {
            libc::IFLA_INFO_KIND => link.kind = Some(text(value)),
            libc::IFLA_INFO_DATA => own = value,
            libc::IFLA_INFO_SLAVE_KIND => slave_kind = text(value),
            libc::IFLA_INFO_SLAVE_DATA => slave = value,
            _ => {}
        }
    }
    if link.is("bridge") {
        let filtering = attributes(own).find(|(kind, _)| *kind == IFLA_BR_VLAN_FILTERING);
        link.bridge = Some(Bridge {
            vlan_filtering: filtering.is_some_and(|(_, value)| value.first().is_some_and(|b| *b != 0)),
        });
    }
    if slave_kind == "bridge" {
        link.port = port_state(slave).map(|state| BridgePort { state });
    }
}

fn bridge_port(link: &mut Link, body: &[u8]) -> bool {
    let before = (link.port, link.pvid);
    // A port that is in no VLAN has no IFLA_AF_SPEC.
    link.pvid = None;
    for (kind, value) in attributes(body.get(IFINFOMSG..).unwrap_or_default()) {
        match kind {
            libc::IFLA_PROTINFO => link.port = port_state(value).map(|state| BridgePort { state }),
            libc::IFLA_AF_SPEC => link.pvid = pvid(value),
            _ => {}
        }
    }
    before != (link.port, link.pvid)
}

fn port_state(attributes_of_port: &[u8]) -> Option<PortState> {
    let mut states = attributes(attributes_of_port).filter(|(kind, _)| *kind == IFLA_BRPORT_STATE);
    Some(match states.next()?.1.first()? {
        1 => PortState::Listening,
        2 => PortState::Learning,
        3 => PortState::Forwarding,
        4 => PortState::Blocking,
        _ => PortState::Disabled,
    })
}

fn pvid(spec: &[u8]) -> Option<u16> {
    let vlans = attributes(spec).filter(|(kind, _)| *kind == IFLA_BRIDGE_VLAN_INFO);
    let mut pvids = vlans.filter(|(_, info)| u16_at(info, 0).is_some_and(|f| f & BRIDGE_VLAN_INFO_PVID != 0));
    u16_at(pvids.next()?.1, 2)
}
