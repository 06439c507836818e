"""Where each guest runs, by the word of its QEMU, which no fault touches."""

import contextlib
import dataclasses
import json
import socket
import threading
import time

# In every host, for the guests' QEMUs.
DIRECTORY = "/run/chaos"


@dataclasses.dataclass
class Stay:
    """A guest on a host, from the moment when it begins to run there. All times are seconds since the epoch."""

    guest: str
    host: str
    # Each from a start of the guest to its stop, None while it runs.
    runs: list
    # When its QEMU was gone.
    ended: float | None = None
    # What its port got: when that was sent to OVSDB and when the commit was known, and the VLAN, None for none.
    bindings: list = dataclasses.field(default_factory=list)

    @property
    def began(self):
        return self.runs[0][0]

    @property
    def stopped(self):
        """When it ran there for the last time; None while it does."""
        return self.runs[-1][1]


class Lives:
    """All stays of all guests, in order; safe for threads."""

    def __init__(self, journal):
        self.journal = journal
        self.stays, self.changed = [], threading.Condition()
        # Bindings of ports whose guests do not run there yet, by guest and host.
        self.early = {}

    def bound(self, guest, host, binding):
        """The guest's port on that host has got that."""
        with self.changed:
            stay = self._open(guest, host)
            (stay.bindings if stay else self.early.setdefault((guest, host), [])).append(binding)

    def expects(self, guest, host):
        """A new port of that guest is about to appear on that host."""
        with self.changed:
            self.early.pop((guest, host), None)

    def runs(self, guest, host, at):
        with self.changed:
            if stay := self._open(guest, host):
                if stay.stopped is not None:
                    stay.runs.append([at, None])
            else:
                self.stays.append(Stay(guest, host, [[at, None]], bindings=self.early.pop((guest, host), [])))
                self.journal.note(f"{guest} runs on {host}", at)
            self.changed.notify_all()

    def stops(self, guest, host, at):
        with self.changed:
            stay = self._open(guest, host)
            if stay and stay.stopped is None:
                stay.runs[-1][1] = at
            self.changed.notify_all()

    def ends(self, guest, host, at):
        with self.changed:
            if stay := self._open(guest, host):
                stay.ended = at
                if stay.stopped is None:
                    stay.runs[-1][1] = at
            self.changed.notify_all()

    def current(self, guest):
        """The stay in which it runs, if any."""
        with self.changed:
            return next((stay for stay in reversed(self.stays) if stay.guest == guest and stay.stopped is None), None)

    def await_current(self, guest, patience):
        """The same, waited for."""
        with self.changed:
            self.changed.wait_for(lambda: self.current(guest), patience)
            return self.current(guest)

    def _open(self, guest, host):
        return next((stay for stay in reversed(self.stays)
                     if (stay.guest, stay.host) == (guest, host) and stay.ended is None), None)


class Qemu(threading.Thread):
    """The QEMU of a guest on a host, by a monitor of its own (QMP), from its start to its end."""

    def __init__(self, guest, host, lives):
        super().__init__(daemon=True)
        self.guest, self.host, self.lives = guest, host, lives
        self.path = host.path(monitor(guest))
        self.given_up = threading.Event()
        self.start()

    def run(self):
        with socket.socket(socket.AF_UNIX) as monitor:
            while monitor.connect_ex(self.path):
                if self.given_up.wait(0.005):
                    return
            with contextlib.suppress(OSError):
                self._listen(monitor)
        self.lives.ends(self.guest, self.host.name, time.time())

    def _listen(self, monitor):
        for command in ("qmp_capabilities", "query-status"):
            # Where QEMU has gone, that is an error and not SIGPIPE, which ends the lab's programs.
            monitor.sendall(json.dumps({"execute": command}).encode() + b"\n", socket.MSG_NOSIGNAL)
        for line in monitor.makefile():
            message = json.loads(line)
            if event := message.get("event"):
                at = message["timestamp"]["seconds"] + message["timestamp"]["microseconds"] / 1e6
                tell = {"RESUME": self.lives.runs, "STOP": self.lives.stops}.get(event)
                if tell:
                    tell(self.guest, self.host.name, at)
            elif message.get("return", {}).get("running"):
                self.lives.runs(self.guest, self.host.name, time.time())


def monitor(guest):
    """The socket of that guest's QEMU in its host."""
    return f"{DIRECTORY}/{guest}"
