//! `announce pause` and `announce resume`: an operator silences the host, and nothing that is owed is lost.

use std::thread::sleep;
use std::time::Duration;

use crate::testbed::daemon::{LONG, QUICK, restored};
use crate::testbed::{Attachment, Daemon, Place, Running, Site, now, require};

/// Long enough for several rounds to be missed.
const A_WHILE: Duration = Duration::from_millis(700);
/// Between two rounds of [`LONG`].
const GAP: Duration = Duration::from_millis(100);

fn paused_seconds(site: &Site) -> u64 {
    let metrics = site.host.announce(&["status", "--prometheus"]).stdout;
    let line = metrics.lines().find_map(|line| line.strip_prefix("announced_paused_seconds "));
    line.unwrap_or_else(|| panic!("{metrics}")).parse().unwrap()
}

#[test]
fn what_arrives_during_a_pause_is_announced_after_it_whichever_daemon_runs_then() {
    require!(lab, libvirt);
    let site = Site::ready(Attachment::LinuxBridge);
    let daemon = Daemon::start(&site.host, QUICK);
    let paused = site.host.announce(&["pause", "--for", "1h", "--reason", "switch replaced"]);
    assert_eq!(paused.code, Some(0), "{paused:?}");
    assert!(paused.stdout.starts_with("announced is paused until 20"), "{paused:?}");
    site.save();
    let wire = site.wire();
    site.restore("");
    daemon.comes_to("its ready port", |status| status["announcements"][0]["ready"] == true);
    assert!((3500..=3600).contains(&paused_seconds(&site)));
    let told = site.host.announce(&["status"]).stdout;
    assert!(
        told.contains("PAUSED since 20") && told.contains(": switch replaced; nothing is sent"),
        "{told}"
    );
    let said = daemon.terminate().stderr;
    assert!(said.contains("WARN announced is paused until 20"), "{said}");

    let daemon = Daemon::start(&site.host, QUICK);
    daemon.comes_to("its ready port, again", |status| status["announcements"][0]["ready"] == true);
    assert_eq!(daemon.status()["paused"]["reason"], "switch replaced");
    assert!(!wire.sees(1, A_WHILE), "nothing is sent by either");
    let resumed = site.host.announce(&["resume"]);
    assert_eq!(
        (resumed.code, resumed.stdout.as_str()),
        (Some(0), "announced sends again; 1 announcement under way\n")
    );
    let report = &daemon.reports(1)[0];
    assert_eq!((&report["outcome"], &report["rounds"]), (&"announced".into(), &3.into()), "{report:#}");
    assert_eq!((&report["cause"], paused_seconds(&site)), (&"restored".into(), 0));
    assert!(!wire.stop().is_empty());
    assert_eq!(site.host.announce(&["resume"]).stdout, "announced was not paused\n");
    let said = daemon.terminate().stderr;
    assert!(
        said.contains(", as before this start") && said.contains("an operator ended the pause"),
        "{said}"
    );
}

#[test]
fn an_announcement_under_way_stops_and_goes_on_with_the_gaps_of_its_schedule() {
    require!(lab, libvirt);
    let site = Site::ready(Attachment::LinuxBridge);
    let (daemon, wire) = restored(&site, LONG, "");
    assert!(wire.sees(10, crate::testbed::DEADLINE));
    assert_eq!(site.host.announce(&["pause"]).code, Some(0));
    let paused = now();
    sleep(A_WHILE);
    let frames = wire.stop();
    assert!(frames.iter().all(|frame| frame.at <= paused), "more during the pause: {frames:#?}");
    let by_hand = site.host.announce(&["web1", "--count", "1"]);
    assert_eq!(by_hand.code, Some(0));
    assert!(by_hand.stderr.contains("announced is paused on this host until 20"), "{by_hand:?}");

    let round = |status: &serde_json::Value| status["announcements"][0]["round"].as_u64().unwrap();
    let at_rest = round(&daemon.status());
    let (wire, asked) = (site.wire(), now());
    assert_eq!(site.host.announce(&["pause", "--for", "1s"]).code, Some(0), "another pause takes its place");
    let status = daemon.comes_to("three more rounds", |status| round(status) >= at_rest + 3);
    assert!(status["paused"].is_null(), "it has ended by itself: {status:#}");
    let frames = wire.stop();
    let rounds: Vec<_> = frames.iter().filter(|frame| frame.kind.name() == "rarp").collect();
    assert!(rounds.len() >= 3, "{frames:#?}");
    // Captures have another clock than the daemon.
    let noise = Duration::from_millis(5);
    for (number, round) in (0..).zip(rounds) {
        let due = asked + Duration::from_secs(1) + number * GAP;
        assert!(round.at + noise >= due, "what was missed is not sent all at once: {asked:?} {frames:#?}");
    }
    let said = daemon.terminate().stderr;
    assert!(said.contains("the pause has ended; 1 announcement under way"), "{said}");
}

#[test]
fn only_root_may_pause_and_for_four_hours_at_most() {
    require!(lab, libvirt);
    let site = Site::ready(Attachment::LinuxBridge);
    let daemon = Daemon::start(&site.host, QUICK);
    let mut nobody = site.host.command("setpriv");
    nobody.args([
        "--reuid=65534",
        "--regid=65534",
        "--clear-groups",
        env!("CARGO_BIN_EXE_announce"),
        "pause",
    ]);
    let refused = Running::start(&mut nobody).finish();
    assert_eq!(refused.code, Some(1), "{refused:?}");
    assert!(refused.stderr.contains("only root may do that"), "{refused:?}");
    let long = site.host.announce(&["pause", "--for", "5h"]);
    assert_eq!(long.code, Some(2), "{long:?}");
    assert!(long.stderr.contains("a pause lasts from 1s to 4h"), "{long:?}");
    assert!(daemon.status()["paused"].is_null());
    daemon.terminate();
    let none = site.host.announce(&["pause"]);
    assert!(none.stderr.contains("systemctl status announced"), "{none:?}");
}
