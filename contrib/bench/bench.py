"""What the benchmarks share: a private host (contrib/lab/host), what is plugged into it, and the daemon."""

import contextlib
import fcntl
import json
import os
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
TARGET = Path(os.environ.get("CARGO_TARGET_DIR", HERE.parent.parent / "target"))
ANNOUNCE = TARGET / "release/announce"


def enter(*options):
    """Runs this program again, inside a host with these options, which ends with it; inside, only returns."""
    if "PRIVATE_HOST" in os.environ:
        return
    directory = subprocess.check_output(["mktemp", "-d"], text=True).strip()
    host = [HERE.parent / "lab/host", *options, "--remove", directory, "--"]
    again = [os.path.realpath(sys.argv[0]), *sys.argv[1:]]
    sys.exit(subprocess.call([*host, *again], env={**os.environ, "PRIVATE_HOST": directory}))


def run(command, **more):
    subprocess.run(command.split(), check=True, **more)


def uplink(number):
    """A veth pair whose far end shows what leaves the host."""
    run(f"ip link add up{number}b type veth peer name far{number}")
    run(f"ip link set up{number}b up")
    run(f"ip link set far{number} up")


def tap(name, up=True):
    """A tap that has a carrier for as long as its descriptor is open."""
    device = os.open("/dev/net/tun", os.O_RDWR)
    fcntl.ioctl(device, 0x400454CA, struct.pack("16sH22x", name.encode(), 0x1002))  # TUNSETIFF, IFF_TAP | IFF_NO_PI
    if up:
        run(f"ip link set {name} up")
    return device


class Ovsdb:
    """A connection of our own: ovs-vsctl takes milliseconds to start."""

    def __init__(self):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect("/run/openvswitch/db.sock")

    def set_tag(self, port, tag, counted=True):
        """Commits a tag (a list of one, or of none), counted in next_cfg or not; returns when that was sent, once it is committed."""
        row = {"tag": ["set", tag], "vlan_mode": ["set", []], "trunks": ["set", []]}
        update = {"op": "update", "table": "Port", "where": [["name", "==", port]], "row": row}
        bump = {"op": "mutate", "table": "Open_vSwitch", "where": [], "mutations": [["next_cfg", "+=", 1]]}
        request = {"method": "transact", "id": 1, "params": ["Open_vSwitch", update] + [bump] * counted}
        sent = time.time_ns()
        self.socket.sendall(json.dumps(request).encode())
        reply = b""
        while reply.count(b"{") != reply.count(b"}") or not reply:
            reply += self.socket.recv(65536)
        assert not any(result.get("error") for result in json.loads(reply)["result"]), reply
        return sent


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


def status():
    """What the daemon tells of itself; nothing while it does not."""
    command = [ANNOUNCE, "status", "--json"]
    told = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout
    return json.loads(told or "{}")
