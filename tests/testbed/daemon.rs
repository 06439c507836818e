//! `announced` in a host, run as systemd would run it.

use std::cell::RefCell;
use std::fmt::Write;
use std::io::ErrorKind;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::capture::Capture;
use super::dissect::Frame;
use super::guest::Nic;
use super::host::{Host, Place};
use super::rounds::{on_schedule, rounds, words};
use super::running::{DEADLINE, Run, Running, eventually};
use super::site::{IPV4, IPV6, Site};

/// Three rounds, at 0, 50 and 150 ms.
pub const QUICK: &str = "[schedule]\ncount = 3\n";
/// Three rounds, so far apart that a slow Open vSwitch does not make all of them seem lost.
pub const CALM: &str = "[schedule]\ncount = 3\ninterval = \"300ms\"\n";
/// A burst that outlasts every wait of a test: if a test sees its end, it was cancelled.
pub const LONG: &str = "[schedule]\ncount = 1000\ninterval = \"100ms\"\nbackoff = 1\n";

pub struct Daemon<'a> {
    host: &'a Host,
    pub program: Running,
    /// Where it tells systemd how it is, and what it has told so far.
    systemd: UnixDatagram,
    told: RefCell<String>,
    config: PathBuf,
}

/// A daemon with this configuration, which sees the guest of `site` be saved and restored: with `how` for `virsh restore`. What
/// arrives beyond the uplink is captured from before.
pub fn restored<'a>(site: &'a Site, config: &str, how: &str) -> (Daemon<'a>, Capture) {
    let daemon = Daemon::start(&site.host, config);
    site.save();
    daemon.knows(0);
    let wire = site.wire();
    site.restore(how);
    (daemon, wire)
}

impl<'a> Daemon<'a> {
    /// Returns when it says that it is ready.
    pub fn start(host: &'a Host, config: &str) -> Self {
        let daemon = Self::launch(host, config, &[]);
        daemon.tells("READY=1");
        daemon
    }

    /// Returns when it says that it is ready; it lacks these capabilities (`-bpf,-sys_admin`) from the start.
    pub fn lacking(host: &'a Host, config: &str, capabilities: &str) -> Self {
        let mut command = host.command("setpriv");
        command.args(["--inh-caps", capabilities, "--bounding-set", capabilities]);
        command.arg(env!("CARGO_BIN_EXE_announced"));
        let daemon = Self::run(host, config, command);
        daemon.tells("READY=1");
        daemon
    }

    pub fn launch(host: &'a Host, config: &str, environment: &[(&str, &str)]) -> Self {
        let mut command = host.command(env!("CARGO_BIN_EXE_announced"));
        command.envs(environment.iter().copied());
        Self::run(host, config, command)
    }

    fn run(host: &'a Host, config: &str, mut command: Command) -> Self {
        let file = host.directory().join("announced.toml");
        std::fs::write(&file, with_uplinks(config)).unwrap();
        let socket = host.directory().join("notify.sock");
        let _ = std::fs::remove_file(&socket);
        let systemd = UnixDatagram::bind(&socket).unwrap();
        systemd.set_read_timeout(Some(DEADLINE)).unwrap();
        command.arg("--config").arg(&file).env("NOTIFY_SOCKET", &socket);
        Self { host, program: Running::start(&mut command), systemd, told: RefCell::default(), config: file }
    }

    /// Waits until systemd has been told this.
    pub fn tells(&self, words: &str) {
        let mut message = [0; 4096];
        while !self.told.borrow().contains(words) {
            let length = match self.systemd.recv(&mut message) {
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => panic!(
                    "{words} was not told ({error}), only {:?}: {}",
                    self.told,
                    self.program.stderr.so_far()
                ),
            };
            writeln!(self.told.borrow_mut(), "{}", String::from_utf8_lossy(&message[..length])).unwrap();
        }
    }

    /// What systemd was told so far does not count any more.
    pub fn forgets(&self) {
        self.told.borrow_mut().clear();
    }

    /// The snapshot that `announce status --json` prints.
    pub fn status(&self) -> Value {
        let socket = self.host.directory().join("run/announced/status.sock");
        eventually("the daemon's status", || {
            let stream = UnixStream::connect(&socket).ok()?;
            stream.set_read_timeout(Some(DEADLINE)).unwrap();
            serde_json::from_reader(stream).ok()
        })
    }

    /// Waits until the status is such.
    pub fn comes_to(&self, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        let start = std::time::Instant::now();
        loop {
            let status = self.status();
            if is(&status) {
                return status;
            }
            if start.elapsed() > DEADLINE {
                panic!("{what} did not come: {last:#}\n{}", self.program.stderr.so_far());
            }
            last = status;
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Waits until so many announcements have ended since the start; returns their reports. Where libvirtd was slow to describe a
    /// guest, what OVSDB knows of it was announced until then: that does not count.
    pub fn reports(&self, count: usize) -> Vec<Value> {
        let counts = |report: &&Value| report["outcome"] != "superseded" || !is_provisional(report);
        let of = |status: &Value| {
            let all = status["recent"].as_array().unwrap();
            all.iter().filter(counts).cloned().collect::<Vec<_>>()
        };
        let status = self.comes_to(&format!("{count} reports"), |status| of(status).len() >= count);
        let reports = of(&status);
        assert_eq!(reports.len(), count, "{reports:#?}");
        reports
    }

    /// Waits until it knows of so many guests. A guest's end is told after all else that happened to it, so that then
    /// nothing about it is still to come.
    pub fn knows(&self, guests: u64) -> Value {
        self.comes_to(&format!("{guests} guests"), |status| status["guests"] == guests)
    }

    /// Waits until so many announcements are under way, and none of them by what OVSDB alone knows of a guest.
    pub fn is_at(&self, announcements: u64) -> Value {
        let what = format!("{announcements} announcements under way");
        self.comes_to(&what, |status| {
            let all = status["announcements"].as_array().unwrap();
            status["gauges"]["in_progress"] == announcements && !all.iter().any(is_provisional)
        })
    }

    /// Gives it another configuration, and returns the line that it has to say about it.
    pub fn reload(&self, config: &str, words: &str) -> String {
        std::fs::write(&self.config, with_uplinks(config)).unwrap();
        self.program.signal(Signal::SIGHUP);
        self.program.stderr.line_with(words)
    }

    /// Ends it in order.
    pub fn terminate(self) -> Run {
        self.program.signal(Signal::SIGTERM);
        self.program.finish()
    }

    /// Waits until it has ended by itself.
    pub fn terminated(self) -> Run {
        self.program.finish()
    }

    /// Ends it as a crash would.
    pub fn kill(self) -> Run {
        self.program.signal(Signal::SIGKILL);
        self.program.finish()
    }
}

/// The frames are exactly those of three rounds ([`QUICK`]), each sent when it was due, and the report says so, too.
pub fn is_announced(nic: &Nic, vlan: Option<u16>, frames: &[Frame], report: &Value, cause: &str) {
    is_announced_at(&[0, 50, 150], nic, vlan, frames, report, cause);
}

/// The same of three rounds that were due at these times, in ms.
pub fn is_announced_at(
    due: &[u64],
    nic: &Nic,
    vlan: Option<u16>,
    frames: &[Frame],
    report: &Value,
    cause: &str,
) {
    assert_eq!((report["outcome"].as_str(), report["cause"].as_str()), (Some("announced"), Some(cause)));
    assert_eq!((report["mac"].as_str(), report["rounds"].as_u64()), (Some(nic.mac.as_str()), Some(3)));
    let rounds = rounds(frames, vlan);
    on_schedule(&rounds, report, due);
    for round in rounds {
        for kind in words(nic, IPV4, IPV6) {
            assert!(round.iter().any(|frame| frame.kind == kind), "{kind:?} is not among {round:#?}");
        }
    }
    println!(
        "{cause}: ready after {} ms, first frame after {} ms by {}",
        report["ready_after_ms"], report["first_frame_after_ms"], report["injector"]
    );
}

/// Whether it announces what OVSDB alone knows of a guest, which has no name there.
fn is_provisional(announcement: &Value) -> bool {
    announcement["vm"].is_string() && announcement["vm"] == announcement["uuid"]
}

/// Nothing was announced since the daemon's start, nor is being.
pub fn has_announced_nothing(status: &Value) {
    let events = status["metrics"]["events"].as_object().unwrap();
    assert!(events.values().all(|count| count == 0), "{events:?}");
    assert_eq!((&status["recent"], &status["in_progress"]), (&json!([]), &json!([])));
}

/// The lab's uplinks are veths, which could lead to anything.
fn with_uplinks(config: &str) -> String {
    let uplinks = "[path]\nuplinks = [\"up*\"]\n";
    match config.contains("[path]\n") {
        true => config.replacen("[path]\n", uplinks, 1),
        false => format!("{config}\n{uplinks}"),
    }
}
