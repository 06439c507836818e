//! The notice by which the daemon of a migration's source tells its peers what becomes of the guest.
//!
//! One datagram of [`SIZE`] bytes; integers are in network byte order:
//!
//! | offset | bytes | |
//! |---|---|---|
//! | 0 | 4 | `annd` |
//! | 4 | 1 | the version, 1 |
//! | 5 | 1 | the kind: 1 stops, 2 kept, 3 left |
//! | 6 | 2 | zero |
//! | 8 | 16 | the sender: a random number of the daemon's process |
//! | 24 | 8 | a counter of the sender's notices, from 1 |
//! | 32 | 8 | the sender's wall clock, in milliseconds since 1970 |
//! | 40 | 8 | the time since the sender's start, in milliseconds, by a clock that is never set |
//! | 48 | 16 | the domain's UUID |
//! | 64 | 32 | HMAC-SHA-256 (RFC 2104) of all bytes before |
//!
//! It carries no MAC and no address: the destination reads its guest's own description, and would not believe them.

use std::fmt;
use std::str::FromStr;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

pub mod guard;

/// The length of a notice in bytes.
pub const SIZE: usize = 96;
const MAGIC: [u8; 4] = *b"annd";
const VERSION: u8 = 1;
/// The first byte of the HMAC.
const SIGNED: usize = SIZE - 32;
/// The least length of a key in characters: 128 bits as hexadecimal digits.
const MIN_KEY: usize = 32;
/// The keys of a file: one, and the one that replaces it or is replaced.
const MAX_KEYS: usize = 2;

/// What becomes of a guest at the source of its migration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It has stopped, to run at the destination.
    Stops,
    /// It runs on here: the migration failed.
    Kept,
    /// It is no longer here.
    Left,
}

impl Kind {
    /// The name of this kind in output.
    pub fn word(self) -> &'static str {
        match self {
            Kind::Stops => "stops",
            Kind::Kept => "kept",
            Kind::Left => "left",
        }
    }

    fn of(byte: u8) -> Option<Kind> {
        [(1, Kind::Stops), (2, Kind::Kept), (3, Kind::Left)]
            .into_iter()
            .find_map(|(number, kind)| (number == byte).then_some(kind))
    }

    fn byte(self) -> u8 {
        match self {
            Kind::Stops => 1,
            Kind::Kept => 2,
            Kind::Left => 3,
        }
    }
}

/// A domain's UUID.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Uuid([u8; 16]);

/// A text is no UUID.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoUuid;

impl FromStr for Uuid {
    type Err = NoUuid;

    fn from_str(text: &str) -> Result<Uuid, NoUuid> {
        let mut digits = text.trim().chars().filter(|c| *c != '-');
        let mut nibble = || digits.next().and_then(|digit| digit.to_digit(16)).ok_or(NoUuid);
        let mut bytes = [0; 16];
        for byte in &mut bytes {
            *byte = (nibble()? << 4 | nibble()?) as u8;
        }
        if digits.next().is_some() { Err(NoUuid) } else { Ok(Uuid(bytes)) }
    }
}

impl fmt::Display for Uuid {
    /// As libvirt writes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, byte) in self.0.iter().enumerate() {
            let dash = if matches!(number, 4 | 6 | 8 | 10) { "-" } else { "" };
            write!(f, "{dash}{byte:02x}")?;
        }
        Ok(())
    }
}

/// A daemon's process: a random number that it takes when it starts.
pub type Sender = Uuid;

/// A notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Notice {
    /// What becomes of the guest.
    pub kind: Kind,
    /// The guest.
    pub guest: Uuid,
    /// The daemon that says so.
    pub sender: Sender,
    /// The number of this notice among the sender's.
    pub counter: u64,
    /// The sender's wall clock, in milliseconds since 1970.
    pub sent_at: u64,
    /// The time since the sender's start, in milliseconds.
    pub uptime: u64,
}

/// Why a datagram, or the notice in it, has no effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    /// It is no notice.
    Malformed,
    /// It is a notice of another version.
    Version,
    /// None of the keys has signed it.
    Unauthenticated,
    /// The sender's wall clock and this host's are too far apart.
    Clock,
    /// It was taken before, or a later one about the same guest was.
    Replayed,
    /// It took too long to arrive.
    Late,
}

impl Refusal {
    /// Every reason.
    pub const ALL: [Refusal; 6] = [
        Refusal::Malformed,
        Refusal::Version,
        Refusal::Unauthenticated,
        Refusal::Clock,
        Refusal::Replayed,
        Refusal::Late,
    ];

    /// The name of this reason in output.
    pub fn word(self) -> &'static str {
        match self {
            Refusal::Malformed => "malformed",
            Refusal::Version => "version",
            Refusal::Unauthenticated => "unauthenticated",
            Refusal::Clock => "clock",
            Refusal::Replayed => "replayed",
            Refusal::Late => "late",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Refusal::Malformed => "it is no notice of announced",
            Refusal::Version => "it is of another version of announced: run the same on all hosts",
            Refusal::Unauthenticated => {
                "no key of this host has signed it: put the same key into peers.key-file on all hosts"
            }
            Refusal::Clock => "the clocks of the two hosts are more than 5 minutes apart: set them by NTP",
            Refusal::Replayed => "it was taken before, or a later one about the same VM was",
            Refusal::Late => "it arrived more than a second late",
        })
    }
}

/// Why a text is no list of keys; the text itself is not repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// It has no key.
    #[error("it has no key: write one on a line, as openssl rand -base64 32 prints it")]
    Empty,
    /// It has too many keys.
    #[error(
        "it has {0} keys, a line each: keep the new one, and the old one below it until all hosts have the new one"
    )]
    Several(usize),
    /// A key is short.
    #[error(
        "the key on line {0} has fewer than {MIN_KEY} characters: take one that openssl rand -base64 32 prints"
    )]
    Short(usize),
}

/// The keys of this host: the first signs, and each is accepted.
#[derive(Clone)]
pub struct Keys(Vec<Hmac<Sha256>>);

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} keys", self.0.len())
    }
}

impl Keys {
    /// The keys in the text of a file: one a line; empty lines and those with `#` have none.
    pub fn parse(text: &str) -> Result<Keys, KeyError> {
        let lines = (1..).zip(text.lines().map(str::trim));
        let keys: Vec<(usize, &str)> =
            lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#')).collect();
        if let Some((line, _)) = keys.iter().find(|(_, key)| key.len() < MIN_KEY) {
            return Err(KeyError::Short(*line));
        }
        let macs: Vec<Hmac<Sha256>> =
            keys.iter().filter_map(|(_, key)| Hmac::new_from_slice(key.as_bytes()).ok()).collect();
        match macs.len() {
            0 => Err(KeyError::Empty),
            1..=MAX_KEYS => Ok(Keys(macs)),
            several => Err(KeyError::Several(several)),
        }
    }

    /// The datagram of a notice, signed with the first key.
    pub fn seal(&self, notice: &Notice) -> Vec<u8> {
        let head = [VERSION, notice.kind.byte(), 0, 0];
        let numbers = [notice.counter, notice.sent_at, notice.uptime].map(u64::to_be_bytes);
        let mut datagram = [&MAGIC[..], &head, &notice.sender.0].concat();
        numbers.iter().for_each(|number| datagram.extend(number));
        datagram.extend(notice.guest.0);
        for key in self.0.iter().take(1) {
            let mac = key.clone().chain_update(&datagram).finalize();
            datagram.extend(mac.into_bytes());
        }
        datagram
    }

    /// The notice in a datagram, if one of the keys has signed it.
    pub fn open(&self, datagram: &[u8]) -> Result<Notice, Refusal> {
        match datagram.strip_prefix(&MAGIC).and_then(<[u8]>::first) {
            Some(&VERSION) if datagram.len() == SIZE => {}
            None | Some(&VERSION) => return Err(Refusal::Malformed),
            Some(_) => return Err(Refusal::Version),
        }
        let (signed, mac) = datagram.split_at(SIGNED);
        // In constant time.
        if !self.0.iter().any(|key| key.clone().chain_update(signed).verify_slice(mac).is_ok()) {
            return Err(Refusal::Unauthenticated);
        }
        let notice = || {
            let number = |at: usize| Some(u64::from_be_bytes(bytes(signed, at)?));
            Some(Notice {
                kind: Kind::of(*signed.get(5)?).filter(|_| signed[6..8] == [0, 0])?,
                sender: Uuid(bytes(signed, 8)?),
                counter: number(24)?,
                sent_at: number(32)?,
                uptime: number(40)?,
                guest: Uuid(bytes(signed, 48)?),
            })
        };
        notice().ok_or(Refusal::Malformed)
    }
}

fn bytes<const N: usize>(of: &[u8], at: usize) -> Option<[u8; N]> {
    of.get(at..)?.first_chunk().copied()
}

#[cfg(test)]
mod tests;
