//! Has a guest announce itself: libvirt 12.5 and newer pass that to QEMU (`announce-self`), which tells a virtio NIC's driver. A Linux
//! guest then announces every address that it has. QEMU itself sends a RARP for the NIC.

use std::ffi::CStr;

use virt::connect::Connect;

use super::{LibvirtError, open, open_for_writing};
use crate::host::sys::libvirt::{announce_interface, can_announce_interface};

/// The first libvirt with `virDomainAnnounceInterface()`, as libvirt numbers its versions.
const SINCE: u32 = 12_005_000;
/// At once, and 0.6 s and 2.2 s later: on both sides of 1 s, within which Linux ignores a second change of a neighbour (`locktime`).
/// QEMU has one timer for all NICs of a guest: a request for another NIC ends the repetitions, not the first announcement.
const TIMES: [(&CStr, u32); 4] = [(c"rounds", 3), (c"initial", 600), (c"step", 1000), (c"max", 2000)];

/// Has the guest with this UUID announce a NIC, by the host's end of it or its MAC address: libvirt's URI, the UUID, the NIC.
///
/// Blocks. A guest whose monitor hangs may block it for ever.
pub(crate) type AskGuest = fn(Option<&str>, &str, &str) -> Result<(), LibvirtError>;

/// See [`AskGuest`]. The read-write connection that it takes is closed again.
pub(crate) fn ask_guest(uri: Option<&str>, uuid: &str, nic: &str) -> Result<(), LibvirtError> {
    if !can_announce_interface() {
        // libvirt is not asked for write access in vain.
        return Err(LibvirtError::CannotAsk(own_version()));
    }
    let connection = open_for_writing(uri)?;
    is_offered(&connection)?;
    let guest = connection.lookup_domain_by_uuid_string(uuid).map_err(LibvirtError::Guest)?;
    let asked = announce_interface(&guest, nic, &TIMES).ok_or(LibvirtError::CannotAsk(own_version()))?;
    asked.map_err(LibvirtError::Guest)
}

/// Whether the libvirt at this URI can have a guest announce itself.
pub(super) fn can_ask(uri: Option<&str>) -> Result<(), LibvirtError> {
    is_offered(&open(uri)?)
}

/// Whether this program's libvirt and the one that it is connected to can ask a guest.
fn is_offered(connection: &Connect) -> Result<(), LibvirtError> {
    let version = connection.lib_version().map_err(LibvirtError::Guest)?;
    match can_announce_interface() && version >= SINCE {
        true => Ok(()),
        false => Err(LibvirtError::CannotAsk(version.min(own_version()))),
    }
}

fn own_version() -> u32 {
    Connect::version().unwrap_or_default()
}
