//! An FDB entry with the guest's MAC on its port, for frames that do not enter by the port.

use std::collections::BTreeSet;
use std::io;

use super::WayError;
use crate::host::netlink::{Request, Socket};

// include/uapi/linux/neighbour.h
const NUD_REACHABLE: u16 = 0x02;
const NTF_MASTER: u8 = 0x04;
const NDA_LLADDR: u16 = 2;

/// Makes FDB entries for the senders of `frames` on `port`. Needs CAP_NET_ADMIN.
pub(super) async fn learn(port: u32, frames: &[&[u8]]) -> Result<(), WayError> {
    let needs = "CAP_NET_ADMIN";
    let failed = |error: io::Error| WayError::Kernel { doing: "make the FDB entry", error, needs };
    // The sender's address follows the destination's.
    let senders: BTreeSet<&[u8]> = frames.iter().filter_map(|frame| frame.get(6..12)).collect();
    let mut socket = Socket::open(0).map_err(failed)?;
    for sender in senders {
        let flags = libc::NLM_F_CREATE | libc::NLM_F_REPLACE;
        let entry =
            Request::new(libc::RTM_NEWNEIGH, flags as u16).fixed(&ndmsg(port)).attribute(NDA_LLADDR, sender);
        socket.request(entry, |_| {}).await.map_err(failed)?;
    }
    Ok(())
}

/// `struct ndmsg` of a dynamic entry in the FDB of the port's bridge.
fn ndmsg(port: u32) -> [u8; 12] {
    let mut message = [0; 12];
    message[0] = libc::AF_BRIDGE as u8;
    message[4..8].copy_from_slice(&port.to_ne_bytes());
    message[8..10].copy_from_slice(&NUD_REACHABLE.to_ne_bytes());
    message[10] = NTF_MASTER;
    message
}
