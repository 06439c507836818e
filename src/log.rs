//! The destination of diagnostics.

use std::fmt;
use std::io::{self, IsTerminal};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use tracing::dispatcher::with_default;
use tracing::field::{Field, Value, Visit, display};
use tracing::{Dispatch, Event, Metadata, Subscriber};
use tracing_journald::{Priority, PriorityMappings};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::{FormatFields, MakeWriter};
use tracing_subscriber::layer::Context;
use tracing_subscriber::prelude::*;

/// The target of events that name an unmet condition.
pub(crate) const WAITING: &str = "announced::waiting";

/// Lines of the daemon that may wait to be written: those of an evacuation of a thousand guests.
const MAX_QUEUED: usize = 4096;
/// `tracing`'s own limit for the fields of an event.
const MAX_FIELDS: usize = 32;
/// How long the daemon waits for its last lines to be written when it ends.
const FINISH_TIMEOUT: Duration = Duration::from_millis(500);

/// Diagnostics on standard error: warnings; on a terminal also unmet conditions; with `verbose` everything.
pub(crate) fn to_stderr(verbose: bool) {
    let told = match (verbose, io::stderr().is_terminal()) {
        (true, _) => Targets::new().with_default(LevelFilter::DEBUG),
        (false, true) => {
            Targets::new().with_default(LevelFilter::WARN).with_target(WAITING, LevelFilter::DEBUG)
        }
        (false, false) => Targets::new().with_default(LevelFilter::WARN),
    };
    let subscriber = tracing_subscriber::fmt()
        .fmt_fields(message_only())
        .with_writer(io::stderr)
        .with_ansi(false)
        .with_target(false)
        .with_level(verbose)
        .without_time()
        .with_max_level(LevelFilter::DEBUG);
    // Fails only if a subscriber is set already, which then stays.
    let _ = subscriber.finish().with(told).try_init();
}

/// Diagnostics of the daemon: to the journal with fields (`ANNOUNCE_DOMAIN=web1`) under systemd, else to standard error.
/// They are queued until [`DaemonLog::start`].
pub(crate) fn for_daemon() -> DaemonLog {
    let (forward, log) = queue(to_journal().unwrap_or_else(to_plain_stderr), MAX_QUEUED);
    let _ = tracing_subscriber::registry().with(LevelFilter::INFO).with(forward).try_init();
    log
}

fn to_journal() -> Option<Dispatch> {
    std::env::var_os("JOURNAL_STREAM")?;
    let journal = tracing_journald::layer().ok()?;
    let priorities =
        PriorityMappings { info: Priority::Informational, debug: Priority::Debug, ..PriorityMappings::new() };
    let journal = journal.with_field_prefix(Some("ANNOUNCE".into())).with_priority_mappings(priorities);
    Some(Dispatch::new(tracing_subscriber::registry().with(journal)))
}

fn to_plain_stderr() -> Dispatch {
    if !io::stderr().is_terminal() {
        return Dispatch::new(plain(io::stderr));
    }
    // At a terminal nothing else tells the time.
    let timed = tracing_subscriber::fmt().fmt_fields(message_only()).with_writer(io::stderr);
    Dispatch::new(timed.with_target(false).with_max_level(LevelFilter::INFO).finish())
}

/// The message is complete; the fields are for the journal.
fn message_only() -> impl for<'a> FormatFields<'a> + Send + Sync + 'static {
    tracing_subscriber::fmt::format::debug_fn(|writer, field, value| match field.name() {
        "message" => write!(writer, "{value:?}"),
        _ => Ok(()),
    })
}

fn plain<W: for<'a> MakeWriter<'a> + Send + Sync + 'static>(writer: W) -> impl Subscriber {
    let subscriber = tracing_subscriber::fmt().fmt_fields(message_only());
    let subscriber = subscriber.with_writer(writer).with_ansi(false);
    subscriber.with_target(false).without_time().with_max_level(LevelFilter::INFO).finish()
}

/// An event without its borrows.
struct Line {
    metadata: &'static Metadata<'static>,
    fields: Vec<(Field, String)>,
}

impl Line {
    fn of(event: &Event<'_>) -> Line {
        let mut line = Line { metadata: event.metadata(), fields: Vec::new() };
        event.record(&mut line);
        line
    }

    fn write(&self, to: &Dispatch) {
        let shown: Vec<_> = self.fields.iter().map(|(field, text)| (field, display(text))).collect();
        let Some((first, _)) = shown.first() else { return };
        // An event has at most 32 fields; fields without a value are not recorded.
        let values: [(&Field, Option<&dyn Value>); MAX_FIELDS] = std::array::from_fn(|at| {
            shown.get(at).map_or((*first, None), |(field, text)| (*field, Some(text as &dyn Value)))
        });
        to.event(&Event::new(self.metadata, &self.metadata.fields().value_set(&values)));
    }
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.fields.push((field.clone(), format!("{value:?}")));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.fields.push((field.clone(), value.to_owned()));
    }
}

enum Message {
    Line(Line),
    End,
}

/// Queues events without ever waiting, and counts those that find the queue full.
struct Forward {
    queue: SyncSender<Message>,
    lost: Arc<AtomicU64>,
}

impl<S: Subscriber> Layer<S> for Forward {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if self.queue.try_send(Message::Line(Line::of(event))).is_err() {
            self.lost.fetch_add(1, Relaxed);
        }
    }
}

/// The daemon's queue of lines, which a thread writes: a stalled journal delays nothing else.
pub(crate) struct DaemonLog {
    queue: SyncSender<Message>,
    writing: Mutex<Option<Writing>>,
    ended: Receiver<()>,
}

/// The state of the thread.
struct Writing {
    messages: Receiver<Message>,
    lost: Arc<AtomicU64>,
    to: Dispatch,
    _ending: Sender<()>,
}

fn queue(to: Dispatch, size: usize) -> (Forward, DaemonLog) {
    let (queue, messages) = sync_channel(size);
    let (ending, ended) = channel();
    let lost = Arc::<AtomicU64>::default();
    let writing = Writing { messages, lost: lost.clone(), to, _ending: ending };
    let log = DaemonLog { queue: queue.clone(), writing: Mutex::new(Some(writing)), ended };
    (Forward { queue, lost }, log)
}

impl DaemonLog {
    /// Starts the thread, which keeps the capabilities of this moment.
    pub(crate) fn start(&self) {
        let writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(writing) = writing {
            // If no thread can be started, there are no diagnostics.
            let _ = thread::Builder::new().name("log".into()).spawn(move || writing.run());
        }
    }

    /// Waits for all lines to be written, for at most [`FINISH_TIMEOUT`].
    pub(crate) fn finish(self) {
        self.start();
        if self.queue.try_send(Message::End).is_ok() {
            let _ = self.ended.recv_timeout(FINISH_TIMEOUT);
        }
    }
}

impl Writing {
    fn run(self) {
        while let Ok(Message::Line(line)) = self.messages.recv() {
            line.write(&self.to);
            let lost = self.lost.swap(0, Relaxed);
            if lost > 0 {
                let tell =
                    || tracing::warn!("{lost} lines of this log are lost: they could not be written in time");
                with_default(&self.to, tell);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// A writer that takes one permit per line.
    struct Slow(Mutex<Receiver<()>>, Sender<String>);

    impl Write for &Slow {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            let _ = self.0.lock().unwrap().recv();
            let _ = self.1.send(String::from_utf8_lossy(line).trim().into());
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_stalled_journal_delays_nothing_and_the_log_counts_the_lost_lines() {
        let ((permit, permits), (written, lines)) = (channel(), channel());
        let slow = Arc::new(Slow(Mutex::new(permits), written));
        let (forward, log) = queue(Dispatch::new(plain(slow)), 2);
        let lost = forward.lost.clone();
        log.start();
        with_default(&Dispatch::new(tracing_subscriber::registry().with(forward)), || {
            (1..=10).for_each(|number| tracing::info!(domain = "web1", "line {number}"));
        });
        // Two are queued; the thread may hold a third.
        assert!((7..=8).contains(&lost.load(Relaxed)), "{lost:?}");
        drop(permit);
        log.finish();
        let lines: Vec<String> = lines.iter().collect();
        assert_eq!(lines[0], "INFO line 1");
        let told = lines.iter().filter(|line| line.contains("lines of this log are lost")).count();
        assert_eq!((told, lines.len()), (1, 3 + usize::from(lines.len() == 4)), "{lines:#?}");
    }

    #[test]
    fn fields_survive_the_queue() {
        struct Fields(Sender<Vec<(String, String)>>);
        impl<S: Subscriber> Layer<S> for Fields {
            fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
                let fields = Line::of(event).fields.into_iter();
                let _ = self.0.send(fields.map(|(field, text)| (field.name().into(), text)).collect());
            }
        }
        let ((direct, directly), (queued, by_queue)) = (channel(), channel());
        let (forward, log) = queue(Dispatch::new(tracing_subscriber::registry().with(Fields(queued))), 8);
        let both = tracing_subscriber::registry().with(Fields(direct)).with(forward);
        with_default(&Dispatch::new(both), || {
            let (outcome, nothing) = ("announced", None::<f64>);
            tracing::info!(outcome, nothing, ready_after_ms = 1.25, lost = 3u64, "web1 tap0: \"announced\"");
        });
        log.finish();
        let fields = directly.recv().unwrap();
        assert_eq!(fields.len(), 4);
        assert_eq!(by_queue.recv().unwrap(), fields);
    }
}
