"""How a host's guests reach its uplink."""

from .agent import Agent
from .domain import linux_bridge, openvswitch
from .guest import MAC, PORT, device


class Ovs:
    """tap → br-int → up0. The tag on the port is the VLAN on the wire."""

    source = openvswitch("br-int", PORT)
    # The port whose tag decides.
    port = device("tap")
    tags = {100: 100, 200: 200}
    # Whether the guest has IPv6.
    ipv6 = False

    def connect(self):
        """Brings up what is between the hosts."""

    def build(self, host):
        """Makes the bridges."""
        # netdev: the kernel may lack the openvswitch module, and must not be touched anyway.
        host.sh("""ovs-vsctl add-br br-int -- set Bridge br-int datapath_type=netdev \
            -- add-port br-int up0 trunks=100,200""")

    def expect(self, host):
        """What nova and os-vif do before the guest is there."""

    def agent(self, host, case=None, resumed=None):
        """The agent that binds the guest's port on that host."""
        return Agent(host, self.port, self.tags[100], case, resumed)

    def migrating(self):
        """What the cloud's manager does before the migration, and `migrated` after it."""

    def migrated(self):
        pass


class Hybrid(Ovs):
    """tap → qbr → qvb ═ qvo → br-int → up0."""

    source = linux_bridge(device("qbr"))
    port = device("qvo")

    def expect(self, host):
        qbr, qvb, qvo = map(device, ("qbr", "qvb", "qvo"))
        # ageing_time 0: os-vif makes it a hub.
        host.sh(f"""
            ip link add {qbr} type bridge forward_delay 0 ageing_time 0 mcast_snooping 0
            ip link add {qvb} type veth peer name {qvo}
            ip link set {qvb} master {qbr}
            for device in {qvb} {qvo} {qbr}; do ip link set $device up; done
            ovs-vsctl add-port br-int {qvo} -- set Interface {qvo} \
                external_ids:iface-id={PORT} external_ids:iface-status=active external_ids:attached-mac={MAC}
        """)


class Provider(Ovs):
    """tap → br-int → patch → br-ex → up0. Tags are the host's own; flows translate them, as neutron's do."""

    tags = {100: 5, 200: 6}

    def build(self, host):
        host.sh("""
            ovs-vsctl add-br br-int -- set Bridge br-int datapath_type=netdev \
                -- add-br br-ex -- set Bridge br-ex datapath_type=netdev -- add-port br-ex up0 \
                -- add-port br-int int-br-ex -- set Interface int-br-ex type=patch options:peer=phy-br-ex \
                -- add-port br-ex phy-br-ex -- set Interface phy-br-ex type=patch options:peer=int-br-ex
            ovs-ofctl add-flow br-int priority=2,in_port=int-br-ex,actions=drop
            ovs-ofctl add-flow br-ex priority=2,in_port=phy-br-ex,actions=drop
        """)
        for vlan, tag in self.tags.items():
            host.sh(f"""
                ovs-ofctl add-flow br-int priority=3,in_port=int-br-ex,dl_vlan={vlan},actions=mod_vlan_vid:{tag},NORMAL
                ovs-ofctl add-flow br-ex priority=4,in_port=phy-br-ex,dl_vlan={tag},actions=mod_vlan_vid:{vlan},NORMAL
            """)
