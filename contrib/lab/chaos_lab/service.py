"""What runs on a host and may be hit by faults: announced, libvirtd, and the two daemons of Open vSwitch."""

import contextlib
import dataclasses
import fcntl
import mmap
import os
import pathlib
import re
import resource
import shlex
import signal
import struct
import subprocess
import threading
import time

from migration_lab.rack import PATIENCE, until

# The daemon's directory, on a file system so small that it can be full.
STATE, STATE_SIZE = "/run/announced", "64k"
# The least that a pipe holds, so that it can be full: fcntl(2).
F_SETPIPE_SZ, LEAST = 1031, 4096
# When it has ended by itself.
RESTART_S = 0.1


class Service:
    """A daemon that the host itself has started. `is_up` is a shell command that fails until it answers."""

    def __init__(self, host, pid_file, is_up):
        self.host, self.pid_file, self.is_up = host, pid_file, is_up
        # One fault at a time.
        self.fault = threading.Lock()
        # It is started again as it was started. libvirtd on another processor would probe QEMU anew.
        told = self._sh(r"tr '\0' '\n' </proc/$pid/cmdline; sed -n 's/^Cpus_allowed_list:\s*//p' /proc/$pid/status")
        *command, processors = told.splitlines()
        self.command = shlex.join(["taskset", "--cpu-list", processors, *command])

    def kill(self, draw):
        """Kills it, and starts it again later; returns when it answers."""
        self._sh("kill -KILL $pid; while [ -e /proc/$pid ]; do busybox usleep 5000; done")
        time.sleep(draw.seconds)
        self.host.sh(f"{self.command} </dev/null >/dev/null 2>&1")
        self._await()

    def stop(self, draw):
        """Stops it; returns when it answers again."""
        self._sh("kill -STOP $pid")
        time.sleep(draw.seconds)
        self._sh("kill -CONT $pid")
        self._await()

    def _await(self):
        self.host.sh(f"timeout {PATIENCE} sh -c {shlex.quote(f'until {self.is_up}; do busybox usleep 20000; done')} >/dev/null 2>&1")

    def _sh(self, script):
        return self.host.sh(f"pid=$(cat {self.pid_file}); {script}")


def services(host):
    """Those of libvirt and Open vSwitch, by name."""
    return {
        "libvirtd": Service(host, "/run/libvirtd.pid", "timeout 5 virsh -r list"),
        "ovsdb-server": Service(host, "/run/openvswitch/ovsdb-server.pid", "timeout 5 ovs-vsctl --no-wait list-br"),
        "ovs-vswitchd": Service(host, "/run/openvswitch/ovs-vswitchd.pid", "timeout 5 ovs-appctl ofproto/list | grep br-int"),
    }


def private_kb(pid):
    """The memory that a process has written to: no part of a file, which other instances share or do not."""
    return int(re.search(r"^Private_Dirty:\s+(\d+)", pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text(), re.M)[1])


@dataclasses.dataclass
class Instance:
    """One process of announced: what it had in its first second, and at the last look."""

    pid: int
    started: float
    is_killed: bool = False
    seconds: float = 0.0
    begin: dict | None = None
    end: dict | None = None

    def measure(self):
        """Looks at its private memory, descriptors and threads, if it lives."""
        with contextlib.suppress(OSError, TypeError):
            threads = int(re.search(r"^Threads:\s+(\d+)", pathlib.Path(f"/proc/{self.pid}/status").read_text(), re.M)[1])
            self.end = {"private_kb": private_kb(self.pid), "descriptors": self.descriptors(), "threads": threads}
            self.begin, self.seconds = self.begin or self.end, time.time() - self.started

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))


class Announced:
    """announced on one host, started again whenever it ends; `shim` is clock.c as a library."""

    def __init__(self, host, program, shim, log, journal):
        self.host, self.program, self.shim, self.journal = host, program, shim, journal
        self.log = open(log, "w", buffering=1)
        self.clock = host.directory / "clock"
        self.clock.write_bytes(bytes(8))
        self.fault, self.over = threading.Lock(), False
        self.is_read = threading.Event()
        self.is_read.set()
        self.instances = []
        host.sh(f"mkdir -p {STATE}; mount -t tmpfs -o size={STATE_SIZE} state {STATE}")
        self._start()

    @property
    def instance(self):
        return self.instances[-1]

    def _start(self):
        clock = ["env", f"LD_PRELOAD={self.shim}", f"CLOCK_OFFSET={self.clock}"]
        process = self.host.start(*clock, self.program, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        fcntl.fcntl(process.stderr, F_SETPIPE_SZ, LEAST)
        # nsenter has to fork to enter a PID namespace.
        children = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children")
        pid = int(until(children.read_text, f"announced on {self.host.name} does not start"))
        self.parent = process.pid
        self.instances.append(Instance(pid, time.time()))
        threading.Thread(target=self._read, args=[process, self.instance], daemon=True).start()

    def _read(self, process, instance):
        """Keeps its log, and starts it again if it has ended by itself."""
        last = ""
        for last in process.stderr:
            self.log.write(last)
            self.is_read.wait()
        status = process.wait()
        if not self.over and not instance.is_killed:
            self.journal.complain(f"announced on {self.host.name} ended by itself, exit status {status}: {last.strip()}")
            time.sleep(RESTART_S)
            self._start()

    def kill(self, draw):
        """Kills it, and starts it again later."""
        self.instance.measure()
        self.instance.is_killed = True
        os.kill(self.instance.pid, signal.SIGKILL)
        while os.path.exists(f"/proc/{self.instance.pid}"):
            time.sleep(0.005)
        time.sleep(draw.seconds)
        self._start()

    def stop(self, draw):
        os.kill(self.instance.pid, signal.SIGSTOP)
        time.sleep(draw.seconds)
        # nsenter stops with its child.
        for pid in (self.instance.pid, self.parent):
            os.kill(pid, signal.SIGCONT)

    def reload(self, draw):
        os.kill(self.instance.pid, signal.SIGHUP)

    def fill_disk(self, draw):
        self.host.sh(f"head -c 1M /dev/zero >{STATE}/fill 2>/dev/null || true")
        time.sleep(draw.seconds)
        self.host.sh(f"rm -f {STATE}/fill")

    def take_descriptors(self, draw):
        pid, limit = self.instance.pid, resource.RLIMIT_NOFILE
        soft, hard = resource.prlimit(pid, limit)
        resource.prlimit(pid, limit, (self.instance.descriptors(), hard))
        time.sleep(draw.seconds)
        resource.prlimit(pid, limit, (soft, hard))

    def fill_log(self, draw):
        self.is_read.clear()
        time.sleep(draw.seconds)
        self.is_read.set()

    def shift_clock(self, draw):
        with open(self.clock, "r+b") as file, mmap.mmap(file.fileno(), 8) as shared:
            shared[:] = struct.pack("=q", draw.jump)
            time.sleep(draw.seconds)
            shared[:] = bytes(8)

    def end(self):
        """It is to end by itself now."""
        self.instance.measure()
        self.over = True
        os.kill(self.instance.pid, signal.SIGTERM)
