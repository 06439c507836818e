# What the scripts beside this one share; they read it with `.` inside the virtual machine of contrib/lab/vm.
set -eu

ipv4=192.0.2.10
ipv6=2001:db8::10
count=0

# Here the uplinks are veths, which could lead to anything.
mkdir -p /etc/announced
echo 'path.uplinks = ["up0", "up1", "up2", "up3", "up4", "up5", "up6", "up7", "up8", "up9"]' >/etc/announced/announced.toml

# Begins a part of the script, with a guest's MAC address of its own.
part() { # TEXT
    part=$1
    count=$((count + 1))
    mac=52:54:00:aa:00:$(printf %02x $count)
    digits=$(echo "$mac" | tr -d :)
    evidence=
    echo "== $part"
}

fail() { # TEXT
    echo "FAILED: $part: $1"
    for file in $evidence; do
        [ ! -e "$file" ] || { echo "-- $file"; cat "$file"; }
    done
    exit 1
}

# Waits until COMMAND succeeds, a minute at least.
until_true() { # COMMAND...
    tries=0
    until "$@" >/dev/null 2>&1; do
        tries=$((tries + 1))
        [ "$tries" -lt 3000 ] || fail "never true: $*"
        usleep 20000
    done
}

# Does COMMAND in the background, SECONDS after `announce` has begun to wait for DEVICE; DEVICE.changed then has the moment.
later() { # SECONDS DEVICE COMMAND...
    : >"$2.log"
    (
        until_true grep 'waiting: ' "$2.log"
        sleep "$1"
        date +%s.%N >"$2.changed"
        shift 2
        "$@"
    ) &
}

# Makes a tap that a guest holds open.
tap() { # TAP
    guest_opens /dev/net/tun "$1"
    until_true ip link set "$1" up
}

guest_opens() { # DEVICE TAP
    mkfifo "$2.guest"
    hold "$1" "$2" <>"$2.guest" >>"$2.heard" & # opened for writing too, or hold would end after the first line
}

# Makes an uplink and its far end.
uplink() { # UPLINK FAR
    ip link add "$1" type veth peer name "$2"
    ip link set "$1" up
    ip link set "$2" up
}

# Makes a Linux bridge of these ports.
bridge_of() { # BRIDGE OPTIONS PORT...
    bridge=$1 options=$2
    shift 2
    # shellcheck disable=SC2086 # several words, or none
    ip link add "$bridge" up type bridge $options
    for port; do
        ip link set "$port" master "$bridge"
    done
}

start_open_vswitch() {
    mkdir -p /etc/openvswitch /run/openvswitch /var/log/openvswitch
    ovsdb-tool create /etc/openvswitch/conf.db /usr/share/openvswitch/vswitch.ovsschema
    ovsdb-server --remote=punix:/run/openvswitch/db.sock --detach --pidfile --log-file -vconsole:off
    ovs-vsctl --no-wait init
    # In the first ten seconds after boot, Open vSwitch 3.1 counts no processor (count_cpu_cores), so starts no handler, and its
    # kernel datapath loses every frame that has no flow yet. It shall believe that the machine runs for longer.
    unshare --time --monotonic 60 --fork ovs-vswitchd --detach --pidfile --log-file -vconsole:off
}

forwards() { # PORT
    bridge link show dev "$1" | grep 'state forwarding'
}

# Writes into DEVICE.frames what the part's guest sends and passes there; returns when it listens.
listen() { # DEVICE
    evidence="$evidence $1.frames"
    : >"$1.frames"
    tcpdump -i "$1" -nnettl --immediate-mode ether src "$mac" >"$1.frames" 2>"$1.log" &
    listener=$!
    until_true grep 'listening on' "$1.log"
}

stop_listening() {
    end_capture "$listener"
}

# Ends a tcpdump when it has read all that the kernel had for it: each frame wakes it.
end_capture() { # PID
    until_true is_at_rest "$1"
    kill "$1"
    wait "$1" || true
}

is_at_rest() { # PID
    ! grep '^State:[[:space:]]*[RD]' "/proc/$1/status"
}

# The guest itself sends a RARP.
guest_sends() { # TAP
    echo "ffffffffffff${digits}80350001080006040003${digits}00000000${digits}00000000" >"$1.guest"
}

# The guest behind TAP has got COUNT frames of the part's guest since that was last asked. Ask when the far end has heard:
# the kernel has then put a frame into every port that it is flooded to.
guest_heard() { # COUNT TAP
    : >"$2.heard"
    echo >"$2.guest"
    until_true grep '^$' "$2.heard"
    heard=$(grep -c "^............$digits" "$2.heard") || true
    [ "$heard" = "$1" ] || fail "the guest behind $2 heard $heard frames"
}

# Announces two rounds from DEVICE, and waits until FAR has seen every frame of both, all in VLAN or ('') untagged, and none
# before.
announcement_is_heard() { # DEVICE FAR VLAN [OPTION...]
    device=$1 far=$2 vlan=$3
    shift 3
    listen "$far"
    announce_from "$device" --ip $ipv4 --ip $ipv6 --count 2 "$@" || fail "announce: exit status $?"
    report_says '"outcome":"announced"'
    for words in "Request who-has $ipv4 tell $ipv4" "Reply $ipv4 is-at $mac" \
        "neighbor advertisement, tgt is $ipv6" 'Reverse Request'; do
        until_true twice "$words" "$far.frames"
    done
    stop_listening

    if [ "$vlan" ]; then
        ! grep -F ' > ' "$far.frames" | grep -qvF "vlan $vlan, p 0, " || fail "a frame left outside VLAN $vlan"
    else
        ! grep -qF 802.1Q "$far.frames" || fail 'a frame left tagged'
    fi
}

twice() { # WORDS FILE
    [ "$(grep -cF "$1" "$2")" -ge 2 ]
}

announce_from() { # DEVICE [OPTION...]
    report=$1.json
    evidence="$evidence $1.log $report"
    announce --dev "$@" --mac "$mac" --json --verbose >"$report" 2>"$1.log"
}

report_says() { # WORDS...
    for words; do
        grep -qF "$words" "$report" || fail "the report lacks $words"
    done
}

# The first frame of the announcement that was heard last came SECONDS, at least, after what was done `later`.
first_frame_came_after() { # SECONDS
    awk -v changed="$(cat "$device.changed")" -v seconds="$1" 'NR == 1 {
        late = $1 - changed - seconds
        printf "   the first frame came %d s and %.0f ms after the change\n", seconds, 1000 * late
        exit late <= -0.01
    }' "$far.frames" || fail 'the first frame came too early'
}
