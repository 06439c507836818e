//! Values of options: the checks of the command line's parser, with the error that it prints.

use std::net::IpAddr;
use std::time::Duration;

use pnet_base::MacAddr;

use crate::announcement::frame::{self, Kind};
use crate::announcement::hold;
use crate::config::{self, duration};
use crate::guest::address;

pub(super) fn kind(word: &str) -> Result<Kind, String> {
    word.parse().map_err(|unknown: frame::UnknownKind| unknown.to_string())
}

pub(super) fn mac(text: &str) -> Result<MacAddr, String> {
    let mac: MacAddr =
        text.parse().map_err(|_| "expected six bytes in hexadecimal, such as 52:54:00:12:34:56")?;
    if mac.is_zero() || mac.is_multicast() || mac.is_broadcast() {
        return Err("a NIC's address is neither zero nor of a group".into());
    }
    Ok(mac)
}

pub(super) fn ip(text: &str) -> Result<IpAddr, String> {
    assignable(text, "guest")
}

pub(super) fn gateway(text: &str) -> Result<IpAddr, String> {
    assignable(text, "gateway")
}

/// An address that a single host on a link can have.
fn assignable(text: &str, host: &str) -> Result<IpAddr, String> {
    let ip = text.parse().map_err(|_| "expected an IPv4 or IPv6 address without a prefix length")?;
    match address::unannounceable(ip) {
        Some(why) => Err(format!("it {why}, which no {host} has")),
        None => Ok(ip),
    }
}

/// How long a pause lasts.
pub(super) fn pause(text: &str) -> Result<Duration, String> {
    let lasts = duration::parse(text).map_err(|why| why.to_string())?;
    hold::check(lasts).map_err(|why| why.to_string())
}

pub(super) fn vlan(text: &str) -> Result<u16, String> {
    let vlan = text.parse().map_err(|_| "expected a number from 1 to 4094")?;
    config::vlan_id(vlan).map_err(|why| why.to_string())
}
