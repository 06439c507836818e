//! A host with a known state: taps on an Open vSwitch bridge, owned by neutron, with one uplink.
//!
//! It has OVSDB's rows and, apart from them, ovs-vswitchd's datapath, which follows when a test says so. It loses, refuses
//! and delays rounds on request, and records the sent frames.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use pnet_base::MacAddr;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::host::{Capture, Host, Injector};
use super::interests::Interests;
use super::pacer::Pacer;
use super::sent_frames::SentFrames;
use super::solicitor::Solicitor;
use crate::announcement::frame::Frame;
use crate::announcement::injection::{Method, Way};
use crate::host::injector::{InjectorError, WayError};
use crate::host::netlink::fdb;
use crate::host::openvswitch::ovsdb;
use crate::host::openvswitch::packet_outs::Submission;
use crate::host::witness::Watch;
use crate::path::attachment::tests::{link, ovs};
use crate::path::link::Links;
use crate::path::ovs::{DEAD_VLAN, Port};
use crate::proof::capture_point::{CapturePoint, Direction};
use crate::proof::sighting::Sighting;

/// The uplink's ifindex.
const UPLINK: u32 = 1;
/// The time after which the adapter gives up a bridge that does not answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// The host.
#[derive(Debug)]
pub(crate) struct World {
    taps: Vec<String>,
    links: watch::Sender<Links>,
    ovs: watch::Sender<ovsdb::State>,
    hangs: watch::Sender<bool>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// By tap: the VLAN that ovs-vswitchd has carried out.
    datapath: BTreeMap<String, Option<u16>>,
    /// By tap: why no frame may be sent by it, and since when.
    forbidden: BTreeMap<String, (&'static str, Instant)>,
    /// By tap: when its tag was last cleared.
    cleared: BTreeMap<String, Instant>,
    lose: u32,
    refuse: u32,
    /// What has come while the bridge hangs, which cannot be withdrawn.
    queued: Vec<(String, Vec<Frame>, Instant)>,
    watches: Vec<(MacAddr, Instant, mpsc::Sender<Sighting>)>,
    sent: Vec<Sent>,
    violations: Vec<String>,
}

/// A round that was injected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sent {
    /// When it was passed to the bridge, which may have hung.
    pub began: Instant,
    /// When it was injected.
    pub at: Instant,
    /// The tap.
    pub tap: String,
    /// The number of frames.
    pub frames: usize,
    /// The VLAN in which it left the host, if it left.
    pub left: Option<u16>,
}

impl World {
    /// Taps without a tag.
    pub(crate) fn new(taps: &[String]) -> Arc<World> {
        let device = |(n, name): (usize, &String)| link(n as u32 + 2, name, "tun", 0, 0);
        let uplink = link(UPLINK, "up0", "", 0, 0);
        let links = Links::from_iter(taps.iter().enumerate().map(device).chain([uplink]));
        let ports: Vec<&str> = taps.iter().map(String::as_str).chain(["up0"]).collect();
        let state = ovsdb::State { ovs: ovs(&[("br-int", &ports)]), error: None, epoch: Instant::now() };
        let datapath = taps.iter().map(|tap| (tap.clone(), None)).collect();
        Arc::new(World {
            taps: taps.to_vec(),
            links: watch::channel(links).0,
            ovs: watch::channel(state).0,
            hangs: watch::channel(false).0,
            state: Mutex::new(State { datapath, ..State::default() }),
        })
    }

    /// The host as announcements see it, with its quota.
    pub(crate) fn host(self: &Arc<World>, frames_per_second: u32) -> Host {
        Host {
            links: self.links.subscribe(),
            ovs: self.ovs.subscribe(),
            ovs_socket: "/nonexistent/db.sock".into(),
            ovs_directory: "/nonexistent".into(),
            fdb: fdb::Lookups::default(),
            ovs_fdb: crate::host::openvswitch::fdb::Tables::default(),
            injectors: Injector::Fake(self.clone()),
            witness: Capture::Fake(self.clone()),
            traces: crate::run::traces::Traces::default(),
            flows: crate::host::openvswitch::flow_monitor::FlowMonitors::fed(self.hangs.subscribe()),
            pace: Some(Pacer::start(frames_per_second)),
            solicitor: Solicitor::new(),
            sent: SentFrames::default(),
            interests: Interests::start(self.links.subscribe(), self.ovs.subscribe()),
        }
    }

    /// A transaction that sets a port's tag; `counted` if it increments `next_cfg`.
    pub(crate) fn commit(&self, tap: &str, tag: Option<u16>, counted: bool) {
        if tag.is_none() {
            self.lock().cleared.insert(tap.into(), Instant::now());
        }
        self.ovs.send_modify(|state| {
            let (ovs, now) = (&mut state.ovs, state.epoch.elapsed());
            ovs.next_cfg += i64::from(counted);
            ovs.changes.port(tap);
            let next_cfg = ovs.next_cfg;
            if let Some(port) = ovs.ports.get_mut(&format!("p-{tap}")) {
                *port = Port { tag, ..port.clone() }.after(Some(port), counted, next_cfg, now);
                if port.uncounted.is_some_and(|change| change.at == now) {
                    ovs.answers.changed_at = Some(now);
                }
            }
        });
    }

    /// A tap and its port do not exist any more, or exist again, without a tag.
    pub(crate) fn plug(&self, tap: &str, is_there: bool) {
        let Some(at) = self.taps.iter().position(|other| other == tap) else { return };
        let (row, index) = (format!("p-{tap}"), at as u32 + 2);
        if self.ovs.borrow().ovs.ports.contains_key(&row) == is_there {
            return;
        }
        self.lock().cleared.insert(tap.into(), Instant::now());
        self.links.send_modify(|links| match is_there {
            true => links.insert(link(index, tap, "tun", 0, 0)),
            false => drop(links.remove(index)),
        });
        self.ovs.send_modify(|state| {
            let (ovs, now) = (&mut state.ovs, state.epoch.elapsed());
            ovs.next_cfg += 1;
            ovs.changes.port(tap);
            if is_there {
                let port = Port { name: tap.into(), interfaces: vec![format!("i-{tap}")], ..Port::default() };
                ovs.ports.insert(row.clone(), port.after(None, true, ovs.next_cfg, now));
            } else {
                ovs.ports.remove(&row);
            }
            ovs.bridges.values_mut().for_each(|bridge| {
                bridge.ports.retain(|port| *port != row);
                bridge.ports.extend(is_there.then(|| row.clone()));
            });
            ovs.reindex();
        });
    }

    /// ovs-vswitchd carries out all commits, and sets `cur_cfg`.
    pub(crate) fn carry_out(&self) {
        let mut state = self.lock();
        let ovs = self.ovs.borrow();
        for tap in &self.taps {
            let tag = ovs.ovs.ports.get(&format!("p-{tap}")).and_then(|port| port.tag);
            state.datapath.insert(tap.clone(), tag);
        }
        drop((state, ovs));
        self.ovs.send_if_modified(|state| {
            let is_behind = state.ovs.cur_cfg < state.ovs.next_cfg || state.ovs.answers.is_due();
            state.ovs.cur_cfg = state.ovs.next_cfg;
            state.ovs.carried_out_until(state.epoch.elapsed());
            is_behind
        });
    }

    /// Loses the next rounds inside the host.
    pub(crate) fn lose(&self, rounds: u32) {
        self.lock().lose = rounds;
    }

    /// Refuses the next rounds.
    pub(crate) fn refuse(&self, rounds: u32) {
        self.lock().refuse = rounds;
    }

    /// Makes the bridge hang, or answer again, and carry out what it was told meanwhile.
    pub(crate) fn hang(&self, hangs: bool) {
        if !hangs {
            let mut state = self.lock();
            for (tap, frames, began) in std::mem::take(&mut state.queued) {
                state.let_in(&tap, &frames, began);
            }
        }
        self.hangs.send_replace(hangs);
    }

    /// Forbids sending by a tap from the next moment on, with the reason, or permits it again.
    pub(crate) fn forbid(&self, tap: &str, why: Option<&'static str>) {
        let mut state = self.lock();
        match why {
            Some(why) => drop(state.forbidden.entry(tap.into()).or_insert((why, Instant::now()))),
            None => drop(state.forbidden.remove(tap)),
        }
    }

    /// The rounds that were injected.
    pub(crate) fn sent(&self) -> Vec<Sent> {
        self.lock().sent.clone()
    }

    /// The rounds that should not have been sent.
    pub(crate) fn violations(&self) -> Vec<String> {
        self.lock().violations.clone()
    }

    /// Prepares the first of these methods that works.
    pub(super) async fn prepare(&self, ways: &[Way]) -> Result<Way, InjectorError> {
        let mut reasons = Vec::new();
        for way in ways {
            match way {
                Way::PacketOut { .. } if self.is_silent().await => {
                    reasons.push((Method::PacketOut, WayError::NoAnswer("br-int".into())));
                }
                Way::PacketOut { .. } | Way::Redirect(_) => return Ok(way.clone()),
                _ => reasons.push((way.method(), WayError::NotReady)),
            }
        }
        Err(InjectorError::Unavailable(reasons))
    }

    pub(super) async fn send(
        &self,
        way: &Way,
        frames: &[Frame],
        submission: &Submission,
    ) -> Result<(), InjectorError> {
        let number = match way {
            Way::PacketOut { in_port, .. } => *in_port as usize - 1,
            Way::Redirect(device) => device.ifindex as usize - 2,
            _ => return Err(InjectorError::NoSuchWay(way.method())),
        };
        let (tap, began) = (&self.taps[number], Instant::now());
        let refused = InjectorError::Send(way.method(), WayError::NoAnswer("br-int".into()));
        let is_told = way.method() == Method::PacketOut;
        submission.hand_over();
        if *self.hangs.borrow() {
            self.lock().queued.push((tap.clone(), frames.to_vec(), began));
            return if is_told && self.is_silent().await { Err(refused) } else { Ok(()) };
        }
        let mut state = self.lock();
        if let Some(left) = state.refuse.checked_sub(1).filter(|_| is_told) {
            state.refuse = left;
            return Err(refused);
        }
        state.let_in(tap, frames, began);
        Ok(())
    }

    /// Waits until the bridge answers; whether that takes too long.
    async fn is_silent(&self) -> bool {
        let mut hangs = self.hangs.subscribe();
        tokio::time::timeout(ANSWER_TIMEOUT, hangs.wait_for(|hangs| !hangs)).await.is_err()
    }

    pub(super) fn watch(&self, points: Vec<CapturePoint>, mac: MacAddr, began: Instant) -> Watch {
        let (to, sightings) = mpsc::channel(1024);
        self.lock().watches.push((mac, began, to));
        Watch::fed(points, sightings)
    }

    /// No answer ever arrives.
    pub(super) fn watch_guest(&self) -> Watch {
        Watch::fed(Vec::new(), mpsc::channel(1).1)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

impl State {
    fn let_in(&mut self, tap: &str, frames: &[Frame], began: Instant) {
        let at = Instant::now();
        if let Some((why, since)) = self.forbidden.get(tap).filter(|(_, since)| *since < began) {
            self.violations.push(format!("{tap}: sent {:?} after {why}", began - *since));
        }
        let vlan = self.datapath[tap];
        if vlan.is_none() && self.cleared.get(tap).is_none_or(|cleared| *cleared < began) {
            self.violations.push(format!("{tap}: left without a VLAN"));
        }
        let is_lost = self.lose > 0;
        self.lose = self.lose.saturating_sub(1);
        let left = vlan.filter(|vlan| *vlan != DEAD_VLAN && !is_lost);
        self.sent.push(Sent { began, at, tap: tap.into(), frames: frames.len(), left });
        self.watches.retain(|(_, _, to)| !to.is_closed());
        if left.is_none() {
            return;
        }
        for frame in frames {
            let sender = frame.bytes.get(6..12);
            for (_, began, to) in self.watches.iter().filter(|(mac, ..)| sender == Some(&mac.octets())) {
                let since = at.saturating_duration_since(*began);
                let _ = to.try_send(Sighting::new(UPLINK, Direction::Out, since, left, &frame.bytes));
            }
        }
    }
}
