//! Two daemons that know each other: the destination announces when the source stops, and the source calls its traffic back when
//! the migration fails.

use std::os::unix::fs::PermissionsExt;

use serde_json::Value;

use crate::testbed::daemon::QUICK;
use crate::testbed::running::Running;
use crate::testbed::{Attachment, DEADLINE, Daemon, Host, Place, Rack, kinds, require};

const KEY: &str = "0123456789abcdef0123456789abcdef";

/// With this key, and both hosts as peers: the same file on each.
fn config(rack: &Rack, name: &str, key: &str) -> String {
    let file = rack.outer.directory().join(name);
    std::fs::write(&file, format!("{key}\n")).unwrap();
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
    let peers = "addresses = [\"10.77.0.1\", \"10.77.0.2\"]";
    format!("{QUICK}[peers]\n{peers}\nkey-file = {file:?}\n")
}

fn count(status: &Value, outcome: &str) -> u64 {
    status["metrics"]["handovers"][outcome].as_u64().unwrap()
}

/// What it has told and heard, in order.
fn notices(status: &Value) -> Vec<&str> {
    let recent = status["daemon"]["handover"]["recent"].as_array().unwrap();
    recent.iter().map(|note| note["notice"].as_str().unwrap()).collect()
}

/// A migration of a heavy guest in the middle of its switch-over: the QEMU of its destination is held, and takes nothing more.
fn stops(rack: &Rack, to: &Host, destination: &Daemon<'_>) -> Running {
    let from = if std::ptr::eq(to, &rack.first) { &rack.second } else { &rack.first };
    let migration = rack.start_migration(to, &["--bandwidth", "1"]);
    destination.knows(1);
    from.sh("until virsh domjobinfo web1 | grep -q 'Memory processed: *[0-9.]* MiB'; do :; done");
    to.sh("kill -STOP $(cat /run/libvirt/qemu/web1.pid)");
    from.sh("virsh --quiet migrate-setmaxdowntime web1 100000");
    migration
}

/// A migration of a heavy guest, in whose switch-over there is time for both early rounds.
fn migrates(rack: &Rack, to: &Host, destination: &Daemon<'_>) {
    let arrives = rack.wire(to);
    let migration = stops(rack, to, destination);
    assert!(arrives.sees(8, DEADLINE), "two early rounds");
    to.sh("kill -CONT $(cat /run/libvirt/qemu/web1.pid)");
    let migration = migration.finish();
    assert_eq!(migration.code, Some(0), "{migration:#?}");
}

#[test]
fn a_guest_that_stops_at_its_source_is_announced_before_it_runs_and_again_when_it_does() {
    require!(lab, libvirt, tshark);
    let rack = Rack::build(Attachment::LinuxBridge);
    rack.guest().quiet().heavy(&rack.outer).start(&rack.first);
    let config = config(&rack, "key", KEY);
    let (source, destination) = (Daemon::start(&rack.first, &config), Daemon::start(&rack.second, &config));
    let (left, arrives) = (rack.wire(&rack.first), rack.wire(&rack.second));

    migrates(&rack, &rack.second, &destination);

    let reports = destination.reports(2);
    let (early, usual) = (&reports[0], &reports[1]);
    assert_eq!((early["cause"].as_str(), early["outcome"].as_str()), (Some("handover"), Some("announced")));
    assert_eq!((usual["cause"].as_str(), usual["rounds"].as_u64()), (Some("migrated"), Some(3)));
    assert!(early["left_host_after_ms"].is_number(), "it is proved: {early:#}");
    assert!(early["event_at"].as_str() < usual["event_at"].as_str(), "{early:#}");
    let stopped = usual["source_stopped_after_ms"].as_f64().unwrap();
    println!(
        "the source stopped {} ms before; the first early frame came after {} ms",
        -stopped, early["first_frame_after_ms"]
    );
    assert!(stopped < 0.0);
    let rounds = early["rounds"].as_u64().unwrap() as usize;
    let frames = arrives.stop();
    let round = ["arp-request", "arp-reply", "na", "rarp"];
    let of_early: Vec<String> = kinds(&frames).iter().take(4 * rounds).map(ToString::to_string).collect();
    assert_eq!(of_early, round.repeat(rounds), "an early round asks nothing");
    let told = source.comes_to("the end at the source", |status| notices(status).len() == 2);
    assert_eq!(["told", "kept", "left"].map(|outcome| count(&told, outcome)), [1, 0, 1]);
    assert_eq!(notices(&told), ["stops", "left"]);
    let heard = destination.comes_to("the end by the source's word", |status| notices(status).len() == 2);
    assert_eq!((count(&heard, "early"), count(&heard, "told")), (1, 0));
    assert_eq!(notices(&heard), ["stops", "left"]);
    assert_eq!(left.stop(), []);
}

#[test]
fn a_guest_whose_migration_fails_in_the_switch_over_is_announced_where_it_runs_on() {
    require!(lab, libvirt, tshark);
    let rack = Rack::build(Attachment::LinuxBridge);
    rack.guest().quiet().heavy(&rack.outer).start(&rack.first);
    let config = config(&rack, "key", KEY);
    let (source, destination) = (Daemon::start(&rack.first, &config), Daemon::start(&rack.second, &config));
    let (back, astray) = (rack.wire(&rack.first), rack.wire(&rack.second));
    let migration = stops(&rack, &rack.second, &destination);
    assert!(astray.sees(8, DEADLINE), "two early rounds");

    rack.second.sh("kill -KILL $(cat /run/libvirt/qemu/web1.pid)");

    let migration = migration.finish();
    assert_ne!(migration.code, Some(0), "{migration:#?}");
    assert_eq!(rack.first.sh("virsh domstate web1").trim(), "running");
    let reports = source.reports(2);
    let last = reports.last().unwrap();
    assert!(reports.iter().all(|report| report["cause"] == "kept"), "{reports:#?}");
    assert_eq!((last["outcome"].as_str(), last["rounds"].as_u64()), (Some("announced"), Some(3)));
    println!("called back {} ms after it ran on", reports[0]["first_frame_after_ms"]);
    assert!(back.count() >= 3 * 4, "the full schedule");
    assert_eq!(astray.count(), 8, "nothing more from there");
    assert!(std::ptr::eq(rack.learned().unwrap(), &rack.first));
    assert_eq!(notices(&source.status()), ["stops", "kept"]);
    assert_eq!(count(&destination.knows(0), "early"), 1);
}

#[test]
fn a_guest_that_bounces_is_announced_early_on_either_host() {
    require!(lab, libvirt, tshark);
    let rack = Rack::build(Attachment::LinuxBridge);
    rack.guest().quiet().heavy(&rack.outer).start(&rack.first);
    let config = config(&rack, "key", KEY);
    let hosts = [&rack.first, &rack.second];
    let daemons = hosts.map(|host| Daemon::start(host, &config));
    for (host, daemon) in [(1, &daemons[1]), (0, &daemons[0])] {
        migrates(&rack, hosts[host], daemon);
        let reports = daemon.reports(2);
        let causes: Vec<_> = reports.iter().map(|report| report["cause"].as_str().unwrap()).collect();
        assert_eq!(causes, ["handover", "migrated"]);
        assert!(std::ptr::eq(rack.learned().unwrap(), hosts[host]));
    }
    let status = daemons[0].comes_to("the end by the source's word", |status| notices(status).len() == 4);
    assert_eq!(notices(&status), ["stops", "left", "stops", "left"]);
}

#[test]
fn a_daemon_that_dies_in_the_switch_over_leaves_the_calling_back_to_the_next() {
    require!(lab, libvirt, tshark);
    let rack = Rack::build(Attachment::LinuxBridge);
    rack.guest().quiet().heavy(&rack.outer).start(&rack.first);
    let config = config(&rack, "key", KEY);
    let (source, destination) = (Daemon::start(&rack.first, &config), Daemon::start(&rack.second, &config));
    let migration = stops(&rack, &rack.second, &destination);
    destination.reports(1);
    source.kill();
    let back = rack.wire(&rack.first);
    rack.second.sh("kill -KILL $(cat /run/libvirt/qemu/web1.pid)");
    assert_ne!(migration.finish().code, Some(0));

    let next = Daemon::start(&rack.first, &config);

    let report = next.comes_to("the calling back", |status| {
        status["recent"].as_array().unwrap().iter().any(|report| report["outcome"] == "announced")
    });
    assert_eq!(report["recent"].as_array().unwrap().last().unwrap()["cause"], "kept");
    assert_eq!(count(&report, "kept"), 1);
    assert!(back.count() >= 3 * 4);
}

#[test]
fn a_notice_with_another_key_changes_nothing_and_the_key_is_replaced_by_a_reload() {
    require!(lab, libvirt, tshark);
    let rack = Rack::build(Attachment::LinuxBridge);
    rack.guest().quiet().heavy(&rack.outer).start(&rack.first);
    let (here, there) = (config(&rack, "one", KEY), config(&rack, "two", &KEY.to_uppercase()));
    let (source, destination) = (Daemon::start(&rack.first, &here), Daemon::start(&rack.second, &there));
    assert_eq!(rack.migrate(&rack.second, &[]).code, Some(0));
    assert_eq!(destination.reports(1)[0]["cause"], "migrated");
    destination.program.stderr.line_with("no key of this host has signed it");
    let refused = |status: &Value| status["metrics"]["notices_refused"]["unauthenticated"].as_u64();
    assert_eq!(refused(&destination.comes_to("both notices", |status| refused(status) >= Some(2))), Some(2));
    assert_eq!(notices(&destination.status()), [""; 0]);

    source.reload(&there, "the configuration is reloaded");
    migrates(&rack, &rack.first, &source);
    assert_eq!(source.reports(2)[0]["cause"], "handover");
}
