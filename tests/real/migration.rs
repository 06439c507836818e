//! Real live migrations between two hosts, each with its own daemon: what leaves their uplinks, counted.

use std::time::Duration;

use crate::testbed::daemon::{LONG, QUICK, has_announced_nothing, is_announced, is_announced_at};
use crate::testbed::{
    Attachment, DEADLINE, Daemon, Place, Rack, Run, VLAN, guest, kinds, ovs, require, sent, timed,
};

fn succeeds(migration: &Run) {
    assert_eq!(migration.code, Some(0), "{migration:#?}");
    println!("the migration took {:?}", migration.took);
}

#[test]
fn a_guest_that_migrates_is_announced_where_it_arrives() {
    require!(lab, libvirt, tshark);
    let rack = Rack::build(Attachment::LinuxBridge);
    rack.guest().quiet().start(&rack.first);
    let (source, destination) = (Daemon::start(&rack.first, QUICK), Daemon::start(&rack.second, QUICK));
    let (left, arrives) = (rack.wire(&rack.first), rack.wire(&rack.second));

    succeeds(&rack.migrate(&rack.second, &[]));

    let report = &destination.reports(1)[0];
    is_announced(&rack.nic, None, &arrives.stop(), report, "migrated");
    has_announced_nothing(&source.knows(0));
    assert_eq!(left.stop(), []);
    assert!(std::ptr::eq(rack.learned().unwrap(), &rack.second));
}

#[test]
fn a_guest_that_migrates_back_in_mid_burst_is_announced_where_it_is() {
    require!(lab, libvirt, tshark);
    let rack = Rack::build(Attachment::LinuxBridge);
    rack.guest().quiet().start(&rack.first);
    // Its last round comes when the second host has fallen silent, however slow that is to hear that the guest has left.
    let long_enough = "[schedule]\ncount = 3\ninterval = \"2s\"\n";
    let (first, second) = (Daemon::start(&rack.first, long_enough), Daemon::start(&rack.second, LONG));
    let there = rack.wire(&rack.second);
    succeeds(&rack.migrate(&rack.second, &[]));
    assert!(there.sees(8, DEADLINE));
    first.knows(0);
    let back = rack.wire(&rack.first);

    succeeds(&rack.migrate(&rack.first, &[]));

    assert_eq!(second.reports(1)[0]["outcome"], "cancelled");
    second.knows(0);
    let after = rack.wire(&rack.second);
    let report = &first.reports(1)[0];
    let (there, back) = (there.stop(), back.stop());
    is_announced_at(&[0, 2000, 4000], &rack.nic, None, &back, report, "migrated");
    let last = there.last().unwrap().at;
    println!(
        "the second host's last word came {:?} before the first host's first",
        back[0].at.saturating_sub(last)
    );
    assert!(last < back.last().unwrap().at, "the host that the guest has left went on speaking");
    assert_eq!(after.stop(), []);
    assert!(std::ptr::eq(rack.learned().unwrap(), &rack.first));
}

#[test]
fn a_guest_that_arrives_paused_is_announced_when_it_goes_on() {
    require!(lab, libvirt, tshark);
    let rack = Rack::build(Attachment::LinuxBridge);
    rack.guest().quiet().start(&rack.first);
    let destination = Daemon::start(&rack.second, QUICK);
    let arrives = rack.wire(&rack.second);
    succeeds(&rack.migrate(&rack.second, &["--suspend"]));
    has_announced_nothing(&destination.knows(1));
    let resumed = timed(&rack.second, "virsh --quiet resume web1");

    let report = &destination.reports(1)[0];
    let frames = arrives.stop();
    assert!(frames[0].at > resumed, "{:?} too early", resumed - frames[0].at);
    is_announced(&rack.nic, None, &frames, report, "migrated");
}

#[test]
fn a_guest_is_announced_at_the_switch_over_of_post_copy() {
    require!(lab, libvirt, tshark);
    let rack = Rack::build(Attachment::LinuxBridge);
    rack.guest().quiet().heavy(&rack.outer).start(&rack.first);
    let (source, destination) = (Daemon::start(&rack.first, QUICK), Daemon::start(&rack.second, QUICK));
    let (left, arrives) = (rack.wire(&rack.first), rack.wire(&rack.second));
    // Half a minute, in which the switch-over must be asked for.
    let how = ["--postcopy", "--bandwidth", "1", "--postcopy-bandwidth", "16"];
    let migration = rack.start_migration(&rack.second, &how);
    destination.knows(1);
    rack.first.sh("until virsh domjobinfo web1 | grep -q 'Memory processed: *[0-9.]* MiB'; do :; done
                   virsh migrate-postcopy web1");

    let report = &destination.reports(1)[0];
    println!("the migration is {}", if migration.is_running() { "still going on" } else { "over" });
    succeeds(&migration.finish());
    rack.second.sh("virsh destroy web1");
    let status = destination.knows(0);
    assert_eq!(status["metrics"]["events"]["migrated"], 1, "announced once");
    is_announced(&rack.nic, None, &arrives.stop(), report, "migrated");
    has_announced_nothing(&source.knows(0));
    assert_eq!(left.stop(), []);
}

#[test]
fn a_migration_that_is_cancelled_or_fails_announces_nothing() {
    require!(lab, libvirt, tshark);
    let rack = Rack::build(Attachment::LinuxBridge);
    rack.guest().quiet().heavy(&rack.outer).start(&rack.first);
    let (source, destination) = (Daemon::start(&rack.first, QUICK), Daemon::start(&rack.second, QUICK));
    let (left, arrives) = (rack.wire(&rack.first), rack.wire(&rack.second));
    for end in ["cancelled", "libvirtd crashes"] {
        let migration = rack.start_migration(&rack.second, &["--bandwidth", "1"]);
        destination.knows(1);
        if end == "cancelled" {
            rack.first.sh("until virsh domjobabort web1; do :; done");
        } else {
            guest::restart_libvirtd(&rack.second);
        }
        let migration = migration.finish();
        assert_ne!(migration.code, Some(0), "{migration:#?}");
        has_announced_nothing(&destination.knows(0));
        has_announced_nothing(&source.knows(1));
        assert_eq!(rack.first.sh("virsh domstate web1").trim(), "running");
    }
    assert_eq!((left.stop(), arrives.count()), (Vec::new(), 0));

    succeeds(&rack.migrate(&rack.second, &[]));
    let report = &destination.reports(1)[0];
    is_announced(&rack.nic, None, &arrives.stop(), report, "migrated");
}

#[test]
fn a_port_that_neutron_binds_late_is_waited_for_through_a_restart_of_libvirtd() {
    require!(lab, ovs, libvirt, tshark);
    let rack = Rack::build(Attachment::Ovs);
    // QEMU speaks, too, and too early: five RARPs, before the port has its VLAN.
    rack.guest().start(&rack.first);
    ovs::bind(&rack.first, &rack.nic.tap(), VLAN);
    let destination = Daemon::start(&rack.second, QUICK);
    let arrives = rack.wire(&rack.second);
    succeeds(&rack.migrate(&rack.second, &[]));
    destination.is_at(1);
    assert!(arrives.sees(5, DEADLINE));
    guest::restart_libvirtd(&rack.second);

    ovs::bind(&rack.second, &rack.nic.tap(), VLAN);

    let report = &destination.reports(1)[0];
    assert!(arrives.sees(5 + sent(report), DEADLINE), "{report:#}");
    let (qemu, ours): (Vec<_>, Vec<_>) = arrives.stop().into_iter().partition(|frame| frame.vlan.is_none());
    assert_eq!(kinds(&qemu), ["rarp"; 5]);
    is_announced(&rack.nic, Some(VLAN), &ours, report, "migrated");
    let late = Duration::from_secs_f64(report["ready_after_ms"].as_f64().unwrap() / 1000.0);
    println!("the port was ready {late:?} after the guest ran");
    assert_eq!(ovs::learned(&rack.second, "br-int", &rack.nic.mac), Some((rack.nic.tap(), VLAN)));
}
