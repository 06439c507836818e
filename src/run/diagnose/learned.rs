//! The port behind which the host's bridges have learned the guest.

use pnet_base::MacAddr;

use super::verdicts::{ANSWER_TIMEOUT, port_by_number, verdict};
use crate::announcement::frame::Frame;
use crate::path::attachment::{Attachment, Kind};
use crate::path::ovs::Plugged;
use crate::path::owner::Owner;
use crate::path::readiness::Assessment;
use crate::proof::fdb_show::Port;
use crate::report::evidence::Learned;
use crate::run::host::Host;

/// The FDB entry for `mac` on the path's bridge; `None` if the bridge does not learn or does not answer. `frame` is one of
/// its frames.
pub(crate) async fn learned(host: &Host, seen: &Assessment, mac: MacAddr, frame: &Frame) -> Option<Learned> {
    let attachment = seen.attachment.as_ref()?;
    match entry(host, seen, attachment, mac).await? {
        Some(Entry { port, is_own: true, .. }) => Some(Learned::Here(port)),
        Some(Entry { port, .. }) => Some(Learned::Elsewhere(port)),
        None if attachment.kind == Kind::LinuxBridge => Some(Learned::Nowhere),
        None => learns(host, seen, &attachment.bridge, frame).await.then_some(Learned::Nowhere),
    }
}

/// Whether the path's bridge has learned `mac` behind a port by which frames leave.
pub(crate) async fn has_moved(host: &Host, seen: &Assessment, mac: MacAddr) -> bool {
    let Some(attachment) = &seen.attachment else { return false };
    let entry = entry(host, seen, attachment, mac).await.flatten();
    entry.is_some_and(|entry| entry.is_learned && !entry.is_own && entry.leads_on)
}

/// An FDB entry of the guest.
struct Entry {
    port: String,
    is_own: bool,
    is_learned: bool,
    /// Frames leave the host by the port.
    leads_on: bool,
}

/// The FDB entry for `mac` on the path's bridge; `None` if the bridge has no FDB or does not answer.
async fn entry(
    host: &Host,
    seen: &Assessment,
    attachment: &Attachment,
    mac: MacAddr,
) -> Option<Option<Entry>> {
    let is_hop = |name: &str| attachment.way.names().any(|hop| hop == name);
    match attachment.kind {
        Kind::Macvtap => None,
        Kind::LinuxBridge => {
            let bridge = attachment.entry.linux_bridge.as_ref()?.ifindex;
            let asked = host.fdb.on_linux_bridge(bridge, mac, seen.vlan);
            let found = tokio::time::timeout(ANSWER_TIMEOUT, asked).await.ok()?.ok()?;
            Some(found.map(|found| {
                let name = host.links.borrow().get(found.port).map(|link| link.name.clone());
                let port = name.unwrap_or_else(|| found.port.to_string());
                let is_own = Some(found.port) == attachment.entry.ifindex;
                Entry { is_own, is_learned: found.is_learned, leads_on: is_hop(&port), port }
            }))
        }
        // ovn-controller's flows do not use the FDB.
        _ if seen.in_charge.0 == Owner::Ovn => None,
        Kind::Ovs | Kind::Hybrid | Kind::TrunkBridge | Kind::PerPortBridge | Kind::VhostUser => {
            let bridge = &attachment.bridge;
            let asked = host.ovs_fdb.learned(&host.ovs_directory, bridge, mac, seen.vlan);
            let found = tokio::time::timeout(ANSWER_TIMEOUT, asked).await.ok()?.ok()?;
            Some(found.map(|found| {
                let ovs = &host.ovs.borrow().ovs;
                let row = match found.port {
                    Port::Local => None,
                    Port::Number(ofport) => {
                        let is_it = |port: &Plugged<'_>| port.interface.plugged_ofport() == Some(ofport);
                        // Usually it is this port; there may be thousands of others.
                        let own = ovs.port_of(bridge, &attachment.port).filter(is_it);
                        own.or_else(|| port_by_number(ovs, bridge, ofport))
                    }
                };
                let leads_on = row.is_some_and(|row| {
                    is_hop(&row.interface.name)
                        || (row.interface.kind == "patch" && !row.interface.is_guests())
                });
                let port = match (row, found.port) {
                    (Some(row), _) => row.port.name.clone(),
                    (None, Port::Local) => bridge.clone(),
                    (None, Port::Number(ofport)) => ofport.to_string(),
                };
                let is_own = port == attachment.port;
                Entry { is_own, is_learned: found.is_learned, leads_on, port }
            }))
        }
    }
}

/// Whether an Open vSwitch bridge would learn from a frame. With neutron's `explicitly_egress_direct`, flows alone forward
/// frames and the FDB is not used; a frame that the bridge drops is reported as such.
async fn learns(host: &Host, seen: &Assessment, bridge: &str, frame: &Frame) -> bool {
    let verdict =
        tokio::time::timeout(ANSWER_TIMEOUT, verdict(host, seen, &frame.bytes)).await.ok().flatten();
    let ends = verdict.iter().flatten().flat_map(|verdict| &verdict.ends);
    ends.filter(|end| end.bridge == bridge).any(|end| !end.dropped && end.line.ends_with("actions=NORMAL"))
}
