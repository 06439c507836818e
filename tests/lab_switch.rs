//! The lab's L3 switch and its probe on real devices: three hypervisors' bridges on its ports, tenants behind them.

#![allow(clippy::unwrap_used, reason = "a broken lab is a failed test")]

mod testbed;

use std::path::PathBuf;
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use testbed::running::Stream;
use testbed::site::now;
use testbed::{Arp, Capture, DEADLINE, Direction, Host, Kind, Place, Run, Running, eventually, ovs, require};

const SWITCH_MAC: &str = "00:00:5e:00:53:fe";
const VM1_MAC: &str = "fa:16:3e:00:00:11";
const RARP: &str = "fffffffffffffa163e00001180350001080006040003fa163e00001100000000fa163e0000110000000000000000\
                    0000000000000000000000000000";

/// VM1, 1.1.1.1, on host 1; VM2, 1.1.1.2, and VM3, 2.1.1.2, on host 2; host 3 is empty. A host is an Open vSwitch bridge.
struct Lab {
    switch: Running,
    host: Host,
}

impl Lab {
    fn start(vendor: &str) -> Self {
        Self::with(&["--vendor", vendor])
    }

    /// The same with more arguments of the switch.
    fn with(arguments: &[&str]) -> Self {
        Self::on(Self::hosts(), arguments)
    }

    /// All of it but the switch.
    fn hosts() -> Host {
        let host = Host::build().ovs().start();
        namespace(&host, "sw");
        for number in [1, 2, 3] {
            host.sh(&format!(
                "ip link add hv{number} type veth peer name p{number} netns sw
                 ip link set hv{number} up; ip -n sw link set p{number} up
                 ovs-vsctl add-br br{number} -- set Bridge br{number} datapath_type=netdev \
                     -- add-port br{number} hv{number}"
            ));
        }
        tenant(&host, "vm1", "br1", 100, "1.1.1.1", VM1_MAC);
        tenant(&host, "vm2", "br2", 100, "1.1.1.2", "fa:16:3e:00:00:12");
        tenant(&host, "vm3", "br2", 200, "2.1.1.2", "fa:16:3e:00:00:13");
        // No host asks by itself: only the test's frames restore the traffic.
        neighbour(&host, "vm1", "1.1.1.2", "fa:16:3e:00:00:12");
        neighbour(&host, "vm2", "1.1.1.1", VM1_MAC);
        host
    }

    fn on(host: Host, arguments: &[&str]) -> Self {
        let switch = Running::start(&mut switch(&host, arguments));
        switch.stdout.line_with("ready");
        Self { switch, host }
    }

    /// The rows of a table that speak of VM1.
    fn vm1_in(&self, table: &str) -> Vec<Value> {
        let rows = show(&self.host, &[table, "--json"]);
        let rows: Vec<Value> = serde_json::from_str(&rows).unwrap();
        rows.into_iter().filter(|row| row["mac"] == VM1_MAC).collect()
    }

    fn log(&self) -> Vec<Value> {
        lines(&self.host, "switch.log")
    }

    /// When that happened to VM1.
    fn logged(&self, event: &str) -> f64 {
        let log = self.log();
        let found = log.iter().find(|line| line["event"] == event && line["mac"] == VM1_MAC);
        found.unwrap_or_else(|| panic!("no {event} in {log:#?}"))["at"].as_f64().unwrap()
    }

    /// Waits until the tenant is answered.
    fn reaches(&self, tenant: &str, address: &str) {
        eventually("an answer", || (self.answers(tenant, address) > 0).then_some(()));
    }

    fn answers(&self, tenant: &str, address: &str) -> u64 {
        let mut probe = self.host.namespace(tenant).command(&example("probe"));
        let run =
            Running::start(probe.args(["--to", address, "--count", "10", "--linger", "300ms", "--json"]))
                .finish();
        summary(&run)["answered"].as_u64().unwrap()
    }

    /// A probe of VM1 that goes on.
    fn probe(&self, tenant: &str) -> Running {
        let log = self.host.directory().join(format!("{tenant}.log"));
        let mut probe = self.host.namespace(tenant).command(&example("probe"));
        probe.args(["--to", "1.1.1.1", "--linger", "20s", "--json", "--log"]).arg(log);
        let probe = Running::start(&mut probe);
        probe.stdout.line_with("ready");
        probe
    }

    /// VM1 goes to host 3, and says nothing: while it moves it stands still, or an answer to a ping would announce it.
    fn move_vm1(&self) {
        let vm1 = self.host.namespace("vm1");
        vm1.sh("echo 1 >/proc/sys/net/ipv4/icmp_echo_ignore_all");
        self.host.sh("ovs-vsctl del-port br1 vm1 -- add-port br3 vm1 tag=100");
        vm1.sh("echo 0 >/proc/sys/net/ipv4/icmp_echo_ignore_all");
    }

    fn announce(&self, kind: &str) {
        // The hosts here have other uplinks than those that the lab's own configuration names.
        let nic = ["--dev", "vm1", "--mac", VM1_MAC, "--ip", "1.1.1.1", "--config", "/dev/null"];
        let run = self.host.announce(&[&nic[..], &["--send", kind, "--count", "1"]].concat());
        assert_eq!(run.code, Some(0), "{run:#?}");
    }
}

/// One of the lab's programs. `cargo test` builds them along with the tests, but `cargo test --test lab_switch` does not:
/// that takes them as the last `cargo build --examples` left them.
fn example(name: &str) -> String {
    let tests = std::env::current_exe().unwrap();
    let path: PathBuf = tests.parent().unwrap().with_file_name("examples").join(name);
    assert!(path.exists(), "{}: build it with `cargo build --examples`", path.display());
    path.to_str().unwrap().to_owned()
}

fn switch(host: &Host, more: &[&str]) -> Command {
    let mut command = host.namespace("sw").command(&example("l3switch"));
    command.args(["--port", "p1", "--port", "p2", "--port", "p3"]);
    command.args(["--svi", "100=1.1.1.254/24", "--svi", "200=2.1.1.254/24"]);
    command.arg("--control").arg(host.directory().join("switch.sock"));
    command.arg("--log").arg(host.directory().join("switch.log"));
    command.args(more);
    command
}

fn show(host: &Host, what: &[&str]) -> String {
    let mut command = host.command(&example("l3switch"));
    command.arg("show").args(what).arg("--control").arg(host.directory().join("switch.sock"));
    let run = Running::start(&mut command).finish();
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""));
    run.stdout
}

fn lines(host: &Host, file: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(host.directory().join(file)).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn summary(run: &Run) -> Value {
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""));
    serde_json::from_str(run.stdout.lines().last().unwrap()).unwrap()
}

fn namespace(host: &Host, name: &str) {
    // Silent: no neighbour discovery, and no multicast reports.
    host.sh(&format!(
        "ip netns add {name}
         echo 1 | ip netns exec {name} tee /proc/sys/net/ipv6/conf/default/disable_ipv6 >/dev/null"
    ));
}

fn tenant(host: &Host, name: &str, bridge: &str, vlan: u16, address: &str, mac: &str) {
    namespace(host, name);
    let gateway = format!("{}.254", address.rsplit_once('.').unwrap().0);
    host.sh(&format!(
        "ip link add {name} type veth peer name eth0 address {mac} netns {name}
         ip link set {name} up; ip -n {name} link set eth0 up
         ip -n {name} address add {address}/24 dev eth0
         ip -n {name} route add default via {gateway}
         ovs-vsctl add-port {bridge} {name} tag={vlan}"
    ));
    neighbour(host, name, &gateway, SWITCH_MAC);
}

fn neighbour(host: &Host, of: &str, address: &str, mac: &str) {
    host.sh(&format!("ip -n {of} neighbour replace {address} lladdr {mac} dev eth0 nud permanent"));
}

/// What a probe that went on has written down, after SIGTERM: its lines, and its summary.
fn finish(lab: &Lab, tenant: &str, probe: Running) -> (Vec<Value>, Value) {
    probe.signal(Signal::SIGTERM);
    let summary = summary(&probe.finish());
    let lines = lines(&lab.host, &format!("{tenant}.log"));
    assert_eq!(summary["sent"], lines.len());
    assert!(lines.iter().enumerate().all(|(seq, line)| line["seq"] == seq));
    (lines, summary)
}

/// No request that was sent after `from` was answered before `until`, and some were after.
fn was_out(lines: &[Value], from: f64, until: f64) -> bool {
    let after = lines.iter().filter(|line| line["sent"].as_f64().unwrap() > from);
    let answers: Vec<f64> = after.filter_map(|line| line["answered"].as_f64()).collect();
    !answers.is_empty() && answers.iter().all(|answer| *answer >= until)
}

/// Scenario 1 of the analysis.
#[test]
fn on_vendor_b_a_rarp_brings_back_the_subnet_and_a_gratuitous_arp_the_rest() {
    require!(lab, ovs);
    let lab = Lab::start("B");
    lab.reaches("vm2", "1.1.1.1");
    lab.reaches("vm3", "1.1.1.1");
    assert_eq!(lab.vm1_in("fdb")[0]["port"], "p1");
    assert_eq!(lab.vm1_in("arp")[0]["port"], "p1");
    let (from_vm2, from_vm3) = (lab.probe("vm2"), lab.probe("vm3"));

    lab.move_vm1();
    let moved = now().as_secs_f64();
    lab.announce("rarp");
    lab.reaches("vm2", "1.1.1.1");
    assert_eq!(lab.answers("vm3", "1.1.1.1"), 0);
    assert_eq!(lab.vm1_in("fdb")[0]["port"], "p3");
    assert_eq!(lab.vm1_in("arp")[0]["port"], "p1");

    lab.announce("arp-request");
    lab.reaches("vm3", "1.1.1.1");
    assert_eq!(lab.vm1_in("arp")[0]["port"], "p3");

    let (vm2, _) = finish(&lab, "vm2", from_vm2);
    let (vm3, gap) = finish(&lab, "vm3", from_vm3);
    let (rarp, garp) = (lab.logged("fdb-moved"), lab.logged("arp-moved"));
    assert!(moved < rarp && rarp < garp);
    assert!(was_out(&vm2, moved, rarp), "{vm2:#?}");
    assert!(was_out(&vm3, moved, garp), "{vm3:#?}");
    let sent = vm3.iter().map(|line| line["sent"].as_f64().unwrap());
    let lost: Vec<f64> = sent.filter(|sent| (moved..garp).contains(sent)).collect();
    let at_least = (lost[lost.len() - 1] - lost[0]) * 1e3;
    assert!(gap["longest_gap_ms"].as_f64().unwrap() >= at_least, "{gap}: {at_least}");
    assert_eq!(gap["answered_last"], true);
}

#[test]
fn on_vendor_a_a_rarp_brings_back_both() {
    require!(lab, ovs);
    let lab = Lab::start("A");
    lab.reaches("vm2", "1.1.1.1");
    lab.reaches("vm3", "1.1.1.1");
    lab.move_vm1();
    assert_eq!((lab.answers("vm2", "1.1.1.1"), lab.answers("vm3", "1.1.1.1")), (0, 0));

    lab.announce("rarp");

    lab.reaches("vm2", "1.1.1.1");
    lab.reaches("vm3", "1.1.1.1");
    assert_eq!(lab.vm1_in("arp")[0]["port"], "p3");
    let log = lab.log();
    let moved = log.iter().find(|line| line["event"] == "arp-moved").unwrap();
    assert_eq!((&moved["from"], &moved["to"], &moved["cause"]), (&json!("p1"), &json!("p3"), &json!("fdb")));
    let announcement = log.iter().find(|line| line["event"] == "announcement").unwrap();
    assert_eq!((&announcement["kind"], &announcement["vlan"]), (&json!("rarp"), &json!(100)));
}

#[test]
fn a_group_stays_at_the_old_port_until_the_guest_is_queried() {
    require!(lab, ovs, tshark);
    let group = "239.1.2.3";
    let host = Lab::hosts();
    let reports = Capture::start(&host.namespace("sw"), "p1", Direction::In, "igmp");
    host.namespace("vm1").sh(&format!(
        "cd /proc/sys/net/ipv4; echo 0 >icmp_echo_ignore_broadcasts
         echo 1 >conf/eth0/igmpv3_unsolicited_report_interval
         ip address add {group}/32 dev eth0 autojoin"
    ));
    // It says so twice (RFC 3376 section 8.1), and answers the switch's one query within ten seconds. After that it says
    // nothing by itself. If it joined after the query, that answer would come at any time from then on.
    assert!(reports.sees(2, DEADLINE));
    let lab = Lab::on(host, &["--vendor", "A", "--query-interval", "1000"]);
    let ports = || {
        let rows: Vec<Value> = serde_json::from_str(&show(&lab.host, &["groups", "--json"])).unwrap();
        rows.iter().map(|row| row["port"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    eventually("the answer to the switch's query", || (ports() == ["p1"]).then_some(()));
    lab.reaches("vm2", group);

    lab.move_vm1();
    assert_eq!(lab.answers("vm2", group), 0, "the switch sends the group to host 1");

    lab.announce("rarp");

    lab.reaches("vm2", group);
    assert_eq!(ports(), ["p1", "p3"]);
}

#[test]
fn what_has_no_tag_or_that_of_another_vlan_goes_nowhere() {
    require!(lab, ovs, tshark);
    let lab = Lab::start("A");
    let leaving =
        Capture::start(&lab.host.namespace("sw"), "p2", Direction::Out, &format!("ether src {VM1_MAC}"));

    // A port without a tag is a trunk.
    lab.host.sh("ovs-vsctl clear port vm1 tag");
    ovs::inject(&lab.host, "br1", "vm1", RARP);
    lab.host.sh("ovs-vsctl set port vm1 tag=4095");
    ovs::inject(&lab.host, "br1", "vm1", RARP);
    lab.host.sh("ovs-vsctl set port vm1 tag=100");
    ovs::inject(&lab.host, "br1", "vm1", RARP);

    assert!(leaving.sees(1, DEADLINE));
    let frames = leaving.stop();
    assert!(frames.len() == 1 && frames[0].vlan == Some(100), "{frames:#?}");
    let log = lab.log();
    let dropped = log.iter().filter(|line| line["event"] == "dropped");
    let dropped: Vec<_> = dropped.map(|line| [&line["reason"], &line["vlan"], &line["kind"]]).collect();
    assert_eq!(
        dropped,
        [
            [&json!("untagged"), &json!(null), &json!("rarp")],
            [&json!("other-vlan"), &json!(4095), &json!("rarp")]
        ]
    );
    assert_eq!(show(&lab.host, &["dropped"]), "other-vlan   1\nuntagged     1\n");
}

#[test]
fn tshark_finds_nothing_wrong_with_what_the_switch_says() {
    require!(lab, ovs, tshark);
    let lab = Lab::start("B");
    let said =
        Capture::start(&lab.host.namespace("sw"), "p1", Direction::Out, &format!("ether src {SWITCH_MAC}"));

    lab.reaches("vm3", "1.1.1.1");

    assert!(said.sees(2, DEADLINE));
    let frames = said.stop();
    assert!(
        frames.iter().all(|frame| frame.complaints.is_empty() && frame.source == SWITCH_MAC),
        "{frames:#?}"
    );
    let question = frames.iter().find(|frame| frame.vlan == Some(100)).unwrap();
    let Kind::Ask(Arp { sender_ip, target_ip, .. }) = &question.kind else { panic!("{question:#?}") };
    assert_eq!((sender_ip.to_string(), target_ip.to_string()), ("1.1.1.254".into(), "1.1.1.1".into()));
}

#[test]
fn the_switch_can_be_pinged_and_shows_its_tables() {
    require!(lab, ovs);
    let lab = Lab::start("B");
    lab.reaches("vm1", "1.1.1.254");
    lab.reaches("vm1", "2.1.1.254");

    let (fdb, arp) = (show(&lab.host, &["fdb"]), show(&lab.host, &["arp"]));
    let words = |table: &str| -> Vec<Vec<String>> {
        table.lines().map(|line| line.split_whitespace().map(str::to_owned).collect()).collect()
    };
    let (fdb, arp) = (words(&fdb), words(&arp));
    assert_eq!(fdb[0], ["VLAN", "MAC", "TYPE", "AGE", "PORT"]);
    assert_eq!(fdb[1], ["100", SWITCH_MAC, "static", "-", "CPU"]);
    let vm1 = fdb.iter().find(|row| row[1] == VM1_MAC).unwrap();
    assert_eq!([&vm1[0], &vm1[2], &vm1[4]], ["100", "dynamic", "p1"]);
    let age = vm1[3].strip_suffix('s').and_then(|seconds| seconds.parse::<u32>().ok());
    assert!(age.is_some(), "{vm1:?}");
    assert_eq!(arp[0], ["ADDRESS", "AGE", "MAC", "INTERFACE", "PORT"]);
    assert_eq!(arp[1], ["1.1.1.254", "-", SWITCH_MAC, "Vlan100", "-"]);
    let vm1 = arp.iter().find(|row| row[0] == "1.1.1.1").unwrap();
    assert_eq!([&vm1[2], &vm1[3], &vm1[4]], [VM1_MAC, "Vlan100", "p1"]);
}

#[test]
fn both_end_with_sigterm_or_their_standard_input() {
    require!(lab, ovs);
    let lab = Lab::start("B");
    lab.switch.signal(Signal::SIGTERM);
    let Lab { switch: running, host } = lab;
    let run = running.finish();
    assert_eq!((run.code, run.stdout.as_str(), run.stderr.as_str()), (Some(0), "ready\n", ""));
    assert!(!host.directory().join("switch.sock").exists());

    let log = host.directory().join("nobody.log");
    let mut probe = host.namespace("vm1").command(&example("probe"));
    probe.args(["--to", "1.1.1.2", "--every", "1ms", "--linger", "0", "--log"]).arg(&log);
    for mut command in [switch(&host, &[]), probe] {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        Stream::of(child.stdout.take().unwrap()).line_with("ready");
        drop(child.stdin.take());
        assert!(child.wait().unwrap().success());
    }
    let probes = std::fs::read_to_string(log).unwrap();
    assert!(probes.lines().all(|line| line.ends_with("\"answered\":null}")), "{probes}");
}

#[test]
fn a_switch_that_cannot_start_says_why() {
    require!(lab);
    let host = Host::build().start();
    namespace(&host, "sw");
    let run = Running::start(&mut switch(&host, &[])).finish();
    assert_eq!(run.code, Some(1));
    assert_eq!(run.stderr, "l3switch: port p1: there is no such device\n");
}
