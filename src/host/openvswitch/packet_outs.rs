//! Packet-outs into one bridge, of all announcements, by one connection.
//!
//! What is asked for at the same time is sent together, and nothing waits for an answer to what was sent before. A turn of ovs-vswitchd's
//! main loop takes a time that grows with its ports, and up to fifty messages of a connection.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use super::openflow::{Aim, Batch, Connection, Reply};

/// How long a bridge may take to accept a round.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// A connection for packet-outs. Dropping it closes the connection.
#[derive(Debug)]
pub struct PacketOuts {
    rounds: mpsc::UnboundedSender<Round>,
    _task: JoinSet<()>,
}

/// The frames of a round, of questions or of queries, while they are being sent.
#[derive(Debug, Clone)]
pub struct Submission {
    is_first: bool,
    is_handed_over: Arc<AtomicBool>,
}

impl Submission {
    /// Of a guest's first round, or of a later one.
    pub fn new(is_first: bool) -> Submission {
        Submission { is_first, is_handed_over: Arc::default() }
    }

    /// Whether they are of a guest's first round.
    pub fn is_first(&self) -> bool {
        self.is_first
    }

    /// A bridge is sent them: from now on they may leave, also where the answer is no longer awaited.
    pub(crate) fn hand_over(&self) {
        self.is_handed_over.store(true, Ordering::Relaxed);
    }

    /// Whether a bridge was sent them.
    pub fn is_handed_over(&self) -> bool {
        self.is_handed_over.load(Ordering::Relaxed)
    }
}

/// Frames for the bridge.
#[derive(Debug)]
struct Round {
    aim: Aim,
    frames: Vec<Vec<u8>>,
    submission: Submission,
    answer: oneshot::Sender<Answer>,
}

/// What has become of frames.
#[derive(Debug)]
pub enum Answer {
    /// The bridge has taken them.
    Taken,
    /// It refuses one of them at least.
    Refused(io::Error),
    /// The connection broke before the bridge has answered, or the bridge hangs.
    Broken(io::Error),
}

/// A round that the bridge was told.
struct Told {
    batch: Batch,
    answer_due: Instant,
    refused: Option<io::Error>,
    answer: oneshot::Sender<Answer>,
}

impl PacketOuts {
    /// Sends packet-outs by this connection.
    pub fn over<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(connection: Connection<S>) -> PacketOuts {
        let (rounds, to_send) = mpsc::unbounded_channel();
        let mut task = JoinSet::new();
        task.spawn(async move { keep(connection, to_send).await });
        PacketOuts { rounds, _task: task }
    }

    /// The connection has not broken.
    pub fn is_open(&self) -> bool {
        !self.rounds.is_closed()
    }

    /// Sends frames into the bridge, in order: none of them if the answer is no longer awaited when their turn comes, and otherwise
    /// all, unless the connection breaks.
    pub fn send(
        &self,
        aim: Aim,
        frames: &[&[u8]],
        submission: &Submission,
    ) -> impl Future<Output = Answer> + use<> {
        let frames = frames.iter().map(|frame| frame.to_vec()).collect();
        let (answer, answered) = oneshot::channel();
        let _ = self.rounds.send(Round { aim, frames, submission: submission.clone(), answer });
        async { answered.await.unwrap_or_else(|_| Answer::Broken(io::ErrorKind::ConnectionAborted.into())) }
    }
}

/// Sends rounds and passes on the answers, until the connection breaks or an answer is overdue.
async fn keep<S: AsyncRead + AsyncWrite + Unpin>(
    mut connection: Connection<S>,
    mut rounds: mpsc::UnboundedReceiver<Round>,
) {
    let mut told: VecDeque<Told> = VecDeque::new();
    let broken = loop {
        let answer_due = told.front().map(|told| told.answer_due);
        let overdue = async {
            match answer_due {
                Some(due) => sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            round = rounds.recv() => {
                let Some(round) = round else { return };
                let more = std::iter::from_fn(|| rounds.try_recv().ok());
                std::iter::once(round).chain(more).for_each(|round| tell(&mut connection, round, &mut told));
            }
            reply = connection.reply() => match reply {
                Ok(reply) => heed(reply, &mut told),
                Err(error) => break error,
            },
            // After the answers: this process may have been stopped for a while.
            () = overdue => break io::ErrorKind::TimedOut.into(),
        }
        match timeout(ANSWER_TIMEOUT, connection.flush()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => break error,
            Err(_) => break io::ErrorKind::TimedOut.into(),
        }
    };
    rounds.close();
    let unsent = std::iter::from_fn(|| rounds.try_recv().ok()).map(|round| round.answer);
    for answer in told.into_iter().map(|told| told.answer).chain(unsent) {
        // Another error of the same kind: it is of all of them.
        let _ = answer.send(Answer::Broken(io::Error::new(broken.kind(), broken.to_string())));
    }
}

fn tell<S: AsyncRead + AsyncWrite + Unpin>(
    connection: &mut Connection<S>,
    round: Round,
    told: &mut VecDeque<Told>,
) {
    if round.answer.is_closed() {
        return;
    }
    match connection.queue_frames(round.aim, &round.frames) {
        Ok(batch) => {
            round.submission.hand_over();
            let (answer_due, refused) = (Instant::now() + ANSWER_TIMEOUT, None);
            told.push_back(Told { batch, answer_due, refused, answer: round.answer });
        }
        Err(error) => drop(round.answer.send(Answer::Refused(error))),
    }
}

/// Barriers are answered in their order, and errors before the barrier of their batch.
fn heed(reply: Reply, told: &mut VecDeque<Told>) {
    match reply {
        Reply::Barrier(xid) if told.front().is_some_and(|told| told.batch.ends_with(xid)) => {
            if let Some(told) = told.pop_front() {
                let answer = told.refused.map_or(Answer::Taken, Answer::Refused);
                let _ = told.answer.send(answer);
            }
        }
        Reply::Refusal(xid, error) => {
            if let Some(told) = told.iter_mut().find(|told| told.batch.has(xid)) {
                told.refused = Some(error);
            }
        }
        Reply::Barrier(_) | Reply::Other => {}
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    const HELLO: [u8; 16] = [4, 0, 0, 16, 0, 0, 0, 1, 0, 1, 0, 8, 0, 0, 0, 0x12];
    const PACKET_OUT: u8 = 13;
    const BARRIER_REQUEST: u8 = 20;
    const AIM: Aim = Aim::Table { in_port: 5 };

    /// A connection, and the bridge's side of it.
    async fn connected() -> (PacketOuts, DuplexStream) {
        let (ours, mut bridge) = duplex(4096);
        bridge.write_all(&HELLO).await.unwrap();
        let connection = Connection::over(ours).await.unwrap();
        assert_eq!(received(&mut bridge).await.0, 0, "HELLO");
        (PacketOuts::over(connection), bridge)
    }

    /// The kind and the id of the next message.
    async fn received(bridge: &mut DuplexStream) -> (u8, [u8; 4]) {
        let mut header = [0; 8];
        bridge.read_exact(&mut header).await.unwrap();
        let [_, kind, l0, l1, xid @ ..] = header;
        let mut body = vec![0; usize::from(u16::from_be_bytes([l0, l1])) - header.len()];
        bridge.read_exact(&mut body).await.unwrap();
        (kind, xid)
    }

    async fn say(bridge: &mut DuplexStream, kind: u8, xid: [u8; 4], body: &[u8]) {
        let message = [&[4, kind, 0, 8 + body.len() as u8][..], &xid, body].concat();
        bridge.write_all(&message).await.unwrap();
    }

    #[tokio::test]
    async fn rounds_are_sent_before_earlier_ones_are_answered_and_each_gets_its_own_answer() {
        let (packet_outs, mut bridge) = connected().await;
        let [first, second] =
            [1, 2].map(|frames| packet_outs.send(AIM, &vec![&[0; 60][..]; frames], &Submission::new(true)));
        let mut heard = Vec::new();
        for _ in 0..5 {
            heard.push(received(&mut bridge).await);
        }
        let kinds = heard.iter().map(|(kind, _)| *kind).collect::<Vec<u8>>();
        assert_eq!(kinds, [PACKET_OUT, BARRIER_REQUEST, PACKET_OUT, PACKET_OUT, BARRIER_REQUEST]);
        // OFPET_BAD_ACTION, OFPBAC_BAD_OUT_PORT, for the last frame.
        say(&mut bridge, 1, heard[3].1, &[0, 2, 0, 4]).await;
        say(&mut bridge, BARRIER_REQUEST + 1, heard[1].1, &[]).await;
        say(&mut bridge, BARRIER_REQUEST + 1, heard[4].1, &[]).await;
        assert!(matches!(first.await, Answer::Taken));
        let Answer::Refused(why) = second.await else { panic!("it is the second that is refused") };
        assert_eq!(why.to_string(), "OpenFlow error of type 2, code 4");
    }

    #[tokio::test]
    async fn a_round_that_is_cancelled_before_its_turn_is_not_sent() {
        let (packet_outs, mut bridge) = connected().await;
        let [cancelled, awaited] = [true; 2].map(Submission::new);
        drop(packet_outs.send(AIM, &[&[0; 60]], &cancelled));
        let answer = packet_outs.send(AIM, &[], &awaited);
        let (kind, xid) = received(&mut bridge).await;
        assert_eq!(kind, BARRIER_REQUEST);
        assert_eq!([cancelled, awaited].map(|submission| submission.is_handed_over()), [false, true]);
        say(&mut bridge, BARRIER_REQUEST + 1, xid, &[]).await;
        assert!(matches!(answer.await, Answer::Taken));
    }

    #[tokio::test(start_paused = true)]
    async fn a_bridge_that_does_not_answer_is_given_up_for_all_rounds() {
        let (packet_outs, _bridge) = connected().await;
        let began = Instant::now();
        let first = packet_outs.send(AIM, &[&[0; 60]], &Submission::new(true));
        tokio::time::sleep(ANSWER_TIMEOUT / 2).await;
        let second = packet_outs.send(AIM, &[&[0; 60]], &Submission::new(true));
        for answer in [first.await, second.await] {
            assert!(matches!(answer, Answer::Broken(why) if why.kind() == io::ErrorKind::TimedOut));
        }
        assert!(began.elapsed() < ANSWER_TIMEOUT * 3 / 2, "{:?}", began.elapsed());
        assert!(!packet_outs.is_open());
    }

    #[tokio::test]
    async fn a_connection_that_the_bridge_closes_is_not_open_and_its_rounds_are_told() {
        let (packet_outs, mut bridge) = connected().await;
        let answer = packet_outs.send(AIM, &[&[0; 60]], &Submission::new(true));
        received(&mut bridge).await;
        drop(bridge);
        assert!(matches!(answer.await, Answer::Broken(_)));
        assert!(!packet_outs.is_open());
        assert!(matches!(packet_outs.send(AIM, &[], &Submission::new(true)).await, Answer::Broken(_)));
    }
}
