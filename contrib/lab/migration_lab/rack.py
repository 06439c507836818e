"""The three hypervisors of the analysis, the L3 switch between them, and VM2 and VM3 on host 2.

All of it is in the network namespace of the importing process, the migration lab's outer host, and dies with that.
"""

import dataclasses
import json
import os
import pathlib
import secrets
import shutil
import subprocess
import sys
import time

from . import guest, witness
from .attachment import Hybrid, Ovs, Provider
from .sdn import Neutron, Ovn, OvnBoundAnew

LAB = pathlib.Path(__file__).resolve().parent.parent
HOOK = LAB.parent / "libvirt/hooks/qemu.d/50-announce"
GATEWAYS = {100: "1.1.1.254", 200: "2.1.1.254"}
# Name, VLAN, address and MAC.
TENANTS = [
    ("vm2", 100, guest.NEIGHBOUR, guest.NEIGHBOUR_MAC),
    ("vm3", 200, "2.1.1.2", "fa:16:3e:00:00:33"),
]
ATTACHMENTS = {
    "ovs": Ovs(), "hybrid": Hybrid(), "provider": Provider(),
    "ovn": Ovn(), "ovn-anew": OvnBoundAnew(), "neutron": Neutron(),
}
# Of RFC 3376 and RFC 3810, in seconds.
QUERY_INTERVAL = 125
# A report that nothing has asked for is repeated within a second (RFC 3376 section 8.11).
REPEATED_WITHIN = 2
# Longer than anything takes on a slow, busy machine, in seconds.
PATIENCE = 180


@dataclasses.dataclass
class Site:
    """Where things are: this run's own directory, our programs, the guest's kernel and initramfs, libvirtd's cache."""

    directory: pathlib.Path
    programs: pathlib.Path
    guest: pathlib.Path
    cache: pathlib.Path


class Host:
    """A hypervisor of contrib/lab/host."""

    def __init__(self, number, site, ovs):
        self.name, self.directory = f"h{number}", site.directory / f"h{number}"
        self.address = f"10.77.0.{number}"
        outside = "/proc/1/ns/net"
        self.process = subprocess.Popen(
            [LAB / "host", *["--ovs"] * ovs, "--libvirt", "--name", self.name,
             "--cable", f"up0=p{number}@{outside}", "--cable", f"mg0=mg{number}@{outside}",
             "--listen", f"mg0={self.address}/24", self.directory],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=os.environ | {"LAB_CACHE": str(site.cache)},
        )

    def await_ready(self):
        if self.process.stdout.readline() != "ready\n":
            raise RuntimeError(f"{self.name} did not start")

    def path(self, inside):
        """A file of the host, as seen from outside."""
        return f"{self.directory}{inside}"

    def configure(self, toml):
        """Adds that to the configuration of announced."""
        with open(self.path("/etc/announced/announced.toml"), "a") as file:
            file.write(toml)

    def start(self, *command, **options):
        """A program in the host, that ends at the latest with us."""
        options = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
        command = [LAB / "enter", self.directory, *command]
        # Ctrl-C in the lab's shell is not meant for it.
        return subprocess.Popen(list(map(str, command)), text=True, start_new_session=True, **options)

    def sh(self, script):
        """Runs a shell script that must succeed; returns what it printed."""
        process = self.start("sh", "-euc", script, stdin=subprocess.DEVNULL)
        out, err = process.communicate()
        if process.returncode:
            raise RuntimeError(f"{self.name}: {script.strip()}\n{out}{err}")
        return out


class Rack:
    """VM1 runs on host 1, and VM2 and VM3 reach it, when this is built."""

    # What of VM1's frames counts on the uplink.
    vlan = 100
    numbers = (1, 2, 3)
    # For a user between the hosts.
    hints = """  l3switch show fdb                     or arp: what the switch knows
  tail $LAB/switch.log                  what the switch has noticed
  on h2 ip netns exec vm3 busybox ping 1.1.1.1"""
    # By the name of a probe: the tenant, its address, and VM1's.
    probes = {name: (name, address, guest.ADDRESS) for name, _, address, _ in TENANTS}

    def __init__(self, case, site, attachment):
        self.case, self.site, self.directory = case, site, site.directory
        self.attachment = attachment
        if case.multicast:
            to = {"vm2-group": (guest.NEIGHBOUR, guest.GROUP), "vm2-group6": (guest.NEIGHBOUR6, guest.GROUP6)}
            self.probes = self.probes | {name: ("vm2", source, group) for name, (source, group) in to.items()}
        if case.cure == "hook":
            self._install_hook("h3")
        self.hosts = hosts(self.numbers, site, self.vlan is not None)
        self.source, self.destination = self.hosts[0], self.hosts[-1]
        self._connect()
        for host in self.hosts:
            self.attachment.build(host)
        for tenant in TENANTS:
            self._add_tenant(*tenant)

    def _connect(self):
        """Builds what is between the hosts."""
        self.tenants = self.hosts[1]
        self.switch = self._start_switch()
        self.attachment.connect()

    def _install_hook(self, name):
        # libvirtd looks for hooks when it starts.
        directory = self.directory / name / "etc/libvirt/hooks/qemu.d"
        directory.mkdir(parents=True)
        shutil.copy(HOOK, directory)

    def _start_switch(self):
        switch = [self.site.programs / "examples/l3switch", "--vendor", self.case.vendor]
        for number in (1, 2, 3):
            switch += ["--port", f"p{number}"]
        for vlan, address in GATEWAYS.items():
            switch += ["--svi", f"{vlan}={address}/24"]
        if self.case.multicast:
            switch += ["--query-interval", QUERY_INTERVAL]
        switch += ["--control", self.directory / "switch.sock", "--log", self.directory / "switch.log"]
        process = subprocess.Popen(
            list(map(str, switch)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        if process.stdout.readline() != "ready\n":
            raise RuntimeError("the switch did not start")
        return process

    def _add_tenant(self, name, vlan, address, mac):
        """A namespace that stands for a VM; all its neighbours are permanent, so that nothing heals by luck."""
        gateway = GATEWAYS[vlan]
        self.tenants.sh(f"""
            ip netns add {name}
            echo 1 | ip netns exec {name} tee /proc/sys/net/ipv6/conf/default/disable_ipv6 >/dev/null
            ip link add tap-{name} type veth peer name eth0 address {mac} netns {name}
            ip link set tap-{name} up
            ip -n {name} link set eth0 up
            ip -n {name} address add {address}/24 dev eth0
            ip -n {name} route add default via {gateway}
            ip -n {name} neighbour replace {gateway} lladdr {guest.GATEWAY_MAC} dev eth0
            ovs-vsctl add-port br-int tap-{name} tag={self.attachment.tags[vlan]}
        """)
        if vlan == 100:
            self.tenants.sh(f"ip -n {name} neighbour replace {guest.ADDRESS} lladdr {guest.MAC} dev eth0")
            if self.case.multicast:
                self._add_ipv6(name)

    def _add_ipv6(self, name):
        self.tenants.sh(f"""
            ip netns exec {name} sh -euc 'cd /proc/sys/net/ipv6/conf/eth0
                echo 0 >accept_dad; echo 0 >router_solicitations; echo 0 >disable_ipv6'
            ip -n {name} address add {guest.NEIGHBOUR6}/64 dev eth0
            ip -n {name} neighbour replace {guest.ADDRESS6} lladdr {guest.MAC} dev eth0
        """)

    def boot(self):
        """Starts VM1 on host 1."""
        self.attachment.expect(self.source)
        domain = self.directory / "vm1.xml"
        domain.write_text(guest.xml(self.attachment, self.case, self.site.guest))
        self.source.sh(f"virsh --quiet create {domain}")

    def probe(self, name, log):
        """Pings VM1 every 10 ms from there; in the end it waits for the answer to the last ping."""
        tenant, source, target = self.probes[name]
        probe = [self.site.programs / "examples/probe", "--source", source, "--to", target]
        process = self.tenant(tenant, *probe, "--every", "10ms", "--linger", "5s", "--log", log, stdin=subprocess.PIPE)
        if process.stdout.readline() != "ready\n":
            raise RuntimeError(f"probe: {process.communicate()}")
        return process

    def stream(self, name):
        """A TCP stream with VM1 from there."""
        tenant, _, target = self.probes[name]
        process = self.tenant(tenant, sys.executable, pathlib.Path(__file__).parent / "stream.py", target,
                              stdin=subprocess.PIPE)
        if process.stdout.readline() != "ready\n":
            raise RuntimeError(f"stream: {process.communicate()}")
        return process

    def is_answered(self, name):
        """Waits until VM1 answers that probe's tenant; whether it did."""
        tenant, _, target = self.probes[name]
        ping = f"until busybox ping -c 1 -W 1 {target}; do busybox usleep 20000; done"
        process = self.tenant(tenant, "timeout", PATIENCE, "busybox", "sh", "-c", ping, stdin=subprocess.DEVNULL)
        process.communicate()
        return process.returncode == 0

    def await_groups(self):
        """Waits until the switch knows where VM1's groups are, and VM1 does not repeat it any more."""
        show = [self.site.programs / "examples/l3switch", "show", "groups", "--json", "--control", self.directory / "switch.sock"]

        def quiet():
            rows = json.loads(subprocess.run(show, check=True, text=True, stdout=subprocess.PIPE).stdout)
            ages = {row["group"]: row["age"] for row in rows if row["port"] == "p1"}
            return all(ages.get(group, 0) > REPEATED_WITHIN for group in (guest.GROUP, guest.GROUP6))
        until(quiet, "the switch does not know VM1's groups")

    def tenant(self, name, *command, **options):
        """A program in that tenant."""
        return self.tenants.start("ip", "netns", "exec", name, *command, **options)

    def uplink(self, file):
        """The witness on the far end of host 3's uplink."""
        return witness.Uplink(file)

    def mark(self):
        """The migration is about to begin."""

    def noticed(self, called, end):
        """What the network has made of VM1's frames until then."""
        return witness.switch_log(self.directory / "switch.log", called, end)

    def start_daemon(self):
        """Starts announced on host 3, or on both hosts of the migration as peers; returns when it hears libvirt."""
        announcing = [self.destination]
        if self.case.cure == "handover":
            announcing.append(self.source)
            introduce(announcing, self.directory)
        for host in announcing:
            log = open(self.directory / f"announced-{host.name}.log", "w")
            host.start(self.site.programs / "announced", stderr=log)
            status = f"{self.site.programs}/announce status --json 2>/dev/null || true"
            until(lambda: '"libvirt":true' in host.sh(status), "announced does not hear libvirt")


def hosts(numbers, site, ovs):
    """Hypervisors with these numbers, and the network for migrations between them."""
    built = [Host(number, site, ovs) for number in numbers]
    for host in built:
        host.await_ready()
    bridge("mg", [f"mg{number}" for number in numbers])
    return built


def bridge(name, ports):
    """Makes a bridge out there, with these ports."""
    outer(f"""
        ip link add {name} type bridge forward_delay 0 mcast_snooping 0
        ip link set {name} up
        for port in {" ".join(ports)}; do ip link set $port master {name}; done
    """)


def introduce(hosts, directory):
    """Has the announced of each of these hosts know the others, by its configuration; the key is in that directory."""
    key = directory / "peers.key"
    key.touch(0o600)
    key.write_text(secrets.token_hex(32))
    addresses = json.dumps([host.address for host in hosts])
    for host in hosts:
        host.configure(f"[peers]\naddresses = {addresses}\nkey-file = {json.dumps(str(key))}\n")


def outer(script, *arguments):
    """Runs a shell script out there, between the hosts."""
    subprocess.run(["sh", "-euc", script, "sh", *arguments], check=True)


def until(look, complaint, patience=PATIENCE):
    """Looks again and again until there is something to see, and returns it."""
    end = time.monotonic() + patience
    while not (seen := look()):
        if time.monotonic() > end:
            raise RuntimeError(complaint)
        time.sleep(0.005)
    return seen
