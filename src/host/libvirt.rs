//! Looks for guests with libvirt, on a read-only connection, and follows whether they still run.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use pnet_base::MacAddr;
use tokio::sync::watch;
use virt::connect::Connect;
use virt::domain::{Domain as Handle, DomainState};
use virt::enumutil::Enum;
use virt::error::{Error, ErrorNumber};
use virt::network::Network;

use super::sys::libvirt::{EventLoop, Subscription, leases};
use crate::address::{Address, Source};
use crate::domain::{Domain, Interface};
use crate::guest::{Absent, Found, Guest, Wanted};
use crate::readiness::GuestState;

/// Seconds between questions whether a silent libvirtd is still there, and how many may stay unanswered.
const KEEPALIVE: (i32, u32) = (5, 3);

/// Who is to be told that a guest stopped or resumed, by UUID.
type Watchers = Arc<Mutex<HashMap<String, watch::Sender<GuestState>>>>;

/// See [`crate::guest::Find`].
pub fn find(uri: Option<&str>, wanted: &Wanted, sources: &[Source]) -> Result<Found, String> {
    let watchers = Watchers::default();
    let event_loop = EventLoop::start().map_err(|why| format!("cannot start libvirt's event loop: {why}"))?;
    let connection = open(uri)?;
    // Before any state is read, so that no change falls in between.
    let subscription = {
        let watchers = watchers.clone();
        Subscription::new(&connection, move |uuid, event| tell(&watchers, uuid, event))
    };
    let subscription =
        subscription.map_err(|error| format!("cannot subscribe to libvirt's events: {}", error.message()))?;
    let handles = match wanted {
        Wanted::These(names) => names.iter().map(|name| lookup(&connection, name)).collect::<Vec<_>>(),
        Wanted::All => {
            let running = virt::sys::VIR_CONNECT_LIST_DOMAINS_RUNNING;
            let handles = connection.list_all_domains(running);
            let handles = handles.map_err(|e| format!("cannot list the VMs: {}", e.message()))?;
            handles.into_iter().map(Ok).collect()
        }
    };
    // A guest that is meant twice is one guest.
    let mut known = HashSet::new();
    let handles = handles.into_iter().filter(|handle| match handle.as_ref().map(Handle::uuid_string) {
        Ok(Ok(uuid)) => known.insert(uuid),
        _ => true,
    });
    let mut looker = Looker { connection: &connection, sources, watchers, privileged: None, uri };
    let guests = handles.map(|handle| handle.and_then(|handle| looker.guest(&handle))).collect();
    drop(looker);
    let watching = Watching { _subscription: subscription, _connection: connection, _event_loop: event_loop };
    Ok(Found { guests, watching: Box::new(watching) })
}

/// What keeps the guests' states up to date; dropped in this order.
struct Watching {
    _subscription: Subscription,
    _connection: Connect,
    _event_loop: EventLoop,
}

fn open(uri: Option<&str>) -> Result<Connect, String> {
    let default = std::env::var("LIBVIRT_DEFAULT_URI").ok().filter(|uri| !uri.is_empty());
    let uri = uri.or(default.as_deref()).unwrap_or("qemu:///system");
    let connection = Connect::open_read_only(Some(uri))
        .map_err(|error| format!("cannot connect to libvirt at {uri}: {}", error.message()))?;
    // Drivers inside this process refuse, and cannot hang either.
    let _ = connection.set_keep_alive(KEEPALIVE.0, KEEPALIVE.1);
    Ok(connection)
}

fn lookup(connection: &Connect, name: &str) -> Result<Handle, Absent> {
    let by_name = connection.lookup_domain_by_name(name);
    let found = by_name.or_else(|error| match connection.lookup_domain_by_uuid_string(name) {
        Ok(handle) => Ok(handle),
        Err(_) => match name.parse() {
            Ok(id) => connection.lookup_domain_by_id(id),
            Err(_) => Err(error),
        },
    });
    found.map_err(|error| match error.code() {
        Enum::Known(ErrorNumber::NoDomain | ErrorNumber::InvalidArg) => Absent::Unknown(name.into()),
        _ => Absent::Unreadable { name: name.into(), why: error.message().into() },
    })
}

/// Tells those who watch a guest what a lifecycle event made of it.
fn tell(watchers: &Watchers, uuid: &str, event: i32) {
    use virt::sys::*;
    let state = match event as u32 {
        VIR_DOMAIN_EVENT_RESUMED | VIR_DOMAIN_EVENT_STARTED => GuestState::Running,
        VIR_DOMAIN_EVENT_SUSPENDED => GuestState::Paused("paused"),
        VIR_DOMAIN_EVENT_PMSUSPENDED => GuestState::Paused("suspended by the guest"),
        VIR_DOMAIN_EVENT_SHUTDOWN => GuestState::Left("being shut down"),
        VIR_DOMAIN_EVENT_STOPPED => GuestState::Left("shut off"),
        VIR_DOMAIN_EVENT_CRASHED => GuestState::Left("crashed"),
        _ => return,
    };
    if let Some(sender) = watchers.lock().unwrap_or_else(PoisonError::into_inner).get(uuid) {
        sender.send_replace(state);
    }
}

struct Looker<'a> {
    connection: &'a Connect,
    sources: &'a [Source],
    watchers: Watchers,
    /// libvirt tells what a guest's agent says only on a connection that may write.
    privileged: Option<Connect>,
    uri: Option<&'a str>,
}

impl Looker<'_> {
    fn guest(&mut self, handle: &Handle) -> Result<Guest, Absent> {
        let name = handle.name().unwrap_or_default();
        let unreadable = |why: &str| Absent::Unreadable { name: name.clone(), why: why.into() };
        let uuid = handle.uuid_string().map_err(|error| unreadable(error.message()))?;
        let (sender, state) = watch::channel(GuestState::Running);
        self.watchers.lock().unwrap_or_else(PoisonError::into_inner).insert(uuid, sender);
        match state_of(handle).map_err(|why| unreadable(&why))? {
            GuestState::Running => {}
            GuestState::Paused(state) | GuestState::Left(state) => {
                return Err(Absent::NotRunning { name, state });
            }
        }
        let xml = handle.xml_desc(0).map_err(|error| unreadable(error.message()))?;
        let domain = Domain::parse(&xml).map_err(|error| unreadable(&error.to_string()))?;
        let agent =
            if self.sources.contains(&Source::GuestAgent) { self.agent(&domain.uuid) } else { vec![] };
        let addresses = domain.interfaces.iter().map(|nic| self.addresses(nic, &agent)).collect();
        Ok(Guest { domain, addresses, state })
    }

    /// What libvirt knows of a NIC's addresses beside the domain's XML.
    fn addresses(&self, nic: &Interface, agent: &[(MacAddr, IpAddr)]) -> Vec<Address> {
        let Some(mac) = nic.mac else {
            return Vec::new();
        };
        let mut addresses = Vec::new();
        if let Some(name) = &nic.network {
            let network = self.connection.lookup_network_by_name(name);
            match network.and_then(|network| self.of_network(&network, mac)) {
                Ok(found) => addresses.extend(found),
                Err(error) => tracing::debug!("the network {name} tells no addresses: {}", error.message()),
            }
        }
        let claimed = agent.iter().filter(|(of, _)| *of == mac);
        addresses.extend(claimed.map(|(_, ip)| Address { ip: *ip, source: Source::GuestAgent }));
        addresses
    }

    fn of_network(&self, network: &Network, mac: MacAddr) -> Result<Vec<Address>, Error> {
        let mut found = Vec::new();
        if self.sources.contains(&Source::NetworkHost) {
            found.extend(static_hosts(&network.xml_desc(0)?, mac));
        }
        if self.sources.contains(&Source::Lease) {
            let leases = leases(network, &mac.to_string())?;
            let ips = leases.iter().filter_map(|ip| ip.parse().ok());
            found.extend(ips.map(|ip| Address { ip, source: Source::Lease }));
        }
        Ok(found)
    }

    fn agent(&mut self, uuid: &str) -> Vec<(MacAddr, IpAddr)> {
        if self.privileged.is_none() {
            match Connect::open(self.uri) {
                Ok(connection) => self.privileged = Some(connection),
                Err(error) => tracing::warn!("cannot ask guest agents: {}", error.message()),
            }
        }
        let Some(connection) = &self.privileged else {
            return Vec::new();
        };
        let source = virt::sys::VIR_DOMAIN_INTERFACE_ADDRESSES_SRC_AGENT;
        let handle = connection.lookup_domain_by_uuid_string(uuid);
        let claims = handle.and_then(|handle| handle.interface_addresses(source, 0)).unwrap_or_default();
        let claims = claims.into_iter().filter_map(|nic| Some((nic.hwaddr?.parse().ok()?, nic.addrs)));
        let claims = claims.flat_map(|(mac, ips)| ips.into_iter().map(move |ip| (mac, ip.addr.parse().ok())));
        claims.filter_map(|(mac, ip)| Some((mac, ip?))).collect()
    }
}

fn state_of(handle: &Handle) -> Result<GuestState, String> {
    match handle.state().map_err(|error| error.message().to_owned())?.0 {
        // A guest that is blocked waits for a resource of the host, and runs otherwise.
        Enum::Known(DomainState::Running | DomainState::Blocked) => Ok(GuestState::Running),
        Enum::Known(DomainState::Paused) => Ok(GuestState::Paused("paused")),
        Enum::Known(DomainState::PMSuspended) => Ok(GuestState::Paused("suspended by the guest")),
        Enum::Known(DomainState::Shutdown) => Ok(GuestState::Left("being shut down")),
        Enum::Known(DomainState::Shutoff) => Ok(GuestState::Left("shut off")),
        Enum::Known(DomainState::Crashed) => Ok(GuestState::Left("crashed")),
        // The crate turns a failed call into an unknown state.
        Enum::Known(DomainState::NoState) | Enum::Unknown(_) => Err("libvirt does not tell its state".into()),
    }
}

/// The addresses that a network's XML reserves for a MAC: `<dhcp><host mac= ip=>`.
fn static_hosts(xml: &str, mac: MacAddr) -> Vec<Address> {
    let Ok(document) = roxmltree::Document::parse(xml) else {
        return Vec::new();
    };
    let hosts = document
        .descendants()
        .filter(|n| n.has_tag_name("host") && n.parent().is_some_and(|dhcp| dhcp.has_tag_name("dhcp")));
    let hosts = hosts.filter(|n| n.attribute("mac").and_then(|m| m.parse().ok()) == Some(mac));
    let ips = hosts.filter_map(|n| n.attribute("ip")?.parse().ok());
    ips.map(|ip| Address { ip, source: Source::NetworkHost }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_reserves_addresses_by_mac() {
        let xml = "<network><ip><dhcp><host mac='52:54:00:00:00:01' name='a' ip='192.0.2.9'/>\
                   <host mac='52:54:00:00:00:02' ip='192.0.2.8'/></dhcp></ip>\
                   <dns><host ip='192.0.2.7' mac='52:54:00:00:00:01'/></dns></network>";
        let found = static_hosts(xml, MacAddr(0x52, 0x54, 0, 0, 0, 1));
        let expected = Address { ip: "192.0.2.9".parse().unwrap(), source: Source::NetworkHost };
        assert_eq!(found, [expected]);
    }
}
