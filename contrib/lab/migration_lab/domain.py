"""The XML of libvirt's domains and their NICs: all guests of the lab and of the benchmarks are described here."""

QEMU = "http://libvirt.org/schemas/domain/qemu/1.0"
NOVA = "http://openstack.org/xmlns/libvirt/nova/1.1"


def openvswitch(bridge, port=None):
    """The source of a NIC on a bridge of Open vSwitch; `port` is the UUID of neutron's port."""
    parameters = f"<parameters interfaceid='{port}'/>" if port else ""
    return f"{linux_bridge(bridge)}<virtualport type='openvswitch'>{parameters}</virtualport>"


def linux_bridge(bridge):
    """The source of a NIC on a Linux bridge."""
    return f"<source bridge='{bridge}'/>"


def nic(mac, tap, source=None, alias=None, driver=""):
    """One NIC. Without a source, libvirt plugs the tap nowhere; `driver` is what it has of libvirt's `<driver>`."""
    kind = "bridge" if source else "ethernet"
    alias = f"<alias name='{alias}'/>" if alias else ""
    # With a ROM it would try to boot from the network, and so send frames.
    return f"""
        <interface type='{kind}'>
          <mac address='{mac}'/>{source or ""}<target dev='{tap}'/>
          <model type='virtio'/>{driver}<rom enabled='no'/>{alias}
        </interface>"""


def nova(port, *addresses):
    """Nova's metadata: the UUID of neutron's port, and its fixed addresses."""
    versions = {address: 6 if ":" in address else 4 for address in addresses}
    ips = "".join(f"<nova:ip type='fixed' address='{address}' ipVersion='{of}'/>" for address, of in versions.items())
    return f"""
      <metadata>
        <nova:instance xmlns:nova='{NOVA}'>
          <nova:ports><nova:port uuid='{port}'>{ips}</nova:port></nova:ports>
        </nova:instance>
      </metadata>"""


def xml(name, nics, kind="qemu", memory_mib=16, metadata="", boot="", more=""):
    """A guest without disk. `kind` is "qemu", or "test" for libvirt's test driver; `boot` goes into its `<os>`."""
    # qemu, not kvm: /dev/kvm may be there and not work. NICs can be plugged into a running guest by ACPI.
    return f"""
    <domain type='{kind}' xmlns:qemu='{QEMU}'>
      <name>{name}</name>{metadata}
      <memory unit='MiB'>{memory_mib}</memory>
      <os><type arch='x86_64' machine='pc'>hvm</type>{boot}</os>
      <features><acpi/></features>
      <devices>
        <controller type='usb' model='none'/>
        <memballoon model='none'/>{nics}
      </devices>{more}
    </domain>"""
