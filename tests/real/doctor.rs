//! `announce doctor`: each fault is told with its remedy, and what works is told, too.

use serde_json::Value;

use crate::testbed::daemon::QUICK;
use crate::testbed::{Attachment, Daemon, Place, Run, Running, Site, ovs, report, require};

/// The line about `what`.
fn line(run: &Run, what: &str) -> String {
    let found = run.stdout.lines().find(|line| line[4..].starts_with(&format!("  {what}")));
    found.unwrap_or_else(|| panic!("nothing about {what}: {run:#?}")).to_owned()
}

#[test]
fn on_a_healthy_host_everything_passes() {
    require!(lab, ovs, libvirt);
    let site = Site::ready(Attachment::Ovs);
    let wire = site.wire();
    let daemon = Daemon::start(&site.host, QUICK);
    daemon.knows(1);
    let run = site.host.announce(&["doctor"]);
    assert_eq!(run.code, Some(0), "{run:#?}");
    assert!(run.stdout.lines().all(|line| line.starts_with("PASS  ")), "{run:#?}");
    for what in [
        "configuration: ",
        "libvirt: 1 running VM with 1 NIC",
        "OVSDB: 1 bridge at ",
        "packet-out: can be used on 1 bridge",
        "capabilities: CAP_NET_ADMIN, CAP_BPF, CAP_NET_RAW",
        "redirect: ",
        "xdp: ",
        "proof: ",
        "web1 ",
        "announced: announced 0.",
    ] {
        line(&run, what);
    }
    let told = report(&site.host.announce(&["doctor", "--json"]));
    let findings = told["findings"].as_array().unwrap();
    assert_eq!(findings.len(), run.stdout.lines().count());
    assert!(findings.iter().all(|finding| finding["verdict"] == "pass" && finding["remedy"] == Value::Null));
    assert_eq!(wire.stop(), [], "a doctor sends nothing");
}

#[test]
fn each_fault_is_told_with_its_remedy_and_ends_no_other_check() {
    require!(lab, ovs, libvirt);
    let site = Site::ready(Attachment::Ovs);
    let doctor = |arguments: &[&str]| site.host.announce(&[&["doctor"], arguments].concat());
    let tells = |run: &Run, what: &str, begins: &str, remedy: &str| {
        let told = line(run, what);
        assert!(told.starts_with(begins) && told.ends_with(&format!(" ({remedy})")), "{told}");
    };

    let file = site.host.directory().join("bad.toml");
    std::fs::write(&file, "[schedule]\ncuont = 3\n").unwrap();
    let run = doctor(&["--config", file.to_str().unwrap()]);
    assert_eq!(run.code, Some(1), "{run:#?}");
    let mistake = format!("FAIL  configuration: {}:2:1: [schedule] has no key \"cuont\"", file.display());
    tells(&run, "configuration", &mistake, "the defaults are checked in its place");
    assert!(line(&run, "announced: ").starts_with("WARN  announced: announced does not answer at "));

    let tap = site.nic.tap();
    site.host.sh(&format!(
        "mv /run/openvswitch/br-int.mgmt /run/openvswitch/away; ovs-vsctl clear port {tap} tag"
    ));
    let run = doctor(&[]);
    tells(
        &run,
        "packet-out",
        "WARN  packet-out: br-int: cannot connect to ",
        "run as root; systemctl status ovs-vswitchd",
    );
    let told = line(&run, "web1 ");
    assert!(
        told.starts_with("WARN  web1 ") && told.contains("(neutron-openvswitch-agent has not bound it: "),
        "{told}"
    );

    let mut lacking = site.host.command("setpriv");
    lacking.args(["--inh-caps=-bpf,-sys_admin,-net_raw", "--bounding-set=-bpf,-sys_admin,-net_raw"]);
    let run = Running::start(lacking.args([env!("CARGO_BIN_EXE_announce"), "doctor"])).finish();
    tells(&run, "capabilities", "WARN  capabilities: CAP_BPF, CAP_NET_RAW missing", "run as root");
    assert!(line(&run, "redirect").ends_with("(needs CAP_BPF)"), "{run:#?}");
    tells(&run, "proof", "WARN  proof: cannot see frames pass: ", "run as root");

    let absent = site.host.directory().join("none.toml");
    std::fs::write(&absent, "[libvirt]\nuri = \"qemu:///system?socket=/run/none.sock\"\n").unwrap();
    ovs::stop(&site.host, "ovsdb-server");
    let run = doctor(&["--config", absent.to_str().unwrap()]);
    assert_eq!(run.code, Some(1), "{run:#?}");
    tells(&run, "libvirt", "FAIL  libvirt: ", "systemctl status libvirtd virtqemud; virsh -r list");
    let remedy = "run as root; systemctl status ovsdb-server openvswitch-switch";
    tells(&run, "OVSDB", "FAIL  OVSDB: cannot connect to ", remedy);
    line(&run, "redirect: ");
}
