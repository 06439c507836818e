//! The conditions of a Linux bridge: its devices, its ports, its VLANs.

use crate::guest::domain::Vlan;
use crate::guest::target::Target;
use crate::path::attachment::Attachment;
use crate::path::condition::Condition;
use crate::path::hop::{Hop, Role};
use crate::path::link::{Link, Links, PortState};

/// Checks that a device is there, up, and connected.
pub(super) fn device_works(name: &str, links: &Links, unmet: &mut Vec<Condition>) {
    let device = name.to_owned();
    match links.named(name) {
        None => unmet.push(Condition::NoDevice { device }),
        Some(link) if !link.up => unmet.push(Condition::Down { device }),
        Some(link) if !link.lower_up => unmet.push(Condition::NoCarrier { device }),
        Some(_) => {}
    }
}

/// Checks that the guest's port, and that of a hybrid plug's veth, forward.
pub(super) fn forwards(attachment: &Attachment, links: &Links, unmet: &mut Vec<Condition>) {
    let Some(bridge) = &attachment.entry.linux_bridge else {
        return;
    };
    let link = links.get(bridge.ifindex);
    if link.is_some_and(|link| !link.up) {
        unmet.push(Condition::Down { device: bridge.name.clone() });
    }
    let has_state_by_vlan = link.and_then(|link| link.bridge).is_some_and(|bridge| bridge.mst);
    let veth = attachment.entry.veth.as_ref().map(|veth| &veth.name);
    for name in [Some(&attachment.entry.name), veth].into_iter().flatten() {
        let before = unmet.len();
        device_works(name, links, unmet);
        let state = links.named(name).and_then(|link| link.port).map(|port| port.state);
        let state = state.unwrap_or_default();
        if unmet.len() == before && state != PortState::Forwarding && !has_state_by_vlan {
            unmet.push(Condition::NotForwarding { device: name.clone(), bridge: bridge.name.clone(), state });
        }
    }
}

/// The VLAN that the first bridge which filters VLANs puts the port's untagged frames into, if that is the guest's own bridge.
pub(super) fn filtered_vlan(
    target: &Target,
    attachment: &Attachment,
    links: &Links,
    unmet: &mut Vec<Condition>,
) -> Option<u16> {
    let wanted = target.vlan.as_deref().and_then(Vlan::native);
    let Some(entry) = filtering_port(attachment, links) else {
        let (device, bridge) = (attachment.port.clone(), attachment.bridge.clone());
        unmet.extend(wanted.map(|wanted| Condition::NoVlanFiltering { device, bridge, wanted }));
        return None;
    };
    if let Some(vlans) = target.vlan.as_deref().and_then(Vlan::tagged_only) {
        let missing = vlans.iter().copied().filter(|vlan| entry.in_vlan(*vlan).is_none());
        let missing: Vec<u16> = missing.collect();
        if !missing.is_empty() {
            unmet.push(Condition::NotInVlans { device: entry.name.clone(), vlans: missing });
        }
        unmet.extend(not_forwarding(entry, links, &vlans));
        return None;
    }
    if entry.pvid.is_none() || wanted.is_some_and(|wanted| entry.pvid != Some(wanted)) {
        unmet.push(Condition::Pvid { device: entry.name.clone(), pvid: entry.pvid, wanted });
    }
    unmet.extend(not_forwarding(entry, links, entry.pvid.as_slice()));
    // Beyond another bridge, the guest's own knows nothing of that VLAN.
    entry.pvid.filter(|_| entry.name == attachment.port)
}

/// Those of these VLANs in which the port does not forward, of one state.
fn not_forwarding(entry: &Link, links: &Links, vlans: &[u16]) -> Option<Condition> {
    let state =
        vlans.iter().map(|vlan| entry.vlan_state(*vlan)).find(|state| *state != PortState::Forwarding)?;
    let vlans = vlans.iter().copied().filter(|vlan| entry.vlan_state(*vlan) == state).collect();
    let bridge = links.get(entry.master?)?.name.clone();
    Some(Condition::VlanNotForwarding { device: entry.name.clone(), bridge, vlans, state })
}

/// The port by which the guest's frames come into the first Linux bridge that filters VLANs.
fn filtering_port<'a>(attachment: &Attachment, links: &'a Links) -> Option<&'a Link> {
    let hops = &attachment.way.hops;
    let link = |hop: &Hop| links.get(hop.ifindex?);
    let mut on_bridges = hops.iter().filter(|hop| hop.role == Role::LinuxBridge);
    let is_filtering = |hop: &&Hop| link(hop).and_then(|link| link.bridge).is_some_and(|b| b.vlan_filtering);
    let entry = link(&hops[on_bridges.find(is_filtering)?.from?])?;
    // Where it comes from the bridge's own host side, or from Open vSwitch, no port says.
    Some(entry).filter(|entry| entry.port.is_some())
}
