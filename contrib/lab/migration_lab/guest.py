"""VM1: a real QEMU guest, with Debian's kernel and nothing but busybox, that answers ping."""

import pathlib
import shutil
import subprocess

from . import domain

MAC = "fa:16:3e:00:00:11"
PORT = "6f7d3c1a-1111-4222-8333-444455556666"
ADDRESS, GATEWAY, NEIGHBOUR = "1.1.1.1", "1.1.1.254", "1.1.1.2"
SUBNET = "1.1.1.0/24"
# Where the network has IPv6, too.
ADDRESS6, GATEWAY6, NEIGHBOUR6 = "2001:db8:1::1", "2001:db8:1::fe", "2001:db8:1::2"
# Of which it is a member, where the case wants that.
GROUP, GROUP6 = "239.1.2.3", "ff05::1234"
NEIGHBOUR_MAC, GATEWAY_MAC = "fa:16:3e:00:00:22", "00:00:5e:00:53:fe"
MEMORY_MIB = 128
# A busy guest writes to so much of it, again and again.
DIRTY_MIB = 40
# The userspace datapath of Open vSwitch hands on what has no checksum yet.
OFFLOADS = " ".join(f"{what}='off'" for what in ("csum", "tso4", "tso6", "ecn", "ufo"))
DRIVER = f"<driver name='qemu'><host gso='off' {OFFLOADS}/><guest {OFFLOADS}/></driver>"


def device(prefix):
    """The name of one of the port's devices, as neutron makes it."""
    return f"{prefix}{PORT[:11]}"


# Neighbours are permanent: an ARP request by the guest would heal what is to be seen here, by luck. IPv6 is off for the
# same reason; where it is on, busybox cannot make a neighbour permanent, but the guest believes for an hour what it has heard.
# There it pings once, when it boots, so that the network knows of it. A switch that snoops is no gateway of IPv6.
INIT = """#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t devtmpfs dev /dev # the shell gives /dev/null to what runs in the background
for module in $(/bin/busybox cat /modules); do /bin/busybox insmod /$module; done
ipv6=/proc/sys/net/ipv6
if [ -e $ipv6/conf/eth0 ]; then
    echo 0 >$ipv6/conf/eth0/accept_dad
    echo 0 >$ipv6/conf/eth0/router_solicitations
    echo 3600000 >$ipv6/neigh/eth0/base_reachable_time_ms
fi
/bin/busybox ip link set eth0 up
/bin/busybox ip address add {ADDRESS}/24 dev eth0
/bin/busybox ip route add default via {GATEWAY}
/bin/busybox arp -s {GATEWAY} {GATEWAY_MAC}
/bin/busybox arp -s {NEIGHBOUR} {NEIGHBOUR_MAC}
if [ -e $ipv6/conf/eth0 ]; then
    /bin/busybox ip address add {ADDRESS6}/64 dev eth0
    /bin/busybox ip -6 route add default via {GATEWAY6}
    if /bin/busybox grep -qw multicast /proc/cmdline; then
        until /bin/busybox ping -c 1 -W 1 -6 {NEIGHBOUR6}; do :; done
        /bin/member {GROUP} {GROUP6} &
    else
        for ask in "{GATEWAY}" "-6 {GATEWAY6}" "-6 {NEIGHBOUR6}"; do
            until /bin/busybox ping -c 1 -W 1 $ask; do :; done
        done
    fi
fi
if /bin/busybox grep -qw busy /proc/cmdline; then
    /bin/busybox mkdir /memory
    /bin/busybox mount -t tmpfs memory /memory
    while :; do /bin/busybox dd if=/dev/zero of=/memory/dirty bs=1M count={DIRTY_MIB} conv=notrunc 2>/dev/null; done &
fi
while :; do /bin/busybox nc -ll -p 7 -e /bin/busybox cat; /bin/busybox sleep 1; done
"""

# Of the kernel's command line. Reports that the guest sends without being asked are over within 1 s, whatever the version.
MULTICAST = ["multicast", "sysctl.net.ipv4.icmp_echo_ignore_broadcasts=0"]
OLDER = [f"sysctl.net.{option}" for option in (
    "ipv4.conf.default.force_igmp_version=2", "ipv4.conf.default.igmpv2_unsolicited_report_interval=1000",
    "ipv6.conf.default.force_mld_version=1", "ipv6.conf.default.mldv1_unsolicited_report_interval=1000",
)]


def build(lab, directory, programs=()):
    """Makes the guest's `kernel` and `initramfs`, with these programs, in that directory."""
    unpacked = directory / "unpacked"
    _output(lab / "vm", "--kernel", unpacked)
    version = next((unpacked / "lib/modules").iterdir()).name

    root = directory / "root"
    for name in ("bin", "dev", "proc"):
        (root / name).mkdir(parents=True)
    busybox = root / "bin/busybox"
    busybox.write_bytes(pathlib.Path(_output("which", "busybox").strip()).read_bytes())
    for program in programs:
        _copy(program, root)
    init = root / "init"
    init.write_text(INIT.format(**globals()))
    needed = _output("modprobe", "-d", unpacked, "-S", version, "-a", "--show-depends", "virtio_net", "virtio_pci")
    modules = dict.fromkeys(line.split()[1] for line in needed.splitlines() if line.startswith("insmod "))
    for module in map(pathlib.Path, modules):
        (root / module.name).write_bytes(module.read_bytes())
    (root / "modules").write_text("\n".join(pathlib.Path(module).name for module in modules))
    for program in (busybox, init):
        program.chmod(0o755)
    # Not compressed: under emulation, unpacking takes longer than copying.
    archive = f"cd {root} && find . | busybox cpio -o -H newc -R 0:0 2>/dev/null"
    (directory / "initramfs").write_bytes(subprocess.run(["sh", "-c", archive], check=True, stdout=-1).stdout)
    (unpacked / "vmlinuz").rename(directory / "kernel")


def _copy(program, root):
    """Copies a program of ours into its `bin`, and the libraries that it needs to where it looks for them."""
    shutil.copy(program, root / "bin")
    for word in _output("ldd", program).split():
        if word.startswith("/"):
            library = root / word[1:]
            library.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(word, library)


def _output(*command):
    return subprocess.run(list(map(str, command)), check=True, text=True, stdout=subprocess.PIPE).stdout


def xml(attachment, case, files):
    """VM1 as nova describes it; `files` is where `build` has left kernel and initramfs."""
    ipv6 = attachment.ipv6 or bool(case.multicast)
    words = ["quiet", *["ipv6.disable=1"] * (not ipv6), "no_timer_check", *["busy"] * case.busy]
    words += MULTICAST * bool(case.multicast) + OLDER * (case.multicast == "older")
    boot = f"""
        <kernel>{files}/kernel</kernel><initrd>{files}/initramfs</initrd>
        <cmdline>{" ".join(words)}</cmdline>"""
    silent = "" if case.guest_announce else """
      <qemu:override><qemu:device alias='ua-net0'><qemu:frontend>
        <qemu:property name='guest_announce' type='bool' value='false'/>
      </qemu:frontend></qemu:device></qemu:override>"""
    nic = domain.nic(MAC, device("tap"), attachment.source, alias="ua-net0", driver=DRIVER)
    metadata = domain.nova(PORT, ADDRESS, *[ADDRESS6] * ipv6)
    return domain.xml("vm1", nic, memory_mib=MEMORY_MIB, metadata=metadata, boot=boot, more=silent)
