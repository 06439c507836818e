//! A private hypervisor: `contrib/lab/host` says what that is.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::running::{Run, Running, Stream};

const LAB: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/contrib/lab");
/// What libvirtd found out about QEMU, for the next one.
const CACHE: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/libvirt");

/// Somewhere commands run: a host, or a network namespace of one.
pub trait Place {
    /// The program has no standard input and dies with the process that waits for it.
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
    /// The directory by which `contrib/lab/enter` finds the host.
    entrance: PathBuf,
}

#[derive(Default)]
pub struct Plan<'a> {
    options: Vec<String>,
    outer: Option<&'a Host>,
}

impl Host {
    /// Without more: the uplink `up0`, whose far end is `wire0` in [`Host::wire`].
    pub fn build<'a>() -> Plan<'a> {
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

    /// The PID of its first process, as this process sees it.
    pub fn pid(&self) -> u32 {
        std::fs::read_to_string(self.entrance.join("pid")).unwrap().trim().parse().unwrap()
    }

    /// A directory that both the test and the programs of the host see at this path.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }
}

impl Place for Host {
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(format!("{LAB}/enter"));
        command.arg(&self.entrance).arg(program).stdin(Stdio::null());
        command
    }
}

impl<'a> Plan<'a> {
    pub fn ovs(self) -> Self {
        self.option("--ovs")
    }

    pub fn libvirt(self) -> Self {
        self.option("--libvirt")
    }

    pub fn name(self, name: &str) -> Self {
        self.option("--name").option(name)
    }

    /// libvirtd accepts live migrations there: `DEV=ADDRESS/LENGTH`.
    pub fn listen(self, address: &str) -> Self {
        self.option("--listen").option(address)
    }

    /// The host is built inside another one, and ends before that.
    pub fn inside(mut self, outer: &'a Host) -> Self {
        self.outer = Some(outer);
        self
    }

    /// For a host inside another one: a veth pair whose `peer` is out there.
    pub fn cable(self, device: &str, peer: &str) -> Self {
        self.option("--cable").option(&format!("{device}={peer}@/proc/1/ns/net"))
    }

    fn option(mut self, option: &str) -> Self {
        self.options.push(option.to_owned());
        self
    }

    pub fn start(self) -> Host {
        let directory = tempfile::Builder::new().prefix("announced-host-").tempdir().unwrap();
        let program = format!("{LAB}/host");
        let mut command = self.outer.map_or_else(|| Command::new(&program), |outer| outer.command(&program));
        let mut process = command
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
        let entrance = directory.path().to_owned();
        let mut host = Host { process, directory, entrance };
        if stdout.wait(|said, _| said.ends_with(b"ready\n").then_some(())).is_none() {
            let _ = host.process.kill();
            panic!("the host did not start:\n{}", stderr.so_far());
        }
        if self.outer.is_some() {
            host.entrance = host.entrance_from_outside();
        }
        host
    }
}

impl Host {
    /// A host records its PID in the PID namespace of its parent, which for a host inside another one is not ours.
    fn entrance_from_outside(&self) -> PathBuf {
        let child = |parent: u32| -> u32 {
            let children = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap();
            children.trim().parse().unwrap()
        };
        // nsenter, whose child became unshare, whose child is the host.
        let pid = child(child(self.process.id()));
        let entrance = self.directory().join("from-outside");
        std::fs::create_dir(&entrance).unwrap();
        std::fs::write(entrance.join("pid"), format!("{pid}\n")).unwrap();
        entrance
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
