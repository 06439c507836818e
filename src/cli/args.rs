//! The command line of announce(1).

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use pnet_base::MacAddr;

use crate::announcement::frame::Kind;
use crate::announcement::injection::Method;
use crate::config::duration;
use crate::config::{self, Config};
use crate::guest::Wanted;
use crate::guest::address;

/// Announce running VMs to the network, now.
///
/// Waits until the VM's port carries traffic, then sends gratuitous ARP, neighbour advertisements and RARP into it as if
/// the guest had.
#[derive(Debug, Parser)]
#[command(name = "announce", version, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Cli {
    /// What else than announcing.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Whom to announce, and how.
    #[command(flatten)]
    pub announce: Announce,
}

/// What else than announcing can be asked for.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show where the VM is plugged, what its port waits for and what would be sent; send nothing
    Explain(Box<Announce>),
    /// Send one round, and show its way hop by hop, and where it ended
    Trace(Box<Announce>),
    /// Validate a configuration file
    Check {
        /// The file [default: /etc/announced/announced.toml]
        file: Option<PathBuf>,
    },
    /// Tell what the daemon did and is doing
    Status {
        /// Only what is remembered of this VM: its name, UUID, or a NIC's MAC address or device; with its timeline
        vm: Option<String>,
        /// As one JSON object; of a VM, one for each announcement
        #[arg(long)]
        json: bool,
        /// As text for Prometheus
        #[arg(long, conflicts_with_all = ["json", "vm"])]
        prometheus: bool,
    },
    /// Announce a VM when it has come to run here, unless the daemon does; for the libvirt hook
    Hook {
        /// The VM, by name
        guest: String,
        /// The hook's process: libvirt waits until it has ended
        #[arg(long, value_name = "PID")]
        after: i32,
    },
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: Shell,
    },
}

/// Whom to announce, and how.
#[derive(Debug, Clone, Args)]
pub struct Announce {
    #[command(flatten)]
    subject: Subject,

    /// The NIC's MAC address: with --dev the guest's, with --vm the one NIC that is meant
    #[arg(long, value_name = "MAC", value_parser = mac)]
    pub mac: Option<MacAddr>,
    /// An address to announce, in addition to those that the host's systems vouch for
    #[arg(long = "ip", value_name = "ADDR", value_parser = ip)]
    pub ips: Vec<IpAddr>,
    /// The VLAN that the port must have before anything is sent
    #[arg(long, value_name = "ID", value_parser = vlan)]
    pub vlan: Option<u16>,

    /// How long the port may take to become ready; 0 to look once
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    pub wait: Option<Duration>,
    /// Rounds in all
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=config::MOST_ROUNDS as i64))]
    pub count: Option<u32>,
    /// The gap between the first two rounds
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    pub interval: Option<Duration>,
    /// What each gap is multiplied with to get the next
    #[arg(long, value_name = "FACTOR")]
    pub backoff: Option<f64>,
    /// The longest gap
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    pub max_interval: Option<Duration>,
    /// What to send: rarp, arp-request, arp-reply, na
    #[arg(long, value_name = "KINDS", value_delimiter = ',')]
    pub send: Vec<Kind>,
    /// The way in: auto, redirect, xdp, packet-out, packet, fdb
    #[arg(long, value_name = "METHOD")]
    pub inject: Option<Inject>,

    /// The libvirt to ask [default: $LIBVIRT_DEFAULT_URI, else qemu:///system]
    #[arg(long, value_name = "URI")]
    pub connect: Option<String>,
    /// Open vSwitch's database [default: db.sock in $OVS_RUNDIR or /run/openvswitch]
    #[arg(long, value_name = "SOCKET")]
    pub ovsdb: Option<PathBuf>,
    /// The configuration [default: /etc/announced/announced.toml, if it is there]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Do everything but the sending
    #[arg(long)]
    pub dry_run: bool,
    /// Write every frame to a capture file as well
    #[arg(long, value_name = "FILE")]
    pub pcap: Option<PathBuf>,
    /// Print one JSON object per NIC
    #[arg(long)]
    pub json: bool,
    /// Tell more on standard error
    #[arg(short, long, conflicts_with = "quiet")]
    pub verbose: bool,
    /// Print nothing but errors
    #[arg(short, long)]
    pub quiet: bool,
}

#[derive(Debug, Clone, Args)]
#[group(required = true, multiple = true)]
struct Subject {
    /// A VM, by name, UUID or id; may be given several times
    #[arg(long = "vm", value_name = "NAME|UUID|ID", conflicts_with_all = ["all", "dev"])]
    vms: Vec<String>,
    /// Every running VM of this host
    #[arg(long, conflicts_with = "dev")]
    all: bool,
    /// A device or Open vSwitch port of this host; libvirt is not asked
    #[arg(long, value_name = "IFNAME", requires = "mac")]
    dev: Option<String>,
}

/// A way in, or the best that works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inject {
    /// The best that works.
    Auto,
    /// This one.
    By(Method),
}

/// Whose NICs are meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whom {
    /// Guests that libvirt knows.
    Guests(Wanted),
    /// A device, and the MAC of the guest behind it.
    Device(String, MacAddr),
}

impl ValueEnum for Inject {
    fn value_variants<'a>() -> &'a [Self] {
        const ALL: [Inject; 6] = [
            Inject::Auto,
            Inject::By(Method::Redirect),
            Inject::By(Method::Xdp),
            Inject::By(Method::PacketOut),
            Inject::By(Method::Packet),
            Inject::By(Method::Fdb),
        ];
        &ALL
    }

    fn to_possible_value(&self) -> Option<clap::builder::PossibleValue> {
        Some(match self {
            Inject::Auto => "auto".into(),
            Inject::By(method) => method.word().into(),
        })
    }
}

impl Announce {
    /// Whose NICs are meant.
    pub fn whom(&self) -> Whom {
        match (&self.subject.dev, self.mac) {
            (Some(device), Some(mac)) => Whom::Device(device.clone(), mac),
            _ if self.subject.all => Whom::Guests(Wanted::All),
            _ => Whom::Guests(Wanted::These(self.subject.vms.clone())),
        }
    }

    /// The configuration file with what the command line says instead.
    ///
    /// # Errors
    ///
    /// What cannot be used in the file, or on the command line: the latter as `Ok(Err(…))`, a matter of usage.
    pub fn settle(&self) -> Result<Result<Config, String>, config::Error> {
        let mut config = Config::load(self.config.as_deref())?;
        let schedule = &mut config.schedule;
        schedule.count = self.count.unwrap_or(schedule.count);
        schedule.interval = self.interval.unwrap_or(schedule.interval);
        schedule.backoff = self.backoff.unwrap_or(schedule.backoff);
        schedule.max_interval = self.max_interval.unwrap_or(schedule.max_interval);
        config.ports.wait = self.wait.unwrap_or(config.ports.wait);
        if !self.send.is_empty() {
            config.frames.send.clone_from(&self.send);
        }
        match self.inject {
            Some(Inject::Auto) => config.ports.inject = None,
            Some(Inject::By(method)) => config.ports.inject = Some(method),
            None => {}
        }
        config.libvirt.uri = self.connect.clone().or(config.libvirt.uri);
        config.ovs.socket = self.ovsdb.clone().or(config.ovs.socket);
        Ok(config.schedule().map(|_| config))
    }
}

fn mac(text: &str) -> Result<MacAddr, String> {
    let mac: MacAddr =
        text.parse().map_err(|_| "expected six bytes in hexadecimal, such as 52:54:00:12:34:56")?;
    if mac.is_zero() || mac.is_multicast() || mac.is_broadcast() {
        return Err("a NIC's address is neither zero nor of a group".into());
    }
    Ok(mac)
}

fn ip(text: &str) -> Result<IpAddr, String> {
    let ip = text.parse().map_err(|_| "expected an IPv4 or IPv6 address without a prefix length")?;
    match address::unannounceable(ip) {
        Some(why) => Err(format!("it {why}, which no guest owns")),
        None => Ok(ip),
    }
}

fn vlan(text: &str) -> Result<u16, String> {
    let vlan = text.parse().map_err(|_| "expected a number from 1 to 4094")?;
    config::vlan_id(vlan)
}
