//! QEMU guests under libvirt, described as nova describes them.

use std::fmt::Write;
use std::fs::File;
use std::path::Path;

use nix::fcntl::{Flock, FlockArg};

use super::host::{Host, Place};

/// A domain without disk: its firmware comes up, finds nothing to boot and waits, without a word to the network.
#[derive(Clone)]
pub struct Guest {
    name: String,
    /// libvirt's name of the hypervisor: `qemu`, or `test` for the test driver.
    kind: &'static str,
    nova: bool,
    nova_name: Option<String>,
    /// More arguments for QEMU.
    qemu: Vec<String>,
    memory: u32,
    /// What its `<os>` boots, if anything.
    boot: String,
    nics: Vec<Nic>,
    devices: String,
    emulator: String,
    /// The test driver's own element, if any.
    run_state: String,
}

#[derive(Clone)]
pub struct Nic {
    plug: Plug,
    pub mac: String,
    /// The UUID of neutron's port.
    pub port: String,
    addresses: Vec<String>,
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
    /// Nowhere: libvirt creates the tap, and an agent attaches it.
    Ethernet,
    /// Nowhere, and the tap is there already: [`Nic::make_tap`].
    EthernetUnmanaged,
    /// Into a libvirt network: [`network`].
    Network(&'static str),
    /// A macvtap on that device: take [`macvtaps`] first.
    Direct(&'static str),
}

const QEMU: &str = "http://libvirt.org/schemas/domain/qemu/1.0";

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
    pub fn address(mut self, address: impl Into<String>) -> Self {
        self.addresses.push(address.into());
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

    /// The capture filter for announcements of the guest, and whatever else it sends but neighbour solicitations.
    pub fn sent(&self) -> String {
        format!("{} and not (ether[0:2] = 0x3333 and ether[2] = 0xff)", self.all_sent())
    }

    /// The capture filter for frames that the guest sends.
    pub fn all_sent(&self) -> String {
        format!("ether src {}", self.mac)
    }

    /// As nova does before it starts a guest with [`Plug::EthernetUnmanaged`].
    pub fn make_tap(&self, host: &Host) {
        let tap = self.tap();
        host.sh(&format!("ip tuntap add {tap} mode tap vnet_hdr && ip link set {tap} up"));
    }

    /// As libvirt is told of it.
    pub fn xml(&self) -> String {
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
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            kind: "qemu",
            nova: false,
            nova_name: None,
            qemu: Vec::new(),
            memory: 16,
            boot: String::new(),
            nics: Vec::new(),
            devices: String::new(),
            emulator: "/usr/bin/qemu-system-x86_64".into(),
            run_state: String::new(),
        }
    }

    /// For libvirt's test driver, which runs nothing.
    pub fn of_test_driver(self) -> Self {
        Self { kind: "test", ..self }
    }

    /// For the test driver, in this state from the start: a number of `virDomainState`.
    pub fn in_state(self, state: &str) -> Self {
        let schema = "http://libvirt.org/schemas/domain/test/1.0";
        Self { run_state: format!("<t:runstate xmlns:t='{schema}'>{state}</t:runstate>"), ..self }
    }

    /// QEMU's own RARPs after a migration or a restore look like ours: without them every frame is counted.
    pub fn quiet(self) -> Self {
        self.qemu("-global").qemu("migration.announce-rounds=0")
    }

    /// With 32 MiB of memory that QEMU does not recognize as empty, which take long to migrate over a slow link.
    pub fn heavy(self, host: &Host) -> Self {
        let file = host.directory().join("noise");
        host.sh(&format!("head -c 32M /dev/urandom >{}", file.display()));
        let loader = format!("loader,file={},addr=0x1000000,force-raw=on", file.display());
        Self { memory: 64, ..self }.qemu("-device").qemu(&loader)
    }

    /// Boots the `kernel` and the `initramfs` of this directory.
    pub fn boots(self, files: &Path) -> Self {
        let files = files.display();
        let boot = format!(
            "<kernel>{files}/kernel</kernel><initrd>{files}/initramfs</initrd><cmdline>quiet no_timer_check</cmdline>"
        );
        Self { memory: 128, boot, ..self }
    }

    fn qemu(mut self, argument: &str) -> Self {
        self.qemu.push(format!("<qemu:arg value='{argument}'/>"));
        self
    }

    /// With nova's metadata: the ports with their addresses, and no MAC.
    pub fn nova(mut self) -> Self {
        self.nova = true;
        self
    }

    /// What OpenStack's users call it.
    pub fn named_by_nova(self, name: &str) -> Self {
        Self { nova_name: Some(name.into()), ..self.nova() }
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

    /// Whose QEMU does not answer libvirt for as long as the file `held` is in the host's directory.
    pub fn held(self, host: &Host) -> Self {
        let (emulator, held) = (host.directory().join("emulator"), host.directory().join("held"));
        let script = format!(
            "#!/bin/sh\ncase \"$*\" in *guest=*) while [ -e {} ]; do sleep 0.01; done ;; esac\nexec {} \"$@\"\n",
            held.display(),
            self.emulator
        );
        std::fs::write(&emulator, script).unwrap();
        host.sh(&format!("chmod +x {}", emulator.display()));
        Self { emulator: emulator.display().to_string(), ..self }
    }

    pub fn xml(&self) -> String {
        let (name, kind, memory, run_state) = (&self.name, self.kind, self.memory, &self.run_state);
        let boot = &self.boot;
        let metadata = if self.nova { self.metadata() } else { String::new() };
        let nics: String = self.nics.iter().map(Nic::xml).collect();
        let (devices, emulator) = (&self.devices, &self.emulator);
        let qemu = self.qemu.concat();
        // type qemu, not kvm: /dev/kvm may be there and not work. NICs can be plugged into a running guest by ACPI.
        format!(
            "<domain type='{kind}' xmlns:qemu='{QEMU}'><name>{name}</name>{metadata}<memory unit='MiB'>{memory}</memory>\
             <vcpu>1</vcpu><os><type arch='x86_64' machine='pc'>hvm</type>{boot}</os><features><acpi/></features>\
             <devices><emulator>{emulator}</emulator><controller type='usb' model='none'/>\
             <memballoon model='none'/>{nics}{devices}</devices>\
             <qemu:commandline>{qemu}</qemu:commandline>{run_state}</domain>"
        )
    }

    fn metadata(&self) -> String {
        let ports: String = self.nics.iter().map(Nic::metadata).collect();
        format!(
            "<metadata><nova:instance xmlns:nova='http://openstack.org/xmlns/libvirt/nova/1.1'>\
             <nova:name>{}</nova:name><nova:ports>{ports}</nova:ports></nova:instance></metadata>",
            self.nova_name.as_ref().unwrap_or(&self.name)
        )
    }

    /// It is there, and does not run.
    pub fn start_paused(&self, host: &Host) {
        virsh(host, "create --paused", &self.xml());
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
    let name = command.split(' ').next().unwrap();
    let file = host.directory().join(format!("{name}.xml"));
    std::fs::write(&file, xml).unwrap();
    host.sh(&format!("virsh --quiet {command} --file {}", file.display()));
}

/// Plugs a NIC into a running guest.
pub fn attach(host: &Host, guest: &str, nic: &Nic) {
    virsh(host, &format!("attach-device {guest} --live"), &nic.xml());
}

/// A crash of libvirtd, and its restart by its supervisor. The guests live on.
pub fn restart_libvirtd(host: &Host) {
    // What it knows of QEMU is valid for the CPU on which it found out, as contrib/lab/host says.
    host.sh(r"pid=$(cat /run/libvirtd.pid)
         set -- $(tr '\0' ' ' </proc/$pid/cmdline)
         cpus=$(sed -n 's/^Cpus_allowed_list:\s*//p' /proc/$pid/status)
         kill -KILL $pid
         while [ -e /proc/$pid ]; do :; done
         taskset --cpu-list $cpus $* </dev/null >/dev/null 2>&1
         virsh --quiet uri || { cat /var/log/libvirt/libvirtd.log; exit 1; }");
}

/// Held while a test has macvtaps. Theirs is `/dev/tapN`, with N an interface index: hosts share `/dev` and no indices.
pub fn macvtaps() -> Flock<File> {
    let dev = File::open("/dev").unwrap();
    Flock::lock(dev, FlockArg::LockExclusive).map_err(|(_, error)| error).unwrap()
}
