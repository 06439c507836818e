//! One guest NIC to announce.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use pnet_base::MacAddr;
use serde::{Deserialize, Serialize};

use crate::guest::Known;
use crate::guest::address::{self, Address, Source};
use crate::guest::domain::{Domain, Interface, NovaPort, Vlan};
use crate::guest::gateway::{self, Gateway};

/// The number of characters of a port's UUID that neutron puts into its device names.
const NEUTRON_NAME: usize = 11;

/// A NIC that can be announced from the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The guest, if libvirt knows it.
    pub domain: Option<DomainId>,
    /// Its MAC: the sender of every frame.
    pub mac: MacAddr,
    /// How its device is found on this host.
    pub plug: Plug,
    /// Its networks in the domain's XML: the libvirt network, and the bridge or a macvtap's lower device.
    pub networks: Vec<String>,
    /// The VLAN that the domain's XML or the operator specifies.
    pub vlan: Option<Box<Vlan>>,
    /// The cloud whose metadata shows that an agent configures the port.
    pub manager: Option<Manager>,
    /// The NIC's link is up in the domain's XML.
    pub link_up: bool,
    /// Candidate addresses with their sources; [`crate::guest::address::believed`] chooses.
    pub addresses: Vec<Address>,
    /// The gateways from libvirt's configuration.
    pub gateways: Vec<Gateway>,
    /// libvirt's network filter, by which its ebtables rules judge frames of the NIC.
    pub filter: Option<String>,
}

/// Cloud software that starts guests and leaves their ports to an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manager {
    /// OpenStack: neutron's agents, or OVN, configure the ports.
    Nova,
    /// OpenNebula: its driver sets the VLAN of an Open vSwitch port after the guest runs.
    OpenNebula,
    /// libvirt has not said yet.
    Unknown,
}

impl Target {
    /// A NIC with a known device and MAC only.
    pub fn of_device(plug: Plug, mac: MacAddr) -> Target {
        Target {
            domain: None,
            mac,
            plug,
            networks: Vec::new(),
            vlan: None,
            manager: None,
            link_up: true,
            addresses: Vec::new(),
            gateways: Vec::new(),
            filter: None,
        }
    }

    /// Its name in messages: the guest, the host's device and the MAC, as far as they are known.
    pub fn subject(&self, device: Option<String>) -> String {
        subject(self.domain.as_ref(), device.as_deref(), Some(self.mac))
    }
}

/// The name of a NIC in messages: the guest, the host's device and the MAC, as far as they are known.
pub fn subject(domain: Option<&DomainId>, device: Option<&str>, mac: Option<MacAddr>) -> String {
    let (name, mac) = (domain.map(|domain| printable(&domain.name)), mac.map(|mac| mac.to_string()));
    let words = [name.as_deref(), device, mac.as_deref()];
    words.into_iter().flatten().collect::<Vec<_>>().join(" ")
}

/// A guest's name as one line: a tenant chooses the name, which must not add lines to the log.
pub fn printable(name: &str) -> String {
    name.replace(char::is_control, "?")
}

/// The names by which the host's end of a NIC is found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plug {
    /// The kernel device, or the name of the Open vSwitch port.
    pub device: Option<String>,
    /// OVSDB's `Interface.external_ids:iface-id`.
    pub interface_id: Option<String>,
    /// The vhost-user socket: OVSDB's `Interface.options:vhost-server-path`.
    pub socket: Option<String>,
}

/// A domain's name and UUID.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DomainId {
    /// Its name.
    pub name: Arc<str>,
    /// Its UUID, as libvirt writes it.
    pub uuid: Arc<str>,
}

/// A NIC that the host cannot announce, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unannounceable {
    /// The guest, if libvirt knows it.
    pub domain: Option<DomainId>,
    /// Its MAC, if known.
    pub mac: Option<MacAddr>,
    /// The host's end, if it has a name.
    pub device: Option<String>,
    /// The reason, as text.
    pub reason: String,
    /// The target, for a NIC that a port on a bridge may represent (the representor of a passed-through NIC).
    pub by_representor: Option<Box<Target>>,
}

/// A NIC of a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nic {
    /// libvirt's alias for it, else the name of its device.
    pub name: Option<String>,
    /// Its target, or why it has none.
    pub target: Result<Target, Unannounceable>,
}

/// Every NIC of a guest, in the order of its XML, with its known addresses. `marked` as for [`of`].
pub fn nics(known: Known, marked: impl Fn(MacAddr) -> Option<String>) -> Vec<Nic> {
    let Known { domain, addresses, gateways } = known;
    let (mut addresses, mut gateways) = (addresses.into_iter(), gateways.into_iter());
    let nics = of(&domain, marked).into_iter().zip(&domain.interfaces).map(|(target, interface)| {
        let learned = addresses.next().unwrap_or_default();
        let of_network = gateways.next().unwrap_or_default();
        let with_learned = |target: Target| Target {
            addresses: [target.addresses, learned].concat(),
            gateways: [target.gateways, of_network].concat(),
            ..target
        };
        let name = interface.alias.as_ref().or(interface.device.as_ref()).cloned();
        Nic { name, target: target.map(with_learned) }
    });
    nics.collect()
}

/// A target, or the reason for none, for every NIC of `domain`, in order.
///
/// `marked` returns the SDN's id for a MAC, if the host has one.
pub fn of(
    domain: &Domain,
    marked: impl Fn(MacAddr) -> Option<String>,
) -> Vec<Result<Target, Unannounceable>> {
    let id = DomainId { name: domain.name.clone(), uuid: domain.uuid.clone() };
    let joined = join(domain, marked);
    let nics = domain.interfaces.iter().zip(joined);
    nics.map(|(nic, port)| target(&id, domain, nic, port)).collect()
}

/// Nova's port for each NIC. Nova's metadata has no MACs, so a port is joined by the NIC's interface id, else by its device
/// name, else by the id that the host has recorded for the MAC. A single NIC and a single port that remain belong together:
/// macvtaps have neither id nor name.
fn join(domain: &Domain, marked: impl Fn(MacAddr) -> Option<String>) -> Vec<Option<&NovaPort>> {
    let ports = domain.nova_ports.as_deref().unwrap_or_default();
    let known = NovaPorts::of(ports);
    let by_mark = |nic: &Interface| known.with_id(&marked(nic.mac?)?);
    let mut joined: Vec<_> =
        domain.interfaces.iter().map(|nic| known.named_by(nic).or_else(|| by_mark(nic))).collect();
    // A NIC with another interface id belongs to another port, or to none of nova's.
    let is_open =
        |(nic, port): &(&Interface, &mut Option<&NovaPort>)| port.is_none() && nic.interface_id.is_none();
    let taken: HashSet<&str> = joined.iter().flatten().map(|port| port.uuid.as_str()).collect();
    let mut left_ports = ports.iter().filter(|port| !taken.contains(port.uuid.as_str()));
    let mut left_nics = domain.interfaces.iter().zip(&mut joined).filter(is_open);
    if let (Some(port), None, Some((_, joined)), None) =
        (left_ports.next(), left_ports.next(), left_nics.next(), left_nics.next())
    {
        *joined = Some(port);
    }
    joined
}

/// Nova's ports, by what a NIC may have of them.
struct NovaPorts<'a> {
    /// By UUID, in lower case.
    by_id: HashMap<String, &'a NovaPort>,
    /// By the part of the UUID that neutron puts into device names.
    by_name: HashMap<&'a str, &'a NovaPort>,
}

impl<'a> NovaPorts<'a> {
    fn of(ports: &'a [NovaPort]) -> Self {
        // The first of several with one name.
        let by_id = ports.iter().rev().map(|port| (port.uuid.to_ascii_lowercase(), port));
        let by_name = ports.iter().rev().filter_map(|port| Some((port.uuid.get(..NEUTRON_NAME)?, port)));
        NovaPorts { by_id: by_id.collect(), by_name: by_name.collect() }
    }

    fn with_id(&self, id: &str) -> Option<&'a NovaPort> {
        self.by_id.get(&id.to_ascii_lowercase()).copied()
    }

    /// By the NIC's interface id; without one, by the name of its device or socket.
    fn named_by(&self, nic: &Interface) -> Option<&'a NovaPort> {
        if let Some(id) = &nic.interface_id {
            return self.with_id(id);
        }
        let socket = nic.socket.as_deref().and_then(|path| path.rsplit('/').next());
        nic.device.as_deref().into_iter().chain(socket).find_map(|name| {
            let part = name.strip_prefix("tap").or_else(|| name.strip_prefix("vhu"))?;
            self.by_name.get(part).copied()
        })
    }
}

/// The UUIDs of nova's ports that no NIC could be joined with.
pub fn unmatched(domain: &Domain, marked: impl Fn(MacAddr) -> Option<String>) -> Vec<&str> {
    let joined: HashSet<&str> =
        join(domain, marked).into_iter().flatten().map(|port| port.uuid.as_str()).collect();
    let ports = domain.nova_ports.iter().flatten().map(|port| port.uuid.as_str());
    ports.filter(|uuid| !joined.contains(uuid)).collect()
}

fn target(
    id: &DomainId,
    domain: &Domain,
    nic: &Interface,
    port: Option<&NovaPort>,
) -> Result<Target, Unannounceable> {
    let refused = |reason: String, by_representor| Unannounceable {
        domain: Some(id.clone()),
        mac: nic.mac,
        device: nic.device.clone(),
        reason,
        by_representor,
    };
    let Some(mac) = nic.mac.filter(|mac| !mac.is_zero()) else {
        let lacks = match nic.mac {
            Some(zero) => format!("the domain's XML gives it the MAC address {zero}, which no NIC has"),
            None => "the domain's XML gives it no MAC address".into(),
        };
        let reason = obstacle(nic).unwrap_or(lacks);
        return Err(refused(reason, None));
    };
    let nova = port.into_iter().flat_map(|port| &port.fixed_ips).map(|ip| (*ip, Source::Nova));
    let route = |ip: &IpAddr| Gateway::of_all(*ip, gateway::Source::DomainRoute);
    let permitted = nic.filter_ips.iter().map(|ip| (*ip, Source::Nwfilter));
    let implied = [(address::implied(mac).into(), Source::Implied)];
    let target = Target {
        domain: Some(id.clone()),
        mac,
        plug: Plug {
            device: nic.device.clone(),
            interface_id: nic.interface_id.clone().or_else(|| port.map(|port| port.uuid.clone())),
            socket: nic.socket.clone(),
        },
        networks: nic.network.iter().chain(&nic.bridge).cloned().collect(),
        vlan: nic.vlan.clone().map(Box::new),
        manager: manager(domain, nic),
        link_up: !nic.link_down,
        addresses: nova.chain(permitted).chain(implied).map(|(ip, source)| Address { ip, source }).collect(),
        gateways: nic.gateways.iter().map(route).collect(),
        filter: nic.filter.clone(),
    };
    match obstacle(nic) {
        None => Ok(target),
        Some(reason) => {
            let has_representor = matches!(nic.kind.as_str(), "hostdev" | "vdpa");
            Err(refused(reason, has_representor.then(|| Box::new(target))))
        }
    }
}

fn manager(domain: &Domain, nic: &Interface) -> Option<Manager> {
    let is_ovs = nic.virtualport.as_deref() == Some("openvswitch");
    match (&domain.nova_ports, domain.opennebula && is_ovs) {
        (Some(_), _) => Some(Manager::Nova),
        (None, true) => Some(Manager::OpenNebula),
        (None, false) => None,
    }
}

/// Why the host cannot inject frames for this NIC.
fn obstacle(nic: &Interface) -> Option<String> {
    match nic.kind.as_str() {
        _ if nic.by_passt => Some("a NIC of passt's is on no network that can be announced".into()),
        "bridge" | "network" | "ethernet" | "direct" | "vhostuser" => None,
        "hostdev" | "vdpa" => Some(format!(
            "a NIC of type {} bypasses the host, and no port of Open vSwitch stands for it: only the guest or its switch can \
             announce it",
            nic.kind
        )),
        kind => Some(format!("a NIC of type {kind} is on no network that can be announced")),
    }
}

#[cfg(test)]
mod corpus;

#[cfg(test)]
mod tests {
    use super::*;

    fn nova_domain() -> Domain {
        Domain::parse(include_str!("../../tests/data/nova-domain.xml")).unwrap()
    }

    #[test]
    fn a_name_cannot_break_a_line() {
        let domain = DomainId { name: "web1\nERROR \u{1b}[31m".into(), uuid: "".into() };
        assert_eq!(subject(Some(&domain), Some("tap0"), None), "web1?ERROR ?[31m tap0");
    }

    fn of(domain: &Domain) -> Vec<Result<Target, Unannounceable>> {
        super::of(domain, |_| None)
    }

    /// All addresses but the one that every MAC implies.
    fn ips(target: &Target) -> Vec<String> {
        let addresses = target.addresses.iter().filter(|a| a.source != Source::Implied);
        addresses.map(|a| format!("{} {}", a.ip, a.source)).collect()
    }

    #[test]
    fn a_mac_of_zeros_is_no_nics() {
        let xml = "<domain type='kvm'><name>web1</name><uuid>u</uuid><devices><interface type='bridge'>\
                   <mac address='00:00:00:00:00:00'/><source bridge='br0'/><target dev='tap0'/></interface></devices></domain>";
        let told = of(&Domain::parse(xml).unwrap())[0].clone().unwrap_err().reason;
        assert_eq!(told, "the domain's XML gives it the MAC address 00:00:00:00:00:00, which no NIC has");
    }

    #[test]
    fn a_nic_gets_its_own_ports_fixed_addresses() {
        let targets = of(&nova_domain());
        let first = targets[0].as_ref().unwrap();
        assert_eq!(ips(first), ["1.1.1.1 nova", "2001:db8::1 nova"]);
        assert_eq!(first.manager, Some(Manager::Nova));
    }

    #[test]
    fn opennebula_leaves_only_ports_of_open_vswitch_to_its_driver() {
        let mut domain = Domain { nova_ports: None, opennebula: true, ..nova_domain() };
        domain.interfaces[1].virtualport = None;
        let managers = of(&domain).into_iter().flatten().map(|target| target.manager);
        assert_eq!(managers.collect::<Vec<_>>(), [Some(Manager::OpenNebula), None]);
    }

    #[test]
    fn a_nic_of_neither_port_gets_none_of_their_addresses() {
        let targets = of(&nova_domain());
        assert_eq!(ips(targets[1].as_ref().unwrap()), ["192.0.2.7 nwfilter"]);
    }

    #[test]
    fn a_nic_knows_its_network_and_its_bridge() {
        let targets = of(&nova_domain());
        let networks = [0, 1].map(|nic: usize| targets[nic].as_ref().unwrap().networks.clone());
        assert_eq!(networks, [vec!["br-int"], vec!["default", "virbr0"]]);
    }

    #[test]
    fn without_an_interface_id_the_device_name_joins() {
        let mut domain = nova_domain();
        domain.interfaces[0].interface_id = None;
        assert_eq!(ips(of(&domain)[0].as_ref().unwrap()).len(), 2);
        domain.interfaces[0].device = Some("tap6f7d3c1a-1".into());
        assert_eq!(ips(of(&domain)[0].as_ref().unwrap()).len(), 0, "a shorter name is no match");
    }

    #[test]
    fn a_vhost_user_nic_is_joined_by_its_socket() {
        let mut domain = nova_domain();
        domain.interfaces[0].interface_id = None;
        domain.interfaces[0].device = None;
        domain.interfaces[0].socket = Some("/run/openvswitch/vhu6f7d3c1a-11".into());
        assert_eq!(ips(of(&domain)[0].as_ref().unwrap()).len(), 2);
    }

    /// Nova gives a macvtap neither a device name nor an interface id.
    #[test]
    fn a_single_remaining_nic_and_port_belong_together() {
        let mut domain = nova_domain();
        domain.interfaces[1] =
            Interface { kind: "direct".into(), mac: domain.interfaces[1].mac, ..Interface::default() };
        domain.interfaces.truncate(2);
        let second = of(&domain)[1].clone().unwrap();
        assert_eq!(ips(&second), ["192.0.2.9 nova"]);
        assert_eq!(second.plug.interface_id.as_deref(), Some("7a7a7a7a-1111-4222-8333-444455556666"));
        assert_eq!(unmatched(&domain, |_| None), [""; 0]);

        let third = Interface { mac: Some(MacAddr(2, 0, 0, 0, 0, 3)), ..domain.interfaces[1].clone() };
        domain.interfaces.push(third);
        assert_eq!(
            of(&domain)[1..].iter().flatten().map(|nic| ips(nic).len()).sum::<usize>(),
            0,
            "of two, which?"
        );
        assert_eq!(unmatched(&domain, |_| None), ["7a7a7a7a-1111-4222-8333-444455556666"]);

        let marked = |mac| {
            (Some(mac) == domain.interfaces[1].mac)
                .then(|| domain.nova_ports.as_ref().unwrap()[1].uuid.clone())
        };
        let nics = super::of(&domain, marked);
        assert_eq!(ips(nics[1].as_ref().unwrap()), ["192.0.2.9 nova"], "the host knows");
        assert_eq!(ips(nics[2].as_ref().unwrap()).len(), 0);
    }

    #[test]
    fn a_passed_through_nic_is_reported_not_skipped() {
        let refused = of(&nova_domain())[2].clone().unwrap_err();
        assert!(refused.reason.contains("hostdev"), "{}", refused.reason);
        let target = refused.by_representor.unwrap();
        assert_eq!((Some(target.mac), ips(&target).len()), (refused.mac, 0), "two NICs remain for one port");
    }
}
