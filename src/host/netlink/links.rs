//! Watches the host's devices over rtnetlink, and keeps a [`Links`] up to date.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use tokio::sync::watch;
use tokio::time::Instant;

use super::port_vlans::{self, RTM_DELVLAN, RTM_NEWVLAN, RTNLGRP_BRVLAN};
use super::{Dump, Message, Request, Socket, attributes, messages, text, u16_at, u32_at};
use crate::path::link::{Bridge, BridgePort, Link, Links, PortState, PortVlans};
use crate::path::tunnel::{Encapsulation, TunnelDevice};

// include/uapi/linux/if_link.h
const IFLA_BR_VLAN_FILTERING: u16 = 7;
const IFLA_BR_MULTI_BOOLOPT: u16 = 46;
const IFLA_BRPORT_STATE: u16 = 1;
const IFLA_BRPORT_MODE: u16 = 4;
const IFLA_BRPORT_MCAST_FLOOD: u16 = 27;
const IFLA_BRPORT_BCAST_FLOOD: u16 = 30;
const IFLA_BRPORT_NEIGH_SUPPRESS: u16 = 32;
const IFLA_BRPORT_ISOLATED: u16 = 33;
const IFLA_BRPORT_LOCKED: u16 = 39;
const IFLA_VLAN_ID: u16 = 1;
const IFLA_PARENT_DEV_NAME: u16 = 56;
const IFLA_VXLAN_LINK: u16 = 3;
const IFLA_VXLAN_PORT: u16 = 15;
const IFLA_VXLAN_GPE: u16 = 27;
const IFLA_GENEVE_PORT: u16 = 5;
const IFLA_GENEVE_INNER_PROTO_INHERIT: u16 = 14;
// include/uapi/linux/if_tunnel.h
const IFLA_GRE_LINK: u16 = 1;
// include/uapi/linux/if_bridge.h
const IFLA_BRIDGE_VLAN_INFO: u16 = 2;
const BRIDGE_VLAN_INFO_PVID: u16 = 1 << 1;
const BRIDGE_VLAN_INFO_UNTAGGED: u16 = 1 << 2;
const BRIDGE_VLAN_INFO_RANGE_BEGIN: u16 = 1 << 3;
const BR_BOOLOPT_MST_ENABLE: u32 = 1 << 2;
// include/uapi/linux/if_link.h, `IFLA_BOND_*`
const IFLA_BOND_ACTIVE_SLAVE: u16 = 2;
// include/uapi/linux/rtnetlink.h
const RTEXT_FILTER_BRVLAN_COMPRESSED: u32 = 1 << 2;
const RTMGRP_LINK: u32 = 1;
const RTMGRP_IPV4_IFADDR: u32 = 0x10;
const RTMGRP_IPV6_IFADDR: u32 = 0x100;
/// The length of `struct ifaddrmsg`.
const IFADDRMSG: usize = 8;

const SYSFS: &str = "/sys/class/net";
/// The length of `struct ifinfomsg`.
const IFINFOMSG: usize = 16;
const FAMILIES: [u8; 2] = [libc::AF_UNSPEC as u8, libc::AF_BRIDGE as u8];
/// A receive buffer for simultaneous notifications of a few hundred ports.
const RECEIVE_BUFFER: usize = 1 << 20;

/// While other programs change devices without a pause, an interrupted dump is accepted after so many attempts, and a new
/// one is made after this long.
const MAX_ATTEMPTS: u32 = 10;
const ATTEMPT_PAUSE: Duration = Duration::from_millis(20);

/// The kernel tells of no change of a port's state in the spanning tree of a group of VLANs (`br_mst_set_state`, `net/bridge/br_mst.c`).
/// While a bridge has such trees, the states are listed anew after each such pause.
const TREES_PAUSE: Duration = Duration::from_millis(500);
/// The index for the states of all ports of all bridges.
const ALL_PORTS: u32 = 0;

/// Why the host's devices cannot be watched.
#[derive(Debug, thiserror::Error)]
pub enum LinksError {
    /// The socket cannot be opened.
    #[error("cannot open a netlink socket: {0}")]
    Open(io::Error),
    /// The kernel did not answer.
    #[error("cannot list the network devices: {0}")]
    Dump(io::Error),
    /// The socket failed.
    #[error("lost sight of the network devices: {0}")]
    Follow(io::Error),
}

/// Lists the devices, then keeps the list up to date while a receiver exists.
///
/// # Errors
///
/// The devices cannot be listed. A later failure is logged, and closes the channel.
pub async fn watch() -> Result<watch::Receiver<Links>, LinksError> {
    let mut socket =
        Socket::open(RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR).map_err(LinksError::Open)?;
    socket.set_receive_buffer(RECEIVE_BUFFER).map_err(LinksError::Open)?;
    // Before Linux 5.6, a port has no state in a VLAN.
    let _ = socket.join(RTNLGRP_BRVLAN);
    let (sender, receiver) = watch::channel(Links::default());
    read(&mut socket, &sender).await.map_err(LinksError::Dump)?;
    tokio::spawn(async move {
        tokio::select! {
            error = follow(&mut socket, &sender) => tracing::error!("{}", LinksError::Follow(error)),
            () = sender.closed() => {}
        }
    });
    Ok(receiver)
}

async fn follow(socket: &mut Socket, to: &watch::Sender<Links>) -> io::Error {
    let mut has_trees = has_trees(&to.borrow());
    let mut due = Instant::now() + TREES_PAUSE;
    loop {
        let mut untold = BTreeSet::new();
        let mut followed = tokio::select! {
            received = socket.datagram() => received.map(|datagram| {
                to.send_if_modified(|links| {
                    let messages = messages(datagram);
                    messages.fold(false, |changed, message| take(links, &message, &mut untold) | changed)
                });
            }),
            () = tokio::time::sleep_until(due), if has_trees => {
                has_trees = self::has_trees(&to.borrow());
                due = Instant::now() + TREES_PAUSE;
                untold.extend(has_trees.then_some(ALL_PORTS));
                Ok(())
            }
        };
        has_trees |= !untold.is_empty();
        if followed.is_ok() {
            followed = read_vlans(socket, untold, to).await;
        }
        followed = match followed {
            Err(error) if is_overrun(&error) => read(socket, to).await,
            followed => followed,
        };
        if let Err(error) = followed {
            return error;
        }
    }
}

/// Applies a message; returns whether that changed anything. If it is about a port of a bridge with spanning trees for groups of
/// VLANs, the port's state in each VLAN may have changed, which no message tells: the port is added to `untold`.
fn take(links: &mut Links, message: &Message<'_>, untold: &mut BTreeSet<u32>) -> bool {
    let changed = apply(links, message);
    let is_of_bridge =
        message.kind == libc::RTM_NEWLINK && message.body.first() == Some(&(libc::AF_BRIDGE as u8));
    let port = u32_at(message.body, 4).filter(|_| is_of_bridge).and_then(|index| links.get(index));
    let bridge = port.and_then(|port| links.get(port.master?)?.bridge);
    untold.extend(port.filter(|_| bridge.is_some_and(|bridge| bridge.mst)).map(|port| port.index));
    changed
}

/// Whether some bridge has spanning trees for groups of VLANs.
fn has_trees(links: &Links) -> bool {
    links.all().any(|link| link.bridge.is_some_and(|bridge| bridge.mst))
}

/// Lists the states of these ports in VLANs anew.
async fn read_vlans(
    socket: &mut Socket,
    mut ports: BTreeSet<u32>,
    to: &watch::Sender<Links>,
) -> io::Result<()> {
    while let Some(port) = ports.pop_first() {
        let take = |message: &Message<'_>| {
            to.send_if_modified(|links| take(links, message, &mut ports));
        };
        match socket.dump(port_vlans::dump(port), take).await {
            Err(error) if is_overrun(&error) => return Err(error),
            // Or the port is gone.
            _ => {}
        }
    }
    Ok(())
}

/// Lists the devices anew, until no change or loss occurs during a dump.
async fn read(socket: &mut Socket, to: &watch::Sender<Links>) -> io::Result<()> {
    for attempt in 1.. {
        // Drain first, so that the kernel reports the next loss: the dump covers the queued notifications.
        socket.drain()?;
        let mut links = Links::default();
        let dumped = match dump(socket, &mut links).await {
            Err(error) if is_overrun(&error) => None,
            dumped => Some(dumped?),
        };
        let is_enough = dumped == Some(Dump::Consistent);
        if is_enough || (dumped.is_some() && attempt % MAX_ATTEMPTS == 0) {
            to.send_if_modified(|known| {
                let changed = *known != links;
                known.replace(links);
                changed
            });
        }
        if is_enough {
            return Ok(());
        }
        if attempt % MAX_ATTEMPTS == 0 {
            tokio::time::sleep(ATTEMPT_PAUSE).await;
        }
    }
    Ok(())
}

/// Dumps every device twice, since the VLANs of ports are only in the bridge family; then the host's addresses, and the
/// ports' states in VLANs.
async fn dump(socket: &mut Socket, links: &mut Links) -> io::Result<Dump> {
    let requests = FAMILIES.map(|family| {
        let mut header = [0; IFINFOMSG];
        header[0] = family;
        Request::new(libc::RTM_GETLINK, 0)
            .fixed(&header)
            .attribute(libc::IFLA_EXT_MASK, &RTEXT_FILTER_BRVLAN_COMPRESSED.to_ne_bytes())
    });
    let addresses = Request::new(libc::RTM_GETADDR, 0).fixed(&[0; IFADDRMSG]);
    let mut whole = Dump::Consistent;
    for request in requests.into_iter().chain([addresses, port_vlans::dump(ALL_PORTS)]) {
        let dumped = socket
            .dump(request, |message| {
                apply(links, message);
            })
            .await;
        match dumped {
            Ok(Dump::Consistent) => {}
            Ok(Dump::Interrupted) => whole = Dump::Interrupted,
            // The kernel has no such request: it is older, or has no bridge.
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(whole)
}

/// Notifications were lost: the known devices may be wrong.
fn is_overrun(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::ENOBUFS as i32)
}

/// Applies a message about a device; returns whether that changed anything.
pub fn apply(links: &mut Links, message: &Message<'_>) -> bool {
    let (Some(family), Some(index)) = (message.body.first(), u32_at(message.body, 4)) else {
        return false;
    };
    if matches!(message.kind, libc::RTM_NEWADDR | libc::RTM_DELADDR) {
        let address = address(message.body);
        return address
            .is_some_and(|address| links.address(index, address, message.kind == libc::RTM_NEWADDR));
    }
    if matches!(message.kind, RTM_NEWVLAN | RTM_DELVLAN) {
        return links.change(index, |port| port_vlans::apply(port, message)).unwrap_or_default();
    }
    let bridge_family = i32::from(*family) == libc::AF_BRIDGE;
    match (message.kind, bridge_family) {
        (libc::RTM_NEWLINK, false) => {
            let Some(mut link) = device(index, message.body) else {
                return false;
            };
            let known = links.get(index);
            // Only messages of the bridge family contain the VLANs.
            if let Some(known) = known.filter(|known| known.master == link.master) {
                link.pvid = known.pvid;
                link.vlans.clone_from(&known.vlans);
                link.held_vlans.clone_from(&known.held_vlans);
            }
            let changed = known != Some(&link);
            links.insert(link);
            changed
        }
        (libc::RTM_NEWLINK, true) => {
            links.change(index, |link| bridge_port(link, message.body)).unwrap_or_default()
        }
        (libc::RTM_DELLINK, false) => links.remove(index).is_some(),
        // The port left its bridge; the device still exists.
        (libc::RTM_DELLINK, true) => links
            .change(index, |link| {
                let was_port = link.port.is_some() || link.master.is_some();
                (link.port, link.master, link.pvid) = (None, None, None);
                link.vlans.clear();
                link.held_vlans.clear();
                was_port
            })
            .unwrap_or_default(),
        _ => false,
    }
}

/// The address in a message with `struct ifaddrmsg` (whose index has the offset of that in `struct ifinfomsg`), and its
/// length.
fn address(body: &[u8]) -> Option<(IpAddr, u8)> {
    let list = |kind| attributes(body.get(IFADDRMSG..).unwrap_or_default()).find(move |(is, _)| *is == kind);
    // For a point-to-point device, IFA_ADDRESS is the remote address.
    let (_, value) = list(libc::IFA_LOCAL).or_else(|| list(libc::IFA_ADDRESS))?;
    let address = match value.len() {
        4 => IpAddr::from(<[u8; 4]>::try_from(value).ok()?),
        16 => IpAddr::from(<[u8; 16]>::try_from(value).ok()?),
        _ => return None,
    };
    Some((address, *body.get(1)?))
}

fn device(index: u32, body: &[u8]) -> Option<Link> {
    let flags = u32_at(body, 8)? as i32;
    let mut link = Link {
        index,
        up: flags & libc::IFF_UP != 0,
        lower_up: flags & libc::IFF_LOWER_UP != 0,
        ..Link::default()
    };
    for (kind, value) in attributes(body.get(IFINFOMSG..)?) {
        match kind {
            libc::IFLA_IFNAME => link.name = text(value),
            libc::IFLA_LINK => link.link = u32_at(value, 0).filter(|index| *index > 0),
            libc::IFLA_LINK_NETNSID => link.link_is_elsewhere = true,
            libc::IFLA_ADDRESS => link.address = value.try_into().ok(),
            libc::IFLA_PHYS_PORT_NAME => link.is_representor = is_representor(&text(value)),
            IFLA_PARENT_DEV_NAME => link.has_hardware = true,
            libc::IFLA_MASTER => link.master = u32_at(value, 0),
            libc::IFLA_LINKINFO => link_info(&mut link, value),
            _ => {}
        }
    }
    if link.link_is_elsewhere {
        link.link = None;
    }
    // Before Linux 5.14.
    link.has_hardware |= link.kind.is_none() && Path::new(SYSFS).join(&link.name).join("device").exists();
    Some(link)
}

/// Whether this is the name of a representor of a virtual function or a subfunction (`devlink_nl_port_attrs`,
/// `net/devlink/port.c`): `pf0vf3`, `c1pf0sf88`.
fn is_representor(port: &str) -> bool {
    port.contains("pf") && (port.contains("vf") || port.contains("sf"))
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
        let find = |wanted| attributes(own).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
        let filtering = find(IFLA_BR_VLAN_FILTERING).and_then(<[u8]>::first);
        // `struct br_boolopt_multi`: the values, and a mask of those that are told.
        let options = find(IFLA_BR_MULTI_BOOLOPT).and_then(|value| u32_at(value, 0)).unwrap_or_default();
        link.bridge = Some(Bridge {
            vlan_filtering: filtering.is_some_and(|filtering| *filtering != 0),
            mst: options & BR_BOOLOPT_MST_ENABLE != 0,
        });
    }
    if link.is("bond") {
        let active = attributes(own).find(|(kind, _)| *kind == IFLA_BOND_ACTIVE_SLAVE);
        link.active_member = active.and_then(|(_, value)| u32_at(value, 0)).filter(|index| *index > 0);
    }
    if link.is("vlan") {
        let id = attributes(own).find(|(kind, _)| *kind == IFLA_VLAN_ID);
        link.vlan_id = id.and_then(|(_, value)| u16_at(value, 0));
    }
    link.tunnel = tunnel(link, own);
    if slave_kind == "bridge" {
        link.port = port(slave);
    }
}

/// The attributes of a device that encapsulates Ethernet frames (`IFLA_VXLAN_*`, `IFLA_GENEVE_*`, `IFLA_GRE_*`). Ports are
/// big-endian.
fn tunnel(link: &Link, own: &[u8]) -> Option<TunnelDevice> {
    let find = |wanted: u16| attributes(own).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
    let port = |kind| Some(u16::from_be(u16_at(find(kind)?, 0)?));
    let lower = |kind| find(kind).and_then(|value| u32_at(value, 0)).filter(|index| *index > 0);
    let (encapsulation, lower) = match link.kind.as_deref()? {
        "vxlan" if find(IFLA_VXLAN_GPE).is_none() => {
            (Encapsulation::Vxlan(port(IFLA_VXLAN_PORT)?), lower(IFLA_VXLAN_LINK))
        }
        "geneve" if find(IFLA_GENEVE_INNER_PROTO_INHERIT).is_none() => {
            (Encapsulation::Geneve(port(IFLA_GENEVE_PORT)?), None)
        }
        "gretap" | "ip6gretap" => (Encapsulation::Gre, lower(IFLA_GRE_LINK)),
        _ => return None,
    };
    Some(TunnelDevice { encapsulation, lower })
}

fn bridge_port(link: &mut Link, body: &[u8]) -> bool {
    let before = (link.port, link.pvid, std::mem::take(&mut link.vlans));
    // A port without any VLAN has no IFLA_AF_SPEC.
    link.pvid = None;
    for (kind, value) in attributes(body.get(IFINFOMSG..).unwrap_or_default()) {
        match kind {
            libc::IFLA_PROTINFO => link.port = port(value),
            libc::IFLA_AF_SPEC => (link.pvid, link.vlans) = vlans(value),
            _ => {}
        }
    }
    (before.0, before.1) != (link.port, link.pvid) || before.2 != link.vlans
}

/// `IFLA_BRPORT_*`; `None` without a state.
fn port(attributes_of_port: &[u8]) -> Option<BridgePort> {
    let mut port = BridgePort::default();
    let mut has_state = false;
    for (kind, value) in attributes(attributes_of_port) {
        let Some(&value) = value.first() else {
            continue;
        };
        let is_on = value != 0;
        match kind {
            IFLA_BRPORT_STATE => {
                (has_state, port.state) = (true, PortState::of(value));
            }
            IFLA_BRPORT_MODE => port.hairpin = is_on,
            IFLA_BRPORT_ISOLATED => port.isolated = is_on,
            IFLA_BRPORT_LOCKED => port.locked = is_on,
            IFLA_BRPORT_BCAST_FLOOD => port.bcast_flood = is_on,
            IFLA_BRPORT_MCAST_FLOOD => port.mcast_flood = is_on,
            IFLA_BRPORT_NEIGH_SUPPRESS => port.neigh_suppress = is_on,
            _ => {}
        }
    }
    has_state.then_some(port)
}

/// The PVID and the VLANs of a port.
fn vlans(spec: &[u8]) -> (Option<u16>, Vec<PortVlans>) {
    let (mut pvid, mut vlans) = (None, Vec::new());
    let mut begun = None;
    for (_, info) in attributes(spec).filter(|(kind, _)| *kind == IFLA_BRIDGE_VLAN_INFO) {
        let (Some(flags), Some(vlan)) = (u16_at(info, 0), u16_at(info, 2)) else {
            continue;
        };
        if flags & BRIDGE_VLAN_INFO_PVID != 0 {
            pvid = pvid.or(Some(vlan));
        }
        if flags & BRIDGE_VLAN_INFO_RANGE_BEGIN != 0 {
            begun = Some(vlan);
            continue;
        }
        let untagged = flags & BRIDGE_VLAN_INFO_UNTAGGED != 0;
        vlans.push(PortVlans { first: begun.take().unwrap_or(vlan), last: vlan, untagged });
    }
    (pvid, vlans)
}
