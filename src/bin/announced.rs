//! announced(8): the daemon; and, when executed under the name announce, announce(1) with libvirt.

use std::path::PathBuf;
use std::process::ExitCode;

use announced::Linked;
use clap::Parser;

const LINKED: Linked = Linked { libvirt: announced::LIBVIRT, hook: announced::for_hook };

/// Announce VMs to the network whenever they begin to run on this host.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// The configuration [default: /etc/announced/announced.toml, if it exists]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

fn main() -> ExitCode {
    let name = std::env::args_os().next().unwrap_or_default();
    if name.to_string_lossy().ends_with("announce") {
        // exec(3) has named the process after the file.
        announced::name_process(c"announce");
        return announced::run_announce(Some(LINKED), || "this program is not linked with libvirt".into());
    }
    match Args::try_parse() {
        Ok(args) => announced::run_announced(args.config),
        Err(error) if error.use_stderr() => {
            eprintln!("announced: {}", announced::in_one_line(&error, "announced"));
            ExitCode::from(2)
        }
        // --help and --version.
        Err(error) => error.exit(),
    }
}
