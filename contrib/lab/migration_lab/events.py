"""What libvirt says about the guest's life on a host."""

import datetime
import threading


class Moment(threading.Event):
    """Something that will happen; `at` is when it did, in seconds since the epoch."""

    at = None

    def happened(self, at):
        self.at = at
        self.set()


class Events(threading.Thread):
    """The lifecycle events of `vm1`, by `virsh event`, which stamps them with milliseconds as they arrive."""

    def __init__(self, host):
        super().__init__(daemon=True)
        self.suspended, self.resumed = Moment(), Moment()
        command = ["stdbuf", "-oL", "virsh", "event", "--event", "lifecycle", "--loop", "--timestamp"]
        self.virsh = host.start(*command)
        self.start()

    def run(self):
        for line in self.virsh.stdout:
            if ": event 'lifecycle' for domain 'vm1': " not in line:
                continue
            stamp, _, event = line.strip().partition(": event 'lifecycle' for domain 'vm1': ")
            at = datetime.datetime.strptime(stamp, "%Y-%m-%d %H:%M:%S.%f%z").timestamp()
            # In post-copy the guest runs from "Resumed Post-copy" on; "Resumed Migrated" comes later.
            # Before it was stopped, it was booted; at the source of a migration that has failed, it is unpaused.
            runs_on = event != "Resumed Unpaused" or self.suspended.is_set()
            if event.startswith("Resumed") and runs_on and not self.resumed.is_set():
                self.resumed.happened(at)
            elif event.startswith("Suspended") and not self.suspended.is_set():
                self.suspended.happened(at)
