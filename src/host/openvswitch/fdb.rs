//! The FDBs of Open vSwitch's bridges.
//!
//! `fdb/show` tells a whole one, and the main loop of ovs-vswitchd answers it: announcements that ask at the same time share an
//! answer.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use pnet_base::MacAddr;
use tokio::time::Instant;

use super::unixctl::{self, UnixctlError};
use crate::proof::fdb_show::{self, Entry};

/// The last answers, by bridge, for as long as they are wanted.
#[derive(Debug, Clone, Default)]
pub struct Tables(Arc<Mutex<HashMap<String, Shared>>>);

type Shared = Arc<tokio::sync::Mutex<Option<Answer>>>;

/// An answer to `fdb/show`.
#[derive(Debug)]
struct Answer {
    asked_at: Instant,
    table: String,
}

impl Tables {
    /// The entry for `mac` in the bridge's FDB, in `vlan`, or else the most recent one. `directory` has Open vSwitch's sockets.
    ///
    /// # Errors
    ///
    /// ovs-vswitchd does not answer.
    pub async fn learned(
        &self,
        directory: &Path,
        bridge: &str,
        mac: MacAddr,
        vlan: Option<u16>,
    ) -> Result<Option<Entry>, UnixctlError> {
        let wanted = Wanted::new(self, bridge);
        let since = Instant::now();
        let mut last = wanted.answer.lock().await;
        let answer = match last.take().filter(|answer| answer.asked_at >= since) {
            Some(answer) => answer,
            None => {
                // Others that are about to ask share the answer.
                tokio::task::yield_now().await;
                let asked_at = Instant::now();
                Answer { asked_at, table: unixctl::fdb(directory, bridge).await? }
            }
        };
        Ok(fdb_show::learned(&last.insert(answer).table, mac, vlan))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Shared>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A bridge's answer, which the last that wants it removes.
struct Wanted<'a> {
    tables: &'a Tables,
    bridge: &'a str,
    answer: Shared,
}

impl Wanted<'_> {
    fn new<'a>(tables: &'a Tables, bridge: &'a str) -> Wanted<'a> {
        let answer = tables.lock().entry(bridge.to_owned()).or_default().clone();
        Wanted { tables, bridge, answer }
    }
}

impl Drop for Wanted<'_> {
    fn drop(&mut self) {
        let mut tables = self.tables.lock();
        // The map's and this one.
        if Arc::strong_count(&self.answer) == 2 {
            tables.remove(self.bridge);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use tokio::net::UnixListener;

    use super::*;
    use crate::host::openvswitch::jsonrpc::Connection;

    #[tokio::test]
    async fn questions_at_the_same_time_share_an_answer() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("ovs-vswitchd.pid"), "7").unwrap();
        let vswitchd = UnixListener::bind(directory.path().join("ovs-vswitchd.7.ctl")).unwrap();
        let tables = Tables::default();
        let asked = async {
            let ask = |n| tables.learned(directory.path(), "br-int", MacAddr(2, 0, 0, 0, 0, n), None);
            let first = tokio::join!(ask(1), ask(2), ask(3));
            let ports = [first.0, first.1, first.2].map(|found| found.unwrap().map(|entry| entry.port));
            assert_eq!(ports, [1; 3].map(|number| Some(fdb_show::Port::Number(number))));
            let later = ask(1).await.unwrap().map(|entry| entry.port);
            assert_eq!(later, Some(fdb_show::Port::Number(2)), "it asks anew");
            assert!(tables.lock().is_empty(), "an answer that nothing waits for is dropped");
        };
        let answered = async {
            for port in [1, 2] {
                let mut client = Connection::over(vswitchd.accept().await.unwrap().0);
                let request: Value = client.receive().await.unwrap();
                let entries: String =
                    (1..4).map(|n| format!("    {port}     0  02:00:00:00:00:0{n}    0\n")).collect();
                let table = format!(" port  VLAN  MAC                Age\n{entries}");
                client.send(&json!({"id": request["id"], "result": table, "error": null})).await.unwrap();
            }
            // No third question.
            vswitchd.accept().await.map(drop)
        };
        tokio::select! {
            () = asked => {}
            _ = answered => panic!("each asked for itself"),
        }
    }
}
