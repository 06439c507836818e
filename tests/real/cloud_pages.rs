//! The pages of `contrib/clouds`: each command in them runs on a host of that kind, and each configuration is one.

use crate::testbed::daemon::CALM;
use crate::testbed::ovn::is_installed;
use crate::testbed::{
    Attachment, Daemon, Guest, Host, IPV4, Nic, Ovn, Place, Plug, Site, guest, ovs, require,
};

const PAGES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/contrib/clouds");
const OPENNEBULA: &str = "<metadata><one:vm xmlns:one='http://opennebula.org/xmlns/libvirt/1.0'/></metadata>";

/// The blocks of a page in this language.
fn blocks(page: &str, language: &str) -> Vec<String> {
    let page = std::fs::read_to_string(format!("{PAGES}/{page}.md")).unwrap();
    let begin = format!("```{language}\n");
    let parts = page.split(&begin).skip(1);
    parts.map(|part| part.split("```").next().unwrap().to_owned()).collect()
}

/// The commands of the page do what they are to do beside the guest `web1` of `host`, and its configurations are accepted.
fn holds(page: &str, host: &Host) {
    let daemon = Daemon::start(host, CALM);
    daemon.knows(1);
    let programs =
        std::path::Path::new(env!("CARGO_BIN_EXE_announce")).parent().unwrap().display().to_string();
    let commands: Vec<String> =
        blocks(page, "sh").iter().flat_map(|block| block.lines()).map(str::to_owned).collect();
    assert!(commands.len() >= 4, "{page}: {commands:?}");
    for command in commands {
        let said = host.sh(&format!("PATH={programs}:$PATH\n{command}"));
        assert!(!said.trim().is_empty(), "{page}: {command} says nothing");
        println!("{page}: {command}\n{said}");
    }
    for block in blocks(page, "toml") {
        let file = host.directory().join("page.toml");
        std::fs::write(&file, &block).unwrap();
        let run = host.announce(&["check", file.to_str().unwrap()]);
        assert_eq!(run.code, Some(0), "{page}: {block}: {run:?}");
    }
}

#[test]
fn every_page_has_a_test() {
    let pages =
        std::fs::read_dir(PAGES).unwrap().map(|page| page.unwrap().file_name().into_string().unwrap());
    let mut pages: Vec<String> = pages.collect();
    pages.sort();
    assert_eq!(pages, ["evpn.md", "libvirt.md", "opennebula.md", "openstack-ovn.md", "openstack-ovs.md"]);
}

#[test]
fn plain_libvirt() {
    require!(lab, libvirt);
    holds("libvirt", &Site::ready(Attachment::LinuxBridge).host);
}

#[test]
fn openstack_with_open_vswitch() {
    require!(lab, ovs, libvirt);
    holds("openstack-ovs", &Site::ready(Attachment::Ovs).host);
}

#[test]
fn openstack_with_ovn() {
    require!(lab, ovs, ovn, libvirt);
    let ovn = Ovn::with_libvirt();
    ovn.port("provider", &ovn.nic, "h1");
    Guest::new("web1").nova().nic(&ovn.nic).start(&ovn.first);
    is_installed(&ovn.first, &ovn.nic);
    ovn.settle();
    holds("openstack-ovn", &ovn.first);
}

#[test]
fn opennebula() {
    require!(lab, ovs, libvirt);
    let host = Host::build().ovs().libvirt().start();
    ovs::bridge(&host, "br-int");
    let nic = Nic::new(10, Plug::Ovs("br-int")).address(IPV4);
    let xml = Guest::new("web1").quiet().nic(&nic).xml();
    guest::virsh(&host, "create", &xml.replace("<memory ", &format!("{OPENNEBULA}<memory ")));
    // As its driver does after the VM has started.
    ovs::bind(&host, &nic.tap(), 100);
    holds("opennebula", &host);
}

/// Filtering by VLAN is not in every kernel; `tests/vm` has it.
#[test]
fn a_bridge_before_an_evpn_fabric() {
    require!(lab, libvirt);
    holds("evpn", &Site::ready(Attachment::LinuxBridge).host);
}
