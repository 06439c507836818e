//! What hangs around the daemon delays no announcement of guests that do not need it.

use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::testbed::daemon::QUICK;
use crate::testbed::{Daemon, Host, Nic, Place, Plug, Running, crowd, linux_bridge, require};

/// As many as the status has reports.
const GUESTS: usize = 50;
const CLIENTS: usize = 1000;

#[test]
fn guests_on_linux_bridges_need_neither_open_vswitch_nor_a_journal_nor_clients_that_read() {
    require!(lab, ovs, libvirt);
    let host = Host::build().ovs().libvirt().start();
    linux_bridge::bridge(&host, "br0");
    let nics: Vec<Nic> = (0..2 * GUESTS).map(nic).collect();
    let _taps = crowd::taps(&host, &nics);
    let journal = host.directory().join("run/systemd/journal");
    std::fs::create_dir_all(&journal).unwrap();
    // Nothing is ever read from it.
    let _journal = UnixDatagram::bind(journal.join("socket")).unwrap();
    let config = format!("{QUICK}[libvirt]\nuri = \"{}\"\nevents = [\"started\"]\n", crowd::URI);
    let daemon = Daemon::launch(&host, &config, &[("JOURNAL_STREAM", "1:1")]);
    daemon.tells("READY=1");
    let (first, second) = nics.split_at(GUESTS);
    let announced = |nics: &[Nic], count: usize| {
        crowd::create(&host, nics);
        daemon.comes_to("the end", |status| status["metrics"]["announcements"]["announced"] == count)
    };
    let alone = delays(&announced(first, GUESTS));

    host.sh("kill -STOP $(cat /run/openvswitch/ovs-vswitchd.pid) $(cat /run/openvswitch/ovsdb-server.pid)");
    let _clients = deaf_clients(&host.directory().join("run/announced/status.sock"));
    let status = announced(second, 2 * GUESTS);

    println!("first frames without: {}; beside what hangs: {}", median(alone), median(delays(&status)));
    // A round may be taken for lost where the machine is busy, and be sent again.
    let rarps = status["metrics"]["frames"]["rarp"].as_u64().unwrap();
    assert!(rarps >= 2 * GUESTS as u64 * 3, "{status:#}");
    host.sh("kill -CONT $(cat /run/openvswitch/ovs-vswitchd.pid) $(cat /run/openvswitch/ovsdb-server.pid)");
    assert_eq!(daemon.terminate().code, Some(0));
}

fn nic(number: usize) -> Nic {
    let number = u8::try_from(number).unwrap();
    Nic::new(number, Plug::Bridge("br0")).address(format!("192.0.2.{number}"))
}

/// Clients of the status that read nothing of it.
fn deaf_clients(socket: &Path) -> Vec<UnixStream> {
    let pid = std::process::id().to_string();
    let limit = Running::start(Command::new("prlimit").args(["--pid", &pid, "--nofile=4096:"])).finish();
    assert_eq!(limit.code, Some(0), "{limit:#?}");
    (0..CLIENTS).map(|_| UnixStream::connect(socket).unwrap()).collect()
}

/// The times of the first frames in ms, of the last guests.
fn delays(status: &Value) -> Vec<f64> {
    let recent = status["recent"].as_array().unwrap();
    assert_eq!(recent.len(), GUESTS);
    recent.iter().map(|report| report["first_frame_after_ms"].as_f64().unwrap()).collect()
}

fn median(mut delays: Vec<f64>) -> String {
    delays.sort_by(f64::total_cmp);
    format!("median {} ms, worst {} ms", delays[delays.len() / 2], delays[delays.len() - 1])
}
