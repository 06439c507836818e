//! Asks the kernel behind which port a Linux bridge has learned an address (rtnetlink, `include/uapi/linux/neighbour.h`).

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
/// The length of `struct ndmsg`, and of `struct ifinfomsg`.
const NDMSG: usize = 12;
const IFINFOMSG: usize = 16;
/// So often is the table gone through where others change it meanwhile.
const MAX_DUMPS: u32 = 3;

/// What went wrong in asking the kernel.
#[derive(Debug, thiserror::Error)]
pub enum FdbError {
    /// No socket.
    #[error("cannot open a netlink socket: {0}")]
    Open(io::Error),
    /// The kernel refused.
    #[error("cannot read what the bridge with index {0} has learned: {1}")]
    Read(u32, io::Error),
    /// The table changed each time that it was gone through.
    #[error("cannot read what the bridge with index {0} has learned: it changes too often")]
    Changes(u32),
    /// There is no thread to ask on.
    #[error("cannot ask what bridges have learned: no thread can be started")]
    NoThread,
}

/// Asks on a thread of its own. The kernel takes its lock on all devices for an answer, inside send(2): while others delete
/// devices, this takes up to 14 ms.
#[derive(Debug, Clone, Default)]
pub struct Lookups(Arc<OnceLock<mpsc::UnboundedSender<Lookup>>>);

#[derive(Debug)]
struct Lookup {
    bridge: u32,
    mac: MacAddr,
    vlan: Option<u16>,
    answer: oneshot::Sender<Result<Option<u32>, FdbError>>,
}

impl Lookups {
    /// See [`on_linux_bridge`]. What is not waited for any more is not asked.
    ///
    /// The thread starts with the first question, in the network namespace of that moment, and with the capabilities.
    pub async fn on_linux_bridge(
        &self,
        bridge: u32,
        mac: MacAddr,
        vlan: Option<u16>,
    ) -> Result<Option<u32>, FdbError> {
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
            while let Some(Lookup { bridge, mac, vlan, answer }) = lookups.recv().await {
                if !answer.is_closed() {
                    let _ = answer.send(on_linux_bridge(bridge, mac, vlan).await);
                }
            }
        };
        if let Ok(runtime) = runtime {
            runtime.block_on(answers);
        }
    };
    // Without it the channel is closed, which each question is told.
    let _ = std::thread::Builder::new().name("fdb".into()).spawn(run);
    sender
}

/// The index of the port behind which the bridge has learned `mac`; addresses of the host itself are not learned ones.
///
/// A bridge that filters VLANs has a table for each of them, and is to be asked for one; any other has a table without
/// a VLAN, and is to be asked for that.
///
/// Needs no capability, and costs the same however many entries there are.
///
/// # Errors
///
/// The kernel does not answer.
pub async fn on_linux_bridge(bridge: u32, mac: MacAddr, vlan: Option<u16>) -> Result<Option<u32>, FdbError> {
    let mut header = [0; NDMSG];
    header[0] = libc::AF_BRIDGE as u8;
    let mut request = Request::new(libc::RTM_GETNEIGH, 0)
        .fixed(&header)
        .attribute(NDA_LLADDR, &mac.octets())
        .attribute(NDA_MASTER, &bridge.to_ne_bytes());
    if let Some(vlan) = vlan {
        request = request.attribute(NDA_VLAN, &vlan.to_ne_bytes());
    }
    let mut socket = Socket::open(0).map_err(FdbError::Open)?;
    let mut found = None;
    let asked = socket.request(request, |message| found = found.or(entry(message, bridge, mac, vlan))).await;
    match asked.as_ref().err().and_then(io::Error::raw_os_error).map(Errno::from_raw) {
        None => Ok(found),
        Some(Errno::ENOENT) => Ok(None),
        Some(Errno::EOPNOTSUPP) => walk(bridge, mac, vlan).await,
        Some(_) => asked.map(|()| found).map_err(|error| FdbError::Read(bridge, error)),
    }
}

/// What [`on_linux_bridge`] does on a kernel older than 5.0, which does not tell of a single entry: goes through all.
///
/// # Errors
///
/// The kernel does not answer, or others change the table all the time.
pub async fn walk(bridge: u32, mac: MacAddr, vlan: Option<u16>) -> Result<Option<u32>, FdbError> {
    let mut header = [0; IFINFOMSG];
    header[0] = libc::AF_BRIDGE as u8;
    // This form of the request is the one that kernels of any age limit to one bridge.
    let request = Request::new(libc::RTM_GETNEIGH, 0)
        .fixed(&header)
        .attribute(libc::IFLA_MASTER, &bridge.to_ne_bytes());
    let mut socket = Socket::open(0).map_err(FdbError::Open)?;
    for _ in 0..MAX_DUMPS {
        let mut found = None;
        let pick = |message: &Message<'_>| found = found.or(entry(message, bridge, mac, vlan));
        let dump = socket.dump(request.clone(), pick).await;
        match dump.map_err(|error| FdbError::Read(bridge, error))? {
            // An entry that was seen is there, whatever else was missed.
            Dump::Interrupted if found.is_none() => {}
            _ => return Ok(found),
        }
    }
    Err(FdbError::Changes(bridge))
}

/// The port of an entry, if it is in this bridge's table (its ports have tables of their own), for this address.
fn entry(message: &Message<'_>, bridge: u32, mac: MacAddr, vlan: Option<u16>) -> Option<u32> {
    let port = u32_at(message.body, 4)?;
    let local = u16_at(message.body, 8)? & NUD_PERMANENT != 0;
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
    is_it.then_some(port)
}
