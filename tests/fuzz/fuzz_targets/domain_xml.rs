//! A domain's XML: nothing is in the result that is not in the text, and what would be announced can be a host's.
#![no_main]

use announced::for_tests::address::{Source, believed, unannounceable};
use announced::for_tests::domain::{Domain, Interface};
use announced::for_tests::target;
use announced_fuzz::is_one_line;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|xml: &str| {
    let domain = match Domain::parse(xml) {
        Ok(domain) => domain,
        Err(error) => return assert!(is_one_line(&error.to_string()), "{error:?}"),
    };
    assert!(kept(&domain) <= xml.len(), "entities were expanded");
    let targets = target::of(&domain, |_| None);
    assert_eq!(targets.len(), domain.interfaces.len());
    for (target, nic) in targets.into_iter().zip(&domain.interfaces) {
        let target = match target {
            Ok(target) => target,
            Err(refused) => {
                assert!(!refused.reason.is_empty());
                continue;
            }
        };
        assert!(is_one_line(&target.subject(None)));
        assert!(!target.mac.is_zero() && Some(target.mac) == nic.mac);
        let all = target.addresses.len();
        let chosen = believed(target.addresses, &Source::DEFAULT);
        assert!(chosen.len() <= all);
        for (number, address) in chosen.iter().enumerate() {
            assert_eq!(unannounceable(address.ip), None);
            assert!(chosen[..number].iter().all(|other| other.ip != address.ip), "each is announced once");
        }
    }
});

/// How many bytes of the text were kept.
fn kept(domain: &Domain) -> usize {
    let of_nic = |nic: &Interface| {
        let texts = [
            &nic.alias,
            &nic.device,
            &nic.socket,
            &nic.network,
            &nic.bridge,
            &nic.virtualport,
            &nic.interface_id,
        ];
        nic.kind.len() + texts.into_iter().flatten().map(String::len).sum::<usize>()
    };
    let ports = domain.nova_ports.iter().flatten().map(|port| port.uuid.len()).sum::<usize>();
    let name = domain.nova_name.as_ref().map_or(0, String::len);
    domain.name.len() + domain.uuid.len() + name + ports + domain.interfaces.iter().map(of_nic).sum::<usize>()
}
