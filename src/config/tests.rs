//! The checks of a configuration, and the precedence of its tables.

use super::*;
use crate::announcement::schedule::Schedule;

fn parse(text: &str) -> Result<Config, String> {
    Config::parse(Path::new("a.toml"), text).map_err(|e| e.to_string())
}

#[test]
fn an_empty_file_is_valid() {
    let config = parse("").unwrap();
    assert_eq!(config, Config::default());
    assert_eq!(config.schedule(), Ok(Schedule::default()));
}

#[test]
fn an_unknown_key_is_an_error_with_its_place() {
    let error = parse("[schedule]\ncount = 3\n\n  cuont = 4\n").unwrap_err();
    assert!(error.starts_with("a.toml:4:3: [schedule] has no key \"cuont\"; did you mean count?"), "{error}");
    assert_eq!(error.lines().count(), 1);
}

#[test]
fn a_value_of_the_wrong_kind_is_an_error_with_its_place() {
    let error = parse("[schedule]\ninterval = \"soon\"\n").unwrap_err();
    assert!(error.starts_with("a.toml:2:12: \"soon\" is not a duration"), "{error}");
}

#[test]
fn values_out_of_range_are_refused() {
    for (text, words) in [
        ("schedule.count = 0", "count 0"),
        ("schedule.backoff = 0.5", "backoff 0.5"),
        ("schedule.interval = \"0s\"", "above 0"),
        ("frames.send = []", "nothing would be sent"),
        ("libvirt.uri = \"\"", "empty URI"),
        ("libvirt.more-uris = [\"\"]", "empty URI"),
        ("ovs.socket = \"db.sock\"", "not an absolute path"),
        ("path.uplinks = [\"\"]", "an uplink has a name"),
        ("path.uplinks = [\"eth[\"]", "is not a valid pattern"),
        ("[nic.tap0]", "not a MAC address"),
        ("[nic.\"52:54:00:00:00:01\"]\naddresses = [\"127.0.0.1\"]", "loopback"),
        ("[nic.\"52:54:00:00:00:01\"]\nvlan = 4095", "VLAN 4095"),
        ("[vm.web1]\nvlan = 5", "vm.web1: addresses and vlan belong to a NIC"),
        ("[network.br0]\naddresses = [\"192.0.2.1\"]", "network.br0: addresses and vlan belong to a NIC"),
    ] {
        let error = parse(text).unwrap_err();
        assert!(error.contains(words), "{text}: {error}");
    }
}

#[test]
fn every_value_out_of_range_is_named_with_its_place() {
    let text = "[schedule]\ncount = 0\nbackoff = 0.5\n\n[nic.\"52:54:00:12:34\"]\nvlan = 5000\n\n[vm.web1]\nvlan = 7\n";
    let error = Config::parse(Path::new("a.toml"), text).unwrap_err();
    let lines = error.lines();
    let places = ["a.toml:2:9: count 0 ", "a.toml:3:11: backoff 0.5 ", "a.toml:9:8: vm.web1: "];
    for place in places {
        assert!(lines.iter().any(|line| line.starts_with(place)), "{place}: {lines:#?}");
    }
    let of_nic: Vec<&String> = lines.iter().filter(|line| line.contains("52:54:00:12:34")).collect();
    assert!(
        of_nic[0].starts_with("a.toml:5:6: ") && of_nic[0].contains("such as 52:54:00:12:34:56"),
        "{lines:#?}"
    );
    assert!(of_nic[1].starts_with("a.toml:6:8: ") && of_nic[1].contains("VLAN 5000"), "{lines:#?}");
    assert_eq!(lines.len(), 5, "{lines:#?}");
}

/// What cannot be read does not hide what cannot be used.
#[test]
fn mistakes_of_both_kinds_are_named_at_once() {
    let text = "[schedule]\ncuont = 3\n\n[nic.\"52:54:00:12:34\"]\nrouter = true\n\n[ports]\nwait = 5\n";
    let error = Config::parse(Path::new("a.toml"), text).unwrap_err();
    let places: Vec<String> =
        error.lines().iter().map(|line| line.split(' ').next().unwrap().to_owned()).collect();
    assert_eq!(places, ["a.toml:2:1:", "a.toml:4:6:", "a.toml:8:8:"], "{:#?}", error.lines());
}

#[test]
fn a_nics_entry_precedes_its_vms_and_that_its_networks() {
    let mut text = String::new();
    let mut expect = |table: &str, owner: &str, expected: Owner| {
        text += &format!("[{table}]\nin-charge = \"{owner}\"\n");
        let mut target =
            Target::of_device(crate::guest::target::Plug::default(), MacAddr(0x52, 0x54, 0, 0, 0, 1));
        target.domain = Some(crate::guest::target::DomainId { name: "web1".into(), uuid: "u".into() });
        target.networks = vec!["blue".into(), "virbr1".into()];
        assert_eq!(parse(&text).unwrap().in_charge(&target), Some(expected), "{text}");
    };
    expect("ports", "ovn", Owner::Ovn);
    expect("network.red", "neutron", Owner::Ovn);
    expect("network.virbr1", "vlan", Owner::Vlan);
    expect("network.blue", "nobody", Owner::Nobody);
    expect("vm.web1", "ovn", Owner::Ovn);
    expect("nic.\"52:54:00:00:00:01\"", "neutron", Owner::Neutron);
}

#[test]
fn some_keys_take_effect_at_the_next_start() {
    let keys = |text: &str| parse(text).unwrap().needs_restart(&Config::default()).collect::<Vec<_>>();
    assert_eq!(keys("[limits]\nframes-per-second = 5\n[ports]\ninject = \"redirect\""), [""; 0]);
    let text = "libvirt.uri = \"a\"\nlibvirt.more-uris = [\"b\"]\novs.socket = \"/c\"\n\
                metrics.listen = \"[::1]:1\"\nmetrics.page = true\nports.inject = \"fdb\"";
    let all =
        ["libvirt.uri", "libvirt.more-uris", "ovs.socket", "metrics.listen", "metrics.page", "ports.inject"];
    assert_eq!(keys(text), all);
}

#[test]
fn a_key_that_an_entry_lacks_comes_from_the_next_entry() {
    let config = parse(
        "[network.blue]\nrouter = true\n[vm.web1]\nin-charge = \"ovn\"\n\
         [nic.\"52:54:00:00:00:01\"]\naddresses = [\"192.0.2.1\"]\n",
    )
    .unwrap();
    let mut target =
        Target::of_device(crate::guest::target::Plug::default(), MacAddr(0x52, 0x54, 0, 0, 0, 1));
    target.domain = Some(crate::guest::target::DomainId { name: "web1".into(), uuid: "u".into() });
    target.networks = vec!["blue".into()];
    assert!(config.style(&target).router);
    assert_eq!(config.in_charge(&target), Some(Owner::Ovn));
}
