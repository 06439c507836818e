//! Datagrams to and from the daemons of other hosts: UDP, unicast or to a multicast group.

use std::collections::BTreeSet;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::sync::watch;

/// How often names are looked up again: a host may get another address.
const LOOKUP_INTERVAL: Duration = Duration::from_secs(60);

/// No socket can be opened for the peers.
#[derive(Debug, thiserror::Error)]
#[error("peers: cannot listen at {at}: {error}{}", remedy(.error))]
pub(crate) struct PeersError {
    /// The address and port.
    at: SocketAddr,
    /// Why.
    error: io::Error,
}

/// What an operator may have to do about it.
fn remedy(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(nix::libc::EAFNOSUPPORT) => "; the unit must permit it: announced(8), Handover",
        _ => "",
    }
}

/// A peer: its name or address, and its port.
pub(crate) type Name = (String, u16);

/// The sockets, and the peers' addresses.
#[derive(Debug)]
pub(crate) struct Peers {
    receiving: Arc<UdpSocket>,
    /// Bound to the address to listen at, so that datagrams to a group leave by its device.
    sending: UdpSocket,
    names: watch::Sender<Vec<Name>>,
    addresses: watch::Receiver<Vec<SocketAddr>>,
}

impl Peers {
    /// Listens at `listen`, or at every address of this host, and follows the addresses of `names`.
    pub(crate) async fn open(
        listen: Option<IpAddr>,
        port: u16,
        names: Vec<Name>,
    ) -> Result<Peers, PeersError> {
        let has_group = names.iter().any(|(name, _)| name.parse().is_ok_and(|ip: IpAddr| ip.is_multicast()));
        // Linux passes a group's datagrams to sockets that are bound to the group or to every address.
        let receiving = Arc::new(bind(listen.filter(|_| !has_group), port).await?);
        let sending = bind(listen, 0).await?;
        let (names, followed) = watch::channel(names);
        let (found, addresses) = watch::channel(literal(&followed.borrow()));
        for (address, error) in join(&receiving, listen, &addresses.borrow(), &mut BTreeSet::new()) {
            tracing::warn!("peers: cannot join {address}: {error}");
        }
        tokio::spawn(look_up(followed, found, receiving.clone(), listen));
        Ok(Peers { receiving, sending, names, addresses })
    }

    /// Where it listens.
    pub(crate) fn listens_at(&self) -> String {
        self.receiving.local_addr().map(|at| at.to_string()).unwrap_or_default()
    }

    /// Other peers count from now on.
    pub(crate) fn follow(&self, names: Vec<Name>) {
        self.names.send_if_modified(|known| std::mem::replace(known, names.clone()) != names);
    }

    /// Sends a datagram to every peer, without waiting; returns those that it cannot be sent to.
    pub(crate) fn send(&self, datagram: &[u8]) -> Vec<(SocketAddr, io::Error)> {
        let is_v6 = self.sending.local_addr().is_ok_and(|at| at.is_ipv6());
        let send = |to: &SocketAddr| {
            let mapped = match to {
                SocketAddr::V4(v4) if is_v6 => SocketAddr::new(v4.ip().to_ipv6_mapped().into(), v4.port()),
                other => *other,
            };
            Some((*to, self.sending.try_send_to(datagram, mapped).err()?))
        };
        self.addresses.borrow().iter().filter_map(send).collect()
    }

    /// Receives what comes to the port.
    pub(crate) fn receiver(&self) -> Receiver {
        Receiver(self.receiving.clone())
    }
}

/// What comes to the port.
#[derive(Debug)]
pub(crate) struct Receiver(Arc<UdpSocket>);

impl Receiver {
    /// The next datagram, of which as much as fits is in `buffer`: its length, and its sender.
    pub(crate) async fn receive(&self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        let (length, from) = self.0.recv_from(buffer).await?;
        Ok((length, SocketAddr::new(from.ip().to_canonical(), from.port())))
    }
}

/// A socket at this address, or at every address of both families, or of IPv4 on a host without IPv6.
async fn bind(listen: Option<IpAddr>, port: u16) -> Result<UdpSocket, PeersError> {
    let at = SocketAddr::new(listen.unwrap_or(Ipv6Addr::UNSPECIFIED.into()), port);
    match (UdpSocket::bind(at).await, listen) {
        (Ok(socket), _) => Ok(socket),
        (Err(error), None)
            if matches!(error.kind(), ErrorKind::Unsupported | ErrorKind::AddrNotAvailable) =>
        {
            let at = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port);
            UdpSocket::bind(at).await.map_err(|error| PeersError { at, error })
        }
        // EAFNOSUPPORT has no kind of its own.
        (Err(error), None) if error.raw_os_error() == Some(nix::libc::EAFNOSUPPORT) => {
            let at = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), port);
            UdpSocket::bind(at).await.map_err(|error| PeersError { at, error })
        }
        (Err(error), _) => Err(PeersError { at, error }),
    }
}

/// The peers that are named by their addresses.
fn literal(names: &[Name]) -> Vec<SocketAddr> {
    names.iter().filter_map(|(name, port)| Some(SocketAddr::new(name.parse().ok()?, *port))).collect()
}

/// Joins the groups among `addresses` that are not in `joined`, by the device of `listen`; returns those that cannot be.
fn join(
    socket: &UdpSocket,
    listen: Option<IpAddr>,
    addresses: &[SocketAddr],
    joined: &mut BTreeSet<IpAddr>,
) -> Vec<(IpAddr, io::Error)> {
    let groups = addresses.iter().map(SocketAddr::ip).filter(IpAddr::is_multicast);
    let new: Vec<IpAddr> = groups.filter(|group| joined.insert(*group)).collect();
    let join = |group: IpAddr| {
        let done = match (group, listen) {
            (IpAddr::V4(group), Some(IpAddr::V4(own))) => socket.join_multicast_v4(group, own),
            (IpAddr::V4(group), _) => socket.join_multicast_v4(group, Ipv4Addr::UNSPECIFIED),
            (IpAddr::V6(group), _) => socket.join_multicast_v6(&group, 0),
        };
        Some((group, done.err().filter(|error| error.kind() != ErrorKind::AddrInUse)?))
    };
    new.into_iter().filter_map(join).collect()
}

/// Looks the peers' names up, now and then and when they change, for as long as the daemon runs.
async fn look_up(
    mut names: watch::Receiver<Vec<Name>>,
    found: watch::Sender<Vec<SocketAddr>>,
    socket: Arc<UdpSocket>,
    listen: Option<IpAddr>,
) {
    let (mut unknown, mut joined) = (BTreeSet::new(), BTreeSet::new());
    loop {
        let wanted = names.borrow_and_update().clone();
        let mut addresses = literal(&wanted);
        let is_name = |(name, _): &&Name| name.parse::<IpAddr>().is_err();
        for (name, port) in wanted.iter().filter(is_name) {
            match tokio::net::lookup_host((name.as_str(), *port)).await.map(|found| found.collect::<Vec<_>>())
            {
                Ok(of_name) => {
                    unknown.remove(name);
                    // One is enough: each copy of a notice counts once, and costs a datagram.
                    addresses.extend(of_name.first());
                }
                Err(error) => {
                    if unknown.insert(name.clone()) {
                        tracing::warn!(
                            "peers: {name} is not told anything: {error}; it is looked up again each minute"
                        );
                    }
                }
            }
        }
        for (group, error) in join(&socket, listen, &addresses, &mut joined) {
            tracing::warn!("peers: cannot join {group}: {error}");
        }
        found.send_replace(addresses);
        let has_names = wanted.iter().any(|name| is_name(&name));
        let pause = async {
            match has_names {
                true => tokio::time::sleep(LOOKUP_INTERVAL).await,
                false => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = names.changed() => if changed.is_err() { return },
            () = pause => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    async fn port_of(peers: &Peers) -> u16 {
        peers.receiving.local_addr().unwrap().port()
    }

    async fn received(peers: &Peers) -> (Vec<u8>, SocketAddr) {
        let mut buffer = [0; 128];
        let (length, from) = peers.receiver().receive(&mut buffer).await.unwrap();
        (buffer[..length].to_vec(), from)
    }

    #[tokio::test]
    async fn every_peer_gets_a_datagram_by_its_address_or_name() {
        let (one, two) = (
            Peers::open(Some(LOOPBACK), 0, Vec::new()).await.unwrap(),
            Peers::open(None, 0, Vec::new()).await.unwrap(),
        );
        let names = vec![
            ("127.0.0.1".to_owned(), port_of(&one).await),
            ("localhost".to_owned(), port_of(&two).await),
        ];
        let sender = Peers::open(None, 0, names).await.unwrap();
        while sender.addresses.borrow().len() < 2 {
            sender.addresses.clone().changed().await.unwrap();
        }
        assert_eq!(sender.send(b"word").len(), 0);
        assert_eq!(received(&one).await.0, b"word");
        let (datagram, from) = received(&two).await;
        assert_eq!((datagram, from.ip().is_loopback()), (b"word".to_vec(), true));
        sender.follow(vec![("127.0.0.1".to_owned(), port_of(&one).await)]);
        while sender.addresses.borrow().len() > 1 {
            sender.addresses.clone().changed().await.unwrap();
        }
        assert_eq!(sender.send(b"again").len(), 0);
        assert_eq!(received(&one).await.0, b"again");
    }

    #[tokio::test]
    async fn a_port_that_is_taken_is_named() {
        let first = Peers::open(Some(LOOPBACK), 0, Vec::new()).await.unwrap();
        let error = Peers::open(Some(LOOPBACK), port_of(&first).await, Vec::new()).await.unwrap_err();
        assert!(error.to_string().starts_with("peers: cannot listen at 127.0.0.1:"), "{error}");
    }
}
