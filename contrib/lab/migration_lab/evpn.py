"""A real EVPN fabric in the place of the switch model: FRR's zebra and bgpd on a spine and three leaves, with the kernel's VXLAN.

    spine ═ leaf1 ═ host 1    VM1, before
          ═ leaf2 ═ VM2, VM3
          ═ leaf3 ═ host 3    VM1, after

Subnets are Linux bridges on the leaves, whose address is the same on each, and so is its MAC: the anycast gateway. All
settings of the kernel that decide whether an announcement makes a neighbour entry are Linux's own. The tenant is the default VRF,
since not every kernel has others: so the underlay stays out of BGP's unicast families.

Hosts that are silent are unknown here. So VM1, VM2 and VM3 have asked their gateways before the migration, and say nothing of
themselves after it.
"""

import dataclasses
import datetime
import json
import re
import subprocess
import time

from . import guest, witness
from .attachment import Ovs
from .case import FABRICS
from .domain import linux_bridge
from .rack import GATEWAYS, TENANTS, Rack, outer, until

LEAVES = (1, 2, 3)
# By VNI, which is the VLAN in the switch model; the leaves' own VNI, for symmetric IRB; IPv6 beside each IPv4 address.
GATEWAYS6 = {100: guest.GATEWAY6, 200: "2001:db8:2::fe"}
L3VNI = 4000
TENANTS6 = {"vm2": guest.NEIGHBOUR6, "vm3": "2001:db8:2::2"}
LEARNED = re.compile(r"\bextern_learn\b")

HEAD = """
put() { echo "$2" >/proc/sys/net/$1; }
"""
# Only bridges speak IPv6, or each cable would have something to say.
LEAF = """
put ipv4/ip_forward 1
put ipv6/conf/all/forwarding 1
put ipv6/conf/default/disable_ipv6 1
put ipv6/conf/default/accept_dad 0
ip link set lo up
ip link set {underlay} mtu 1600 up
ip address add 10.254.{n}.1/31 dev {underlay}
ip address add 10.255.255.{n}/32 dev lo
ip route add 10.255.255.0/24 via 10.254.{n}.0
subnet() {{ # VNI MAC
    ip link add br$1 address $2 type bridge forward_delay 0 mcast_snooping 0
    ip link set br$1 addrgenmode none
    put ipv6/conf/br$1/disable_ipv6 0
    ip link add vx$1 type vxlan id $1 local 10.255.255.{n} dstport 4789 nolearning
    ip link set vx$1 addrgenmode none master br$1
    bridge link set dev vx$1 neigh_suppress {suppress} learning off
    ip link set vx$1 up
    ip link set br$1 up
}}
"""
GATEWAY = """
subnet {vni} {mac}
ip address add {v4}/24 dev br{vni}
ip address add {v6}/64 dev br{vni} nodad
ip address add fe80::1/64 dev br{vni} nodad
"""
FRR = """
mkdir -p /run/frr/{name}
cd /run/frr/{name}
printf '%s' '{zebra}' >zebra.conf
printf '%s' '{bgpd}' >bgpd.conf
chown -R frr:frr /run/frr
for daemon in zebra bgpd; do
    /usr/lib/frr/$daemon --daemon -N {name} -F datacenter -A 127.0.0.1 -f $PWD/$daemon.conf -i $PWD/$daemon.pid \
        --log file:$PWD/$daemon.log >/dev/null 2>$daemon.err || {{ cat $daemon.err >&2; exit 1; }}
done
"""
SPINE = """router bgp 65000
 bgp router-id 10.255.255.254
 no bgp default ipv4-unicast
 no bgp ebgp-requires-policy
{neighbors} address-family l2vpn evpn
{activate} exit-address-family
"""
BGP = """debug bgp updates out
ip prefix-list tenants permit 0.0.0.0/0 ge 24 le 24
ipv6 prefix-list tenants permit 2001:db8::/32 ge 64 le 64
route-map tenants permit 10
 match ip address prefix-list tenants
route-map tenants6 permit 10
 match ipv6 address prefix-list tenants
router bgp 6500{n}
 bgp router-id 10.255.255.{n}
 no bgp default ipv4-unicast
 no bgp ebgp-requires-policy
 neighbor 10.254.{n}.0 remote-as 65000
{unicast} address-family l2vpn evpn
  neighbor 10.254.{n}.0 activate
  advertise-all-vni
{advertise} exit-address-family
"""
UNICAST = """ address-family ipv4 unicast
  redistribute connected route-map tenants
 exit-address-family
 address-family ipv6 unicast
  redistribute connected route-map tenants6
 exit-address-family
"""
ADVERTISE = """  advertise ipv4 unicast
  advertise ipv6 unicast
"""


@dataclasses.dataclass(frozen=True)
class Evpn(Ovs):
    """tap → br0 → up0 ═ leaf; or tap → br100, where the host is the leaf. No VLAN and no agent."""

    symmetric: bool = True
    suppress: bool = True
    on_host: bool = False
    ipv6 = True

    @property
    def source(self):
        return linux_bridge("br100" if self.on_host else "br0")

    def build(self, host):
        if not self.on_host:
            host.sh("""
                ip link add br0 type bridge forward_delay 0 mcast_snooping 0
                ip link set br0 up
                ip link set up0 master br0
            """)

    def agent(self, host, case=None, resumed=None):
        return Plugged()


class Plugged:
    """In the place of an agent: a port of a Linux bridge without VLANs is ready when it is there."""

    dead_at = None

    def __init__(self):
        self.bound_at = time.time()
        self.bound = self

    def wait(self, _):
        return True


class Leaf:
    """One leaf, in a namespace of its own or on a hypervisor."""

    def __init__(self, number, fabric, host=None):
        self.number, self.name, self.host = number, f"leaf{number}", host
        if host:
            outer(f"ip link set p{number} netns spine")
            self._cable("up0", f"p{number}")
        else:
            outer(f"""
                ip netns add {self.name}
                ip link add name spine netns {self.name} type veth peer name p{number} netns spine
            """)
            self._cable("spine", f"p{number}")
        self._build(fabric)

    def sh(self, script):
        """Runs a shell script there, that must succeed; returns what it printed."""
        if self.host:
            return self.host.sh(script)
        command = ["ip", "netns", "exec", self.name, "sh", "-euc", script]
        run = subprocess.run(command, capture_output=True, text=True)
        if run.returncode:
            raise RuntimeError(f"{self.name}: {script.strip()}\n{run.stdout}{run.stderr}")
        return run.stdout

    def start(self, *command, **options):
        """A program there."""
        if self.host:
            return self.host.start(*command, **options)
        options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
        return subprocess.Popen(["ip", "netns", "exec", self.name, *map(str, command)], text=True, **options)

    def _cable(self, device, port):
        self.underlay = device
        outer(f"""
            ip -n spine link set {port} mtu 1600 up
            ip -n spine address add 10.254.{self.number}.0/31 dev {port}
            ip -n spine route add 10.255.255.{self.number}/32 via 10.254.{self.number}.1
        """)

    def _build(self, fabric):
        n = self.number
        script = HEAD + LEAF.format(n=n, underlay=self.underlay, suppress="on" if fabric.suppress else "off")
        for vni in GATEWAYS:
            script += GATEWAY.format(vni=vni, mac=guest.GATEWAY_MAC, v4=GATEWAYS[vni], v6=GATEWAYS6[vni])
        if fabric.symmetric:
            script += f"subnet {L3VNI} 02:00:00:00:40:0{n}\n"
        unicast, advertise = (UNICAST, ADVERTISE) if fabric.symmetric else ("", "")
        zebra = f"vni {L3VNI}\n" if fabric.symmetric else ""
        self.sh(script + frr(self.name, zebra, BGP.format(n=n, unicast=unicast, advertise=advertise)))

    def knows(self, address):
        """Whether it has that address by BGP, from another leaf."""
        return LEARNED.search(self.sh(f"ip neighbour show to {address}")) is not None

    def updates(self):
        """How many BGP UPDATEs it has sent."""
        neighbors = json.loads(self.sh(f"vtysh -N {self.name} -c 'show bgp neighbors json' 2>/dev/null"))
        return sum(peer["messageStats"]["updatesSent"] for peer in neighbors.values() if "messageStats" in peer)


def frr(name, zebra, bgpd):
    """The script that starts both daemons, with what their configurations have beside the defaults."""
    head = f"frr defaults datacenter\nhostname {name}\nlog timestamp precision 6\n"
    return FRR.format(name=name, zebra=head + zebra, bgpd=head + bgpd)


class Fabric(Rack):
    """As its base; host 2 is only two namespaces, VM2 and VM3 behind leaf 2."""

    vlan = None
    numbers = (1, 3)
    hints = """  vtysh -N leaf2 -c 'show evpn arp-cache vni all' -c 'show bgp l2vpn evpn'
  ip -n leaf2 neighbour                 leaf1, leaf2, leaf3 and spine are namespaces, unless hosts are leaves
  tail $LAB/leaf2.log                   what the kernel of leaf 2 was told
  ip netns exec vm3 busybox ping 1.1.1.1"""
    # By the name of a probe: the tenant, its address, and VM1's.
    probes = {
        **{name: (name, address, guest.ADDRESS) for name, _, address, _ in TENANTS},
        **{f"{name}-ipv6": (name, address, guest.ADDRESS6) for name, address in TENANTS6.items()},
    }

    def _connect(self):
        fabric = self.attachment
        activate = "".join(f"  neighbor 10.254.{n}.1 activate\n" for n in LEAVES)
        neighbors = "".join(f" neighbor 10.254.{n}.1 remote-as 6500{n}\n" for n in LEAVES)
        outer("ip netns add spine; ip -n spine link set lo up")
        on_host = dict(zip((1, 3), self.hosts)) if fabric.on_host else {}
        self.leaves = {number: Leaf(number, fabric, on_host.get(number)) for number in LEAVES}
        spine = HEAD + "put ipv4/ip_forward 1\n" + frr("spine", "", SPINE.format(neighbors=neighbors, activate=activate))
        outer('ip netns exec spine sh -euc "$1"', spine)
        if not fabric.on_host:
            for number in (1, 3):
                outer(f"ip link set p{number} netns leaf{number}")
                self.leaves[number].sh(f"ip link set p{number} master br100 up")
        self._configure()
        self._watch()

    def _add_tenant(self, name, vlan, address, mac):
        outer(f"""
            ip netns add {name}
            ip link add name eth0 netns {name} address {mac} type veth peer name {name} netns leaf2
            ip -n leaf2 link set {name} master br{vlan} up
            tenant() {{ ip netns exec {name} "$@"; }}
            tenant sh -c 'for all in all default; do
                echo 0 >/proc/sys/net/ipv6/conf/$all/accept_dad
                echo 0 >/proc/sys/net/ipv6/conf/$all/router_solicitations
                echo 0 >/proc/sys/net/ipv6/conf/$all/accept_ra
            done'
            tenant ip link set lo up
            tenant ip link set eth0 up
            tenant ip address add {address}/24 dev eth0
            tenant ip address add {TENANTS6[name]}/64 dev eth0 nodad
            tenant ip route add default via {GATEWAYS[vlan]}
            tenant ip -6 route add default via {GATEWAYS6[vlan]}
        """)
        known = {GATEWAYS[vlan]: guest.GATEWAY_MAC, GATEWAYS6[vlan]: guest.GATEWAY_MAC}
        if vlan == 100:
            known |= {guest.ADDRESS: guest.MAC, guest.ADDRESS6: guest.MAC}
        for neighbour, lladdr in known.items():
            outer(f"ip -n {name} neighbour replace {neighbour} lladdr {lladdr} dev eth0")
        # The answer makes leaf 2 ask who this is.
        for gateway in (GATEWAYS[vlan], GATEWAYS6[vlan]):
            outer(f"until ip netns exec {name} busybox ping -c 1 -W 1 {gateway} >/dev/null; do :; done")

    def _configure(self):
        text = ""
        if self.case.cure == "no-questions":
            text += '[frames]\nsend = ["arp-request", "arp-reply", "na", "rarp"]\n'
        if not self.attachment.on_host:
            text += f'[gateways]\n"{guest.SUBNET}" = "{guest.GATEWAY}"\n'
        with open(self.destination.path("/etc/announced/announced.toml"), "a") as file:
            file.write(text)

    def _watch(self):
        """Leaf 2's FDB and neighbours, which zebra writes to as it hears of routes."""
        self.monitor = self.directory / "leaf2.log"
        log = open(self.monitor, "w")
        for command in (["bridge", "-ts", "monitor", "fdb"], ["ip", "-ts", "monitor", "neigh"]):
            self.leaves[2].start(*command, stdout=log)

    def boot(self):
        super().boot()
        addresses = {2: (guest.ADDRESS, guest.ADDRESS6)}
        tenants = [address for _, _, address, _ in TENANTS] + list(TENANTS6.values())
        addresses |= {number: tenants for number in (1, 3)}
        for number, wanted in addresses.items():
            for address in wanted:
                until(lambda: self.leaves[number].knows(address), f"leaf {number} has no route to {address}")

    def mark(self):
        self.updates = self._updates()

    def _updates(self):
        return {leaf.name: leaf.updates() for leaf in self.leaves.values()}

    def tenant(self, name, *command, **options):
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
        command = ["ip", "netns", "exec", name, *map(str, command)]
        return subprocess.Popen(command, text=True, start_new_session=True, **options)

    def uplink(self, file):
        if self.attachment.on_host:
            # Broadcasts, which reach the bridge itself: those that are suppressed do not leave by VXLAN.
            return witness.Uplink(file, "br100", self.destination.start)
        return witness.Uplink(file, "p3", self.leaves[3].start)

    def noticed(self, called, end):
        """What leaf 2 has heard of VM1 by BGP: when its MAC came to leaf 3, when its IPv4 address was withdrawn, and when
        that came back from leaf 3. And how many UPDATEs each leaf has sent since `mark`."""
        seen = {"fdb_at": None, "withdrawn_at": None, "arp_at": None, "arp_by": None, "announcements": None}
        now = self._updates()
        seen["updates"] = {name: now[name] - before for name, before in self.updates.items()}
        for line in self.monitor.read_text().splitlines():
            stamp, _, event = line.removeprefix("[").partition("] ")
            words = event.split()
            if guest.MAC not in words and guest.ADDRESS not in words:
                continue
            at, gone = datetime.datetime.fromisoformat(stamp).timestamp(), "Deleted" in words
            if not called <= at < end:
                continue
            if guest.ADDRESS in words:
                if gone:
                    seen["withdrawn_at"], seen["arp_at"] = at, None
                elif "NOARP" in words and seen["withdrawn_at"]:
                    seen["arp_at"], seen["arp_by"] = seen["arp_at"] or at, "BGP"
            elif "10.255.255.3" in words and not gone and seen["fdb_at"] is None:
                seen["fdb_at"] = at
        return seen


KINDS = {
    "evpn": Evpn(),
    "evpn-asymmetric": Evpn(symmetric=False),
    "evpn-flooding": Evpn(suppress=False),
    "evpn-leaf": Evpn(on_host=True),
}
assert KINDS.keys() == FABRICS.keys()
