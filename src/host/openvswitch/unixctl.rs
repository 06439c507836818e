//! A client of ovs-vswitchd's control socket, which ovs-appctl(8) uses, too (JSON-RPC; Open vSwitch's `lib/unixctl.c`).

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::timeout;

use super::jsonrpc::Connection;
use crate::proof::ofproto_flow;
use crate::proof::ofproto_trace::{self, Verdict};

/// Open vSwitch answers from its main loop, usually within a millisecond.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);
const DAEMON: &str = "ovs-vswitchd";
/// A process id has fewer digits.
const MAX_PID_FILE: u64 = 32;
/// What `ofproto/trace` is told where each connection tracker on the way takes the frame for invalid; more are not met.
const INVALID: [&str; 8] =
    ["--ct-next", "trk,inv", "--ct-next", "trk,inv", "--ct-next", "trk,inv", "--ct-next", "trk,inv"];
/// The length of a quoted refusal, in characters.
const MAX_QUOTE: usize = 200;

/// Why ovs-vswitchd cannot be asked.
#[derive(Debug, thiserror::Error)]
pub enum UnixctlError {
    /// Its process id is unknown.
    #[error("cannot find the control socket of ovs-vswitchd by {0}: {1}; is it running?")]
    PidFile(PathBuf, io::Error),
    /// The socket refuses the connection.
    #[error("cannot connect to {0}: {1}")]
    Connect(PathBuf, io::Error),
    /// The connection broke.
    #[error("lost the connection to {0}: {1}")]
    Lost(PathBuf, io::Error),
    /// The main loop of ovs-vswitchd is busy or hangs.
    #[error("no answer from {0} within {ANSWER_TIMEOUT:?}")]
    NoAnswer(PathBuf),
    /// The command cannot be carried out.
    #[error("{0} refuses {1}: {2}")]
    Refused(PathBuf, String, String),
    /// The answer cannot be read.
    #[error("{0} gives an unreadable answer to {1}")]
    Answer(PathBuf, String),
    /// Open vSwitch would take the name for an option, or the frame is truncated: nothing was asked.
    #[error("Open vSwitch cannot be asked about {0}")]
    Question(&'static str),
}

/// Executes a command in ovs-vswitchd, and returns what ovs-appctl(8) would print.
///
/// `directory` has Open vSwitch's sockets and pid files; usually it is `/run/openvswitch`. Each argument is passed as one,
/// but a command may take one that begins with a hyphen for an option.
pub async fn call(directory: &Path, command: &str, arguments: &[&str]) -> Result<String, UnixctlError> {
    let socket = socket(directory)?;
    let answer = timeout(ANSWER_TIMEOUT, ask(&socket, command, arguments)).await;
    let mut answer = answer.map_err(|_| UnixctlError::NoAnswer(socket.clone()))??;
    match (answer["result"].take(), answer["error"].take()) {
        (Value::String(text), Value::Null) => Ok(text),
        (Value::Null, Value::String(why)) => {
            Err(UnixctlError::Refused(socket, command.into(), one_line(&why)))
        }
        _ => Err(UnixctlError::Answer(socket, command.into())),
    }
}

/// What Open vSwitch would do with a frame received by the bridge's OpenFlow port `in_port`; it neither sends the frame nor
/// learns from it.
pub async fn trace(
    directory: &Path,
    bridge: &str,
    in_port: u32,
    frame: &[u8],
) -> Result<Verdict, UnixctlError> {
    let flow = ofproto_flow::flow(in_port, frame).ok_or(UnixctlError::Question("a truncated frame"))?;
    let states = if ofproto_flow::is_untracked(frame) { &INVALID[..] } else { &[] };
    let trace = call(directory, "ofproto/trace", &[&[name(bridge)?, &flow], states].concat()).await?;
    let ports = call(directory, "dpif/show", &[]).await?;
    ofproto_trace::verdict(&trace, bridge, &ports)
        .ok_or_else(|| UnixctlError::Answer(directory.join(DAEMON), "ofproto/trace".into()))
}

/// The bridge's FDB, as `fdb/show` tells it.
pub async fn fdb(directory: &Path, bridge: &str) -> Result<String, UnixctlError> {
    call(directory, "fdb/show", &[name(bridge)?]).await
}

/// Refuses a name that would be an option of `ofproto/trace`, some of which send the frame.
fn name(bridge: &str) -> Result<&str, UnixctlError> {
    match bridge.starts_with('-') {
        true => Err(UnixctlError::Question("a bridge whose name begins with a hyphen")),
        false => Ok(bridge),
    }
}

/// The control socket, whose name contains the process id.
fn socket(directory: &Path) -> Result<PathBuf, UnixctlError> {
    let path = directory.join(DAEMON).with_extension("pid");
    let read = || -> io::Result<u32> {
        let mut text = String::new();
        File::open(&path)?.take(MAX_PID_FILE).read_to_string(&mut text)?;
        text.trim()
            .parse()
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "it contains no process id"))
    };
    let pid = read().map_err(|error| UnixctlError::PidFile(path.clone(), error))?;
    Ok(directory.join(format!("{DAEMON}.{pid}.ctl")))
}

async fn ask(socket: &Path, command: &str, arguments: &[&str]) -> Result<Value, UnixctlError> {
    let lost = |error| UnixctlError::Lost(socket.into(), error);
    let opened = Connection::open(socket).await;
    let mut connection = opened.map_err(|error| UnixctlError::Connect(socket.into(), error))?;
    let id = json!(0);
    let request = json!({"id": id, "method": command, "params": arguments});
    connection.send(&request).await.map_err(lost)?;
    loop {
        let message = connection.receive().await.map_err(lost)?;
        if message.get("id") == Some(&id) {
            return Ok(message);
        }
    }
}

fn one_line(text: &str) -> String {
    let words = text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join(" ").chars().take(MAX_QUOTE).collect()
}
