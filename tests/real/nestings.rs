//! Bridges behind bridges: the path to the real edge, what is said when it is down or gone, and what the wire heard.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::testbed::{Capture, Direction, Host, Place, Stand, require};

const CHAIN: &str = "bridge lan1 TAP a1; bridge lan2 b1 b2; bridge lan3 c1 up0; pair a1 b1; pair b2 c1";
const INTO_LINUX: &str = "ovs br-int TAP; internal br-int leg; bridge lan leg up0";
const INTO_OVS: &str = "bridge lan TAP leg; ovs br-ex up0; internal br-ex leg; bridge lan leg";
const OVER_TWO: &str = "bridge lan1 TAP a1; bridge lan2 a2 b1; pair a1 a2; ip link add b1 type veth peer name b2; \
    ip link set b1 master lan2 up; ip link set b2 up; ovs br-ex b2 up0";
const BRANCHES: &str = "ovs br-int TAP; ovs br-ex up0; patch br-int br-ex; ovs br-tun; patch br-int br-tun; \
    ovs-vsctl add-port br-tun vx0 -- set Interface vx0 type=vxlan options:remote_ip=198.51.100.2";
const TWO: &str = "uplink up1; bridge br0 TAP up0 up1";

#[test]
fn frames_leave_by_the_edge_behind_the_last_bridge_or_it_is_told_why_not() {
    require!(lab, ovs, tshark);
    for (script, expected) in [
        (CHAIN.to_owned(), Ok("left lan3 by up0")),
        (format!("{CHAIN}; ip link set up0 down"), Err("did not leave lan3: up0 is down")),
        (format!("{CHAIN}; ip link set c1 nomaster"), Err("c1 is a port of no bridge")),
        (format!("{CHAIN}; ip link set b2 down"), Err("b2 is down")),
        (
            format!("{CHAIN}; bridge link set dev c1 locked on"),
            Err("did not leave lan3: the port c1 of lan3 is locked"),
        ),
        (
            format!("{CHAIN}; bridge link set dev TAP locked on"),
            Err("did not leave lan1: the port TAP of lan1 is locked"),
        ),
        (
            format!("{CHAIN}; bridge link set dev c1 isolated on; bridge link set dev up0 isolated on"),
            Err(
                "did not leave lan3: the port up0 of lan3 is isolated, and so is the one that the frame comes from",
            ),
        ),
        (INTO_LINUX.to_owned(), Ok("left lan by up0")),
        (format!("{INTO_LINUX}; ip link set up0 down"), Err("up0 is down")),
        (format!("{INTO_LINUX}; ip link set leg nomaster"), Err("br-int has no uplink")),
        (INTO_OVS.to_owned(), Ok("left br-ex by up0")),
        (format!("{INTO_OVS}; ip link set up0 down"), Err("up0 is down")),
        (format!("{INTO_OVS}; ovs-vsctl del-port up0"), Err("br-ex has no uplink")),
        (
            format!("{INTO_OVS}; ovs-ofctl add-flow br-ex priority=9,in_port=leg,actions=drop"),
            Err("reached leg, did not leave br-ex: br-ex table 0: priority=9,in_port=leg actions=drop"),
        ),
        (OVER_TWO.to_owned(), Ok("left br-ex by up0")),
        (
            format!("{OVER_TWO}; ovs-ofctl add-flow br-ex priority=9,in_port=b2,actions=drop"),
            Err("reached b2, did not leave br-ex: br-ex table 0: priority=9,in_port=b2 actions=drop"),
        ),
        (
            format!(
                "{BRANCHES}; for bridge in br-ex br-tun; do ovs-ofctl add-flow $bridge priority=9,actions=drop; done"
            ),
            Err("br-ex table 0: priority=9 actions=drop; br-tun table 0: priority=9 actions=drop"),
        ),
        (TWO.to_owned(), Ok("left br0 by up0")),
        (format!("{TWO}; ip link set up0 down"), Ok("left br0 by up1")),
        (format!("{TWO}; ip link set up0 down; ip link set up1 down"), Err("up0 is down; up1 is down")),
    ] {
        tried(&script, expected);
    }
}

fn tried(script: &str, expected: Result<&str, &str>) {
    let stand = Stand::new(Host::build().ovs().start());
    let tap = stand.nic.tap();
    stand.host.sh(&format!("{HELPERS}\n{}", script.replace("TAP", &tap)));
    let up1 =
        script.starts_with(TWO).then(|| Capture::start(&stand.host.wire(), "wire1", Direction::In, "arp"));
    let wire = Capture::start(&stand.host.wire(), "wire0", Direction::In, "arp");

    // Where Open vSwitch takes frames from a device, on a busy machine a round may be taken for lost: it is sent again then.
    let patience: &[&str] = if expected.is_ok() { &[] } else { &["--wait", "0"] };
    let run = stand.announce(&[&["--count", "1"], patience].concat());

    let heard = wire.stop().len() + up1.map_or(0, |wire| wire.stop().len());
    match expected {
        Ok(left) => {
            assert!(run.code == Some(0) && run.stdout.contains(left), "{script}: {run:#?}");
            assert!(heard > 0, "{script}: {run:#?}");
        }
        Err(why) => {
            assert!(
                run.code == Some(1) && run.stderr.contains(&why.replace("TAP", &tap)),
                "{script}: {run:#?}"
            );
            assert_eq!(heard, 0, "{script}: {run:#?}");
        }
    }
}

/// A port that gets copies of all frames (SPAN), a VLAN that carries them out of the uplink (RSPAN), and one that ends at a port.
const SPAN: &str = "ovs-vsctl -- --id=@p get Port up1 -- --id=@m create Mirror name=m select_all=true output_port=@p -- set Bridge br-int mirrors=@m";
const RSPAN: &str = "ovs-vsctl -- --id=@m create Mirror name=m select_all=true output_vlan=99 -- set Bridge br-int mirrors=@m";

#[test]
fn what_only_a_mirror_copies_out_of_a_nic_has_not_left() {
    require!(lab, ovs, tshark);
    // By which uplink copies leave, and in which VLAN.
    for (mirror, copies) in [
        (SPAN.to_owned(), ("up1", Some(100))),
        (RSPAN.to_owned(), ("up0", Some(99))),
        (format!("{RSPAN}; ovs-vsctl set Port up1 tag=99"), ("up1", None)),
    ] {
        let stand = Stand::new(Host::build().ovs().start());
        let tap = stand.nic.tap();
        stand.host.sh(&format!(
            "{HELPERS}\nuplink up1; ovs br-int {tap} up0 up1; ovs-vsctl set Port {tap} tag=100; {mirror}"
        ));
        let announced = |arguments: &[&str]| {
            let captures = [("up0", "wire0"), ("up1", "wire1")].map(|(uplink, wire)| {
                (uplink, Capture::start(&stand.host.wire(), wire, Direction::In, "arp"))
            });
            let run = stand.announce(&[&["--count", "1", "--wait", "0"], arguments].concat());
            let heard = captures
                .map(|(uplink, capture)| capture.stop().into_iter().map(move |frame| (uplink, frame.vlan)));
            let heard: BTreeSet<(&str, Option<u16>)> = heard.into_iter().flatten().collect();
            assert!(heard.contains(&copies), "{mirror}: no copy among {heard:?}");
            (heard.contains(&("up0", Some(100))), run)
        };

        let (has_left, run) = announced(&["--json"]);
        let report = crate::testbed::report(&run);
        let departures = report["departures"].as_array().unwrap();
        let is_copy = |left: &Value| (&left["device"], &left["vlan"]) == (&json!(copies.0), &json!(copies.1));
        assert!(has_left && !departures.is_empty(), "{mirror}: {report:#}");
        assert!(!departures.iter().any(is_copy), "{mirror}: {report:#}");

        stand.host.sh(&format!("ovs-ofctl add-flow br-int priority=100,in_port={tap},actions=drop"));
        let (has_left, run) = announced(&[]);
        let why = format!("did not leave br-int: br-int table 0: priority=100,in_port={tap} actions=drop");
        assert!(!has_left && run.code == Some(1) && run.stderr.contains(&why), "{mirror}: {run:#?}");
    }
}

/// A path with several edges.
#[test]
fn explain_shows_each_branch_of_a_path() {
    require!(lab, ovs);
    let tunnel =
        "ip address add 198.51.100.1/24 dev up0; ip neighbour add 198.51.100.2 lladdr 2:0:0:0:0:2 dev up0
        ovs-vsctl add-port br-int vx0 -- set Interface vx0 type=vxlan options:remote_ip=198.51.100.2";
    for (script, branches) in [
        (TWO.to_owned(), "linux-bridge: TAP -> br0\n                -> up0\n                -> up1\n"),
        (
            "uplink up1; ovs br-int TAP; ovs br-ex; bond br-ex bond0 up0 up1; patch br-int br-ex; ovs br-lan; patch br-int br-lan
             bridge lan; internal br-lan leg; ip link set leg master lan; uplink up2; ip link set up2 master lan"
                .to_owned(),
            "ovs: TAP -> br-int\n                -> br-ex -> bond0 -> up0\n                -> br-ex -> bond0 -> up1\n                -> br-lan -> leg -> lan -> up2\n",
        ),
        (
            format!("ovs br-int TAP; {tunnel}; uplink up1; ovs-vsctl add-port br-int up1"),
            "ovs: TAP -> br-int\n                -> up1\n                -> vx0 -> up0\n",
        ),
    ] {
        let stand = Stand::new(Host::build().ovs().start());
        let tap = stand.nic.tap();
        stand.host.sh(&format!("{HELPERS}\n{}", script.replace("TAP", &tap)));
        let path = format!("  path        {}", branches.replace("TAP", &tap));
        // ovs-vswitchd tells later by which device a tunnel leaves.
        crate::testbed::eventually(&format!("{path} of {script}"), || {
            stand.announce(&["explain"]).stdout.contains(&path).then_some(())
        });
        let hops = &crate::testbed::report(&stand.announce(&["explain", "--json"]))["attachment"];
        let (names, from) = (hops["hops"].as_array().unwrap(), hops["from"].as_array().unwrap());
        let leaves = (0..names.len()).filter(|at| !from.contains(&(*at).into()));
        assert_eq!((from.len(), leaves.count()), (names.len(), path.matches("  -> ").count()), "{hops:#}");
    }
}

const HELPERS: &str = r#"
bridge() { # NAME PORT...; else bridge(8)
    case $1 in link) command bridge "$@"; return ;; esac
    name=$1; shift
    [ -e /sys/class/net/$name ] || ip link add "$name" type bridge forward_delay 0 mcast_snooping 0
    ip link set "$name" up
    for port; do [ ! -e "/sys/class/net/$port" ] || ip link set "$port" master "$name" up; done
    echo "$name $*" >>/run/bridges
}
pair() { # A B: a veth; each end goes to the bridge that has named it
    ip link add "$1" type veth peer name "$2"
    for end in "$1" "$2"; do
        ip link set "$end" master "$(awk -v end="$end" '{ for (i = 2; i <= NF; i++) if ($i == end) print $1 }' /run/bridges)" up
    done
}
ovs() { # NAME PORT...
    name=$1; shift
    ovs-vsctl add-br "$name" -- set Bridge "$name" datapath_type=netdev
    for port; do ovs-vsctl add-port "$name" "$port"; done
}
internal() { # BRIDGE PORT
    ovs-vsctl add-port "$1" "$2" -- set Interface "$2" type=internal
    ip link set "$2" up
}
bond() { # BRIDGE NAME PORT...
    ovs-vsctl add-bond "$@" bond_mode=active-backup
}
patch() { # A B
    ovs-vsctl add-port "$1" "$1-$2" -- set Interface "$1-$2" type=patch options:peer="$2-$1" \
        -- add-port "$2" "$2-$1" -- set Interface "$2-$1" type=patch options:peer="$1-$2"
}
uplink() { # NAME: beside up0
    ip link add "$1" type veth peer name "wire${1#up}" netns wire
    ip link set "$1" up; ip -n wire link set "wire${1#up}" up
}"#;
