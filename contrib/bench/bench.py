"""What the benchmarks share beside the migration lab's modules: a private host (contrib/lab/host), its devices, and the daemon."""

import contextlib
import fcntl
import json
import os
import socket
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.dont_write_bytecode = True
HERE = Path(__file__).resolve().parent
LAB = HERE.parent / "lab"
sys.path.insert(0, str(LAB))  # so that the benchmarks can import migration_lab

from chaos_lab.audit import spread  # noqa: E402

TARGET = Path(os.environ.get("CARGO_TARGET_DIR", HERE.parent.parent / "target"))
ANNOUNCE = TARGET / "release/announce"
SO_TIMESTAMPNS = 35  # include/uapi/asm-generic/socket.h
# libvirt's test driver, in the host's libvirtd. It forgets its guests when its last connection is closed.
TEST_DRIVER = "test+unix:///default?socket=/run/libvirt/libvirt-sock"


def enter(*options):
    """Runs this program again, inside a host with these options, which ends with it; inside, only returns."""
    if "PRIVATE_HOST" in os.environ:
        return
    directory = tempfile.mkdtemp(prefix="announced-bench-")
    host = [LAB / "host", *options, "--remove", directory, "--"]
    again = [os.path.realpath(sys.argv[0]), *sys.argv[1:]]
    sys.exit(subprocess.call([*host, *again], env={**os.environ, "PRIVATE_HOST": directory}))


def run(command, **more):
    subprocess.run(command.split(), check=True, **more)


def uplink(number):
    """A veth pair whose far end shows what leaves the host."""
    run(f"ip link add up{number}b type veth peer name far{number}")
    run(f"ip link set up{number}b up")
    run(f"ip link set far{number} up")


class Far:
    """The far end of an uplink: when the guest's first such frame came, by the kernel's clock."""

    def __init__(self, device, mac, is_such=lambda frame: True):
        self.mac, self.is_such = bytes.fromhex(mac.replace(":", "")), is_such
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        self.socket.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        self.socket.bind((device, 0))
        self.socket.settimeout(60)

    def first(self):
        while True:
            frame, control, _, _ = self.socket.recvmsg(2048, 256)
            if frame[6:12] == self.mac and self.is_such(frame):
                stamp = next(data for _, kind, data in control if kind == SO_TIMESTAMPNS)
                seconds, nanoseconds = struct.unpack("qq", stamp)
                return seconds + nanoseconds / 1e9


def tap(name, up=True):
    """A tap that has a carrier for as long as its descriptor is open."""
    device = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(device, 0x400454CA, struct.pack("16sH22x", name.encode(), 0x1002))  # TUNSETIFF, IFF_TAP | IFF_NO_PI
    if up:
        run(f"ip link set {name} up")
    return device


def create(*domains, connect="qemu:///system"):
    """Has libvirt start these domains, of which each is given as its XML."""
    with tempfile.TemporaryDirectory() as directory:
        commands = []
        for number, xml in enumerate(domains):
            file = Path(directory, f"{number}.xml")
            file.write_text(xml)
            commands.append(f"create {file}\n")
        batch(f"virsh --quiet --connect {connect}", "".join(commands))


def batch(command, lines, check=True):
    """Runs a program that reads its commands from standard input."""
    errors = None if check else subprocess.DEVNULL
    subprocess.run(command.split(), input=lines, text=True, check=check, stdout=subprocess.DEVNULL, stderr=errors)


@contextlib.contextmanager
def announced(configuration, program=ANNOUNCE.with_name("announced"), **more):
    """The daemon, once it listens to libvirt."""
    file = Path("/run/announced.toml")
    file.write_text(configuration)
    daemon = subprocess.Popen([program, "--config", file], text=True, **more)
    while not status().get("gauges", {}).get("libvirt"):
        time.sleep(0.01)
    yield daemon
    daemon.terminate()
    daemon.wait()


def cpu(pid):
    """Seconds of CPU time, by the process's clock (clock_getcpuclockid(3))."""
    return time.clock_gettime(~pid << 3 | 2)


def row(name, seconds):
    """A line of a table | measured | runs | median ms | p99 ms | max ms |."""
    told = spread([second * 1e3 for second in seconds])
    print(f"| {name} | {told['count']} | {told['median']:.2f} | {told['p99']:.2f} | {told['max']:.2f} |", flush=True)


def status():
    """What the daemon tells of itself; nothing while it does not."""
    command = [ANNOUNCE, "status", "--json"]
    told = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout
    return json.loads(told or "{}")
