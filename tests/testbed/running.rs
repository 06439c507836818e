//! Programs in the background, and waiting for what they say.

use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Longer than anything here takes on a slow, busy machine: after this time, the wait is in vain.
///
/// It is the only limit to what takes time. How long something takes depends on the machine; tests look at what came before
/// what, at how often, and that nothing came too early.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Looks again and again until there is something to see. For what gives no notification only.
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(start.elapsed() < DEADLINE, "waited {DEADLINE:?} in vain: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// What a program that has ended leaves.
#[derive(Debug)]
pub struct Run {
    /// `None`: a signal killed it.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
    pub took: Duration,
}

/// A program in the background. It is killed when this is dropped.
pub struct Running {
    child: Child,
    started: Instant,
    pub stdout: Stream,
    pub stderr: Stream,
}

impl Running {
    pub fn start(command: &mut Command) -> Self {
        let started = Instant::now();
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let stdout = Stream::of(child.stdout.take().unwrap());
        let stderr = Stream::of(child.stderr.take().unwrap());
        Self { child, started, stdout, stderr }
    }

    /// Waits until it has ended by itself.
    pub fn finish(mut self) -> Run {
        let stdout = self.stdout.whole();
        let stderr = self.stderr.whole();
        let status = self.child.wait().unwrap();
        Run { code: status.code(), stdout, stderr, took: self.started.elapsed() }
    }

    pub fn is_running(&self) -> bool {
        self.stdout.wait_until(Instant::now(), |_, ended| Some(!ended)).unwrap_or_default()
    }

    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    /// Does something while the program, which runs in a host, stands still: it cannot end before.
    pub fn held<T>(&self, act: impl FnOnce() -> T) -> T {
        self.signal(Signal::SIGSTOP);
        // nsenter stops along with its child, and continues it when it is continued itself.
        let nsenter = Pid::from_raw(self.child.id() as i32);
        let stat = format!("/proc/{nsenter}/stat");
        eventually("a program at rest", || {
            std::fs::read_to_string(&stat).unwrap().contains(") T ").then_some(())
        });
        let done = act();
        kill(nsenter, Signal::SIGCONT).unwrap();
        done
    }

    /// The PID of the program itself, for those that run in a [`Host`](super::Host): our child is `nsenter` there,
    /// which waits for the program and passes no signal on.
    pub fn pid(&self) -> Pid {
        eventually("the program's start", || self.program())
    }

    fn program(&self) -> Option<Pid> {
        let parent = self.child.id();
        let children = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).ok()?;
        children.trim().parse().ok().map(Pid::from_raw)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        if let Some(program) = self.program() {
            let _ = kill(program, Signal::SIGKILL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a stream has said so far, read by a thread of its own.
#[derive(Clone)]
pub struct Stream(Arc<(Mutex<Said>, Condvar)>);

#[derive(Default)]
struct Said {
    bytes: Vec<u8>,
    ended: bool,
}

impl Stream {
    pub fn of(mut source: impl Read + Send + 'static) -> Self {
        let stream = Self(Arc::default());
        let shared = Arc::clone(&stream.0);
        std::thread::spawn(move || {
            let mut chunk = [0; 65536];
            loop {
                let length = source.read(&mut chunk).unwrap_or(0);
                let mut said = shared.0.lock().unwrap();
                said.bytes.extend_from_slice(&chunk[..length]);
                said.ended = length == 0;
                shared.1.notify_all();
                if length == 0 {
                    break;
                }
            }
        });
        stream
    }

    /// Waits until a line with these words is complete, and returns it.
    pub fn line_with(&self, words: &str) -> String {
        let found = self.wait(|said, _| {
            let text = String::from_utf8_lossy(said);
            let complete = text.rsplit_once('\n')?.0;
            complete.lines().find(|line| line.contains(words)).map(str::to_owned)
        });
        found.unwrap_or_else(|| panic!("no line with {words:?} came, only:\n{}", self.so_far()))
    }

    /// Waits until `look`, given all that was said and whether that is the end, finds something. `None`: it did not.
    pub fn wait<T>(&self, look: impl FnMut(&[u8], bool) -> Option<T>) -> Option<T> {
        self.wait_until(Instant::now() + DEADLINE, look)
    }

    pub fn wait_until<T>(
        &self,
        deadline: Instant,
        mut look: impl FnMut(&[u8], bool) -> Option<T>,
    ) -> Option<T> {
        let mut said = self.0.0.lock().unwrap();
        loop {
            if let Some(found) = look(&said.bytes, said.ended) {
                return Some(found);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if said.ended || left.is_zero() {
                return None;
            }
            said = self.0.1.wait_timeout(said, left).unwrap().0;
        }
    }

    pub fn so_far(&self) -> String {
        String::from_utf8_lossy(&self.0.0.lock().unwrap().bytes).into_owned()
    }

    /// Waits for the end.
    pub fn whole_bytes(&self) -> Vec<u8> {
        self.wait(|said, ended| ended.then(|| said.to_vec()))
            .unwrap_or_else(|| panic!("it did not end within {DEADLINE:?}, and said:\n{}", self.so_far()))
    }

    pub fn whole(&self) -> String {
        String::from_utf8_lossy(&self.whole_bytes()).into_owned()
    }
}
