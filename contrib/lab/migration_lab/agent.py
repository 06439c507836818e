"""The stand-in for neutron's agent on one host: it binds the guest's port, in time or late."""

import threading
import time

from .ovsdb import Ovsdb

# So that nothing passes: the tag alone would not do (LP#1930414).
DEAD = {"tag": 4095, "vlan_mode": "trunk", "trunks": 4095}


class Agent(threading.Thread):
    """Binds `port` to `tag`; `resumed` is an event with the attribute `at`, for agents that are late by a fixed time since then."""

    def __init__(self, host, port, tag, case=None, resumed=None):
        super().__init__(daemon=True)
        self.ovsdb = Ovsdb(host.path("/run/openvswitch/db.sock"))
        self.port, self.tag, self.resumed = port, tag, resumed
        self.late = case.late if case else 0
        self.since = case.since if case else "port"
        # When the port was declared dead (None: never), and when it was bound.
        self.dead_at = self.bound_at = None
        self.bound = threading.Event()
        self.start()

    def run(self):
        if self.late:
            self.dead_at = self.ovsdb.set_port(self.port, **DEAD).known
            due = self.late + (self._resumed_at() if self.since == "resumed" else self.dead_at)
            time.sleep(max(0, due - time.time()))
        self.bound_at = self.ovsdb.bind(self.port, self.tag).known
        self.bound.set()

    def _resumed_at(self):
        self.resumed.wait()
        return self.resumed.at
