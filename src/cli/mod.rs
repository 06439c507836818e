//! `announce`: from the command line to the reports.

pub mod args;
mod exit;
mod explain;
mod output;
mod select;
mod status;
mod trace;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use clap::{CommandFactory, Parser};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::announcement::machine::Outcome;
use crate::cli::args::{Announce, Cli, Command};
use crate::cli::exit::{Problem, Status};
use crate::cli::explain::Explanation;
use crate::cli::output::{complain, json, print};
use crate::cli::select::Selection;
use crate::cli::trace::{End, Trace};
use crate::config::Config;
use crate::guest::Absent;
use crate::guest::GuestState;
use crate::guest::event::Cause;
use crate::host::injector::Injectors;
use crate::host::libvirt::Find;
use crate::host::netlink::links;
use crate::host::openvswitch::ovsdb;
use crate::host::pcap::Pcap;
use crate::host::witness::Witness;
use crate::report::Report;
use crate::run::announcer::{self, Signals, Stop};
use crate::run::order::{Host, Order};

/// What a program can do that is linked with libvirt.
#[derive(Debug, Clone, Copy)]
pub struct Linked {
    /// Finds guests.
    pub find: Find,
    /// Announces a guest, by name, for the hook whose process is given.
    pub hook: fn(String, i32, Config) -> Result<(), String>,
}

/// Runs announce(1) with the process's arguments.
///
/// Where libvirt is needed and this program is not linked with it, `become_linked` is called, and returns only to tell why it
/// could not.
pub fn main(linked: Option<Linked>, become_linked: fn() -> String) -> ExitCode {
    let began = Instant::now();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) if error.use_stderr() => {
            complain(&usage(&error.to_string()));
            return ExitCode::from(Status::Usage.code());
        }
        // --help and --version.
        Err(error) => error.exit(),
    };
    let status = run(cli, linked, become_linked, began).unwrap_or_else(|(status, why)| {
        complain(&why);
        status
    });
    ExitCode::from(status.code())
}

/// What is wrong with the command line, in one line.
fn usage(error: &str) -> String {
    let what = error.split("\n\n").next().unwrap_or_default();
    let what: Vec<&str> = what.trim_start_matches("error: ").lines().map(str::trim).collect();
    format!("{} (try announce --help)", what.join(" "))
}

/// What is done for the NICs that are meant.
enum Doing {
    Announce,
    Explain,
    Trace,
}

fn run(
    cli: Cli,
    linked: Option<Linked>,
    become_linked: fn() -> String,
    began: Instant,
) -> Result<Status, Problem> {
    let (args, doing) = match cli.command {
        None => (cli.announce, Doing::Announce),
        Some(Command::Explain(args)) => (*args, Doing::Explain),
        Some(Command::Trace(args)) => (*args, Doing::Trace),
        Some(Command::Check { file }) => return check(file.as_deref()),
        Some(Command::Status { vm, json, prometheus }) => return status::run(vm, json, prometheus),
        Some(Command::Hook { guest, after }) => return hook(guest, after, linked, become_linked),
        Some(Command::Completions { shell }) => {
            // Into memory first: clap_complete panics where it cannot write.
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "announce", &mut script);
            return Ok(print(String::from_utf8_lossy(&script).trim_end()));
        }
    };
    let config = args.settle().map_err(|error| (Status::Config, error.to_string()))?;
    let config = config.map_err(|why| (Status::Usage, usage(&why)))?;
    let find = linked.map(|linked| linked.find);
    if select::needs_libvirt(&args) && find.is_none() {
        return Err((Status::Failed, become_linked()));
    }
    if !args.quiet {
        crate::log::to_stderr(args.verbose);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| (Status::Failed, format!("cannot start: {error}")))?;
    let status = runtime.block_on(async {
        match doing {
            Doing::Announce => announce(&args, &config, find, began).await,
            Doing::Explain => tell(&args, &config, find).await,
            Doing::Trace => trace(&args, &config, find).await,
        }
    });
    // A libvirt that hangs must not keep us.
    runtime.shutdown_timeout(Duration::from_secs(1));
    status
}

/// Whatever happens, libvirt must not hear of it: nothing is printed, and the status is always 0.
fn hook(
    guest: String,
    after: i32,
    linked: Option<Linked>,
    become_linked: fn() -> String,
) -> Result<Status, Problem> {
    match (linked, Config::load(None)) {
        (None, _) => drop(become_linked()),
        (Some(linked), Ok(config)) => drop((linked.hook)(guest, after, config)),
        (Some(_), Err(_)) => {}
    }
    Ok(Status::Announced)
}

fn check(file: Option<&Path>) -> Result<Status, Problem> {
    let config = Config::load(file).map_err(|error| (Status::Config, error.to_string()))?;
    let file = file.unwrap_or(Path::new(crate::config::DEFAULT_FILE));
    config.advice().iter().for_each(|advice| complain(&format!("{}: warning: {advice}", file.display())));
    let words = if file.exists() { "is good" } else { "is not there: the defaults apply" };
    Ok(print(&format!("{} {words}", file.display())))
}

/// Everything that is known before an announcement begins.
struct Start {
    host: Host,
    orders: Selection,
}

async fn start(args: &Announce, config: &Config, find: Option<Find>) -> Result<Start, Problem> {
    let socket = config.ovs.socket.clone().unwrap_or_else(ovsdb::default_socket);
    let directory = socket.parent().map(PathBuf::from).unwrap_or_default();
    let (links, ovs, orders) = tokio::join!(
        links::watch(),
        ovsdb::watch(socket, config.ports.wait),
        select::gather(args, config, find)
    );
    let host = Host {
        links: links.map_err(|error| (Status::Failed, error.to_string()))?,
        ovs,
        injectors: Arc::new(Injectors::new(directory.clone())),
        ovs_directory: directory,
        witness: Witness::new(),
        pace: None,
    };
    Ok(Start { host, orders: orders? })
}

async fn tell(args: &Announce, config: &Config, find: Option<Find>) -> Result<Status, Problem> {
    let Start { mut host, orders } = start(args, config, find).await?;
    let mut status = absent(&orders.absent);
    for (order, _) in &orders.orders {
        let seen = order.look(&mut host, GuestState::Running);
        let explanation = Explanation::new(order, &seen);
        status = status.max(print(&if args.json { json(&explanation) } else { explanation.to_string() }));
    }
    Ok(status.max(refused(&orders, args)))
}

/// Tells of the NICs that this host cannot speak for.
fn refused(orders: &Selection, args: &Announce) -> Status {
    let reports = orders.refused.iter().map(|refused| Report::refused(refused, Cause::Asked));
    let printed = reports.map(|report| print(&if args.json { json(&report) } else { report.to_string() }));
    printed.max().unwrap_or(Status::Announced)
}

async fn trace(args: &Announce, config: &Config, find: Option<Find>) -> Result<Status, Problem> {
    let Start { mut host, orders } = start(args, config, find).await?;
    let mut status = absent(&orders.absent);
    for (order, guest) in &orders.orders {
        let guest = *guest.borrow();
        let trace = Trace::run(order, &mut host, guest).await;
        let ended = match trace.end() {
            End::Left => Status::Announced,
            End::NotReady => Status::NotReady,
            End::Stuck => Status::Failed,
        };
        status = status.max(ended).max(print(&if args.json { json(&trace) } else { trace.to_string() }));
    }
    Ok(status.max(refused(&orders, args)))
}

async fn announce(
    args: &Announce,
    config: &Config,
    find: Option<Find>,
    began: Instant,
) -> Result<Status, Problem> {
    let Start { host, orders } = start(args, config, find).await?;
    let pcap = args.pcap.as_deref().map(|path| {
        let failed = |error| (Status::Failed, format!("cannot write {}: {error}", path.display()));
        Pcap::create(path).map(|pcap| Arc::new(Mutex::new(pcap))).map_err(failed)
    });
    let pcap = pcap.transpose()?;
    let (stopper, stop) = watch::channel(None);
    // Before the announcements, which run in the order of their making: what they say may already be answered by a signal.
    tokio::spawn(async move {
        interrupted().await;
        stopper.send_replace(Some(Stop::Interrupted));
    });
    let mut running = JoinSet::new();
    for (order, guest) in orders.orders {
        let order = Order { dry_run: args.dry_run, pcap: pcap.clone(), ..order };
        let signals = Signals { guest, stop: stop.clone() };
        running.spawn(announcer::announce(order, host.clone(), signals, began));
    }
    let mut status = absent(&orders.absent);
    if running.is_empty() && orders.refused.is_empty() && orders.absent.is_empty() {
        complain("nothing to announce: no VM that is meant has a NIC");
    }
    for refused in &orders.refused {
        status = status.max(publish(&Report::refused(refused, Cause::Asked), args));
    }
    while let Some(report) = running.join_next().await {
        status = status.max(match report {
            Ok(report) => publish(&report, args),
            Err(error) => {
                complain(&format!("an announcement broke off: {error}"));
                Status::Failed
            }
        });
    }
    Ok(status)
}

/// Waits until somebody wants us to end.
async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    let signals = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()));
    if let (Ok(mut interrupt), Ok(mut terminate)) = signals {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    } else {
        std::future::pending().await
    }
}

fn absent(guests: &[Absent]) -> Status {
    guests.iter().for_each(|guest| complain(&guest.to_string()));
    if guests.is_empty() { Status::Announced } else { Status::NoVm }
}

/// Prints a report: an announcement on standard output, a failure as one line on standard error.
fn publish(report: &Report, args: &Announce) -> Status {
    let printed = if args.json && !args.quiet { print(&json(report)) } else { Status::Announced };
    let status = match report.outcome {
        Outcome::Announced => Status::Announced,
        Outcome::NotReady => Status::NotReady,
        Outcome::Cancelled | Outcome::Superseded | Outcome::Failed => Status::Failed,
    };
    match status {
        Status::Announced if args.json || args.quiet => printed,
        Status::Announced => print(&report.to_string()),
        _ => {
            complain(&report.failure());
            status.max(printed)
        }
    }
}
