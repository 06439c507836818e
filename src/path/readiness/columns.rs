//! The columns of an Open vSwitch port that carries the right VLAN.

use crate::guest::domain::{NativeMode, Vlan};
use crate::path::condition::Condition;
use crate::path::ovs::{DEAD_VLAN, Plugged};

/// The columns of a port that carries the right VLAN.
pub(super) struct Wanted {
    /// `tag`; none for a plain trunk.
    pub tag: Option<u16>,
    /// Any VLAN will do, but there must be one.
    any: bool,
    /// `vlan_mode`; an unset one is as good where `default` says so.
    mode: &'static str,
    /// An unset `vlan_mode` means `mode`.
    default: bool,
    /// `trunks`, sorted.
    trunks: Vec<u16>,
}

impl Wanted {
    /// What neutron's agent leaves behind when it has wired a port.
    pub(super) fn any_access() -> Wanted {
        Wanted { tag: None, any: true, mode: "access", default: true, trunks: Vec::new() }
    }

    /// What libvirt sets for `<vlan>` (`virnetdevopenvswitch.c`, `virNetDevOpenvswitchConstructVlans`).
    pub(super) fn of(vlan: &Vlan) -> Wanted {
        if vlan.tags.is_empty() {
            // A VLAN is asked for that cannot be read: at the least there must be one.
            return Wanted::any_access();
        }
        let mut trunks = if vlan.trunk { vlan.tags.clone() } else { Vec::new() };
        trunks.sort_unstable();
        let (tag, mode) = match vlan.native {
            Some((tag, NativeMode::Tagged)) => (Some(tag), "native-tagged"),
            Some((tag, NativeMode::Untagged)) => (Some(tag), "native-untagged"),
            None if vlan.trunk => (None, "trunk"),
            None => (vlan.tags.first().copied(), "access"),
        };
        Wanted { tag, any: false, mode, default: vlan.native.is_none(), trunks }
    }
}

/// Names every column of the port that is not as wanted.
pub(super) fn compare(rule: Plugged<'_>, wanted: &Wanted, unmet: &mut Vec<Condition>) {
    let port = rule.port;
    let name = || port.name.clone();
    let tag_fits = match port.tag {
        Some(tag) if wanted.any => (1..DEAD_VLAN).contains(&tag),
        tag => tag == wanted.tag && !wanted.any,
    };
    if !tag_fits {
        unmet.push(Condition::Tag { port: name(), tag: port.tag, wanted: wanted.tag });
    }
    let mode_fits = match port.vlan_mode.as_deref() {
        None => wanted.default,
        Some(mode) => mode == wanted.mode,
    };
    if !mode_fits {
        unmet.push(Condition::VlanMode { port: name(), mode: port.vlan_mode.clone(), wanted: wanted.mode });
    }
    let mut trunks = port.trunks.clone();
    trunks.sort_unstable();
    if trunks != wanted.trunks {
        unmet.push(Condition::Trunks { port: name(), trunks, wanted: wanted.trunks.clone() });
    }
}
