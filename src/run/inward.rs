//! The way to a guest, for what it alone may hear.

use crate::announcement::injection::{self, Inward};
use crate::guest::target::Target;
use crate::path::readiness::Assessment;
use crate::run::host::Host;

/// Why a guest cannot be reached.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unreached {
    /// Its port is not there, or not yet.
    #[error("its port has no device and no OpenFlow number")]
    NoPort,
    /// The device has gone.
    #[error("{0} is gone")]
    Gone(String),
    /// It may be another device than a guest's: an uplink, or an internal port of Open vSwitch.
    #[error("what {0} transmits may go to the network, not to a guest")]
    NotAGuests(String),
}

/// The way to the guest.
pub(crate) fn to_guest(target: &Target, host: &Host, seen: &Assessment) -> Result<Inward, Unreached> {
    let to = injection::inward(seen).ok_or(Unreached::NoPort)?;
    let device = match &to {
        Inward::Packet(device) => device,
        _ => return Ok(to),
    };
    let links = host.links.borrow();
    let link = links.get(device.ifindex).ok_or_else(|| Unreached::Gone(device.name.clone()))?;
    let ovs = host.ovs.borrow();
    // The internal ports of Open vSwitch's userspace datapath are taps, too.
    let is_internal = ovs.ovs.named(&link.name).is_some_and(|port| port.interface.kind == "internal");
    // libvirt knows whose a device is; of a device without libvirt, its kind must tell.
    let is_guests = target.domain.is_some() || link.is("tun") || link.is("veth");
    match is_guests && !is_internal {
        true => Ok(to),
        false => Err(Unreached::NotAGuests(device.name.clone())),
    }
}

/// The method by which the guest is reached, as text.
pub(crate) fn word(to: &Inward) -> String {
    match to {
        Inward::Packet(device) => format!("packet on {}", device.name),
        Inward::Ingress(ways) => {
            ways.iter().map(|way| way.method().word()).collect::<Vec<_>>().join(", else ")
        }
        Inward::PacketOut { bridge, port } => format!("packet-out to port {port} of {bridge}"),
    }
}
