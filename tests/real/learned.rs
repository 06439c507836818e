//! What ovs-vswitchd would do with a frame, and where bridges have learned an address, asked without touching anything.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use announced::for_tests::fdb::{self, FdbError};
use announced::for_tests::fdb_show::Port;
use announced::for_tests::frame::{self, Frame, Kind, Style};
use announced::for_tests::ofproto_trace::Verdict;
use announced::for_tests::sys::packet;
use announced::for_tests::{ovs_fdb::Tables, unixctl};
use pnet_base::MacAddr;

use crate::testbed::network::{in_a_network_of_its_own, sh};
use crate::testbed::{Host, Place, eventually, need, ovs, require};

const MAC: MacAddr = MacAddr(0xfa, 0x16, 0x3e, 0, 0, 0x0a);
const TAP: u32 = 5;

fn run<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

fn on_linux_bridge(bridge: u32, mac: MacAddr, vlan: Option<u16>) -> Result<Option<u32>, FdbError> {
    run(fdb::on_linux_bridge(bridge, mac, vlan)).map(|entry| entry.map(|entry| entry.port))
}

fn walk(bridge: u32, mac: MacAddr, vlan: Option<u16>) -> Result<Option<u32>, FdbError> {
    run(fdb::walk(bridge, mac, vlan)).map(|entry| entry.map(|entry| entry.port))
}

/// A bridge with the uplink, and `tap0` as OpenFlow port 5.
struct Bridge {
    host: Host,
    directory: PathBuf,
}

impl Bridge {
    fn start() -> Self {
        let host = Host::build().ovs().start();
        ovs::bridge(&host, "br-int");
        host.sh("ip link add tap0 type veth peer name guest0; ip link set tap0 up; ip link set guest0 up
                 ovs-vsctl add-port br-int tap0 tag=100 -- set Interface tap0 ofport_request=5");
        let directory = host.directory().join("run/openvswitch");
        Bridge { host, directory }
    }

    fn trace(&self, kind: Kind) -> Verdict {
        answered(|| run(unixctl::trace(&self.directory, "br-int", TAP, &frame(kind).bytes))).unwrap()
    }

    fn learned(&self, vlan: Option<u16>) -> Option<Port> {
        let entry =
            answered(|| run(Tables::default().learned(&self.directory, "br-int", MAC, vlan))).unwrap();
        entry.map(|entry| entry.port)
    }

    fn call(&self, command: &str, arguments: &[&str]) -> Result<String, String> {
        answered(|| run(unixctl::call(&self.directory, command, arguments)))
            .map_err(|error| error.to_string())
    }
}

/// What ovs-vswitchd answers; it is asked again where it was too slow.
fn answered<T>(ask: impl Fn() -> Result<T, unixctl::UnixctlError>) -> Result<T, unixctl::UnixctlError> {
    eventually("an answer", || match ask() {
        Err(unixctl::UnixctlError::NoAnswer(_)) => None,
        answer => Some(answer),
    })
}

fn frame(kind: Kind) -> Frame {
    let addresses = ["192.0.2.10", "2001:db8::a"].map(|ip| ip.parse().unwrap());
    frame::round(MAC, &addresses, &Style::default()).into_iter().find(|frame| frame.kind == kind).unwrap()
}

fn hexadecimal(frame: &Frame) -> String {
    frame.bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// ovs-appctl, given the frame itself, is the witness; it says the same of our description as of the frame.
#[test]
fn every_frame_is_described_as_open_vswitch_reads_it() {
    require!(lab, ovs);
    let bridge = Bridge::start();
    for kind in Kind::ANNOUNCEMENTS {
        let frame = frame(kind);
        let described = announced::for_tests::ofproto_flow::flow(TAP, &frame.bytes).unwrap();
        let ours = bridge.call("ofproto/trace", &["br-int", &described]).unwrap();
        let given = format!("ovs-appctl ofproto/trace br-int in_port=5 {}", hexadecimal(&frame));
        let theirs = bridge.host.sh(&given);
        assert_eq!(ours.lines().next(), theirs.lines().next(), "{kind}");
        let actions = theirs.lines().find_map(|line| line.strip_prefix("Datapath actions: ")).unwrap();
        assert_eq!(bridge.trace(kind).dropped, actions == "drop");
    }
}

#[test]
fn asking_leaves_no_trace() {
    require!(lab, ovs);
    let bridge = Bridge::start();
    for kind in Kind::ANNOUNCEMENTS {
        assert!(!bridge.trace(kind).dropped);
    }
    assert_eq!(bridge.learned(None), None);
    assert_eq!(ovs::learned(&bridge.host, "br-int", &MAC.to_string()), None);
    assert_eq!(
        bridge.host.sh("ovs-ofctl dump-flows br-int | grep -o n_packets=.*,.n_bytes"),
        "n_packets=0, n_bytes\n"
    );
}

/// As neutron's firewall did.
#[test]
fn a_flow_that_drops_rarp_only_is_named() {
    require!(lab, ovs);
    let bridge = Bridge::start();
    bridge.host.sh("ovs-ofctl add-flow br-int priority=100,rarp,in_port=5,actions=drop");

    let rarp = bridge.trace(Kind::Rarp);
    assert_eq!(rarp.deciding, "br-int table 0: priority=100,rarp,in_port=5 actions=drop");
    assert!(rarp.dropped);
    for kind in [Kind::ArpRequest, Kind::ArpReply, Kind::Na] {
        assert_eq!(
            bridge.trace(kind).deciding,
            "br-int table 0: priority=0 actions=NORMAL; goes to up0 in VLAN 100"
        );
    }
}

#[test]
fn the_provider_bridge_that_lacks_the_vlan_is_named() {
    require!(lab, ovs);
    let bridge = Bridge::start();
    bridge.host.sh("
        ovs-vsctl del-port br-int up0
        ovs-vsctl add-br br-ex -- set Bridge br-ex datapath_type=netdev -- add-port br-ex up0 \
            -- add-port br-ex phy-br-ex -- set Interface phy-br-ex type=patch options:peer=int-br-ex ofport_request=2 \
            -- add-port br-int int-br-ex -- set Interface int-br-ex type=patch options:peer=phy-br-ex
        ovs-ofctl add-flow br-ex priority=2,in_port=2,actions=drop
        ovs-ofctl add-flow br-ex priority=4,in_port=2,dl_vlan=100,actions=mod_vlan_vid:1100,NORMAL
    ");
    let passes = bridge.trace(Kind::ArpRequest);
    assert_eq!(
        passes.deciding,
        "br-ex table 0: priority=4,in_port=2,dl_vlan=100 actions=NORMAL; goes to up0 in VLAN 1100"
    );

    bridge.host.sh("ovs-ofctl --strict del-flows br-ex priority=4,in_port=2,dl_vlan=100");
    assert_eq!(
        bridge.trace(Kind::ArpRequest).deciding,
        "br-ex table 0: priority=2,in_port=2 actions=drop; \
         goes to no port but the bridge's own, br-int in VLAN 100"
    );
}

/// What neutron's agent leaves behind on ports, and what the uplink may lack.
#[test]
fn the_settings_of_ports_are_seen() {
    require!(lab, ovs);
    let bridge = Bridge::start();
    let normal = "br-int table 0: priority=0 actions=NORMAL";
    let wrong_mode = "dropping VLAN 0 packet received on port tap0 not configured for trunking VLAN 0";
    let cases = [
        ("set Port tap0 tag=4095", false, "; goes to up0 in VLAN 4095"),
        ("set Port tap0 tag=4095 vlan_mode=trunk trunks=4095", true, &format!(": {wrong_mode}")),
        ("set Port tap0 tag=7", true, &format!(": {wrong_mode}")),
        ("clear Port tap0 vlan_mode", false, "; goes to up0 in VLAN 7"),
        ("clear Port tap0 trunks", false, "; goes to up0 in VLAN 7"),
        ("set Port up0 trunks=100", false, "; goes to no port but the bridge's own, br-int in VLAN 7"),
        ("clear Port tap0 tag", false, "; goes to no port but the bridge's own, br-int untagged"),
        ("set Port tap0 tag=100", false, "; goes to up0 in VLAN 100"),
    ];
    for (settings, dropped, end) in cases {
        bridge.host.sh(&format!("ovs-vsctl {settings}"));
        for kind in Kind::ANNOUNCEMENTS {
            let verdict = bridge.trace(kind);
            assert_eq!(
                (verdict.dropped, verdict.deciding),
                (dropped, format!("{normal}{end}")),
                "{kind}, {settings}"
            );
        }
    }
}

/// The tables of neutron's firewall, much shortened.
#[test]
fn the_last_of_many_tables_is_named() {
    require!(lab, ovs);
    let bridge = Bridge::start();
    bridge.host.sh("ovs-ofctl del-flows br-int");
    assert_eq!(bridge.trace(Kind::Rarp).deciding, "br-int table 0: no flow matches, actions=drop");
    for flow in [
        "priority=9,in_port=5,actions=resubmit(,25)",
        "table=25,priority=2,in_port=5,dl_src=fa:16:3e:00:00:0a,actions=resubmit(,60)",
        "table=60,priority=100,in_port=5,actions=load:0x5->NXM_NX_REG5[],resubmit(,71)",
        "table=71,priority=95,arp,reg5=0x5,arp_spa=192.0.2.10,actions=resubmit(,94)",
        "table=71,priority=10,reg5=0x5,actions=ct_clear,resubmit(,93)",
        "table=93,priority=0,actions=drop",
        "table=94,priority=1,actions=NORMAL",
    ] {
        bridge.host.sh(&format!("ovs-ofctl add-flow br-int '{flow}'"));
    }
    let passes = "br-int table 94: priority=1 actions=NORMAL; goes to up0 in VLAN 100";
    let drops = "br-int table 93: priority=0 actions=drop, from table 71: priority=10,reg5=0x5";
    let verdicts = Kind::ANNOUNCEMENTS.map(|kind| bridge.trace(kind).deciding);
    assert_eq!(verdicts, [passes, passes, drops, drops]);
}

#[test]
fn an_address_moves_from_port_to_port() {
    require!(lab, ovs);
    let bridge = Bridge::start();
    let send = |port: &str| ovs::inject(&bridge.host, "br-int", port, &hexadecimal(&frame(Kind::Rarp)));
    let witness = || ovs::learned(&bridge.host, "br-int", &MAC.to_string());
    assert_eq!(bridge.learned(None), None);

    send("tap0");
    assert_eq!(witness(), Some(("tap0".into(), 100)));
    assert_eq!(bridge.learned(None), Some(Port::Number(TAP)));
    assert_eq!(bridge.learned(Some(100)), Some(Port::Number(TAP)));
    assert_eq!(bridge.learned(Some(7)), None);

    // Seen later, in another VLAN: that of the untagged.
    send("LOCAL");
    assert_eq!(bridge.learned(Some(100)), Some(Port::Number(TAP)));
    assert_eq!(bridge.learned(Some(0)), Some(Port::Local));
    assert_eq!(bridge.learned(None), Some(Port::Local));

    // Open vSwitch does not write down that it saw an address again within a second.
    eventually("the address on tap0 again", || {
        send("tap0");
        (bridge.learned(None) == Some(Port::Number(TAP))).then_some(())
    });
}

/// Open vSwitch has no command for a single entry.
#[test]
fn four_thousand_entries_of_open_vswitch() {
    require!(lab, ovs);
    let bridge = Bridge::start();
    for n in 0..4_000 {
        let mac = format!("02:00:00:00:{:02x}:{:02x}", n >> 8, n & 255);
        bridge.call("fdb/add", &["br-int", "up0", "100", &mac]).unwrap();
    }
    ovs::inject(&bridge.host, "br-int", "tap0", &hexadecimal(&frame(Kind::Rarp)));
    tell("fdb/show of 4001", || assert_eq!(bridge.learned(Some(100)), Some(Port::Number(TAP))));
    tell("ofproto/trace", || assert!(!bridge.trace(Kind::Rarp).dropped));
}

#[test]
fn no_name_does_harm() {
    require!(lab, ovs);
    let bridge = Bridge::start();
    let ask = |name: &str| {
        let frame = frame(Kind::Rarp);
        let traced = answered(|| run(unixctl::trace(&bridge.directory, name, TAP, &frame.bytes)));
        let learned = answered(|| run(Tables::default().learned(&bridge.directory, name, MAC, None)));
        [traced.unwrap_err().to_string(), learned.unwrap_err().to_string()]
    };
    for name in ["-generate", "--names", "-"] {
        let why = "Open vSwitch cannot be asked about a bridge whose name begins with a hyphen";
        assert_eq!(ask(name), [why, why]);
    }
    for name in ["", "br int", "br-int br-int", "br-int\nexit", "\u{1b}[2J", "\"}", "br-none"] {
        for why in ask(name) {
            assert!(why.contains(".ctl refuses ") && !why.contains(char::is_control), "{name:?}: {why:?}");
        }
    }
    for why in ask("\0") {
        assert!(why.starts_with("lost the connection to "), "{why:?}");
    }
    assert!(bridge.call("version", &[]).unwrap().contains("Open vSwitch"), "still there");
    assert_eq!(bridge.learned(None), None);
}

#[test]
fn an_ovs_vswitchd_that_is_gone_or_hangs_is_reported_in_one_line() {
    require!(lab, ovs);
    let bridge = Bridge::start();
    let socket = bridge.host.sh("echo ovs-vswitchd.$(cat /run/openvswitch/ovs-vswitchd.pid).ctl");
    let socket = bridge.directory.join(socket.trim()).display().to_string();
    bridge.host.sh("kill -STOP $(cat /run/openvswitch/ovs-vswitchd.pid)");
    let why = run(unixctl::call(&bridge.directory, "version", &[])).unwrap_err().to_string();
    assert_eq!(why, format!("no answer from {socket} within 1s"));

    bridge.host.sh("kill -KILL $(cat /run/openvswitch/ovs-vswitchd.pid)");
    eventually("the end of ovs-vswitchd", || {
        let why = bridge.call("version", &[]).unwrap_err();
        (why == format!("cannot connect to {socket}: Connection refused (os error 111)")).then_some(())
    });

    bridge.host.sh("rm /run/openvswitch/ovs-vswitchd.pid");
    let why = bridge.call("version", &[]).unwrap_err();
    assert!(why.starts_with("cannot find the control socket of ovs-vswitchd by "), "{why}");
    assert!(
        why.ends_with("/ovs-vswitchd.pid: No such file or directory (os error 2); is it running?"),
        "{why}"
    );
}

fn index(device: &str) -> u32 {
    nix::net::if_::if_nametoindex(device).unwrap()
}

/// `br0` with the ports `port1` and `port2`, each of which has a guest at its far end.
fn linux_bridge() -> u32 {
    sh("ip link add br0 type bridge forward_delay 0 mcast_snooping 0; ip link set br0 up
        for n in 1 2; do
            ip link add port$n type veth peer name guest$n
            ip link set port$n master br0; ip link set port$n up; ip link set guest$n up
        done");
    index("br0")
}

/// The bridge learns from what it forwards.
fn speak(guest: &str) {
    packet::transmit(packet::sender().unwrap(), index(guest), &frame(Kind::Rarp).bytes).unwrap();
}

/// The port behind which `bridge fdb show` has the address.
fn witness() -> Option<u32> {
    let entries: serde_json::Value = serde_json::from_str(&sh("bridge -j fdb show br br0")).unwrap();
    let entries = entries.as_array().unwrap().clone();
    let entry =
        entries.into_iter().find(|entry| entry["mac"] == MAC.to_string() && entry["state"] != "permanent")?;
    entry["ifname"].as_str().map(index)
}

#[test]
fn a_linux_bridge_is_asked_for_the_port() {
    require!(lab, bridge);
    in_a_network_of_its_own(|| {
        let bridge = linux_bridge();
        let learned = || on_linux_bridge(bridge, MAC, None).unwrap();
        let walked = |vlan| walk(bridge, MAC, vlan).unwrap();
        assert_eq!((learned(), walked(None), witness()), (None, None, None));

        for n in [1, 2, 1] {
            let port = index(&format!("port{n}"));
            eventually("the address", || {
                speak(&format!("guest{n}"));
                (witness() == Some(port)).then_some(())
            });
            assert_eq!((learned(), walked(None)), (Some(port), Some(port)));
        }
        assert_eq!(
            (on_linux_bridge(bridge, MAC, Some(7)).unwrap(), walked(Some(7))),
            (None, None),
            "in no VLAN"
        );

        // On another bridge nothing is known of it.
        sh("ip link add br1 type bridge");
        assert_eq!(on_linux_bridge(index("br1"), MAC, None).unwrap(), None);
        let why = on_linux_bridge(99_999, MAC, None).unwrap_err().to_string();
        assert!(why.starts_with("cannot read what the bridge with index 99999 has learned: "), "{why}");
    });
}

/// A MAC moves to where a bridge has learned it, and not to where an operator or another program has put it.
#[test]
fn only_an_entry_that_the_bridge_made_is_a_learned_one() {
    require!(lab, bridge);
    in_a_network_of_its_own(|| {
        let bridge = linux_bridge();
        for (how, is_learned) in [("dynamic", true), ("static", false), ("extern_learn", false)] {
            sh(&format!("bridge fdb replace {MAC} dev port1 master {how}"));
            for entry in [run(fdb::on_linux_bridge(bridge, MAC, None)), run(fdb::walk(bridge, MAC, None))] {
                let entry = entry.unwrap().unwrap();
                assert_eq!((entry.port, entry.is_learned), (index("port1"), is_learned), "{how}");
            }
        }
    });
}

/// The kernel at hand may not filter VLANs; then the test runs itself once more in a virtual machine whose kernel does.
#[test]
fn a_bridge_that_filters_vlans_has_a_table_for_each() {
    require!(bridge);
    let mut here = Command::new("unshare");
    here.args(["--net", "ip", "link", "add", "br0", "type", "bridge", "vlan_filtering", "1"]);
    if here.stderr(Stdio::null()).status().unwrap().success() {
        in_a_network_of_its_own(ports_in_vlans);
    } else if need::met(&["vm", "strip"]) {
        // Without a second turn: it would wait for a test that waits to run alone, and that one for this.
        in_a_virtual_machine("learned::a_bridge_that_filters_vlans_has_a_table_for_each");
    }
}

fn ports_in_vlans() {
    let bridge = linux_bridge();
    sh("ip link set br0 type bridge vlan_filtering 1
        for n in 1 2; do
            bridge vlan del dev port$n vid 1
            bridge vlan add dev port$n vid ${n}00 pvid untagged
        done");
    let ports = [index("port1"), index("port2")].map(Some);
    for (guest, vlan) in [("guest1", 100), ("guest2", 200)] {
        eventually("the address", || {
            speak(guest);
            sh(&format!("bridge fdb show br br0 vlan {vlan}")).contains(&MAC.to_string()).then_some(())
        });
    }
    for ask in [on_linux_bridge, walk] {
        let learned = |vlan| ask(bridge, MAC, vlan).unwrap();
        assert_eq!([learned(Some(100)), learned(Some(200))], ports);
        assert_eq!([learned(Some(1)), learned(Some(300)), learned(None)], [None; 3]);
    }
}

fn in_a_virtual_machine(test: &str) {
    let directory = tempfile::tempdir().unwrap();
    let [program, script] = ["tests", "script"].map(|name| directory.path().join(name));
    // What a debugger wants is most of the program, and copying takes long under emulation.
    let stripped =
        Command::new("strip").arg("-o").arg(&program).arg(std::env::current_exe().unwrap()).status();
    assert!(stripped.unwrap().success());
    std::fs::write(&script, format!("ANNOUNCED_TESTS_REQUIRE=all exec tests --exact {test}\n")).unwrap();
    let vm = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/contrib/lab/vm"))
        .env("VM_DEADLINE", "900") // of seconds: long enough for any machine
        .args([script, program])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&vm.stdout);
    assert!(vm.status.success(), "{said}{}", String::from_utf8_lossy(&vm.stderr));
    assert!(said.contains("1 passed"), "{said}");
}

/// The host takes what is sent to a port's own address: that is no place of a guest.
#[test]
fn the_hosts_own_addresses_are_not_learned_ones() {
    require!(lab, bridge);
    in_a_network_of_its_own(|| {
        let bridge = linux_bridge();
        sh(&format!("ip link set port1 address {MAC}"));
        assert!(sh("bridge fdb show br br0").contains(&format!("{MAC} dev port1 master br0 permanent")));
        assert_eq!((on_linux_bridge(bridge, MAC, None).unwrap(), witness()), (None, None));
        assert_eq!(walk(bridge, MAC, None).unwrap(), None);
    });
}

/// Asked by a user without privileges.
#[test]
fn four_thousand_entries_cost_nothing() {
    require!(lab, bridge);
    in_a_network_of_its_own(|| {
        let bridge = linux_bridge();
        let batch: String = (0..4_000_u32)
            .map(|n| format!("fdb add 02:00:00:00:{:02x}:{:02x} dev port1 master dynamic\n", n >> 8, n & 255))
            .collect();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), batch).unwrap();
        sh(&format!("bridge -batch {}", file.path().display()));
        sh(&format!("bridge fdb add {MAC} dev port2 master dynamic"));
        assert!(sh("bridge fdb show br br0").lines().count() > 4_000);

        let port = Some(index("port2"));
        caps::clear(None, caps::CapSet::Effective).unwrap();
        tell("an entry of 4001", || assert_eq!(on_linux_bridge(bridge, MAC, None).unwrap(), port));
        tell("an entry of 4001, before Linux 5.0", || assert_eq!(walk(bridge, MAC, None).unwrap(), port));
        sh(&format!("bridge fdb del {MAC} dev port2 master"));
        tell("none of 4000", || assert_eq!(on_linux_bridge(bridge, MAC, None).unwrap(), None));
    });
}

fn tell(what: &str, ask: impl Fn()) {
    let mut times: Vec<Duration> = (0..200)
        .map(|_| {
            let asked = Instant::now();
            ask();
            asked.elapsed()
        })
        .collect();
    times.sort();
    println!("{what}: median {:?}, p99 {:?}, longest {:?}", times[100], times[197], times[199]);
}
