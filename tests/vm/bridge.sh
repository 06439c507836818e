#!/bin/sh
# Linux bridges, with and without VLAN filtering, and macvtap.
. ./guest.sh

learned() { # BRIDGE PORT [VLAN]
    bridge fdb show br "$1" | grep "^$mac dev $2 ${3:+vlan $3 }"
}

# Makes a bridge with VLAN filtering. All ports are in VLAN 1, as they are at first; the uplink is in VLAN 100, too.
filtering_bridge() { # BRIDGE UPLINK TAP
    bridge_of "$1" 'vlan_filtering 1' "$2" "$3"
    bridge vlan add dev "$2" vid 100
    until_true forwards "$2"
    until_true forwards "$3"
}

set_pvid() { # TAP
    bridge vlan add dev "$1" vid 100 pvid untagged
}

part 'a bridge with VLAN filtering'
uplink up0 far0
tap tap0
tap near0
filtering_bridge br0 up0 tap0
ip link set near0 master br0
for tap in tap0 near0; do
    set_pvid $tap
    bridge vlan del dev $tap vid 1
    until_true forwards $tap
done
listen far0
guest_sends tap0
until_true grep 'vlan 100.*Reverse Request' far0.frames
stop_listening

part 'a bridge with VLAN filtering, announced'
announcement_is_heard tap0 far0 100
report_says '"injector":"redirect"' '"vlan":100'
until_true learned br0 tap0 100
guest_heard 0 tap0
guest_heard 10 near0
# What the bridge itself sends would be in another VLAN.
! announce_from tap0 --inject fdb || fail 'fdb passed by the VLANs'

part 'a VLAN that the uplink does not forward'
bridge vlan set dev up0 vid 100 state blocking
listen far0
status=0
announce_from tap0 --ip $ipv4 --count 2 --wait 0 || status=$?
[ "$status" = 1 ] || fail "announce: exit status $status"
report_says '"outcome":"failed"' '"stuck":["reached tap0, did not leave br0: the port up0 of br0 is blocking in VLAN 100"]'
stop_listening
! grep -qF ' > ' far0.frames || fail 'a frame left in a VLAN that does not forward'
announce explain --dev tap0 --mac "$mac" --ip $ipv4 >tap0.explained
grep -qF 'held        arp-request, arp-reply, rarp: the port up0 of br0 is blocking in VLAN 100' tap0.explained ||
    fail "$(cat tap0.explained)"
bridge vlan set dev up0 vid 100 state forwarding
announcement_is_heard tap0 far0 100

part 'a VLAN in which the port does not forward at first'
bridge vlan set dev tap0 vid 100 state learning
later 1 tap0 bridge vlan set dev tap0 vid 100 state forwarding
announcement_is_heard tap0 far0 100
grep -qF 'the port is learning in VLAN 100' tap0.log || fail 'the state is not named'
first_frame_came_after 0
guest_heard 0 tap0

part 'spanning trees of groups of VLANs'
blocking=4 forwarding=3
uplink up7 far7
tap tap7
ip link add br7 up type bridge vlan_filtering 1 vlan_default_pvid 0
mst br7 on
for port in up7 tap7; do
    ip link set $port master br7
    bridge vlan add dev $port vid 200
done
bridge vlan add dev up7 vid 100
bridge vlan add dev tap7 vid 100 pvid untagged
mst br7 vlan 100 1
for port in up7 tap7; do
    until_true forwards $port # in the tree of all other VLANs
    mst $port 1 $forwarding
done
announcement_is_heard tap7 far7 100

part 'a tree in which the uplink does not forward'
mst up7 1 $blocking
listen far7
status=0
announce_from tap7 --ip $ipv4 --count 2 --wait 0 || status=$?
[ "$status" = 1 ] || fail "announce: exit status $status"
report_says '"outcome":"failed"' '"stuck":["reached tap7, did not leave br7: the port up7 of br7 is blocking in VLAN 100"]'
stop_listening
! grep -qF ' > ' far7.frames || fail 'a frame left in a tree that does not forward'

part 'a tree in which the uplink does not forward at first'
: >tap7.log
announce_from tap7 --ip $ipv4 --count 1 --wait 60s &
announcing=$!
until_true grep 'lost, and sent again' tap7.log
mst up7 1 $forwarding
wait $announcing || fail 'announce failed'
report=tap7.json
report_says '"outcome":"announced"' '"departure":{"device":"up7","bridge":"br7","port":"up7","vlan":100'

part 'a tree in which the port does not forward at first'
mst tap7 1 $blocking
later 1 tap7 mst tap7 1 $forwarding
announcement_is_heard tap7 far7 100
grep -qF 'the port is blocking in VLAN 100' tap7.log || fail 'the state is not named'
first_frame_came_after 0

part 'another tree, in which the port does not forward'
bridge link set dev tap7 state $blocking
announcement_is_heard tap7 far7 100

part 'a trunk, and a tree in which the uplink does not forward'
bridge link set dev tap7 state $forwarding
mst up7 1 $blocking
bridge vlan del dev tap7 vid 100
bridge vlan add dev tap7 vid 100
cat >node.xml <<XML
<node><domain type='test'><name>router</name><memory>16384</memory><os><type>hvm</type></os><devices><interface type='bridge'>
<mac address='$mac'/><source bridge='br7'/><vlan trunk='yes'><tag id='100'/><tag id='200'/></vlan><target dev='tap7'/>
</interface></devices></domain></node>
XML
listen far7
report=router.json
evidence="$evidence $report router.log"
announce --connect test:///lab/node.xml --vm router --count 2 --json --verbose >$report 2>router.log ||
    fail "announce: exit status $?"
report_says '"departure":{"device":"up7","bridge":"br7","port":"up7","vlan":200' \
    '"stuck":["rarp in VLAN 100 reached tap7, did not leave br7: the port up7 of br7 is blocking in VLAN 100"]'
until_true twice 'vlan 200, p 0, ' far7.frames
stop_listening
! grep -qF 'vlan 100' far7.frames || fail 'a frame left in a tree that does not forward'
announce explain --connect test:///lab/node.xml --vm router >router.explained
grep -qF 'held        rarp in VLAN 100: the port up7 of br7 is blocking in VLAN 100' router.explained ||
    fail "$(cat router.explained)"

# These wait most of the time, so they do it side by side.

late_pvid() {
    uplink up4 far4
    tap tap4
    filtering_bridge br4 up4 tap4
    later 2 tap4 set_pvid tap4
    announcement_is_heard tap4 far4 100 --vlan 100
    report_says '"injector":"redirect"' '"vlan":100'
    first_frame_came_after 0
    guest_heard 0 tap4
}

no_pvid() {
    uplink up5 far5
    tap tap5
    filtering_bridge br5 up5 tap5
    bridge vlan del dev tap5 vid 1
    listen far5
    status=0
    announce_from tap5 --wait 1s || status=$?
    [ "$status" = 3 ] || fail "announce: exit status $status"
    report_says '"outcome":"not-ready"' '"unmet":["tap5 has no PVID: its bridge drops untagged frames"]' \
        '"first_frame_after_ms":null'
    set_pvid tap5
    guest_sends tap5
    until_true grep 'Reverse Request' far5.frames
    stop_listening
    [ "$(grep -cF ' > ' far5.frames)" = 1 ] || fail 'a frame left before the one of the guest itself'
}

spanning_tree() {
    uplink up6 far6
    tap tap6
    bridge_of br6 'stp_state 1 forward_delay 200' up6 # two seconds of listening, and two of learning
    later 0 tap6 ip link set tap6 master br6
    announcement_is_heard tap6 far6 ''
    first_frame_came_after 4
    guest_heard 0 tap6
}

part 'a PVID that is set two seconds late'
late_pvid &
waiting=$!
part 'a port without a PVID'
no_pvid &
waiting="$waiting $!"
part 'a port that the spanning tree holds back'
spanning_tree &
waiting="$waiting $!"

part 'a plain bridge'
uplink up1 far1
tap tap1
bridge_of br1 '' up1 tap1
until_true forwards up1
for injector in redirect xdp; do
    part "a plain bridge, --inject $injector"
    announcement_is_heard tap1 far1 '' --inject $injector
    report_says "\"injector\":\"$injector\"" '"vlan":null'
    until_true learned br1 tap1
    guest_heard 0 tap1
done

part 'a plain bridge, --inject fdb'
announcement_is_heard tap1 far1 '' --inject fdb
report_says '"injector":"fdb"' '"vlan":null'
until_true learned br1 tap1
guest_heard 10 tap1 # sent by the bridge itself, the frames are flooded to all its ports

part 'a VLAN of a bond as the uplink'
uplink up2 far2
tap tap2
ip link add bond0 type bond mode active-backup
ip link set up2 down # or the bond would not take it
ip link set up2 master bond0
ip link set bond0 up
ip link add link bond0 name bond0.100 up type vlan id 100
bridge_of br2 '' bond0.100 tap2
until_true forwards bond0.100
announcement_is_heard tap2 far2 100
report_says '"injector":"redirect"' '"vlan":null' '"hops":["tap2","br2","bond0.100"'
until_true learned br2 tap2
guest_heard 0 tap2

part 'macvtap'
uplink up3 far3
ip link add mvt3 link up3 address "$mac" type macvtap mode bridge
ip link set mvt3 up
guest_opens "/dev/tap$(cat /sys/class/net/mvt3/ifindex)" mvt3
announcement_is_heard mvt3 far3 ''
report_says '"injector":"packet"'
guest_heard 0 mvt3

for job in $waiting; do
    wait "$job"
done
