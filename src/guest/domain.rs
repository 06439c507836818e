//! A libvirt domain's XML: its NICs, and nova's metadata with their addresses.
//!
//! The XML is hostile input: the guest's owner chooses much of it.

use std::net::IpAddr;
use std::sync::Arc;

use pnet_base::MacAddr;
use roxmltree::Node;

use crate::guest::xml::{self, Unbounded};

/// The namespaces of nova's metadata start with this; the version follows.
const NOVA_NAMESPACE: &str = "http://openstack.org/xmlns/libvirt/nova/";

/// The namespaces of OpenNebula's metadata start with this; the version follows (its `LibVirtDriverKVM.cc`).
const OPENNEBULA_NAMESPACE: &str = "http://opennebula.org/xmlns/libvirt/";

/// A domain, as its live XML describes it (libvirt's `docs/formatdomain.rst`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Domain {
    /// `<name>`, byte for byte: leading blanks belong to it.
    pub name: Arc<str>,
    /// `<uuid>`, as written.
    pub uuid: Arc<str>,
    /// Every `<interface>`, in order.
    pub interfaces: Vec<Interface>,
    /// Every port in nova's metadata; `None` if the XML has no nova metadata.
    pub nova_ports: Option<Vec<NovaPort>>,
    /// `<nova:name>`: the display name in OpenStack.
    pub nova_name: Option<String>,
    /// The XML has OpenNebula's metadata.
    pub opennebula: bool,
}

/// One `<interface>`: a NIC of the guest.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Interface {
    /// Its `type`: bridge, network, ethernet, direct, vhostuser, hostdev, …
    pub kind: String,
    /// `<mac address>`, if present and valid.
    pub mac: Option<MacAddr>,
    /// `<alias name>`: libvirt's own name for it.
    pub alias: Option<String>,
    /// `<target dev>`: the host's end.
    pub device: Option<String>,
    /// `<source path>`: the socket of a vhostuser NIC.
    pub socket: Option<String>,
    /// `<backend type='passt'>`: a process of the user's connects the NIC, by whatever `type`.
    pub by_passt: bool,
    /// `<source network>`: the libvirt network.
    pub network: Option<String>,
    /// `<source bridge>`, or the `<source dev>` of a direct NIC.
    pub bridge: Option<String>,
    /// The type of `<virtualport>`: openvswitch, …
    pub virtualport: Option<String>,
    /// `<virtualport><parameters interfaceid>`: the SDN's id of the port.
    pub interface_id: Option<String>,
    /// `<vlan>`.
    pub vlan: Option<Vlan>,
    /// `<link state='down'>`: the guest sees no carrier.
    pub link_down: bool,
    /// The network filter of `<filterref>`.
    pub filter: Option<String>,
    /// The `IP` parameters of `<filterref>`: the addresses that the network filter permits.
    pub filter_ips: Vec<IpAddr>,
    /// The gateways of its `<route>`s to everywhere.
    pub gateways: Vec<IpAddr>,
}

/// `<vlan>` of an interface: the tags that libvirt sets on an Open vSwitch port.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Vlan {
    /// Several tags, or `trunk='yes'`.
    pub trunk: bool,
    /// Every `<tag id>`, 0 to 4095.
    pub tags: Vec<u16>,
    /// The tag with a `nativeMode`: that of untagged frames, and whether they leave tagged.
    pub native: Option<(u16, NativeMode)>,
}

impl Vlan {
    /// The VLAN of untagged frames; `None` for a trunk without a native VLAN.
    pub fn native(&self) -> Option<u16> {
        let native = self.native.map(|(tag, _)| tag);
        native.or_else(|| self.tags.first().copied().filter(|_| !self.trunk))
    }
}

impl Vlan {
    /// Of a trunk without a native VLAN, the VLANs that it lists, each once: the guest sends every frame with a tag.
    pub fn tagged_only(&self) -> Option<Vec<u16>> {
        let is_vlan = |tag: &u16| (1..4095).contains(tag);
        let mut tags: Vec<u16> = self.tags.iter().copied().filter(is_vlan).collect();
        tags.sort_unstable();
        tags.dedup();
        (self.trunk && self.native.is_none() && !tags.is_empty()).then_some(tags)
    }
}

/// `nativeMode` of a tag: OVSDB's `vlan_mode` native-tagged or native-untagged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NativeMode {
    /// `nativeMode='tagged'`.
    Tagged,
    /// `nativeMode='untagged'`.
    Untagged,
}

/// `<nova:port>`: a neutron port and its fixed addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NovaPort {
    /// The port's UUID.
    pub uuid: String,
    /// `<nova:ip type='fixed'>`. Floating addresses are translated by a router and are never on the guest's NIC.
    pub fixed_ips: Vec<IpAddr>,
}

/// Why a text is not the XML of a domain.
#[derive(Debug, thiserror::Error)]
pub enum DomainError {
    /// It is not XML, or has a DTD.
    #[error("the domain's XML cannot be read: {}", in_one_line(.0))]
    Xml(#[from] roxmltree::Error),
    /// It would take too long to read.
    #[error("the domain's XML cannot be read: {0}")]
    Unbounded(#[from] Unbounded),
    /// Its root is another element.
    #[error("the XML is of a <{0}>, not of a <domain>")]
    NotADomain(String),
    /// `<name>` or `<uuid>` is absent.
    #[error("the domain's XML has no <{0}>")]
    Missing(&'static str),
}

impl Domain {
    /// Reads the XML of `virDomainGetXMLDesc`.
    pub fn parse(xml: &str) -> Result<Domain, DomainError> {
        let xml = xml::bounded(xml)?;
        let document = roxmltree::Document::parse(&xml)?;
        let root = document.root_element();
        if !root.has_tag_name("domain") {
            return Err(DomainError::NotADomain(root.tag_name().name().to_owned()));
        }
        let text = |name| {
            let text = child(root, name).and_then(|n| n.text());
            text.filter(|t| !t.trim().is_empty()).map(str::to_owned).ok_or(DomainError::Missing(name))
        };
        let metadata = child(root, "metadata");
        let nova = metadata.and_then(|n| n.children().find(|n| is_nova(*n, "instance")));
        Ok(Domain {
            name: text("name")?.into(),
            uuid: text("uuid")?.trim().into(),
            interfaces: child(root, "devices")
                .map_or_else(Vec::new, |devices| children(devices, "interface").map(interface).collect()),
            nova_ports: nova.map(nova_ports),
            nova_name: nova.and_then(nova_name),
            opennebula: metadata.is_some_and(|n| n.children().any(is_opennebulas)),
        })
    }
}

impl Domain {
    /// `name` is its display name in nova, or the UUID of one of its neutron ports.
    pub fn is_called_by_nova(&self, name: &str) -> bool {
        let has_port = |port: &NovaPort| port.uuid.eq_ignore_ascii_case(name);
        self.nova_name.as_deref() == Some(name) || self.nova_ports.iter().flatten().any(has_port)
    }
}

/// The error as one line: the parser quotes an unexpected character as is, even a line feed.
fn in_one_line(error: &roxmltree::Error) -> String {
    error.to_string().replace(char::is_control, " ")
}

fn interface(node: Node<'_, '_>) -> Interface {
    let source = child(node, "source");
    let virtualport = child(node, "virtualport");
    let port = virtualport.and_then(|n| child(n, "parameters"));
    Interface {
        kind: node.attribute("type").unwrap_or_default().to_owned(),
        mac: child(node, "mac").and_then(|n| n.attribute("address")?.parse().ok()),
        alias: child(node, "alias").and_then(|n| owned(n, "name")),
        device: child(node, "target").and_then(|n| owned(n, "dev")),
        socket: source.and_then(|n| owned(n, "path")),
        by_passt: child(node, "backend").is_some_and(|n| n.attribute("type") == Some("passt")),
        network: source.and_then(|n| owned(n, "network")),
        bridge: source.and_then(|n| owned(n, "bridge").or_else(|| owned(n, "dev"))),
        virtualport: virtualport.and_then(|n| owned(n, "type")),
        interface_id: port.and_then(|n| owned(n, "interfaceid")),
        vlan: child(node, "vlan").map(vlan),
        link_down: child(node, "link").is_some_and(|n| n.attribute("state") == Some("down")),
        filter: child(node, "filterref").and_then(|n| owned(n, "filter")),
        filter_ips: child(node, "filterref").map_or_else(Vec::new, filter_ips),
        gateways: children(node, "route").filter_map(default_gateway).collect(),
    }
}

/// The gateway of a default route. Without a prefix length, libvirt uses that of the address class, which is 0 for 0.0.0.0
/// and ::.
fn default_gateway(route: Node<'_, '_>) -> Option<IpAddr> {
    let destination: IpAddr = route.attribute("address")?.parse().ok()?;
    let is_everywhere = match (route.attribute("prefix"), route.attribute("netmask")) {
        (Some(prefix), _) => prefix == "0",
        (None, Some(netmask)) => netmask == "0.0.0.0",
        (None, None) => true,
    };
    let gateway = route.attribute("gateway")?.parse().ok();
    gateway.filter(|_| destination.is_unspecified() && is_everywhere)
}

fn vlan(node: Node<'_, '_>) -> Vlan {
    let mut vlan = Vlan::default();
    for tag in children(node, "tag") {
        let Some(id) = tag.attribute("id").and_then(|id| id.parse().ok()).filter(|id| *id < 4096) else {
            continue;
        };
        vlan.tags.push(id);
        match tag.attribute("nativeMode") {
            Some("tagged") => vlan.native = Some((id, NativeMode::Tagged)),
            Some("untagged") => vlan.native = Some((id, NativeMode::Untagged)),
            _ => {}
        }
    }
    vlan.trunk = node.attribute("trunk") == Some("yes") || vlan.tags.len() > 1 || vlan.native.is_some();
    vlan
}

/// nwfilter reserves the variable name IP for the addresses that the guest may use.
fn filter_ips(node: Node<'_, '_>) -> Vec<IpAddr> {
    children(node, "parameter")
        .filter(|n| matches!(n.attribute("name"), Some("IP" | "IPV6")))
        .filter_map(|n| n.attribute("value")?.parse().ok())
        .collect()
}

fn nova_ports(instance: Node<'_, '_>) -> Vec<NovaPort> {
    let ports = instance.children().filter(|n| is_nova(*n, "ports"));
    let ports = ports.flat_map(|n| n.children().filter(|n| is_nova(*n, "port")));
    ports.filter_map(nova_port).collect()
}

fn nova_name(instance: Node<'_, '_>) -> Option<String> {
    let name = instance.children().find(|n| is_nova(*n, "name"))?;
    name.text().filter(|name| !name.is_empty()).map(str::to_owned)
}

fn nova_port(node: Node<'_, '_>) -> Option<NovaPort> {
    Some(NovaPort {
        uuid: owned(node, "uuid")?,
        fixed_ips: node
            .children()
            .filter(|n| is_nova(*n, "ip") && n.attribute("type") == Some("fixed"))
            .filter_map(|n| n.attribute("address")?.parse().ok())
            .collect(),
    })
}

fn is_nova(node: Node<'_, '_>, name: &str) -> bool {
    let tag = node.tag_name();
    tag.name() == name && tag.namespace().is_some_and(|ns| ns.starts_with(NOVA_NAMESPACE))
}

fn is_opennebulas(node: Node<'_, '_>) -> bool {
    node.tag_name().namespace().is_some_and(|ns| ns.starts_with(OPENNEBULA_NAMESPACE))
}

fn children<'a, 'i>(node: Node<'a, 'i>, name: &'static str) -> impl Iterator<Item = Node<'a, 'i>> {
    node.children().filter(move |n| n.has_tag_name(name))
}

fn child<'a, 'i>(node: Node<'a, 'i>, name: &'static str) -> Option<Node<'a, 'i>> {
    children(node, name).next()
}

fn owned(node: Node<'_, '_>, attribute: &str) -> Option<String> {
    node.attribute(attribute).filter(|v| !v.is_empty()).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    const XML: &str = include_str!("../../tests/data/nova-domain.xml");

    #[test]
    fn a_nova_domain_has_its_nics_and_their_fixed_addresses() {
        let domain = Domain::parse(XML).unwrap();
        assert_eq!((&*domain.name, domain.interfaces.len()), ("instance-00000001", 3));
        let nic = &domain.interfaces[0];
        assert_eq!(nic.kind, "bridge");
        assert_eq!(nic.mac, Some(MacAddr(0xfa, 0x16, 0x3e, 0, 0, 0x11)));
        assert_eq!(nic.device.as_deref(), Some("tap6f7d3c1a-11"));
        assert_eq!(nic.interface_id.as_deref(), Some("6f7d3c1a-1111-4222-8333-444455556666"));
        let ports = domain.nova_ports.unwrap();
        let ips: [IpAddr; 2] = ["1.1.1.1", "2001:db8::1"].map(|ip| ip.parse().unwrap());
        assert_eq!(ports[0].fixed_ips, ips, "the floating address is not there");
    }

    #[test]
    fn vlan_filter_and_link_state_are_read() {
        let domain = Domain::parse(XML).unwrap();
        let nic = &domain.interfaces[1];
        assert_eq!(nic.filter.as_deref(), Some("clean-traffic"));
        assert_eq!(nic.filter_ips, ["192.0.2.7".parse::<IpAddr>().unwrap()]);
        assert!(nic.link_down);
        let vlan = nic.vlan.as_ref().unwrap();
        assert_eq!((vlan.trunk, vlan.tags.as_slice()), (true, [100, 200].as_slice()));
        assert_eq!(vlan.native, Some((100, NativeMode::Untagged)));
    }

    #[test]
    fn a_domain_that_nova_does_not_own_has_no_ports() {
        let xml =
            "<domain><name>a</name><uuid>u</uuid><metadata><x:instance xmlns:x='urn:x'/></metadata></domain>";
        assert_eq!(Domain::parse(xml).unwrap().nova_ports, None);
    }

    #[test]
    fn names_are_bytes() {
        let xml = "<domain><name> lead </name><uuid> u\n</uuid></domain>";
        let domain = Domain::parse(xml).unwrap();
        assert_eq!((&*domain.name, &*domain.uuid), (" lead ", "u"));
        let nova = Domain::parse(XML).unwrap();
        assert_eq!(nova.nova_name.as_deref(), Some("web1"));
        let called = |name: &str| nova.is_called_by_nova(name);
        assert!(called("web1") && called("6F7D3C1A-1111-4222-8333-444455556666") && !called("web"));
    }

    #[test]
    fn opennebula_marks_its_domains_and_open_vswitch_its_nics() {
        let xml = "<domain><name>one-42</name><uuid>u</uuid><metadata>\
                   <one:vm xmlns:one='http://opennebula.org/xmlns/libvirt/1.0'><one:name>web</one:name></one:vm></metadata>\
                   <devices><interface type='bridge'><virtualport type='openvswitch'/></interface></devices></domain>";
        let domain = Domain::parse(xml).unwrap();
        let virtualport = domain.interfaces[0].virtualport.as_deref();
        assert_eq!((domain.opennebula, virtualport), (true, Some("openvswitch")));
        assert!(!Domain::parse(XML).unwrap().opennebula);
    }

    #[test]
    fn the_gateways_of_default_routes_are_read() {
        let routes = [
            "<route family='ipv4' address='0.0.0.0' prefix='0' gateway='192.0.2.1'/>",
            "<route address='0.0.0.0' gateway='192.0.2.2'/>",
            "<route address='0.0.0.0' netmask='0.0.0.0' gateway='192.0.2.3'/>",
            "<route address='0.0.0.0' prefix='1' gateway='192.0.2.4'/>",
            "<route address='10.0.0.0' prefix='8' gateway='192.0.2.5'/>",
            "<route family='ipv6' address='::' prefix='0' gateway='fe80::1'/>",
            "<route address='::' prefix='0' gateway='gw'/>",
            "<route address='::'/>",
        ];
        let xml = format!(
            "<domain><name>a</name><uuid>u</uuid><devices><interface type='bridge'>{}</interface></devices></domain>",
            routes.concat()
        );
        let gateways = &Domain::parse(&xml).unwrap().interfaces[0].gateways;
        let gateways: Vec<String> = gateways.iter().map(ToString::to_string).collect();
        assert_eq!(gateways, ["192.0.2.1", "192.0.2.2", "192.0.2.3", "fe80::1"]);
    }

    #[test]
    fn a_document_that_is_no_domain_is_refused_with_the_reason() {
        for (xml, words) in [
            ("", "cannot be read"),
            ("<network/>", "<network>, not of a <domain>"),
            ("<domain/>", "no <name>"),
            ("<domain><name>a</name></domain>", "no <uuid>"),
            ("<!DOCTYPE d [<!ENTITY e 'x'>]><domain/>", "DTD"),
        ] {
            let error = Domain::parse(xml).unwrap_err().to_string();
            assert!(error.contains(words), "{xml}: {error}");
        }
    }
}
