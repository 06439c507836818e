//! Shell completion: the script that a shell sources, and the answers to the script's requests.

use clap::CommandFactory;
use clap_complete::Shell;
use clap_complete::env::{CompleteEnv, Shells};

use crate::cli::args::Cli;
use crate::cli::exit::{Problem, Status};
use crate::cli::output::print;

/// The script sets this variable to its shell's name when it requests candidates.
const VARIABLE: &str = "COMPLETE";

/// Answers a request of a completion script and ends the process; otherwise returns.
pub(super) fn answer() {
    if std::env::var_os(VARIABLE).is_some() {
        CompleteEnv::with_factory(Cli::command).var(VARIABLE).complete();
    }
}

/// Prints the completion script of a shell.
///
/// # Errors
///
/// The shell is not known.
pub(super) fn print_script(shell: Shell) -> Result<Status, Problem> {
    let unknown = || (Status::Usage, format!("no completion for {shell}"));
    let shells = Shells::builtins();
    let completer = shells.completer(&shell.to_string()).ok_or_else(unknown)?;
    let mut script = Vec::new();
    let written = completer.write_registration(VARIABLE, "announce", "announce", "announce", &mut script);
    written.map_err(|error| (Status::Failed, error.to_string()))?;
    Ok(print(String::from_utf8_lossy(&script).trim_end()))
}
