//! `announce check`: whether a configuration can be used.

use std::path::Path;

use crate::cli::exit::{Problem, Status};
use crate::cli::output::{complain, print};
use crate::config::{self, Config};

/// Checks a configuration file, and prints what is wrong with it or unwise in it.
///
/// # Errors
///
/// None: a file that cannot be used is told in a line for each mistake.
pub(super) fn file(file: Option<&Path>) -> Result<Status, Problem> {
    let config = match Config::load(file) {
        Ok(config) => config,
        Err(error) => {
            error.lines().iter().for_each(|line| complain(line));
            return Ok(Status::Config);
        }
    };
    if let Err(error) = config.peers.keys() {
        complain(&error.to_string());
        return Ok(Status::Config);
    }
    let file = file.unwrap_or(Path::new(config::DEFAULT_FILE));
    let text = std::fs::read_to_string(file).unwrap_or_default();
    for advice in config.advice() {
        let place = config::place_of(&text, &advice).map(|(line, column)| format!(":{line}:{column}"));
        complain(&format!("{}{}: warning: {advice}", file.display(), place.unwrap_or_default()));
    }
    let words = if file.exists() { "is good" } else { "does not exist: the defaults apply" };
    Ok(print(&format!("{} {words}", file.display())))
}
