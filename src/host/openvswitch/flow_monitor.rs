//! Notifications of changes to bridges' flow tables (`NXST_FLOW_MONITOR`, Open vSwitch's `include/openflow/nicira-ext.h`).
//!
//! A monitor costs ovs-vswitchd a message per changed flow. So a bridge has one only while an announcement asks for it, and at most one;
//! after its first message it is closed, and another one follows [`GAP`] later.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::openflow::Connection;
use crate::host::backoff::Backoff;

const FIRST_RETRY: Duration = Duration::from_millis(100);
const LAST_RETRY: Duration = Duration::from_secs(5);
/// Without a monitor, so that a controller that writes all its flows costs little more than without monitors.
const GAP: Duration = Duration::from_millis(25);
/// A bridge that grants no monitor for so long is silent.
const PROMPT: Duration = Duration::from_millis(20);

/// The flow monitors of this host's bridges.
#[derive(Debug, Clone)]
pub(crate) struct FlowMonitors {
    /// Where ovs-vswitchd puts its bridges' management sockets.
    directory: PathBuf,
    /// Counts the notifications of all bridges.
    changes: Arc<watch::Sender<u64>>,
    running: Arc<Mutex<HashMap<String, Weak<Monitor>>>>,
    /// Instead of bridges: whether they hang.
    #[cfg(test)]
    fed: Option<watch::Receiver<bool>>,
}

/// A task that ends when this is dropped.
#[derive(Debug)]
struct Monitor {
    answering: Arc<Answering>,
    _task: JoinSet<()>,
}

/// Whether a bridge answers.
#[derive(Debug, Default)]
struct Answering {
    is_silent: AtomicBool,
    /// It did not answer something else: a monitor that it has granted says nothing.
    doubted: Notify,
}

impl Answering {
    fn doubt(&self) {
        self.is_silent.store(true, Ordering::Relaxed);
        self.doubted.notify_one();
    }
}

/// Keeps the monitors of some bridges running.
#[derive(Debug)]
pub(crate) struct Monitored {
    bridges: Vec<String>,
    monitors: Vec<Arc<Monitor>>,
    changes: watch::Receiver<u64>,
}

impl FlowMonitors {
    /// None is running; the bridges' management sockets are looked for in `directory`.
    pub(crate) fn new(directory: PathBuf) -> Self {
        FlowMonitors {
            directory,
            changes: Arc::default(),
            running: Arc::default(),
            #[cfg(test)]
            fed: None,
        }
    }

    /// Of bridges that hang while this is true.
    #[cfg(test)]
    pub(crate) fn fed(hangs: watch::Receiver<bool>) -> Self {
        FlowMonitors { fed: Some(hangs), ..FlowMonitors::new("/nonexistent".into()) }
    }

    /// Monitors these bridges for as long as the result is kept. Must be called within a runtime.
    pub(crate) fn monitor(&self, bridges: Vec<String>) -> Monitored {
        let changes = self.changes.subscribe();
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.retain(|_, monitor| monitor.strong_count() > 0);
        let monitors = bridges.iter().map(|bridge| {
            running.get(bridge).and_then(Weak::upgrade).unwrap_or_else(|| {
                let monitor = Arc::new(self.start(bridge));
                running.insert(bridge.clone(), Arc::downgrade(&monitor));
                monitor
            })
        });
        Monitored { monitors: monitors.collect(), bridges, changes }
    }

    fn start(&self, bridge: &str) -> Monitor {
        let (socket, changes) = (self.directory.join(format!("{bridge}.mgmt")), self.changes.clone());
        let (answering, mut task) = (Arc::<Answering>::default(), JoinSet::new());
        let told = answering.clone();
        #[cfg(test)]
        if let Some(hangs) = self.fed.clone() {
            task.spawn(async move { follow(hangs, &changes, &told).await });
            return Monitor { answering, _task: task };
        }
        task.spawn(async move { keep(&socket, &changes, &told).await });
        Monitor { answering, _task: task }
    }
}

impl Monitored {
    /// The bridges, as they were asked for.
    pub(crate) fn bridges(&self) -> &[String] {
        &self.bridges
    }

    /// Some bridge does not answer: ovs-vswitchd is busy, or stands still. When it goes on, or has ended, that counts as a change.
    pub(crate) fn is_silent(&self) -> bool {
        self.monitors.iter().any(|monitor| monitor.answering.is_silent.load(Ordering::Relaxed))
    }

    /// The bridges count as silent until they answer.
    pub(crate) fn doubt(&self) {
        self.monitors.iter().for_each(|monitor| monitor.answering.doubt());
    }

    /// Returns when the flow table of some monitored bridge has changed since this was last called, or may have.
    pub(crate) async fn changed(&mut self) {
        if self.monitors.is_empty() || self.changes.changed().await.is_err() {
            std::future::pending().await
        }
    }
}

async fn keep(socket: &Path, changes: &watch::Sender<u64>, answering: &Answering) {
    let mut backoff = Backoff::new(FIRST_RETRY, LAST_RETRY);
    let tell = || changes.send_modify(|count| *count = count.wrapping_add(1));
    loop {
        let mut opening = pin!(Connection::open_for_monitor(socket));
        let opened = match timeout(PROMPT, &mut opening).await {
            Ok(opened) => opened,
            Err(_) => {
                answering.is_silent.store(true, Ordering::Relaxed);
                opening.await
            }
        };
        // The queue of its socket is full.
        let is_full = opened.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock);
        let was_silent = answering.is_silent.swap(is_full, Ordering::Relaxed);
        match opened {
            Ok(mut connection) => {
                backoff.reset();
                // A change may have come before the monitor.
                tell();
                tokio::select! {
                    changed = connection.flow_change() => if changed.is_ok() { tell() },
                    () = answering.doubted.notified() => continue,
                }
                drop(connection);
                tokio::time::sleep(GAP).await;
            }
            Err(error) => {
                tracing::debug!("{}: cannot monitor flows: {error}", socket.display());
                if was_silent && !is_full {
                    tell();
                }
                tokio::time::sleep(if is_full { FIRST_RETRY } else { backoff.pause() }).await;
            }
        }
    }
}

/// The same for bridges that are fed.
#[cfg(test)]
async fn follow(mut hangs: watch::Receiver<bool>, changes: &watch::Sender<u64>, answering: &Answering) {
    loop {
        let hang = *hangs.borrow_and_update();
        answering.is_silent.store(hang, Ordering::Relaxed);
        changes.send_modify(|count| *count = count.wrapping_add(u64::from(!hang)));
        if hangs.changed().await.is_err() {
            return std::future::pending().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{UnixListener, UnixStream};

    use super::*;

    const HELLO: [u8; 8] = [1, 0, 0, 8, 0, 0, 0, 1];
    const EMPTY_REPLY: [u8; 24] =
        [1, 17, 0, 24, 0, 0, 0, 0, 0xff, 0xff, 0, 0, 0, 0, 0x23, 0x20, 0, 0, 0, 2, 0, 0, 0, 0];

    /// A bridge that grants a monitor.
    async fn granted(bridge: &UnixListener) -> UnixStream {
        let mut stream = bridge.accept().await.unwrap().0;
        let (mut hello, mut request) = ([0; 16], [0; 40]);
        stream.read_exact(&mut hello).await.unwrap();
        stream.write_all(&HELLO).await.unwrap();
        stream.read_exact(&mut request).await.unwrap();
        assert_eq!((request[1], &request[12..16]), (16, &[0, 0, 0x23, 0x20][..]), "a request of Nicira's");
        stream.write_all(&EMPTY_REPLY).await.unwrap();
        stream
    }

    #[tokio::test]
    async fn a_change_is_reported_and_the_bridge_is_monitored_again_while_the_monitor_exists() {
        let directory = tempfile::tempdir().unwrap();
        let bridge = UnixListener::bind(directory.path().join("br-int.mgmt")).unwrap();
        let monitors = FlowMonitors::new(directory.path().into());
        let [mut first, second] = [(); 2].map(|()| monitors.monitor(vec!["br-int".into()]));
        let mut stream = granted(&bridge).await;
        first.changed().await;
        stream.write_all(&EMPTY_REPLY).await.unwrap();
        first.changed().await;
        assert_eq!(stream.read(&mut [0]).await.unwrap(), 0, "one message is enough");

        drop(second);
        let mut stream = granted(&bridge).await;
        first.changed().await;
        drop(first);
        assert_eq!(stream.read(&mut [0]).await.unwrap(), 0, "its last user has gone");
    }

    async fn until_silent(monitored: &Monitored) {
        while !monitored.is_silent() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    #[tokio::test]
    async fn a_bridge_that_does_not_answer_is_silent_until_it_does() {
        let directory = tempfile::tempdir().unwrap();
        let monitors = FlowMonitors::new(directory.path().into());
        let bridge = UnixListener::bind(directory.path().join("br-int.mgmt")).unwrap();
        let mut monitored = monitors.monitor(vec!["br-int".into()]);
        until_silent(&monitored).await;
        let mut stream = granted(&bridge).await;
        monitored.changed().await;
        assert!(!monitored.is_silent());

        monitored.doubt();
        assert!(monitored.is_silent(), "a monitor that was granted before proves nothing");
        assert_eq!(stream.read(&mut [0]).await.unwrap(), 0, "another one is asked for");
        let _stream = granted(&bridge).await;
        monitored.changed().await;
        assert!(!monitored.is_silent());

        let mut absent = FlowMonitors::new(directory.path().into()).monitor(vec!["br-ex".into()]);
        absent.doubt();
        absent.changed().await;
        assert!(!absent.is_silent(), "there is no ovs-vswitchd that could go on");
    }

    #[tokio::test]
    async fn a_bridge_that_answers_with_a_refusal_is_not_silent_and_that_wakes() {
        let directory = tempfile::tempdir().unwrap();
        let bridge = UnixListener::bind(directory.path().join("br-int.mgmt")).unwrap();
        let mut monitored = FlowMonitors::new(directory.path().into()).monitor(vec!["br-int".into()]);
        until_silent(&monitored).await;
        let mut stream = bridge.accept().await.unwrap().0;
        // HELLO of OpenFlow 1.3 alone.
        stream.write_all(&[4, 0, 0, 16, 0, 0, 0, 1, 0, 1, 0, 8, 0, 0, 0, 0x10]).await.unwrap();
        monitored.changed().await;
        assert!(!monitored.is_silent());
    }
}
