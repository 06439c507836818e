//! Each owner's rule, row by row.

use super::*;
use crate::guest::domain::{NativeMode, Vlan};
use crate::guest::target::Manager;
use crate::path::attachment::tests::{link, ovs, plug};
use crate::path::link::Link;
use crate::path::ovs::{Port, SETTLING_TIME, Uncounted};

/// A host on which `tap0` is a port of the Open vSwitch bridge br-int.
struct World {
    links: Links,
    ovs: Ovs,
    target: Target,
    ovsdb_error: Option<Unreachable>,
    guest: GuestState,
    in_charge: Option<Owner>,
    untagged: bool,
    now: Duration,
}

impl World {
    fn new(links: impl IntoIterator<Item = Link>, ovs: Ovs) -> World {
        let target = Target::of_device(plug("tap0"), pnet_base::MacAddr(0x52, 0x54, 0, 0, 0, 1));
        let mut links = Links::from_iter(links);
        if links.named("eth0").is_none() {
            links.insert(link(90, "eth0", "", 0, 0));
        }
        World {
            links,
            ovs,
            target,
            ovsdb_error: None,
            guest: GuestState::Running,
            in_charge: None,
            untagged: false,
            now: Duration::from_secs(1000),
        }
    }

    fn on_ovs() -> World {
        World::new([link(2, "tap0", "tun", 0, 0)], ovs(&[("br-int", &["tap0", "eth0"])]))
    }

    fn on_linux_bridge() -> World {
        World::new([link(1, "br0", "bridge", 0, 0), link(2, "tap0", "tun", 1, 0)], Ovs::default())
    }

    fn hybrid() -> World {
        let links = [
            link(1, "qbr0", "bridge", 0, 0),
            link(2, "tap0", "tun", 1, 0),
            link(3, "qvb0", "veth", 1, 4),
            link(4, "qvo0", "veth", 0, 3),
        ];
        let mut world = World::new(links, ovs(&[("br-int", &["qvo0", "eth0"])]));
        world.target.manager = Some(Manager::Nova);
        world
    }

    fn neutron() -> World {
        let mut world = World::on_ovs();
        world.target.manager = Some(Manager::Nova);
        world
    }

    fn port(&mut self, name: &str) -> &mut Port {
        self.ovs.ports.get_mut(&format!("p-{name}")).unwrap()
    }

    fn interface(&mut self, name: &str) -> &mut crate::path::ovs::Interface {
        self.ovs.interfaces.get_mut(&format!("i-{name}")).unwrap()
    }

    fn link(&mut self, index: u32) -> &mut Link {
        self.links.get_mut(index).unwrap()
    }

    fn seen(&self) -> Assessment {
        let World { links, ovs, ovsdb_error, guest, in_charge, untagged, now, .. } = self;
        let (guest, in_charge, untagged, now) = (*guest, *in_charge, *untagged, *now);
        let (ovsdb_error, uplinks) = (ovsdb_error.as_ref(), &Uplinks::default());
        let mut ovs = ovs.clone();
        ovs.reindex();
        assess(
            &self.target,
            &Facts { links, ovs: &ovs, ovsdb_error, guest, in_charge, untagged, now, uplinks },
        )
    }

    fn unmet(&self) -> Vec<String> {
        self.seen().unmet.iter().map(ToString::to_string).collect()
    }

    fn asks_for(&mut self, vlan: Vlan) {
        self.target.vlan = Some(vlan);
    }
}

fn access(tag: u16) -> Vlan {
    Vlan { tags: vec![tag], ..Vlan::default() }
}

const READY: [&str; 0] = [];

#[test]
fn a_port_without_an_owner_is_ready_when_plugged() {
    let mut world = World::on_ovs();
    assert_eq!(world.unmet(), READY);
    world.interface("tap0").ofport = Some(-1);
    world.interface("tap0").error = Some("No such device".into());
    assert_eq!(world.unmet(), ["Open vSwitch has no OpenFlow port for tap0: No such device"]);
    world.interface("tap0").ofport = None;
    assert_eq!(world.unmet().len(), 1);
}

#[test]
fn neutron_is_ready_when_the_port_is_an_access_port_of_a_real_vlan() {
    let mut world = World::neutron();
    assert_eq!(world.unmet(), ["the port tap0 has no VLAN tag yet"]);
    world.port("tap0").tag = Some(100);
    assert_eq!(world.unmet(), READY);
    assert_eq!(world.seen().vlan, Some(100));
    world.port("tap0").vlan_mode = Some("access".into());
    assert_eq!(world.unmet(), READY);
}

#[test]
fn neutrons_dead_vlan_is_not_ready() {
    let mut world = World::neutron();
    world.port("tap0").tag = Some(4095);
    assert_eq!(world.unmet(), ["the port tap0 has tag 4095, neutron's dead VLAN"]);
    assert_eq!(world.seen().vlan, None);
}

#[test]
fn leftover_trunks_count_only_if_open_vswitch_uses_them() {
    let mut world = World::neutron();
    let port = world.port("tap0");
    port.tag = Some(7);
    port.vlan_mode = Some("trunk".into());
    port.trunks = vec![4095];
    let mode = "the port tap0 has vlan_mode trunk, not access";
    assert_eq!(world.unmet(), [mode, "the port tap0 has trunks [4095], not []"]);
    for ignores in [None, Some("access"), Some("dot1q-tunnel")] {
        world.port("tap0").vlan_mode = ignores.map(str::to_owned);
        assert_eq!((world.unmet(), world.seen().vlan), (vec![], Some(7)), "{ignores:?}");
    }
    world.port("tap0").vlan_mode = None;
    world.port("tap0").tag = None;
    let tag = "the port tap0 has no VLAN tag yet";
    assert_eq!(world.unmet(), [tag, "the port tap0 has trunks [4095], not []"], "a trunk port");
}

#[test]
fn a_tag_that_ovs_vswitchd_has_not_carried_out_is_not_ready() {
    let mut world = World::neutron();
    world.port("tap0").tag = Some(100);
    world.port("tap0").changed_in = 8;
    (world.ovs.next_cfg, world.ovs.cur_cfg) = (9, 7);
    assert_eq!(world.unmet(), ["ovs-vswitchd has not carried out the last change of the port tap0 yet"]);
    world.ovs.cur_cfg = 8;
    assert_eq!(world.unmet(), READY, "change 9 is not of this port");
}

/// The agent writes net_uuid some milliseconds after the tag.
#[test]
fn neutron_is_in_charge_of_a_bridge_that_its_agent_has_made() {
    let patches = [("br-int", &["tap0", "int-br-ex:patch:phy-br-ex", "tap1"][..])];
    let tunnels = [("br-int", &["tap0", "patch-tun:patch:patch-int", "tap1"][..])];
    let plain = [("br-int", &["tap0", "patch0:patch:patch1", "tap1"][..])];
    for (bridges, marked) in [(patches, Some("int-br-ex")), (tunnels, Some("patch-tun")), (plain, None)] {
        let mut world = World::on_ovs();
        world.ovs = ovs(&bridges);
        let of = |world: &World| world.seen().in_charge;
        let words = |port: &str| (Owner::Neutron, format!("{port} on br-int belongs to neutron's agent"));
        match marked {
            Some(port) => assert_eq!(of(&world), words(port)),
            None => assert_eq!(of(&world).0, Owner::Nobody),
        }
        world.port("tap1").other_config.insert("net_uuid".into(), "n".into());
        assert_eq!(of(&world).0, Owner::Neutron);
        world.asks_for(access(100));
        assert_eq!(of(&world).0, Owner::Vlan, "the operator's VLAN takes precedence");
    }
}

#[test]
fn other_config_tag_proves_the_owner_only() {
    let mut world = World::on_ovs();
    let config = &mut world.port("tap0").other_config;
    config.insert("tag".into(), "100".into());
    config.insert("net_uuid".into(), "n".into());
    assert_eq!(world.seen().in_charge, (Owner::Neutron, "other_config:net_uuid on tap0".into()));
    assert_eq!(world.unmet(), ["the port tap0 has no VLAN tag yet"]);
}

#[test]
fn ovn_is_ready_when_ovn_installed_is_set() {
    let mut world = World::neutron();
    world.ovs.external_ids.insert("ovn-remote".into(), "ssl:192.0.2.1:6642".into());
    assert_eq!(world.seen().in_charge.0, Owner::Ovn, "before nova's metadata");
    let missing = "ovn-controller has not installed the flows of tap0: ovn-installed is not set";
    assert_eq!(world.unmet(), [missing]);
    world.interface("tap0").external_ids.insert("ovn-installed".into(), "false".into());
    assert_eq!(world.unmet(), [missing]);
    world.interface("tap0").external_ids.insert("ovn-installed".into(), "true".into());
    assert_eq!(world.unmet(), READY);
}

#[test]
fn ovn_is_in_charge_of_its_own_bridge_only() {
    let mut world = World::on_ovs();
    world.ovs.external_ids.insert("ovn-remote".into(), "ssl:192.0.2.1:6642".into());
    world.ovs.external_ids.insert("ovn-bridge".into(), "br-ovn".into());
    assert_eq!(world.seen().in_charge.0, Owner::Nobody);
}

#[test]
fn a_leftover_tag_of_an_ovn_port_means_nothing() {
    let mut world = World::on_ovs();
    world.port("tap0").tag = Some(7);
    world.port("tap0").other_config.insert("net_uuid".into(), "n".into());
    world.interface("tap0").external_ids.insert("ovn-installed".into(), "true".into());
    assert_eq!((world.seen().in_charge.0, world.unmet(), world.seen().vlan), (Owner::Ovn, vec![], None));
}

#[test]
fn opennebula_is_ready_when_its_driver_has_set_anything() {
    let mut world = World::on_ovs();
    world.target.manager = Some(Manager::OpenNebula);
    assert_eq!(world.seen().in_charge.0, Owner::Agent);
    let unset = "the agent in charge of the port tap0 has set neither tag nor vlan_mode nor trunks (a network that never \
                 gets a VLAN needs untagged = true in the configuration)";
    assert_eq!(world.unmet(), [unset]);
    for (tag, mode, trunks, vlan) in [
        (Some(5), None, vec![], Some(5)),
        (Some(5), Some("native-untagged"), vec![7, 8], Some(5)),
        (Some(5), Some("dot1q-tunnel"), vec![], Some(5)),
        (None, None, vec![7, 8], None),
    ] {
        let port = world.port("tap0");
        (port.tag, port.vlan_mode, port.trunks) = (tag, mode.map(str::to_owned), trunks);
        assert_eq!((world.unmet(), world.seen().vlan), (vec![], vlan), "{tag:?} {mode:?}");
    }
    world.port("tap0").tag = Some(4095);
    assert_eq!(world.unmet(), ["the port tap0 has tag 4095, neutron's dead VLAN"]);
}

#[test]
fn the_configuration_may_name_another_agent_as_owner() {
    let mut world = World::on_ovs();
    world.in_charge = Some(Owner::Agent);
    assert_eq!(world.unmet().len(), 1);
    world.port("tap0").tag = Some(5);
    assert_eq!(world.unmet(), READY);
}

#[test]
fn a_network_without_vlan_never_gets_one() {
    for manager in [Manager::OpenNebula, Manager::Nova] {
        let mut world = World::on_ovs();
        world.target.manager = Some(manager);
        world.untagged = true;
        assert_eq!(world.unmet(), READY);
        world.port("tap0").trunks = vec![4095];
        assert_eq!(world.unmet(), ["the port tap0 has trunks [4095], not []"]);
        world.port("tap0").tag = Some(4095);
        assert_eq!(world.unmet(), ["the port tap0 has tag 4095, neutron's dead VLAN"]);
        world.port("tap0").tag = Some(5);
        assert_eq!((world.unmet(), world.seen().vlan), (vec![], Some(5)));
    }
}

#[test]
fn the_required_vlan_may_be_the_native_one_of_a_trunk() {
    let mut world = World::on_ovs();
    world.asks_for(access(100));
    for mode in ["access", "dot1q-tunnel", "native-untagged", "native-tagged"] {
        let port = world.port("tap0");
        (port.tag, port.vlan_mode, port.trunks) = (Some(100), Some(mode.into()), vec![200]);
        assert_eq!((world.unmet(), world.seen().vlan), (vec![], Some(100)), "{mode}");
        world.port("tap0").tag = Some(7);
        assert_eq!(world.unmet(), ["the port tap0 has tag 7, not 100"], "{mode}");
    }
    world.port("tap0").tag = Some(100);
    world.port("tap0").vlan_mode = Some("trunk".into());
    assert_eq!(world.unmet()[0], "the port tap0 has vlan_mode trunk, not access");
}

#[test]
fn the_hosts_end_of_a_nic_on_open_vswitch_must_be_up() {
    let mut world = World::on_ovs();
    world.link(2).lower_up = false;
    assert_eq!(world.unmet(), READY, "a tap has no carrier while no program has it open");
    world.link(2).up = false;
    assert_eq!(world.unmet(), ["tap0, the host's end of the NIC, is down"]);
}

#[test]
fn a_vlan_in_the_domains_xml_must_be_on_the_port() {
    let mut world = World::on_ovs();
    world.asks_for(access(100));
    assert_eq!(world.unmet(), ["the port tap0 has no VLAN tag yet, not 100"]);
    world.port("tap0").tag = Some(7);
    assert_eq!(world.unmet(), ["the port tap0 has tag 7, not 100"]);
    world.port("tap0").tag = Some(100);
    assert_eq!(world.unmet(), READY);
}

#[test]
fn a_trunk_in_the_domains_xml_must_be_on_the_port() {
    let mut world = World::on_ovs();
    let native = Some((100, NativeMode::Untagged));
    world.asks_for(Vlan { trunk: true, tags: vec![200, 100], native });
    let port = world.port("tap0");
    port.tag = Some(100);
    port.trunks = vec![100, 200];
    assert_eq!(world.unmet(), ["the port tap0 has vlan_mode unset, not native-untagged"]);
    world.port("tap0").vlan_mode = Some("native-untagged".into());
    assert_eq!(world.unmet(), READY);

    world.asks_for(Vlan { trunk: true, tags: vec![100, 200], native: None });
    world.port("tap0").vlan_mode = None;
    assert_eq!(world.unmet(), ["the port tap0 has tag 100, where none is wanted"]);
    world.port("tap0").tag = None;
    assert_eq!(world.unmet(), READY);
}

#[test]
fn the_configuration_may_name_the_owner() {
    let mut world = World::neutron();
    world.in_charge = Some(Owner::Nobody);
    assert_eq!(world.unmet(), READY);
    assert_eq!(world.seen().in_charge.1, "the configuration says so");
}

#[test]
fn a_hybrid_plug_needs_its_bridge_to_forward_and_its_qvo_to_be_ready() {
    let mut world = World::hybrid();
    assert_eq!(world.unmet(), ["the port qvo0 has no VLAN tag yet"]);
    world.port("qvo0").tag = Some(200);
    assert_eq!(world.unmet(), READY);
    assert_eq!((world.seen().vlan, world.seen().ofport), (Some(200), Some(1)));
    world.link(2).port.as_mut().unwrap().state = PortState::Learning;
    assert_eq!(world.unmet(), ["the bridge qbr0 does not forward from tap0 yet: the port is learning"]);
    world.link(2).port.as_mut().unwrap().state = PortState::Forwarding;
    world.link(3).up = false;
    assert_eq!(world.unmet(), ["qvb0 is down"]);
}

/// Neutron 24 gives the trunk's own patch tag 0.
#[test]
fn the_parent_of_a_trunk_follows_the_rule_of_its_patch_port() {
    for tag in [None, Some(0)] {
        let trunk: &[&str] = &["tap0", "spt-2:patch:spi-2", "tpt-1:patch:tpi-1"];
        let ovs = ovs(&[("tbr-1", trunk), ("br-int", &["eth0", "spi-2:patch:spt-2", "tpi-1:patch:tpt-1"])]);
        let mut world = World::new([link(2, "tap0", "tun", 0, 0)], ovs);
        world.target.manager = Some(Manager::Nova);
        world.port("tpt-1").tag = tag;
        assert_eq!(world.unmet(), ["the port tpi-1 has no VLAN tag yet"]);
        world.port("tpi-1").tag = Some(100);
        assert_eq!((world.unmet(), world.seen().vlan), (vec![], Some(100)));
        assert_eq!(world.seen().ofport, Some(1), "of tap0 on tbr-1, where the guest's frames enter");
    }
}

#[test]
fn a_port_with_a_bridge_of_its_own_follows_the_rule_of_its_patch_port() {
    let own = ("pb0a1b2c3d-4e", &["pb0a1b2c3d-4e:internal", "tap0a1b2c3d-4e", "pbp1:patch:ibp1"][..]);
    let ovs = ovs(&[
        own,
        ("br-int", &["ibp1:patch:pbp1", "int-br-ex:patch:phy-br-ex"]),
        ("br-ex", &["phy-br-ex:patch:int-br-ex", "eth0"]),
    ]);
    let mut world = World::new([link(2, "tap0a1b2c3d-4e", "tun", 0, 0)], ovs);
    world.target.plug = plug("tap0a1b2c3d-4e");
    world.interface("ibp1").external_ids.insert("iface-id".into(), "0a1b2c3d".into());
    world.ovs.external_ids.insert("ovn-remote".into(), "ssl:192.0.2.1:6642".into());
    assert_eq!(world.seen().in_charge.0, Owner::Ovn);
    assert_eq!(
        world.unmet(),
        ["ovn-controller has not installed the flows of ibp1: ovn-installed is not set"]
    );
    world.interface("ibp1").external_ids.insert("ovn-installed".into(), "true".into());
    assert_eq!(world.unmet(), READY);
    let seen = world.seen();
    assert_eq!(seen.ofport, Some(2), "of the tap on its own bridge");
    let attachment = seen.attachment.unwrap();
    assert_eq!((attachment.kind, attachment.bridge.as_str()), (Kind::PerPortBridge, "br-int"));

    world.ovs.ports.remove("p-pbp1");
    assert_eq!(world.unmet(), ["the bridge pb0a1b2c3d-4e has no patch port to the integration bridge"]);
}

#[test]
fn an_integration_bridge_with_a_single_guest_is_no_port_s_own_bridge() {
    let bridges = [
        ("br-int", &["br-int:internal", "tap0", "int-br-ex:patch:phy-br-ex"][..]),
        ("br-ex", &["phy-br-ex:patch:int-br-ex", "eth0"]),
    ];
    let mut world = World::new([link(2, "tap0", "tun", 0, 0)], ovs(&bridges));
    world.port("tap0").tag = Some(7);
    let attachment = world.seen().attachment.unwrap();
    assert_eq!(
        (attachment.kind, attachment.bridge.as_str(), world.seen().vlan),
        (Kind::Ovs, "br-int", Some(7))
    );
}

#[test]
fn a_linux_bridge_must_be_up_and_forward_from_a_port_with_a_carrier() {
    let mut world = World::on_linux_bridge();
    assert_eq!(world.unmet(), READY);
    world.link(2).port.as_mut().unwrap().state = PortState::Listening;
    assert_eq!(world.unmet(), ["the bridge br0 does not forward from tap0 yet: the port is listening"]);
    world.link(2).lower_up = false;
    assert_eq!(world.unmet(), ["tap0 has no carrier"]);
    world.link(2).up = false;
    world.link(1).up = false;
    assert_eq!(world.unmet(), ["br0 is down", "tap0 is down"]);
}

#[test]
fn a_filtering_bridge_must_have_the_required_pvid() {
    let mut world = World::on_linux_bridge();
    world.link(1).bridge.as_mut().unwrap().vlan_filtering = true;
    assert_eq!(world.unmet(), ["tap0 has no PVID: its bridge drops untagged frames"]);
    world.link(2).pvid = Some(1);
    assert_eq!(world.unmet(), READY, "no VLAN is required");
    world.asks_for(access(100));
    assert_eq!(world.unmet(), ["tap0 has PVID 1, not 100"]);
    world.link(2).pvid = Some(100);
    assert_eq!((world.unmet(), world.seen().vlan), (vec![], Some(100)));
}

#[test]
fn a_bridge_without_vlan_filtering_cannot_have_the_required_one() {
    let mut world = World::on_linux_bridge();
    world.asks_for(access(100));
    assert_eq!(world.unmet(), ["the bridge br0 does not filter VLANs, so tap0 is not in VLAN 100"]);
}

#[test]
fn a_macvtap_and_its_lower_device_must_be_up() {
    let links = [link(2, "tap0", "macvtap", 0, 4), link(4, "eth0", "", 0, 0)];
    let mut world = World::new(links, Ovs::default());
    assert_eq!(world.unmet(), READY);
    world.link(4).lower_up = false;
    assert_eq!(world.unmet(), ["eth0 has no carrier"]);
}

#[test]
fn a_vhost_user_port_follows_the_rules_of_open_vswitch_without_a_device() {
    let mut world = World::new([], ovs(&[("br-int", &["tap0:dpdkvhostuserclient", "eth0"])]));
    world.target.manager = Some(Manager::Nova);
    assert_eq!(world.unmet(), ["the port tap0 has no VLAN tag yet"]);
    world.port("tap0").tag = Some(100);
    assert_eq!(world.unmet(), READY);
}

#[test]
fn the_guest_must_run_here_with_its_link_up() {
    let mut world = World::on_linux_bridge();
    world.guest = GuestState::Paused("paused");
    assert_eq!(world.unmet(), ["the guest does not run: it is paused"]);
    world.guest = GuestState::Left("shut off");
    assert_eq!(world.unmet(), ["the guest has left this host: it is shut off"]);
    world.guest = GuestState::Running;
    world.target.link_up = false;
    assert_eq!(world.unmet(), ["the guest's link is down in the domain's XML"]);
}

#[test]
fn a_change_that_is_not_counted_settles_before_the_port_is_ready() {
    let mut world = World::neutron();
    world.port("tap0").tag = Some(100);
    let at = world.now;
    world.port("tap0").uncounted = Some(Uncounted { at, next_cfg: 0 });
    assert_eq!((world.unmet(), world.seen().is_ready()), (vec![], false));
    assert_eq!(world.seen().settles_in, Some(SETTLING_TIME));
    world.now += SETTLING_TIME;
    assert!(world.seen().is_ready());
    world.now = at;
    world.ovs.cur_cfg = 1;
    assert!(world.seen().is_ready(), "a later change has been carried out, and this one with it");
}

#[test]
fn a_ready_port_stays_so_while_ovsdb_is_restarted_and_no_other_gets_ready() {
    let mut world = World::neutron();
    world.ovsdb_error = Some(Unreachable { why: "closed".into(), since: world.now, is_absence: false });
    let lost = "OVSDB cannot be reached: closed";
    assert_eq!(world.unmet(), ["the port tap0 has no VLAN tag yet", lost]);
    world.port("tap0").tag = Some(100);
    assert_eq!(world.unmet(), READY);
    world.now += OUTAGE_TOLERANCE + Duration::from_millis(1);
    assert_eq!(world.unmet(), [lost]);
}

#[test]
fn a_host_without_open_vswitch_needs_no_ovsdb() {
    let mut world = World::on_linux_bridge();
    world.ovsdb_error =
        Some(Unreachable { why: "no such file".into(), since: Duration::ZERO, is_absence: true });
    assert_eq!(world.unmet(), READY);
    world.link(2).master = None;
    assert_eq!(world.unmet(), ["tap0 is not plugged into a bridge", "OVSDB cannot be reached: no such file"]);
}

#[test]
fn without_ovsdb_nothing_is_said_of_a_port_that_only_ovsdb_knows() {
    let mut world = World::new([link(2, "tap0", "tun", 0, 0)], Ovs::default());
    let why = "permission denied".to_owned();
    world.ovsdb_error = Some(Unreachable { why, since: Duration::ZERO, is_absence: false });
    assert_eq!(world.unmet(), ["OVSDB cannot be reached: permission denied"]);
    assert_eq!(world.seen().in_charge.1, "it cannot be told without OVSDB");
}

/// Like nova's `brq`, to which the agent adds the VLAN device after the tap.
#[test]
fn a_port_that_an_agent_makes_waits_for_its_way_out() {
    let words = ["br0 has no uplink"];
    let mut world = World::on_linux_bridge();
    assert_eq!(world.unmet(), READY, "without an agent the missing uplink is a failure");
    world.target.manager = Some(Manager::Nova);
    assert_eq!(world.unmet(), words);
    world.links.change(90, |eth0| eth0.master = Some(1));
    assert_eq!(world.unmet(), READY);

    let mut world = World::neutron();
    world.port("tap0").tag = Some(100);
    assert_eq!(world.unmet(), READY);
    let row = world.interface("eth0");
    (row.ofport, row.error) = (Some(-1), Some("could not open network device eth0 (No such device)".into()));
    let words = "br-int has no uplink: eth0 of br-int: could not open network device eth0 (No such device)";
    assert_eq!(world.unmet(), [words]);
}

/// tap0 → fwbr0 → fwln0 ═ fwpr0 → vmbr0, which filters VLANs, as Proxmox builds it.
fn behind_a_firewalls_bridge() -> World {
    let links = [
        link(1, "fwbr0", "bridge", 0, 0),
        link(2, "tap0", "tun", 1, 0),
        link(3, "fwln0", "veth", 1, 4),
        link(4, "fwpr0", "veth", 5, 3),
        link(5, "vmbr0", "bridge", 0, 0),
        link(90, "eth0", "", 5, 0),
    ];
    let mut world = World::new(links, Ovs::default());
    world.link(5).bridge.as_mut().unwrap().vlan_filtering = true;
    world
}

#[test]
fn a_pvid_is_waited_for_on_the_first_bridge_that_filters() {
    let mut world = behind_a_firewalls_bridge();
    assert_eq!(world.unmet(), ["fwpr0 has no PVID: its bridge drops untagged frames"]);
    world.link(4).pvid = Some(30);
    assert_eq!((world.unmet(), world.seen().vlan), (vec![], None), "fwbr0 knows no VLANs");
    world.asks_for(access(31));
    assert_eq!(world.unmet(), ["fwpr0 has PVID 30, not 31"]);
    world.asks_for(access(30));
    assert_eq!(world.unmet(), READY);
    world.link(5).bridge.as_mut().unwrap().vlan_filtering = false;
    assert_eq!(world.unmet(), ["the bridge fwbr0 does not filter VLANs, so tap0 is not in VLAN 30"]);
}

#[test]
fn a_trunk_without_a_native_vlan_is_in_each_of_its_vlans() {
    let trunk = Vlan { trunk: true, tags: vec![42, 43], native: None };
    let mut world = World::on_linux_bridge();
    world.asks_for(trunk.clone());
    assert_eq!(world.unmet(), READY, "without filtering all tags pass");
    world.link(1).bridge.as_mut().unwrap().vlan_filtering = true;
    assert_eq!(world.unmet(), ["tap0 is not in the VLANs 42, 43"]);
    let range = |vlan| crate::path::link::PortVlans { first: vlan, last: vlan, untagged: false };
    world.link(2).vlans = vec![range(42)];
    assert_eq!(world.unmet(), ["tap0 is not in VLAN 43"]);
    world.link(2).vlans = vec![range(42), range(43)];
    assert_eq!(world.unmet(), READY, "a PVID does not matter");

    let mut world = World::on_ovs();
    world.asks_for(trunk);
    world.port("tap0").trunks = vec![43, 42];
    assert_eq!((world.unmet(), world.seen().vlan), (vec![], None));
}
