//! Asks a host for an echo every 10 ms, and writes down what became of each request.
//!
//! ```text
//! probe --source 1.1.1.2 --to 1.1.1.1 --every 10ms --log FILE --json
//! ```
//!
//! It prints "ready" when the first request goes out, and ends with SIGTERM or its standard input, unless that is /dev/null.

mod echo;
#[path = "../l3switch/ending.rs"]
mod ending;
mod record;

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use echo::Echo;
use record::{Probe, Summary, summary};

/// Asks a host for an echo at exact intervals, and writes down what became of each request
#[derive(Parser)]
struct Arguments {
    /// Our own address
    #[arg(long)]
    source: Option<IpAddr>,
    #[arg(long)]
    to: IpAddr,
    #[arg(long, default_value = "10ms", value_parser = announced::for_tests::duration::parse)]
    every: Duration,
    /// End after so many requests
    #[arg(long)]
    count: Option<usize>,
    /// For how long the answer to the last request is waited for
    #[arg(long, default_value = "1s", value_parser = announced::for_tests::duration::parse)]
    linger: Duration,
    /// One JSON line for each request, written in the end
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// The summary as JSON
    #[arg(long)]
    json: bool,
}

enum Input {
    Reply(u64, f64),
    Failed(String),
    End,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("probe: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), String> {
    if arguments.every.is_zero() {
        return Err("--every 0 would flood the network: give an interval".into());
    }
    let (tell, told) = mpsc::channel();
    let end = tell.clone();
    // These sends fail only if the receiver is gone.
    ending::on_end(move || drop(end.send(Input::End))).map_err(|error| format!("signals: {error}"))?;
    let identifier = std::process::id() as u16;
    let echo = Echo::open(arguments.source, arguments.to, identifier).map_err(|e| format!("socket: {e}"))?;
    let echo = Arc::new(echo);
    let receiver = Arc::clone(&echo);
    thread::spawn(move || {
        loop {
            let input = match receiver.receive() {
                Ok((seq, at)) => Input::Reply(seq, at),
                Err(error) => Input::Failed(format!("socket: {error}")),
            };
            if tell.send(input).is_err() {
                return;
            }
        }
    });
    let probes = probe(&echo, &told, arguments)?;
    if let Some(path) = &arguments.log {
        write_log(path, &probes).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    print_summary(&summary(&probes), arguments.json);
    Ok(())
}

/// Sends a request at every multiple of the interval until the end; one that is late does not delay the next ones.
fn probe(echo: &Echo, told: &Receiver<Input>, arguments: &Arguments) -> Result<Vec<Probe>, String> {
    let mut probes: Vec<Probe> = Vec::new();
    let mut due = Instant::now();
    println!("ready");
    while arguments.count.is_none_or(|count| probes.len() < count) {
        match told.recv_timeout(due.saturating_duration_since(Instant::now())) {
            Ok(Input::Reply(seq, at)) => note(&mut probes, seq, at),
            Ok(Input::Failed(error)) => return Err(error),
            Ok(Input::End) | Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                let seq = probes.len() as u64;
                let (sent, error) = echo.send(seq);
                probes.push(Probe { seq, sent, answered: None, error });
                due += arguments.every;
            }
        }
    }
    let deadline = Instant::now() + arguments.linger;
    while probes.last().is_some_and(|probe| probe.answered.is_none()) {
        match told.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(Input::Reply(seq, at)) => note(&mut probes, seq, at),
            Ok(Input::Failed(error)) => return Err(error),
            Ok(Input::End) => {}
            Err(_) => break,
        }
    }
    Ok(probes)
}

/// The first reply counts.
fn note(probes: &mut [Probe], seq: u64, at: f64) {
    let probe = usize::try_from(seq).ok().and_then(|seq| probes.get_mut(seq));
    if let Some(probe) = probe {
        probe.answered.get_or_insert(at);
    }
}

fn write_log(path: &Path, probes: &[Probe]) -> io::Result<()> {
    let mut log = BufWriter::new(File::create(path)?);
    for probe in probes {
        serde_json::to_writer(&mut log, probe)?;
        log.write_all(b"\n")?;
    }
    log.flush()
}

fn print_summary(summary: &Summary, json: bool) {
    if json {
        match serde_json::to_string(summary) {
            Ok(line) => println!("{line}"),
            Err(error) => eprintln!("probe: {error}"),
        }
        return;
    }
    let Summary { sent, answered, lost, longest_gap_ms, .. } = summary;
    println!("{sent} sent, {answered} answered, {lost} lost, longest gap {longest_gap_ms:.0} ms");
}
