//! The daemon's loop over a scripted libvirt, on the fake host and on Open vSwitch.

use std::sync::Mutex;

use super::*;
use crate::daemon::connection::{MAX_READERS, ReadGuest};
use crate::daemon::engine::simulation::{domain, uuid};
use crate::guest::event::{Cause, Change};
use crate::guest::ledger::Present;
use crate::report::snapshot::Snapshot;
use crate::run::fake::World;
use crate::run::testbed::{TAG, TAP, Testbed, on_both};

/// Longer than any settling.
const WHILE: Duration = Duration::from_millis(250);
const MIGRATED: Option<Cause> = Some(Cause::Migrated);

/// A daemon with one guest, which libvirt describes as soon as it is asked.
struct Daemon {
    notices: mpsc::UnboundedSender<(usize, Notice)>,
    board: Arc<Board>,
    task: task::JoinHandle<Result<(), String>>,
}

/// Starts a daemon with the state that the previous one saved.
async fn start(bed: &Testbed, saved: &Arc<Mutex<Vec<u8>>>, present: Vec<Present>) -> Daemon {
    let (config, state_file) = (bed.config(""), StateFile::in_memory(saved.clone()));
    let read: ReadGuest = Arc::new(|_, _| Box::pin(async { Ok(domain(0, 1)) }));
    let connection = Connection::new("test".into(), read, &mut state_file.load().unwrap_or_default());
    let (notices, heard) = mpsc::unbounded_channel();
    let (host, board) = (bed.host(&config).await, Arc::<Board>::default());
    let engine = Engine::of(config, host, vec![connection], heard, board.clone());
    let engine = Engine { state_file: Some(state_file), ..engine };
    let daemon = Daemon { notices, board, task: tokio::spawn(engine.run(hangups().unwrap())) };
    daemon.hears(Notice::Listing);
    daemon.hears(Notice::Present(present));
    daemon
}

impl Daemon {
    fn hears(&self, notice: Notice) {
        self.notices.send((0, notice)).unwrap();
    }

    /// libvirt's event about the guest with this id.
    fn told(&self, id: u32, change: Change) {
        self.hears(Notice::Changed { uuid: uuid(0), id: Some(id), change, at: Instant::now() });
    }

    fn arrives(&self, id: u32) {
        self.told(id, Change::Arriving(Cause::Migrated));
        self.told(id, Change::Runs(MIGRATED));
    }

    /// Cause and outcome of each announcement that has ended.
    fn ended(&self) -> Vec<(String, String)> {
        let status: Snapshot = serde_json::from_slice(&self.board.status(std::time::Instant::now())).unwrap();
        let word = |value: serde_json::Value| value.as_str().unwrap().to_owned();
        let told = |report: &Report| {
            (word(serde_json::to_value(report.cause).unwrap()), report.outcome.word().to_owned())
        };
        status.recent.iter().map(|ended| told(&ended.report)).collect()
    }

    async fn await_ended(&self, bed: &Testbed, number: usize) -> Vec<(String, String)> {
        bed.eventually("the report", || Some(self.ended()).filter(|ended| ended.len() >= number)).await
    }
}

fn announced() -> (String, String) {
    ("migrated".into(), "announced".into())
}

/// Frames have left in the port's VLAN, and in no other.
async fn assert_left(bed: &Testbed, frames: usize) {
    let left = bed.await_left(frames).await;
    assert!(left.iter().all(|vlan| *vlan == Some(TAG)), "{left:?}");
}

#[test]
fn a_guest_that_migrates_in_is_announced_when_its_port_gets_its_tag() {
    on_both(async |bed| {
        let daemon = start(&bed, &Arc::default(), Vec::new()).await;
        daemon.arrives(1);
        tokio::time::sleep(WHILE).await;
        assert_eq!((bed.left(), daemon.ended()), (vec![], vec![]));
        bed.bind(TAG).await;
        assert_eq!(daemon.await_ended(&bed, 1).await, [announced()]);
        assert_left(&bed, 9).await;
    });
}

#[test]
fn a_guest_that_leaves_before_its_port_is_ready_gets_nothing_and_everything_when_it_comes_back() {
    on_both(async |bed| {
        let daemon = start(&bed, &Arc::default(), Vec::new()).await;
        daemon.arrives(1);
        tokio::time::sleep(WHILE).await;
        daemon.told(1, Change::Left);
        bed.bind(TAG).await;
        tokio::time::sleep(WHILE).await;
        assert_eq!(bed.left(), []);
        daemon.arrives(2);
        assert_eq!(daemon.await_ended(&bed, 2).await[1], announced());
        assert_left(&bed, 9).await;
    });
}

#[test]
fn what_a_daemon_owed_when_it_was_killed_the_next_one_announces() {
    on_both(async |bed| {
        let saved = Arc::default();
        let daemon = start(&bed, &saved, Vec::new()).await;
        daemon.arrives(1);
        tokio::time::sleep(WHILE).await;
        daemon.task.abort();
        let _ = daemon.task.await;
        bed.bind(TAG).await;
        let present = Present { uuid: uuid(0), name: "web0".into(), id: Some(1), runs: true, cause: None };
        let next = start(&bed, &saved, vec![present]).await;
        assert_eq!(next.await_ended(&bed, 1).await, [announced()]);
        assert_left(&bed, 9).await;
    });
}

/// Of the readings that libvirt answers at a time, those of guests that were here before leave some to guests that arrive.
#[tokio::test(start_paused = true)]
async fn a_guest_that_arrives_is_read_while_all_others_are_read_for_a_port_that_has_moved() {
    let bed = Testbed::Fake(World::new(&[]));
    let config = bed.config("[libvirt]\nevents = [\"migrated\", \"moved\"]");
    let asked = Arc::new(Mutex::new(Vec::new()));
    let to = asked.clone();
    let read: ReadGuest = Arc::new(move |uuid, _| {
        to.lock().unwrap().push(uuid);
        Box::pin(std::future::pending())
    });
    let connection = Connection::new("test".into(), read, &mut Ledgers::new());
    let (_notices, heard) = mpsc::unbounded_channel();
    let mut engine =
        Engine::of(config.clone(), bed.host(&config).await, vec![connection], heard, Arc::default());
    let present =
        |n| Present { uuid: uuid(n), name: format!("web{n}"), id: Some(1), runs: true, cause: None };
    engine.notice(0, Notice::Listing);
    engine.notice(0, Notice::Present((0..10).map(present).collect()));
    engine.locate(vec![PortEvent { device: TAP.into(), sub_port: None, cause: Cause::Moved }]);
    tokio::time::sleep(WHILE).await;
    let searched = asked.lock().unwrap().len();
    assert!((1..MAX_READERS).contains(&searched), "{searched}");
    let arrives = Change::Arriving(Cause::Migrated);
    engine.notice(0, Notice::Changed { uuid: uuid(10), id: Some(2), change: arrives, at: Instant::now() });
    tokio::time::sleep(WHILE).await;
    assert_eq!(asked.lock().unwrap()[searched..], [uuid(10).into()]);
}
