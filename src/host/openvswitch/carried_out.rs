//! Asks ovs-vswitchd whether it has carried out the changes of the database that no `next_cfg` counts.
//!
//! Its main loop reads the database, answers OpenFlow messages and then reconfigures its bridges, in this order (`bridge_run`,
//! Open vSwitch's `vswitchd/bridge.c`). So a change that has been reported is carried out when two messages have been answered, of
//! which the second was sent after the answer to the first. One bridge answers for all.

use std::io;
use std::path::{Path, PathBuf};

use tokio::sync::{Notify, watch};

use super::openflow::Connection;
use super::ovsdb::State;
use crate::path::ovs::Ovs;

/// The number of bridges that are asked until one answers.
const MAX_BRIDGES: usize = 16;

/// Asks whenever it is notified, by the management sockets in `directory`, and records the answers.
pub(super) async fn keep(directory: &Path, due: &Notify, to: &watch::Sender<State>) {
    loop {
        due.notified().await;
        let (at, bridges) = {
            let state = to.borrow();
            if !state.ovs.answers.is_due() {
                continue;
            }
            (state.now(), sockets(directory, &state.ovs))
        };
        let answered = ask(&bridges).await;
        to.send_modify(|state| match answered {
            Ok(()) => state.ovs.carried_out_until(at),
            Err(_) => state.ovs.not_told_until(at),
        });
        if let Err(error) = answered {
            tracing::debug!(
                "{}: ovs-vswitchd cannot be asked what it has carried out: {error}",
                directory.display()
            );
        }
    }
}

/// The management sockets of some bridges. Orphaned rows, perhaps thousands, have none.
fn sockets(directory: &Path, ovs: &Ovs) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let is_bridges = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".mgmt"));
        name.is_some_and(|name| ovs.bridges.values().any(|bridge| bridge.name == name))
    };
    entries.map(|entry| entry.path()).filter(is_bridges).take(MAX_BRIDGES).collect()
}

/// Returns when ovs-vswitchd has carried out what it was told before.
async fn ask(bridges: &[PathBuf]) -> io::Result<()> {
    let mut refused = io::Error::from(io::ErrorKind::NotFound);
    for bridge in bridges {
        match Connection::open(bridge).await {
            Ok(mut connection) => {
                connection.barrier().await?;
                return connection.barrier().await;
            }
            // A bridge that is new, or speaks another version.
            Err(error) => refused = error,
        }
    }
    Err(refused)
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixListener;
    use tokio::time::Instant;

    use super::*;
    use crate::path::ovs::{Bridge, Ovs};

    fn state() -> State {
        let mut ovs = Ovs::default();
        let bridge = |name: &str| Bridge { name: name.into(), ..Bridge::default() };
        ovs.bridges = [("a".into(), bridge("gone")), ("b".into(), bridge("br-int"))].into();
        let mut state = State { ovs, error: None, epoch: Instant::now() };
        state.ovs.answers.changed_at = Some(state.now());
        state
    }

    #[tokio::test]
    async fn an_answer_covers_what_was_reported_before_the_question_and_none_what_a_bridge_left_unanswered() {
        let directory = tempfile::tempdir().unwrap();
        let (to, mut states) = watch::channel(state());
        let due = Notify::new();
        due.notify_one();
        let asked = keep(directory.path(), &due, &to);
        let checked = async {
            states.changed().await.unwrap();
            let answers = states.borrow_and_update().ovs.answers;
            assert_eq!((answers.until, answers.is_due()), (None, false), "nothing answers: time must do");
            due.notify_one();
            tokio::task::yield_now().await;
            assert!(!states.has_changed().unwrap(), "it is not asked again until something changes");

            to.send_modify(|state| state.ovs.answers.changed_at = Some(state.now()));
            states.borrow_and_update();
            let bridge = UnixListener::bind(directory.path().join("br-int.mgmt")).unwrap();
            due.notify_one();
            let stream = bridge.accept().await.unwrap().0;
            let changed_at = states.borrow().ovs.answers.changed_at;
            let mut bridge = Connection::over(stream).await.unwrap();
            bridge.answer_barrier().await;
            assert!(!states.has_changed().unwrap(), "one answer is not enough");
            bridge.answer_barrier().await;
            states.changed().await.unwrap();
            let answers = states.borrow_and_update().ovs.answers;
            assert!(answers.until >= changed_at && !answers.is_due(), "{answers:?}");
        };
        tokio::select! {
            () = asked => unreachable!(),
            () = checked => {}
        }
    }
}
