//! Rows of Open vSwitch's database, and what ovs-vswitchd makes of their columns.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use crate::path::tunnel::{Encapsulation, GENEVE_PORT, VXLAN_PORT};

/// The VLAN in which neutron's agent parks a port that it has not wired yet
/// (`neutron.plugins.ml2.drivers.openvswitch.agent.common.constants.DEAD_VLAN_TAG`).
pub const DEAD_VLAN: u16 = 4095;

/// How long ovs-vswitchd may take to carry out a change that `next_cfg` does not count, where it cannot be asked.
///
/// On an idle host it takes about 1.5 ms.
pub const SETTLING_TIME: Duration = Duration::from_millis(20);
/// How long it may take to answer before it counts as hanging.
const ANSWER_TIME: Duration = Duration::from_secs(1);

/// A row's UUID.
pub type Uuid = String;

/// Keys of `Interface.external_ids`: the SDN's id of a NIC, its MAC, and the UUID of its VM.
pub(super) const IFACE_ID: &str = "iface-id";
pub(super) const ATTACHED_MAC: &str = "attached-mac";
pub(super) const VM_ID: &str = "vm-id";

/// The key of `Port.other_config` by which neutron's agent knows its ports.
const NET_UUID: &str = "net_uuid";

/// A row of table `Bridge`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Bridge {
    /// `name`.
    pub name: String,
    /// `ports`.
    pub ports: Vec<Uuid>,
    /// `mirrors`.
    pub mirrors: Vec<Uuid>,
}

/// A row of table `Mirror`: what gets copies of a bridge's frames, also of those that the bridge drops. Open vSwitch heeds
/// `output_vlan` only without `output_port`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Mirror {
    /// `output_port`: a port that transmits nothing else.
    pub output_port: Option<Uuid>,
    /// `output_vlan`: every port that carries this VLAN transmits the copies in it; frames of that VLAN are not copied.
    pub output_vlan: Option<u16>,
}

/// A row of table `Port`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Port {
    /// `name`.
    pub name: String,
    /// `interfaces`: several on a bond.
    pub interfaces: Vec<Uuid>,
    /// `tag`, 0 to 4095.
    pub tag: Option<u16>,
    /// `vlan_mode`.
    pub vlan_mode: Option<String>,
    /// `trunks`.
    pub trunks: Vec<u16>,
    /// `bond_active_slave`: the MAC address of the interface by which a bond transmits, where there is one such.
    pub bond_active_slave: Option<String>,
    /// `other_config`.
    pub other_config: BTreeMap<String, String>,
    /// `next_cfg` when this row last changed: until `cur_cfg` reaches it, the datapath still has the previous state.
    pub changed_in: i64,
    /// The last change of its VLAN that was not counted; `None` if the previous VLAN would have forwarded no frame.
    pub uncounted: Option<Uncounted>,
}

/// A change whose writer did not increment `Open_vSwitch.next_cfg`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Uncounted {
    /// When OVSDB reported it.
    pub at: Duration,
    /// `next_cfg` at that time. A greater `cur_cfg` belongs to a later change, and covers this one.
    pub next_cfg: i64,
    /// It was not seen: a listing has the row for the first time, or otherwise than before.
    pub is_supposed: bool,
}

/// What ovs-vswitchd has answered about changes that are not counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Answers {
    /// When the last such change was reported.
    pub changed_at: Option<Duration>,
    /// Every change that was reported until then is carried out.
    pub until: Option<Duration>,
    /// It could not be asked about changes that were reported until then: [`SETTLING_TIME`] must do.
    pub not_told_until: Option<Duration>,
}

impl Answers {
    /// Some change is later than the last answer, and can be asked about.
    pub fn is_due(&self) -> bool {
        self.changed_at > self.until.max(self.not_told_until)
    }
}

/// Whether the datapath has the state after a port's last change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CarriedOut {
    /// It has, as far as changes that are not counted go.
    Yes,
    /// Not yet, perhaps, and this much longer.
    In(Duration),
    /// ovs-vswitchd has been asked, and does not answer.
    Unanswered,
}

/// A row of table `Interface`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Interface {
    /// `name`.
    pub name: String,
    /// `type`: empty for a kernel device, otherwise patch, internal, dpdkvhostuser, vxlan, …
    pub kind: String,
    /// `ofport`: its OpenFlow port number; -1 if it could not be opened.
    pub ofport: Option<i64>,
    /// `error`: why it could not be opened.
    pub error: Option<String>,
    /// `external_ids`.
    pub external_ids: BTreeMap<String, String>,
    /// `options`.
    pub options: BTreeMap<String, String>,
    /// `status:tunnel_egress_iface`: the device by which the route to a tunnel's remote end leads.
    pub egress: Option<String>,
}

/// Where Open vSwitch puts untagged frames that a port receives (ovs-vswitchd.conf.db(5), `Port` column `vlan_mode`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Untagged {
    /// Into this VLAN, 1 to 4095.
    Into(u16),
    /// They stay untagged.
    Stay,
    /// Nowhere: a trunk port without a native VLAN drops them.
    Dropped,
}

impl Port {
    /// Where its untagged frames go.
    pub fn untagged(&self) -> Untagged {
        let native = self.tag.filter(|tag| *tag > 0).map_or(Untagged::Stay, Untagged::Into);
        match self.vlan_mode.as_deref() {
            Some("trunk") => self.untagged_of_trunk(),
            None if self.tag.is_none() => self.untagged_of_trunk(),
            _ => native,
        }
    }

    /// Open vSwitch uses `trunks`: an access port or a tunnel ignores values left there.
    pub fn heeds_trunks(&self) -> bool {
        match self.vlan_mode.as_deref() {
            None => self.tag.is_none(),
            Some(mode) => !matches!(mode, "access" | "dot1q-tunnel"),
        }
    }

    fn untagged_of_trunk(&self) -> Untagged {
        if self.trunks.is_empty() || self.trunks.contains(&0) { Untagged::Stay } else { Untagged::Dropped }
    }

    /// This row in place of `before`, after an update at `at`; `counted` if the update incremented `next_cfg` to its present
    /// value `next_cfg`.
    pub fn after(self, before: Option<&Port>, counted: bool, next_cfg: i64, at: Duration) -> Port {
        let uncounted = match before {
            // A new port receives no frame before ovs-vswitchd has made it.
            None => None,
            Some(before) if before.is_dead() || self.has_vlan_of(before) => before.uncounted,
            Some(_) => (!counted).then_some(Uncounted { at, next_cfg, is_supposed: false }),
        };
        Port { changed_in: next_cfg, uncounted, ..self }
    }

    /// This row in an initial dump at `at`: a row that was different or unknown may have changed just now.
    pub fn listed(self, known: Option<&Port>, next_cfg: i64, at: Duration) -> Port {
        let uncounted = match known {
            Some(known) if self.has_vlan_of(known) => known.uncounted,
            _ => Some(Uncounted { at, next_cfg, is_supposed: true }),
        };
        Port { changed_in: next_cfg, uncounted, ..self }
    }

    /// Whether ovs-vswitchd has carried out its last change, given the present `cur_cfg` and the answers.
    pub fn carried_out(&self, cur_cfg: i64, answers: &Answers, now: Duration) -> CarriedOut {
        let is_open = |change: &Uncounted| cur_cfg <= change.next_cfg && Some(change.at) > answers.until;
        let Some(change) = self.uncounted.filter(is_open) else { return CarriedOut::Yes };
        // What is only supposed does not depend on an ovs-vswitchd that hangs.
        let can_be_told = Some(change.at) > answers.not_told_until;
        let needs_answer = answers.is_due() && can_be_told && !change.is_supposed;
        let time = if needs_answer { ANSWER_TIME } else { SETTLING_TIME };
        let left = change.at.saturating_add(time).checked_sub(now);
        match left.filter(|left| !left.is_zero()) {
            Some(left) => CarriedOut::In(left),
            None if needs_answer => CarriedOut::Unanswered,
            None => CarriedOut::Yes,
        }
    }

    /// It forwards no untagged frame that it receives.
    fn is_dead(&self) -> bool {
        matches!(self.untagged(), Untagged::Dropped | Untagged::Into(DEAD_VLAN))
    }

    fn has_vlan_of(&self, other: &Port) -> bool {
        let vlan = |port: &Port| (port.tag, port.vlan_mode.clone(), port.trunks.clone());
        vlan(self) == vlan(other)
    }
}

/// Marked with the network, or an end of the agent's patches (`int-`…/`phy-`…, patch-tun/patch-int).
pub(super) fn is_of_neutrons_agent(port: &Port, interface: &Interface) -> bool {
    let peer = interface.options.get("peer").map(String::as_str).filter(|_| interface.kind == "patch");
    let pair = peer.map(|peer| (interface.name.as_str(), peer));
    port.other_config.contains_key(NET_UUID)
        || pair.is_some_and(|(name, peer)| {
            let bridge = name.strip_prefix("int-");
            (name, peer) == ("patch-tun", "patch-int")
                || bridge.is_some_and(|b| peer.strip_prefix("phy-") == Some(b))
        })
}

impl Port {
    /// What the index has of it.
    pub fn found_by(&self) -> (&str, &[Uuid], bool) {
        (&self.name, &self.interfaces, self.other_config.contains_key(NET_UUID))
    }
}

impl Interface {
    /// What the index has of it.
    pub fn found_by(&self) -> (&str, &str, &BTreeMap<String, String>, &BTreeMap<String, String>) {
        (&self.name, &self.kind, &self.external_ids, &self.options)
    }

    /// Its OpenFlow port number, if it has a usable one.
    pub fn plugged_ofport(&self) -> Option<u32> {
        u32::try_from(self.ofport?).ok().filter(|port| *port > 0)
    }

    /// It is a vhost-user port, which has no kernel device.
    pub fn is_vhost_user(&self) -> bool {
        matches!(self.kind.as_str(), "dpdkvhostuser" | "dpdkvhostuserclient")
    }

    /// It encapsulates frames and sends them to another host.
    pub fn is_tunnel(&self) -> bool {
        matches!(
            self.kind.as_str(),
            "vxlan"
                | "geneve"
                | "gre"
                | "ip6gre"
                | "erspan"
                | "ip6erspan"
                | "stt"
                | "lisp"
                | "bareudp"
                | "gtpu"
                | "srv6"
        )
    }

    /// How it encapsulates frames, if they can be recognized behind it: Ethernet inside, and no IPsec, whose keys are options
    /// (ovs-vswitchd.conf.db(5); OVN sets `remote_name`).
    pub fn encapsulation(&self) -> Option<Encapsulation> {
        let option = |key: &str| self.options.get(key).map(String::as_str);
        let is_encrypted = ["psk", "remote_cert", "remote_name"].iter().any(|key| option(key).is_some());
        let is_ethernet = option("packet_type").is_none_or(|kind| kind == "legacy_l2")
            && option("exts").is_none_or(|names| !names.contains("gpe"));
        if is_encrypted || !is_ethernet {
            return None;
        }
        let port = |default| option("dst_port").map_or(Some(default), |port| port.parse().ok());
        match self.kind.as_str() {
            "vxlan" => Some(Encapsulation::Vxlan(port(VXLAN_PORT)?)),
            "geneve" => Some(Encapsulation::Geneve(port(GENEVE_PORT)?)),
            "gre" | "ip6gre" => Some(Encapsulation::Gre),
            _ => None,
        }
    }

    /// The other end of a tunnel; `None` where flows set it.
    pub fn remote(&self) -> Option<IpAddr> {
        self.options.get("remote_ip")?.parse().ok()
    }

    /// The kernel datapath's device for all tunnels of this kind (`netdev_vport_get_dpif_port`, Open vSwitch's
    /// `lib/netdev-vport.c`); the userspace datapath has none.
    pub fn tunnel_device(&self) -> Option<String> {
        let (device, port) = match self.kind.as_str() {
            "vxlan" => ("vxlan_sys", "4789"),
            "geneve" => ("genev_sys", "6081"),
            "stt" => ("stt_sys", "7471"),
            "gre" => return Some("gre_sys".into()),
            _ => return None,
        };
        Some(format!("{device}_{}", self.options.get("dst_port").map_or(port, String::as_str)))
    }

    /// The names by which the NIC of a guest finds this port, if that is on no other guest's path.
    pub(crate) fn names(&self) -> Option<Vec<&str>> {
        let (id, socket) = (self.external_ids.get(IFACE_ID), self.options.get("vhost-server-path"));
        let names = std::iter::once(&self.name);
        match self.kind.as_str() {
            _ if self.is_vhost_user() => Some(names.chain(id).chain(socket).map(String::as_str).collect()),
            "" | "system" if self.is_guests() => Some(names.map(String::as_str).collect()),
            _ => None,
        }
    }

    /// It belongs to a guest: libvirt or an agent has marked it.
    pub fn is_guests(&self) -> bool {
        self.is_vhost_user()
            || self.external_ids.contains_key(IFACE_ID)
            || self.external_ids.contains_key(ATTACHED_MAC)
    }
}
