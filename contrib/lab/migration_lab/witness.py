"""The observations: tcpdump at VM1's port and on the far end of host 3's uplink, the switch's log, and the probes' logs."""

import json
import pathlib
import struct
import subprocess

from .guest import ADDRESS, MAC, device

UPLINK = "p3"
# PACKET_OUTGOING of packet(7).
OUTGOING = 4
IPV4, RARP = 0x0800, 0x8035
# The type of ICMPv6, RFC 4443 section 4.2.
ECHO_REPLY = 129
# The kinds of frames that tell of groups, and those that the switch notices.
REPORTS = ("igmp", "mld")
NOTICED = ("rarp", "arp-request", "arp-reply")
# The types of MLD's reports: RFC 2710, RFC 3810.
MLD_REPORTS = (131, 143)


class Uplink:
    """What VM1 says of itself on host 3's uplink: ARP, RARP, IGMP, and IPv6 but for echoes. `start` starts a program at `device`."""

    def __init__(self, file, device=UPLINK, start=None):
        self.file = file
        # Without the word vlan: the kernel strips tags before filters look.
        kinds = f"(arp or rarp or igmp or ip6) and not (ip6[6] = 58 and ip6[40] = {ECHO_REPLY})"
        command = tcpdump(file, "-i", device, "-Q", "in", "ether", "src", MAC, "and", kinds)
        start = start or (lambda *command: subprocess.Popen(command, stderr=subprocess.PIPE, text=True))
        self.tcpdump = listening(start(*command))

    def frames(self, end):
        """The frames until then: when, in which VLAN (None: untagged), of what kind."""
        return [(at, *dissect(frame)) for at, frame in packets(self.file) if at < end]


class Port:
    """The RARPs that come out of VM1's tap on host 3, wherever they end, and the pings there."""

    def __init__(self, host, file):
        self.host, self.file = host, file
        # On all devices: the tap does not exist yet.
        self.tcpdump = listening(host.start(*tcpdump(file, "-i", "any", "-y", "LINUX_SLL2", "rarp or icmp")))

    def frames(self, end):
        """The RARPs until then: when, and of what kind."""
        return [(at, "rarp") for at, ethertype, by_guest in self._packets(end) if by_guest and ethertype == RARP]

    def is_mute(self, end):
        """Whether VM1 was pinged there, and answered none of the pings until then."""
        by_guest = [by_guest for _, ethertype, by_guest in self._packets(end) if ethertype == IPV4]
        return bool(by_guest) and not any(by_guest)

    def _packets(self, end):
        """Those at the tap until then: when, the ethertype, and whether it came from the guest."""
        tap = int(self.host.sh(f"cat /sys/class/net/{device('tap')}/ifindex"))
        for at, packet in packets(self.file):
            ethertype, ifindex, packet_type = struct.unpack_from(">H2xI2xB", packet)
            if ifindex == tap and at < end:
                yield at, ethertype, packet_type != OUTGOING


def tcpdump(file, *arguments):
    """The command that writes each packet to the file when it sees it."""
    # -Z root: or it would lose, with its privileges, the signal that ends it with its parent.
    return ["tcpdump", "-n", "-w", file, "-U", "--immediate-mode", "-Z", "root", *arguments]


def listening(process):
    """Returns it when it listens."""
    for line in process.stderr:
        if "listening on" in line:
            return process
    raise RuntimeError("tcpdump does not listen")


def packets(file):
    """Each packet of a capture file that may still grow: seconds since the epoch, and the bytes."""
    with open(file, "rb") as opened:
        yield from stream(opened)


def stream(opened):
    """The same of what is read from a file, or from tcpdump, until it ends."""
    magic, = struct.unpack_from("<I", opened.read(24))
    # pcap-savefile(5): little-endian, with microseconds or, by --time-stamp-precision=nano, with nanoseconds.
    fraction = {0xA1B2C3D4: 1e6, 0xA1B23C4D: 1e9}[magic]
    while len(header := opened.read(16)) == 16:
        seconds, part, length = struct.unpack_from("<III", header)
        if len(packet := opened.read(length)) < length:
            return
        yield seconds + part / fraction, packet


def dissect(frame):
    """The frame's VLAN and its kind; a kind of its own, "other", is what is neither announcement nor question."""
    vlan, offset = None, 12
    if frame[12:14] == b"\x81\x00":
        vlan, offset = struct.unpack_from(">H", frame, 14)[0] & 0xFFF, 16
    ethertype, = struct.unpack_from(">H", frame, offset)
    payload = frame[offset + 2:]
    if ethertype == RARP:
        return vlan, "rarp"
    if ethertype == 0x0806 and payload[14:18] == payload[24:28]: # an announcement names the sender as the target
        return vlan, "arp-request" if payload[7] == 1 else "arp-reply"
    if ethertype == 0x86DD and payload[6] == 58 and payload[40] == 136:
        return vlan, "na"
    if ethertype == 0x0806 and payload[7] == 1:
        return vlan, "ask"
    if ethertype == 0x86DD and payload[6] == 58 and payload[40] in (133, 135):
        return vlan, "solicit"
    if ethertype == IPV4 and payload[9] == 2:
        return vlan, "igmp"
    # Behind the options for each hop.
    if ethertype == 0x86DD and payload[6] == 0 and payload[40] == 58 and payload[48] in MLD_REPORTS:
        return vlan, "mld"
    return vlan, "other"


def switch_log(file, called, end):
    """What the switch has noticed about VM1 until `end`: when its FDB and its ARP entry came to host 3's port, what
    moved the entry, the kinds of the announcements that came from there, when each group was first reported there, and when
    the switch first queried its hosts after `called`."""
    seen = {"fdb_at": None, "arp_at": None, "arp_by": None, "announcements": [], "groups_at": {}, "queried_at": None}
    for line in pathlib.Path(file).read_text().splitlines():
        event = json.loads(line)
        if event["event"] == "group-joined" and event["port"] == UPLINK and event["at"] < end:
            seen["groups_at"].setdefault(event["group"], event["at"])
        if event["event"] == "queried" and called <= event["at"] < end and seen["queried_at"] is None:
            seen["queried_at"] = event["at"]
        if event.get("mac") != MAC or event["at"] >= end:
            continue
        if event["event"] == "announcement" and event["port"] == UPLINK:
            seen["announcements"].append(event["kind"])
        elif event["event"] == "fdb-moved" and event["to"] == UPLINK and seen["fdb_at"] is None:
            seen["fdb_at"] = event["at"]
        elif event["event"] == "arp-moved" and event["to"] == UPLINK and event["address"] == ADDRESS:
            if seen["arp_at"] is None:
                seen["arp_at"], seen["arp_by"] = event["at"], event["cause"]
    return seen


def probes(file, end):
    """The pings of one tenant until `end`: seconds since the epoch when each was sent and when it was answered, or None."""
    lines = pathlib.Path(file).read_text().splitlines()
    parsed = [json.loads(line) for line in lines]
    return sorted((probe["sent"], probe["answered"]) for probe in parsed if probe["sent"] < end)
