"""The real OVN, and neutron's real agent, on the hosts that VM1 leaves and comes to: contrib/lab/sdn brings them up."""

import json
import os
import pathlib
import subprocess
import threading
import time

from .attachment import Ovs
from .guest import ADDRESS, ADDRESS6, MAC, PORT

SDN = pathlib.Path(__file__).resolve().parent.parent / "sdn"
CENTRAL = "10.77.0.254"


class Installed(threading.Thread):
    """Looks for what the real agent writes when it has bound the port, as `Agent` tells what it did itself."""

    def __init__(self, host, table, port, condition):
        super().__init__(daemon=True)
        self.command = ["ovs-vsctl", "wait-until", table, port, condition]
        self.host = host
        # It declares no port dead here.
        self.dead_at = self.bound_at = None
        self.bound = threading.Event()
        self.start()

    def run(self):
        _, err = self.host.start(*self.command).communicate()
        if not err:
            self.bound_at = time.time()
            self.bound.set()


class Ovn(Ovs):
    """tap → br-int → patch → br-ex → up0, by OVN's flows. Both hosts have the port, until the migration is over."""

    during = "requested-chassis=h1,h3 activation-strategy=rarp"

    def connect(self):
        _outer(f"""
            ip address add {CENTRAL}/24 dev mg
            {SDN}/ovn central {CENTRAL}
            ovn-nbctl ls-add provider \
                -- lsp-add provider uplink -- lsp-set-type uplink localnet -- lsp-set-addresses uplink unknown \
                -- lsp-set-options uplink network_name=physnet1 -- set Logical_Switch_Port uplink tag=100 \
                -- lsp-add provider {PORT} -- lsp-set-addresses {PORT} '{MAC} {ADDRESS}' \
                -- lsp-set-port-security {PORT} '{MAC} {ADDRESS}' -- lsp-set-options {PORT} requested-chassis=h1
        """)

    def build(self, host):
        if host.name == "h2":
            super().build(host)
        else:
            host.sh(f"{SDN}/ovn chassis {CENTRAL} {host.name[1:]}")

    def agent(self, host, case=None, resumed=None):
        return Installed(host, "Interface", self.port, "external_ids:ovn-installed=true")

    def migrating(self):
        _outer(f"ovn-nbctl --wait=hv lsp-set-options {PORT} {self.during}")

    def migrated(self):
        _outer(f"ovn-nbctl lsp-set-options {PORT} requested-chassis=h3")


class OvnBoundAnew(Ovn):
    """The same, and the new host has the port when the migration is over."""

    during = "requested-chassis=h1"


class Neutron(Ovs):
    """tap → br-int → patch → br-ex → up0, by the flows of neutron's agent, with its openvswitch firewall."""

    def build(self, host):
        if host.name == "h2":
            super().build(host)
            return
        python = os.environ.get("NEUTRON_PYTHON", "/usr/bin/python3")
        ports = json.dumps({PORT: {"mac": MAC, "addresses": [ADDRESS, ADDRESS6], "vlan": 100}})
        host.sh(f"""
            ovs-vsctl add-br br-ex -- set Bridge br-ex datapath_type=netdev -- add-port br-ex up0
            mkdir -p /run/neutron
            echo '{ports}' >/run/neutron/ports.json
            {SDN}/neutron agent {python} openvswitch
        """)

    def agent(self, host, case=None, resumed=None):
        return Installed(host, "Port", self.port, "tag>0")


def _outer(script):
    subprocess.run(["sh", "-euc", script], check=True)
