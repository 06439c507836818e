//! `announce`: from the command line to the reports.

mod announce;
pub mod args;
mod candidates;
mod check;
pub mod command_first;
mod completions;
mod doctor;
mod exit;
mod explain;
mod output;
mod pause;
mod select;
mod status;
mod trace;
mod values;

use std::path::Path;
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
use crate::host::libvirt::Calls;

/// The functions of a program that is linked with libvirt.
#[derive(Debug, Clone, Copy)]
pub struct Linked {
    /// What it asks libvirt.
    pub libvirt: Calls,
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
    let status = Program { linked, become_linked, began }.run(cli).unwrap_or_else(|(status, why)| {
        complain(&why);
        status
    });
    ExitCode::from(status.code())
}

/// This program: what it is linked with, and when it began.
struct Program {
    linked: Option<Linked>,
    become_linked: fn() -> String,
    began: Instant,
}

impl Program {
    fn run(self, cli: Cli) -> Result<Status, Problem> {
        match cli.command {
            None => self.announce(&cli.announce),
            Some(Command::Explain(args)) => self.explain(&args),
            Some(Command::Trace(args)) => self.trace(&args),
            Some(Command::Check { file, config, host: false }) => check::file(file.or(config).as_deref()),
            Some(Command::Check { config: file, host: true, .. }) => self.check_host(file.as_deref()),
            Some(Command::Doctor { config, output }) => self.doctor(config.as_deref(), &output),
            Some(Command::Status(args)) if args.watch => block_on(status::watch(&args)),
            Some(Command::Status(args)) => status::run(&args),
            Some(Command::Pause { lasts, reason }) => pause::pause(lasts, reason),
            Some(Command::Resume) => pause::resume(),
            Some(Command::Hook { guest, after }) => self.hook(guest, after),
            Some(Command::Completions { shell }) => completions::print_script(shell),
        }
    }

    /// The start of a command on `nics`, with the file's configuration as the options change it.
    fn start(
        &self,
        nics: &args::Nics,
        sources: &args::Sources,
        apply: impl FnOnce(&mut Config),
    ) -> Result<Start, Problem> {
        let mut config = sources.load().map_err(|error| (Status::Config, error.to_string()))?;
        apply(&mut config);
        config.schedule().map_err(|why| (Status::Usage, why.to_string()))?;
        self.start_with(nics, config)
    }

    fn start_with(&self, nics: &args::Nics, config: Config) -> Result<Start, Problem> {
        Start::new(nics, config, self.linked.map(|linked| linked.libvirt), self.become_linked)
    }

    fn announce(&self, args: &args::Announce) -> Result<Status, Problem> {
        let start = self.start(&args.nics, &args.sources, |config| {
            args.rounds.apply(config);
            args.frames.apply(config);
            config.ports.wait = args.wait.unwrap_or(config.ports.wait);
        })?;
        if !args.quiet {
            crate::log::to_stderr(args.output.verbose);
        }
        block_on(announce::run(start, args, self.began))
    }

    fn explain(&self, args: &args::Explain) -> Result<Status, Problem> {
        let start = self.start(&args.nics, &args.sources, |config| {
            args.rounds.apply(config);
            args.frames.apply(config);
        })?;
        crate::log::to_stderr(args.output.verbose);
        block_on(explain::run(start, &args.output))
    }

    fn trace(&self, args: &args::Trace) -> Result<Status, Problem> {
        if args.dry_run {
            let why = "trace always sends a round; announce explain shows what would be sent";
            return Err((Status::Usage, why.into()));
        }
        let start = self.start(&args.nics, &args.sources, |config| args.frames.apply(config))?;
        crate::log::to_stderr(args.output.verbose);
        block_on(trace::run(start, &args.output))
    }

    fn check_host(&self, file: Option<&Path>) -> Result<Status, Problem> {
        let Ok(config) = Config::load(file) else { return check::file(file) };
        let start = self.start_with(&args::Nics::all(), config)?;
        let status = check::file(file)?;
        crate::log::to_stderr(false);
        let output = args::Output { json: false, pretty: false, verbose: false };
        block_on(async { Ok(status.max(doctor::run(start, &output, Vec::new()).await?)) })
    }

    fn doctor(&self, file: Option<&Path>, output: &args::Output) -> Result<Status, Problem> {
        let (config, findings) = doctor::configuration(file);
        let start = self.start_with(&args::Nics::all(), config)?;
        crate::log::to_stderr(output.verbose);
        block_on(doctor::run(start, output, findings))
    }

    /// libvirt must not notice any fault here: nothing is printed, and the status is always 0.
    fn hook(&self, guest: String, after: i32) -> Result<Status, Problem> {
        match (self.linked, Config::load(None)) {
            (None, _) => drop((self.become_linked)()),
            (Some(linked), Ok(config)) => drop((linked.hook)(guest, after, config)),
            (Some(_), Err(_)) => {}
        }
        Ok(Status::Announced)
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
