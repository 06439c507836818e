//! The end of announce(1): its exit status, and one line if it ends early.

/// The exit status of announce(1), by meaning; the greater failure wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Status {
    /// Every target was announced.
    Announced,
    /// Some port was not ready in time.
    NotReady,
    /// A VM does not exist here, or does not run.
    NoVm,
    /// Some target failed.
    Failed,
    /// The command line cannot be used.
    Usage,
    /// The configuration cannot be used.
    Config,
}

impl Status {
    /// The process's exit status.
    pub(super) fn code(self) -> u8 {
        match self {
            Status::Announced => 0,
            Status::Failed => 1,
            Status::Usage => 2,
            Status::NotReady => 3,
            Status::NoVm => 4,
            Status::Config => 78,
        }
    }
}

/// A problem that ends the command: one line, and the exit status.
pub(super) type Problem = (Status, String);

/// The command line parser's error in one line, with the remedy.
pub(super) fn usage(error: &clap::Error) -> String {
    use clap::error::ErrorKind;
    if error.kind() == ErrorKind::MissingRequiredArgument && error.to_string().contains("--all") {
        let subjects = "name a VM, or give --all, or --dev IFNAME with --mac MAC";
        return format!("{subjects} (try announce --help)");
    }
    in_one_line(error, "announce")
}

/// The error of `program`'s command line in one line, with the remedy.
pub fn in_one_line(error: &clap::Error, program: &str) -> String {
    let text = error.to_string();
    let what = text.split("\n\n").next().unwrap_or_default();
    let what: Vec<&str> = what.trim_start_matches("error: ").lines().map(str::trim).collect();
    format!("{} (try {program} --help)", what.join(" "))
}
