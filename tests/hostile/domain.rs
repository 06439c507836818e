//! Broken domain XML: it is read, or refused in one line, and names no address that is not in it.

use std::net::IpAddr;
use std::time::Duration;

use announced::for_tests::address::{Source, believed};
use announced::for_tests::domain::Domain;
use announced::for_tests::target;
use proptest::prelude::*;

use crate::bytes::{changed, changes};
use crate::{always, cpu_time, is_one_line};

const XML: &str = include_str!("../data/nova-domain.xml");

/// What is put into the XML, or in the place of an attribute's value.
const POISON: &[&str] = &[
    "",
    "\n",
    "<",
    "&",
    "&amp;",
    "&boom;",
    "&#0;",
    "&#10;",
    "&#x1b;[2J",
    "]]>",
    "<![CDATA[",
    "<!--",
    "<?xml version='1.1'?>",
    "<!DOCTYPE d [<!ENTITY boom 'boom'>]>",
    "<!DOCTYPE d [<!ENTITY a '&b;&b;'><!ENTITY b '&a;&a;'>]>",
    "<!DOCTYPE d SYSTEM 'file:///etc/shadow'>",
    "xmlns:nova='urn:x'",
    "xmlns='http://openstack.org/xmlns/libvirt/nova/1.1'",
    "<domain>",
    "</devices>",
    "<interface>",
    "fixed",
    "floating",
    "bridge",
    "vhostuser",
    "4095",
    "4096",
    "-1",
    "99999999999999999999999999",
    "127.0.0.1",
    "::1",
    "0.0.0.0",
    "::",
    "224.0.0.251",
    "ff02::1",
    "255.255.255.255",
    "::ffff:127.0.0.1",
    "::ffff:224.0.0.1",
    "192.0.2.1/24",
    "fe80::1%eth0",
    "ff:ff:ff:ff:ff:ff",
    "00:00:00:00:00:00",
    "6f7d3c1a-1ß1",
    "tap\u{1F600}",
    "\u{0085}",
    "\u{FEFF}",
];

/// A floating address is translated elsewhere: the guest does not own it.
#[test]
fn ten_thousand_broken_domains_are_read_or_refused() {
    always(10_000, changes(POISON), |changes| {
        let bytes = changed(XML.as_bytes(), &changes);
        let xml = String::from_utf8_lossy(&bytes);
        match Domain::parse(&xml) {
            Err(error) => prop_assert!(is_one_line(&error.to_string()), "{error:?}: {error}"),
            Ok(domain) => targets_are_sound(&xml, &domain)?,
        }
        Ok(())
    });
}

fn targets_are_sound(xml: &str, domain: &Domain) -> Result<(), TestCaseError> {
    let nics = target::of(domain, |_| None);
    prop_assert_eq!(nics.len(), domain.interfaces.len(), "every NIC is a target, or it is told why not");
    for target in nics.into_iter().flatten() {
        for address in &target.addresses {
            let says_so = address.source != Source::Nova || is_fixed(xml, address.ip);
            prop_assert!(says_so, "{} is nowhere a fixed address", address.ip);
        }
        for address in believed(target.addresses, &Source::DEFAULT) {
            let ip = address.ip.to_canonical();
            let nobodys = ip.is_multicast() || ip.is_loopback() || ip.is_unspecified();
            prop_assert!(!nobodys, "{} would be announced", address.ip);
        }
    }
    Ok(())
}

/// Whether some tag calls `ip` fixed: read without any knowledge of XML, and only to contradict.
fn is_fixed(xml: &str, ip: IpAddr) -> bool {
    let names = |tag: &str| tag.split(['"', '\'']).any(|text| text.parse() == Ok(ip));
    xml.contains("&#") || xml.split('<').any(|tag| tag.contains("fixed") && names(tag))
}

#[test]
fn entities_are_never_expanded() {
    for dtd in [
        "<!DOCTYPE d [<!ENTITY a 'aaaaaaaaaa'><!ENTITY b '&a;&a;&a;&a;&a;&a;&a;&a;'>]>",
        "<!DOCTYPE d [<!ENTITY a SYSTEM 'file:///etc/passwd'>]>",
        "<!DOCTYPE d SYSTEM 'http://192.0.2.1/d.dtd'>",
    ] {
        let error = Domain::parse(&format!("{dtd}{XML}")).expect_err(dtd).to_string();
        assert!(error.contains("DTD"), "{error}");
    }
}

#[test]
fn size_costs_time_but_no_stack() {
    let began = cpu_time();
    let within = |what: &str| {
        let xml = XML.replace("<devices>", &format!("{what}<devices>"));
        assert_eq!(Domain::parse(&xml).unwrap().interfaces.len(), 3);
    };
    within(&format!("{}{}", "<a>".repeat(50_000), "</a>".repeat(50_000)));
    within(&format!("<a>{}</a>", "<b/>".repeat(50_000)));
    within(&format!("<a b='{}'/>", "c".repeat(1 << 20)));
    let attributes = |many: usize| (0..many).map(|n| format!(" a{n}=''")).collect::<String>();
    within(&format!("<a{}/>", attributes(256)).repeat(1_000));
    within(&format!("<metadata><a{}/></metadata>", attributes(100_000)));
    Domain::parse(&"<a>".repeat(50_000)).unwrap_err();
    let took = cpu_time() - began;
    println!("it took {took:?}");
    assert!(took < Duration::from_secs(30), "{took:?}");
}

/// As many declarations on the outer element as elements below it: the parser alone compares billions of names.
#[test]
fn four_thousand_namespaces_of_metadata_are_not_read() {
    let outer: String = (0..2000).map(|n| format!(" xmlns:a{n}='u{n}'")).collect();
    let inner: String = (0..2000).map(|n| format!("<x:b xmlns:b{n}='v{n}'/>")).collect();
    let metadata = format!("<metadata><x:a xmlns:x='u'{outer}>{inner}</x:a>");
    let domain = Domain::parse(&XML.replacen("<metadata>", &metadata, 1)).unwrap();
    let plain = Domain::parse(XML).unwrap();
    assert_eq!((domain.name, domain.interfaces), (plain.name, plain.interfaces));
    assert_eq!(domain.nova_ports, None);
}

/// The cost grows with the sum of NICs and ports, not with their product.
#[test]
fn ten_thousand_nics_find_their_ports() {
    let id = |n: usize| format!("{n:08x}-0000-4000-8000-000000000000");
    let ports: String = (0..10_000).map(|n| format!("<nova:port uuid='{}'/>", id(n))).collect();
    let nic = |n: usize| {
        let device = format!("tap{}", &id(n)[..11]);
        let mac = format!("52:54:00:00:{:02x}:{:02x}", n >> 8, n & 0xff);
        format!(
            "<interface type='bridge'><mac address='{mac}'/><source bridge='br-int'/><target dev='{device}'/></interface>"
        )
    };
    let nics: String = (0..10_000).rev().map(nic).collect();
    let xml = format!(
        "<domain type='kvm'><name>web1</name><uuid>u</uuid><metadata>\
         <nova:instance xmlns:nova='http://openstack.org/xmlns/libvirt/nova/1.1'><nova:ports>{ports}</nova:ports></nova:instance>\
         </metadata><devices>{nics}</devices></domain>"
    );
    let domain = Domain::parse(&xml).unwrap();
    let began = cpu_time();
    let targets = target::of(&domain, |_| None);
    let took = cpu_time() - began;
    println!("it took {took:?}");
    let joined = targets.iter().flatten().filter(|target| target.plug.interface_id.is_some()).count();
    assert_eq!(joined, 10_000);
    assert!(took < Duration::from_secs(5), "{took:?}");
}
