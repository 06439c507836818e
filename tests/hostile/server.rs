//! Servers on unix sockets that send prepared bytes, whatever they receive.

use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::thread;

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
