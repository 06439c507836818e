//! The alert rules and the dashboard of `contrib/prometheus`, by Prometheus itself.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::common::daemon::QUICK;
use crate::common::{Attachment, Daemon, Place, Running, Site, eventually, require};

const FILES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/contrib/prometheus");

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
    let daemon = Daemon::start(&site.host, &format!("{QUICK}[metrics]\nlisten = \"127.0.0.1:9999\"\n"));
    site.save();
    site.restore("");
    daemon.reports(1);
    let directory = site.host.directory();
    let config = format!(
        "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: [{FILES}/announced.rules.yml]\n\
         scrape_configs: [{{job_name: announced, static_configs: [{{targets: ['127.0.0.1:9999']}}]}}]\n"
    );
    let file = directory.join("prometheus.yml");
    std::fs::write(&file, config).unwrap();
    let mut prometheus = site.host.command("prometheus");
    prometheus.arg("--web.listen-address=127.0.0.1:9090").arg("--config.file").arg(file);
    let _prometheus = Running::start(prometheus.arg("--storage.tsdb.path").arg(directory.join("prometheus")));

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
    let rules = eventually("an evaluation", || {
        let rules = ask(&site, "rules", "")["data"]["groups"][0]["rules"].as_array().cloned()?;
        rules.iter().all(|rule| rule["health"] != "unknown").then_some(rules)
    });
    for rule in rules {
        assert_eq!((&rule["health"], &rule["state"]), (&"ok".into(), &"inactive".into()), "{rule:#}");
    }
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
