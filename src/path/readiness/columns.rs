//! The columns of an Open vSwitch port, compared with those of the right VLAN.

use crate::guest::domain::{NativeMode, Vlan};
use crate::path::condition::Condition;
use crate::path::ovs::{DEAD_VLAN, Plugged, Port};

/// The required state of a port.
pub(super) enum Wanted {
    /// Untagged frames enter some VLAN other than neutron's dead one, as neutron's agent configures a port.
    AnyVlan,
    /// Untagged frames enter this VLAN, by whichever `vlan_mode`.
    Vlan(u16),
    /// The columns have exactly these values.
    Trunk {
        /// `tag`; `None` for a trunk without a native VLAN.
        tag: Option<u16>,
        /// `vlan_mode`; without a native VLAN, unset is equivalent.
        mode: &'static str,
        /// `trunks`, sorted.
        trunks: Vec<u16>,
    },
    /// An agent has set some column, and not to neutron's dead VLAN.
    AnySetting,
    /// The port is not in neutron's dead VLAN.
    NotDead,
}

impl Wanted {
    /// What libvirt sets for `<vlan>` (`virNetDevOpenvswitchConstructVlans`, `src/util/virnetdevopenvswitch.c`).
    pub(super) fn of(vlan: &Vlan) -> Wanted {
        let mut trunks = vlan.tags.clone();
        trunks.sort_unstable();
        match (vlan.native, vlan.tags.first()) {
            // The tag of `<vlan>` is unreadable: require any VLAN.
            (_, None) => Wanted::AnyVlan,
            (Some((tag, NativeMode::Tagged)), _) => {
                Wanted::Trunk { tag: Some(tag), mode: "native-tagged", trunks }
            }
            (Some((tag, NativeMode::Untagged)), _) => {
                Wanted::Trunk { tag: Some(tag), mode: "native-untagged", trunks }
            }
            (None, _) if vlan.trunk => Wanted::Trunk { tag: None, mode: "trunk", trunks },
            (None, Some(tag)) => Wanted::Vlan(*tag),
        }
    }
}

/// Adds a condition for every column of the port that differs from `wanted`.
pub(super) fn compare(rule: Plugged<'_>, wanted: &Wanted, unmet: &mut Vec<Condition>) {
    match wanted {
        Wanted::AnyVlan => native(rule, None, unmet),
        Wanted::Vlan(vlan) => native(rule, Some(*vlan), unmet),
        Wanted::Trunk { tag, mode, trunks } => trunk(rule, *tag, mode, trunks, unmet),
        Wanted::AnySetting => any_setting(rule, unmet),
        Wanted::NotDead => not_dead(rule, unmet),
    }
}

fn native(rule: Plugged<'_>, wanted: Option<u16>, unmet: &mut Vec<Condition>) {
    let port = rule.port;
    let name = || port.name.clone();
    // A port may carry other VLANs beside the required one.
    let is_native = |mode: &str| wanted.is_some() && mode.starts_with("native-");
    let passes_others = port.vlan_mode.as_deref().is_some_and(is_native);
    let mode_fits =
        passes_others || matches!(port.vlan_mode.as_deref(), None | Some("access" | "dot1q-tunnel"));
    let tag_fits = port.tag.is_some_and(|tag| match wanted {
        Some(wanted) => tag == wanted,
        None => (1..DEAD_VLAN).contains(&tag),
    });
    if !tag_fits {
        unmet.push(Condition::Tag { port: name(), tag: port.tag, wanted });
    }
    if !mode_fits {
        unmet.push(Condition::VlanMode { port: name(), mode: port.vlan_mode.clone(), wanted: "access" });
    }
    if port.heeds_trunks() && !passes_others && !port.trunks.is_empty() {
        unmet.push(Condition::Trunks { port: name(), trunks: sorted(&port.trunks), wanted: Vec::new() });
    }
}

fn trunk(
    rule: Plugged<'_>,
    tag: Option<u16>,
    mode: &'static str,
    trunks: &[u16],
    unmet: &mut Vec<Condition>,
) {
    let port = rule.port;
    let name = || port.name.clone();
    if port.tag != tag {
        unmet.push(Condition::Tag { port: name(), tag: port.tag, wanted: tag });
    }
    let mode_fits = match port.vlan_mode.as_deref() {
        None => tag.is_none(),
        Some(set) => set == mode,
    };
    if !mode_fits {
        unmet.push(Condition::VlanMode { port: name(), mode: port.vlan_mode.clone(), wanted: mode });
    }
    let set = sorted(&port.trunks);
    if set != trunks {
        unmet.push(Condition::Trunks { port: name(), trunks: set, wanted: trunks.to_vec() });
    }
}

fn any_setting(rule: Plugged<'_>, unmet: &mut Vec<Condition>) {
    let port = rule.port;
    if port.tag.is_none() && port.vlan_mode.is_none() && port.trunks.is_empty() {
        unmet.push(Condition::NoVlanSetting { port: port.name.clone() });
    }
    not_dead(rule, unmet);
}

/// In the dead VLAN, or in the state that neutron briefly leaves behind: a trunk of that VLAN alone.
fn not_dead(rule: Plugged<'_>, unmet: &mut Vec<Condition>) {
    let Port { name, tag, trunks, .. } = rule.port;
    if *tag == Some(DEAD_VLAN) {
        unmet.push(Condition::Tag { port: name.clone(), tag: *tag, wanted: None });
    } else if rule.port.heeds_trunks() && trunks == &[DEAD_VLAN] {
        unmet.push(Condition::Trunks { port: name.clone(), trunks: trunks.clone(), wanted: Vec::new() });
    }
}

fn sorted(trunks: &[u16]) -> Vec<u16> {
    let mut sorted = trunks.to_vec();
    sorted.sort_unstable();
    sorted
}
