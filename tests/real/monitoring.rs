//! The alert rules and the dashboard of `contrib/prometheus`, by Prometheus itself.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::testbed::daemon::{CALM, QUICK};
use crate::testbed::{Attachment, Daemon, Place, Running, Site, eventually, require};

const FILES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/contrib/prometheus");

const LISTEN: &str = "[metrics]\nlisten = \"127.0.0.1:9999\"\n";

#[test]
fn each_alert_fires_and_resolves() {
    require!(prometheus);
    for command in [["check", "rules", "announced.rules.yml"], ["test", "rules", "announced.rules.test.yml"]]
    {
        let run = Running::start(Command::new("promtool").current_dir(FILES).args(command)).finish();
        assert_eq!(run.code, Some(0), "{run:#?}");
    }
}

#[test]
fn every_expression_has_data_of_a_real_daemon() {
    require!(lab, libvirt, curl, prometheus);
    let site = Site::ready(Attachment::LinuxBridge);
    let daemon = Daemon::start(&site.host, &format!("{QUICK}{LISTEN}"));
    site.save();
    site.restore("");
    daemon.reports(1);
    let _prometheus = prometheus(&site, &Path::new(FILES).join("announced.rules.yml"));

    eventually("two scrapes", || {
        let count = ask(&site, "query", "count_over_time(announced_build_info[1h])");
        count["data"]["result"][0]["value"][1].as_str().is_some_and(|count| count != "1").then_some(())
    });
    for expression in expressions(&Path::new(FILES).join("announced.dashboard.json")) {
        let expression = expression.replace("$instance", ".+").replace("$__rate_interval", "1m");
        let answer = ask(&site, "query", &expression);
        let result = answer["data"]["result"].as_array();
        assert!(result.is_some_and(|result| !result.is_empty()), "{expression}: {answer:#}");
    }
    // A scrape that takes a second has failed, and makes an alert pending until the next one.
    eventually("an evaluation, and nothing to tell", || {
        let rules = ask(&site, "rules", "")["data"]["groups"][0]["rules"].as_array().cloned()?;
        let is_quiet = |rule: &Value| rule["health"] == "ok" && rule["state"] == "inactive";
        (!rules.is_empty() && rules.iter().all(is_quiet)).then_some(())
    });
}

/// A late port, frames that do not leave, a network that does not answer, and a daemon that is gone: for each an alert fires, and
/// resolves.
#[test]
fn alerts_fire_by_what_a_real_daemon_tells_and_resolve() {
    require!(lab, ovs, libvirt, curl, prometheus);
    let site = Site::build(Attachment::Ovs);
    let config = format!("{CALM}{LISTEN}");
    let daemon = Daemon::start(&site.host, &config);
    let rules = site.host.directory().join("quick.rules.yml");
    std::fs::write(&rules, quick(&std::fs::read_to_string(format!("{FILES}/announced.rules.yml")).unwrap()))
        .unwrap();
    let _prometheus = prometheus(&site, &rules);
    let comes = |what: &str, is: &dyn Fn(&[Alert]) -> bool| {
        eventually(what, || alerts(&site).filter(|alerts| is(alerts)));
    };
    let waits_for = |condition: &str| {
        let alert = ("AnnouncedWaiting".to_owned(), condition.to_owned());
        move |alerts: &[Alert]| alerts.contains(&alert)
    };
    let fires = |name: &'static str| move |alerts: &[Alert]| alerts.iter().any(|alert| alert.0 == name);
    comes("the rules, and nothing to tell", &|alerts| alerts.is_empty());

    site.save();
    site.restore("");
    comes("the late port", &waits_for("tag"));
    site.host.sh("ovs-ofctl add-flow br-int priority=100,actions=drop");
    site.bind();
    comes("frames that do not leave", &waits_for("departure"));
    comes("the port's end of waiting", &|alerts| !waits_for("tag")(alerts));
    site.host.sh("ovs-ofctl --strict del-flows br-int priority=100");
    daemon.reports(1);
    comes("lost rounds, and no answer", &|alerts| {
        fires("AnnouncedRoundsLost")(alerts) && fires("AnnouncedUnanswered")(alerts)
    });
    comes("the departure", &|alerts| !fires("AnnouncedWaiting")(alerts));
    daemon.terminate();
    comes("the daemon's absence", &fires("AnnouncedDown"));
    let _daemon = Daemon::start(&site.host, &config);
    comes("the end of all that", &|alerts| alerts.is_empty());
}

/// A rule's name, and the condition that it tells of.
type Alert = (String, String);

/// The alerts that fire; `None` before the rules were looked at.
fn alerts(site: &Site) -> Option<Vec<Alert>> {
    let rules = ask(site, "rules", "")["data"]["groups"][0]["rules"].as_array().cloned()?;
    if rules.iter().any(|rule| rule["health"] != "ok") {
        return None;
    }
    let alerts = rules.iter().flat_map(|rule| rule["alerts"].as_array().cloned().unwrap_or_default());
    let firing = alerts.filter(|alert| alert["state"] == "firing");
    let label = |alert: &Value, name: &str| alert["labels"][name].as_str().unwrap_or_default().to_owned();
    Some(firing.map(|alert| (label(&alert, "alertname"), label(&alert, "condition"))).collect())
}

/// The same rules, for tests that last seconds: what takes minutes there takes seconds, and less is enough.
fn quick(rules: &str) -> String {
    let mut rules = rules.to_owned();
    for (from, to) in [
        ("for: 5m", "for: 1s"),
        ("for: 2m", "for: 1s"),
        ("[15m]", "[6s]"),
        ("[1h]", "[6s]"),
        ("> 100", "> 1"),
        (">= 10", "> 0"),
    ] {
        assert!(rules.contains(from), "{from}: {rules}");
        rules = rules.replace(from, to);
    }
    rules
}

/// A Prometheus that scrapes the daemon each second, with these rules.
fn prometheus(site: &Site, rules: &Path) -> Running {
    let directory = site.host.directory();
    let config = format!(
        "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: [{}]\n\
         scrape_configs: [{{job_name: announced, static_configs: [{{targets: ['127.0.0.1:9999']}}]}}]\n",
        rules.display()
    );
    let file = directory.join("prometheus.yml");
    std::fs::write(&file, config).unwrap();
    let mut prometheus = site.host.command("prometheus");
    prometheus.arg("--web.listen-address=127.0.0.1:9090").arg("--config.file").arg(file);
    Running::start(prometheus.arg("--storage.tsdb.path").arg(directory.join("prometheus")))
}

/// What Prometheus answers (its HTTP API, version 1); `Null` before it listens.
fn ask(site: &Site, endpoint: &str, query: &str) -> Value {
    let mut curl = site.host.command("curl");
    curl.args(["--silent", "--get", "--data-urlencode", &format!("query={query}")]);
    let run = Running::start(curl.arg(format!("http://127.0.0.1:9090/api/v1/{endpoint}"))).finish();
    serde_json::from_str(&run.stdout).unwrap_or_default()
}

fn expressions(dashboard: &Path) -> Vec<String> {
    let dashboard: Value = serde_json::from_slice(&std::fs::read(dashboard).unwrap()).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let targets = panels.flat_map(|panel| panel["targets"].as_array().unwrap());
    targets.map(|target| target["expr"].as_str().unwrap().to_owned()).collect()
}
