//! Asks the host's bridges what no frame tells: behind which port they have learned the guest, and why they hold frames up.

use std::time::Duration;

use pnet_base::MacAddr;

use crate::announcer::Host;
use crate::attachment::{Kind, Role};
use crate::evidence::Learned;
use crate::frame::Frame;
use crate::host::{learned, unixctl};
use crate::link::{Links, PortState};
use crate::ofproto::{self, Port, Verdict};
use crate::ovs::{Ovs, Plugged};
use crate::proof::Proof;
use crate::readiness::{Assessment, InCharge};

/// A bridge that has not answered by then is not waited for: a round may be due.
const PATIENCE: Duration = Duration::from_millis(200);

/// Where the deciding bridge has learned `mac`; `None` where that says nothing, or nobody can tell.
pub async fn learned(host: &Host, seen: &Assessment, mac: MacAddr) -> Option<Learned> {
    let attachment = seen.attachment.as_ref()?;
    match attachment.kind {
        Kind::Macvtap => None,
        Kind::LinuxBridge => {
            let bridge = attachment.entry.linux_bridge.as_ref()?.ifindex;
            let vlan = seen.vlan;
            // It may have to wait for others who change devices.
            let asked = tokio::task::spawn_blocking(move || learned::on_linux_bridge(bridge, mac, vlan));
            let port = tokio::time::timeout(PATIENCE, asked).await.ok()?.ok()?.ok()?;
            let Some(port) = port else { return Some(Learned::Nowhere) };
            let name = host.links.borrow().get(port).map(|link| link.name.clone());
            Some(judged(Some(port) == attachment.entry.ifindex, name.unwrap_or_else(|| port.to_string())))
        }
        // ovn-controller's flows do not ask what was learned.
        _ if seen.in_charge.0 == InCharge::Ovn => None,
        Kind::Ovs | Kind::Hybrid | Kind::TrunkBridge | Kind::VhostUser => {
            let bridge = &attachment.bridge;
            let asked = unixctl::learned(&host.ovs_directory, bridge, mac, seen.vlan);
            match tokio::time::timeout(PATIENCE, asked).await.ok()?.ok()? {
                None => Some(Learned::Nowhere),
                Some(Port::Local) => Some(Learned::Elsewhere(bridge.clone())),
                Some(Port::Number(ofport)) => {
                    let ovs = &host.ovs.borrow().ovs;
                    let port = port_by_number(ovs, bridge, ofport);
                    let name = port.map_or_else(|| ofport.to_string(), |port| port.port.name.clone());
                    Some(judged(name == attachment.port, name))
                }
            }
        }
    }
}

fn judged(own: bool, port: String) -> Learned {
    if own { Learned::Here(port) } else { Learned::Elsewhere(port) }
}

/// Why frames do not leave the host, as far as anybody can tell: what the port lacks, what is wrong with the uplinks, which
/// flow of Open vSwitch drops them.
pub async fn why(host: &Host, seen: &Assessment, proof: &Proof) -> Option<String> {
    let frame = proof.first_stuck()?;
    if !seen.unmet.is_empty() {
        return Some(seen.unmet.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "));
    }
    let broken = broken_uplinks(&host.links.borrow(), proof);
    if broken.is_some() {
        return broken;
    }
    if seen.attachment.as_ref()?.entry.ovs.is_none() {
        return Some("a filter, perhaps: see nft list ruleset, and ebtables".into());
    }
    let verdict = verdict(host, seen, frame).await?;
    let exits = || proof.trail().hops().iter().filter(|hop| hop.role == Role::Exit);
    if exits().any(|exit| verdict.outputs.iter().any(|output| output.port == exit.name)) {
        return None;
    }
    // On a healthy host other bridges may drop it, too: those for other networks.
    let led_on = |bridge: &str| exits().any(|exit| exit.via.as_ref().is_some_and(|via| via.bridge == bridge));
    let end = verdict.ends.iter().find(|end| end.dropped && led_on(&end.bridge));
    let ovs = &host.ovs.borrow().ovs;
    Some(match end {
        Some(end) => ofproto::with_port_names(&end.line, |ofport| port_name(ovs, &end.bridge, ofport)),
        None => verdict.deciding_by_name(|bridge, ofport| port_name(ovs, bridge, ofport)),
    })
}

fn port_name(ovs: &Ovs, bridge: &str, ofport: u32) -> Option<String> {
    port_by_number(ovs, bridge, ofport).map(|port| port.interface.name.clone())
}

fn port_by_number<'a>(ovs: &'a Ovs, bridge: &str, ofport: u32) -> Option<Plugged<'a>> {
    let row = ovs.bridges.values().find(|row| row.name == bridge)?;
    ovs.plugged_into(row).find(|port| port.interface.plugged_ofport() == Some(ofport))
}

/// What Open vSwitch has for a frame, in one line; `None` where the frame does not come to it, or it does not say.
pub async fn ofproto(host: &Host, seen: &Assessment, frame: &Frame) -> Option<String> {
    let verdict = verdict(host, seen, frame).await?;
    let ovs = &host.ovs.borrow().ovs;
    Some(verdict.deciding_by_name(|bridge, ofport| port_name(ovs, bridge, ofport)))
}

async fn verdict(host: &Host, seen: &Assessment, frame: &Frame) -> Option<Verdict> {
    let entry = seen.attachment.as_ref()?.entry.ovs.as_ref()?;
    let traced = unixctl::trace(&host.ovs_directory, &entry.bridge, seen.ofport?, &frame.bytes);
    tokio::time::timeout(PATIENCE, traced).await.ok()?.ok()
}

/// What keeps every uplink from passing frames on, if something does with each.
fn broken_uplinks(links: &Links, proof: &Proof) -> Option<String> {
    let exits = proof.trail().hops().iter().filter(|hop| hop.role == Role::Exit);
    let reasons = exits.map(|hop| {
        let link = links.get(hop.ifindex?)?;
        let forwards = link.port.is_none_or(|port| port.state == PortState::Forwarding);
        match (link.up, link.lower_up) {
            (false, _) => Some(format!("{} is down", link.name)),
            (true, false) => Some(format!("{} has no carrier", link.name)),
            _ if !forwards => {
                let state = link.port.unwrap_or_default().state.word();
                Some(format!("the bridge does not forward to {}: the port is {state}", link.name))
            }
            _ => None,
        }
    });
    reasons.collect::<Option<Vec<String>>>().filter(|reasons| !reasons.is_empty()).map(|all| all.join("; "))
}
