//! `announce status --watch`: a live view. In a terminal it is drawn again when something has changed; into a pipe goes a line for
//! each change.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use pnet_base::MacAddr;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;

use crate::cli::args;
use crate::cli::exit::{Problem, Status};
use crate::cli::status::text::{self, Look};
use crate::report::snapshot::{Ended, Snapshot};
use crate::report::standing::UnderWay;
use crate::run::wall_clock;

/// How often the daemon is asked.
const INTERVAL: Duration = Duration::from_secs(1);
/// To another screen, without a cursor (xterm's control sequences).
const ENTER: &str = "\u{1b}[?1049h\u{1b}[?25l";
const LEAVE: &str = "\u{1b}[?25h\u{1b}[?1049l";
/// From the first column of the first line, each line to its end.
const HOME: &str = "\u{1b}[H";
const TO_LINE_END: &str = "\u{1b}[K";
const TO_SCREEN_END: &str = "\u{1b}[J";

/// What the daemon says, or why it says nothing.
type Answer = Result<Snapshot, String>;

/// Shows what `ask` returns until a signal, or until the reader has gone.
///
/// # Errors
///
/// Signals cannot be heard.
pub(super) async fn run(args: &args::Status, ask: fn() -> Answer) -> Result<Status, Problem> {
    let on =
        |kind| signal(kind).map_err(|error| (Status::Failed, format!("cannot listen to signals: {error}")));
    let (mut interrupt, mut terminate) = (on(SignalKind::interrupt())?, on(SignalKind::terminate())?);
    let mut resized = on(SignalKind::window_change())?;
    let mut view: Box<dyn View> = match io::stdout().is_terminal() {
        true => Box::new(Screen::enter()),
        false => Box::new(Lines::default()),
    };
    loop {
        let next = Instant::now() + INTERVAL;
        let answer = tokio::select! {
            answer = tokio::task::spawn_blocking(ask) => answer.unwrap_or_else(|error| Err(error.to_string())),
            () = ended(&mut interrupt, &mut terminate) => break,
        };
        let answer = answer.map(|status| of_vm(status, args));
        if view.show(&answer).is_err() {
            break;
        }
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(next) => break,
                _ = resized.recv() => drop(view.show(&answer)),
                () = ended(&mut interrupt, &mut terminate) => return Ok(Status::Announced),
            }
        }
    }
    Ok(Status::Announced)
}

async fn ended(interrupt: &mut Signal, terminate: &mut Signal) {
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}

/// What there is of the VM, if one is meant.
fn of_vm(mut status: Snapshot, args: &args::Status) -> Snapshot {
    if let Some(vm) = super::vm(args) {
        status.announcements.retain(|under_way| under_way.is_of(vm));
        status.recent.retain(|ended| ended.is_of(vm));
    }
    if args.failed {
        status.recent.retain(|ended| ended.report.is_a_failure());
    }
    status
}

trait View {
    /// Shows what has changed.
    ///
    /// # Errors
    ///
    /// It cannot be written: the reader has gone.
    fn show(&mut self, answer: &Answer) -> io::Result<()>;
}

/// A terminal, which is as it was when this is dropped.
struct Screen {
    has_colours: bool,
    shown: String,
}

impl Screen {
    fn enter() -> Screen {
        let _ = write!(io::stdout(), "{ENTER}");
        let has_colours = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Screen { has_colours, shown: String::new() }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = write!(io::stdout(), "{LEAVE}");
        let _ = io::stdout().flush();
    }
}

impl View for Screen {
    fn show(&mut self, answer: &Answer) -> io::Result<()> {
        let size = rustix::termios::tcgetwinsize(io::stdout()).map(|size| (size.ws_col, size.ws_row));
        let (columns, rows) = size.ok().filter(|size| size.0 > 0 && size.1 > 0).unwrap_or((80, 24));
        let text = drawn(answer, columns.into(), rows.into(), self.has_colours);
        if text != self.shown {
            let mut out = io::stdout().lock();
            write!(out, "{HOME}{text}{TO_SCREEN_END}")?;
            out.flush()?;
            self.shown = text;
        }
        Ok(())
    }
}

/// The lines that fit, each cut to its end.
fn drawn(answer: &Answer, columns: usize, rows: usize, has_colours: bool) -> String {
    let lines = match answer {
        Ok(status) => text::view(status, rows),
        Err(why) => vec![(Look::Bad, format!("{why}; trying again"))],
    };
    let colour = |look: Look| match look {
        _ if !has_colours => ("", ""),
        Look::Plain => ("", ""),
        Look::Waits => ("\u{1b}[33m", "\u{1b}[0m"),
        Look::Bad => ("\u{1b}[31m", "\u{1b}[0m"),
    };
    let line = |(look, text): &(Look, String)| {
        let (on, off) = colour(*look);
        // Names from outside might contain control sequences for the terminal.
        let text: String = text.replace(char::is_control, " ").chars().take(columns).collect();
        format!("{on}{text}{off}{TO_LINE_END}")
    };
    lines.iter().take(rows).map(line).collect::<Vec<_>>().join("\r\n")
}

/// Plain lines.
#[derive(Default)]
struct Lines {
    head: Vec<String>,
    under_way: BTreeMap<(Option<String>, MacAddr, String), String>,
    ended: Option<Vec<(String, Option<MacAddr>)>>,
}

impl Lines {
    /// What is new, in lines.
    fn changes(&mut self, answer: &Answer) -> Vec<String> {
        let status = match answer {
            Ok(status) => status,
            Err(why) => {
                let head = vec![why.clone()];
                let is_new = self.head != head;
                self.head = head;
                return if is_new { self.head.clone() } else { Vec::new() };
            }
        };
        let head = text::parts(status);
        let mut lines: Vec<String> = head.iter().filter(|line| !self.head.contains(line)).cloned().collect();
        self.head = head;
        let stages: BTreeMap<_, _> = status.announcements.iter().map(|one| (key(one), stage(one))).collect();
        let is_new = |one: &&UnderWay| self.under_way.get(&key(one)) != Some(&stage(one));
        lines.extend(status.announcements.iter().filter(is_new).map(text::under_way));
        self.under_way = stages;
        let name = |ended: &Ended| (ended.at.clone(), ended.report.mac);
        // What ended before this view began is not news.
        if let Some(known) = &self.ended {
            let new = status.recent.iter().filter(|ended| !known.contains(&name(ended)));
            lines.extend(new.map(|ended| ended.report.line()));
        }
        self.ended = Some(status.recent.iter().map(name).collect());
        lines
    }
}

impl View for Lines {
    fn show(&mut self, answer: &Answer) -> io::Result<()> {
        let mut out = io::stdout().lock();
        for line in self.changes(answer) {
            writeln!(out, "{} {}", wall_clock::now(), line.replace(char::is_control, " "))?;
        }
        out.flush()
    }
}

fn key(one: &UnderWay) -> (Option<String>, MacAddr, String) {
    (one.vm.clone(), one.mac, one.event_at.clone())
}

/// What makes another line: what it waits for and whether it is lost, not each round.
fn stage(one: &UnderWay) -> String {
    let standing = &one.standing;
    let waits: Vec<&str> = standing.unmet.iter().map(|unmet| unmet.text.as_str()).collect();
    format!("{} {} {:?} {:?}", standing.ready, standing.lost > 0, waits, standing.why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::announcement::progress::Outcome;
    use crate::cli::status::tests::ended;
    use crate::guest::event::Cause;
    use crate::report::standing::Standing;
    use crate::report::unmet::Unmet;

    fn under_way(vm: &str, waits: &str, round: u32) -> UnderWay {
        let unmet = Unmet { code: "tag".into(), text: waits.into(), remedy: None };
        let unmet = if waits.is_empty() { Vec::new() } else { vec![unmet] };
        let standing = Standing {
            ready: waits.is_empty(),
            unmet,
            round,
            since: Some(wall_clock::now()),
            ..Standing::default()
        };
        let (vm, mac) = (Some(vm.to_owned()), MacAddr(2, 0, 0, 0, 0, 1));
        let event_at = "2026-11-25T17:34:46.293Z".into();
        UnderWay { vm, uuid: None, mac, cause: Cause::Migrated, event: None, event_at, standing }
    }

    fn status(announcements: Vec<UnderWay>, recent: Vec<Ended>) -> Answer {
        Ok(Snapshot { announcements, recent, ..Snapshot::default() })
    }

    #[test]
    fn a_pipe_gets_a_line_for_each_change_and_none_for_each_round() {
        let mut lines = Lines::default();
        let old = ended("old", Outcome::Announced);
        let first = lines.changes(&status(vec![under_way("web1", "no tag", 0)], vec![old.clone()]));
        assert!(first.last().unwrap().contains("no tag") && !first.concat().contains("old"), "{first:?}");
        let mut changes = |announcements, recent| lines.changes(&status(announcements, recent)).len();
        assert_eq!(changes(vec![under_way("web1", "no tag", 0)], vec![old.clone()]), 0);
        assert_eq!(changes(vec![under_way("web1", "", 1)], vec![old.clone()]), 1);
        assert_eq!(changes(vec![under_way("web1", "", 2)], vec![old.clone()]), 0);
        let new = Ended { at: "2026-11-25T17:59:00.000Z".into(), ..ended("web1", Outcome::Announced) };
        assert_eq!(changes(Vec::new(), vec![old, new]), 1);
        let gone = |lines: &mut Lines| lines.changes(&Err("announced does not answer".into())).len();
        assert_eq!((gone(&mut lines), gone(&mut lines)), (1, 0));
    }

    #[test]
    fn a_screen_is_never_longer_or_wider_than_the_terminal() {
        let many = (0..500).map(|n| under_way(&format!("web{n}\u{1b}[2J"), "no tag", 0)).collect();
        let recent = (0..50).map(|n| ended(&"long ".repeat(n), Outcome::Failed)).collect();
        let answer = status(many, recent);
        for (columns, rows) in [(80, 24), (20, 5), (300, 100), (1, 1)] {
            let text = drawn(&answer, columns, rows, false);
            assert!(text.split("\r\n").count() <= rows, "{text}");
            let width = |line: &str| line.trim_end_matches(TO_LINE_END).chars().count();
            assert!(text.split("\r\n").all(|line| width(line) <= columns), "{text}");
            assert!(!text.contains("\u{1b}[2J") && !text.contains("\u{1b}[3"), "no colours: {text}");
        }
        assert!(drawn(&answer, 80, 24, true).contains("\u{1b}[33m"));
    }
}
