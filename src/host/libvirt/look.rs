//! Reads one guest from libvirt.

use std::net::IpAddr;

use pnet_base::MacAddr;
use virt::connect::Connect;
use virt::domain::{Domain as Handle, DomainState};
use virt::enumutil::Enum;
use virt::error::Error;
use virt::network::Network;

use super::LibvirtError;
use crate::guest::address::{Address, Source};
use crate::guest::domain::{Domain, Interface};
use crate::guest::gateway::Gateway;
use crate::guest::xml;
use crate::guest::{self, GuestState, Known};
use crate::host::sys::libvirt::leases;

/// Reads guests over a connection.
pub(super) struct Looker<'a> {
    /// The connection.
    pub connection: &'a Connect,
    /// The sources of addresses to read.
    pub sources: &'a [Source],
    /// A read-write connection: libvirt answers for the guest agent only on such a one.
    pub privileged: Option<Connect>,
    /// The connection's URI.
    pub uri: Option<&'a str>,
}

impl Looker<'_> {
    /// Reads the domain's XML, and addresses of its NICs from other sources.
    pub(super) fn read(&mut self, handle: &Handle) -> Result<Known, LibvirtError> {
        let xml = handle.xml_desc(0).map_err(LibvirtError::Guest)?;
        let domain = Domain::parse(&xml)?;
        if let Err(why) = xml::check(&xml) {
            let name = domain.name.escape_debug();
            tracing::warn!("{name}: its <metadata> is not read, since {why}");
        }
        let agent =
            if self.sources.contains(&Source::GuestAgent) { self.agent(&domain.uuid) } else { vec![] };
        let of_nics = domain.interfaces.iter().map(|nic| self.of_nic(nic, &agent));
        let (addresses, gateways) = of_nics.unzip();
        Ok(Known { domain, addresses, gateways })
    }

    /// Addresses and gateways of a NIC that libvirt has outside the domain's XML.
    fn of_nic(&self, nic: &Interface, agent: &[(MacAddr, IpAddr)]) -> (Vec<Address>, Vec<Gateway>) {
        let Some(mac) = nic.mac else {
            return Default::default();
        };
        let (mut addresses, mut gateways) = (Vec::new(), Vec::new());
        if let Some(name) = &nic.network {
            let network = self.connection.lookup_network_by_name(name);
            match network.and_then(|network| self.of_network(&network, mac)) {
                Ok(found) => (addresses, gateways) = found,
                Err(error) => {
                    tracing::debug!("cannot read the addresses of the network {name}: {}", error.message())
                }
            }
        }
        let claimed = agent.iter().filter(|(of, _)| *of == mac);
        addresses.extend(claimed.map(|(_, ip)| Address { ip: *ip, source: Source::GuestAgent }));
        (addresses, gateways)
    }

    fn of_network(&self, network: &Network, mac: MacAddr) -> Result<(Vec<Address>, Vec<Gateway>), Error> {
        let described = guest::network::Network::parse(&network.xml_desc(0)?);
        let mut found = Vec::new();
        if self.sources.contains(&Source::NetworkHost) {
            found.extend(described.reserved(mac));
        }
        if self.sources.contains(&Source::Lease) {
            let leases = leases(network, &mac.to_string())?;
            let ips = leases.iter().filter_map(|ip| ip.parse().ok());
            found.extend(ips.map(|ip| Address { ip, source: Source::Lease }));
        }
        Ok((found, described.gateways))
    }

    fn agent(&mut self, uuid: &str) -> Vec<(MacAddr, IpAddr)> {
        if self.privileged.is_none() {
            match super::open_for_writing(self.uri) {
                Ok(connection) => self.privileged = Some(connection),
                Err(error) => tracing::warn!("cannot ask guest agents: {error}"),
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

/// Whether a guest runs.
pub(super) fn state_of(handle: &Handle) -> Result<GuestState, LibvirtError> {
    match handle.state().map_err(LibvirtError::Guest)?.0 {
        // A blocked guest waits for a resource of the host; otherwise it runs.
        Enum::Known(DomainState::Running | DomainState::Blocked) => Ok(GuestState::Running),
        Enum::Known(DomainState::Paused) => Ok(GuestState::Paused("paused")),
        Enum::Known(DomainState::PMSuspended) => Ok(GuestState::Paused("suspended by the guest")),
        Enum::Known(DomainState::Shutdown) => Ok(GuestState::Left("being shut down")),
        Enum::Known(DomainState::Shutoff) => Ok(GuestState::Left("shut off")),
        Enum::Known(DomainState::Crashed) => Ok(GuestState::Left("crashed")),
        // The crate turns a failed call into an unknown state.
        Enum::Known(DomainState::NoState) | Enum::Unknown(_) => Err(LibvirtError::State),
    }
}
