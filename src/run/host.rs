//! The host on which announcements run.

use std::path::PathBuf;
use std::sync::Arc;

use pnet_base::MacAddr;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::announcement::frame::Frame;
use crate::announcement::injection::{Inward, Method, Way};
use crate::config::Config;
use crate::host::injector::{InjectorError, Injectors, WayError};
use crate::host::netlink::fdb;
use crate::host::netlink::links::{self, LinksError};
use crate::host::openvswitch::packet_outs::Submission;
use crate::host::openvswitch::{fdb::Tables, flow_monitor::FlowMonitors, ovsdb};
use crate::host::witness::{Watch, Witness, WitnessError};
use crate::path::link::Links;
use crate::proof::capture_point::CapturePoint;
use crate::run::interests::Interests;
use crate::run::pacer::Pacer;
use crate::run::sent_frames::SentFrames;
use crate::run::solicitor::Solicitor;
use crate::run::traces::Traces;

/// The host, as its adapters keep it up to date.
#[derive(Debug, Clone)]
pub(crate) struct Host {
    /// The network devices.
    pub links: watch::Receiver<Links>,
    /// Open vSwitch.
    pub ovs: watch::Receiver<ovsdb::State>,
    /// OVSDB's socket.
    pub ovs_socket: PathBuf,
    /// The directory of Open vSwitch's sockets.
    pub ovs_directory: PathBuf,
    /// The FDB of Linux bridges.
    pub fdb: fdb::Lookups,
    /// Those of Open vSwitch's bridges.
    pub ovs_fdb: Tables,
    /// The injection methods.
    pub injectors: Injector,
    /// Captures frames.
    pub witness: Capture,
    /// The limit of frames per second, if there is one.
    pub pace: Option<Pacer>,
    /// The limit of router solicitations.
    pub solicitor: Solicitor,
    /// Open vSwitch's verdicts on frames, at a limited rate.
    pub traces: Traces,
    /// Notifications of changes to bridges' flows, while something is lost there or they do not answer.
    pub flows: FlowMonitors,
    /// Counts the frames.
    pub sent: SentFrames,
    /// Wakes announcements when something changes that concerns them.
    pub interests: Interests,
}

impl Host {
    /// Begins to watch this host, as `config` says, with its injection methods.
    ///
    /// # Errors
    ///
    /// Its network devices cannot be watched.
    pub(crate) async fn watch(config: &Config) -> Result<(Host, Arc<Injectors>), LinksError> {
        let ovs_socket = config.ovs.socket.clone().unwrap_or_else(ovsdb::default_socket);
        let ovs_directory = ovs_socket.parent().map(PathBuf::from).unwrap_or_default();
        let (links, ovs) = tokio::join!(links::watch(), ovsdb::watch(ovs_socket.clone(), config.ports.wait));
        let injectors = Arc::new(Injectors::new(ovs_directory.clone()));
        let links = links?;
        let host = Host {
            interests: Interests::start(links.clone(), ovs.clone()),
            links,
            ovs,
            fdb: fdb::Lookups::default(),
            ovs_fdb: Tables::default(),
            injectors: Injector::Host(injectors.clone()),
            flows: FlowMonitors::new(ovs_directory.clone()),
            ovs_socket,
            ovs_directory,
            witness: Capture::Host(Witness::new()),
            traces: Traces::default(),
            pace: Some(Pacer::start(config.limits.frames_per_second)),
            solicitor: Solicitor::new(),
            sent: SentFrames::default(),
        };
        Ok((host, injectors))
    }
}

/// Injects frames into the host as if the guest had sent them.
#[derive(Debug, Clone)]
pub(crate) enum Injector {
    /// With the methods of this host.
    Host(Arc<Injectors>),
    /// Into the fake host.
    #[cfg(test)]
    Fake(Arc<super::fake::World>),
}

impl Injector {
    /// Makes ready what needs capabilities; returns each method that could not be, and why.
    pub(crate) async fn warm_up(&self) -> Vec<(Method, Arc<WayError>)> {
        match self {
            Injector::Host(injectors) => injectors.warm_up().await,
            #[cfg(test)]
            Injector::Fake(_) => Vec::new(),
        }
    }

    /// Prepares the first of `ways` that works, and returns it.
    pub(crate) async fn prepare(&self, ways: &[Way], forced: Option<Method>) -> Result<Way, InjectorError> {
        match self {
            Injector::Host(injectors) => injectors.prepare(ways, forced).await,
            #[cfg(test)]
            Injector::Fake(world) => world.prepare(ways).await,
        }
    }

    /// Sends the frames of a round in order by a prepared method.
    pub(crate) async fn send(
        &self,
        way: &Way,
        frames: &[Frame],
        submission: &Submission,
    ) -> Result<(), InjectorError> {
        match self {
            Injector::Host(injectors) => injectors.send(way, frames, submission).await,
            #[cfg(test)]
            Injector::Fake(world) => world.send(way, frames, submission).await,
        }
    }

    /// Sends frames to the guest, in order.
    pub(crate) async fn send_inward(&self, to: &Inward, frames: &[&[u8]]) -> Result<(), WayError> {
        match self {
            Injector::Host(injectors) => injectors.send_inward(to, frames).await,
            #[cfg(test)]
            Injector::Fake(_) => Ok(()),
        }
    }

    /// A method that worked was removed for good.
    pub(crate) fn is_exhausted(&self) -> bool {
        match self {
            Injector::Host(injectors) => injectors.is_exhausted(),
            #[cfg(test)]
            Injector::Fake(_) => false,
        }
    }
}

/// Captures frames.
#[derive(Debug, Clone)]
pub(crate) enum Capture {
    /// On the devices of this host.
    Host(Witness),
    /// In the fake host.
    #[cfg(test)]
    Fake(Arc<super::fake::World>),
}

impl Capture {
    /// Captures the announcements of `mac` at `points`; sightings have their time since `began`.
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

    /// Captures answers at the guest's own device.
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
