//! An OpenFlow client for two things: packet-out (OpenFlow 1.0 section 5.3.6, OpenFlow 1.3 section 7.3.7), and Open vSwitch's
//! flow monitor (`include/openflow/nicira-ext.h`).

use std::io;
use std::path::Path;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;

const V1_0: u8 = 1;
const V1_3: u8 = 4;

const HELLO: u8 = 0;
const ERROR: u8 = 1;
const ECHO_REQUEST: u8 = 2;
const ECHO_REPLY: u8 = 3;
/// `OFPT_VENDOR` of OpenFlow 1.0: Open vSwitch's word that it pauses a monitor, or resumes it.
const VENDOR: u8 = 4;
const PACKET_OUT: u8 = 13;
/// `OFPT_STATS_REQUEST` and `OFPT_STATS_REPLY` of OpenFlow 1.0.
const STATS_REQUEST: u8 = 16;
const STATS_REPLY: u8 = 17;
const HEADER: usize = 8;
/// The number of bytes that are read at once, at least.
const CHUNK: usize = 4096;

// Reserved ports (OpenFlow 1.3 section 7.2.1).
const MIN_RESERVED: u32 = 0xffff_ff00;
const OFPP_TABLE: u32 = 0xffff_fff9;
const OFPP_CONTROLLER: u32 = 0xffff_fffd;

/// `OFPHET_VERSIONBITMAP` of our HELLO: versions 1.0 and 1.3.
const VERSIONS: u32 = 1 << V1_0 | 1 << V1_3;

/// The body of a request for a monitor, without a first listing and without actions: `struct nicira10_stats_msg` with the vendor's
/// number and `NXST_FLOW_MONITOR`, then `struct nx_flow_monitor_request` with the flags `NXFMF_ADD`, `NXFMF_DELETE` and
/// `NXFMF_MODIFY`, for every port (`OFPP_NONE`), every table (255) and every match (of length 0).
#[rustfmt::skip]
const MONITOR_REQUEST: [u8; 32] = [
    0xff, 0xff,                 // OFPST_VENDOR
    0, 0,                       // flags
    0, 0, 0x23, 0x20,           // NX_VENDOR_ID
    0, 0, 0, 2,                 // NXST_FLOW_MONITOR
    0, 0, 0, 0,
    0, 0, 0, 1,                 // id
    0, 2 | 4 | 8,               // flags
    0xff, 0xff,                 // out_port
    0, 0,                       // match_len
    0xff,                       // table_id
    0, 0, 0, 0, 0,
];

/// Where a packet-out goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Aim {
    /// To the flow table, as received by this port.
    Table {
        /// The port's OpenFlow number.
        in_port: u32,
    },
    /// Out of this port, past the flow table.
    Port(u32),
}

/// A connection to a bridge's management socket.
#[derive(Debug)]
pub struct Connection<S = UnixStream> {
    stream: S,
    version: u8,
    xid: u32,
    /// Messages that are to be sent.
    outgoing: Vec<u8>,
    /// What was received of the next messages.
    incoming: Vec<u8>,
}

/// The transaction ids of some messages and of the barrier after them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Batch {
    first: u32,
    barrier: u32,
}

/// What a bridge says about batches.
#[derive(Debug)]
pub(super) enum Reply {
    /// It has taken all messages before the barrier of this id.
    Barrier(u32),
    /// It refuses the message of this id.
    Refusal(u32, io::Error),
    /// Something else.
    Other,
}

impl Batch {
    /// Whether this barrier is its own.
    pub(super) fn ends_with(self, barrier: u32) -> bool {
        self.barrier == barrier
    }

    /// Whether this message is one of it.
    pub(super) fn has(self, xid: u32) -> bool {
        xid.wrapping_sub(self.first) <= self.barrier.wrapping_sub(self.first)
    }
}

struct Message {
    kind: u8,
    xid: u32,
    body: Vec<u8>,
}

impl Connection {
    /// Connects, and agrees on a version.
    pub async fn open(socket: &Path) -> io::Result<Self> {
        Self::over(UnixStream::connect(socket).await?).await
    }

    /// Connects, and asks for a notification of each change to the flow table: for [`Connection::flow_change`].
    ///
    /// # Errors
    ///
    /// Where the bridge does not speak OpenFlow 1.0, too (its `protocols`).
    pub async fn open_for_monitor(socket: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(socket).await?;
        let mut connection = Self::negotiate(stream, V1_0, 1 << V1_0).await?;
        connection.queue(STATS_REQUEST, &MONITOR_REQUEST);
        connection.flush().await?;
        connection.flow_change().await?;
        Ok(connection)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// Agrees on a version over this stream.
    pub async fn over(stream: S) -> io::Result<Self> {
        Self::negotiate(stream, V1_3, VERSIONS).await
    }

    /// The first time: the bridge has granted the monitor. Then: the flow table has changed.
    pub async fn flow_change(&mut self) -> io::Result<()> {
        loop {
            self.flush().await?;
            let (_, message) = self.receive().await?;
            match message.kind {
                // A monitor that was paused may have missed changes.
                STATS_REPLY | VENDOR => return Ok(()),
                ERROR => return Err(refusal(&message.body)),
                ECHO_REQUEST => self.echo(&message),
                _ => {}
            }
        }
    }

    async fn negotiate(stream: S, version: u8, versions: u32) -> io::Result<Self> {
        let (outgoing, incoming) = (Vec::new(), Vec::new());
        let mut connection = Connection { stream, version, xid: 0, outgoing, incoming };
        let mut bitmap = vec![0, 1, 0, 8];
        bitmap.extend(versions.to_be_bytes());
        connection.queue(HELLO, &bitmap);
        connection.flush().await?;
        let (version, theirs) = connection.receive().await?;
        if theirs.kind != HELLO {
            return Err(invalid("the bridge does not begin with HELLO"));
        }
        connection.version =
            common_version(version, &theirs.body, versions).ok_or_else(|| match versions {
                VERSIONS => invalid("the bridge speaks neither OpenFlow 1.0 nor 1.3"),
                _ => invalid("the bridge does not speak OpenFlow 1.0"),
            })?;
        Ok(connection)
    }

    /// Queues frames for the bridge, and a barrier.
    ///
    /// The bridge reports neither a missing port nor a frame that its flows drop.
    ///
    /// # Errors
    ///
    /// The bridge's version of OpenFlow has no such port; nothing is queued.
    pub(super) fn queue_frames(&mut self, aim: Aim, frames: &[Vec<u8>]) -> io::Result<Batch> {
        let bodies = frames.iter().map(|frame| packet_out(self.version, aim, frame));
        let bodies: Vec<Vec<u8>> = bodies.collect::<io::Result<_>>()?;
        let first = self.xid.wrapping_add(1);
        bodies.iter().for_each(|body| self.queue(PACKET_OUT, body));
        self.queue(self.barrier_kind(), &[]);
        Ok(Batch { first, barrier: self.xid })
    }

    /// Sends what is queued. If this is cancelled, it goes on the next time.
    pub(super) async fn flush(&mut self) -> io::Result<()> {
        while !self.outgoing.is_empty() {
            let sent = self.stream.write(&self.outgoing).await?;
            if sent == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            self.outgoing.drain(..sent);
        }
        Ok(())
    }

    /// The bridge's next message. May queue an answer. Cancel safe.
    pub(super) async fn reply(&mut self) -> io::Result<Reply> {
        let (_, message) = self.receive().await?;
        Ok(match message.kind {
            ERROR => Reply::Refusal(message.xid, refusal(&message.body)),
            kind if kind == self.barrier_kind() + 1 => Reply::Barrier(message.xid),
            ECHO_REQUEST => {
                self.echo(&message);
                Reply::Other
            }
            _ => Reply::Other,
        })
    }

    /// Returns when the bridge has answered a message.
    pub async fn barrier(&mut self) -> io::Result<()> {
        self.queue(self.barrier_kind(), &[]);
        let sent = self.xid;
        loop {
            self.flush().await?;
            if matches!(self.reply().await?, Reply::Barrier(xid) if xid == sent) {
                return Ok(());
            }
        }
    }

    /// OFPT_BARRIER_REQUEST; the reply is the next one.
    fn barrier_kind(&self) -> u8 {
        if self.version == V1_0 { 18 } else { 20 }
    }

    /// The bridge's side of [`Connection::barrier`].
    #[cfg(test)]
    pub(super) async fn answer_barrier(&mut self) {
        let (_, request) = self.receive().await.unwrap();
        assert_eq!(request.kind, self.barrier_kind());
        self.queue_as(request.kind + 1, request.xid, &[]);
        self.flush().await.unwrap();
    }

    fn echo(&mut self, request: &Message) {
        self.queue_as(ECHO_REPLY, request.xid, &request.body);
    }

    fn queue(&mut self, kind: u8, body: &[u8]) {
        self.xid = self.xid.wrapping_add(1);
        self.queue_as(kind, self.xid, body);
    }

    fn queue_as(&mut self, kind: u8, xid: u32, body: &[u8]) {
        self.outgoing.extend([self.version, kind]);
        self.outgoing.extend(((HEADER + body.len()) as u16).to_be_bytes());
        self.outgoing.extend(xid.to_be_bytes());
        self.outgoing.extend(body);
    }

    /// The next message, and its version. Cancel safe.
    async fn receive(&mut self) -> io::Result<(u8, Message)> {
        loop {
            if let Some(message) = take_message(&mut self.incoming)? {
                return Ok(message);
            }
            self.incoming.reserve(CHUNK);
            if self.stream.read_buf(&mut self.incoming).await? == 0 {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "the bridge has closed the connection",
                ));
            }
        }
    }
}

/// Takes the first message of these bytes, if it is whole.
fn take_message(bytes: &mut Vec<u8>) -> io::Result<Option<(u8, Message)>> {
    let Some(&[version, kind, l0, l1, x0, x1, x2, x3]) = bytes.first_chunk::<HEADER>() else {
        return Ok(None);
    };
    let length = usize::from(u16::from_be_bytes([l0, l1]));
    if length < HEADER {
        return Err(invalid("a message is too short"));
    }
    if bytes.len() < length {
        return Ok(None);
    }
    let body = bytes[HEADER..length].to_vec();
    bytes.drain(..length);
    Ok(Some((version, Message { kind, xid: u32::from_be_bytes([x0, x1, x2, x3]), body })))
}

/// The highest of `versions` that the peer supports, too; `version` and `body` are those of its HELLO.
fn common_version(version: u8, body: &[u8], versions: u32) -> Option<u8> {
    // Without a bitmap, HELLO means every version up to its own.
    let theirs = match body {
        [0, 1, _, _, bitmap @ ..] if bitmap.len() >= 4 => {
            u32::from_be_bytes([bitmap[0], bitmap[1], bitmap[2], bitmap[3]])
        }
        _ => (2u32.checked_shl(version.into()).unwrap_or_default()).wrapping_sub(1),
    };
    [V1_3, V1_0].into_iter().find(|v| theirs & versions & (1 << v) != 0)
}

/// The body of a packet-out whose single action is an output.
///
/// To the table, never NORMAL: NORMAL would bypass the flows that keep a guest from spoofing.
fn packet_out(version: u8, aim: Aim, frame: &[u8]) -> io::Result<Vec<u8>> {
    let (in_port, output) = match aim {
        Aim::Table { in_port } => (in_port, OFPP_TABLE),
        Aim::Port(port) => (OFPP_CONTROLLER, port),
    };
    // OFP_NO_BUFFER.
    let mut body = vec![0xff; 4];
    if version == V1_0 {
        body.extend(port_of_v1_0(in_port)?);
        // actions_len; then OFPAT_OUTPUT, its length, the port, max_len.
        body.extend([0, 8, 0, 0, 0, 8]);
        body.extend(port_of_v1_0(output)?);
        body.extend([0, 0]);
    } else {
        body.extend(in_port.to_be_bytes());
        body.extend([0, 16, 0, 0, 0, 0, 0, 0]);
        body.extend([0, 0, 0, 16]);
        body.extend(output.to_be_bytes());
        body.extend([0; 8]);
    }
    body.extend(frame);
    Ok(body)
}

/// A port number of 16 bits. The reserved ones end in the same bits.
fn port_of_v1_0(port: u32) -> io::Result<[u8; 2]> {
    let is_reserved = port >= MIN_RESERVED;
    match u16::try_from(port) {
        Ok(port) => Ok(port.to_be_bytes()),
        Err(_) if is_reserved => Ok((port as u16).to_be_bytes()),
        Err(_) => Err(invalid("OpenFlow 1.0 has no such port")),
    }
}

fn refusal(body: &[u8]) -> io::Error {
    let number = |at: usize| body.get(at..at + 2).map_or(0, |b| u16::from_be_bytes([b[0], b[1]]));
    io::Error::other(format!("OpenFlow error of type {}, code {}", number(0), number(2)))
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_common_version_is_taken() {
        // Open vSwitch's HELLO with protocols=[]: 1.0 to 1.5.
        assert_eq!(common_version(6, &[0, 1, 0, 8, 0, 0, 0, 0x7e], VERSIONS), Some(V1_3));
        assert_eq!(common_version(1, &[], VERSIONS), Some(V1_0));
        assert_eq!(common_version(4, &[0, 1, 0, 8, 0, 0, 0, 0x10], VERSIONS), Some(V1_3));
        assert_eq!(common_version(6, &[0, 1, 0, 8, 0, 0, 0, 0x60], VERSIONS), None, "1.4 and 1.5 only");
        assert_eq!(common_version(255, &[], VERSIONS), Some(V1_3), "every version up to 255");
        assert_eq!(common_version(6, &[0, 1, 0, 8, 0, 0, 0, 0x7e], 1 << V1_0), Some(V1_0));
    }

    #[test]
    fn packet_out_goes_to_the_table() {
        let frame = [0xaa, 0xbb];
        assert_eq!(
            packet_out(V1_0, Aim::Table { in_port: 5 }, &frame).unwrap(),
            [0xff, 0xff, 0xff, 0xff, 0, 5, 0, 8, 0, 0, 0, 8, 0xff, 0xf9, 0, 0, 0xaa, 0xbb]
        );
        let body = packet_out(V1_3, Aim::Table { in_port: 5 }, &frame).unwrap();
        assert_eq!((body.len(), &body[20..24]), (34, &[0xff, 0xff, 0xff, 0xf9][..]));
    }

    #[test]
    fn packet_out_goes_to_one_port_past_the_table() {
        let frame = [0xaa, 0xbb];
        assert_eq!(
            packet_out(V1_0, Aim::Port(5), &frame).unwrap(),
            [0xff, 0xff, 0xff, 0xff, 0xff, 0xfd, 0, 8, 0, 0, 0, 8, 0, 5, 0, 0, 0xaa, 0xbb]
        );
        let body = packet_out(V1_3, Aim::Port(5), &frame).unwrap();
        assert_eq!((&body[4..8], &body[20..24]), (&[0xff, 0xff, 0xff, 0xfd][..], &[0, 0, 0, 5][..]));
        assert!(packet_out(V1_0, Aim::Port(0x1_0000), &frame).is_err());
    }
}
