use std::time::Duration;

use pnet_base::MacAddr;
use proptest::prelude::*;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::*;
use crate::config::Config;
use crate::guest::GuestState;
use crate::guest::target::{Manager, Plug};
use crate::host::openvswitch::rows;
use crate::path::attachment::tests::link;
use crate::path::link::{Bridge, Link, PortVlans};
use crate::path::ovs::Ovs;
use crate::path::readiness::{Facts, assess};
use crate::path::tunnel::{Encapsulation, TunnelDevice};
use crate::run::announcer;
use crate::run::order::Order;
use crate::run::signals::Signals;

/// Devices, which have the index of their place here from 1 on, with their kinds and peers.
const DEVICES: [(&str, &str, u32); 18] = [
    ("tap0", "tun", 0),
    ("tap1", "tun", 0),
    ("tap2", "tun", 0),
    ("qbr2", "bridge", 0),
    ("qvb2", "veth", 6),
    ("qvo2", "veth", 5),
    ("br0", "bridge", 0),
    ("eth0", "", 0),
    ("mvt3", "macvtap", 8),
    ("va", "veth", 11),
    ("vb", "veth", 10),
    ("vpn0", "tun", 0),
    ("br-int", "openvswitch", 0),
    ("eth0.7", "vlan", 8),
    ("vpn0.5", "vlan", 12),
    ("vxlan0", "vxlan", 0),
    ("vxlan_sys_4789", "vxlan", 0),
    ("br-phy", "tun", 0),
];
const BRIDGES: [u32; 3] = [4, 7, 0];
/// By which device a tunnel transmits.
const LOWERS: [(u32, &str); 5] = [(0, ""), (8, "eth0"), (14, "eth0.7"), (12, "vpn0"), (18, "br-phy")];
/// Interfaces of Open vSwitch: device, type, peer.
const ROWS: [(&str, &str, &str); 12] = [
    ("tap0", "", ""),
    ("tap1", "", ""),
    ("qvo2", "", ""),
    ("vb", "", ""),
    ("vpn0", "", ""),
    ("eth0", "", ""),
    ("vhu4", "dpdkvhostuserclient", ""),
    ("int-ex", "patch", "phy-ex"),
    ("phy-ex", "patch", "int-ex"),
    ("br-int", "internal", ""),
    ("br-phy", "internal", ""),
    ("vx5", "vxlan", ""),
];
const OVS_BRIDGES: [&str; 2] = ["br-int", "br-ex"];

/// A change of the host.
#[derive(Debug, Clone)]
enum Change {
    /// A device gets this master and this lower device of a tunnel, if any, is set up or down, has libvirt's address or another,
    /// and filters VLANs, or is in one.
    Device {
        at: usize,
        master: usize,
        lower: usize,
        up: bool,
        is_libvirts: bool,
        vlan: bool,
    },
    Gone {
        at: usize,
    },
    /// An interface is on this bridge, if any, with or without a guest's mark, a tag and a number; a tunnel leads by this device.
    Row {
        at: usize,
        bridge: usize,
        egress: usize,
        marked: bool,
        tag: u16,
        ofport: bool,
        by_neutron: bool,
        counted: bool,
    },
    /// ovs-vswitchd has carried out everything.
    CarriedOut,
    /// It has answered about all that was not counted, or cannot be asked.
    Answered(bool),
    /// `hw-offload`.
    Offloads(bool),
    Address {
        at: usize,
        is_there: bool,
    },
}

fn change() -> impl Strategy<Value = Change> {
    let device = (0..DEVICES.len(), 0..BRIDGES.len(), 0..LOWERS.len(), any::<[bool; 3]>()).prop_map(
        |(at, master, lower, [up, is_libvirts, vlan])| Change::Device {
            at,
            master,
            lower,
            up,
            is_libvirts,
            vlan,
        },
    );
    let place = (0..ROWS.len(), 0..=OVS_BRIDGES.len(), 0..LOWERS.len());
    let row = (place, any::<[bool; 4]>(), 0..3u16).prop_map(
        |((at, bridge, egress), [marked, ofport, by_neutron, counted], tag)| Change::Row {
            at,
            bridge,
            egress,
            marked,
            tag,
            ofport,
            by_neutron,
            counted,
        },
    );
    prop_oneof![
        8 => device,
        8 => row,
        2 => (0..DEVICES.len()).prop_map(|at| Change::Gone { at }),
        2 => Just(Change::CarriedOut),
        2 => any::<bool>().prop_map(Change::Answered),
        1 => any::<bool>().prop_map(Change::Offloads),
        2 => (0..DEVICES.len(), any::<bool>()).prop_map(|(at, is_there)| Change::Address { at, is_there }),
    ]
}

struct World {
    links: Links,
    state: ovsdb::State,
    /// By interface: its bridge and rows.
    rows: BTreeMap<usize, (usize, Value, Value)>,
    offloads: bool,
    /// Each change is a millisecond later.
    now: Duration,
}

impl World {
    fn new() -> World {
        let state = ovsdb::State { ovs: Ovs::default(), error: None, epoch: Instant::now() };
        let (rows, now) = (BTreeMap::new(), Duration::ZERO);
        let mut world = World { links: Links::default(), state, rows, offloads: false, now };
        let bridges: Value =
            OVS_BRIDGES.iter().map(|name| ((*name).to_owned(), json!({"new": {"name": name}}))).collect();
        world.apply(&json!({ "Bridge": bridges }));
        world
    }

    fn change(&mut self, change: &Change) {
        self.now += Duration::from_millis(1);
        let ovs = &self.state.ovs;
        match *change {
            Change::Device { at, master, lower, up, is_libvirts, vlan } => {
                self.device(at, BRIDGES[master], LOWERS[lower].0, [up, is_libvirts, vlan]);
            }
            Change::Gone { at } => self.gone(at as u32 + 1),
            Change::Address { at, is_there } => {
                let address = ([192, 0, 2, 1].into(), 24);
                self.links.address(at as u32 + 1, address, is_there);
            }
            Change::CarriedOut => self.apply(&self.counted(ovs.next_cfg, ovs.next_cfg)),
            Change::Answered(true) => self.state.ovs.carried_out_until(self.now),
            Change::Answered(false) => self.state.ovs.not_told_until(self.now),
            Change::Offloads(offloads) => {
                self.offloads = offloads;
                self.apply(&self.counted(ovs.next_cfg, ovs.cur_cfg));
            }
            Change::Row { at, bridge, egress, marked, tag, ofport, by_neutron, counted } => {
                self.row(at, (bridge, egress), [marked, by_neutron, ofport, counted], tag);
            }
        }
    }

    fn counted(&self, next_cfg: i64, cur_cfg: i64) -> Value {
        let other = json!(["map", [["hw-offload", self.offloads.to_string()]]]);
        let ids = json!(["map", []]);
        let row =
            json!({"next_cfg": next_cfg, "cur_cfg": cur_cfg, "external_ids": ids, "other_config": other});
        json!({"Open_vSwitch": {"o": {"new": row}}})
    }

    /// As the kernel has it: a master exists, and the ends of a veth come and go together.
    fn device(&mut self, at: usize, master: u32, lower: u32, flags: [bool; 3]) {
        let ((name, kind, peer), [up, is_libvirts, vlan]) = (DEVICES[at], flags);
        let is_alone = kind == "veth" && self.links.get(peer).is_none();
        let master = match self.links.get(master) {
            Some(_) if kind != "bridge" && !is_alone => master,
            _ => 0,
        };
        let link = link(at as u32 + 1, name, kind, master, peer);
        let lower = Some(lower).filter(|lower| *lower > 0);
        let tunnel = TunnelDevice { encapsulation: Encapsulation::Vxlan(4789), lower };
        self.links.insert(Link {
            up,
            lower_up: up,
            address: Some([if is_libvirts { 0xfe } else { 2 }, 0, 0, 0, 0, at as u8]),
            tunnel: (kind == "vxlan").then_some(tunnel),
            bridge: link.bridge.map(|_| Bridge { vlan_filtering: vlan, mst: false }),
            pvid: vlan.then_some(7),
            vlans: vlan.then_some(PortVlans { first: 7, last: 7, untagged: true }).into_iter().collect(),
            ..link
        });
        if is_alone {
            self.device(peer as usize - 1, 0, 0, flags);
        }
    }

    fn gone(&mut self, index: u32) {
        let ports: Vec<Link> = self.links.all().filter(|port| port.master == Some(index)).cloned().collect();
        ports.into_iter().for_each(|port| self.links.insert(Link { master: None, port: None, ..port }));
        let removed = self.links.remove(index);
        if let Some(peer) = removed.filter(|link| link.is("veth")).and_then(|link| link.link) {
            self.links.remove(peer);
        }
    }

    fn row(&mut self, at: usize, (bridge, egress): (usize, usize), flags: [bool; 4], tag: u16) {
        let ((name, kind, peer), [marked, by_neutron, ofport, counted]) = (ROWS[at], flags);
        let (port, interface) = (format!("p-{name}"), format!("i-{name}"));
        let before = self.rows.remove(&at);
        let new = |rows: Option<&Value>| rows.map_or(json!({}), |new| json!({ "new": new }));
        if bridge < OVS_BRIDGES.len() {
            let map = |pairs: &[(&str, &str)]| json!(["map", pairs]);
            let id = format!("id-{name}");
            let ids = if marked { vec![("iface-id", &id[..])] } else { Vec::new() };
            let other = if by_neutron { vec![("net_uuid", "n")] } else { Vec::new() };
            let options = [("peer", peer), ("remote_ip", if kind == "vxlan" { "192.0.2.5" } else { "" })];
            let options: Vec<_> = options.into_iter().filter(|(_, value)| !value.is_empty()).collect();
            let status = [("tunnel_egress_iface", LOWERS[egress].1)];
            let tag = if tag == 0 { json!(["set", []]) } else { json!(tag) };
            let of_port = json!({"name": name, "interfaces": ["uuid", interface], "tag": tag, "other_config": map(&other)});
            let number = if ofport { json!(at + 1) } else { json!(["set", []]) };
            let of_interface = json!({
                "name": name, "type": kind, "ofport": number,
                "external_ids": map(&ids), "options": map(&options), "status": map(&status),
            });
            self.rows.insert(at, (bridge, of_port, of_interface));
        }
        let rows = self.rows.get(&at);
        let ovs = &self.state.ovs;
        let mut updates = if counted { self.counted(ovs.next_cfg + 1, ovs.cur_cfg) } else { json!({}) };
        updates["Port"] = json!({port: new(rows.map(|rows| &rows.1))});
        updates["Interface"] = json!({interface: new(rows.map(|rows| &rows.2))});
        let touched = before.map(|rows| rows.0).into_iter().chain(rows.map(|rows| rows.0));
        for bridge in touched.collect::<BTreeSet<_>>() {
            let on_it = self.rows.iter().filter(|(_, rows)| rows.0 == bridge);
            let ports: Vec<Value> =
                on_it.map(|(at, _)| json!(["uuid", format!("p-{}", ROWS[*at].0)])).collect();
            let name = OVS_BRIDGES[bridge];
            updates["Bridge"][name] = json!({"new": {"name": name, "ports": ["set", ports]}});
        }
        self.apply(&updates);
    }

    fn apply(&mut self, updates: &Value) {
        rows::apply(&mut self.state.ovs, updates, self.now);
    }

    /// Looks at this time, whichever that of the last change is: what is to settle would be looked at again in time.
    fn look(&self, target: &Target, now: Duration) -> Assessment {
        let facts = Facts {
            links: &self.links,
            ovs: &self.state.ovs,
            ovsdb_error: None,
            guest: GuestState::Running,
            in_charge: None,
            untagged: false,
            now,
            uplinks: &Uplinks::default(),
        };
        assess(target, &facts)
    }
}

/// A NIC by the device's name, and one by its vhost-user socket and the SDN's id.
fn targets() -> Vec<Target> {
    let named = |device: &str| Plug { device: Some(device.into()), ..Plug::default() };
    let vhost_user = Plug {
        device: None,
        interface_id: Some("id-vhu4".into()),
        socket: Some("/run/openvswitch/vhu4".into()),
    };
    let plugs = ["tap0", "tap1", "tap2", "mvt3"].into_iter().map(named).chain([vhost_user]);
    let target = |(n, plug): (usize, Plug)| Target {
        manager: [None, Some(Manager::Nova)][n % 2],
        ..Target::of_device(plug, MacAddr(2, 0, 0, 0, 0, n as u8))
    };
    plugs.enumerate().map(target).collect()
}

/// An assessment without its words.
fn essence(seen: &Assessment) -> Assessment {
    let in_charge = (seen.in_charge.0, String::new());
    Assessment { in_charge, ..seen.clone() }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever else changes, an announcement that is not woken would have seen what it saw before.
    #[test]
    fn what_changes_for_an_announcement_wakes_it(
        changes in prop::collection::vec(change(), 1..60),
        now in prop_oneof![Just(Duration::ZERO), Just(Duration::from_secs(3600))],
    ) {
        let (mut world, targets, mut reader) = (World::new(), targets(), Reader::default());
        reader.look(&world.links, &world.state);
        let mut seen: Vec<Assessment> = targets.iter().map(|target| world.look(target, now)).collect();
        for change in &changes {
            world.change(change);
            let news = reader.look(&world.links, &world.state);
            for (target, seen) in targets.iter().zip(&mut seen) {
                let sees = world.look(target, now);
                let is_woken = match &news {
                    News::Everything => true,
                    News::Ports(ports) => names(target, seen).iter().any(|name| ports.contains(*name)),
                };
                prop_assert!(
                    is_woken || essence(seen) == essence(&sees),
                    "{:?} after {change:?}: {news:?}\n{seen:?}\n{sees:?}", target.plug
                );
                if is_woken {
                    *seen = sees;
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn of_a_hundred_that_wait_a_change_of_one_port_wakes_one() {
    let taps: Vec<String> = (0..100).map(|n| format!("tap{n}")).collect();
    let fake = crate::run::fake::World::new(&taps);
    let host = Arc::new(fake.host(1000));
    for (n, tap) in taps.iter().enumerate() {
        let plug = Plug { device: Some(tap.clone()), ..Plug::default() };
        let target = Target {
            manager: Some(Manager::Nova),
            ..Target::of_device(plug, MacAddr(2, 0, 0, 0, 0, n as u8))
        };
        let order = Arc::new(Order::new(target, &Config::default(), &[], None));
        let signals = Signals::new(order, GuestState::Running, Instant::now());
        tokio::spawn(announcer::announce(host.clone(), signals, Instant::now()));
    }
    let settle = || tokio::time::sleep(Duration::from_millis(1));
    settle().await;
    let before = host.interests.woken();
    fake.commit("tap7", Some(7), true);
    settle().await;
    assert_eq!(host.interests.woken() - before, 1, "the commit");
    fake.carry_out();
    settle().await;
    assert_eq!(host.interests.woken() - before, 2, "what waits for its change to be carried out");
    let sent: BTreeSet<String> = fake.sent().into_iter().map(|round| round.tap).collect();
    assert_eq!(sent, BTreeSet::from(["tap7".to_owned()]));
}
