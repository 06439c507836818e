//! `announced` as a service: what it tells systemd, administrators and Prometheus, what it may do, and how it ends.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::process::Command;
use std::time::Instant;

use crate::testbed::daemon::QUICK;
use crate::testbed::{
    Attachment, Daemon, Guest, Host, Nic, Place, Plug, Running, Site, eventually, guest, require, rounds,
    stand,
};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

#[test]
fn systemd_receives_the_state() {
    require!(lab, libvirt);
    let host = Host::build().libvirt().start();
    let daemon = Daemon::launch(&host, QUICK, &[("WATCHDOG_USEC", "100000")]);
    daemon.tells("READY=1");
    daemon.tells("STATUS=watching 0 VMs; 0 announcements under way");
    daemon.tells("WATCHDOG=1");
    daemon.forgets();
    daemon.tells("WATCHDOG=1");
    daemon.program.signal(Signal::SIGTERM);
    daemon.tells("STOPPING=1");
    assert_eq!(daemon.terminated().code, Some(0));
}

#[test]
fn it_ends_promptly() {
    require!(lab, ovs, libvirt);
    let site = Site::build(Attachment::Ovs);
    let daemon = Daemon::start(&site.host, "[ports]\nwait = \"1h\"\n");
    site.save();
    site.restore("");
    daemon.is_at(1);
    ends(daemon);
}

#[test]
fn it_ends_promptly_when_libvirtd_hangs() {
    require!(lab, libvirt);
    let host = Host::build().libvirt().start();
    let daemon = Daemon::start(&host, QUICK);
    host.sh("kill -STOP $(cat /run/libvirtd.pid)");
    ends(daemon);
    // libvirt's socket takes connections all the same.
    let daemon = Daemon::launch(&host, QUICK, &[]);
    daemon.tells("STATUS=");
    ends(daemon);
}

/// Without waiting for what has no end.
fn ends(daemon: Daemon<'_>) {
    let start = Instant::now();
    let run = daemon.terminate();
    println!("it ended within {:?}", start.elapsed());
    assert_eq!(run.code, Some(0), "{run:#?}");
}

#[test]
fn it_waits_for_a_libvirtd_that_is_not_there_yet() {
    require!(lab, libvirt, tshark);
    let site = Site::build(Attachment::LinuxBridge);
    site.host.sh("kill -STOP $(cat /run/libvirtd.pid); mv /run/libvirt/libvirt-sock-ro /run/away");
    let daemon = Daemon::start(&site.host, QUICK);
    assert_eq!(daemon.status()["gauges"]["libvirt"], false);
    let line = daemon.program.stderr.line_with("cannot connect to libvirt at qemu:///system");
    assert!(line.contains("WARN") && line.contains("trying again"), "{line}");
    site.host.sh("mv /run/away /run/libvirt/libvirt-sock-ro; kill -CONT $(cat /run/libvirtd.pid)");
    daemon.comes_to("libvirt", |status| status["gauges"]["libvirt"] == true);
    let wire = site.wire();
    site.save();
    site.restore("");
    daemon.reports(1);
    assert_eq!(rounds(&wire.stop(), None).len(), 3);
}

#[test]
fn it_keeps_no_capability_but_that_for_packet_sockets() {
    require!(lab, ovs, libvirt);
    let site = Site::ready(Attachment::Hybrid);
    let daemon = Daemon::start(&site.host, QUICK);
    let mut threads = capabilities(&daemon);
    site.save();
    site.restore("");
    daemon.reports(1);
    threads.extend(capabilities(&daemon));
    const NET_RAW: u64 = 1 << 13;
    for (name, value) in &threads {
        let allowed = if name == "CapInh:" || name == "CapAmb:" { 0 } else { NET_RAW };
        assert_eq!(*value, allowed, "{threads:x?}");
    }
}

/// Every thread's capability sets.
fn capabilities(daemon: &Daemon<'_>) -> Vec<(String, u64)> {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", daemon.program.pid())).unwrap();
    let statuses = tasks.filter_map(|task| std::fs::read_to_string(task.unwrap().path().join("status")).ok());
    let sets = statuses.flat_map(|status| {
        let lines = status.lines().filter(|line| line.starts_with("Cap"));
        let sets = lines.map(|line| {
            let (name, value) = line.split_once('\t').unwrap();
            (name.to_owned(), u64::from_str_radix(value, 16).unwrap())
        });
        sets.collect::<Vec<_>>()
    });
    sets.collect()
}

#[test]
fn a_bad_configuration_is_refused_with_one_line() {
    require!(lab);
    let host = Host::build().start();
    for (config, words) in [
        ("[schedule]\n cuont = 3\n", "announced.toml:2:2: [schedule] has no key \"cuont\""),
        ("[limits]\nframes-per-second = 0\n", "frames-per-second is 0"),
        ("[libvirt\n", "announced.toml:1:9: "),
    ] {
        let run = Daemon::launch(&host, config, &[]).terminated();
        assert_eq!(
            (run.code, run.stdout.as_str(), run.stderr.lines().count()),
            (Some(78), "", 1),
            "{run:#?}"
        );
        assert!(run.stderr.contains(words), "{run:#?}");
    }
    let mut command = host.command(env!("CARGO_BIN_EXE_announced"));
    let run = Running::start(command.args(["--config", "/nowhere"])).finish();
    assert_eq!((run.code, run.stderr.lines().count()), (Some(78), 1), "{run:#?}");
}

#[test]
fn what_is_unwise_is_in_the_log() {
    require!(lab, libvirt);
    let host = Host::build().libvirt().start();
    let daemon = Daemon::start(&host, "[limits]\nframes-per-second = 1\n");
    let line = daemon.program.stderr.line_with("limits.frames-per-second is 1: ");
    assert!(line.contains("WARN") && line.contains("announced.toml: "), "{line}");
    let line = daemon.reload("[limits]\njitter = \"1m\"\n", "limits.jitter is 60s: ");
    assert!(line.contains("WARN"), "{line}");
    let line = daemon.reload("[libvirt]\nuri = \"qemu:///session\"\n", "libvirt.uri has changed");
    assert!(line.contains("WARN") && line.ends_with("restart announced"), "{line}");
}

#[test]
fn a_systemd_that_does_not_read_holds_nothing_up() {
    require!(lab, libvirt);
    let site = Site::build(Attachment::LinuxBridge);
    let daemon = Daemon::start(&site.host, QUICK);
    let full = UnixDatagram::unbound().unwrap();
    full.set_nonblocking(true).unwrap();
    while full.send_to(b"FULL=1", site.host.directory().join("notify.sock")).is_ok() {}
    site.save();
    site.restore("");
    assert_eq!(daemon.reports(1)[0]["outcome"], "announced");
    ends(daemon);
}

#[test]
fn a_reload_while_it_still_starts_does_not_end_it() {
    require!(lab, ovs, libvirt);
    let host = Host::build().ovs().libvirt().start();
    // It waits for the answer for a while.
    host.sh("kill -STOP $(cat /run/openvswitch/ovsdb-server.pid)");
    let daemon = Daemon::launch(&host, QUICK, &[]);
    let status = format!("/proc/{}/status", daemon.program.pid());
    eventually("SIGHUP to be caught", || {
        let status = std::fs::read_to_string(&status).unwrap();
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap().trim().to_owned();
        (u64::from_str_radix(&caught, 16).unwrap() & 1 == 1).then_some(())
    });
    assert!(!daemon.program.stderr.so_far().contains("announced 0.1.0 starts"), "before it has started");
    daemon.program.signal(Signal::SIGHUP);
    host.sh("kill -CONT $(cat /run/openvswitch/ovsdb-server.pid)");
    daemon.tells("READY=1");
    daemon.program.stderr.line_with("the configuration is reloaded");
    assert_eq!(daemon.terminate().code, Some(0));
}

#[test]
fn a_second_one_does_not_start() {
    require!(lab, libvirt);
    let host = Host::build().libvirt().start();
    let daemon = Daemon::start(&host, QUICK);
    let second = Daemon::launch(&host, "", &[]).terminated();
    assert_eq!((second.code, second.stderr.lines().count()), (Some(1), 1), "{second:#?}");
    assert!(second.stderr.contains("another announced is running"), "{second:#?}");
    daemon.status();
}

#[test]
fn state_that_cannot_be_saved_is_logged_once_and_saved_later() {
    require!(lab, libvirt);
    let site = Site::build(Attachment::LinuxBridge);
    let daemon = Daemon::start(&site.host, QUICK);
    // In the way of the file that is to be written.
    site.host.sh("rm /run/announced/roster.json; mkdir /run/announced/roster.json");
    site.save();
    site.restore("");
    daemon.reports(1);
    daemon.program.stderr.line_with("cannot save pending announcements: ");
    site.host.sh("rmdir /run/announced/roster.json; ip link add later type veth");
    daemon.program.stderr.line_with("pending announcements are saved again");
    let said = daemon.kill().stderr;
    assert_eq!(said.matches("cannot save").count(), 1, "{said}");
    assert!(site.host.sh("cat /run/announced/roster.json").contains("\"pending\":null"));
}

#[test]
fn idle_clients_do_not_block_other_clients() {
    require!(lab, libvirt, curl);
    let host = Host::build().libvirt().start();
    let daemon = Daemon::start(&host, &format!("{QUICK}[metrics]\nlisten = \"127.0.0.1:9999\"\n"));
    let socket = host.directory().join("run/announced/status.sock");
    let metrics =
        || host.sh("curl --silent --show-error --retry 9 --retry-all-errors http://127.0.0.1:9999/");
    metrics();
    let (mute, deaf): (Vec<_>, Vec<_>) = stand::inside(&host, || {
        let clients = (0..100)
            .map(|_| (TcpStream::connect("127.0.0.1:9999").unwrap(), UnixStream::connect(&socket).unwrap()));
        clients.unzip()
    });
    daemon.status();
    assert!(metrics().contains("announced_build_info"));
    let open = std::fs::read_dir(format!("/proc/{}/fd", daemon.program.pid())).unwrap().count();
    println!("{open} descriptors are open");
    assert!(open < 100, "{open} descriptors");
    drop((mute, deaf));
}

#[test]
fn a_want_of_file_descriptors_passes() {
    require!(lab, libvirt);
    let host = Host::build().libvirt().start();
    let daemon = Daemon::start(&host, &format!("{QUICK}[metrics]\nlisten = \"127.0.0.1:9999\"\n"));
    let limit = |files: &str| {
        let pid = daemon.program.pid().to_string();
        let run = Running::start(Command::new("prlimit").args(["--pid", &pid, files])).finish();
        assert_eq!(run.code, Some(0), "{run:#?}");
    };
    daemon.status();
    limit("--nofile=4:");
    let mut status = UnixStream::connect(host.directory().join("run/announced/status.sock")).unwrap();
    let mut metrics = stand::inside(&host, || TcpStream::connect("127.0.0.1:9999").unwrap());
    metrics.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    limit("--nofile=1024:");
    let mut answers = [String::new(), String::new()];
    status.read_to_string(&mut answers[0]).unwrap();
    metrics.read_to_string(&mut answers[1]).unwrap();
    assert!(answers.iter().all(|answer| !answer.is_empty()), "{answers:?}");
}

#[test]
fn guests_that_come_and_go_leave_nothing_open() {
    require!(lab, libvirt);
    let _lock = guest::macvtaps();
    let host = Host::build().libvirt().start();
    // Each time, its device is another one, with a socket of its own.
    let nic = Nic::new(10, Plug::Direct("up0")).address("192.0.2.10");
    Guest::new("web1").nova().quiet().nic(&nic).start(&host);
    let daemon = Daemon::start(&host, QUICK);
    let open = || std::fs::read_dir(format!("/proc/{}/fd", daemon.program.pid())).unwrap().count();
    let mut at_first = 0;
    for lives in 1..=3 {
        host.sh("virsh --quiet save web1 /run/web1; virsh --quiet restore /run/web1");
        daemon.reports(lives);
        daemon.is_at(0);
        if lives == 1 {
            at_first = open();
        }
    }
    eventually("no more descriptors than at first", || (open() <= at_first).then_some(()));
}

#[test]
fn every_user_may_read_the_status() {
    require!(lab, libvirt, curl);
    let site = Site::build(Attachment::LinuxBridge);
    let ask = |form: &[&str]| site.host.announce(&[&["status"], form].concat());
    let unknown = ask(&[]);
    assert_eq!(
        (unknown.code, unknown.stdout.as_str(), unknown.stderr.lines().count()),
        (Some(1), "", 1),
        "{unknown:#?}"
    );

    let daemon = Daemon::start(&site.host, &format!("{QUICK}[metrics]\nlisten = \"127.0.0.1:9999\"\n"));
    site.save();
    site.restore("");
    daemon.reports(1);
    daemon.is_at(0);

    let run = ask(&[]);
    let lines: Vec<_> = run.stdout.lines().collect();
    assert_eq!((run.code, run.stderr.as_str(), lines.len()), (Some(0), "", 4), "{run:#?}");
    assert!(lines[0].starts_with("announced 0.") && lines[0].contains("announced.toml as of 20"), "{run:#?}");
    let lines = &lines[1..];
    assert!(
        lines[0].starts_with("libvirt connected since 20")
            && lines[0].contains(", no Open vSwitch; ")
            && lines[0].contains("1 VM; 0 announcements"),
        "{run:#?}"
    );
    assert!(lines[1].starts_with("TIME ") && lines[1].contains(" VM    DEVICE "), "{run:#?}");
    let told = "  web1  tap567a450a-b0  restored  announced  ";
    assert!(lines[2].starts_with("20") && lines[2].contains(told), "{run:#?}");
    assert!(lines[2].contains("left "), "{run:#?}");

    let json: Value = serde_json::from_str(&ask(&["--json"]).stdout).unwrap();
    assert_eq!(
        json["recent"][0]["frames"],
        json!({"arp_request": 3, "arp_reply": 3, "na": 3, "rarp": 3, "ask": 0, "solicit": 3})
    );
    assert_eq!(json, daemon.status());

    let prometheus = ask(&["--prometheus"]).stdout;
    for line in [
        "announced_events_total{cause=\"restored\"} 1",
        "announced_announcements_total{outcome=\"announced\"} 1",
        "announced_announcements_in_progress 0",
        "announced_frames_sent_total{kind=\"na\"} 3",
        "announced_connected{peer=\"libvirt\"} 1",
        "announced_first_frame_delay_seconds_count 1",
    ] {
        assert!(prometheus.lines().any(|l| l == line), "{line}\n{prometheus}");
    }
    let http = site.host.sh("curl --silent --show-error --include http://127.0.0.1:9999/metrics");
    let (head, body) = http.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK") && head.contains("text/plain; version=0.0.4"), "{head}");
    assert_eq!(body, prometheus);
}
