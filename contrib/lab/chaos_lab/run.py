"""One run, inside the lab's outer host."""

import pathlib
import subprocess
import threading
import time

from migration_lab import rack

from . import life, service, summary
from .audit import Audit
from .faults import KINDS, Faults, drawn
from .journal import Journal
from .life import Lives
from .wanderer import Wanderer
from .wire import Wire

HOSTS = (1, 2, 3)
ROUNDS = 4
# Rounds that even a slow Open vSwitch in user space carries out one by one.
CONFIGURATION = f"""
[schedule]
count = {ROUNDS}
interval = "100ms"
[libvirt]
events = ["migrated", "restored", "plugged", "moved", "link-up", "uplink", "started"]
"""
# Frames that are on their way when all is over.
LINGER_S = 1
LOOK_S = 0.1


def run(order):
    """Has the lab built, lets everything happen, and returns the exit status."""
    work = pathlib.Path(order.work)
    output = pathlib.Path(order.output or work / "output")
    output.mkdir(exist_ok=True)
    journal = Journal(output / "journal.txt", order.quiet)
    journal.note(f"seed {order.seed}")
    # A thread that fails leaves the run without what it was for.
    threading.excepthook = lambda failed: journal.complain(f"the lab itself failed: {failed.exc_value}")
    site = rack.Site(work, pathlib.Path(order.programs), work, work / "libvirt-cache")
    hosts = build(site, order.peers, output, journal)
    lives = Lives(journal)
    wire = Wire(hosts, output)
    guests = [Wanderer(number, hosts, lives, wire, journal, order.seed) for number in range(1, order.guests + 1)]
    wire.watch(guests)
    draws = drawn(order.seed, order.kinds, hosts, guests, order.every)
    faults = Faults(draws, order.faults, journal)
    for guest in guests:
        guest.start()
    for guest in guests:
        lives.await_current(guest.name, rack.PATIENCE)
    faults.start()
    await_end(order, lives, faults, hosts)
    faults.heal()
    for guest in guests:
        guest.over.set()
    wire.look_again()
    for guest in guests:
        guest.settle()
    time.sleep(LINGER_S)
    for host in hosts:
        host.announced.end()
    audit = Audit(lives.stays, wire.end(), faults.had, KINDS, ROUNDS, order.peers, time.time())
    return summary.tell(order, audit, faults, hosts, guests, journal, output)


def build(site, peers, output, journal):
    """The hosts with all their services and announced on each, and the network between them."""
    hosts = rack.hosts(HOSTS, site, ovs=True)
    for host in hosts:
        host.uplink = f"p{host.name[1:]}"
    rack.bridge("net", [host.uplink for host in hosts])
    if peers:
        rack.introduce(hosts, site.directory)
    shim = site.directory / "clock.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-o", shim, pathlib.Path(__file__).with_name("clock.c")], check=True)
    for host in hosts:
        host.configure(CONFIGURATION)
        host.sh(f"""
            mkdir {life.DIRECTORY}
            ovs-vsctl add-br br-int -- set Bridge br-int datapath_type=netdev -- add-port br-int up0
        """)
        host.announced = service.Announced(host, site.programs / "announced", shim, output / f"announced-{host.name}.log", journal)
        host.services = {"announced": host.announced, **service.services(host)}
    return hosts


def await_end(order, lives, faults, hosts):
    """Returns when one of the ends is reached that were asked for."""
    end = time.time() + (order.seconds or float("inf"))
    measured = 0
    while time.time() < end:
        if order.arrivals and len(lives.stays) >= order.arrivals:
            return
        if order.faults and not faults.is_alive():
            return
        if time.time() > measured + 1:
            measured = time.time()
            for host in hosts:
                host.announced.instance.measure()
        time.sleep(LOOK_S)
