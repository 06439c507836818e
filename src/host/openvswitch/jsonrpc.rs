//! JSON-RPC 1.0 as OVSDB uses it: JSON objects one after the other, without separators (RFC 7047 section 4).

use std::io;
use std::path::Path;

use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;

/// The maximum size of a message: a host with ten thousand ports has some megabytes.
const MAX_MESSAGE: usize = 64 << 20;
const READ: usize = 64 << 10;

/// A connection that carries JSON objects.
#[derive(Debug)]
pub struct Connection<S = UnixStream> {
    stream: S,
    framer: Framer,
}

impl Connection {
    /// Connects to a server's unix socket.
    pub async fn open(socket: &Path) -> io::Result<Self> {
        UnixStream::connect(socket).await.map(Connection::over)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    /// A connection over this stream.
    pub fn over(stream: S) -> Self {
        Connection { stream, framer: Framer::default() }
    }

    /// Sends one message.
    pub async fn send(&mut self, message: &Value) -> io::Result<()> {
        self.stream.write_all(message.to_string().as_bytes()).await
    }

    /// The next message. Cancel safe: received bytes stay in the buffer.
    ///
    /// # Errors
    ///
    /// `UnexpectedEof` if the server closes, `InvalidData` for anything that is not a JSON object.
    pub async fn receive(&mut self) -> io::Result<Value> {
        loop {
            if let Some(message) = self.framer.next()? {
                return Ok(message);
            }
            self.framer.buffer.reserve(READ);
            if self.stream.read_buf(&mut self.framer.buffer).await? == 0 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the server closed the connection"));
            }
        }
    }
}

/// Splits a stream of bytes at the ends of objects, and reads each byte once.
#[derive(Debug, Default)]
struct Framer {
    buffer: Vec<u8>,
    /// The start of the current message.
    start: usize,
    /// The end of the bytes read so far.
    seen: usize,
    depth: usize,
    in_string: bool,
    escaped: bool,
}

impl Framer {
    fn next(&mut self) -> io::Result<Option<Value>> {
        while let Some(byte) = self.buffer.get(self.seen) {
            self.seen += 1;
            if self.ends_object(*byte)? {
                let message = serde_json::from_slice(&self.buffer[self.start..self.seen]);
                self.start = self.seen;
                return message.map(Some).map_err(io::Error::from);
            }
        }
        self.buffer.drain(..self.start);
        (self.start, self.seen) = (0, self.buffer.len());
        if self.buffer.len() > MAX_MESSAGE {
            return Err(invalid("a message is too long"));
        }
        Ok(None)
    }

    fn ends_object(&mut self, byte: u8) -> io::Result<bool> {
        match byte {
            _ if self.escaped => self.escaped = false,
            b'\\' if self.in_string => self.escaped = true,
            b'"' => self.in_string = !self.in_string,
            _ if self.in_string => {}
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' => {
                self.depth = self.depth.checked_sub(1).ok_or_else(|| invalid("a bracket closes nothing"))?;
                return Ok(self.depth == 0);
            }
            _ => {}
        }
        Ok(false)
    }
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Feeds `text` in pieces of `size` bytes.
    fn cut(text: &str, size: usize) -> io::Result<Vec<Value>> {
        let mut framer = Framer::default();
        let mut messages = Vec::new();
        for piece in text.as_bytes().chunks(size) {
            framer.buffer.extend(piece);
            while let Some(message) = framer.next()? {
                messages.push(message);
            }
        }
        Ok(messages)
    }

    #[test]
    fn messages_without_separators_are_split_however_they_arrive() {
        let text = r#"{"a":"}\"{["}{"b":[1,{"c":2}]} {"d":"\\"}"#;
        let expected = [json!({"a": "}\"{["}), json!({"b": [1, {"c": 2}]}), json!({"d": "\\"})];
        for size in 1..=text.len() {
            assert_eq!(cut(text, size).unwrap(), expected, "in pieces of {size}");
        }
    }

    #[test]
    fn a_text_that_is_no_json_is_an_error() {
        assert!(cut("}", 1).is_err());
        assert!(cut("{nonsense}", 3).is_err());
    }
}
