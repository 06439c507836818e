//! Each owner's rule, row by row.

use super::*;

#[test]
fn a_port_without_an_owner_is_ready_when_plugged() {
    let mut world = World::on_ovs();
    assert_eq!(world.unmet(), READY);
    world.interface("tap0").ofport = Some(-1);
    world.interface("tap0").error = Some("No such device".into());
    assert_eq!(
        world.unmet(),
        [Condition::NoOfport { port: "tap0".into(), error: Some("No such device".into()) }]
    );
    world.interface("tap0").ofport = None;
    assert_eq!(world.unmet().len(), 1);
}

#[test]
fn neutron_is_ready_when_the_port_is_an_access_port_of_a_real_vlan() {
    let mut world = World::neutron();
    assert_eq!(world.unmet(), [tag("tap0", None, None)]);
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
    assert_eq!(world.unmet(), [tag("tap0", Some(4095), None)]);
    assert_eq!(world.seen().vlan, None);
}

#[test]
fn leftover_trunks_count_only_if_open_vswitch_uses_them() {
    let mut world = World::neutron();
    let port = world.port("tap0");
    port.tag = Some(7);
    port.vlan_mode = Some("trunk".into());
    port.trunks = vec![4095];
    let mode = Condition::VlanMode { port: "tap0".into(), mode: Some("trunk".into()), wanted: "access" };
    assert_eq!(
        world.unmet(),
        [mode, Condition::Trunks { port: "tap0".into(), trunks: vec![4095], wanted: vec![] }]
    );
    for ignores in [None, Some("access"), Some("dot1q-tunnel")] {
        world.port("tap0").vlan_mode = ignores.map(str::to_owned);
        assert_eq!((world.unmet(), world.seen().vlan), (vec![], Some(7)), "{ignores:?}");
    }
    world.port("tap0").vlan_mode = None;
    world.port("tap0").tag = None;
    let tag = tag("tap0", None, None);
    assert_eq!(
        world.unmet(),
        [tag, Condition::Trunks { port: "tap0".into(), trunks: vec![4095], wanted: vec![] }],
        "a trunk port"
    );
}

#[test]
fn a_tag_that_ovs_vswitchd_has_not_carried_out_is_not_ready() {
    let mut world = World::neutron();
    world.port("tap0").tag = Some(100);
    world.port("tap0").changed_in = 8;
    (world.ovs.next_cfg, world.ovs.cur_cfg) = (9, 7);
    assert_eq!(world.unmet(), [Condition::NotApplied { port: "tap0".into() }]);
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
    assert_eq!(world.unmet(), [tag("tap0", None, None)]);
}

#[test]
fn ovn_is_ready_when_ovn_installed_is_set() {
    let mut world = World::neutron();
    world.ovs.external_ids.insert("ovn-remote".into(), "ssl:192.0.2.1:6642".into());
    assert_eq!(world.seen().in_charge.0, Owner::Ovn, "before nova's metadata");
    let missing = Condition::NotInstalled { port: "tap0".into() };
    assert_eq!(world.unmet(), std::slice::from_ref(&missing));
    world.interface("tap0").external_ids.insert("ovn-installed".into(), "false".into());
    assert_eq!(world.unmet(), std::slice::from_ref(&missing));
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
    assert_eq!(world.unmet(), [Condition::NoVlanSetting { port: "tap0".into() }]);
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
    assert_eq!(world.unmet(), [tag("tap0", Some(4095), None)]);
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
        assert_eq!(
            world.unmet(),
            [Condition::Trunks { port: "tap0".into(), trunks: vec![4095], wanted: vec![] }]
        );
        world.port("tap0").tag = Some(4095);
        assert_eq!(world.unmet(), [tag("tap0", Some(4095), None)]);
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
        assert_eq!(world.unmet(), [tag("tap0", Some(7), Some(100))], "{mode}");
    }
    world.port("tap0").tag = Some(100);
    world.port("tap0").vlan_mode = Some("trunk".into());
    assert_eq!(
        world.unmet()[0],
        Condition::VlanMode { port: "tap0".into(), mode: Some("trunk".into()), wanted: "access" }
    );
}

#[test]
fn the_hosts_end_of_a_nic_on_open_vswitch_must_be_up() {
    let mut world = World::on_ovs();
    world.link(2).lower_up = false;
    assert_eq!(world.unmet(), READY, "a tap has no carrier while no program has it open");
    world.link(2).up = false;
    assert_eq!(world.unmet(), [Condition::NicDown { device: "tap0".into() }]);
}

#[test]
fn a_vlan_in_the_domains_xml_must_be_on_the_port() {
    let mut world = World::on_ovs();
    world.asks_for(access(100));
    assert_eq!(world.unmet(), [tag("tap0", None, Some(100))]);
    world.port("tap0").tag = Some(7);
    assert_eq!(world.unmet(), [tag("tap0", Some(7), Some(100))]);
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
    assert_eq!(
        world.unmet(),
        [Condition::VlanMode { port: "tap0".into(), mode: None, wanted: "native-untagged" }]
    );
    world.port("tap0").vlan_mode = Some("native-untagged".into());
    assert_eq!(world.unmet(), READY);

    world.asks_for(Vlan { trunk: true, tags: vec![100, 200], native: None });
    world.port("tap0").vlan_mode = None;
    assert_eq!(world.unmet(), [tag("tap0", Some(100), None)]);
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
    assert_eq!(world.unmet(), [tag("qvo0", None, None)]);
    world.port("qvo0").tag = Some(200);
    assert_eq!(world.unmet(), READY);
    assert_eq!((world.seen().vlan, world.seen().ofport), (Some(200), Some(1)));
    world.link(2).port.as_mut().unwrap().state = PortState::Learning;
    assert_eq!(
        world.unmet(),
        [Condition::NotForwarding {
            device: "tap0".into(),
            bridge: "qbr0".into(),
            state: PortState::Learning
        }]
    );
    world.link(2).port.as_mut().unwrap().state = PortState::Forwarding;
    world.link(3).up = false;
    assert_eq!(world.unmet(), [Condition::Down { device: "qvb0".into() }]);
}

/// Neutron 24 gives the trunk's own patch tag 0.
#[test]
fn the_parent_of_a_trunk_follows_the_rule_of_its_patch_port() {
    for patch in [None, Some(0)] {
        let trunk: &[&str] = &["tap0", "spt-2:patch:spi-2", "tpt-1:patch:tpi-1"];
        let ovs = ovs(&[("tbr-1", trunk), ("br-int", &["eth0", "spi-2:patch:spt-2", "tpi-1:patch:tpt-1"])]);
        let mut world = World::new([link(2, "tap0", "tun", 0, 0)], ovs);
        world.target.manager = Some(Manager::Nova);
        world.port("tpt-1").tag = patch;
        assert_eq!(world.unmet(), [tag("tpi-1", None, None)]);
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
    assert_eq!(world.unmet(), [Condition::NotInstalled { port: "ibp1".into() }]);
    world.interface("ibp1").external_ids.insert("ovn-installed".into(), "true".into());
    assert_eq!(world.unmet(), READY);
    let seen = world.seen();
    assert_eq!(seen.ofport, Some(2), "of the tap on its own bridge");
    let attachment = seen.attachment.unwrap();
    assert_eq!((attachment.kind, attachment.bridge.as_str()), (Kind::PerPortBridge, "br-int"));

    world.ovs.ports.remove("p-pbp1");
    assert_eq!(world.unmet(), [Condition::NoPatch { bridge: "pb0a1b2c3d-4e".into() }]);
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
fn a_vhost_user_port_follows_the_rules_of_open_vswitch_without_a_device() {
    let mut world = World::new([], ovs(&[("br-int", &["tap0:dpdkvhostuserclient", "eth0"])]));
    world.target.manager = Some(Manager::Nova);
    assert_eq!(world.unmet(), [tag("tap0", None, None)]);
    world.port("tap0").tag = Some(100);
    assert_eq!(world.unmet(), READY);
}
