//! The physical L3 switch of the migration lab, in a network namespace that has its ports.
//!
//! ```text
//! l3switch --vendor B --port p1 --port p2 --port p3 --svi 100=1.1.1.254/24 --svi 200=2.1.1.254/24 --control SOCKET
//! l3switch show fdb --control SOCKET
//! ```
//!
//! It prints "ready" when it is up, and ends with SIGTERM or its standard input, unless that is /dev/null.

mod control;
mod ending;
mod ports;
mod switch;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use control::{Question, Table};
use pnet_base::MacAddr;
use ports::{Port, Received, now};
use switch::{Action, Config, Svi, Switch, Vendor};

/// The physical L3 switch of the migration lab
#[derive(Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: Run,
}

#[derive(Subcommand)]
enum Command {
    /// Prints a table of a switch that runs
    Show {
        table: Table,
        #[arg(long, value_name = "SOCKET")]
        control: PathBuf,
        #[arg(long)]
        json: bool,
    },
}

#[derive(Args)]
struct Run {
    /// Whether an ARP entry moves with its MAC in the FDB (A), or by ARP only (B)
    #[arg(long, value_enum, default_value = "B")]
    vendor: Vendor,
    /// A device of this network namespace, a trunk of all SVIs' VLANs; may be given several times
    #[arg(long = "port", value_name = "DEV")]
    ports: Vec<String>,
    /// The switch's address in a VLAN; may be given several times
    #[arg(long = "svi", value_name = "VLAN=ADDRESS/LENGTH")]
    svis: Vec<Svi>,
    /// For how many seconds the FDB keeps a MAC that does not send
    #[arg(long, value_name = "SECONDS", default_value_t = 300.0)]
    fdb_age: f64,
    /// For how many seconds the ARP table keeps an address that ARP does not confirm
    #[arg(long, value_name = "SECONDS", default_value_t = 1200.0)]
    arp_age: f64,
    /// Snoop IGMP and MLD, and query the hosts so often; without it, every multicast frame is flooded
    #[arg(long, value_name = "SECONDS")]
    query_interval: Option<f64>,
    /// The switch's own MAC
    #[arg(long, default_value = "00:00:5e:00:53:fe")]
    mac: MacAddr,
    /// Where "show" finds it
    #[arg(long, value_name = "SOCKET")]
    control: Option<PathBuf>,
    /// What changes in the tables, announcements and drops, as JSON lines
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
}

/// What the switch's only thread is told by the others.
enum Input {
    Frame(String, Received),
    Ask(Question, Sender<String>),
    Failed(String),
    End,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match arguments.command {
        Some(Command::Show { table, control, json }) => control::show(&control, Question { table, json })
            .map(|answer| print!("{answer}"))
            .map_err(|error| format!("no switch answers at {}: {error}", control.display())),
        None => run(arguments.run),
    };
    done.map_or_else(
        |error| {
            eprintln!("l3switch: {error}");
            ExitCode::FAILURE
        },
        |()| ExitCode::SUCCESS,
    )
}

fn run(run: Run) -> Result<(), String> {
    let age = |seconds| Duration::try_from_secs_f64(seconds).map_err(|error| format!("{seconds}: {error}"));
    let config = Config {
        vendor: run.vendor,
        mac: run.mac,
        ports: run.ports,
        svis: run.svis,
        fdb_age: age(run.fdb_age)?,
        arp_age: age(run.arp_age)?,
        query_interval: run.query_interval.map(age).transpose()?,
    };
    if config.ports.is_empty() || config.svis.is_empty() {
        return Err("a switch needs ports and SVIs: give --port and --svi".into());
    }
    let (tell, told) = mpsc::channel();
    let end = tell.clone();
    // All of these sends fail only when the switch has ended.
    ending::on_end(move || drop(end.send(Input::End))).map_err(|error| format!("signals: {error}"))?;
    let log = run.log.as_ref().map(|path| File::create(path).map_err(|e| format!("{}: {e}", path.display())));
    let log = log.transpose()?;
    let mut ports = BTreeMap::new();
    for name in &config.ports {
        let port = Arc::new(Port::open(name).map_err(|error| format!("port {name}: {error}"))?);
        ports.insert(name.clone(), Arc::clone(&port));
        let (name, tell) = (name.clone(), tell.clone());
        thread::spawn(move || receive(&name, &port, &tell));
    }
    if let Some(path) = &run.control {
        let ask = move |question| {
            let (answer, answered) = mpsc::channel();
            tell.send(Input::Ask(question, answer)).ok()?;
            answered.recv().ok()
        };
        control::serve(path, ask).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    println!("ready");
    let ended = Machine { switch: Switch::new(config), ports, log }.work(&told);
    if let Some(path) = &run.control {
        // It is gone, or belongs to another process; either way nothing is left to do.
        let _ = std::fs::remove_file(path);
    }
    ended
}

fn receive(name: &str, port: &Port, tell: &Sender<Input>) {
    loop {
        let input = match port.receive() {
            Ok(frame) => Input::Frame(name.into(), frame),
            Err(error) => Input::Failed(format!("port {name}: {error}")),
        };
        if tell.send(input).is_err() {
            return;
        }
    }
}

struct Machine {
    switch: Switch,
    ports: BTreeMap<String, Arc<Port>>,
    log: Option<File>,
}

impl Machine {
    fn work(mut self, told: &Receiver<Input>) -> Result<(), String> {
        loop {
            let actions = match told.recv_timeout(Duration::from_secs(1)) {
                Ok(Input::Frame(port, frame)) => {
                    self.switch.receive(frame.at, &port, frame.vlan, &frame.bytes)
                }
                Ok(Input::Ask(question, answer)) => {
                    let actions = self.switch.age(now());
                    // The client may have gone.
                    let _ = answer.send(question.answer(&self.switch));
                    actions
                }
                Err(RecvTimeoutError::Timeout) => self.switch.age(now()),
                Ok(Input::Failed(error)) => return Err(error),
                Ok(Input::End) | Err(RecvTimeoutError::Disconnected) => return Ok(()),
            };
            for action in actions {
                self.perform(action).map_err(|error| format!("the log: {error}"))?;
            }
        }
    }

    fn perform(&mut self, action: Action) -> io::Result<()> {
        match action {
            Action::Send { port, vlan, bytes } => {
                if let Some(Err(error)) = self.ports.get(&port).map(|socket| socket.send(vlan, &bytes)) {
                    // A port that is down loses frames; the switch goes on.
                    eprintln!("l3switch: port {port}: {error}");
                }
            }
            Action::Log(event) => {
                if let Some(log) = &mut self.log {
                    let mut line = serde_json::to_vec(&event)?;
                    line.push(b'\n');
                    log.write_all(&line)?;
                }
            }
        }
        Ok(())
    }
}
