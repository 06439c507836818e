//! Unmet conditions, as text for the operator.

use crate::path::link::PortState;
use crate::path::ovs::DEAD_VLAN;

/// A condition that must be met before a frame is sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Condition {
    /// The domain is paused.
    #[error("the guest does not run: it is {0}")]
    Paused(&'static str),
    /// The domain no longer runs on this host.
    #[error("the guest has left this host: it is {0}")]
    Left(&'static str),
    /// `<link state='down'>`.
    #[error("the guest's link is down in the domain's XML")]
    GuestLinkDown,
    /// The domain's XML has neither a device nor a socket.
    #[error("the domain's XML names no device for the NIC")]
    NoHostEnd,
    /// No kernel device has this name.
    #[error("{device} does not exist")]
    NoDevice {
        /// The missing device.
        device: String,
    },
    /// The device is not part of a bridge.
    #[error("{device} is not plugged into a bridge")]
    NotPlugged {
        /// The lone device.
        device: String,
    },
    /// The far end of a hybrid plug's veth has no row in OVSDB.
    #[error("{device} is not plugged into Open vSwitch")]
    NotInOvs {
        /// The veth's end.
        device: String,
    },
    /// The patch from a trunk's or a port's own bridge to the integration bridge is missing.
    #[error("the bridge {bridge} has no patch port to the integration bridge")]
    NoPatch {
        /// The trunk's or the port's bridge.
        bridge: String,
    },
    /// A macvtap's lower device is in another network namespace.
    #[error("the lower device of {device} is not in this network namespace")]
    NoLowerDevice {
        /// The macvtap.
        device: String,
    },
    /// OVSDB does not answer.
    #[error("OVSDB cannot be reached: {why}")]
    NoOvsdb {
        /// The error of the connection.
        why: String,
    },
    /// No device of the port's network leads out of the host yet.
    #[error("{why}")]
    NoWayOut {
        /// The bridge without a way out, and the fault of each of its ports.
        why: String,
    },
    /// Not `IFF_UP`.
    #[error("{device} is down")]
    Down {
        /// The device.
        device: String,
    },
    /// The host's end of a NIC on an Open vSwitch bridge is not `IFF_UP`: frames would leave, but no answer would reach the
    /// guest.
    #[error("{device}, the host's end of the NIC, is down")]
    NicDown {
        /// The tap or the representor.
        device: String,
    },
    /// Not `IFF_LOWER_UP`.
    #[error("{device} has no carrier")]
    NoCarrier {
        /// The device.
        device: String,
    },
    /// The spanning tree keeps the port from forwarding.
    #[error("the bridge {bridge} does not forward from {device} yet: the port is {}", state.word())]
    NotForwarding {
        /// The port.
        device: String,
        /// Its bridge.
        bridge: String,
        /// The port's state.
        state: PortState,
    },
    /// The port does not forward in its VLAN.
    #[error("the bridge {bridge} does not forward from {device} yet: the port is {} in {}", state.word(), vlans_words(vlans))]
    VlanNotForwarding {
        /// The port.
        device: String,
        /// Its bridge.
        bridge: String,
        /// The VLANs.
        vlans: Vec<u16>,
        /// The port's state in these.
        state: PortState,
    },
    /// The bridge filters VLANs, and drops the port's untagged frames or puts them into another VLAN.
    #[error("{device} has {}", pvid_words(*pvid, *wanted))]
    Pvid {
        /// The port.
        device: String,
        /// Its PVID.
        pvid: Option<u16>,
        /// The required PVID.
        wanted: Option<u16>,
    },
    /// On a bridge that filters VLANs, tagged frames from the port are dropped.
    #[error("{device} is not in {}", vlans_words(vlans))]
    NotInVlans {
        /// The port.
        device: String,
        /// The VLANs that it lacks.
        vlans: Vec<u16>,
    },
    /// A VLAN is required, but the bridge does not filter VLANs.
    #[error("the bridge {bridge} does not filter VLANs, so {device} is not in VLAN {wanted}")]
    NoVlanFiltering {
        /// The port.
        device: String,
        /// Its bridge.
        bridge: String,
        /// The required VLAN.
        wanted: u16,
    },
    /// ovs-vswitchd has not opened the port.
    #[error("Open vSwitch has no OpenFlow port for {port}{}", error.as_deref().map(|e| format!(": {e}")).unwrap_or_default())]
    NoOfport {
        /// The interface.
        port: String,
        /// OVSDB's `Interface.error`.
        error: Option<String>,
    },
    /// OVSDB's `Port.tag`.
    #[error("the port {port} has {}", tag_words(*tag, *wanted))]
    Tag {
        /// The port.
        port: String,
        /// Its value.
        tag: Option<u16>,
        /// The required value; `None` for any but the dead VLAN.
        wanted: Option<u16>,
    },
    /// OVSDB's `Port.vlan_mode`.
    #[error("the port {port} has vlan_mode {}, not {wanted}", mode.as_deref().unwrap_or("unset"))]
    VlanMode {
        /// The port.
        port: String,
        /// Its value.
        mode: Option<String>,
        /// The required value.
        wanted: &'static str,
    },
    /// OVSDB's `Port.trunks`.
    #[error("the port {port} has trunks {trunks:?}, not {wanted:?}")]
    Trunks {
        /// The port.
        port: String,
        /// Its value.
        trunks: Vec<u16>,
        /// The required value.
        wanted: Vec<u16>,
    },
    /// OVSDB's `Port.tag`, `vlan_mode` and `trunks` are all unset.
    #[error(
        "the agent in charge of the port {port} has set neither tag nor vlan_mode nor trunks (a network that never gets a VLAN \
         needs untagged = true in the configuration)"
    )]
    NoVlanSetting {
        /// The port.
        port: String,
    },
    /// `Open_vSwitch.cur_cfg` has not reached the last change of the port: a frame would meet the port's previous state, and
    /// leave untagged if the port had no tag.
    #[error("ovs-vswitchd has not carried out the last change of the port {port} yet")]
    NotApplied {
        /// The port.
        port: String,
    },
    /// ovn-controller has not set `Interface.external_ids:ovn-installed`.
    #[error("ovn-controller has not installed the flows of {port}: ovn-installed is not set")]
    NotInstalled {
        /// The interface.
        port: String,
    },
}

impl Condition {
    /// The codes of all conditions: the values of a label, which exist from the start.
    pub const CODES: [&'static str; 24] = [
        "paused",
        "left",
        "guest-link-down",
        "no-host-end",
        "no-device",
        "not-plugged",
        "not-in-ovs",
        "no-patch",
        "no-lower-device",
        "no-ovsdb",
        "no-way-out",
        "down",
        "no-carrier",
        "not-forwarding",
        "pvid",
        "not-in-vlans",
        "no-vlan-filtering",
        "no-ofport",
        "tag",
        "vlan-mode",
        "trunks",
        "no-vlan-setting",
        "not-applied",
        "not-installed",
    ];

    /// The kind of condition, a stable name for programs that read JSON or metrics.
    pub fn code(&self) -> &'static str {
        match self {
            Condition::Paused(_) => "paused",
            Condition::Left(_) => "left",
            Condition::GuestLinkDown => "guest-link-down",
            Condition::NoHostEnd => "no-host-end",
            Condition::NoDevice { .. } => "no-device",
            Condition::NotPlugged { .. } => "not-plugged",
            Condition::NotInOvs { .. } => "not-in-ovs",
            Condition::NoPatch { .. } => "no-patch",
            Condition::NoLowerDevice { .. } => "no-lower-device",
            Condition::NoOvsdb { .. } => "no-ovsdb",
            Condition::NoWayOut { .. } => "no-way-out",
            Condition::Down { .. } | Condition::NicDown { .. } => "down",
            Condition::NoCarrier { .. } => "no-carrier",
            Condition::NotForwarding { .. } | Condition::VlanNotForwarding { .. } => "not-forwarding",
            Condition::Pvid { .. } => "pvid",
            Condition::NotInVlans { .. } => "not-in-vlans",
            Condition::NoVlanFiltering { .. } => "no-vlan-filtering",
            Condition::NoOfport { .. } => "no-ofport",
            Condition::Tag { .. } => "tag",
            Condition::VlanMode { .. } => "vlan-mode",
            Condition::Trunks { .. } => "trunks",
            Condition::NoVlanSetting { .. } => "no-vlan-setting",
            Condition::NotApplied { .. } => "not-applied",
            Condition::NotInstalled { .. } => "not-installed",
        }
    }

    /// The condition is one of the guest, not of the port.
    pub fn is_of_the_guest(&self) -> bool {
        matches!(self, Condition::Paused(_) | Condition::Left(_))
    }

    /// The port is not in its VLAN yet, or its VLAN is unknown.
    pub fn is_of_the_vlan(&self) -> bool {
        use Condition::{NoOvsdb, NoVlanFiltering, NoVlanSetting, NotInVlans, NotInstalled};
        use Condition::{Pvid, Tag, Trunks, VlanMode};
        matches!(
            self,
            Tag { .. }
                | NotInVlans { .. }
                | VlanMode { .. }
                | Trunks { .. }
                | Pvid { .. }
                | NoVlanFiltering { .. }
                | NoVlanSetting { .. }
                | NotInstalled { .. }
                | NoOvsdb { .. }
        )
    }

    /// While these conditions are unmet, no frame leaves the host, so that sending does no harm.
    pub fn all_keep_frames_in(unmet: &[Condition]) -> bool {
        use Condition::{Down, NoCarrier, NoWayOut, NotForwarding, NotInVlans, VlanNotForwarding};
        use Condition::{Pvid, Tag, Trunks, VlanMode};
        let any = |is: fn(&Condition) -> bool| unmet.iter().any(is);
        // A trunk port drops untagged frames unless its trunks contain VLAN 0. Open vSwitch uses `trunks` only on such a
        // port.
        let is_dead = match any(|c| matches!(c, VlanMode { .. })) {
            true => {
                any(|c| matches!(c, VlanMode { mode, .. } if mode.as_deref() == Some("trunk")))
                    && any(|c| matches!(c, Trunks { trunks, .. } if trunks == &[DEAD_VLAN]))
            }
            false => any(|c| matches!(c, Tag { tag, .. } if *tag == Some(DEAD_VLAN))),
        };
        unmet.iter().all(|condition| match condition {
            Tag { .. } | VlanMode { .. } | Trunks { .. } => is_dead,
            Pvid { pvid, .. } => pvid.is_none(),
            Down { .. } | NoCarrier { .. } | NoWayOut { .. } => true,
            NotForwarding { .. } | VlanNotForwarding { .. } | NotInVlans { .. } => true,
            _ => false,
        })
    }
}

fn pvid_words(pvid: Option<u16>, wanted: Option<u16>) -> String {
    match (pvid, wanted) {
        (None, None) => "no PVID: its bridge drops untagged frames".into(),
        (None, Some(wanted)) => format!("no PVID (wants {wanted})"),
        (Some(pvid), wanted) => format!("PVID {pvid}, not {}", wanted.unwrap_or_default()),
    }
}

/// `VLAN 42`, or `the VLANs 42, 43`.
fn vlans_words(vlans: &[u16]) -> String {
    match vlans {
        [vlan] => format!("VLAN {vlan}"),
        _ => format!("the VLANs {}", vlans.iter().map(u16::to_string).collect::<Vec<_>>().join(", ")),
    }
}

fn tag_words(tag: Option<u16>, wanted: Option<u16>) -> String {
    match (tag, wanted) {
        (None, None) => "no VLAN tag yet".into(),
        (None, Some(wanted)) => format!("no VLAN tag yet (wants {wanted})"),
        (Some(DEAD_VLAN), _) => format!("tag {DEAD_VLAN}, neutron's dead VLAN"),
        (Some(tag), Some(wanted)) => format!("tag {tag}, not {wanted}"),
        (Some(0), None) => "tag 0, which is no VLAN".into(),
        (Some(tag), None) => format!("tag {tag}, where none is wanted"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dead_port_keeps_frames_in_and_leftovers_of_one_do_not() {
        let tag = |tag| Condition::Tag { port: "tap0".into(), tag, wanted: None };
        let mode = |mode: &str| Condition::VlanMode {
            port: "tap0".into(),
            mode: Some(mode.into()),
            wanted: "access",
        };
        let trunks = |trunks: &[u16]| Condition::Trunks {
            port: "tap0".into(),
            trunks: trunks.to_vec(),
            wanted: Vec::new(),
        };
        for (unmet, keep) in [
            (vec![tag(Some(DEAD_VLAN))], true),
            (vec![tag(Some(DEAD_VLAN)), trunks(&[DEAD_VLAN])], true),
            (vec![tag(Some(DEAD_VLAN)), mode("trunk"), trunks(&[DEAD_VLAN])], true),
            (vec![mode("trunk"), trunks(&[DEAD_VLAN])], true),
            (vec![trunks(&[DEAD_VLAN])], false),
            (vec![tag(Some(DEAD_VLAN)), mode("trunk")], false),
            (vec![mode("trunk"), trunks(&[0, DEAD_VLAN])], false),
            (vec![mode("native-tagged"), trunks(&[DEAD_VLAN])], false),
            (vec![tag(None)], false),
            (vec![Condition::Down { device: "up0".into() }], true),
            (vec![Condition::Down { device: "up0".into() }, tag(None)], false),
        ] {
            assert_eq!(Condition::all_keep_frames_in(&unmet), keep, "{unmet:?}");
        }
    }

    /// One message costs one test: others compare values. announce(1) quotes how each begins, which tests/manual holds.
    #[test]
    fn the_words_of_what_takes_values() {
        let [tap0, br0] = ["tap0", "br0"].map(str::to_owned);
        let tag = |tag, wanted| Condition::Tag { port: "tap0".into(), tag, wanted };
        let pvid = |pvid, wanted| Condition::Pvid { device: "tap0".into(), pvid, wanted };
        let vlans = |vlans: &[u16]| Condition::NotInVlans { device: "tap0".into(), vlans: vlans.to_vec() };
        let mode = |mode: Option<&str>| Condition::VlanMode {
            port: "tap0".into(),
            mode: mode.map(str::to_owned),
            wanted: "access",
        };
        let state = PortState::Learning;
        for (condition, words) in [
            (tag(None, None), "the port tap0 has no VLAN tag yet"),
            (tag(None, Some(100)), "the port tap0 has no VLAN tag yet (wants 100)"),
            (tag(Some(DEAD_VLAN), None), "the port tap0 has tag 4095, neutron's dead VLAN"),
            (tag(Some(7), Some(100)), "the port tap0 has tag 7, not 100"),
            (tag(Some(0), None), "the port tap0 has tag 0, which is no VLAN"),
            (tag(Some(100), None), "the port tap0 has tag 100, where none is wanted"),
            (mode(Some("trunk")), "the port tap0 has vlan_mode trunk, not access"),
            (mode(None), "the port tap0 has vlan_mode unset, not access"),
            (
                Condition::Trunks { port: tap0.clone(), trunks: vec![4095], wanted: vec![] },
                "the port tap0 has trunks [4095], not []",
            ),
            (pvid(None, None), "tap0 has no PVID: its bridge drops untagged frames"),
            (pvid(Some(1), Some(100)), "tap0 has PVID 1, not 100"),
            (vlans(&[43]), "tap0 is not in VLAN 43"),
            (vlans(&[42, 43]), "tap0 is not in the VLANs 42, 43"),
            (
                Condition::NotForwarding { device: tap0.clone(), bridge: br0, state },
                "the bridge br0 does not forward from tap0 yet: the port is learning",
            ),
            (
                Condition::VlanNotForwarding {
                    device: tap0.clone(),
                    bridge: "br0".into(),
                    vlans: vec![42, 43],
                    state,
                },
                "the bridge br0 does not forward from tap0 yet: the port is learning in the VLANs 42, 43",
            ),
            (
                Condition::NoOfport { port: tap0, error: Some("No such device".into()) },
                "Open vSwitch has no OpenFlow port for tap0: No such device",
            ),
        ] {
            assert_eq!(condition.to_string(), words);
        }
    }
}
