#!/bin/sh
# Guests behind a bond of the kernel that fails over, as many as the file `guests` says. libvirt's test driver says that the guests
# run; a veth stands for the tap of each.
. ./guest.sh

guests=5
[ ! -e guests ] || guests=$(cat guests)
# Guest N has 52:54:00:01:00:NN.
from_guests='ether[0] & 1 = 1 and ether[6:4] = 0x52540001'

# Makes the guests' devices, and what libvirt has of them.
make_guests() { # BRIDGE
    number=0
    echo '<node>' >/lab/node.xml
    while [ $number -lt $guests ]; do
        echo "link add tap$number up type veth peer name guest$number" >>links
        echo "link set guest$number up" >>links
        echo "link set tap$number master $1" >>links
        octet=$(printf %02x $number)
        cat >>/lab/node.xml <<XML
<domain type='test'><name>web$number</name><memory>16384</memory><os><type>hvm</type></os><devices><interface type='ethernet'>
<mac address='52:54:00:01:00:$octet'/><target dev='tap$number'/></interface></devices></domain>
XML
        number=$((number + 1))
    done
    echo '</node>' >>/lab/node.xml
    ip -batch links
}

# Begins to write what guests have multicast to FAR, or what was multicast in their name.
watch() { # FAR
    evidence="$evidence $1.seen"
    tcpdump -i "$1" -Q in -nnettl --immediate-mode "$from_guests" >"$1.seen" 2>"$1.looks" &
    watcher=$!
    until_true grep 'listening on' "$1.looks"
}

# How many guests have been heard at FAR.
heard() { # FAR
    awk '/ > / && !seen[$2]++ { count++ } END { print count + 0 }' "$1.seen"
}

all_are_heard() { # FAR
    [ "$(heard "$1")" = $guests ]
}

start_daemon() { # CONFIGURATION
    printf '%b' "$1" >uplink.toml
    announced --config uplink.toml 2>daemon.log &
    daemon=$!
    evidence="$evidence daemon.log"
    until_true knows_all
}

knows_all() {
    announce status | grep "$guests VMs; 0 announcements under way"
}

stop_daemon() {
    kill $daemon
    wait $daemon || true
}

# Nothing came before a second had passed since the change at MOMENT, and so says when all first rounds had come.
tell_first_rounds() { # FAR MOMENT
    awk -v moment="$2" -v guests=$guests '
        / > / && !seen[$2]++ { all = $1 - moment; first = first ? first : all }
        END { printf "   first frame after %.2f s, each of %d guests within %.2f s\n", first, guests, all; exit first < 1 }' "$1.seen" ||
        fail 'a frame came within a second'
}

is_active() { # MEMBER
    [ "$(cat /sys/class/net/bond0/bonding/active_slave)" = "$1" ]
}

config='[libvirt]\nuri = "test:///lab/node.xml"\nevents = ["uplink"]\n[path]\nuplinks = ["up*"]\n'

part 'a bond of the kernel: nothing else tells where its guests are'
ip link add bond0 type bond mode active-backup miimon 20
for member in up0 up1; do
    uplink $member far$member
    ip link set $member down
    ip link set $member master bond0
done
ip link set bond0 up
bridge_of br0 'mcast_snooping 0' bond0
make_guests br0
until_true forwards tap$((guests - 1))
until_true forwards bond0
until_true is_active up0
watch farup1
ip link set farup0 down
until_true is_active up1
sleep 2
end_capture $watcher
[ "$(heard farup1)" = 0 ] || fail "$(heard farup1) guests were heard without announced"
echo "   0 of $guests guests are heard within 2 s"

part 'a bond of the kernel that fails over: each guest is announced'
ip link set farup0 up
start_daemon "$config"
watch farup0
moment=$(date +%s.%N)
ip link set farup1 down
until_true is_active up0
until_true all_are_heard farup0
end_capture $watcher
tell_first_rounds farup0 "$moment"
stop_daemon
