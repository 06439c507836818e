"""The faults: which kinds there are, in which order a seed has them, and how each comes and goes."""

import collections
import contextlib
import random
import threading
import time

from .audit import Fault

# `hits` is a service of a host, or None: the next migration of a guest. `halts`: no announcement is to be expected while it lasts;
# `anew`: one may begin anew after it; `loses`: rounds do not leave the host, or much later, and are sent again; `keeps`: ovs-vswitchd carries
# nothing out, but keeps what it is told. Where ovsdb-server has been away, it waits for its lock.
Kind = collections.namedtuple("Kind", ["hits", "method", "words", "halts", "anew", "loses", "keeps"], defaults=[False, False])
# One that is drawn: how long it lasts, the seconds by which a clock jumps, and those until it begins.
Draw = collections.namedtuple("Draw", ["number", "kind", "host", "guest", "seconds", "jump", "gap"])

KINDS = {
    "kill-announced": Kind("announced", "kill", "announced is killed, and started again", True, True),
    "stop-announced": Kind("announced", "stop", "announced stands still", True, True),
    "reload": Kind("announced", "reload", "announced reads its configuration again", False, True),
    "full-disk": Kind("announced", "fill_disk", "the file system of its state is full", False, False),
    "no-descriptors": Kind("announced", "take_descriptors", "it can open nothing more", False, False),
    "full-log": Kind("announced", "fill_log", "nothing reads its log", False, False),
    "clock": Kind("announced", "shift_clock", "its wall clock jumps, and jumps back", False, False),
    "kill-libvirtd": Kind("libvirtd", "kill", "libvirtd is killed, and started again", True, True),
    "stop-libvirtd": Kind("libvirtd", "stop", "libvirtd stands still", True, True),
    "kill-ovsdb-server": Kind("ovsdb-server", "kill", "ovsdb-server is killed, and started again", True, True, True, True),
    "stop-ovsdb-server": Kind("ovsdb-server", "stop", "ovsdb-server stands still", True, True, True),
    "kill-ovs-vswitchd": Kind("ovs-vswitchd", "kill", "ovs-vswitchd is killed, and started again", True, True, True),
    "stop-ovs-vswitchd": Kind("ovs-vswitchd", "stop", "ovs-vswitchd stands still", True, True, True, True),
    "abort": Kind(None, None, "its next migration is aborted", False, False),
    "bounce": Kind(None, None, "it goes back as soon as it has come", False, False),
    "late-tag": Kind(None, None, "its next port gets its VLAN late", False, False),
}
SECONDS = (0.05, 1.5)
JUMPS = (-86400, -3600, -2, 2, 3600, 86400)


def drawn(seed, kinds, hosts, guests, every):
    """The faults of that seed, without end: in each run the same, whenever they come; `every` is the mean gap, in seconds."""
    chance, number = random.Random(f"{seed} faults"), 0
    while True:
        number += 1
        # As many draws for each kind, so that one kind more or less leaves the rest as it was.
        yield Draw(number, chance.choice(kinds), chance.choice(hosts), chance.choice(guests), chance.uniform(*SECONDS),
                   chance.choice(JUMPS), chance.uniform(0.5, 1.5) * every)


class Faults(threading.Thread):
    """Lets them come, one after the other, each for its time; after `most` it ends, if that is a number."""

    def __init__(self, draws, most, journal):
        super().__init__(daemon=True)
        self.draws, self.most, self.journal = draws, most, journal
        self.had, self.under_way, self.over = [], [], threading.Event()

    def run(self):
        for draw in self.draws:
            if (self.most is not None and draw.number > self.most) or self.over.wait(draw.gap):
                break
            kind = KINDS[draw.kind]
            where = draw.host if kind.hits else draw.guest
            fault = Fault(draw.number, draw.kind, where.name, time.time())
            self.had.append(fault)
            self.journal.note(f"fault {draw.number}: {draw.kind} on {where.name}, {draw.seconds:.2f} s: {kind.words}")
            if kind.hits:
                thread = threading.Thread(target=self._carry_out, args=[draw, fault])
                self.under_way.append(thread)
                thread.start()
            else:
                draw.guest.suffer(fault, draw.seconds)

    def _carry_out(self, draw, fault):
        kind = KINDS[draw.kind]
        service = draw.host.services[kind.hits]
        # A program that a fault has ended is told as such.
        with service.fault, contextlib.suppress(ProcessLookupError):
            fault.begin = time.time()
            getattr(service, kind.method)(draw)
        fault.end = time.time()
        self.journal.note(f"fault {draw.number} is over")

    def heal(self):
        """No more faults; returns when the last one is over."""
        self.over.set()
        self.join()
        for thread in self.under_way:
            thread.join()
