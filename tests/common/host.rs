//! A private hypervisor: `contrib/lab/host` says what that is.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::running::{Run, Running, Stream};

const LAB: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/contrib/lab");
/// What libvirtd found out about QEMU, for the next one.
const CACHE: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/libvirt");

/// Somewhere commands run: a host, or a network namespace of one.
pub trait Place {
    /// The program has no standard input and dies with whoever waits for it.
    fn command(&self, program: &str) -> Command;

    /// Runs a shell script that must succeed; returns what it printed.
    fn sh(&self, script: &str) -> String {
        let run = Running::start(self.command("sh").args(["-euc", script])).finish();
        assert!(run.code == Some(0), "{script}\n{}{}", run.stdout, run.stderr);
        run.stdout
    }
}

pub struct Host {
    process: Child,
    directory: tempfile::TempDir,
}

#[derive(Default)]
pub struct Plan {
    options: Vec<&'static str>,
}

impl Host {
    /// Without more: the uplink `up0`, whose far end is `wire0` in [`Host::wire`].
    pub fn build() -> Plan {
        Plan::default()
    }

    /// The network beyond the uplink.
    pub fn wire(&self) -> Namespace<'_> {
        self.namespace("wire")
    }

    pub fn namespace<'a>(&'a self, name: &'a str) -> Namespace<'a> {
        Namespace { host: self, name }
    }

    /// Runs our `announce` to its end.
    pub fn announce(&self, arguments: &[&str]) -> Run {
        self.start_announce(arguments).finish()
    }

    pub fn start_announce(&self, arguments: &[&str]) -> Running {
        Running::start(self.command(env!("CARGO_BIN_EXE_announce")).args(arguments))
    }

    /// A directory that both the test and the programs of the host see at this path.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }
}

impl Place for Host {
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(format!("{LAB}/enter"));
        command.arg(self.directory()).arg(program).stdin(Stdio::null());
        command
    }
}

impl Plan {
    pub fn ovs(mut self) -> Self {
        self.options.push("--ovs");
        self
    }

    pub fn libvirt(mut self) -> Self {
        self.options.push("--libvirt");
        self
    }

    pub fn start(self) -> Host {
        let directory = tempfile::Builder::new().prefix("announced-host-").tempdir().unwrap();
        let mut process = Command::new(format!("{LAB}/host"))
            .arg("--remove") // also for tests that are killed
            .args(self.options)
            .arg(directory.path())
            .env("LAB_CACHE", CACHE)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = Stream::of(process.stdout.take().unwrap());
        let stderr = Stream::of(process.stderr.take().unwrap());
        let mut host = Host { process, directory };
        if stdout.wait(|said, _| said.ends_with(b"ready\n").then_some(())).is_none() {
            let _ = host.process.kill();
            panic!("the host did not start:\n{}", stderr.so_far());
        }
        host
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // The host ends with its standard input; then this waits until its last process has gone.
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}

pub struct Namespace<'a> {
    host: &'a Host,
    name: &'a str,
}

impl Place for Namespace<'_> {
    fn command(&self, program: &str) -> Command {
        let mut command = self.host.command("ip");
        command.args(["netns", "exec", self.name, program]);
        command
    }
}
