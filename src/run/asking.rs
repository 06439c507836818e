//! The questions of an announcement, and when they are asked.

use std::time::Duration;

use ipnet::IpNet;

use crate::announcement::question::{Question, Solicitations};
use crate::guest::gateway::{self, Gateway, Source};
use crate::host::netlink::routes;
use crate::host::sysctl;
use crate::path::attachment::Attachment;
use crate::path::hop::Role;
use crate::path::link::Links;
use crate::path::readiness::Assessment;
use crate::run::host::Host;
use crate::run::order::Order;

/// How long the kernel may take to answer: a round may be due.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(200);

/// The questions of one announcement.
#[derive(Debug, Default)]
pub(crate) struct Asking {
    /// When the first round was sent.
    first: Option<Duration>,
    /// The questions of every round, once the host's own addresses are known.
    questions: Option<Vec<Question>>,
    solicitations: Solicitations,
}

impl Asking {
    /// The questions of the round that was sent at `now`.
    pub(crate) async fn round(
        &mut self,
        order: &Order,
        host: &Host,
        seen: &Assessment,
        now: Duration,
    ) -> Vec<Question> {
        let since_first = now.saturating_sub(*self.first.get_or_insert(now));
        if self.questions.is_none() {
            self.questions = Some(order.questions(&gateways_here(order, host, seen).await));
        }
        let mut questions = self.questions.clone().unwrap_or_default();
        if self.solicitations.is_due(since_first) {
            let to_all = order.to_all_routers();
            let bridge = seen.attachment.as_ref().map(|attachment| attachment.bridge.clone());
            let segment = (bridge.unwrap_or_default(), seen.vlan);
            // If the link's limit is used up, the next round tries again.
            if !to_all.is_empty() && (order.settings.dry_run || host.solicitor.permits(segment, to_all.len()))
            {
                self.solicitations.sent(since_first);
                questions.extend(to_all);
            }
        }
        questions
    }
}

/// The gateways of the guest's subnets that are this host, or that the host knows through the guest's bridge. If the kernel
/// does not answer, this host is the gateway.
pub(crate) async fn gateways_here(order: &Order, host: &Host, seen: &Assessment) -> Vec<Gateway> {
    let mut found = Vec::new();
    for (device, address) in own_addresses(order, host, seen) {
        let asked = tokio::time::timeout(ANSWER_TIMEOUT, routes::gateway(device, address.addr())).await;
        let next_hop = asked.ok().and_then(Result::ok).flatten();
        found.push(gateway::on_bridge(address, next_hop));
    }
    found
}

/// The settings of this host's devices in the guest's subnets that decide how it handles announcements, where this host is
/// the router.
pub(crate) fn settings_here(
    order: &Order,
    host: &Host,
    seen: &Assessment,
    here: &[Gateway],
) -> Vec<(String, String)> {
    let of_router = |address: &IpNet| {
        here.iter().any(|gateway| gateway.source == Source::Bridge && gateway.ip == address.addr())
    };
    let own = own_addresses(order, host, seen).into_iter().filter(|(_, address)| of_router(address));
    let settings = own.filter_map(|(device, address)| {
        let name = host.links.borrow().get(device)?.name.clone();
        sysctl::neighbours(&name, address.addr())
    });
    settings.collect()
}

/// The addresses of this host that are neighbours of the guest, with their ifindexes.
fn own_addresses(order: &Order, host: &Host, seen: &Assessment) -> Vec<(u32, IpNet)> {
    let addresses = match &seen.attachment {
        Some(attachment) => addresses_in_vlan(&host.links.borrow(), attachment, seen.vlan),
        None => Vec::new(),
    };
    gateway::with_neighbours(&addresses, &order.ips())
}

/// The addresses of this host in the guest's VLAN: those of its bridges and of VLAN devices on them, with their ifindexes.
fn addresses_in_vlan(links: &Links, attachment: &Attachment, vlan: Option<u16>) -> Vec<(u32, IpNet)> {
    let on_way = attachment.way.hops.iter().filter(|hop| matches!(hop.role, Role::LinuxBridge | Role::Ovs));
    let bridges = on_way.filter_map(|hop| links.named(&hop.name));
    let devices = bridges.flat_map(|bridge| {
        let filters = bridge.bridge.is_some_and(|bridge| bridge.vlan_filtering);
        let is_own = if filters { bridge.pvid == vlan } else { vlan.is_none() };
        let stacked =
            links.stacked_on(bridge.index).filter(|link| link.vlan_id.is_some() && link.vlan_id == vlan);
        is_own.then_some(bridge).into_iter().chain(stacked)
    });
    devices.flat_map(|device| links.addresses(device.index).map(|net| (device.index, net))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path::attachment::resolve;
    use crate::path::attachment::tests::{link, plug};
    use crate::path::hop::Tag;
    use crate::path::link::{Bridge, Link};
    use crate::path::ovs::Ovs;
    use crate::path::uplinks::Uplinks;

    fn told(vlan_filtering: bool, vlan: Option<u16>) -> Vec<String> {
        let stacked = Link { vlan_id: Some(100), ..link(5, "br0.100", "vlan", 0, 1) };
        let bridge = Link {
            bridge: Some(Bridge { vlan_filtering, mst: false }),
            pvid: Some(1),
            ..link(1, "br0", "bridge", 0, 0)
        };
        let mut links =
            Links::from_iter([bridge, link(2, "tap0", "tun", 1, 0), link(3, "eth0", "", 1, 0), stacked]);
        for (device, address) in [(1, "10.1.1.1"), (5, "10.1.100.1"), (3, "192.0.2.1")] {
            links.address(device, (address.parse().unwrap(), 24), true);
        }
        let attachment =
            resolve(&plug("tap0"), Tag::Untagged, &links, &Ovs::default(), &Uplinks::default()).unwrap();
        addresses_in_vlan(&links, &attachment, vlan).iter().map(|(_, net)| net.to_string()).collect()
    }

    #[test]
    fn this_host_is_in_a_vlan_by_its_bridge_or_a_vlan_device_on_it() {
        assert_eq!(told(false, None), ["10.1.1.1/24"]);
        assert_eq!(told(true, Some(1)), ["10.1.1.1/24"]);
        assert_eq!(told(true, Some(100)), ["10.1.100.1/24"]);
        assert_eq!(told(true, Some(7)), [""; 0]);
    }
}
