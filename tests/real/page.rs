//! The daemon's page, over HTTP and in a browser.

use std::path::Path;
use std::process::Command;

use announced::for_tests::page::{self, Here};
use announced::for_tests::snapshot::Snapshot;
use serde_json::Value;

use crate::testbed::daemon::QUICK;
use crate::testbed::{Attachment, Daemon, Place, Running, Site, require};

const CONFIG: &str = "[metrics]\nlisten = \"127.0.0.1:9999\"\npage = true\n";
const URL: &str = "http://127.0.0.1:9999";

/// A site with a daemon that has announced its guest, and has done so before.
fn announced(site: &Site) -> Daemon<'_> {
    let daemon = Daemon::start(&site.host, &format!("{QUICK}{CONFIG}"));
    site.save();
    site.restore("");
    daemon.reports(1);
    daemon
}

fn get(site: &Site, path: &str) -> String {
    let mut curl = site.host.command("curl");
    let run = Running::start(curl.args(["--silent", "--include"]).arg(format!("{URL}{path}"))).finish();
    assert_eq!(run.code, Some(0), "{run:#?}");
    run.stdout.replace('\r', "")
}

#[test]
fn it_has_the_vms_and_their_timelines_and_forbids_scripts() {
    require!(lab, libvirt, curl);
    let site = Site::ready(Attachment::LinuxBridge);
    let _daemon = announced(&site);
    let page = get(&site, "/");
    let (head, body) = page.split_once("\n\n").unwrap();
    for header in [
        "content-type: text/html",
        "content-security-policy: default-src 'none'; style-src 'self'",
        "cache-control: no-store",
    ] {
        assert!(head.contains(header), "{header}: {head}");
    }
    for words in ["<h2>1 VM here</h2>", "<li>web1</li>", "class=\"announcement\"", "libvirt connected since "]
    {
        assert!(body.contains(words), "{words}: {body}");
    }
    assert!(!body.contains("<script") && !body.contains("style="), "{body}");
    assert!(get(&site, "/style.css").contains("content-type: text/css"));
    for path in ["/metrics", "/other"] {
        assert!(get(&site, path).contains("announced_build_info"), "{path}");
    }
    site.host.sh("virsh suspend web1");
    crate::testbed::eventually("the pause", || get(&site, "/").contains("web1 (paused)").then_some(()));
}

#[test]
#[ignore = "needs Chromium, which contrib/test does not install: cargo test --test real page:: -- --ignored"]
fn a_browser_applies_its_style_and_finds_nothing_that_the_policy_forbids() {
    require!(lab, libvirt, chromium);
    let site = Site::ready(Attachment::LinuxBridge);
    let _daemon = announced(&site);
    let mut chromium = site.host.command("chromium");
    let profile = site.host.directory().join("chromium");
    let run = Running::start(
        chromium
            .args(HEADLESS)
            .arg(format!("--user-data-dir={}", profile.display()))
            .args(["--enable-logging=stderr", "--dump-dom"])
            .arg(format!("{URL}/")),
    )
    .finish();
    assert!(run.stdout.contains("<h2>1 VM here</h2>"), "{run:#?}");
    let console: Vec<&str> = run.stderr.lines().filter(|line| line.contains("CONSOLE")).collect();
    assert_eq!(console, [""; 0], "{run:#?}");
}

const HEADLESS: [&str; 4] = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"];

/// Beside the page, in a frame of this width: how far it reaches beyond that, and which element does.
const MEASURE: &str = "<script>
const frame = document.querySelector('iframe');
frame.onload = () => {
  const width = frame.clientWidth, all = [...frame.contentDocument.querySelectorAll('body *')];
  const over = all.filter(one => one.closest('svg') === null || one.tagName === 'svg')
    .filter(one => one.getBoundingClientRect().right > width + 0.5 || one.scrollWidth > one.clientWidth + 1 && one.clientWidth > 0);
  const wide = frame.contentDocument.documentElement.scrollWidth > width;
  const styled = frame.contentWindow.getComputedStyle(frame.contentDocument.body).paddingLeft === '12px';
  document.title = 'measured ' + JSON.stringify({wide, styled, over: over.map(one => one.outerHTML.slice(0, 80))});
};
</script>";

#[test]
#[ignore = "needs Chromium, which contrib/test does not install: cargo test --test real page:: -- --ignored"]
fn five_hundred_vms_with_overlong_names_fit_on_a_telephone_and_on_a_wide_screen() {
    require!(lab, libvirt, chromium);
    let site = Site::ready(Attachment::LinuxBridge);
    let daemon = announced(&site);
    let mut status = daemon.status();
    let long = "a-name-without-any-blank-".repeat(12);
    let report = status["recent"][0].clone();
    let of = |n: usize, value: &Value| {
        let name = if n % 7 == 0 { format!("{n}{long}") } else { format!("vm-{n}.example.net") };
        let text = value.to_string().replace("\"web1\"", &format!("\"{name}\""));
        serde_json::from_str::<Value>(&text).unwrap()
    };
    let waits = serde_json::json!({
        "vm": "web1", "uuid": null, "mac": "52:54:00:00:00:01", "cause": "migrated", "event_at": "2026-11-25T17:34:46.293Z",
        "condition": "tag", "since": "2026-11-25T17:34:46.293Z", "device": "tap0",
        "unmet": [{"code": "tag", "text": "the port tap0 has no VLAN tag yet", "remedy": format!("look at {long}")}],
    });
    status["recent"] = (0..50).map(|n| of(n, &report)).collect();
    status["announcements"] = (0..500).map(|n| of(n, &waits)).collect();
    let status: Snapshot = serde_json::from_value(status).unwrap();
    let vms =
        (0..500).map(|n| Here { name: of(n, &"web1".into()).as_str().unwrap().into(), runs: n % 9 > 0 });
    let text = page::draw("host1.example.net", "2026-11-25T17:35:00.000Z", &status, &vms.collect::<Vec<_>>());

    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("style.css"), page::style()).unwrap();
    std::fs::write(directory.path().join("page.html"), &text).unwrap();
    for width in [360, 1600] {
        let found = measured(directory.path(), &text, width);
        assert_eq!(
            found,
            serde_json::json!({"wide": false, "styled": true, "over": []}),
            "{width}: {found:#}"
        );
    }
}

fn measured(directory: &Path, page: &str, width: u32) -> Value {
    let page = page.replace('&', "&amp;").replace('"', "&quot;");
    let frame = format!(
        "<iframe width=\"{width}\" height=\"900\" style=\"border:0\" srcdoc=\"{page}\"></iframe>{MEASURE}"
    );
    let file = directory.join(format!("{width}.html"));
    std::fs::write(&file, frame).unwrap();
    let mut chromium = Command::new("chromium");
    chromium.args(HEADLESS).arg(format!("--user-data-dir={}", directory.join("profile").display()));
    chromium.args(["--window-size=1700,1000", "--virtual-time-budget=5000", "--dump-dom"]).arg(&file);
    let run = Running::start(&mut chromium).finish();
    let title = run.stdout.split_once("<title>measured ").and_then(|(_, rest)| rest.split_once("</title>"));
    let title = title.unwrap_or_else(|| panic!("{run:#?}")).0;
    serde_json::from_str(&title.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")).unwrap()
}
