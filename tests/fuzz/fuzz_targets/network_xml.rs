//! A libvirt network's XML: an address is reserved for the MAC that the text names beside it, and a gateway serves its subnet.
#![no_main]

use announced::for_tests::network::Network;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|xml: &str| {
    let network = Network::parse(xml);
    // The shortest <host mac='…' ip='::'/> and <ip address='::' prefix='0'/>.
    assert!(network.hosts.len() <= xml.len() / 40 && network.gateways.len() <= xml.len() / 25);
    for (mac, ip) in &network.hosts {
        assert!(network.reserved(*mac).any(|address| address.ip == *ip));
    }
    for gateway in &network.gateways {
        assert!(gateway.serves.contains(&gateway.ip), "{gateway:?}");
        assert_eq!((gateway.subnet, gateway.serves.trunc()), (Some(gateway.serves), gateway.serves));
    }
});
