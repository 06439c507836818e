//! A server on a unix socket that sends prepared bytes, whatever it receives.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Sender, channel};
use std::thread;

use tempfile::TempDir;

pub struct Server {
    _directory: TempDir,
    socket: PathBuf,
    next: Sender<Vec<u8>>,
}

impl Server {
    /// A server that has nothing to say yet.
    pub fn start() -> Server {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("br0.mgmt");
        let listener = UnixListener::bind(&socket).unwrap();
        let (next, says) = channel::<Vec<u8>>();
        thread::spawn(move || {
            for (stream, bytes) in listener.incoming().zip(says) {
                let mut stream = stream.unwrap();
                // A client that closes early misses the rest.
                let _ = stream.write_all(&bytes).and_then(|()| stream.shutdown(Shutdown::Write));
                let _ = stream.read_to_end(&mut Vec::new());
            }
        });
        Server { _directory: directory, socket, next }
    }

    /// What the next client hears, before the end of the conversation.
    pub fn say(&self, bytes: Vec<u8>) {
        self.next.send(bytes).unwrap();
    }

    pub fn socket(&self) -> &Path {
        &self.socket
    }
}

/// What a server does with every connection, for as long as the other side stays.
#[derive(Debug, Clone)]
pub enum Manner {
    /// Says this once, then no more.
    Then(Vec<u8>),
    /// Says this, and closes.
    ThenCloses(Vec<u8>),
    /// Says the first once, the second for ever.
    Forever(Vec<u8>, Vec<u8>),
}

/// Listens on `socket`, and treats every client in this manner.
pub fn serve(socket: &Path, manner: Manner) {
    let listener = UnixListener::bind(socket).unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let manner = manner.clone();
            thread::spawn(move || {
                let _ = stream.read(&mut [0; 4096]);
                match manner {
                    Manner::ThenCloses(bytes) => drop(stream.write_all(&bytes)),
                    Manner::Then(bytes) => {
                        let _ = stream.write_all(&bytes);
                        while stream.read(&mut [0; 4096]).is_ok_and(|length| length > 0) {}
                    }
                    Manner::Forever(bytes, again) => {
                        let _ = stream.write_all(&bytes);
                        while stream.write_all(&again).is_ok() {}
                    }
                }
            });
        }
    });
}
