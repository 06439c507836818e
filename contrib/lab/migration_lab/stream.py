"""A TCP stream between a tenant and VM1: a line each 10 ms, which VM1 sends back.

Run in the tenant's namespace: `python3 stream.py ADDRESS`. It says `ready` when the first line is back, ends with its standard input,
and prints what the sender's kernel has counted, and the longest time without a line from VM1.
"""

import ctypes
import fcntl
import json
import select
import socket
import struct
import sys
import time

PORT = 7
EVERY_S = 0.01
# struct tcp_info of linux/tcp.h: tcpi_total_retrans, and tcpi_total_rto since Linux 6.7.
TOTAL_RETRANS, TOTAL_RTO = 100, 240
# linux/sockios.h and linux/ethtool.h.
SIOCETHTOOL, ETHTOOL_STXCSUM = 0x8946, 0x17


def main(address):
    with_checksums("eth0")
    stream = socket.create_connection((address, PORT), timeout=60)
    stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    stream.sendall(b"first\n")
    stream.recv(64)
    print("ready", flush=True)
    before, last, longest = counters(stream), time.monotonic(), (0.0, 0.0)
    stream.setblocking(False)
    due = time.monotonic()
    while True:
        ready, _, _ = select.select([stream, sys.stdin], [], [], max(0, due - time.monotonic()))
        now = time.monotonic()
        if sys.stdin in ready:
            break
        if stream in ready and stream.recv(65536):
            longest = max(longest, (now - last, time.time()))
            last = now
        if now >= due:
            due += EVERY_S
            try:
                stream.send(b"a line\n")
            except BlockingIOError:
                pass # its buffer is full
    after = counters(stream)
    gap, at = max(longest, (time.monotonic() - last, time.time()))
    print(json.dumps({
        "longest_gap_ms": round(gap * 1000, 1),
        "gap_ended_at": at,
        **{name: None if after[name] is None else after[name] - before[name] for name in after},
    }))


def with_checksums(device):
    """The kernel computes them: the userspace datapath of Open vSwitch hands on what has none yet."""
    value = ctypes.create_string_buffer(struct.pack("=II", ETHTOOL_STXCSUM, 0))
    request = struct.pack("16sP8x", device.encode(), ctypes.addressof(value))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SIOCETHTOOL, request)


def counters(stream):
    """What the kernel has counted of this connection; None where it does not."""
    info = stream.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 512)

    def number(form, at):
        return struct.unpack_from(form, info, at)[0] if len(info) >= at + struct.calcsize(form) else None

    return {"retransmissions": number("=I", TOTAL_RETRANS), "timeouts": number("=H", TOTAL_RTO)}


if __name__ == "__main__":
    main(sys.argv[1])
