//! QEMU guests under libvirt, described as nova describes them.

use std::fmt::Write;
use std::fs::File;

use super::host::{Host, Place};

/// A domain without disk: its firmware comes up, finds nothing to boot and waits, without a word to the network.
pub struct Guest {
    name: &'static str,
    nova: bool,
    nics: Vec<Nic>,
    devices: String,
}

#[derive(Clone)]
pub struct Nic {
    plug: Plug,
    pub mac: String,
    /// The UUID of neutron's port.
    pub port: String,
    addresses: Vec<&'static str>,
    vlan: Option<u16>,
    more: String,
}

/// How libvirt is told to plug a NIC.
#[derive(Clone, Copy)]
pub enum Plug {
    /// Into a Linux bridge.
    Bridge(&'static str),
    /// Into an OVS bridge; libvirt itself adds the port.
    Ovs(&'static str),
    /// Nowhere: libvirt makes the tap, whoever is in charge plugs it.
    Ethernet,
    /// Nowhere, and the tap is there already: [`Nic::make_tap`].
    EthernetUnmanaged,
    /// Into a libvirt network: [`network`].
    Network(&'static str),
    /// A macvtap on that device: take [`macvtaps`] first.
    Direct(&'static str),
}

impl Nic {
    /// `number` makes MAC, port and tap names that differ from those of other numbers.
    pub fn new(number: u8, plug: Plug) -> Self {
        Self {
            plug,
            mac: format!("fa:16:3e:00:00:{number:02x}"),
            port: format!("567a45{number:02x}-b0e4-4d0a-bcc2-71fda37897f7"),
            addresses: Vec::new(),
            vlan: None,
            more: String::new(),
        }
    }

    /// A fixed address, in nova's metadata.
    pub fn address(mut self, address: &'static str) -> Self {
        self.addresses.push(address);
        self
    }

    /// The VLAN that the domain XML asks for.
    pub fn vlan(mut self, vlan: u16) -> Self {
        self.vlan = Some(vlan);
        self
    }

    /// More of libvirt's XML inside the interface: a `<filterref>`, say.
    pub fn with(mut self, xml: &str) -> Self {
        self.more.push_str(xml);
        self
    }

    pub fn tap(&self) -> String {
        self.device("tap")
    }

    /// The name of a device of this NIC, as neutron makes it: `tap567a4501-b0`.
    pub fn device(&self, prefix: &str) -> String {
        format!("{prefix}{}", &self.port[..11])
    }

    /// The capture filter for frames that the guest sends.
    pub fn sent(&self) -> String {
        format!("ether src {}", self.mac)
    }

    /// As nova does before it starts a guest with [`Plug::EthernetUnmanaged`].
    pub fn make_tap(&self, host: &Host) {
        let tap = self.tap();
        host.sh(&format!("ip tuntap add {tap} mode tap vnet_hdr && ip link set {tap} up"));
    }

    fn xml(&self) -> String {
        let (kind, source) = match self.plug {
            Plug::Bridge(bridge) | Plug::Ovs(bridge) => ("bridge", format!("<source bridge='{bridge}'/>")),
            Plug::Ethernet | Plug::EthernetUnmanaged => ("ethernet", String::new()),
            Plug::Network(network) => ("network", format!("<source network='{network}'/>")),
            Plug::Direct(device) => ("direct", format!("<source dev='{device}' mode='bridge'/>")),
        };
        let port = match self.plug {
            Plug::Ovs(_) => {
                format!(
                    "<virtualport type='openvswitch'><parameters interfaceid='{}'/></virtualport>",
                    self.port
                )
            }
            _ => String::new(),
        };
        let managed = if matches!(self.plug, Plug::EthernetUnmanaged) { "managed='no'" } else { "" };
        let vlan = self.vlan.map(|vlan| format!("<vlan><tag id='{vlan}'/></vlan>")).unwrap_or_default();
        let (mac, tap, more) = (&self.mac, self.tap(), &self.more);
        // With a ROM it would try to boot from the network, and so speak.
        format!(
            "<interface type='{kind}'><mac address='{mac}'/>{source}{vlan}{port}<target dev='{tap}' {managed}/>\
             <model type='virtio'/><rom enabled='no'/>{more}</interface>"
        )
    }

    fn metadata(&self) -> String {
        let mut ips = String::new();
        for address in &self.addresses {
            let version = if address.contains(':') { 6 } else { 4 };
            write!(ips, "<nova:ip type='fixed' address='{address}' ipVersion='{version}'/>").unwrap();
        }
        format!("<nova:port uuid='{}'>{ips}</nova:port>", self.port)
    }
}

impl Guest {
    pub fn new(name: &'static str) -> Self {
        Self { name, nova: false, nics: Vec::new(), devices: String::new() }
    }

    /// With nova's metadata: the ports with their addresses, and no MAC.
    pub fn nova(mut self) -> Self {
        self.nova = true;
        self
    }

    pub fn nic(mut self, nic: &Nic) -> Self {
        self.nics.push(nic.clone());
        self
    }

    /// Any other device, in libvirt's XML.
    pub fn device(mut self, xml: &str) -> Self {
        self.devices.push_str(xml);
        self
    }

    pub fn xml(&self) -> String {
        let name = self.name;
        let metadata = if self.nova { self.metadata() } else { String::new() };
        let nics: String = self.nics.iter().map(Nic::xml).collect();
        let devices = &self.devices;
        // type qemu, not kvm: /dev/kvm may be there and not work.
        format!(
            "<domain type='qemu'><name>{name}</name>{metadata}<memory unit='MiB'>16</memory><vcpu>1</vcpu>\
             <os><type arch='x86_64' machine='pc'>hvm</type></os>\
             <devices><emulator>/usr/bin/qemu-system-x86_64</emulator><controller type='usb' model='none'/>\
             <memballoon model='none'/>{nics}{devices}</devices></domain>"
        )
    }

    fn metadata(&self) -> String {
        let ports: String = self.nics.iter().map(Nic::metadata).collect();
        format!(
            "<metadata><nova:instance xmlns:nova='http://openstack.org/xmlns/libvirt/nova/1.1'>\
             <nova:name>{}</nova:name><nova:ports>{ports}</nova:ports></nova:instance></metadata>",
            self.name
        )
    }

    /// Returns when it runs.
    pub fn start(&self, host: &Host) {
        virsh(host, "create", &self.xml());
    }
}

/// A libvirt network with its own bridge, whose DHCP server knows these MACs and their addresses. Needs dnsmasq.
pub fn network(host: &Host, name: &str, bridge: &str, hosts: &[(&str, &str)]) {
    let hosts: String = hosts.iter().map(|(mac, ip)| format!("<host mac='{mac}' ip='{ip}'/>")).collect();
    // Mode open: no firewall rules, so no iptables needed.
    let xml = format!(
        "<network><name>{name}</name><forward mode='open'/><bridge name='{bridge}' stp='off'/><dns enable='no'/>\
         <ip address='192.0.2.1' netmask='255.255.255.0'>\
         <dhcp><range start='192.0.2.100' end='192.0.2.199'/>{hosts}</dhcp></ip></network>"
    );
    virsh(host, "net-create", &xml);
}

pub fn virsh(host: &Host, command: &str, xml: &str) {
    let file = host.directory().join(format!("{command}.xml"));
    std::fs::write(&file, xml).unwrap();
    host.sh(&format!("virsh --quiet {command} {}", file.display()));
}

/// Held while a test has macvtaps. Theirs is `/dev/tapN`, with N an interface index: hosts share `/dev` and no indices.
pub fn macvtaps() -> File {
    let dev = File::open("/dev").unwrap();
    dev.lock().unwrap();
    dev
}
