//! What `announce` answers on the command line: exit statuses, and what it prints where.
//!
//! libvirt is its own test driver here, with [`GUESTS`]; Linux bridges are in namespaces.

#![allow(clippy::unwrap_used, reason = "a broken test is a failed test")]

mod testbed;

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use testbed::{Guest, Host, Place, Run, Running, dissect, linux_bridge, require};

const ANNOUNCE: &str = env!("CARGO_BIN_EXE_announce");
const NOWHERE: &str = "--dev nosuch0 --mac 52:54:00:00:00:01";
const ON_A_BRIDGE: &str = "--dev guest0 --mac 52:54:00:00:00:01 --ip 192.0.2.10 --ip 2001:db8::10";
const TEST: &str = "--connect test:///default --wait 0";
const KEYS: &str = "version domain device mac attachment addresses cause event_at ended_at outcome \
                    unmet conditions runs_after_ms plugged_after_ms tagged_after_ms ready_after_ms \
                    first_frame_after_ms rounds frames send_errors left_host_after_ms departure \
                    departures astray by_design last_hop frames_left not_left lost_rounds stuck \
                    kinds unseen seen_elsewhere returned_after_ms last_returned_after_ms ceased gateways \
                    answered_after_ms answered_by answered_from stuck_questions guest_announcement multicast learned_after_ms \
                    learned_on stale notes injector dry_run error \
                    vm uuid event departure_after_ms reply_after_ms rounds_lost error_code round_times \
                    source_stopped_after_ms";

/// Guests of libvirt's test driver, some with `=` and nova's name; a state is a number of `virDomainState`.
const GUESTS: &str = "
    web1 1 <interface type='bridge'><mac address='52:54:00:00:00:01'/><source bridge='b'/><target dev='nosuch1'/></interface>\
           <interface type='bridge'><mac address='52:54:00:00:00:02'/><source bridge='b'/><target dev='nosuch2'/></interface>
    pci1 1 <interface type='hostdev'><mac address='52:54:00:00:00:03'/><source>\
           <address type='pci' domain='0' bus='0' slot='7' function='0'/></source></interface>
    nova1=shop 1 <interface type='ethernet'><mac address='52:54:00:00:00:04'/><target dev='nosuch4'/></interface>
    nova2=twin 1 .
    nova3=twin 1 .
    bare1 1 .
    off1 5 .
    held1 3 .";

#[test]
fn a_command_line_that_cannot_be_used() {
    for (arguments, words) in [
        ("", "name a VM"),
        ("explain", "name a VM"),
        ("trace --vm web1 --dry-run", "announce explain"),
        ("trace --vm web1 --count 5", "--count"),
        ("explain --vm web1 --pcap a.pcap", "--pcap"),
        ("status --vm web1 --prometheus", "--prometheus"),
        ("--dev tap0", "--mac"),
        ("--vm web1 --all", "--all"),
        ("--vm web1 --dev tap0 --mac 52:54:00:00:00:01", "--dev"),
        ("--dev tap0 --mac 52:54:00:00:00", "hexadecimal"),
        ("--dev tap0 --mac 01:00:5e:00:00:01", "group"),
        ("--vm web1 --ip 192.0.2.300", "IPv4 or IPv6"),
        ("--vm web1 --ip 224.0.0.1", "multicast"),
        ("--vm web1 --ip ::1", "loopback"),
        ("--vm web1 --ip 127.0.0.1", "loopback"),
        ("--vm web1 --vlan 0", "between 1 and 4094"),
        ("--vm web1 --vlan 4095", "between 1 and 4094"),
        ("--vm web1 --interval soon", "such as 50ms"),
        ("--vm web1 --interval 0", "interval"),
        ("--vm web1 --count 0", "1..=1000"),
        ("--vm web1 --backoff 0.5", "between 1 and 100"),
        ("--vm web1 --send rarp,garp", "arp-request"),
        ("--vm web1 --inject magic", "packet-out"),
        ("--vm web1 -v -q", "--quiet"),
        ("--vm web1 --frobnicate", "--frobnicate"),
        ("completions tcsh", "tcsh"),
    ] {
        assert_refused(&announce(arguments), 2, words);
    }
}

#[test]
fn what_is_for_one_nic_is_not_for_two() {
    let lab = Guests::new();
    for option in ["--ip 192.0.2.10", "--vlan 100"] {
        assert_refused(&lab.announce(&format!("--vm web1 {option}")), 2, "--mac");
        let one = lab.announce(&format!("--vm web1 {option} --mac 52:54:00:00:00:02"));
        assert_refused(&one, 3, "nosuch2 does not exist");
    }
}

#[test]
fn a_configuration_that_cannot_be_used() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("announced.toml");
    let file = file.to_str().unwrap();
    for (text, place, words) in [
        ("[schedule]\n  cuont = 3\n", ":2:3: ", "cuont"),
        ("[schedule]\ncount = \"many\"\n", ":2:9: ", "many"),
        ("[frames]\nsend = [\"garp\"]\n", ":2:9: ", "arp-request"),
        ("schedule.backoff = 0.5\n", ":1:20: ", "between 1 and 100"),
        ("[nic.\"52:54:00:00:00:01\"]\naddresses = [\"::1\"]\n", ":2:13: ", "loopback"),
    ] {
        std::fs::write(file, text).unwrap();
        for arguments in [format!("check {file}"), format!("{NOWHERE} --wait 0 --config {file}")] {
            let run = announce(&arguments);
            assert_refused(&run, 78, words);
            assert!(run.stderr.starts_with(&format!("announce: {file}{place}")), "{run:?}");
        }
    }
    std::fs::write(file, "[schedule]\ncuont = 3\nbackof = 2.0\n").unwrap();
    let check = announce(&format!("check {file}"));
    assert_eq!(
        (check.code, check.stderr.lines().count()),
        (Some(78), 2),
        "each mistake has a line: {check:?}"
    );
    assert_refused(&announce(&format!("{NOWHERE} --config {file}")), 78, "(1 more: announce check)");
    assert_refused(&announce("check /nonexistent/announced.toml"), 78, "/nonexistent/announced.toml");
    assert_refused(&announce(&format!("{NOWHERE} --config /nonexistent/a.toml")), 78, "/nonexistent/a.toml");
}

#[test]
fn an_unwise_configuration_is_good_and_warned_of() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("announced.toml");
    std::fs::write(&file, "[schedule]\ncount = 1\n[ports]\nwait = \"0s\"\n").unwrap();
    let file = file.to_str().unwrap();
    let check = announce(&format!("check {file}"));
    assert_eq!((check.code, check.stdout), (Some(0), format!("{file} is good\n")), "{}", check.stderr);
    let lines: Vec<&str> = check.stderr.lines().collect();
    for (line, words) in
        lines.iter().zip([":2:9: warning: schedule.count is 1: ", ":4:8: warning: ports.wait is 0: "])
    {
        assert!(line.starts_with(&format!("announce: {file}{words}")), "{line}");
    }
    assert_eq!(lines.len(), 2, "{lines:?}");
}

#[test]
fn a_configuration_is_used_and_the_command_line_goes_before_it() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("announced.toml");
    std::fs::write(&file, "[schedule]\ncount = 3\ninterval = \"1s\"\nbackoff = 1.0\n").unwrap();
    let file = file.to_str().unwrap();
    let check = announce(&format!("check {file}"));
    assert_eq!((check.code, check.stdout), (Some(0), format!("{file} is good\n")), "{}", check.stderr);
    for (options, schedule) in
        [("", "[0,1000,2000]"), ("--count 2", "[0,1000]"), ("--backoff 2", "[0,1000,3000]")]
    {
        let run = announce(&format!("explain {NOWHERE} --json --config {file} {options}"));
        assert_eq!(object(&run)["schedule_ms"].to_string(), schedule);
    }
}

#[test]
fn a_file_or_a_libvirt_that_is_not_there() {
    assert_refused(&announce(&format!("{NOWHERE} --pcap /nonexistent/a.pcap")), 1, "/nonexistent/a.pcap");
    let run = announce("--vm web1 --connect qemu:///system?socket=/nonexistent/libvirt-sock-ro");
    assert_refused(&run, 1, "/nonexistent/libvirt-sock-ro");
}

#[test]
fn a_device_that_does_not_exist() {
    assert_refused(&announce(&format!("{NOWHERE} --wait 0")), 3, "nosuch0 does not exist");
    assert_refused(&announce(&format!("{NOWHERE} --wait 0 --quiet")), 3, "nosuch0 does not exist");
    assert!(announce(&format!("{NOWHERE} --wait 50ms")).took >= Duration::from_millis(50));
}

#[test]
fn a_guest_is_found_by_name_uuid_and_id() {
    for vm in ["test", "--vm test", "--vm 6695eb01-f6a4-8304-79aa-97f2502e193f", "--vm 1", "1", "--all"] {
        assert_refused(
            &announce(&format!("{TEST} {vm}")),
            3,
            "test testnet0 aa:bb:cc:dd:ee:ff: not-ready: testnet0",
        );
    }
}

#[test]
fn a_guest_that_is_not_there_or_does_not_run() {
    let lab = Guests::new();
    for (vm, words) in [
        ("nosuch", "nosuch"),
        ("6695eb01-f6a4-8304-79aa-97f2502e193e", "6695eb01"),
        ("off1", "shut off"),
        ("held1", "paused"),
    ] {
        assert_refused(&lab.announce(&format!("--vm {vm}")), 4, words);
        assert_refused(&lab.announce(&format!("--vm {vm} --json")), 4, words);
    }
}

#[test]
fn a_guest_that_is_not_there_does_not_keep_others_from_being_announced() {
    let run = announce(&format!("--vm nosuch --vm test --json {TEST}"));
    assert_eq!(run.code, Some(4));
    assert_eq!(object(&run)["domain"]["name"], "test");
    assert_eq!(run.stderr.lines().count(), 2, "{}", run.stderr);
    assert!(run.stderr.contains("nosuch") && run.stderr.contains("testnet0"), "{}", run.stderr);
}

#[test]
fn a_nic_that_the_host_cannot_announce_is_reported_and_is_no_failure() {
    let run = Guests::new().announce("--vm pci1 --json");
    assert_eq!((run.code, run.stderr.lines().count()), (Some(0), 1), "{run:?}");
    let nic = object(&run);
    assert_eq!((&nic["outcome"], &nic["mac"]), (&"failed".into(), &"52:54:00:00:00:03".into()));
    assert!(nic["error"].as_str().unwrap().contains("hostdev"), "{nic}");
    assert_refused(&announce(&format!("--vm test --mac 52:54:00:00:00:09 {TEST}")), 1, "52:54:00:00:00:09");
}

#[test]
fn a_vm_is_found_by_what_openstack_calls_it() {
    let lab = Guests::new();
    let run = lab.announce("--vm shop --json");
    assert_eq!((run.code, &object(&run)["domain"]["name"]), (Some(3), &"nova1".into()), "{run:?}");
    assert_refused(&lab.announce("--vm twin"), 4, "twin may be any of nova2, nova3: say which");
}

#[test]
fn explaining_is_no_failure() {
    let run = announce(&format!("explain {NOWHERE} --ip 192.0.2.10"));
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""));
    for words in ["nosuch0 does not exist", "192.0.2.10 (operator)", "arp-request 192.0.2.10", "0 50 150 350"]
    {
        assert!(run.stdout.contains(words), "{words}: {}", run.stdout);
    }
    assert_refused(&announce("explain nosuch --connect test:///default"), 4, "nosuch");
}

#[test]
fn json_is_one_object_a_line_with_its_keys() {
    let run = Guests::new().announce("--vm web1 --json");
    assert_eq!(run.stdout.lines().count(), 2, "{}", run.stdout);
    for line in run.stdout.lines() {
        assert_keys(&serde_json::from_str(line).unwrap(), KEYS);
    }
    require!(lab);
    let run = bridge().announce(&words(&format!("{ON_A_BRIDGE} --dry-run --json")));
    let nic = object(&run);
    assert_keys(&nic, KEYS);
    assert_keys(&nic["attachment"], "kind bridge port vlan hops from");
    assert_keys(&nic["addresses"][0], "ip source");
    assert_keys(&nic["frames"], "rarp arp_request arp_reply na ask solicit");
    assert_eq!(
        (&nic["version"], &nic["dry_run"], &nic["outcome"]),
        (&1.into(), &true.into(), &"announced".into())
    );
    assert_eq!(nic["attachment"]["kind"], "linux-bridge");
}

#[test]
fn options_may_stand_before_the_command() {
    for arguments in [format!("--json explain {NOWHERE}"), format!("{NOWHERE} explain --json")] {
        assert_eq!(object(&announce(&arguments))["device"], "nosuch0", "{arguments}");
    }
    let pretty = announce(&format!("-p --json explain {NOWHERE}"));
    assert!(pretty.stdout.lines().count() > 10 && object(&pretty)["device"] == "nosuch0", "{pretty:?}");
}

#[test]
fn quiet_prints_json_where_it_is_asked_for() {
    assert_eq!(object(&announce(&format!("{NOWHERE} --wait 0 --json --quiet")))["outcome"], "not-ready");
}

#[test]
fn the_help_has_the_defaults_and_examples() {
    let help = announce("--help").stdout;
    for words in
        ["[default: 60s", "[default: 10]", "[default: 50ms]", "[default: 2s]", "announce explain web1"]
    {
        assert!(help.contains(words), "{words}: {help}");
    }
}

#[test]
fn a_shell_completes_options_kinds_and_devices() {
    require!(bash);
    let complete = |words: &str| {
        let words: Vec<&str> = words.split(' ').collect();
        let mut command = Command::new(ANNOUNCE);
        command.env("COMPLETE", "bash").env("_CLAP_COMPLETE_INDEX", (words.len() - 1).to_string());
        let run = Running::start(command.arg("--").args(words)).finish();
        assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""));
        run.stdout
    };
    for (words, candidate) in [
        ("announce --max-", "--max-interval"),
        ("announce --send ", "arp-request"),
        ("announce --inject ", "packet-out"),
        ("announce --dev ", "lo"),
        ("announce ", "explain"),
    ] {
        let candidates = complete(words);
        assert!(candidates.lines().any(|line| line == candidate), "{words}: {candidates}");
    }
    let script = format!("source <({ANNOUNCE} completions bash); complete -p announce");
    let bash = Running::start(Command::new("bash").args(["-c", &script])).finish();
    assert_eq!((bash.code, bash.stderr.as_str()), (Some(0), ""));
    for shell in ["zsh", "fish", "elvish", "powershell"] {
        let run = announce(&format!("completions {shell}"));
        assert!(run.code == Some(0) && run.stdout.contains("COMPLETE"), "{shell}: {run:?}");
    }
}

#[test]
fn a_reader_that_has_gone_is_no_error() {
    for arguments in ["check", "--help", &format!("explain {NOWHERE}"), &format!("explain {NOWHERE} --json")]
    {
        assert_eq!(without_reader(arguments), (Some(0), String::new()), "{arguments}");
    }
    assert_eq!(without_reader(&format!("{NOWHERE} --wait 0 --json")).0, Some(3));
}

#[test]
fn a_reader_of_completions_that_has_gone_is_no_error() {
    assert_eq!(without_reader("completions bash"), (Some(0), String::new()));
}

#[test]
fn a_dry_run_writes_the_frames_with_the_times_of_the_schedule() {
    require!(lab, tshark);
    let host = bridge();
    let file = host.directory().join("dry.pcap");
    let run = host.announce(&words(&format!("{ON_A_BRIDGE} --dry-run --pcap {}", file.display())));
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""));
    assert!(run.stdout.contains("dry run") && run.stdout.contains("10 rounds"), "{}", run.stdout);

    let frames = dissect::dissect(&std::fs::read(file).unwrap());

    let rounds: Vec<_> = frames.chunks(5).collect();
    for round in &rounds {
        let kinds: Vec<&str> = round.iter().map(|frame| frame.kind.name()).collect();
        assert_eq!(kinds, ["arp-request", "arp-reply", "na", "rarp", "solicit"]);
        assert!(round.iter().all(|frame| frame.complaints.is_empty() && frame.vlan.is_none()), "{round:#?}");
    }
    let times: Vec<u128> = rounds.iter().map(|round| (round[0].at - frames[0].at).as_millis()).collect();
    assert_eq!(times, [0, 50, 150, 350, 750, 1550, 3150, 5150, 7150, 9150]);
}

#[test]
fn a_dry_run_does_not_wait_between_the_rounds() {
    require!(lab);
    let hours = "--count 3 --interval 1h --max-interval 1h";
    let run = bridge().announce(&words(&format!("{ON_A_BRIDGE} --dry-run {hours}")));
    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""));
    assert!(run.stdout.contains("3 rounds"), "{}", run.stdout);
}

#[test]
fn a_capability_that_is_missing_is_named() {
    require!(lab);
    let host = bridge();
    for (lacking, way, words) in [
        ("-all", "auto", "CAP_NET_ADMIN"),
        ("-all", "auto", "CAP_BPF"),
        ("-net_admin", "redirect", "CAP_NET_ADMIN"),
        ("-bpf,-sys_admin", "redirect", "CAP_BPF"),
        ("-bpf,-sys_admin", "xdp", "CAP_BPF"),
        ("-net_raw", "fdb", "CAP_NET_RAW"),
    ] {
        assert_refused(&lacking_capabilities(&host, lacking, way), 1, words);
    }
    let dry = lacking_capabilities(&host, "-all", "auto --dry-run");
    assert_eq!((dry.code, dry.stderr.as_str()), (Some(0), ""));
}

#[test]
fn the_capability_that_an_fdb_entry_needs_is_named() {
    require!(lab);
    // At once: a round that is tried again is refused again.
    let run = lacking_capabilities(&bridge(), "-net_admin", "fdb --wait 1h");
    assert_refused(&run, 1, "CAP_NET_ADMIN");
}

#[test]
fn a_way_that_an_attachment_does_not_offer() {
    require!(lab);
    let run = bridge().announce(&words(&format!("{ON_A_BRIDGE} --inject packet-out")));
    assert_refused(&run, 1, "--inject packet-out");
}

#[test]
fn what_does_not_reach_its_network_is_not_announced() {
    require!(lab);
    let host = bridge();
    for (options, code, words) in [
        ("--inject packet-out --dry-run", 1, "--inject packet-out"),
        ("--ip 192.0.2.10 --send na", 1, "nothing to send: the NIC has no address for"),
        ("--ip 192.0.2.10 --ask 192.0.2.1 --send ask", 1, "nothing to send: questions go with announcements"),
        ("--vlan 100 --wait 0", 3, "VLAN"),
    ] {
        let run =
            host.announce(&self::words(&format!("--dev guest0 --mac 52:54:00:00:00:01 --count 1 {options}")));
        assert_refused(&run, code, words);
    }
}

#[test]
fn a_guest_without_nics_is_reported() {
    let run = Guests::new().announce("--vm bare1");
    assert_eq!((run.code, run.stdout.as_str()), (Some(0), ""));
    assert!(run.stderr.contains("NIC") && run.stderr.lines().count() == 1, "{run:?}");
}

#[test]
fn a_guest_that_is_named_twice_is_announced_once() {
    assert_refused(&announce(&format!("--vm test --vm 1 {TEST}")), 3, "testnet0");
}

/// libvirt's test driver with its [`GUESTS`].
struct Guests(tempfile::TempDir);

impl Guests {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let guests: String = GUESTS.trim().lines().map(domain).collect();
        std::fs::write(directory.path().join("node.xml"), format!("<node>{guests}</node>")).unwrap();
        Self(directory)
    }

    fn announce(&self, arguments: &str) -> Run {
        announce(&format!("--connect test://{}/node.xml --wait 0 {arguments}", self.0.path().display()))
    }
}

fn domain(guest: &str) -> String {
    let [name, state, nics] = guest.trim().splitn(3, ' ').collect::<Vec<_>>()[..] else { panic!("{guest}") };
    let guest = match name.split_once('=') {
        Some((name, nova)) => Guest::new(name).named_by_nova(nova),
        None => Guest::new(name),
    };
    guest.of_test_driver().in_state(state).device(nics).xml()
}

/// A host with `guest0` on a bridge.
fn bridge() -> Host {
    let host = Host::build().start();
    linux_bridge::bridge(&host, "br0");
    host.sh("ip link add guest0 type veth peer name eth0
             ip link set guest0 master br0 up
             ip link set eth0 up");
    host
}

fn lacking_capabilities(host: &Host, lacking: &str, way: &str) -> Run {
    let arguments = format!("--bounding-set {lacking} {ANNOUNCE} {ON_A_BRIDGE} --count 2 --inject {way}");
    Running::start(host.command("setpriv").args(words(&arguments))).finish()
}

fn announce(arguments: &str) -> Run {
    Running::start(&mut command(arguments)).finish()
}

fn command(arguments: &str) -> Command {
    let mut command = Command::new(ANNOUNCE);
    command.args(words(arguments)).env_remove("LIBVIRT_DEFAULT_URI").env_remove("OVS_RUNDIR");
    command
}

/// The exit status and the errors of an `announce` whose standard output is closed.
fn without_reader(arguments: &str) -> (Option<i32>, String) {
    let (reader, writer) = nix::unistd::pipe().unwrap();
    drop(reader);
    let run = command(arguments).stdout(writer).output().unwrap();
    (run.status.code(), String::from_utf8(run.stderr).unwrap())
}

fn words(text: &str) -> Vec<&str> {
    text.split_whitespace().collect()
}

/// It ended with that status, and with one line on standard error that says these words.
fn assert_refused(run: &Run, code: i32, words: &str) {
    assert_eq!(run.code, Some(code), "{words}: {run:?}");
    assert_eq!(run.stderr.lines().count(), 1, "{words}: {run:?}");
    assert!(run.stderr.starts_with("announce: ") && run.stderr.contains(words), "{words}: {run:?}");
    assert!(run.stdout.is_empty(), "{words}: {run:?}");
}

/// The one object that was printed.
fn object(run: &Run) -> Value {
    serde_json::from_str(&run.stdout).unwrap_or_else(|error| panic!("{error}: {run:?}"))
}

fn assert_keys(object: &Value, keys: &str) {
    let found: BTreeSet<&str> = object.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(found, keys.split_whitespace().collect(), "{object}");
}
