//! The notices to and from the daemons of other hosts: sealed and numbered here, opened and judged on a task of their own, so that
//! what others send to the port does not hold up the loop.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::board::Board;
use crate::announcement::handover::guard::Guard;
use crate::announcement::handover::{Keys, Kind, Notice, Refusal, SIZE, Sender, Uuid};
use crate::config::{Config, PeersTable};
use crate::host::peers;

/// A random UUID with each reading (random(4)).
const RANDOM_UUID: &str = "/proc/sys/kernel/random/uuid";
/// One more byte than a notice has shows what is longer.
const BUFFER: usize = SIZE + 1;
/// The least time between two lines about datagrams that are refused for the same reason.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(60);

/// The peers of this daemon.
pub(super) struct Peers {
    keys: watch::Sender<Keys>,
    transport: Transport,
    own: Sender,
    counter: u64,
    began: Instant,
    /// Notices that were taken, and where they came from.
    pub heard: mpsc::UnboundedReceiver<(Notice, SocketAddr)>,
}

/// What carries datagrams.
pub(super) enum Transport {
    /// The host's sockets.
    Udp(peers::Peers),
    /// A network of a test.
    #[cfg(test)]
    Fake(mpsc::UnboundedSender<Vec<u8>>),
}

/// Judges datagrams.
pub(super) struct Judge {
    keys: watch::Receiver<Keys>,
    guard: Guard,
    began: Instant,
    to: mpsc::UnboundedSender<(Notice, SocketAddr)>,
    board: Arc<Board>,
    /// By refusal: when it was complained about.
    complaints: Vec<(Refusal, Instant)>,
}

impl Peers {
    /// The peers of the configuration, if it has any; the error is one line for the operator.
    pub(super) async fn open(config: &Config, board: &Arc<Board>) -> Result<Option<Peers>, String> {
        let keys = config.peers.keys().map_err(|error| error.to_string())?;
        let Some(keys) = keys else {
            return Ok(None);
        };
        let random = std::fs::read_to_string(RANDOM_UUID).ok().and_then(|text| text.parse().ok());
        let own: Sender = random.ok_or_else(|| format!("cannot read {RANDOM_UUID}"))?;
        let PeersTable { port, listen, .. } = config.peers;
        let opened = peers::Peers::open(listen, port, names(&config.peers)).await;
        let opened = opened.map_err(|error| error.to_string())?;
        let receiver = opened.receiver();
        let (peers, judge) = Peers::new(own, keys, Transport::Udp(opened), board.clone());
        tokio::spawn(judge.judge_all(receiver));
        Ok(Some(peers))
    }

    /// Peers beyond `transport`, and the judge of what comes from there.
    pub(super) fn new(own: Sender, keys: Keys, transport: Transport, board: Arc<Board>) -> (Peers, Judge) {
        let (keys, current) = watch::channel(keys);
        let (to, heard) = mpsc::unbounded_channel();
        let began = Instant::now();
        let judge = Judge { keys: current, guard: Guard::new(own), began, to, board, complaints: Vec::new() };
        (Peers { keys, transport, own, counter: 0, began, heard }, judge)
    }

    /// Where it listens.
    pub(super) fn listens_at(&self) -> String {
        match &self.transport {
            Transport::Udp(sockets) => sockets.listens_at(),
            #[cfg(test)]
            Transport::Fake(_) => String::new(),
        }
    }

    /// Sends a notice to every peer, without waiting.
    pub(super) fn tell(&mut self, kind: Kind, guest: Uuid) {
        self.counter += 1;
        let notice = Notice {
            kind,
            guest,
            sender: self.own,
            counter: self.counter,
            sent_at: wall().as_millis() as u64,
            uptime: self.began.elapsed().as_millis() as u64,
        };
        let datagram = self.keys.borrow().seal(&notice);
        match &self.transport {
            Transport::Udp(sockets) => {
                for (peer, error) in sockets.send(&datagram) {
                    tracing::warn!("the peer {peer} cannot be told of the VM {guest}: {error}");
                }
            }
            #[cfg(test)]
            Transport::Fake(network) => drop(network.send(datagram)),
        }
    }

    /// Takes other keys and peers into use.
    pub(super) fn change(&self, keys: Keys, table: &PeersTable) {
        self.keys.send_replace(keys);
        match &self.transport {
            Transport::Udp(sockets) => sockets.follow(names(table)),
            #[cfg(test)]
            Transport::Fake(_) => {}
        }
    }
}

/// The peers with their ports.
fn names(table: &PeersTable) -> Vec<peers::Name> {
    table.addresses.iter().map(|peer| (peer.host.clone(), peer.port.unwrap_or(table.port))).collect()
}

fn wall() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

impl Judge {
    /// Judges what comes to the port for as long as the daemon runs.
    async fn judge_all(mut self, receiver: peers::Receiver) {
        let mut buffer = [0; BUFFER];
        while !self.to.is_closed() {
            match receiver.receive(&mut buffer).await {
                Ok((length, from)) => self.judge(&buffer[..length], from),
                // Of an earlier datagram to a peer.
                Err(error) => tracing::debug!("peers: {error}"),
            }
        }
    }

    /// Passes a notice on to the loop, or counts why a datagram has no effect.
    pub(super) fn judge(&mut self, datagram: &[u8], from: SocketAddr) {
        let opened = self.keys.borrow().open(datagram);
        let taken = opened.and_then(|notice| match self.guard.is_own(&notice) {
            true => Ok(None),
            false => self.guard.take(&notice, self.began.elapsed(), wall()).map(|()| Some(notice)),
        });
        match taken {
            Ok(Some(notice)) => drop(self.to.send((notice, from))),
            Ok(None) => {}
            Err(refusal) => {
                self.board.count(|metrics| metrics.refused(refusal));
                self.complain(refusal, from);
            }
        }
    }

    fn complain(&mut self, refusal: Refusal, from: SocketAddr) {
        let now = Instant::now();
        self.complaints.retain(|(_, at)| now.duration_since(*at) < COMPLAINT_INTERVAL);
        if self.complaints.iter().all(|(about, _)| *about != refusal) {
            self.complaints.push((refusal, now));
            tracing::warn!("a datagram of {from} at the port of peers has no effect: {refusal}");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant as Moment;

    use super::*;
    use crate::report::snapshot::Snapshot;

    const KEY: &str = "0123456789abcdef0123456789abcdef";

    fn uuid(n: u8) -> Uuid {
        format!("{n:032x}").parse().unwrap()
    }

    fn peers(own: u8, board: &Arc<Board>) -> (Peers, Judge, mpsc::UnboundedReceiver<Vec<u8>>) {
        let (network, sent) = mpsc::unbounded_channel();
        let (peers, judge) =
            Peers::new(uuid(own), Keys::parse(KEY).unwrap(), Transport::Fake(network), board.clone());
        (peers, judge, sent)
    }

    #[tokio::test]
    async fn a_notice_is_taken_once_and_nothing_else_has_an_effect_but_a_counter() {
        let board = Arc::<Board>::default();
        let (mut source, _judge, mut sent) = peers(1, &board);
        let (mut destination, mut judge, mut own) = peers(2, &board);
        let from: SocketAddr = "192.0.2.1:9".parse().unwrap();
        source.tell(Kind::Stops, uuid(9));
        let datagram = sent.recv().await.unwrap();
        judge.judge(&datagram, from);
        judge.judge(&datagram, from);
        judge.judge(b"annd", from);
        judge.judge(&[&datagram[..], b"."].concat(), from);
        let (taken, _) = destination.heard.try_recv().unwrap();
        assert_eq!((taken.kind, taken.guest, taken.counter), (Kind::Stops, uuid(9), 1));
        assert!(destination.heard.try_recv().is_err());
        let status: Snapshot = serde_json::from_slice(&board.status(Moment::now())).unwrap();
        let metrics = status.metrics.text(&status.gauges, &[]);
        for (reason, count) in [("replayed", 1), ("malformed", 2), ("unauthenticated", 0)] {
            let line = format!("announced_handover_notices_refused_total{{reason=\"{reason}\"}} {count}");
            assert!(metrics.contains(&line), "{line}\n{metrics}");
        }
        // A group, or a list that is the same everywhere, brings a daemon's own notices back.
        destination.tell(Kind::Stops, uuid(9));
        judge.judge(&own.recv().await.unwrap(), from);
        assert!(destination.heard.try_recv().is_err());
    }

    #[tokio::test]
    async fn another_key_holds_at_once() {
        let board = Arc::<Board>::default();
        let (mut source, _judge, mut sent) = peers(1, &board);
        let (mut destination, mut judge, _sent) = peers(2, &board);
        let new = "fedcba9876543210fedcba9876543210";
        destination.change(Keys::parse(&format!("{new}\n{KEY}")).unwrap(), &PeersTable::default());
        source.tell(Kind::Kept, uuid(9));
        source.change(Keys::parse(new).unwrap(), &PeersTable::default());
        source.tell(Kind::Left, uuid(9));
        destination.change(Keys::parse(new).unwrap(), &PeersTable::default());
        source.tell(Kind::Stops, uuid(8));
        for _ in 0..3 {
            judge.judge(&sent.recv().await.unwrap(), "192.0.2.1:9".parse().unwrap());
        }
        let kinds: Vec<Kind> =
            std::iter::from_fn(|| destination.heard.try_recv().ok()).map(|(notice, _)| notice.kind).collect();
        assert_eq!(kinds, [Kind::Left, Kind::Stops], "the first one was signed with the old key");
    }
}
