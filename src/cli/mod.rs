//! `announce`: from the command line to the reports.

mod announce;
pub mod args;
mod candidates;
mod check;
mod command_first;
mod completions;
mod exit;
mod explain;
mod output;
mod select;
mod status;
mod trace;
mod values;

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use tokio::time::Instant;

use crate::cli::args::{Cli, Command};
pub use crate::cli::exit::in_one_line;
use crate::cli::exit::{Problem, Status};
use crate::cli::output::complain;
use crate::cli::select::Start;
use crate::config::Config;
use crate::host::libvirt::Find;

/// The functions of a program that is linked with libvirt.
#[derive(Debug, Clone, Copy)]
pub struct Linked {
    /// Finds guests.
    pub find: Find,
    /// Announces a guest, by name, for the hook with the given process id.
    pub hook: fn(String, i32, Config) -> Result<(), String>,
}

/// Runs announce(1) with the process's arguments.
///
/// If libvirt is needed and this program is not linked with it, `become_linked` replaces it with the other program; it
/// returns only on failure, with the reason.
pub fn main(linked: Option<Linked>, become_linked: fn() -> String) -> ExitCode {
    let began = Instant::now();
    completions::answer();
    let cli = match Cli::try_parse_from(command_first::command_first(std::env::args_os())) {
        Ok(cli) => cli,
        Err(error) if error.use_stderr() => {
            complain(&exit::usage(&error));
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

fn run(
    cli: Cli,
    linked: Option<Linked>,
    become_linked: fn() -> String,
    began: Instant,
) -> Result<Status, Problem> {
    let find = linked.map(|linked| linked.find);
    let start = |nics, sources: &args::Sources, apply: &dyn Fn(&mut Config)| {
        let mut config = sources.load().map_err(|error| (Status::Config, error.to_string()))?;
        apply(&mut config);
        config.schedule().map_err(|why| (Status::Usage, why))?;
        Start::new(nics, config, find, become_linked)
    };
    match cli.command {
        None => {
            let args = cli.announce;
            let start = start(&args.nics, &args.sources, &|config| {
                args.rounds.apply(config);
                args.frames.apply(config);
                config.ports.wait = args.wait.unwrap_or(config.ports.wait);
            })?;
            if !args.quiet {
                crate::log::to_stderr(args.output.verbose);
            }
            block_on(announce::run(start, &args, began))
        }
        Some(Command::Explain(args)) => {
            let start = start(&args.nics, &args.sources, &|config| {
                args.rounds.apply(config);
                args.frames.apply(config);
            })?;
            crate::log::to_stderr(args.output.verbose);
            block_on(explain::run(start, &args.output))
        }
        Some(Command::Trace(args)) if args.dry_run => {
            let why = "trace always sends a round; announce explain shows what would be sent".into();
            Err((Status::Usage, why))
        }
        Some(Command::Trace(args)) => {
            let start = start(&args.nics, &args.sources, &|config| args.frames.apply(config))?;
            crate::log::to_stderr(args.output.verbose);
            block_on(trace::run(start, &args.output))
        }
        Some(Command::Check { file, config, host: false }) => check::file(file.or(config).as_deref()),
        Some(Command::Check { config: file, host: true, .. }) => {
            let config = match Config::load(file.as_deref()) {
                Ok(config) => config,
                Err(_) => return check::file(file.as_deref()),
            };
            let start = Start::new(&args::Nics::all(), config, find, become_linked)?;
            let status = check::file(file.as_deref())?;
            crate::log::to_stderr(false);
            block_on(async { Ok(status.max(check::host(start).await?)) })
        }
        Some(Command::Status(args)) => status::run(&args),
        Some(Command::Hook { guest, after }) => hook(guest, after, linked, become_linked),
        Some(Command::Completions { shell }) => completions::print_script(shell),
    }
}

fn block_on(work: impl Future<Output = Result<Status, Problem>>) -> Result<Status, Problem> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| (Status::Failed, format!("cannot start: {error}")))?;
    let status = runtime.block_on(work);
    // A hanging libvirt does not delay the end.
    runtime.shutdown_timeout(Duration::from_secs(1));
    status
}

/// libvirt must not notice any fault here: nothing is printed, and the status is always 0.
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
