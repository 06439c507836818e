//! Candidates for shell completion.

use std::path::Path;

use clap_complete::CompletionCandidate;

use crate::announcement::frame::Kind;

/// libvirt's QEMU driver keeps a file here for each running domain: the names are available without libvirt's libraries,
/// which this program does not load.
const RUNNING_DOMAINS: &str = "/run/libvirt/qemu";
const DEVICES: &str = "/sys/class/net";

/// The running VMs of qemu:///system.
pub(super) fn vms() -> Vec<CompletionCandidate> {
    let names = names(Path::new(RUNNING_DOMAINS));
    names.iter().filter_map(|name| name.strip_suffix(".xml")).map(CompletionCandidate::new).collect()
}

/// The network devices of this namespace.
pub(super) fn devices() -> Vec<CompletionCandidate> {
    names(Path::new(DEVICES)).into_iter().map(CompletionCandidate::new).collect()
}

/// The kinds of frames.
pub(super) fn kinds() -> Vec<CompletionCandidate> {
    Kind::ALL.iter().map(|kind| CompletionCandidate::new(kind.word())).collect()
}

fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    names
}
