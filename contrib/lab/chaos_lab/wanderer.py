"""A guest that goes from host to host, and what stands for neutron's agent there."""

import contextlib
import random
import subprocess
import threading
import time

from migration_lab import domain
from migration_lab.agent import DEAD
from migration_lab.ovsdb import NOTHING, Ovsdb

from .audit import DEADLINE_S
from .life import Qemu, monitor
from .service import STATE

# A migration that takes longer is given up.
MIGRATION_S = 60
# And a guest that has run nowhere for so long is lost.
LOST_S = 20
# For so long a guest waits to be announced: longer than the audit allows.
ANNOUNCED_S = DEADLINE_S + 30
# In this part of its stays it does not wait.
HURRIES = 0.2
# And in this one the change of its port is not counted in next_cfg.
UNCOUNTED = 0.5
RETRY_S = 0.2


class Binder(threading.Thread):
    """Gives a guest's next port on a host its VLAN, after so many seconds in the dead one, and each later one, as neutron's agent does:
    libvirt may remove the port of a migration that has failed when the next one has begun."""

    def __init__(self, guest, host, seconds, counted):
        super().__init__(daemon=True)
        self.guest, self.host, self.seconds, self.counted = guest, host, seconds, counted
        self.given_up, self.ovsdb = threading.Event(), None
        self.start()

    def run(self):
        if self.seconds:
            self._until_done(lambda ovsdb: self._set(ovsdb, None, DEAD))
            self.given_up.wait(self.seconds)
        vlan = self.guest.vlan(self.host)
        while not self.given_up.is_set():
            self._until_done(lambda ovsdb: self._set(ovsdb, vlan, {"tag": vlan, "vlan_mode": NOTHING, "trunks": NOTHING}))
            self._until_done(lambda ovsdb: ovsdb.await_loss(self.guest.tap, vlan))

    def _set(self, ovsdb, vlan, columns):
        commit = ovsdb.set_port(self.guest.tap, self.counted, **columns)
        self.guest.lives.bound(self.guest.name, self.host.name, (*commit, vlan))

    def _until_done(self, request):
        while not self.given_up.is_set():
            # ovsdb-server may be away, or go away.
            with contextlib.suppress(OSError, RuntimeError):
                self.ovsdb = Ovsdb(self.host.path("/run/openvswitch/db.sock"))
                return request(self.ovsdb)
            self.given_up.wait(RETRY_S)

    def give_up(self):
        self.given_up.set()
        if self.ovsdb:
            with contextlib.suppress(OSError):
                self.ovsdb.close()


class Wanderer(threading.Thread):
    """One guest, from its creation to the end of the run; it stands for nova, too."""

    def __init__(self, number, hosts, lives, wire, journal, seed):
        super().__init__(daemon=True)
        self.number, self.name, self.mac = number, f"g{number}", f"fa:16:3e:00:00:{number:02x}"
        # As neutron calls them.
        self.port = f"00000000-{number:02x}00-4000-8000-000000000000"
        self.tap = f"tap{self.port[:11]}"
        self.hosts, self.lives, self.wire, self.journal = hosts, lives, wire, journal
        self.chance = random.Random(f"{seed} guest {number}")
        # What its next migration has to suffer: the fault and its seconds, by kind; and what the one under way has suffered.
        self.wishes, self.suffered = {}, []
        self.over, self.binders, self.qemus = threading.Event(), {}, {}
        self.lost = self.failed = 0

    def vlan(self, host):
        """Its VLAN there: another one on each host, as neutron's may be."""
        return 100 * (self.hosts.index(host) + 1) + self.number

    def xml(self):
        nic = domain.nic(self.mac, self.tap, domain.openvswitch("br-int", self.port))
        metadata = domain.nova(self.port, f"192.0.2.{self.number}", f"2001:db8::{self.number:x}")
        # What is on the wire is announced's alone. The monitor is the audit's, beside libvirt's.
        arguments = ("-global", "migration.announce-rounds=0", "-qmp", f"unix:{monitor(self.name)},server=on,wait=off")
        words = "".join(f"<qemu:arg value='{argument}'/>" for argument in arguments)
        return domain.xml(self.name, nic, metadata=metadata, more=f"<qemu:commandline>{words}</qemu:commandline>")

    def suffer(self, fault, seconds):
        """That fault is for its next migration."""
        self.wishes[fault.kind] = (fault, seconds)
        fault.end = fault.begin

    def _take(self, kind):
        """The seconds of such a fault, if there is one, which is under way from now on."""
        fault, seconds = self.wishes.pop(kind, (None, None))
        if fault:
            fault.begin, fault.end = time.time(), None
            self.suffered.append(fault)
        return seconds

    def run(self):
        self._create(self.hosts[self.number % len(self.hosts)])
        before = None
        while not self.over.is_set():
            stay = self.lives.await_current(self.name, LOST_S)
            if not stay:
                self._rescue()
                continue
            here = next(host for host in self.hosts if host.name == stay.host)
            there = self.chance.choice([host for host in self.hosts if host is not here])
            if before not in (None, here) and self._take("bounce") is not None:
                there = before
            elif self.chance.random() < HURRIES:
                self.over.wait(self.chance.uniform(0, 0.5))
            else:
                self._await_announcement(here, stay, self.over)
                self.over.wait(self.chance.uniform(0, 1))
            if not self.over.is_set():
                self._migrate(here, there)
                before = here

    def settle(self):
        """Returns when it goes no further, and is announced where it is, or has waited for that for long enough."""
        self.join()
        if stay := self.lives.await_current(self.name, LOST_S):
            self._await_announcement(next(host for host in self.hosts if host.name == stay.host), stay)

    def _await_announcement(self, host, stay, over=None):
        """Returns when it is announced there, or has waited for that for long enough."""
        if not self.wire.await_frame(stay, ANNOUNCED_S, over):
            state = host.sh(f"virsh -r domstate --reason {self.name} 2>&1 || true")
            roster = host.sh(f"cat {STATE}/roster.json 2>&1 || true")
            self.journal.note(f"{self.name} waits on {host.name}, for libvirt it is {state}; {roster}")

    def _create(self, host):
        file = host.directory / f"{self.name}.xml"
        file.write_text(self.xml())
        self._expect(host)
        if complaint := self._virsh(host, "create", file):
            self._come_to_nothing(f"{self.name} is not created on {host.name}: {complaint}")

    def _expect(self, host):
        """A QEMU and a port of this guest are about to appear there."""
        if host.name in self.binders:
            self.binders[host.name].give_up()
            self.qemus[host.name].given_up.set()
        self.lives.expects(self.name, host.name)
        # Also one whose libvirtd is killed while it starts may run.
        self.qemus[host.name] = Qemu(self.name, host, self.lives)
        self.binders[host.name] = Binder(self, host, self._take("late-tag") or 0, self.chance.random() >= UNCOUNTED)

    def _migrate(self, source, destination):
        """A live migration, which may fail."""
        self._expect(destination)
        abort = self._take("abort")
        if abort is not None:
            threading.Timer(abort / 2, self._virsh, [source, "domjobabort", self.name]).start()
        there = f"qemu+tcp://{destination.address}/system"
        if complaint := self._virsh(source, "migrate", "--live", "--p2p", self.name, there):
            self.failed += 1
            self._come_to_nothing(f"{self.name} is not migrated to {destination.name}: {complaint}")
        for fault in self.suffered:
            fault.end = time.time()
        self.suffered = []

    def _come_to_nothing(self, words):
        self.journal.note(words)
        self.over.wait(RETRY_S)

    def _rescue(self):
        """No fault of announced's: libvirtd, killed in the wrong moment, leaves the guest stopped on both hosts, or on none."""
        self.lost += 1
        self.journal.note(f"{self.name} runs nowhere: it is made anew")
        for host in self.hosts:
            self._virsh(host, "destroy", self.name)
            host.sh(f"pid=$(cat /run/libvirt/qemu/{self.name}.pid 2>/dev/null) && kill -KILL $pid || true")
        self._create(self.chance.choice(self.hosts))

    def _virsh(self, host, *command):
        """Its complaint; empty if it has none."""
        virsh = host.start("timeout", MIGRATION_S, "virsh", "--quiet", *command, stdin=subprocess.DEVNULL, stderr=subprocess.STDOUT)
        out, _ = virsh.communicate()
        return virsh.returncode and (out.strip() or f"exit status {virsh.returncode}")
