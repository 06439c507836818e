//! What `announce status` and the metrics tell while things go wrong, and afterwards.

use crate::testbed::daemon::{CALM, QUICK};
use crate::testbed::{Attachment, Daemon, Place, Site, VLAN, ovs, require};
use nix::sys::signal::Signal;
use serde_json::Value;

/// A host on which nothing else happens: only OVSDB's own coming and going can bring the news.
#[test]
fn a_lost_ovsdb_shows_at_once_in_status_and_metrics() {
    require!(lab, ovs, libvirt);
    let site = Site::build(Attachment::Ovs);
    let daemon = Daemon::start(&site.host, QUICK);
    daemon.knows(1);
    let metric = || site.host.announce(&["status", "--prometheus"]).stdout;
    assert!(metric().contains("announced_connected{peer=\"ovsdb\"} 1\n"), "{}", metric());

    ovs::stop(&site.host, "ovsdb-server");
    let status = daemon.comes_to("the loss of OVSDB", |status| status["gauges"]["ovsdb"] == false);
    let peer = peer(&status, "ovsdb");
    assert_eq!(peer["connected"], false);
    assert!(peer["since"].is_string() && peer["why"].is_string(), "{peer:#}");
    assert!(metric().contains("announced_connected{peer=\"ovsdb\"} 0\n"), "{}", metric());
    let told = site.host.announce(&["status"]).stdout;
    assert!(told.contains("OVSDB NOT connected since 20"), "{told}");

    ovs::start_ovsdb(&site.host);
    daemon.comes_to("OVSDB", |status| status["gauges"]["ovsdb"] == true);
    assert!(metric().contains("announced_connected{peer=\"ovsdb\"} 1\n"), "{}", metric());
    let said = daemon.terminate().stderr;
    assert_eq!(said.matches("INFO connected to OVSDB at ").count(), 1, "{said}");
}

#[test]
fn an_announcement_under_way_tells_what_it_waits_for_and_which_round_is_on() {
    require!(lab, ovs, libvirt);
    let site = Site::build(Attachment::Ovs);
    let daemon = Daemon::start(&site.host, CALM);
    site.save();
    site.restore("");
    let status = daemon
        .comes_to("the wait for the tag", |status| status["announcements"][0]["unmet"][0]["code"] == "tag");
    let waiting = &status["announcements"][0];
    assert_eq!((waiting["vm"].as_str(), waiting["cause"].as_str()), (Some("web1"), Some("restored")));
    assert_eq!(waiting["device"], site.nic.device("tap"));
    assert!(waiting["since"].is_string() && waiting["event_at"].is_string(), "{waiting:#}");
    assert_eq!(
        (&waiting["ready"], &waiting["round"], &waiting["rounds"]),
        (&false.into(), &0.into(), &3.into())
    );
    let told = site.host.announce(&["status", "web1"]);
    assert_eq!(told.code, Some(0));
    assert!(
        told.stdout.contains(": restored at 20") && told.stdout.contains(" has no VLAN tag yet"),
        "{told:?}"
    );

    site.bind();
    daemon.reports(1);
    let said = daemon.terminate().stderr;
    let positions =
        ["announced 0.", "restored; waiting", "ready after ", ": announced in VLAN", " stops: SIGTERM"]
            .map(|words| said.find(words).unwrap_or_else(|| panic!("{words} is not in {said}")));
    assert!(positions.is_sorted(), "the log tells of transitions in their order: {said}");
}

#[test]
fn the_history_outlives_the_daemon_and_has_announcements_by_hand() {
    require!(lab, ovs, libvirt);
    let site = Site::build(Attachment::Ovs);
    site.bind();
    let daemon = Daemon::start(&site.host, QUICK);
    site.save();
    site.restore("");
    site.bind();
    daemon.reports(1);
    assert_eq!(daemon.terminate().code, Some(0));

    let daemon = Daemon::start(&site.host, QUICK);
    let by_hand = site.host.announce(&["web1", "--count", "1"]);
    assert_eq!(by_hand.code, Some(0), "{by_hand:?}");
    assert_eq!(daemon.status()["recent"], Value::Array(Vec::new()), "the daemon's own, since its start");
    let told = site.host.announce(&["status", "web1", "--json"]).stdout;
    let causes: Vec<Value> =
        told.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["cause"].clone()).collect();
    assert_eq!(causes, ["restored", "asked"]);
    for line in told.lines() {
        let report: Value = serde_json::from_str(line).unwrap();
        let left = report["round_times"].as_array().unwrap().iter().filter(|round| round["left"] == true);
        let left: Vec<f64> = left.map(|round| round["after_ms"].as_f64().unwrap()).collect();
        assert_eq!(Some(left.len() as u64), report["rounds"].as_u64(), "{report:#}");
        assert!(left.windows(2).all(|pair| pair[0] < pair[1]), "each at its own time: {report:#}");
    }
    let pictures = |arguments: &[&str]| {
        let svg = site.host.announce(&[&["status", "web1", "--svg"], arguments].concat()).stdout;
        roxmltree::Document::parse(&svg).unwrap_or_else(|error| panic!("{error}: {svg}"));
        svg.matches("class=\"announcement\"").count()
    };
    assert_eq!((pictures(&[]), pictures(&["-n", "2"])), (1, 2), "the last one of each NIC, or so many");
    let table = site.host.announce(&["status"]).stdout;
    let vlan = format!("in VLAN {VLAN}");
    assert_eq!(
        table.lines().filter(|line| line.contains("web1") && line.contains(&vlan)).count(),
        2,
        "{table}"
    );

    daemon.terminate();
    let of_one = site.host.announce(&["status", "web1", "--json"]);
    assert_eq!((of_one.code, of_one.stdout.lines().count()), (Some(1), 2), "{of_one:#?}");
    let of_none = site.host.announce(&["status", "web2"]);
    assert!(of_none.stderr.contains("no announcement of web2 is remembered on this host"), "{of_none:#?}");
    assert_eq!(of_none.stdout, "");
}

#[test]
fn a_configuration_that_is_not_in_use_is_told() {
    require!(lab, libvirt);
    let site = Site::build(Attachment::LinuxBridge);
    let daemon = Daemon::start(&site.host, QUICK);
    let head = || site.host.announce(&["status"]).stdout.lines().next().unwrap_or_default().to_owned();
    let metric = || site.host.announce(&["status", "--prometheus"]).stdout;
    assert!(head().starts_with("announced 0.") && !head().contains("CHANGED"), "{}", head());
    assert!(metric().contains("announced_config_last_reload_successful 1\n"));
    daemon.reload("[schedule]\ncuont = 3\n", "stays in effect");
    assert!(head().contains("LAST RELOAD FAILED: ") && head().contains("did you mean count?"), "{}", head());
    assert!(metric().contains("announced_config_last_reload_successful 0\n"));
    daemon.reload(QUICK, "is reloaded");
    assert!(!head().contains("RELOAD"), "{}", head());
    site.host.sh(&format!("echo '# later' >> {}/announced.toml", site.host.directory().display()));
    assert!(head().contains("THE FILE HAS CHANGED SINCE"), "{}", head());
}

/// "Is it working at all on this host?"
#[test]
fn a_host_is_checked_line_by_line() {
    require!(lab, ovs, libvirt);
    let site = Site::ready(Attachment::Ovs);
    let wire = site.wire();
    let daemon = Daemon::start(&site.host, QUICK);
    daemon.knows(1);
    let check = || site.host.announce(&["check", "--host"]);
    let line = |what: &str| {
        let told = check().stdout;
        told.lines()
            .find(|line| line.contains(&format!("  {what}")))
            .unwrap_or_else(|| panic!("{told}"))
            .to_owned()
    };
    let tap = site.nic.tap();
    let healthy = check();
    assert_eq!(healthy.code, Some(0), "{healthy:#?}");
    assert_eq!(line("libvirt: "), "PASS  libvirt: 1 running VM with 1 NIC to announce");
    assert!(line("OVSDB: ").starts_with("PASS  OVSDB: 1 bridge at "));
    assert_eq!(line("redirect: "), "PASS  redirect: can be used");
    let path = format!("{tap} -> br-int -> up0, by packet-out");
    assert!(line("web1 ").starts_with("PASS  web1 ") && line("web1 ").ends_with(&path), "{}", line("web1 "));
    assert!(line("announced: ").starts_with("PASS  announced: announced 0."), "{}", line("announced: "));

    site.host.sh("ovs-ofctl add-flow br-int priority=100,rarp,actions=drop");
    let rarp = "rarp would not leave the host: br-int table 0: priority=100,rarp actions=drop";
    assert!(line("web1 ").starts_with("WARN") && line("web1 ").ends_with(rarp), "{}", line("web1 "));
    site.host.sh("ovs-ofctl del-flows br-int rarp; ovs-vsctl set port up0 trunks=200");
    let uplink =
        ": no frame would leave the host: the uplink up0 does not carry VLAN 100 (trunks: 200); br-int ";
    assert!(line("web1 ").starts_with("FAIL") && line("web1 ").contains(uplink), "{}", line("web1 "));
    site.host.sh("ovs-vsctl clear port up0 trunks");

    site.host.sh(&format!("ovs-vsctl clear port {tap} tag"));
    assert!(line("web1 ").starts_with("WARN  web1 ") && line("web1 ").contains("has no VLAN tag yet"));
    daemon.terminate();
    assert!(line("announced: ").starts_with("WARN  announced: announced does not answer at "));
    ovs::stop(&site.host, "ovsdb-server");
    let lame = check();
    assert_eq!(lame.code, Some(1), "{lame:#?}");
    assert!(line("OVSDB: ").starts_with("FAIL  OVSDB: "));
    assert_eq!(wire.stop(), [], "a check sends nothing");
}

#[test]
fn a_watch_into_a_pipe_has_a_line_for_each_change() {
    require!(lab, libvirt);
    let site = Site::ready(Attachment::LinuxBridge);
    let daemon = Daemon::start(&site.host, QUICK);
    let watch = site.host.start_announce(&["status", "--watch"]);
    watch.stdout.line_with(" libvirt connected since 20");
    site.save();
    site.restore("");
    watch.stdout.line_with(", first frame after ");
    daemon.terminate();
    watch.stdout.line_with(" does not answer at ");
    watch.signal(Signal::SIGTERM);
    let run = watch.finish();
    assert_eq!(run.code, Some(0), "{run:?}");
    assert!(!run.stdout.contains('\u{1b}'), "{run:?}");
}

fn peer<'a>(status: &'a Value, name: &str) -> &'a Value {
    status["peers"].as_array().unwrap().iter().find(|peer| peer["peer"] == name).unwrap()
}
