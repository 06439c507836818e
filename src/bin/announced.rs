//! announced(8): the daemon; and, when executed under the name announce, announce(1) with libvirt.

use std::path::PathBuf;
use std::process::ExitCode;

use announced::Linked;
use clap::Parser;

const LINKED: Linked = Linked { find: announced::find, hook: announced::for_hook };

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
        return announced::run_announce(Some(LINKED), || "this program is not linked with libvirt".into());
    }
    announced::run_announced(Args::parse().config)
}
