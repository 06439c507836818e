//! The order for one announcement.

use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::announcement::frame::{self, Frame};
use crate::announcement::question::{self, Question};
use crate::config::{Ask, Config};
use crate::guest::GuestState;
use crate::guest::address::{Address, Source, believed};
use crate::guest::domain::Vlan;
use crate::guest::event::Cause;
use crate::guest::gateway::{self, Gateway};
use crate::guest::target::Target;
use crate::host::pcap::Pcap;
use crate::path::attachment::Kind as Plugged;
use crate::path::owner::Owner;
use crate::path::readiness::{Assessment, Facts, assess};
use crate::run::host::Host;
use crate::run::settings::Settings;

/// So many VLANs of a trunk without a native VLAN are announced, in so many rounds: each costs a frame.
pub(super) const MAX_TRUNK_VLANS: usize = 64;
const MAX_TRUNK_ROUNDS: u32 = 3;
/// One announcement: what is announced, and how.
#[derive(Debug, Clone)]
pub(crate) struct Order {
    /// Why.
    pub cause: Cause,
    /// The NIC.
    pub target: Arc<Target>,
    /// The trusted addresses.
    pub addresses: Box<[Address]>,
    /// The gateways known beforehand.
    pub gateways: Box<[Gateway]>,
    /// Gateways may be guessed.
    pub guess: bool,
    /// How often the guest is queried for its multicast groups.
    pub queries: u32,
    /// The owner of the port according to the configuration.
    pub in_charge: Option<Owner>,
    /// No agent sets a VLAN on the port, according to the configuration.
    pub untagged: bool,
    /// How long before the event the source was heard to have stopped the guest, if it was.
    pub source_stopped: Option<Duration>,
    /// How it is announced.
    pub settings: Arc<Settings>,
    /// A capture file that gets every sent frame.
    pub pcap: Option<Arc<Mutex<Pcap>>>,
}

impl Order {
    /// The order for `target` under `config`, with additional addresses and the VLAN from the command line.
    pub(crate) fn new(
        target: impl Into<Arc<Target>>,
        config: &Config,
        ips: &[IpAddr],
        vlan: Option<u16>,
    ) -> Order {
        let mut target = target.into();
        let configured = config.overrides(&target).flat_map(|o| &o.addresses);
        let asked = ips.iter().map(|ip| (*ip, Source::Operator));
        let named = asked.chain(configured.map(|ip| (*ip, Source::Configuration)));
        let named = named.map(|(ip, source)| Address { ip, source });
        let candidates = named.chain(target.addresses.iter().copied());
        let mut addresses = believed(candidates, &config.addresses.sources);
        addresses.retain(|address| config.permits(&target, address.ip));
        let vlan = vlan.or_else(|| config.overrides(&target).find_map(|o| o.vlan));
        if let Some(vlan) = vlan {
            Arc::make_mut(&mut target).vlan = Some(Box::new(Vlan { tags: vec![vlan], ..Vlan::default() }));
        }
        if is_tagged_only(&target) {
            // In which of the trunk's VLANs an address is, nothing says.
            addresses.clear();
        }
        let ips: Vec<IpAddr> = addresses.iter().map(|address| address.ip).collect();
        let gateways = config.gateways(&target, &ips).into_iter().chain(target.gateways.iter().copied());
        let mut settings = Settings::new(config, &target);
        if is_tagged_only(&target) {
            settings.schedule.count = settings.schedule.count.min(MAX_TRUNK_ROUNDS);
        }
        Order {
            cause: Cause::Asked,
            gateways: gateways.collect(),
            guess: config.ask(&target) == Ask::Guess,
            // A guest that routes may be the querier of other segments.
            queries: if settings.style.router { 0 } else { config.queries(&target) },
            in_charge: config.in_charge(&target),
            untagged: config.untagged(&target),
            source_stopped: None,
            settings: Arc::new(settings),
            pcap: None,
            addresses: addresses.into(),
            target,
        }
    }

    /// The same with other settings.
    pub(crate) fn with(mut self, change: impl FnOnce(&mut Settings)) -> Order {
        self.change(change);
        self
    }

    /// Changes its settings.
    pub(crate) fn change(&mut self, change: impl FnOnce(&mut Settings)) {
        change(Arc::make_mut(&mut self.settings));
    }

    /// The same for a guest that has stopped at its source and does not run here yet: its traffic comes here and waits in its
    /// tap. It hears no query, and answers none before it runs.
    pub(crate) fn before_it_runs(self) -> Order {
        Order { cause: Cause::Handover, queries: 0, ..self }.with(Settings::before_it_runs)
    }

    /// The same for a change of an uplink, which moves no guest to another host: one query at most.
    pub(crate) fn after_uplink_change(self) -> Order {
        Order { queries: self.queries.min(1), ..self }.with(Settings::after_uplink_change)
    }

    /// Why this port is not announced before its guest runs, if it is ordered to be and must not.
    pub(crate) fn why_not_early(&self, seen: &Assessment) -> Option<&'static str> {
        let kind = seen.attachment.as_ref().map(|attachment| attachment.kind);
        match (self.settings.early, seen.in_charge.0, kind) {
            (false, ..) => None,
            // OVN delivers to both hosts until the guest runs, and a RARP would activate the port before.
            (true, Owner::Ovn, _) => Some("OVN itself delivers to both hosts of a migration"),
            // QEMU makes the rings when the guest runs, and libvirt sets a macvtap up then.
            (true, _, Some(Plugged::VhostUser | Plugged::Macvtap)) => {
                Some("its port keeps no packets for a guest that does not run yet")
            }
            (true, ..) => None,
        }
    }

    /// The same with additional gateways from the command line.
    pub(crate) fn asking(mut self, gateways: &[IpAddr]) -> Order {
        let named = gateways.iter().map(|ip| Gateway::of_all(*ip, gateway::Source::Operator));
        self.gateways = named.chain(self.gateways).collect();
        self
    }

    /// The port is a trunk without a native VLAN: it is announced by RARP in each VLAN, and no address is.
    pub(crate) fn is_tagged_only(&self) -> bool {
        is_tagged_only(&self.target)
    }

    /// The announcements of each round.
    pub(crate) fn round(&self) -> Vec<Frame> {
        match self.is_tagged_only() {
            true => frame::tagged_round(self.target.mac, &self.tags(), &self.settings.style),
            false => frame::round(self.target.mac, &self.ips(), &self.settings.style),
        }
    }

    /// The VLANs in which a trunk without a native VLAN is announced; of every other port, none.
    pub(crate) fn tags(&self) -> Vec<u16> {
        let mut vlans = self.target.vlan.as_deref().and_then(Vlan::tagged_only).unwrap_or_default();
        vlans.truncate(MAX_TRUNK_VLANS);
        vlans
    }

    /// The questions of each round; `here` are the gateways found on this host.
    pub(crate) fn questions(&self, here: &[Gateway]) -> Vec<Question> {
        let known = [&self.gateways[..], here].concat();
        self.asked_by_claimed(question::questions(&self.ips(), &known, self.guess, &self.settings.style.send))
    }

    /// Without the questions whose sender is only implied by the MAC address: many guests have another link-local address
    /// (RFC 7217), and a question would create a neighbour entry for it.
    fn asked_by_claimed(&self, mut questions: Vec<Question>) -> Vec<Question> {
        let implied = self.addresses.iter().filter(|address| address.source == Source::Implied);
        let implied: Vec<IpAddr> = implied.map(|address| address.ip).collect();
        questions.retain(|question| !implied.contains(&question.from));
        questions
    }

    /// The questions of a round in which all routers are asked.
    pub(crate) fn to_all_routers(&self) -> Vec<Question> {
        match self.settings.router_solicitation {
            true => self.asked_by_claimed(question::to_all_routers(&self.ips(), &self.settings.style.send)),
            false => Vec::new(),
        }
    }

    /// The addresses that are announced.
    pub(crate) fn ips(&self) -> Vec<IpAddr> {
        self.addresses.iter().map(|address| address.ip).collect()
    }

    /// Observes the host for the target.
    pub(crate) fn look(&self, host: &Host, guest: GuestState) -> Assessment {
        let (links, ovs) = (host.links.borrow(), host.ovs.borrow());
        let facts = Facts {
            links: &links,
            ovs: &ovs.ovs,
            ovsdb_error: ovs.error.as_ref(),
            now: ovs.epoch.elapsed(),
            guest,
            in_charge: self.in_charge,
            untagged: self.untagged,
            uplinks: &self.settings.uplinks,
        };
        assess(&self.target, &facts)
    }
}

fn is_tagged_only(target: &Target) -> bool {
    target.vlan.as_ref().is_some_and(|vlan| vlan.tagged_only().is_some())
}

#[cfg(test)]
mod tests {
    use pnet_base::MacAddr;

    use super::*;
    use crate::guest::address::implied;
    use crate::guest::target::Plug;
    use crate::run::guest_asker::GuestAsker;

    #[test]
    fn before_the_guest_runs_it_is_announced_and_nothing_is_asked() {
        let mac = MacAddr(0x52, 0x54, 0, 0, 0, 1);
        let ips: [IpAddr; 2] = ["192.0.2.10".parse().unwrap(), "2001:db8::10".parse().unwrap()];
        let asker = GuestAsker::new(|_, _| Box::pin(std::future::pending()));
        let order = Order::new(Target::of_device(Plug::default(), mac), &Config::default(), &ips, None)
            .with(|settings| settings.ask_guest = Some(asker));
        let here = [Gateway::of_all("192.0.2.1".parse().unwrap(), gateway::Source::Operator)];
        let asked = |order: &Order| [order.questions(&here).len(), order.queries as usize];
        assert!(!asked(&order).contains(&0));
        let early = order.clone().before_it_runs();
        assert_eq!(asked(&early), [0, 0]);
        assert!(early.settings.ask_guest.is_none());
        assert_eq!(early.round().len(), order.round().len());
    }

    #[test]
    fn an_implied_address_is_announced_and_asks_nothing() {
        let mac = MacAddr(0x52, 0x54, 0, 0, 0, 1);
        let named: IpAddr = "2001:db8::10".parse().unwrap();
        let mut order =
            Order::new(Target::of_device(Plug::default(), mac), &Config::default(), &[named], None);
        let addresses =
            [&order.addresses[..], &[Address { ip: implied(mac).into(), source: Source::Implied }]];
        order.addresses = addresses.concat().into();
        let order = order.with(|settings| settings.router_solicitation = true);
        let here = [Gateway::of_all("fe80::1".parse().unwrap(), gateway::Source::Operator)];
        let questions = [order.questions(&here), order.to_all_routers()].concat();
        assert!(
            questions.len() > 2 && questions.iter().all(|question| question.from == named),
            "{questions:?}"
        );
        assert!(order.round().iter().any(|frame| frame.ip == Some(implied(mac).into())));
    }
}
