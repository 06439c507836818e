//! Guests and their NICs as libvirt describes them, and the sources of their addresses.

use crate::testbed::rounds::{announcements, words};
use crate::testbed::{
    Attachment, Capture, DEADLINE, Direction, Frame, Guest, Host, Kind, Nic, Place, Plug, Run, Site,
    eventually, guest, kinds, linux_bridge, ovs, require, rounds,
};
use serde_json::Value;

const ONCE: [&str; 2] = ["--count", "1"];

#[test]
fn a_neutron_trunk_bridge() {
    require!(lab, ovs, libvirt, tshark);
    let host = Host::build().ovs().libvirt().start();
    ovs::bridge(&host, "br-int");
    ovs::trunk_bridge(&host, "567a450b");
    ovs::dead(&host, "tpi-567a450b");
    let nic = Nic::new(11, Plug::Ovs("tbr-567a450b")).address("192.0.2.11").address("2001:db8::11");
    Guest::new("web1").nova().nic(&nic).start(&host);
    let wire = Capture::start(&host.wire(), "wire0", Direction::In, &nic.sent());
    let announce = host.start_announce(&["--vm", "web1", "-v", "--count", "3", "--json"]);
    let waiting = announce.stderr.line_with("waiting:");
    assert!(waiting.contains("the port tpi-567a450b has tag 4095"), "{waiting}");

    ovs::bind(&host, "tpi-567a450b", 42);

    let run = announce.finish();
    assert_eq!(run.code, Some(0), "{run:#?}");
    let told = run.stderr.lines().filter(|line| line.contains(" frames by packet-out: sent")).count();
    assert_eq!(told, 3, "--verbose names each round: {run:#?}");
    assert!(wire.sees(12, DEADLINE));
    let frames = wire.stop();
    assert_eq!(rounds(&frames, Some(42)).len(), 3);
    let report = &reports(&run)[0];
    assert_eq!(report["attachment"]["kind"], "trunk-bridge");
    let hops = [&nic.tap(), "tbr-567a450b", "br-int", "up0"];
    assert_eq!(report["attachment"]["hops"], serde_json::json!(hops));
}

#[test]
fn a_macvtap() {
    require!(lab, libvirt, tshark);
    let _alone = guest::macvtaps();
    let host = Host::build().libvirt().start();
    let nic = Nic::new(12, Plug::Direct("up0")).address("192.0.2.12").address("2001:db8::12");
    Guest::new("web1").nova().nic(&nic).start(&host);
    let wire = Capture::start(&host.wire(), "wire0", Direction::In, &nic.sent());
    let others = host.announce(&["--vm", "web1", "--inject", "redirect"]);
    assert!(
        others.code == Some(1) && others.stderr.contains("does not work with this attachment"),
        "{others:#?}"
    );

    let run = host.announce(&["--vm", "web1", "--count", "3", "--json"]);

    assert_eq!(run.code, Some(0), "{run:#?}");
    assert!(wire.sees(12, DEADLINE));
    let said: Vec<_> = wire.stop().into_iter().map(|frame| frame.kind).collect();
    let round = words(&nic, "192.0.2.12", "2001:db8::12");
    assert_eq!(said, [round.clone(), round.clone(), round].concat());
    let report = &reports(&run)[0];
    assert_eq!((&report["injector"], &report["attachment"]["kind"]), (&"packet".into(), &"macvtap".into()));
}

#[test]
fn addresses_of_libvirts_own_networks() {
    require!(lab, libvirt, tshark, dnsmasq, busybox);
    let host = Host::build().libvirt().start();
    let nic = Nic::new(13, Plug::Network("lan"));
    guest::network(&host, "lan", "virbr0", &[(&nic.mac, "192.0.2.13")]);
    Guest::new("web1").nic(&nic).start(&host);
    // The same address by a second source.
    assert_eq!(lease(&host, &nic.mac), "192.0.2.13");

    let run = host.announce(&["--vm", "web1", "--json", "--count", "1"]);

    assert_eq!(run.code, Some(0), "{run:#?}");
    let addresses = &reports(&run)[0]["addresses"];
    assert_eq!(*addresses, serde_json::json!([{"ip": "192.0.2.13", "source": "network-host"}]));
}

#[test]
fn addresses_leased_by_libvirts_own_networks() {
    require!(lab, libvirt, tshark, dnsmasq, busybox);
    let host = Host::build().libvirt().start();
    let nic = Nic::new(13, Plug::Network("lan"));
    guest::network(&host, "lan", "virbr0", &[]);
    Guest::new("web1").nic(&nic).start(&host);
    let leased = lease(&host, &nic.mac);
    host.sh("ip link set up0 master virbr0");
    let wire = Capture::start(&host.wire(), "wire0", Direction::In, &nic.sent());

    let run = host.announce(&["--vm", "web1", "--json", "--count", "1"]);

    assert_eq!(run.code, Some(0), "{run:#?}");
    let addresses = &reports(&run)[0]["addresses"];
    assert_eq!(*addresses, serde_json::json!([{"ip": leased, "source": "lease"}]));
    assert!(wire.sees(3, DEADLINE));
    assert_eq!(spoken(&wire.stop()), [leased.clone(), leased]);
}

#[test]
fn addresses_of_a_network_filter() {
    require!(lab, libvirt, tshark);
    let host = Host::build().libvirt().start();
    linux_bridge::bridge(&host, "br0");
    guest::virsh(&host, "nwfilter-define", "<filter name='nothing'/>");
    let filter = "<filterref filter='nothing'><parameter name='IP' value='192.0.2.14'/>\
                  <parameter name='IP' value='192.0.2.15'/></filterref>";
    let nic = Nic::new(14, Plug::Bridge("br0")).with(filter);
    Guest::new("web1").nic(&nic).start(&host);
    let wire = Capture::start(&host.wire(), "wire0", Direction::In, &nic.sent());

    let run = host.announce(&["--vm", "web1", "--count", "1", "--send", "arp-request", "--json"]);

    assert_eq!(run.code, Some(0), "{run:#?}");
    assert!(wire.sees(2, DEADLINE));
    assert_eq!(spoken(&wire.stop()), ["192.0.2.14", "192.0.2.15"]);
    assert_eq!(reports(&run)[0]["addresses"][1]["source"], "nwfilter");
}

/// libvirt carries it out by ebtables, about which the kernel cannot be asked.
#[test]
fn a_network_filter_that_drops_frames_is_named() {
    require!(lab, libvirt, ebtables);
    let host = Host::build().libvirt().start();
    linux_bridge::bridge(&host, "br0");
    let no_arp =
        "<filter name='no-arp' chain='arp'><rule action='drop' direction='out'><arp/></rule></filter>";
    guest::virsh(&host, "nwfilter-define", no_arp);
    let filter = "<filterref filter='no-arp'><parameter name='IP' value='192.0.2.14'/></filterref>";
    Guest::new("web1").nic(&Nic::new(14, Plug::Bridge("br0")).with(filter)).start(&host);

    let trace = host.announce(&["trace", "web1", "--ask", "192.0.2.1"]);

    assert_eq!(trace.code, Some(1), "{trace:#?}");
    let why = "did not leave br0: libvirt's network filter no-arp, perhaps: see virsh nwfilter-dumpxml no-arp, \
               nft list ruleset, and ebtables";
    let stuck: Vec<&str> = trace.stdout.lines().filter(|line| line.contains(why)).collect();
    assert!(stuck.iter().any(|line| line.contains("arp-request")), "{trace:#?}");
    assert!(stuck.iter().all(|line| !line.contains("rarp")), "{trace:#?}");
}

/// Without any trusted address, the MAC is still announced, and the operator is told.
#[test]
fn no_address_but_the_guests_own_claim() {
    require!(lab, libvirt, tshark);
    let host = Host::build().libvirt().start();
    linux_bridge::bridge(&host, "br0");
    let nic = Nic::new(15, Plug::Bridge("br0"));
    let agent = "<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>";
    Guest::new("web1").nic(&nic).device(agent).start(&host);
    let wire = Capture::start(&host.wire(), "wire0", Direction::In, &nic.sent());

    let run = host.announce(&["--vm", "web1", "--count", "2"]);

    assert_eq!(run.code, Some(0), "{run:#?}");
    assert!(run.stdout.contains("RARP only: no address is known"), "{run:#?}");
    assert!(wire.sees(2, DEADLINE));
    assert_eq!(kinds(&wire.stop()), ["rarp", "rarp"]);
}

#[test]
fn each_nic_of_a_guest_in_its_own_network() {
    require!(lab, ovs, libvirt, tshark);
    let (host, nics) = two_nics();
    let all = Capture::start(&host.wire(), "wire0", Direction::In, "ether[6] == 0xfa");

    let run = host.announce(&[&["--vm", "web1", "--json"], &ONCE[..]].concat());

    assert_eq!(run.code, Some(0), "{run:#?}");
    assert!(all.sees(10, DEADLINE), "a question beside each NIC's four announcements");
    let frames = announcements(all.stop());
    for (nic, vlan, ip, ip6) in
        [(&nics[0], 100, "192.0.2.16", "2001:db8::16"), (&nics[1], 200, "198.51.100.17", "2001:db8:1::17")]
    {
        let own: Vec<_> = frames.iter().filter(|frame| frame.source == nic.mac).collect();
        assert!(own.iter().all(|frame| frame.vlan == Some(vlan)), "{own:#?}");
        let said: Vec<_> = own.iter().map(|frame| frame.kind.clone()).collect();
        assert_eq!(said, words(nic, ip, ip6));
    }
    let mut macs: Vec<_> = reports(&run).iter().map(|report| report["mac"].clone()).collect();
    macs.sort_by_key(Value::to_string);
    assert_eq!(macs, [nics[0].mac.as_str(), nics[1].mac.as_str()]);
}

#[test]
fn one_nic_of_a_guest_by_its_mac() {
    require!(lab, ovs, libvirt, tshark);
    let (host, nics) = two_nics();
    let all = Capture::start(&host.wire(), "wire0", Direction::In, "ether[6] == 0xfa");
    let ambiguous = host.announce(&["--vm", "web1", "--ip", "198.51.100.99"]);
    assert!(
        ambiguous.code == Some(2) && ambiguous.stderr.contains("choose one with --mac"),
        "{ambiguous:#?}"
    );
    let unknown = host.announce(&["--vm", "web1", "--mac", "52:54:00:00:00:99"]);
    assert_eq!(unknown.code, Some(1));
    assert_eq!(unknown.stderr, "announce: no NIC has the MAC address 52:54:00:00:00:99\n");

    let one = ["--vm", "web1", "--mac", &nics[1].mac, "--ip", "198.51.100.99", "--send", "arp-reply"];
    let run = host.announce(&[&one, &ONCE[..]].concat());

    assert_eq!(run.code, Some(0), "{run:#?}");
    assert!(all.sees(2, DEADLINE));
    let frames = all.stop();
    assert!(frames.iter().all(|frame| frame.source == nics[1].mac), "{frames:#?}");
    assert_eq!(spoken(&frames), ["198.51.100.99", "198.51.100.17"]);
}

#[test]
fn a_nic_that_no_host_can_announce_is_reported_and_the_others_are_announced() {
    require!(lab, libvirt, tshark);
    let host = Host::build().libvirt().start();
    linux_bridge::bridge(&host, "br0");
    let nic = Nic::new(18, Plug::Bridge("br0")).address("192.0.2.18");
    let user = "<interface type='user'><mac address='52:54:00:00:00:18'/><model type='virtio'/>\
                <rom enabled='no'/></interface>";
    Guest::new("web1").nova().nic(&nic).device(user).start(&host);
    let wire = Capture::start(&host.wire(), "wire0", Direction::In, "ether[6] == 0xfa or ether[6] == 0x52");

    let run = host.announce(&[&["--vm", "web1"], &ONCE[..]].concat());

    assert_eq!(run.code, Some(0), "{run:#?}");
    let words = "announce: web1 52:54:00:00:00:18: not announced: a NIC of type user is on no network that can be announced\n";
    assert_eq!(run.stderr, words);
    assert!(run.stdout.starts_with(&format!("web1 {} {}: announced", nic.tap(), nic.mac)), "{run:#?}");
    assert!(wire.sees(3, DEADLINE));
    assert!(wire.stop().iter().all(|frame| frame.source == nic.mac));
}

#[test]
fn every_running_guest() {
    require!(lab, libvirt, tshark);
    let site = Site::ready(Attachment::LinuxBridge);
    let other = Nic::new(20, Plug::Bridge("br0")).address("192.0.2.20").address("2001:db8::20");
    Guest::new("web2").nova().nic(&other).start(&site.host);
    let paused = Nic::new(21, Plug::Bridge("br0"));
    Guest::new("web3").nova().nic(&paused).start(&site.host);
    site.host.sh("virsh suspend web3");
    let all = Capture::start(&site.host.wire(), "wire0", Direction::In, "ether[6] == 0xfa");

    let run = site.host.announce(&[&["--all"], &ONCE[..]].concat());

    assert_eq!((run.code, run.stderr.as_str()), (Some(0), ""), "{run:#?}");
    assert!(all.sees(10, DEADLINE), "a question beside each NIC's four announcements");
    let frames = announcements(all.stop());
    for nic in [&site.nic, &other] {
        assert_eq!(frames.iter().filter(|frame| frame.source == nic.mac).count(), 4);
    }
    assert_eq!(frames.len(), 8, "{frames:#?}");
}

#[test]
fn guests_by_name_uuid_and_id() {
    require!(lab, libvirt);
    let site = Site::ready(Attachment::LinuxBridge);
    let named =
        ["domuuid", "domid"].map(|query| site.host.sh(&format!("virsh {query} web1")).trim().to_owned());
    for name in ["web1", &named[0], &named[1]] {
        let run = site.host.announce(&[&["--vm", name], &ONCE[..]].concat());
        assert!(run.code == Some(0) && run.stdout.starts_with("web1 "), "{name}: {run:#?}");
    }
}

/// A guest in two networks.
fn two_nics() -> (Host, [Nic; 2]) {
    let host = Host::build().ovs().libvirt().start();
    ovs::bridge(&host, "br-int");
    let nics = [
        Nic::new(16, Plug::Ovs("br-int")).address("192.0.2.16").address("2001:db8::16"),
        Nic::new(17, Plug::Ovs("br-int")).address("198.51.100.17").address("2001:db8:1::17"),
    ];
    nics.iter().fold(Guest::new("web1").nova(), Guest::nic).start(&host);
    ovs::bind(&host, &nics[0].tap(), 100);
    ovs::bind(&host, &nics[1].tap(), 200);
    (host, nics)
}

/// Takes a lease on the network `lan` for this MAC, as a guest would; returns the address.
fn lease(host: &Host, mac: &str) -> String {
    // With the guest's MAC, from a port of its own: the guest has no system that could ask.
    host.sh(&format!(
        "ip netns add client
         ip link add client0 type veth peer name eth0 address {mac} netns client
         ip link set client0 master virbr0 up
         ip -n client link set eth0 up
         ip netns exec client busybox udhcpc -i eth0 -t 20 -n -q -f -s /bin/true
         ip link delete client0"
    ));
    // dnsmasq answers the client first and has libvirt's program note the lease after that.
    let address = eventually("the lease in libvirt's list", || {
        let leases = host.sh("virsh net-dhcp-leases lan");
        let of_mac = leases.lines().find(|line| line.contains(mac))?;
        of_mac.split_whitespace().find(|word| word.contains('/')).map(str::to_owned)
    });
    address.split('/').next().unwrap().to_owned()
}

fn reports(run: &Run) -> Vec<Value> {
    run.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The IPv4 addresses that the frames name, in order.
fn spoken(frames: &[Frame]) -> Vec<String> {
    let said = frames.iter().filter_map(|frame| match &frame.kind {
        Kind::ArpRequest(arp) | Kind::ArpReply(arp) => Some(arp.sender_ip.to_string()),
        _ => None,
    });
    said.collect()
}
