//! NICs that are on no network: the host routes to the guest by its device.

use std::time::Duration;

use crate::host::netlink::routes;
use crate::path::condition::Condition;
use crate::path::readiness::Assessment;
use crate::run::host::Host;
use crate::run::order::Order;

const ROUTES_TIMEOUT: Duration = Duration::from_millis(200);

/// The device that is on no bridge, if that is what the NIC lacks.
pub(crate) fn lone(seen: &Assessment) -> Option<&str> {
    seen.unmet.iter().find_map(|unmet| match unmet {
        Condition::NotPlugged { device } => Some(device.as_str()),
        _ => None,
    })
}

/// Why there is no network to announce the NIC on: its device is on no bridge, and this host has a host route by it.
pub(crate) async fn by_host(host: &Host, order: &Order, seen: &Assessment) -> Option<String> {
    let name = lone(seen)?;
    let device = host.links.borrow().named(name).map(|link| link.index)?;
    for ip in order.ips() {
        let asked = tokio::time::timeout(ROUTES_TIMEOUT, routes::is_host_route(device, ip)).await;
        if let Ok(Ok(true)) = asked {
            return Some(format!(
                "{name} is on no bridge, and this host routes to {ip} by it: there is no network to announce it on \
                 (announce = false in the configuration leaves it out)"
            ));
        }
    }
    None
}
