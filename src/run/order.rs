//! The host that announcements run on, and one announcement as it is asked for.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;

use crate::announcement::frame::{self, Frame, Style};
use crate::announcement::injection::Method;
use crate::announcement::schedule::Schedule;
use crate::config::{Config, ProofTable};
use crate::guest::GuestState;
use crate::guest::address::{Address, Source, believed};
use crate::guest::domain::Vlan;
use crate::guest::event::Cause;
use crate::guest::target::Target;
use crate::host::injector::Injectors;
use crate::host::netlink::fdb;
use crate::host::openvswitch::ovsdb;
use crate::host::pcap::Pcap;
use crate::host::witness::Witness;
use crate::path::link::Links;
use crate::path::owner::Owner;
use crate::path::readiness::{Assessment, Facts, assess};
use crate::path::uplinks::Uplinks;
use crate::run::pacer::Pacer;

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
    pub injectors: Arc<Injectors>,
    /// What sees frames pass.
    pub witness: Witness,
    /// The frames that may be sent per second, where that is bounded.
    pub pace: Option<Pacer>,
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
    /// How the frames look.
    pub style: Style,
    /// When the rounds are sent.
    pub schedule: Schedule,
    /// What is done to know that the frames left the host.
    pub proof: ProofTable,
    /// How long the port may take to become ready.
    pub wait: Duration,
    /// The operator's word on who is in charge of the port.
    pub in_charge: Option<Owner>,
    /// The operator's word that no agent will ever set a VLAN on the port.
    pub untagged: bool,
    /// The operator's word on the devices by which frames leave the host.
    pub uplinks: Uplinks,
    /// The operator's choice of a way in.
    pub inject: Option<Method>,
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
        Order {
            cause: Cause::Asked,
            style: config.style(&target),
            in_charge: config.in_charge(&target),
            untagged: config.untagged(&target),
            // Checked when the configuration was settled.
            schedule: config.schedule().unwrap_or_default(),
            proof: config.proof,
            wait: config.ports.wait,
            uplinks: config.path.uplinks.clone(),
            inject: config.ports.inject,
            dry_run: false,
            pcap: None,
            addresses,
            target,
        }
    }

    /// The frames of each of its rounds.
    pub(crate) fn round(&self) -> Vec<Frame> {
        let ips: Vec<_> = self.addresses.iter().map(|address| address.ip).collect();
        frame::round(self.target.mac, &ips, &self.style)
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
