#!/bin/sh
# What is said of each hop, where frames leave through a bond of the kernel, and through the kernel's datapath of Open vSwitch.
. ./guest.sh

all='"arp-request","arp-reply","na","rarp","solicit"'

# Begins to write what the part's guest sends and passes DEVICE, that way, into DEVICE.seen.
look() { # WAY DEVICE...
    way=$1
    shift
    for device; do
        evidence="$evidence $device.seen"
        tcpdump -i "$device" -Q "$way" -nnettl --immediate-mode ether src "$mac" >"$device.seen" 2>"$device.looks" &
        lookers="${lookers-} $!"
        until_true grep 'listening on' "$device.looks"
    done
}

# Traces one round. Its exit status must be that.
trace_from() { # STATUS DEVICE [OPTION...]
    expected=$1 status=0
    shift
    report=$1.json
    evidence="$evidence $report $1.log"
    announce trace --dev "$@" --mac "$mac" --ip $ipv4 --ip $ipv6 --json >"$report" 2>"$1.log" || status=$?
    [ "$status" = "$expected" ] || fail "trace: exit status $status"
    for looker in ${lookers-}; do
        end_capture "$looker"
    done
    lookers=
}

# Frames of these kinds passed there in VLAN, says the report, and so says tcpdump.
passed() { # DEVICE VLAN KINDS
    vlan=${2:-null}
    grep -q "\"hop\":\"$1\",\"after_ms\":[0-9.]*,\"vlan\":$vlan,\"frames\":\[$3\],\"unseen\":false" "$report" ||
        fail "the report has no $3 in VLAN $vlan on $1"
    for words in "arp-request=Request who-has $ipv4" "arp-reply=Reply $ipv4" 'na=neighbor advertisement' 'rarp=Reverse Request' 'solicit=neighbor solicitation'; do
        count=0
        case $3 in *"\"${words%%=*}\""*) count=1 ;; esac
        [ "$(grep -cF "${words#*=}" "$1.seen")" = $count ] || fail "tcpdump did not see $count ${words%%=*} on $1"
    done
    ! grep -F ' > ' "$1.seen" | grep -qv "${2:+vlan $2, p 0, }" || fail "tcpdump saw another VLAN on $1"
    [ "$2" ] || ! grep -qF 802.1Q "$1.seen" || fail "tcpdump saw a tag on $1"
}

nothing_passed() { # DEVICE
    report_says "\"hop\":\"$1\",\"after_ms\":null,\"vlan\":null,\"frames\":[],\"unseen\":false"
    ! grep -qF ' > ' "$1.seen" || fail "tcpdump saw frames on $1"
}

# Makes a bond of devices that are down, as it takes them.
bond_of() { # BOND MEMBER...
    ip link add "$1" type bond mode active-backup miimon 20
    bond=$1
    shift
    for member; do
        ip link set "$member" master "$bond"
    done
    ip link set "$bond" up
}

is_active() { # MEMBER [BOND]
    [ "$(cat "/sys/class/net/${2:-bond0}/bonding/active_slave")" = "$1" ]
}

part 'a bond, of which both members are up'
for member in up0 up1; do
    uplink $member far$member
    ip link set $member down
done
tap tap0
bond_of bond0 up0 up1
ip link add link bond0 name bond0.100 up type vlan id 100
bridge_of br0 '' bond0.100 tap0
until_true forwards bond0.100
until_true is_active up0
look in tap0 br0
look out bond0.100 bond0 up0 up1
trace_from 0 tap0
passed tap0 '' "$all"
passed br0 '' "$all"
passed bond0.100 '' "$all"
passed bond0 100 "$all"
passed up0 100 "$all"
nothing_passed up1
report_says '"departure":{"device":"up0","bridge":"br0","port":"bond0.100","vlan":100,"edge":"uplink","vni":null}' '"stuck":[]' '"last_hop":"up0"'

part 'a bond, of which the active member goes down'
ip link set up0 down
until_true is_active up1
look out bond0 up1
trace_from 0 tap0
passed bond0 100 "$all"
passed up1 100 "$all"
report_says '"departure":{"device":"up1","bridge":"br0","port":"bond0.100","vlan":100,"edge":"uplink","vni":null}' '"stuck":[]'
announcement_is_heard tap0 farup1 100
report_says '"departure":{"device":"up1"' '"frames_left":{"rarp":2,"arp_request":2,"arp_reply":2,"na":2,'

part 'a bond, of which both members are down'
ip link set up1 down
until_true grep -x down /sys/class/net/bond0/operstate
look in tap0 br0
trace_from 1 tap0
passed tap0 '' "$all"
passed br0 '' "$all"
report_says '"departure":null' '"stuck":["did not leave br0: up0 is down; up1 is down"]'
status=0
announce_from tap0 --ip $ipv4 --count 2 --wait 0 || status=$?
[ $status = 1 ] || fail "announce: exit status $status"
report_says '"outcome":"failed"' '"rounds":0' \
    '"error":"no frame left the host: did not leave br0: up0 is down; up1 is down"'

part 'a VLAN within a VLAN'
uplink up4 far4
tap tap4
ip link add link up4 name up4.100 up type vlan proto 802.1ad id 100
ip link add link up4.100 name up4.100.5 up type vlan id 5
bridge_of br4 '' up4.100.5 tap4
until_true forwards up4.100.5
look in tap4 br4
look out up4.100.5 up4.100 up4
trace_from 0 tap4
passed up4.100.5 '' "$all"
passed up4.100 5 "$all"
passed up4 100 "$all"
report_says '"departure":{"device":"up4","bridge":"br4","port":"up4.100.5","vlan":100,"edge":"uplink","vni":null}' '"stuck":[]'

part 'a VLAN device that is down, above an uplink that is up'
ip link set up4.100 down
look in tap4 br4
trace_from 1 tap4
passed br4 '' "$all"
report_says '"departure":null' '"stuck":["did not leave br4: up4.100 is down"]'

part 'a bond of VLANs'
for member in up6 up7; do
    uplink $member far$member
    ip link add link $member name $member.30 type vlan id 30
done
bond_of bond1 up6.30 up7.30
tap tap6
bridge_of br6 '' bond1 tap6
until_true forwards bond1
until_true is_active up6.30 bond1
look in br6
look out bond1 up6.30 up6 up7
trace_from 0 tap6
passed br6 '' "$all"
passed bond1 '' "$all"
passed up6.30 '' "$all"
passed up6 30 "$all"
nothing_passed up7
report_says '"departure":{"device":"up6","bridge":"br6","port":"bond1","vlan":30,"edge":"uplink","vni":null}' '"stuck":[]'

part 'a bond of VLANs, of which none is up'
ip link set up6.30 down
ip link set up7.30 down
until_true grep -x down /sys/class/net/bond1/operstate
look out up6 up7
trace_from 1 tap6
nothing_passed up6
nothing_passed up7
report_says '"departure":null' '"stuck":["did not leave br6: up6.30 is down; up7.30 is down"]'

part 'a bridge for the filters of a guest, one for its VLAN, and a bond' # as on Proxmox
for member in up8 up9; do
    uplink $member far$member
    ip link set $member down
done
bond_of bond2 up8 up9
ip link add link bond2 name bond2.100 up type vlan id 100
tap tap8
ip link add fwln100i0 up type veth peer name fwpr100p0
ip link set fwpr100p0 up
bridge_of fwbr100i0 '' tap8 fwln100i0
bridge_of vmbr0v100 '' fwpr100p0 bond2.100
until_true forwards bond2.100
until_true is_active up8 bond2
look in fwbr100i0 vmbr0v100
look out bond2.100 bond2 up8 up9
trace_from 0 tap8
passed fwbr100i0 '' "$all"
passed vmbr0v100 '' "$all"
passed bond2.100 '' "$all"
passed bond2 100 "$all"
passed up8 100 "$all"
nothing_passed up9
report_says '"departure":{"device":"up8","bridge":"vmbr0v100","port":"bond2.100","vlan":100,"edge":"uplink","vni":null}' '"stuck":[]'

part 'a setting of the bridge for the VLAN keeps the frames from the bond'
bridge link set dev fwpr100p0 isolated on
bridge link set dev bond2.100 isolated on
look in vmbr0v100
look out up8
trace_from 1 tap8
passed vmbr0v100 '' "$all"
nothing_passed up8
report_says '"departure":null' '"stuck":["did not leave vmbr0v100: the port bond2.100 of vmbr0v100 is isolated, and so is the one that the frame comes from"]'

part 'MACsec, behind which no frame can be recognized'
uplink up3 far3
tap tap10
ip link add link up3 ms3 type macsec encrypt on
ip macsec add ms3 tx sa 0 pn 1 on key 01 12345678901234567890123456789012
ip link set ms3 up
bridge_of br3 '' tap10 ms3
until_true forwards ms3
tcpdump -i far3 -Q in -nnel --immediate-mode ether src "$mac" and ether proto 0x88e5 >far3.seen 2>far3.looks &
outer=$!
until_true grep 'listening on' far3.looks
announce_from tap10 --ip $ipv4 --count 2 --wait 0 || fail "announce: exit status $?"
end_capture $outer
report_says '"outcome":"announced"' '"lost_rounds":0' '"departure":null' '"unseen":"ms3 is a tunnel, and its outgoing frames are not captured'
[ "$(grep -c 'ethertype MACSEC\|0x88e5' far3.seen)" = 6 ] || fail "$(cat far3.seen)"

part 'a setting that keeps frames from MACsec'
bridge link set dev tap10 isolated on
bridge link set dev ms3 isolated on
status=0
announce_from tap10 --ip $ipv4 --count 2 --wait 0 || status=$?
[ $status = 1 ] || fail "announce: exit status $status"
report_says '"outcome":"failed"' '"stuck":["did not leave br3: the port ms3 of br3 is isolated, and so is the one that the frame comes from"]'

part 'the datapath of the kernel'
start_open_vswitch
uplink up2 far2
tap tap2
ovs-vsctl add-br br-int -- add-port br-int up2 -- add-port br-int tap2 tag=100
look out up2
trace_from 0 tap2
passed up2 100 "$all"
report_says '"departure":{"device":"up2","bridge":"br-int","port":"up2","vlan":100,"edge":"uplink","vni":null}' '"learned_on":"tap2"'
announcement_is_heard tap2 far2 100
report_says '"departure":{"device":"up2"' '"frames_left":{"rarp":2,"arp_request":2,"arp_reply":2,"na":2,' '"stuck":[]'

part 'the datapath of the kernel, and a flow that drops RARP'
ovs-ofctl add-flow br-int priority=100,rarp,in_port=tap2,actions=drop
look out up2
trace_from 0 tap2
passed up2 100 '"arp-request","arp-reply","na","solicit"'
report_says '"not_left":[]' '"stuck":["rarp did not leave br-int: br-int table 0: priority=100,rarp,in_port=tap2 actions=drop"]'

part 'the datapath of the kernel, with a VLAN device as its port'
ip link add link up4 name up4.40 up type vlan id 40
tap tap9
ovs-vsctl add-br br-vl -- add-port br-vl up4.40 -- add-port br-vl tap9
look out up4.40 up4
trace_from 0 tap9
passed up4.40 '' "$all"
passed up4 40 "$all"
report_says '"departure":{"device":"up4","bridge":"br-vl","port":"up4.40","vlan":40,"edge":"uplink","vni":null}' '"stuck":[]'

part 'the datapath of the kernel, and that VLAN device is down'
ip link set up4.40 down
look out up4
trace_from 1 tap9
nothing_passed up4
report_says '"departure":null' '"stuck":["did not leave br-vl: up4.40 is down"]'

part 'a tunnel of the datapath of the kernel'
uplink up5 far5
ip address add 198.51.100.1/24 dev up5
ip neighbour add 198.51.100.2 lladdr 52:54:00:bb:00:02 dev up5 nud permanent
tap tap5
ovs-vsctl add-br br-tun -- add-port br-tun tap5 \
    -- add-port br-tun vxlan-1 -- set interface vxlan-1 type=vxlan options:remote_ip=198.51.100.2 options:key=7
until_true ip link show vxlan_sys_4789
look out vxlan_sys_4789
tcpdump -i far5 -nl --immediate-mode udp port 4789 >far5.seen 2>far5.looks &
outer=$!
until_true grep 'listening on' far5.looks
trace_from 0 tap5 --config /dev/null
report_says '"hop":"vxlan_sys_4789","after_ms":' '"frames":["arp-request","arp-reply","na","rarp"'
end_capture $outer
[ "$(grep -c 'VXLAN.*vni 7' far5.seen)" = 5 ] || fail "$(cat far5.seen)"
report_says '"departure":null' '"unseen":"vxlan_sys_4789 is a tunnel, and its outgoing frames are not captured'

# Writes the encapsulated frames that reach far5, until `heard_in_tunnel`.
look_into_tunnel() { # UDP PORT
    evidence="$evidence far5.seen"
    tcpdump -i far5 -Q in -nl --immediate-mode udp port "$1" >far5.seen 2>far5.looks &
    outer=$!
    until_true grep 'listening on' far5.looks
}

heard_in_tunnel() { # COUNT
    end_capture $outer
    [ "$(grep -c 'vni 0x7\|vni 7' far5.seen)" = "$1" ] || fail "not $1 encapsulated frames"
}

for tunnel in vxlan:4789 geneve:6081; do
    kind=${tunnel%:*}
    part "a $kind tunnel of the datapath of the kernel, whose frames are seen on the NIC below"
    ovs-vsctl set interface vxlan-1 type=$kind
    leads_over_up5() {
        announce explain --dev tap5 --mac "$mac" | grep 'tap5 -> br-tun -> vxlan-1 .*-> up5$'
    }
    until_true leads_over_up5
    departure='"departure":{"device":"up5","bridge":"br-tun","port":"vxlan-1","vlan":null,"edge":"tunnel","vni":7}'
    look_into_tunnel ${tunnel#*:}
    trace_from 0 tap5
    report_says "$departure" '"stuck":[]' '"unseen":null'
    heard_in_tunnel 5

    part "a $kind tunnel of the datapath of the kernel, and a flow that drops what would enter it"
    ovs-ofctl add-flow br-tun priority=100,in_port=tap5,actions=drop
    look_into_tunnel ${tunnel#*:}
    status=0
    announce_from tap5 --ip $ipv4 --count 2 --wait 0 || status=$?
    [ $status = 1 ] || fail "announce: exit status $status"
    report_says '"outcome":"failed"' '"rounds":0' '"departure":null' \
        '"error":"no frame left the host: did not leave br-tun: br-tun table 0: priority=100,in_port=tap5 actions=drop"'
    heard_in_tunnel 0

    part "a $kind tunnel of the datapath of the kernel, when that flow goes"
    look_into_tunnel ${tunnel#*:}
    : >tap5.log
    announce_from tap5 --ip $ipv4 --count 1 --wait 60s &
    announcing=$!
    until_true grep 'lost, and sent again' tap5.log
    ovs-ofctl del-flows br-tun in_port=tap5
    report=tap5.json
    wait $announcing || fail 'announce failed'
    # The flow may go in the middle of a round.
    report_says '"outcome":"announced"' '"rounds":1' "$departure"
    end_capture $outer
    grep -q 'vni 0x7\|vni 7' far5.seen || fail 'no encapsulated frame'
done

part 'the datapath of the kernel, behind a hybrid plug, and its tag is the dead VLAN'
tap tap3
ip link add qvb3 up type veth peer name qvo3
ip link set qvo3 up
bridge_of qbr3 '' qvb3 tap3
until_true forwards qvb3
ovs-vsctl add-port br-int qvo3 tag=4095 vlan_mode=trunk trunks=4095 -- set port qvo3 other_config:net_uuid=1
look in tap3 qbr3 qvo3
look out qvb3 up2
trace_from 1 tap3
passed tap3 '' "$all"
passed qbr3 '' "$all"
passed qvb3 '' "$all"
passed qvo3 '' "$all"
nothing_passed up2
report_says '"stuck":["reached qvo3, did not leave br-int: the port qvo3 has tag 4095' \
    '"departure":null'
