//! Unmet conditions as reports have them: a code for programs, words and the next command for people.

use serde::{Deserialize, Serialize};

use crate::guest::target::Target;
use crate::path::condition::Condition;
use crate::path::owner::Owner;

/// A condition that is unmet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unmet {
    /// Its kind, one of [`Condition::CODES`].
    pub code: String,
    /// What is missing.
    pub text: String,
    /// What to look at or to run next.
    pub remedy: Option<String>,
}

impl Unmet {
    /// These conditions of `target`, whose port has this owner.
    pub fn all(conditions: &[Condition], target: &Target, owner: Owner) -> Vec<Unmet> {
        let unmet = |condition: &Condition| Unmet {
            code: condition.code().into(),
            text: condition.to_string(),
            remedy: remedy(condition, target, owner),
        };
        conditions.iter().map(unmet).collect()
    }
}

/// `the port tap0 has no VLAN tag yet`, and the remedies after all conditions.
pub(crate) fn words(unmet: &[Unmet]) -> String {
    let texts: Vec<&str> = unmet.iter().map(|unmet| unmet.text.as_str()).collect();
    let mut remedies: Vec<&str> = unmet.iter().filter_map(|unmet| unmet.remedy.as_deref()).collect();
    remedies.dedup();
    match remedies.is_empty() {
        true => texts.join("; "),
        false => format!("{} ({})", texts.join("; "), remedies.join("; ")),
    }
}

/// The next command, with the names filled in; `None` where the condition names it or there is none.
fn remedy(condition: &Condition, target: &Target, owner: Owner) -> Option<String> {
    let vm = target.domain.as_ref().map(|domain| &*domain.name);
    let interface_id = target.plug.interface_id.as_deref();
    match condition {
        Condition::Paused(_) => vm.map(|vm| format!("virsh resume {vm}")),
        Condition::GuestLinkDown => vm.map(|vm| format!("virsh domif-setlink {vm} {} up", target.mac)),
        Condition::NoOvsdb { .. } => {
            Some("systemctl status ovsdb-server openvswitch-switch; its socket is root's mostly".into())
        }
        Condition::Down { device } | Condition::NicDown { device } => {
            Some(format!("ip link set {device} up"))
        }
        Condition::NoCarrier { device } => Some(format!("ip -d link show {device}")),
        Condition::NotForwarding { device, .. } => Some(format!("bridge -d link show dev {device}")),
        Condition::VlanNotForwarding { device, .. } => Some(format!("bridge -d vlan show dev {device}")),
        Condition::Pvid { device, wanted, .. } => {
            let vid = wanted.map_or("VLAN".to_owned(), |vlan| vlan.to_string());
            Some(format!("bridge vlan add dev {device} vid {vid} pvid untagged"))
        }
        Condition::NotInVlans { device, vlans } => {
            vlans.first().map(|vlan| format!("bridge vlan add dev {device} vid {vlan}"))
        }
        Condition::NoOfport { port, .. } => Some(format!("ovs-vsctl list interface {port}")),
        Condition::NotApplied { .. } => Some("ovs-appctl version tells whether ovs-vswitchd answers".into()),
        Condition::NotInstalled { port } => Some(match interface_id {
            Some(id) => {
                format!("see ovn-controller's log; ovn-sbctl find Port_Binding logical_port={id}")
            }
            None => format!("see ovn-controller's log; ovs-vsctl list interface {port}"),
        }),
        Condition::Tag { port, .. } | Condition::VlanMode { port, .. } | Condition::Trunks { port, .. } => {
            Some(match (owner, interface_id) {
                (Owner::Neutron, Some(id)) => format!(
                    "neutron-openvswitch-agent has not bound it: see its log; openstack port show {id}"
                ),
                (Owner::Neutron, None) => "neutron-openvswitch-agent has not bound it: see its log".into(),
                _ => format!("ovs-vsctl list port {port}"),
            })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use pnet_base::MacAddr;

    use super::*;
    use crate::guest::target::{DomainId, Plug};

    fn target() -> Target {
        let interface_id = Some("6f7d3c1a-1111".to_owned());
        let domain = Some(DomainId { name: "web1".into(), uuid: "".into() });
        let plug = Plug { interface_id, ..Plug::default() };
        Target { domain, ..Target::of_device(plug, MacAddr(2, 0, 0, 0, 0, 1)) }
    }

    fn told(condition: Condition, owner: Owner) -> String {
        words(&Unmet::all(&[condition], &target(), owner))
    }

    #[test]
    fn the_remedy_names_the_agent_and_the_port() {
        let tag = Condition::Tag { port: "tap0".into(), tag: Some(4095), wanted: None };
        let told_of = |owner| told(tag.clone(), owner);
        assert_eq!(
            told_of(Owner::Neutron),
            "the port tap0 has tag 4095, neutron's dead VLAN (neutron-openvswitch-agent has not bound it: see \
             its log; openstack port show 6f7d3c1a-1111)"
        );
        assert!(told_of(Owner::Vlan).ends_with("(ovs-vsctl list port tap0)"));
        assert!(told(Condition::Paused("paused"), Owner::Nobody).ends_with("(virsh resume web1)"));
        assert!(
            told(Condition::NotInstalled { port: "tap0".into() }, Owner::Ovn)
                .ends_with("logical_port=6f7d3c1a-1111)")
        );
    }
}
