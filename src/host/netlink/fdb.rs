//! Looks up the port of an address in a Linux bridge's FDB (rtnetlink, `include/uapi/linux/neighbour.h`).

use std::io;
use std::sync::{Arc, OnceLock};

use nix::errno::Errno;
use pnet_base::MacAddr;
use tokio::sync::{mpsc, oneshot};

use super::{Dump, Message, Request, Socket, attributes, u16_at, u32_at};

// include/uapi/linux/neighbour.h
const NDA_LLADDR: u16 = 2;
const NDA_VLAN: u16 = 5;
const NDA_MASTER: u16 = 9;
const NUD_PERMANENT: u16 = 0x80;
const NUD_NOARP: u16 = 0x40;
const NTF_EXT_LEARNED: u8 = 0x10;
/// The length of `struct ndmsg`, and of `struct ifinfomsg`.
const NDMSG: usize = 12;
const IFINFOMSG: usize = 16;
/// The number of dumps of a table that changes during each of them.
const MAX_DUMPS: u32 = 3;

/// Why an FDB cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum FdbError {
    /// The socket cannot be opened.
    #[error("cannot open a netlink socket: {0}")]
    Open(io::Error),
    /// The kernel refused.
    #[error("cannot read what the bridge with index {0} has learned: {1}")]
    Read(u32, io::Error),
    /// The table changed during each dump.
    #[error("cannot read what the bridge with index {0} has learned: it changes too often")]
    Changes(u32),
    /// No thread can be started.
    #[error("cannot read what bridges have learned: no thread can be started")]
    NoThread,
}

/// An entry of an FDB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// The ifindex of the port.
    pub port: u32,
    /// The bridge has learned it from a frame: it is neither static nor another program's (`extern_learn`).
    pub is_learned: bool,
}

/// Look-ups on a thread of their own: the kernel takes its lock on all devices for an answer, inside send(2). While other
/// programs delete devices, this takes up to 14 ms.
#[derive(Debug, Clone, Default)]
pub struct Lookups(Arc<OnceLock<mpsc::UnboundedSender<Lookup>>>);

#[derive(Debug)]
struct Lookup {
    bridge: u32,
    mac: MacAddr,
    vlan: Option<u16>,
    answer: oneshot::Sender<Result<Option<Entry>, FdbError>>,
}

impl Lookups {
    /// As [`on_linux_bridge`]. A look-up whose result is no longer awaited is skipped.
    ///
    /// The thread starts with the first look-up, in the network namespace and with the capabilities of that moment.
    pub async fn on_linux_bridge(
        &self,
        bridge: u32,
        mac: MacAddr,
        vlan: Option<u16>,
    ) -> Result<Option<Entry>, FdbError> {
        let (answer, answered) = oneshot::channel();
        let _ = self.0.get_or_init(start).send(Lookup { bridge, mac, vlan, answer });
        answered.await.unwrap_or(Err(FdbError::NoThread))
    }
}

fn start() -> mpsc::UnboundedSender<Lookup> {
    let (sender, mut lookups) = mpsc::unbounded_channel::<Lookup>();
    let run = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
        let answers = async {
            let mut socket = None;
            while let Some(Lookup { bridge, mac, vlan, answer }) = lookups.recv().await {
                if !answer.is_closed() {
                    let _ = answer.send(look_up(&mut socket, bridge, mac, vlan).await);
                }
            }
        };
        if let Ok(runtime) = runtime {
            runtime.block_on(answers);
        }
    };
    // If no thread can be started the channel is closed, which each look-up reports.
    let _ = std::thread::Builder::new().name("fdb".into()).spawn(run);
    sender
}

/// The entry for `mac` in the bridge's FDB. Addresses of the host itself do not count.
///
/// A bridge that filters VLANs has a table per VLAN, so `vlan` is required; any other bridge has one table without a VLAN.
///
/// Needs no capability. The cost does not depend on the number of entries.
///
/// # Errors
///
/// The kernel does not answer.
pub async fn on_linux_bridge(
    bridge: u32,
    mac: MacAddr,
    vlan: Option<u16>,
) -> Result<Option<Entry>, FdbError> {
    look_up(&mut None, bridge, mac, vlan).await
}

/// The same by a socket that is kept for the next look-up, unless it fails.
async fn look_up(
    kept: &mut Option<Socket>,
    bridge: u32,
    mac: MacAddr,
    vlan: Option<u16>,
) -> Result<Option<Entry>, FdbError> {
    let mut header = [0; NDMSG];
    header[0] = libc::AF_BRIDGE as u8;
    let mut request = Request::new(libc::RTM_GETNEIGH, 0)
        .fixed(&header)
        .attribute(NDA_LLADDR, &mac.octets())
        .attribute(NDA_MASTER, &bridge.to_ne_bytes());
    if let Some(vlan) = vlan {
        request = request.attribute(NDA_VLAN, &vlan.to_ne_bytes());
    }
    let mut socket = kept.take().map_or_else(|| Socket::open(0), Ok).map_err(FdbError::Open)?;
    let mut found = None;
    let asked = socket.request(request, |message| found = found.or(entry(message, bridge, mac, vlan))).await;
    match asked.as_ref().err().and_then(io::Error::raw_os_error).map(Errno::from_raw) {
        Some(Errno::EOPNOTSUPP) => return walk(bridge, mac, vlan).await,
        None | Some(Errno::ENOENT) => *kept = Some(socket),
        Some(_) => return asked.map(|()| found).map_err(|error| FdbError::Read(bridge, error)),
    }
    Ok(found)
}

/// [`on_linux_bridge`] for kernels before 5.0, which cannot look up a single entry: reads the whole table.
///
/// # Errors
///
/// The kernel does not answer, or the table changes during each dump.
pub async fn walk(bridge: u32, mac: MacAddr, vlan: Option<u16>) -> Result<Option<Entry>, FdbError> {
    let mut header = [0; IFINFOMSG];
    header[0] = libc::AF_BRIDGE as u8;
    // The form of the request that kernels of any age restrict to one bridge.
    let request = Request::new(libc::RTM_GETNEIGH, 0)
        .fixed(&header)
        .attribute(libc::IFLA_MASTER, &bridge.to_ne_bytes());
    let mut socket = Socket::open(0).map_err(FdbError::Open)?;
    for _ in 0..MAX_DUMPS {
        let mut found = None;
        let pick = |message: &Message<'_>| found = found.or(entry(message, bridge, mac, vlan));
        let dump = socket.dump(request.clone(), pick).await;
        match dump.map_err(|error| FdbError::Read(bridge, error))? {
            // An entry that was seen exists, whatever the dump missed.
            Dump::Interrupted if found.is_none() => {}
            _ => return Ok(found),
        }
    }
    Err(FdbError::Changes(bridge))
}

/// An entry for this address, if it is in this bridge's table (its ports have tables of their own).
pub fn entry(message: &Message<'_>, bridge: u32, mac: MacAddr, vlan: Option<u16>) -> Option<Entry> {
    let (port, state) = (u32_at(message.body, 4)?, u16_at(message.body, 8)?);
    let is_external = message.body.get(10)? & NTF_EXT_LEARNED != 0;
    let local = state & NUD_PERMANENT != 0;
    let (mut whose, mut master, mut of) = (None, None, None);
    for (kind, value) in attributes(message.body.get(NDMSG..)?) {
        match kind {
            NDA_LLADDR => whose = Some(value),
            NDA_MASTER => master = u32_at(value, 0),
            NDA_VLAN => of = u16_at(value, 0),
            _ => {}
        }
    }
    let is_it = message.kind == libc::RTM_NEWNEIGH
        && !local
        && (whose, master, of) == (Some(&mac.octets()), Some(bridge), vlan);
    is_it.then_some(Entry { port, is_learned: state & NUD_NOARP == 0 && !is_external })
}
