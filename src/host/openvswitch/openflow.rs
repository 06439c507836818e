//! An OpenFlow client for two things: packet-out (OpenFlow 1.0 section 5.3.6, OpenFlow 1.3 section 7.3.7), and Open vSwitch's
//! flow monitor (`include/openflow/nicira-ext.h`).

use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

use nix::errno::Errno;
use nix::sys::socket::MsgFlags;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
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
    stream: BufReader<S>,
    version: u8,
    xid: u32,
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
        let request = connection.message(STATS_REQUEST, &MONITOR_REQUEST);
        connection.stream.write_all(&request).await?;
        connection.flow_change().await?;
        Ok(connection)
    }

    /// Whether the bridge has not closed it, without asking the bridge.
    pub fn is_open(&self) -> bool {
        let unread = nix::sys::socket::recv(
            self.stream.get_ref().as_raw_fd(),
            &mut [0],
            MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT,
        );
        matches!(unread, Ok(1..) | Err(Errno::EAGAIN))
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
            let (_, message) = self.receive().await?;
            match message.kind {
                // A monitor that was paused may have missed changes.
                STATS_REPLY | VENDOR => return Ok(()),
                ERROR => return Err(refusal(&message.body)),
                ECHO_REQUEST => self.answer(&message).await?,
                _ => {}
            }
        }
    }

    async fn negotiate(stream: S, version: u8, versions: u32) -> io::Result<Self> {
        let mut connection = Connection { stream: BufReader::new(stream), version, xid: 0 };
        let mut bitmap = vec![0, 1, 0, 8];
        bitmap.extend(versions.to_be_bytes());
        let hello = connection.message(HELLO, &bitmap);
        connection.stream.write_all(&hello).await?;
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

    /// Sends frames into the bridge, and waits until it has accepted them.
    ///
    /// The bridge reports neither a missing port nor a frame that its flows drop.
    ///
    /// A connection on which this was cancelled must be dropped: it may have sent half a message.
    pub async fn packet_out(&mut self, aim: Aim, frames: &[&[u8]]) -> io::Result<()> {
        let mut batch = Vec::new();
        for frame in frames {
            let body = packet_out(self.version, aim, frame)?;
            batch.extend(self.message(PACKET_OUT, &body));
        }
        self.send_and_wait(batch).await
    }

    /// Returns when the bridge has answered a message.
    ///
    /// A connection on which this was cancelled must be dropped.
    pub async fn barrier(&mut self) -> io::Result<()> {
        self.send_and_wait(Vec::new()).await
    }

    /// Sends these messages, and waits until the bridge has taken all of them.
    async fn send_and_wait(&mut self, mut batch: Vec<u8>) -> io::Result<()> {
        let barrier = self.barrier_kind();
        batch.extend(self.message(barrier, &[]));
        self.stream.write_all(&batch).await?;
        let sent = self.xid;
        let mut refused = None;
        loop {
            let (_, message) = self.receive().await?;
            match message.kind {
                ERROR => refused = Some(refusal(&message.body)),
                ECHO_REQUEST => self.answer(&message).await?,
                kind if kind == barrier + 1 && message.xid == sent => return refused.map_or(Ok(()), Err),
                _ => {}
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
        let mut reply = self.message(request.kind + 1, &[]);
        reply[4..HEADER].copy_from_slice(&request.xid.to_be_bytes());
        self.stream.write_all(&reply).await.unwrap();
    }

    async fn answer(&mut self, echo: &Message) -> io::Result<()> {
        let mut reply = self.message(ECHO_REPLY, &echo.body);
        reply[4..HEADER].copy_from_slice(&echo.xid.to_be_bytes());
        self.stream.write_all(&reply).await
    }

    fn message(&mut self, kind: u8, body: &[u8]) -> Vec<u8> {
        self.xid = self.xid.wrapping_add(1);
        let mut message = vec![self.version, kind];
        message.extend(((HEADER + body.len()) as u16).to_be_bytes());
        message.extend(self.xid.to_be_bytes());
        message.extend(body);
        message
    }

    async fn receive(&mut self) -> io::Result<(u8, Message)> {
        let mut header = [0; HEADER];
        self.stream.read_exact(&mut header).await?;
        let [version, kind, l0, l1, xid @ ..] = header;
        let length = usize::from(u16::from_be_bytes([l0, l1]));
        let length = length.checked_sub(HEADER).ok_or_else(|| invalid("a message is too short"))?;
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body).await?;
        let xid = u32::from_be_bytes(xid);
        Ok((version, Message { kind, xid, body }))
    }
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
