//! Rtnetlink messages: built and read attribute by attribute (`include/uapi/linux/netlink.h`, `rtnetlink.h`).
//!
//! Reading is tolerant: a truncated attribute ends the list, an unknown one is skipped. So a message of a newer kernel is
//! never rejected as a whole.

pub mod fdb;
pub mod links;
mod port_vlans;
pub mod routes;
mod socket;

use std::io;

pub use socket::{Dump, Socket};

const HEADER: usize = 16;
/// The type flags of an attribute: nested, and in network byte order.
const ATTRIBUTE_FLAGS: u16 = (1 << 15) | (1 << 14);

/// One message: its header (`struct nlmsghdr`) and its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Message<'a> {
    /// `nlmsg_type`.
    pub kind: u16,
    /// `nlmsg_flags`.
    pub flags: u16,
    /// `nlmsg_seq`.
    pub sequence: u32,
    /// `nlmsg_pid`: the port id of the socket whose request this answers.
    pub port_id: u32,
    /// The bytes after the header.
    pub body: &'a [u8],
}

/// The messages of a datagram, up to the first invalid one.
pub fn messages(mut datagram: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let length = u32_at(datagram, 0)? as usize;
        let (kind, flags) = (u16_at(datagram, 4)?, u16_at(datagram, 6)?);
        let (sequence, port_id) = (u32_at(datagram, 8)?, u32_at(datagram, 12)?);
        let body = datagram.get(HEADER..length)?;
        datagram = datagram.get(align(length)..).unwrap_or_default();
        Some(Message { kind, flags, sequence, port_id, body })
    })
}

impl Message<'_> {
    /// Whether this answers the request `sequence` of the socket `port_id`.
    fn answers(&self, sequence: u32, port_id: u32) -> bool {
        (self.sequence, self.port_id) == (sequence, port_id)
    }
}

/// The attributes in the payload of a message or of an attribute: type without flags, and value.
pub fn attributes(mut payload: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = u16_at(payload, 0)? as usize;
        let kind = u16_at(payload, 2)? & !ATTRIBUTE_FLAGS;
        let value = payload.get(4..length)?;
        payload = payload.get(align(length)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The number at `offset`, in the host's byte order.
pub fn u32_at(bytes: &[u8], offset: usize) -> Option<u32> {
    let bytes = bytes.get(offset..offset.checked_add(4)?)?;
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}

/// The number at `offset`, in the host's byte order.
pub fn u16_at(bytes: &[u8], offset: usize) -> Option<u16> {
    let bytes = bytes.get(offset..offset.checked_add(2)?)?;
    Some(u16::from_ne_bytes(bytes.try_into().ok()?))
}

/// A text up to its zero byte.
pub fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

fn align(length: usize) -> usize {
    length.next_multiple_of(4)
}

/// A message under construction.
#[derive(Debug, Clone)]
pub struct Request(Vec<u8>);

impl Request {
    /// A request of type `kind`; `NLM_F_REQUEST` is added to the flags.
    pub fn new(kind: u16, flags: u16) -> Self {
        let mut bytes = vec![0; 4];
        bytes.extend(kind.to_ne_bytes());
        bytes.extend((flags | libc::NLM_F_REQUEST as u16).to_ne_bytes());
        bytes.resize(HEADER, 0);
        Request(bytes)
    }

    /// Appends bytes of the fixed part.
    pub fn fixed(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }

    /// Appends an attribute.
    pub fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        self.0.extend((4 + value.len() as u16).to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(align(self.0.len()), 0);
        self
    }

    /// Appends an attribute that contains attributes, each a type and a value.
    pub fn nested(self, kind: u16, inner: &[(u16, &[u8])]) -> Self {
        let inner =
            inner.iter().fold(Request(Vec::new()), |list, (kind, value)| list.attribute(*kind, value));
        self.attribute(kind, &inner.0)
    }

    /// Adds flags, and the sequence number.
    fn numbered(mut self, flags: u16, sequence: u32) -> Self {
        let flags = u16_at(&self.0, 6).unwrap_or_default() | flags;
        self.0[6..8].copy_from_slice(&flags.to_ne_bytes());
        self.0[8..12].copy_from_slice(&sequence.to_ne_bytes());
        self
    }

    /// The bytes for the socket.
    pub fn finish(mut self) -> Vec<u8> {
        let length = (self.0.len() as u32).to_ne_bytes();
        self.0[..4].copy_from_slice(&length);
        self.0
    }
}

/// The result of an `NLMSG_ERROR` or an `NLMSG_DONE`: an error number, zero for success.
pub fn error_of(message: &Message<'_>) -> io::Result<()> {
    match u32_at(message.body, 0).unwrap_or_default() as i32 {
        0 => Ok(()),
        number => Err(io::Error::from_raw_os_error(number.saturating_neg())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_built_message_is_read_back() {
        let bytes = Request::new(16, 0).fixed(&[1, 2, 3, 4]).attribute(3, b"tap0\0");
        let bytes =
            bytes.nested(18 | (1 << 15), &[(1, b"tun\0")]).numbered(libc::NLM_F_ACK as u16, 7).finish();
        let read: Vec<Message<'_>> = messages(&bytes).collect();
        assert_eq!((read.len(), read[0].kind, read[0].sequence), (1, 16, 7));
        let list: Vec<(u16, &[u8])> = attributes(&read[0].body[4..]).collect();
        assert_eq!((list[0].0, text(list[0].1).as_str()), (3, "tap0"));
        assert_eq!(list[1].0, 18, "the nested flag is not part of the type");
        assert_eq!(attributes(list[1].1).next(), Some((1, b"tun\0".as_slice())));
    }

    #[test]
    fn broken_messages_end_the_walk() {
        for bytes in [&[][..], &[0; 16], &[15, 0, 0, 0], &[255; 64], &[20, 0, 0, 0, 1, 0, 0, 0]] {
            assert_eq!(messages(bytes).count(), 0, "{bytes:?}");
            attributes(bytes).for_each(drop);
        }
    }
}
