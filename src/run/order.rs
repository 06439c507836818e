//! The host that announcements run on, and one announcement as it is asked for.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pnet_base::MacAddr;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::announcement::frame::{self, Frame, Style};
use crate::announcement::injection::Method;
use crate::announcement::injection::Way;
use crate::announcement::question::{self, Question};
use crate::announcement::schedule::Schedule;
use crate::config::{Ask, Config, ProofTable};
use crate::guest::GuestState;
use crate::guest::address::{Address, Source, believed};
use crate::guest::domain::Vlan;
use crate::guest::event::Cause;
use crate::guest::gateway::{self, Gateway};
use crate::guest::target::Target;
use crate::host::injector::{InjectorError, Injectors};
use crate::host::netlink::fdb;
use crate::host::openvswitch::{flow_monitor::FlowMonitors, ovsdb};
use crate::host::pcap::Pcap;
use crate::host::witness::{Watch, Witness, WitnessError};
use crate::path::link::Links;
use crate::path::owner::Owner;
use crate::path::readiness::{Assessment, Facts, assess};
use crate::path::uplinks::Uplinks;
use crate::proof::capture_point::CapturePoint;
#[cfg(test)]
use crate::run::fake;
use crate::run::pacer::Pacer;
use crate::run::solicitor::Solicitor;
use crate::run::traces::Traces;
use crate::run::waits::Waits;

/// The host, as its adapters keep it up to date.
#[derive(Debug, Clone)]
pub(crate) struct Host {
    /// The network devices.
    pub links: watch::Receiver<Links>,
    /// Open vSwitch.
    pub ovs: watch::Receiver<ovsdb::State>,
    /// Where Open vSwitch has its sockets.
    pub ovs_directory: PathBuf,
    /// What Linux bridges have learned.
    pub fdb: fdb::Lookups,
    /// The ways in.
    pub injectors: Injector,
    /// What sees frames pass.
    pub witness: Capture,
    /// The frames that may be sent per second, where that is bounded.
    pub pace: Option<Pacer>,
    /// What permits router solicitations.
    pub solicitor: Solicitor,
    /// Open vSwitch's verdicts on frames, so many a second.
    pub traces: Traces,
    /// Notifications of changes to bridges' flows, while something is lost there.
    pub flows: FlowMonitors,
    /// What announcements wait for.
    pub waits: Waits,
}

/// Lets frames enter the host as if the guest had sent them.
#[derive(Debug, Clone)]
pub(crate) enum Injector {
    /// By the ways of this host.
    Host(Arc<Injectors>),
    /// Into a host of which everything is known.
    #[cfg(test)]
    Fake(Arc<fake::World>),
}

impl Injector {
    /// Makes the first of `ways` ready that can be, and returns it.
    pub(crate) async fn prepare(&self, ways: &[Way], forced: Option<Method>) -> Result<Way, InjectorError> {
        match self {
            Injector::Host(injectors) => injectors.prepare(ways, forced).await,
            #[cfg(test)]
            Injector::Fake(_) => ways.first().cloned().ok_or(InjectorError::Unavailable(Vec::new())),
        }
    }

    /// Sends the frames of a round, in order, by a way that was made ready.
    pub(crate) async fn send(&self, way: &Way, frames: &[Frame]) -> Result<(), InjectorError> {
        match self {
            Injector::Host(injectors) => injectors.send(way, frames).await,
            #[cfg(test)]
            Injector::Fake(world) => world.send(way, frames).await,
        }
    }

    /// A way in that worked was taken away for good.
    pub(crate) fn is_exhausted(&self) -> bool {
        match self {
            Injector::Host(injectors) => injectors.is_exhausted(),
            #[cfg(test)]
            Injector::Fake(_) => false,
        }
    }
}

/// Sees frames pass.
#[derive(Debug, Clone)]
pub(crate) enum Capture {
    /// On the devices of this host.
    Host(Witness),
    /// In a host of which everything is known.
    #[cfg(test)]
    Fake(Arc<fake::World>),
}

impl Capture {
    /// Looks at `points` for the announcements of `mac`; sightings have their time since `began`.
    pub(crate) fn watch(
        &self,
        points: Vec<CapturePoint>,
        mac: MacAddr,
        began: Instant,
    ) -> Result<Watch, WitnessError> {
        match self {
            Capture::Host(witness) => witness.watch(points, mac, began),
            #[cfg(test)]
            Capture::Fake(world) => Ok(world.watch(points, mac, began)),
        }
    }

    /// Looks at the guest's own device for answers that come to it.
    pub(crate) fn watch_guest(
        &self,
        ifindex: u32,
        mac: MacAddr,
        began: Instant,
    ) -> Result<Watch, WitnessError> {
        match self {
            Capture::Host(witness) => witness.watch_guest(ifindex, mac, began),
            #[cfg(test)]
            Capture::Fake(world) => Ok(world.watch_guest()),
        }
    }
}

/// What is to be announced, and how.
#[derive(Debug, Clone)]
pub(crate) struct Order {
    /// Why.
    pub cause: Cause,
    /// For whom.
    pub target: Target,
    /// The addresses that are believed.
    pub addresses: Vec<Address>,
    /// The gateways that are known beforehand.
    pub gateways: Vec<Gateway>,
    /// Gateways may be guessed.
    pub guess: bool,
    /// All IPv6 routers are asked, too.
    pub router_solicitation: bool,
    /// How the frames look.
    pub style: Style,
    /// When the rounds are sent.
    pub schedule: Schedule,
    /// What is done to know that the frames left the host.
    pub proof: ProofTable,
    /// How long the port may take to become ready; if it is endless, before that is warned of.
    pub wait: Duration,
    /// The operator's word on who is in charge of the port.
    pub in_charge: Option<Owner>,
    /// The operator's word that no agent will ever set a VLAN on the port.
    pub untagged: bool,
    /// The operator's word on the devices by which frames leave the host.
    pub uplinks: Uplinks,
    /// The operator's choice of a way in.
    pub inject: Option<Method>,
    /// The port is waited for, and what is lost is tried again, for as long as the guest is here.
    pub endless: bool,
    /// Send nothing, and do not wait between the rounds.
    pub dry_run: bool,
    /// Where sent frames are also written to.
    pub pcap: Option<Arc<Mutex<Pcap>>>,
}

impl Order {
    /// The order for `target` under `config`, with the addresses and the VLAN that the operator adds by hand.
    pub(crate) fn new(mut target: Target, config: &Config, ips: &[IpAddr], vlan: Option<u16>) -> Order {
        let configured = config.overrides(&target).flat_map(|o| &o.addresses);
        let asked = ips.iter().map(|ip| (*ip, Source::Operator));
        let named = asked.chain(configured.map(|ip| (*ip, Source::Configuration)));
        let named = named.map(|(ip, source)| Address { ip, source });
        let candidates = named.chain(target.addresses.iter().copied());
        let mut addresses = believed(candidates, &config.addresses.sources);
        addresses.retain(|address| config.permits(&target, address.ip));
        let vlan = vlan.or_else(|| config.overrides(&target).find_map(|o| o.vlan));
        if let Some(vlan) = vlan {
            target.vlan = Some(Vlan { tags: vec![vlan], ..Vlan::default() });
        }
        let ips: Vec<IpAddr> = addresses.iter().map(|address| address.ip).collect();
        let gateways = config.gateways(&target, &ips).into_iter().chain(target.gateways.iter().copied());
        let style = config.style(&target);
        Order {
            cause: Cause::Asked,
            gateways: gateways.collect(),
            guess: config.ask(&target) == Ask::Guess,
            // A guest that routes is asked for advertisements itself.
            router_solicitation: config.frames.router_solicitation && !style.router,
            style,
            in_charge: config.in_charge(&target),
            untagged: config.untagged(&target),
            // Checked when the configuration was settled.
            schedule: config.schedule().unwrap_or_default(),
            proof: config.proof,
            wait: config.ports.wait,
            uplinks: config.path.uplinks.clone(),
            inject: config.ports.inject,
            endless: false,
            dry_run: false,
            pcap: None,
            addresses,
            target,
        }
    }

    /// The same, with gateways that the operator names by hand.
    pub(crate) fn asking(mut self, gateways: &[IpAddr]) -> Order {
        let named = gateways.iter().map(|ip| Gateway::of_all(*ip, gateway::Source::Operator));
        self.gateways.splice(..0, named);
        self
    }

    /// The announcements of each of its rounds.
    pub(crate) fn round(&self) -> Vec<Frame> {
        frame::round(self.target.mac, &self.ips(), &self.style)
    }

    /// The questions of each of its rounds; `here` are the gateways that are found on this host.
    pub(crate) fn questions(&self, here: &[Gateway]) -> Vec<Question> {
        let known = [&self.gateways[..], here].concat();
        question::questions(&self.ips(), &known, self.guess, &self.style.send)
    }

    /// The questions of those rounds in which all routers are asked.
    pub(crate) fn to_all_routers(&self) -> Vec<Question> {
        match self.router_solicitation {
            true => question::to_all_routers(&self.ips(), &self.style.send),
            false => Vec::new(),
        }
    }

    /// The addresses that are announced.
    pub(crate) fn ips(&self) -> Vec<IpAddr> {
        self.addresses.iter().map(|address| address.ip).collect()
    }

    /// Looks at the host on behalf of the target.
    pub(crate) fn look(&self, host: &mut Host, guest: GuestState) -> Assessment {
        let links = host.links.borrow_and_update();
        let ovs = host.ovs.borrow_and_update();
        let facts = Facts {
            links: &links,
            ovs: &ovs.ovs,
            ovsdb_error: ovs.error.as_ref(),
            now: ovs.epoch.elapsed(),
            guest,
            in_charge: self.in_charge,
            untagged: self.untagged,
            uplinks: &self.uplinks,
        };
        assess(&self.target, &facts)
    }
}
