//! Showing the tables of a switch that runs, by its control socket: a question in one line, then the answer.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread;

use serde::Serialize;

use crate::switch::{ArpRow, FdbRow, GroupRow, Switch};

/// What can be shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Table {
    /// Where each MAC is.
    Fdb,
    /// Which MAC and port each address has.
    Arp,
    /// At which ports each multicast group was reported.
    Groups,
    /// How many frames were dropped, by reason.
    Dropped,
}

/// A question as it is on the socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Question {
    pub table: Table,
    pub json: bool,
}

impl Question {
    fn parse(line: &str) -> Option<Self> {
        let (table, json) = match line.trim().split_once(' ') {
            Some((table, "json")) => (table, true),
            Some(_) => return None,
            None => (line.trim(), false),
        };
        Some(Self { table: clap::ValueEnum::from_str(table, false).ok()?, json })
    }

    fn line(self) -> String {
        let table = format!("{:?}", self.table).to_lowercase();
        if self.json { format!("{table} json") } else { table }
    }

    pub fn answer(self, switch: &Switch) -> String {
        match (self.table, self.json) {
            (Table::Fdb, true) => json(&switch.fdb_rows()),
            (Table::Arp, true) => json(&switch.arp_rows()),
            (Table::Groups, true) => json(&switch.group_rows()),
            (Table::Groups, false) => groups(&switch.group_rows()),
            (Table::Dropped, true) => json(switch.dropped()),
            (Table::Fdb, false) => fdb(&switch.fdb_rows()),
            (Table::Arp, false) => arp(&switch.arp_rows()),
            (Table::Dropped, false) => {
                switch.dropped().iter().map(|(reason, count)| format!("{reason:<12} {count}\n")).collect()
            }
        }
    }
}

fn json(table: &impl Serialize) -> String {
    serde_json::to_string(table).map_or_else(|error| format!("{error}\n"), |line| line + "\n")
}

fn fdb(rows: &[FdbRow]) -> String {
    let mut text = format!("{:<5} {:<18} {:<8} {:>6}  PORT\n", "VLAN", "MAC", "TYPE", "AGE");
    for row in rows {
        let mac = row.mac.to_string();
        text += &format!("{:<5} {mac:<18} {:<8} {:>6}  {}\n", row.vlan, row.kind, age(row.age), row.port);
    }
    text
}

fn arp(rows: &[ArpRow]) -> String {
    let mut text = format!("{:<16} {:>6}  {:<18} {:<10} PORT\n", "ADDRESS", "AGE", "MAC", "INTERFACE");
    for row in rows {
        let (address, mac, age) = (row.address.to_string(), row.mac.to_string(), age(row.age));
        let port = row.port.as_deref().unwrap_or("-");
        text += &format!("{address:<16} {age:>6}  {mac:<18} {:<10} {port}\n", row.interface);
    }
    text
}

fn groups(rows: &[GroupRow]) -> String {
    let mut text = format!("{:<5} {:<18} {:>6}  PORT\n", "VLAN", "GROUP", "AGE");
    for row in rows {
        let group = row.group.to_string();
        text += &format!("{:<5} {group:<18} {:>6}  {}\n", row.vlan, age(Some(row.age)), row.port);
    }
    text
}

fn age(seconds: Option<f64>) -> String {
    seconds.map_or("-".into(), |seconds| format!("{seconds:.0}s"))
}

/// Listens there, in a thread; `ask` gets each question's answer from the switch.
pub fn serve(
    path: &Path,
    ask: impl Fn(Question) -> Option<String> + Clone + Send + 'static,
) -> io::Result<()> {
    // One of a switch that was killed.
    let _ = std::fs::remove_file(path);
    let listener = UnixListener::bind(path)?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let ask = ask.clone();
            // A client that does not wait for the answer does not matter.
            thread::spawn(move || answer(stream, ask));
        }
    });
    Ok(())
}

fn answer(mut stream: UnixStream, ask: impl Fn(Question) -> Option<String>) -> io::Result<()> {
    let mut line = String::new();
    BufReader::new(&stream).read_line(&mut line)?;
    let answer = Question::parse(&line).and_then(ask).unwrap_or_else(|| "no such question\n".into());
    stream.write_all(answer.as_bytes())
}

/// Asks the switch that listens there.
pub fn show(path: &Path, question: Question) -> io::Result<String> {
    let mut stream = UnixStream::connect(path)?;
    writeln!(stream, "{}", question.line())?;
    stream.shutdown(Shutdown::Write)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
