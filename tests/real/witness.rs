//! Neighbours that are not ours: Linux hosts beyond the uplink, whose memory of the guest is out of date.

use crate::testbed::{Attachment, IPV4, IPV6, Place, Site, eventually, require};

/// Where the neighbour believes the guest to be.
const ELSEWHERE: &str = "52:54:00:99:99:99";

#[test]
fn a_neighbour_believes_the_arp_request() {
    require!(lab, libvirt);
    corrects_the_neighbour(&["--send", "arp-request"], IPV4);
}

#[test]
fn a_neighbour_believes_the_arp_reply() {
    require!(lab, libvirt);
    corrects_the_neighbour(&["--send", "arp-reply"], IPV4);
}

#[test]
fn a_neighbour_believes_the_neighbour_advertisement() {
    require!(lab, libvirt);
    corrects_the_neighbour(&["--send", "na"], IPV6);
}

#[test]
fn a_neighbour_believes_neither_rarp_nor_what_is_of_no_concern() {
    require!(lab, libvirt);
    let site = with_neighbour(IPV4);
    let run = site.announce(&["--send", "rarp,na"]);
    assert_eq!(run.code, Some(0), "{run:#?}");
    assert_eq!(known(&site, IPV4), ELSEWHERE);
}

fn corrects_the_neighbour(send: &[&str], ip: &str) {
    let site = with_neighbour(ip);

    let run = site.announce(send);

    assert_eq!(run.code, Some(0), "{run:#?}");
    eventually("the neighbour's correction", || (known(&site, ip) == site.nic.mac).then_some(()));
}

/// Beyond the uplink, a host as it comes: it makes no entry from an announcement (`arp_accept=0`), but keeps
/// those that it has up to date.
fn with_neighbour(ip: &str) -> Site {
    let site = Site::ready(Attachment::LinuxBridge);
    site.host.wire().sh(&format!(
        "echo 0 >/proc/sys/net/ipv6/conf/wire0/disable_ipv6
         echo 0 >/proc/sys/net/ipv4/conf/wire0/arp_accept
         ip address add 192.0.2.254/24 dev wire0
         ip address add 2001:db8::254/64 dev wire0 nodad
         ip neighbour replace {ip} lladdr {ELSEWHERE} dev wire0 nud stale"
    ));
    assert_eq!(known(&site, ip), ELSEWHERE);
    site
}

/// The MAC that the neighbour knows for an address.
fn known(site: &Site, ip: &str) -> String {
    let entry = site.host.wire().sh(&format!("ip neighbour show {ip} dev wire0"));
    let mut words = entry.split_whitespace().skip_while(|word| *word != "lladdr").skip(1);
    words.next().unwrap_or_default().to_owned()
}
