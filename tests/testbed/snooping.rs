//! A switch that snoops IGMP and MLD, and is the querier: the bridge `sw` beyond the wire of a [`Stand`]. It has the ports `wire0`
//! (where the guest is now), `old0` (where it was) and `source0`; beyond the last two are the namespaces `old` and `source`.

use super::host::{Namespace, Place};
use super::running::{Running, eventually};
use super::stand::Stand;

pub const GROUP: &str = "239.1.2.3";
pub const GROUP6: &str = "ff05::1234";

/// Joins both groups on the device, and tells in a line each of the addresses that it is sent something for the first time.
const JOIN: &str = r#"
import select, socket, struct, sys
index = socket.if_nametoindex(sys.argv[1])
sockets = {}
for family, group in ((socket.AF_INET, sys.argv[2]), (socket.AF_INET6, sys.argv[3])):
    it = socket.socket(family, socket.SOCK_DGRAM)
    if family == socket.AF_INET6:
        it.setsockopt(socket.IPPROTO_UDP, 102, 1)  # UDP_NO_CHECK6_RX
    it.bind((group, 5000) if family == socket.AF_INET else (group, 5000, 0, index))
    address = socket.inet_pton(family, group)
    if family == socket.AF_INET:
        it.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, address + bytes(4) + struct.pack("=i", index))
    else:
        it.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, address + struct.pack("=i", index))
    sockets[it] = group
print("joined", flush=True)
heard = set()
while True:
    for it in select.select(list(sockets), [], [])[0]:
        it.recv(2048)
        if sockets[it] not in heard:
            heard.add(sockets[it])
            print("heard", sockets[it], flush=True)
"#;

/// Sends to both groups, a hundred times a second.
const SEND: &str = r#"
import socket, sys, time
index = socket.if_nametoindex(sys.argv[1])
four = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
four.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 8)
# Open vSwitch's userspace datapath does not finish a checksum that the kernel leaves to a device.
SO_NO_CHECK, UDP_NO_CHECK6_TX = 11, 101
four.setsockopt(socket.SOL_SOCKET, SO_NO_CHECK, 1)
six = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
six.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 8)
six.setsockopt(socket.IPPROTO_UDP, UDP_NO_CHECK6_TX, 1)
print("sends", flush=True)
while True:
    four.sendto(b"four", (sys.argv[2], 5000))
    six.sendto(b"six", (sys.argv[3], 5000, 0, index))
    time.sleep(0.01)
"#;

/// The switch, with a member of both groups at the old port and a sender.
pub struct Snooping {
    _member: Running,
    _sender: Running,
}

impl Snooping {
    pub fn beyond(stand: &Stand) -> Self {
        stand.host.sh("ip netns add old; ip netns add source");
        stand.host.wire().sh(
            "sysctl -qw net.ipv6.conf.all.disable_ipv6=0 net.ipv6.conf.default.disable_ipv6=0
             ip link add sw type bridge forward_delay 0 mcast_snooping 1 mcast_startup_query_count 1 \
                 mcast_startup_query_interval 6000 mcast_query_response_interval 100 \
                 mcast_igmp_version 3 mcast_mld_version 2
             sysctl -qw net.ipv6.conf.sw.accept_dad=0
             ip link set wire0 master sw
             for end in old source; do
                 ip link add ${end}0 type veth peer name eth0 netns $end
                 ip link set ${end}0 up master sw
             done
             ip link set sw up
             # A querier without an address floods all groups of IPv6. A new one floods all for as long as an answer may take: a
             # second, and not the default's ten.
             until ip -6 address show dev sw scope link -tentative | grep -q inet6; do :; done
             ip link set sw type bridge mcast_querier 1",
        );
        for (end, address) in [("old", "192.0.2.11/24"), ("source", "192.0.2.12/24")] {
            stand.host.namespace(end).sh(&format!(
                "sysctl -qw net.ipv6.conf.eth0.disable_ipv6=0 net.ipv6.conf.eth0.accept_dad=0
                 ip link set lo up; ip link set eth0 up; ip address add {address} dev eth0
                 ip route add 224.0.0.0/4 dev eth0"
            ));
        }
        let member = join(&stand.host.namespace("old"));
        eventually("the switch to know where the groups are", || {
            let known = groups_at(stand, "old0");
            (known.contains(GROUP) && known.contains(GROUP6)).then_some(())
        });
        let mut sender = stand.host.namespace("source").command("python3");
        let sender = Running::start(sender.args(["-c", SEND, "eth0", GROUP, GROUP6]));
        sender.stdout.line_with("sends");
        for group in [GROUP, GROUP6] {
            member.stdout.line_with(&format!("heard {group}"));
        }
        Self { _member: member, _sender: sender }
    }
}

/// A member of both groups. Its lines say what it hears.
pub fn join(place: &Namespace<'_>) -> Running {
    let mut command = place.command("python3");
    let member = Running::start(command.args(["-u", "-c", JOIN, "eth0", GROUP, GROUP6]));
    member.stdout.line_with("joined");
    member
}

/// The groups that the switch has at this port.
pub fn groups_at(stand: &Stand, port: &str) -> String {
    stand.host.wire().sh(&format!("bridge mdb show dev sw | grep ' port {port} ' || true"))
}
