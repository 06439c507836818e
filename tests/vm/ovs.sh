#!/bin/sh
# Open vSwitch with the kernel's datapath.
. ./guest.sh

learned() { # VLAN
    ovs-appctl fdb/show br-int | grep " $1  $mac "
}

part 'Open vSwitch'
start_open_vswitch
uplink up0 far0
tap tap0
tap near0
ovs-vsctl add-br br-int -- add-port br-int up0 -- add-port br-int tap0 tag=100 -- add-port br-int near0 tag=100
ovs-appctl dpif/show | grep -q '^system@' || fail "not the kernel's datapath"
listen far0
guest_sends tap0
until_true grep 'vlan 100.*Reverse Request' far0.frames
stop_listening

part 'Open vSwitch, announced'
announcement_is_heard tap0 far0 100
report_says '"injector":"packet-out"' '"vlan":100'
until_true learned 100
guest_heard 0 tap0
guest_heard 10 near0

for injector in redirect xdp; do
    part "Open vSwitch, --inject $injector"
    announcement_is_heard tap0 far0 100 --inject "$injector"
    report_says "\"injector\":\"$injector\"" '"vlan":100'
    until_true learned 100
    guest_heard 0 tap0
done

part 'a hybrid plug whose tag is set a second late'
tap tap1
ip link add qvb1 up type veth peer name qvo1
ip link set qvo1 up
bridge_of qbr1 '' qvb1 tap1
ovs-vsctl add-port br-int qvo1
later 1 tap1 ovs-vsctl set port qvo1 tag=200
announcement_is_heard tap1 far0 200 --vlan 200
report_says '"kind":"hybrid"' '"injector":"redirect"' '"vlan":200' \
    '"hops":["tap1","qbr1","qvb1","qvo1","br-int","up0"]'
first_frame_came_after 0
until_true learned 200
guest_heard 0 tap1
