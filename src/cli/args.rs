//! The command line of announce(1).

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};
use clap_complete::Shell;
use clap_complete::engine::ArgValueCandidates;
use pnet_base::MacAddr;

use crate::announcement::frame::Kind;
use crate::announcement::injection::Method;
use crate::cli::{candidates, values};
use crate::config::duration;
use crate::config::{self, Config};
use crate::guest::Wanted;

const EXAMPLES: &str = "\
Examples:
  announce web1                  announce a running VM, now
  announce explain web1          where it is plugged, what its port waits for, what would be sent
  announce trace web1            send one round, and show how far each frame came
  announce status web1           what the daemon did for it, and is doing

A TIME is a number with a unit, such as 50ms, 2s or 1m 30s; a number alone is seconds.";

/// Announce running VMs to the network, now.
///
/// Waits until the VM's port carries traffic, then injects gratuitous ARP, neighbour advertisements and RARP as if the guest
/// had sent them.
#[derive(Debug, Parser)]
#[command(name = "announce", version, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
#[command(after_help = EXAMPLES)]
pub struct Cli {
    /// A command other than announcing.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// The options of an announcement.
    #[command(flatten)]
    pub announce: Announce,
}

/// The commands other than announcing.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show where the VM is attached, what its port waits for and what would be sent; send nothing
    Explain(Box<Explain>),
    /// Send one round, and show hop by hop how far it gets, and why
    Trace(Box<Trace>),
    /// Validate a configuration file, or check whether everything works on this host
    Check {
        /// The file [default: /etc/announced/announced.toml]
        #[arg(value_hint = ValueHint::FilePath)]
        file: Option<PathBuf>,
        /// The same, as an option
        #[arg(long, value_name = "FILE", conflicts_with = "file", value_hint = ValueHint::FilePath)]
        config: Option<PathBuf>,
        /// Check this host, too: libvirt, Open vSwitch, the ways in, the path of each running VM, the daemon; send nothing
        #[arg(long, conflicts_with = "file")]
        host: bool,
    },
    /// When nothing works: check all that announcements need on this host, each with its remedy; send nothing
    #[command(mut_arg("json", |json| json.help("Print one JSON object")))]
    Doctor {
        /// The configuration [default: /etc/announced/announced.toml, if it is there]
        #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
        config: Option<PathBuf>,
        /// The output.
        #[command(flatten)]
        output: Output,
    },
    /// Show what the daemon did and is doing
    Status(Status),
    /// Let the daemon send nothing for a while; what is to be announced waits
    Pause {
        /// For how long, at most 4h
        #[arg(long = "for", value_name = "TIME", value_parser = values::pause, default_value = "15m")]
        lasts: Duration,
        /// Why; the status shows it
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// Let the daemon send again what is to be announced
    Resume,
    /// Announce a VM once it runs here, unless the daemon does; for the libvirt hook
    Hook {
        /// The VM, by name
        #[arg(allow_hyphen_values = true)]
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

/// The options of `announce`.
#[derive(Debug, Clone, Args)]
pub struct Announce {
    /// The NICs.
    #[command(flatten)]
    pub nics: Nics,
    /// How long the port may take to become ready; 0 to check once [default: 60s]
    #[arg(long, value_name = "TIME", value_parser = duration::parse, help_heading = "When and what to send")]
    pub wait: Option<Duration>,
    /// The rounds.
    #[command(flatten)]
    pub rounds: Rounds,
    /// The frames.
    #[command(flatten)]
    pub frames: Frames,
    /// The peers.
    #[command(flatten)]
    pub sources: Sources,
    /// Do everything except sending
    #[arg(long, help_heading = "What to do with it")]
    pub dry_run: bool,
    /// Write every frame to a capture file as well
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = "What to do with it")]
    pub pcap: Option<PathBuf>,
    /// The output.
    #[command(flatten)]
    pub output: Output,
    /// Print only errors and, with --json, the JSON
    #[arg(short, long, help_heading = "What to do with it", conflicts_with = "verbose")]
    pub quiet: bool,
}

/// `announce explain`.
#[derive(Debug, Clone, Args)]
pub struct Explain {
    /// The NICs.
    #[command(flatten)]
    pub nics: Nics,
    /// The rounds.
    #[command(flatten)]
    pub rounds: Rounds,
    /// The frames.
    #[command(flatten)]
    pub frames: Frames,
    /// The peers.
    #[command(flatten)]
    pub sources: Sources,
    /// The output.
    #[command(flatten)]
    pub output: Output,
}

/// `announce trace`.
#[derive(Debug, Clone, Args)]
pub struct Trace {
    /// The NICs.
    #[command(flatten)]
    pub nics: Nics,
    /// The frames.
    #[command(flatten)]
    pub frames: Frames,
    /// The peers.
    #[command(flatten)]
    pub sources: Sources,
    /// The output.
    #[command(flatten)]
    pub output: Output,
    /// Refused: a trace always sends.
    #[arg(long, hide = true)]
    pub dry_run: bool,
}

/// `announce status`.
#[derive(Debug, Clone, Args)]
pub struct Status {
    /// Only this VM, with timelines: its name, UUID or id, or a NIC's MAC address or device
    #[arg(value_name = "VM", add = ArgValueCandidates::new(candidates::vms))]
    pub vm: Option<String>,
    /// The same, as an option
    #[arg(long = "vm", value_name = "VM", conflicts_with = "vm", add = ArgValueCandidates::new(candidates::vms))]
    pub of: Option<String>,
    /// The number of announcements to show, the last ones [default: 10]
    #[arg(short = 'n', long, value_name = "N", conflicts_with = "prometheus")]
    pub lines: Option<usize>,
    /// Only announcements that ended within this time
    #[arg(long, value_name = "TIME", value_parser = duration::parse, conflicts_with = "prometheus")]
    pub since: Option<Duration>,
    /// Only announcements that did not succeed
    #[arg(long, conflicts_with = "prometheus")]
    pub failed: bool,
    /// A live view until Ctrl-C; into a pipe, a line for each change
    #[arg(short, long, conflicts_with_all = ["lines", "since", "json", "prometheus", "svg"])]
    pub watch: bool,
    /// As one JSON object; for a VM, one per announcement
    #[arg(long)]
    pub json: bool,
    /// Indent the JSON
    #[arg(short, long, requires = "json")]
    pub pretty: bool,
    /// As text for Prometheus
    #[arg(long, conflicts_with_all = ["json", "vm", "of"])]
    pub prometheus: bool,
    /// As a picture (SVG) of the timelines; for a VM, of the last announcement of each NIC
    #[arg(long, conflicts_with_all = ["json", "prometheus"])]
    pub svg: bool,
}

/// The selected NICs.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Which NICs")]
pub struct Nics {
    #[command(flatten)]
    subject: Subject,
    /// The NIC's MAC address: with --dev the guest's, otherwise the one NIC to announce
    #[arg(long, value_name = "MAC", value_parser = values::mac)]
    pub mac: Option<MacAddr>,
    /// An address to announce, in addition to those from trusted sources; may be given several times
    #[arg(long = "ip", value_name = "ADDR", value_parser = values::ip)]
    pub ips: Vec<IpAddr>,
    /// A gateway to ask, in addition to the known ones
    #[arg(long = "ask", value_name = "ADDR", value_parser = values::gateway)]
    pub asks: Vec<IpAddr>,
    /// The VLAN that the port must have before anything is sent
    #[arg(long, value_name = "ID", value_parser = values::vlan)]
    pub vlan: Option<u16>,
}

#[derive(Debug, Clone, Args)]
#[group(required = true, multiple = true)]
struct Subject {
    /// A VM, by name, UUID or id; may be given several times
    #[arg(value_name = "VM", conflicts_with_all = ["all", "dev"], add = ArgValueCandidates::new(candidates::vms))]
    names: Vec<String>,
    /// The same, as an option
    #[arg(long = "vm", value_name = "NAME|UUID|ID", conflicts_with_all = ["all", "dev"])]
    #[arg(add = ArgValueCandidates::new(candidates::vms))]
    vms: Vec<String>,
    /// Every running VM of this host
    #[arg(long, conflicts_with = "dev")]
    all: bool,
    /// A device or Open vSwitch port of this host, with --mac; libvirt is not asked
    #[arg(long, value_name = "IFNAME", requires = "mac", add = ArgValueCandidates::new(candidates::devices))]
    dev: Option<String>,
}

/// The schedule of rounds.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "When and what to send")]
pub struct Rounds {
    /// The number of rounds [default: 10]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=config::MAX_ROUNDS as i64))]
    pub count: Option<u32>,
    /// The gap between the first two rounds [default: 50ms]
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    pub interval: Option<Duration>,
    /// The factor from each gap to the next [default: 2]
    #[arg(long, value_name = "FACTOR")]
    pub backoff: Option<f64>,
    /// The longest gap [default: 2s]
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    pub max_interval: Option<Duration>,
}

/// The frames, and the injection method.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "When and what to send")]
pub struct Frames {
    /// What to send [default: all kinds]
    #[arg(long, value_name = "KINDS", value_delimiter = ',', value_parser = values::kind, add = ArgValueCandidates::new(candidates::kinds))]
    pub send: Vec<Kind>,
    /// The injection method [default: auto]
    #[arg(long, value_name = "METHOD", hide_possible_values = false)]
    pub inject: Option<Inject>,
}

/// The peers.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Where to look")]
pub struct Sources {
    /// The URI of libvirt [default: $LIBVIRT_DEFAULT_URI, else qemu:///system]
    #[arg(long, value_name = "URI")]
    pub connect: Option<String>,
    /// Open vSwitch's database [default: db.sock in $OVS_RUNDIR or /run/openvswitch]
    #[arg(long, value_name = "SOCKET", value_hint = ValueHint::FilePath)]
    pub ovsdb: Option<PathBuf>,
    /// The configuration [default: /etc/announced/announced.toml, if it is there]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub config: Option<PathBuf>,
}

/// The output.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "What to do with it")]
pub struct Output {
    /// Print one JSON object per NIC
    #[arg(long)]
    pub json: bool,
    /// Indent the JSON
    #[arg(short, long, requires = "json")]
    pub pretty: bool,
    /// Print more on standard error
    #[arg(short, long)]
    pub verbose: bool,
}

/// An injection method, or the best that works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Inject {
    /// The best that works.
    Auto,
    /// This one.
    By(Method),
}

/// The subjects of an announcement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Whom {
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

impl Nics {
    /// Those of every running VM.
    pub(super) fn all() -> Nics {
        let subject = Subject { names: Vec::new(), vms: Vec::new(), all: true, dev: None };
        Nics { subject, mac: None, ips: Vec::new(), asks: Vec::new(), vlan: None }
    }

    /// The subjects of the announcement.
    pub(super) fn whom(&self) -> Whom {
        match (&self.subject.dev, self.mac) {
            (Some(device), Some(mac)) => Whom::Device(device.clone(), mac),
            _ if self.subject.all => Whom::Guests(Wanted::All),
            _ => Whom::Guests(Wanted::These([&self.subject.names[..], &self.subject.vms[..]].concat())),
        }
    }
}

impl Rounds {
    /// Applies these options to the schedule of the configuration.
    pub(super) fn apply(&self, config: &mut Config) {
        let schedule = &mut config.schedule;
        schedule.count = self.count.unwrap_or(schedule.count);
        schedule.interval = self.interval.unwrap_or(schedule.interval);
        schedule.backoff = self.backoff.unwrap_or(schedule.backoff);
        schedule.max_interval = self.max_interval.unwrap_or(schedule.max_interval);
    }
}

impl Frames {
    /// Applies these options to the frames and the injection method of the configuration.
    pub(super) fn apply(&self, config: &mut Config) {
        if !self.send.is_empty() {
            config.frames.send.clone_from(&self.send);
        }
        match self.inject {
            Some(Inject::Auto) => config.ports.inject = None,
            Some(Inject::By(method)) => config.ports.inject = Some(method),
            None => {}
        }
    }
}

impl Sources {
    /// The configuration file, with these options applied.
    ///
    /// # Errors
    ///
    /// The file cannot be used.
    pub(super) fn load(&self) -> Result<Config, config::ConfigError> {
        let mut config = Config::load(self.config.as_deref())?;
        config.libvirt.uri = self.connect.clone().or(config.libvirt.uri);
        config.ovs.socket = self.ovsdb.clone().or(config.ovs.socket);
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vm_is_named_with_and_without_an_option() {
        let whom = |line: &str| Cli::try_parse_from(line.split(' ')).unwrap().announce.nics.whom();
        let these =
            |names: &[&str]| Whom::Guests(Wanted::These(names.iter().map(|n| n.to_string()).collect()));
        assert_eq!(whom("announce web1 web2"), these(&["web1", "web2"]));
        assert_eq!(whom("announce web1 --vm status"), these(&["web1", "status"]));
        assert_eq!(whom("announce --all"), Whom::Guests(Wanted::All));
    }
}
