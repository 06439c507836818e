//! The targets of a guest: its NICs, further ports that OVSDB has for it, and exclusions.

use pnet_base::MacAddr;

use crate::config::Config;
use crate::guest::Known;
use crate::guest::address::{Address, Source};
use crate::guest::domain::Vlan;
use crate::guest::target::{self, DomainId, Manager, Nic, Plug, Target, Unannounceable};
use crate::path::attachment;
use crate::path::ovs::{Ovs, Plugged};
use crate::run::order::MAX_TRUNK_VLANS;

/// So many of nova's ports are named in a line.
const MAX_NAMED: usize = 8;

/// Every NIC of a guest, in the order of its XML, each followed by the sub-ports of its trunk.
pub(crate) fn of(known: Known, config: &Config, ovs: &Ovs) -> Vec<Nic> {
    let marked = |mac| ovs.of_mac(mac).find_map(|port| port.interface.external_ids.get("iface-id").cloned());
    let unmatched = listed(&target::unmatched(&known.domain, marked));
    // The transient NIC of a team has the MAC of the one that stays, and none of its ports.
    let taken: Vec<String> = known.domain.interfaces.iter().filter_map(|nic| nic.device.clone()).collect();
    let mut all = Vec::new();
    for nic in target::nics(known, marked) {
        let target = nic.target.or_else(|refused| by_representor(refused, &taken, ovs));
        let of_trunk: Vec<Target> = target.iter().flat_map(|parent| sub_ports(parent, ovs)).collect();
        target.iter().for_each(|target| advise(target, &unmatched, config));
        all.push(Nic { name: nic.name, target: target.and_then(|target| unless_left_out(target, config)) });
        all.extend(
            of_trunk.into_iter().map(|target| Nic {
                name: target.plug.device.clone(),
                target: unless_left_out(target, config),
            }),
        );
    }
    all
}

/// The NICs of a guest of which libvirt tells nothing at present, by what OVSDB has of them: their MACs, and no addresses.
pub(crate) fn of_ovsdb(uuid: &str, config: &Config, ovs: &Ovs) -> Vec<Nic> {
    let targets = ovs.of_vm(uuid).filter_map(|port| {
        let mac: MacAddr = port.interface.external_ids.get("attached-mac")?.parse().ok()?;
        // The name is libvirt's, too.
        let domain = Some(DomainId { name: uuid.into(), uuid: uuid.into() });
        let manager = Some(Manager::Unknown);
        Some(Target { domain, manager, ..Target::of_device(plug_of(port), mac) })
    });
    targets.map(|target| Nic { name: None, target: unless_left_out(target, config) }).collect()
}

/// The target, unless the configuration excludes it.
pub(crate) fn unless_left_out(target: Target, config: &Config) -> Result<Target, Unannounceable> {
    if config.announces(&target) {
        return Ok(target);
    }
    Err(Unannounceable {
        domain: target.domain,
        mac: Some(target.mac),
        device: target.plug.device,
        reason: "the configuration excludes it (announce = false)".into(),
        by_representor: None,
    })
}

/// A NIC that bypasses the host may have a representor on a bridge: frames injected there appear as the guest's.
fn by_representor(refused: Unannounceable, taken: &[String], ovs: &Ovs) -> Result<Target, Unannounceable> {
    let Some(target) = &refused.by_representor else {
        return Err(refused);
    };
    let by_id = target.plug.interface_id.as_deref().and_then(|id| ovs.of_interface_id(id).next());
    let is_free = |port: &Plugged<'_>| !taken.contains(&port.interface.name);
    match by_id.or_else(|| ovs.of_mac(target.mac).find(is_free)) {
        Some(port) => Ok(Target { plug: plug_of(port), ..(**target).clone() }),
        None => Err(refused),
    }
}

/// The sub-ports of a trunk whose parent is `parent`, which the guest's XML does not list.
fn sub_ports(parent: &Target, ovs: &Ovs) -> Vec<Target> {
    let ports = parent.plug.device.iter().flat_map(|device| attachment::sub_ports(device, ovs));
    let targets = ports.filter_map(|port| {
        let mac: MacAddr = port.interface.external_ids.get("attached-mac")?.parse().ok()?;
        let manager = Some(Manager::Nova);
        Some(Target { domain: parent.domain.clone(), manager, ..Target::of_device(plug_of(port), mac) })
    });
    targets.collect()
}

fn plug_of(port: Plugged<'_>) -> Plug {
    let interface_id = port.interface.external_ids.get("iface-id").cloned();
    Plug { device: Some(port.interface.name.clone()), interface_id, socket: None }
}

/// The names in a line that each NIC of the guest may need.
fn listed(names: &[&str]) -> String {
    match names.len().saturating_sub(MAX_NAMED) {
        0 => names.join(", "),
        more => format!("{} and {more} more", names[..MAX_NAMED].join(", ")),
    }
}

/// Logs address faults of a NIC that the operator can repair.
fn advise(target: &Target, unmatched: &str, config: &Config) {
    let of = |source: Source| target.addresses.iter().filter(move |address| address.source == source);
    let ips = |addresses: Vec<&Address>| {
        addresses.iter().map(|address| address.ip.to_string()).collect::<Vec<_>>().join(", ")
    };
    let subject = || target.subject(target.plug.device.clone());
    if of(Source::Nova).next().is_none() && target.manager == Some(Manager::Nova) && !unmatched.is_empty() {
        tracing::warn!(
            "{}: it cannot be matched with one of nova's ports, so none of their addresses is announced: {}; name them under \
             [nic.\"{}\"]",
            subject(),
            unmatched,
            target.mac
        );
    }
    let vlans = target.vlan.as_deref().and_then(Vlan::tagged_only).unwrap_or_default();
    if let Some(beyond) = vlans.get(MAX_TRUNK_VLANS..).filter(|beyond| !beyond.is_empty()) {
        let beyond: Vec<String> = beyond.iter().map(u16::to_string).collect();
        tracing::warn!(
            "{}: it is announced in the first {MAX_TRUNK_VLANS} VLANs of its trunk, and not in {}",
            subject(),
            beyond.join(", ")
        );
    }
    let is_believed = config.addresses.sources.contains(&Source::Nwfilter) && !config.restricts(target);
    let (v4, v6): (Vec<_>, Vec<_>) = of(Source::Nwfilter).partition(|address| address.ip.is_ipv4());
    for several in [v4, v6].into_iter().filter(|of_family| is_believed && of_family.len() > 1) {
        tracing::warn!(
            "{}: its network filter lists several addresses ({}): announcing one that it shares, as by VRRP, takes the address from its holder; name \
             such addresses as never in [addresses]",
            subject(),
            ips(several)
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::domain::Domain;
    use crate::path::attachment::tests::ovs;
    use crate::run::order::Order;

    fn known(nics: &str, ports: &str) -> Known {
        let xml = format!(
            "<domain><name>web1</name><uuid>u</uuid><metadata><n:instance xmlns:n='http://openstack.org/xmlns/libvirt/nova/1.1'>\
             <n:ports>{ports}</n:ports></n:instance></metadata><devices>{nics}</devices></domain>"
        );
        let domain = Domain::parse(&xml).unwrap();
        Known { addresses: vec![Vec::new(); domain.interfaces.len()], gateways: Vec::new(), domain }
    }

    #[test]
    fn a_line_about_one_nic_does_not_name_the_ports_of_thousands() {
        let names = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"];
        assert_eq!(listed(&names[..8]), "a, b, c, d, e, f, g, h");
        assert_eq!(listed(&names), "a, b, c, d, e, f, g, h and 2 more");
    }

    fn mark(ovs: &mut Ovs, port: &str, key: &str, value: &str) {
        let interface = ovs.interfaces.get_mut(&format!("i-{port}")).unwrap();
        interface.external_ids.insert(key.into(), value.into());
        ovs.reindex();
    }

    fn told(known: Known, config: &Config, ovs: &Ovs) -> Vec<String> {
        let told = |nic: Nic| match nic.target {
            Ok(target) => {
                let order = Order::new(target, config, &[], None);
                let ips: Vec<String> = order.addresses.iter().map(|address| address.ip.to_string()).collect();
                format!("{} {}", order.target.subject(order.target.plug.device.clone()), ips.join(" "))
            }
            Err(refused) => refused.reason,
        };
        of(known, config, ovs).into_iter().map(told).collect()
    }

    const PORT: &str = "<n:port uuid='0a1b2c3d-4e'><n:ip type='fixed' address='192.0.2.7'/></n:port>";

    #[test]
    fn a_passed_through_nic_is_announced_by_its_representor() {
        for kind in ["hostdev", "vdpa"] {
            let nic = format!("<interface type='{kind}'><mac address='02:00:00:00:00:01'/></interface>");
            let all = |ovs: &Ovs| told(known(&nic, PORT), &Config::default(), ovs);
            let mut ovs = ovs(&[("br-int", &["rep0"])]);
            assert!(all(&ovs)[0].contains("no port of Open vSwitch stands for it"), "{:?}", all(&ovs));
            mark(&mut ovs, "rep0", "attached-mac", "02:00:00:00:00:01");
            assert_eq!(all(&ovs), ["web1 rep0 02:00:00:00:00:01 192.0.2.7"]);
            mark(&mut ovs, "rep0", "attached-mac", "02:00:00:00:00:09");
            mark(&mut ovs, "rep0", "iface-id", "0A1B2C3D-4E");
            assert_eq!(all(&ovs), ["web1 rep0 02:00:00:00:00:01 192.0.2.7"]);
        }
    }

    #[test]
    fn the_transient_nic_of_a_team_is_not_announced_by_the_port_of_the_other() {
        let team = "<interface type='bridge'><mac address='02:00:00:00:00:01'/><target dev='tap0'/></interface>\
                    <interface type='hostdev'><mac address='02:00:00:00:00:01'/></interface>";
        let mut ovs = ovs(&[("br-int", &["tap0", "rep0"])]);
        mark(&mut ovs, "tap0", "attached-mac", "02:00:00:00:00:01");
        let all = |ovs: &Ovs| told(known(team, ""), &Config::default(), ovs);
        assert!(all(&ovs)[1].contains("no port of Open vSwitch stands for it"), "{:?}", all(&ovs));
        mark(&mut ovs, "rep0", "attached-mac", "02:00:00:00:00:01");
        assert_eq!(all(&ovs)[1], "web1 rep0 02:00:00:00:00:01 ");
    }

    #[test]
    fn the_sub_ports_of_a_trunk_are_targets_of_their_own() {
        let nic = "<interface type='bridge'><mac address='02:00:00:00:00:01'/><target dev='tap0a1b2c3d-4e'/></interface>";
        let trunk: &[&str] =
            &["tap0a1b2c3d-4e", "tpt-1:patch:tpi-1", "spt-2:patch:spi-2", "spt-3:patch:spi-3"];
        let br_int: &[&str] = &["tpi-1:patch:tpt-1", "spi-2:patch:spt-2", "spi-3:patch:spt-3"];
        let mut ovs = ovs(&[("tbr-1", trunk), ("br-int", br_int)]);
        mark(&mut ovs, "spi-2", "attached-mac", "02:00:00:00:00:02");
        mark(&mut ovs, "spi-2", "iface-id", "0f");
        let all = told(known(nic, PORT), &Config::default(), &ovs);
        let expected = ["web1 tap0a1b2c3d-4e 02:00:00:00:00:01 192.0.2.7", "web1 spi-2 02:00:00:00:00:02 "];
        assert_eq!(all, expected, "the MAC of spi-3 is not known yet");
    }

    #[test]
    fn what_ovsdb_has_of_a_guest_is_its_macs_and_ports() {
        let mut ovs = ovs(&[("br-int", &["tap0", "tap1", "tap2", "eth0"])]);
        for (port, vm, mac) in [("tap0", "A1", "02:00:00:00:00:01"), ("tap1", "b2", "02:00:00:00:00:02")] {
            mark(&mut ovs, port, "vm-id", vm);
            mark(&mut ovs, port, "attached-mac", mac);
        }
        mark(&mut ovs, "tap2", "vm-id", "a1");
        let nics = of_ovsdb("a1", &Config::default(), &ovs);
        let targets: Vec<Target> = nics.into_iter().map(|nic| nic.target.unwrap()).collect();
        assert_eq!(targets.len(), 1, "the MAC of tap2 is not known");
        assert_eq!(targets[0].subject(targets[0].plug.device.clone()), "a1 tap0 02:00:00:00:00:01");
        let plugged = |tag: Option<u16>, ovs: &mut Ovs| {
            ovs.ports.get_mut("p-tap0").unwrap().tag = tag;
            let port = ovs.port_of("br-int", "tap0").unwrap();
            crate::path::owner::Owner::of(&targets[0], port, ovs).0
        };
        assert_eq!(plugged(None, &mut ovs), crate::path::owner::Owner::Agent, "which must set a VLAN first");
    }

    #[test]
    fn an_exclusion_by_the_configuration_is_reported() {
        let nic =
            "<interface type='bridge'><mac address='02:00:00:00:00:01'/><source bridge='br0'/></interface>";
        let config = Config::parse("a.toml".as_ref(), "[network.br0]\nannounce = false").unwrap();
        let all = told(known(nic, PORT), &config, &Ovs::default());
        assert_eq!(all, ["the configuration excludes it (announce = false)"]);
    }

    #[test]
    fn never_addresses_are_not_announced_from_any_source() {
        let nic = "<interface type='bridge'><mac address='02:00:00:00:00:01'/><target dev='tap0a1b2c3d-4e'/></interface>";
        let config = Config::parse("a.toml".as_ref(), "addresses.never = [\"192.0.2.0/24\"]").unwrap();
        assert_eq!(
            told(known(nic, PORT), &config, &Ovs::default()),
            ["web1 tap0a1b2c3d-4e 02:00:00:00:00:01 "]
        );
    }
}
