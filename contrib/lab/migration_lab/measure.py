"""One measured migration of VM1 from host 1 to host 3."""

import collections
import dataclasses
import json
import os
import pathlib
import signal
import statistics
import subprocess
import threading
import time

from . import witness
from .events import Events
from .evpn import KINDS, Fabric
from .rack import ATTACHMENTS, LAB, PATIENCE, Rack

# Pings before the migration, for the picture.
BEFORE_S = 0.5
# For how long QEMU may stop the guest: as nova begins ([libvirt] live_migration_downtime, divided by its steps). QEMU's own
# default is 300, and it makes use of that: it stops the guest as soon as it expects to send the rest in this time.
DOWNTIME_MS = 50
# An answer that takes longer has waited for something.
SLOW_S = 0.05


def measure(case, site):
    """Builds everything, migrates, watches, and returns the record."""
    lab = _Lab(_rack(case, site))
    lab.prepare()
    moments = lab.migrate()
    lab.watch()
    return record(case, moments, lab.end(), lab.rack.vlan)


def shell(case, site):
    """Builds everything, and gives the user a shell between the hosts until that ends."""
    lab = _Lab(_rack(case, site))
    lab.prepare()
    directory = site.directory
    print(f"""VM1 runs on h1, and VM2 and VM3 reach it. From here, between the hosts:
{lab.rack.hints}
  on h1 virsh list                      a command on a hypervisor
  on h1 virsh migrate --live --p2p vm1 qemu+tcp://10.77.0.3/system""", flush=True)
    functions = directory / "functions"
    functions.write_text(f"""
        on() {{ local host=$1; shift; {LAB}/enter {directory}/"$host" "$@"; }}
        l3switch() {{ {site.programs}/examples/l3switch "$@" --control {directory}/switch.sock; }}
        LAB={directory} PS1='lab$ '
    """)
    return subprocess.call(["bash", "--rcfile", functions, "-i"])


def _rack(case, site):
    """The hosts with what is between them: the switch model, or a fabric."""
    if case.attachment in KINDS:
        return Fabric(case, site, KINDS[case.attachment])
    return Rack(case, site, ATTACHMENTS[case.attachment])


class _Lab:
    """The people in the rack: the agents, the announcers, the witnesses."""

    def __init__(self, rack):
        self.rack, self.case, self.directory = rack, rack.case, rack.directory
        self.logs = {name: self.directory / f"{name}.log" for name in rack.probes}

    def prepare(self):
        """VM1 runs on host 1, and both tenants reach it; host 3 expects it."""
        rack = self.rack
        self.left, self.arrived = Events(rack.source), Events(rack.destination)
        at_home = rack.attachment.agent(rack.source)
        rack.boot()
        if self.case.cure in ("announced", "no-questions", "handover"):
            rack.start_daemon()
        at_home.bound.wait(PATIENCE)
        for name in self.logs:
            if not rack.is_answered(name):
                raise RuntimeError(f"VM1 does not answer {name}, before anything happens")
        if self.case.multicast:
            rack.await_groups()
        self.uplink = rack.uplink(self.directory / "p3.pcap")
        self.port = witness.Port(rack.destination, self.directory / "tap.pcap")
        self.agent = rack.attachment.agent(rack.destination, self.case, self.arrived.resumed)
        rack.attachment.expect(rack.destination)

    def migrate(self):
        """Returns the moments of the call and of its return."""
        self.probes = [self.rack.probe(name, log) for name, log in self.logs.items()]
        self.streams = {name: self.rack.stream(name) for name in self.logs if self.case.stream}
        time.sleep(BEFORE_S)
        options = ["--postcopy", "--bandwidth", "30"] if self.case.mode == "post-copy" else []
        self.rack.source.sh(f"virsh --quiet migrate-setmaxdowntime vm1 {DOWNTIME_MS}")
        if self.case.switch_over:
            Hold(self.left.suspended, self.case, self.rack.source).start()
        self.rack.attachment.migrating()
        self.rack.mark()
        self.called = called = time.time()
        virsh = self.rack.source.start(
            "virsh", "migrate", "--live", "--p2p", *options, "vm1", "qemu+tcp://10.77.0.3/system"
        )
        if options:
            # In the first pass: when that is over, an idle guest has migrated.
            self.rack.source.sh("""
                while job=$(virsh domjobinfo vm1) && ! echo "$job" | grep -q 'Memory processed: *[0-9.]* MiB'; do :; done
                virsh --quiet migrate-postcopy vm1
            """)
        out, err = virsh.communicate()
        if bool(virsh.returncode) != bool(self.case.fails):
            raise RuntimeError(f"the migration {'did not fail' if self.case.fails else 'failed'}: {out}{err}")
        returned = time.time()
        self.rack.attachment.migrated()
        return {"called": called, "returned": returned}

    def watch(self):
        """Returns when the window is over."""
        if self.case.cure == "nova":
            self._announce_as_nova()
        if self.case.fails:
            if not self.left.resumed.wait(PATIENCE):
                raise RuntimeError("the guest does not run on at host 1")
            begin = self.left.resumed.at
        elif not self.arrived.resumed.wait(PATIENCE) or not self.agent.bound.wait(PATIENCE):
            raise RuntimeError("the guest or its tag did not come to host 3")
        else:
            begin = max(self.arrived.resumed.at, self.agent.bound_at)
        for name in self.case.until_back:
            self.rack.is_answered(name)
            begin = time.time()
        self.window_end = begin + self.case.window
        time.sleep(max(0, self.window_end - time.time()))

    def _announce_as_nova(self):
        """[workarounds] enable_qemu_monitor_announce_self, with its default count and interval."""
        for attempt in range(3):
            time.sleep(1 if attempt else 0)
            self.rack.destination.sh("virsh qemu-monitor-command vm1 --hmp announce_self")

    def end(self):
        """Ends probes and captures; returns what was seen."""
        streams = {name: json.loads(stream.communicate()[0]) for name, stream in self.streams.items()}
        for probe in self.probes:
            _, err = probe.communicate() # it ends with its standard input, and waits for the last answers
            if probe.returncode:
                raise RuntimeError(err)
        frames, switch = self._heard()
        return {
            "suspended": self.left.suspended.at,
            "resumed": (self.left if self.case.fails else self.arrived).resumed.at,
            "streams": streams,
            "dead_tag": self.agent.dead_at,
            "tag": self.agent.bound_at,
            "port": [] if self.case.fails else self.port.frames(self.window_end),
            "mute": None if self.case.fails else self.port.is_mute(self.window_end),
            "frames": frames,
            "switch": switch,
            "probes": {name: witness.probes(log, self.window_end) for name, log in self.logs.items()},
        }

    def _heard(self):
        """The frames of the uplink, and what the switch made of them, when both have seen the same, or do not come to."""
        patience = time.monotonic() + 20
        while True:
            frames = self.uplink.frames(self.window_end)
            switch = self.rack.noticed(self.called, self.window_end)
            announcements = sorted(kind for _, vlan, kind in frames if vlan == self.rack.vlan and kind in witness.NOTICED)
            heard = switch["announcements"]
            if heard is None or announcements == sorted(heard) or time.monotonic() > patience:
                return frames, switch
            time.sleep(0.05)


def record(case, moments, seen, of_vlan):
    """All of a run, in milliseconds since the guest ran on host 3."""
    zero = seen["resumed"]

    def ms(at):
        return None if at is None else round((at - zero) * 1000, 1)

    in_vlan = [(at, kind) for at, vlan, kind in seen["frames"] if vlan == of_vlan]
    vlan = [(at, kind) for at, kind in in_vlan if kind not in witness.REPORTS]
    reports = [(at, kind) for at, kind in in_vlan if kind in witness.REPORTS] if case.multicast else []
    # It runs on where its port has long had its tag.
    begin = zero if case.fails else max(zero, seen["tag"])
    first_frame = min((at for at, _ in vlan), default=None)
    heard = seen["switch"]["announcements"]
    return {
        "case": dataclasses.asdict(case),
        "resumed_at": zero,
        # Of the whole machine: what else it had to do.
        "load": os.getloadavg()[0],
        # Under TCG, a guest may not go on after a migration: it is given pings and answers none.
        "guest_is_mute": seen["mute"],
        "streams": seen["streams"],
        "moments_ms": {
            "migrate_called": ms(moments["called"]),
            "suspended": ms(seen["suspended"]),
            "resumed": 0.0,
            "migrate_returned": ms(moments["returned"]),
            "dead_tag": ms(seen["dead_tag"]),
            "tag": ms(seen["tag"]),
            "first_frame": ms(first_frame),
            "first_frame_after": None if first_frame is None else round((first_frame - begin) * 1000, 1),
            "first_frame_after_stop": after_stop(seen["suspended"], vlan),
            "switch_fdb_moved": ms(seen["switch"]["fdb_at"]),
            "switch_arp_withdrawn": ms(seen["switch"].get("withdrawn_at")),
            "switch_arp_moved": ms(seen["switch"]["arp_at"]),
            # By group: when it was first reported on host 3's port. And when the switch asked its hosts for their groups.
            "switch_groups_moved": {group: ms(at) for group, at in seen["switch"].get("groups_at", {}).items()},
            "switch_queried": ms(seen["switch"].get("queried_at")),
        },
        "switch_arp_moved_by": seen["switch"]["arp_by"],
        "probes": {name: outage(probes, begin, moments["called"], ms) for name, probes in seen["probes"].items()},
        "frames": dict(collections.Counter(kind for _, kind in vlan)),
        "frames_astray": sum(vlan != of_vlan for _, vlan, _ in seen["frames"]),
        # None: it is a fabric, which does not say.
        "frames_seen_by_the_switch": heard if heard is None else dict(collections.Counter(heard)),
        # Of each leaf, if it is a fabric: how many it has sent since the migration was called.
        "bgp_updates": seen["switch"].get("updates"),
        "timeline": {
            "port": [[ms(at), kind] for at, kind in seen["port"]],
            "frames": [[ms(at), kind] for at, kind in vlan],
            "reports": [[ms(at), kind] for at, kind in reports],
            **{name: [[ms(since), ms(to), well] for since, to, well in spells(probes)]
               for name, probes in seen["probes"].items()},
        },
    }


def after_stop(suspended, frames):
    """How long after the guest stopped the first frame came that was not sent before; `None`: none, or it did not say."""
    at = min((at for at, _ in frames if suspended is not None and at >= suspended), default=None)
    return None if at is None else round((at - suspended) * 1000, 1)


class Hold(threading.Thread):
    """Holds the destination's QEMU from the guest's stop on, for as long as the case says; then it goes on, unless the migration fails."""

    def __init__(self, stopped, case, source):
        super().__init__(daemon=True)
        self.stopped, self.case, self.source = stopped, case, source

    def run(self):
        self.stopped.wait()
        process = incoming()
        os.kill(process, signal.SIGSTOP)
        time.sleep(max(0, self.stopped.at + self.case.switch_over / 1000 - time.time()))
        if self.case.fails == "cancelled":
            self.source.sh("virsh --quiet domjobabort vm1")
        os.kill(process, signal.SIGKILL if self.case.fails == "killed" else signal.SIGCONT)


def incoming():
    """The process of the QEMU that VM1 comes to: it runs in this process's PID namespace, or in one within."""
    for process in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            arguments = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue # it has ended
        if b"-incoming" in arguments and b"guest=vm1" in b" ".join(arguments):
            return int(process.name)
    raise RuntimeError("no QEMU waits for VM1")


def spells(probes):
    """The pings as spells: from the first one's sending to the next spell's, and whether they were answered."""
    result = []
    for sent, answered in probes:
        if not result or result[-1][2] != (answered is not None):
            result.append([sent, sent, answered is not None])
        if len(result) > 1:
            result[-2][1] = result[-1][0]
        result[-1][1] = sent
    return result


def outage(probes, begin, called, ms):
    """The longest spell without an answer since the migration was called; `None`: it did not end.

    `rtt_ms` is the median before the migration. `last_lost_ms` is when the last ping of that spell was sent,
    `first_answered_ms` when the first one after it, `first_reply_ms` when its answer came; `asked_after_ms` and
    `back_after_ms` are the latter two counted from `begin`, when the guest ran and its port had its tag. The first answer takes
    some 15 ms, all of it in the guest, whose code TCG has to translate anew in the new QEMU: after one ping that was written
    to its tap beforehand, and took 18 ms, the tenants' first one was answered in 1 ms.

    `lost_until_ms` is when the last ping of all was sent that was never answered, `slow_until_ms` the last one that was not
    answered within 50 ms; `None`: none since `begin`.
    """
    lost = [spell for spell in spells(probes) if not spell[2] and spell[1] >= called]
    since, to, _ = max(lost, key=lambda spell: spell[1] - spell[0], default=(begin, begin, False))
    last_lost = max((sent for sent, answered in probes if answered is None and since <= sent <= to), default=None)
    answers = [(sent, answered) for sent, answered in probes if answered is not None and sent >= to]
    asked, first = answers[0] if answers else (None, None)
    slow = [sent for sent, answered in probes if sent >= begin and (answered is None or answered - sent > SLOW_S)]
    missed = [sent for sent, answered in probes if sent >= begin and answered is None]
    calm = [answered - sent for sent, answered in probes if answered is not None and sent < called]
    return {
        "rtt_ms": round(statistics.median(calm) * 1000, 1) if calm else None,
        "outage_ms": None if first is None else round((to - since) * 1000, 1),
        "lost": sum(answered is None for sent, answered in probes if sent >= called),
        "last_lost_ms": ms(last_lost),
        "lost_until_ms": ms(max(missed, default=None)),
        "slow_until_ms": ms(max(slow, default=None)),
        "first_answered_ms": ms(asked),
        "first_reply_ms": ms(first),
        "asked_after_ms": None if first is None else round((asked - begin) * 1000, 1),
        "back_after_ms": None if first is None else round((first - begin) * 1000, 1),
    }
