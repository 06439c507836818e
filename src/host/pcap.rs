//! Writes frames to a file that any dissector opens (draft-ietf-opsawg-pcap, with microseconds).

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const MAGIC: u32 = 0xa1b2_c3d4;
const LINKTYPE_ETHERNET: u32 = 1;
const SNAP_LENGTH: u32 = 65535;

/// A capture file under construction.
#[derive(Debug)]
pub(crate) struct Pcap {
    file: File,
    /// The wall clock at the moment from which frames are timed.
    began: Duration,
}

impl Pcap {
    /// Makes or overwrites `path`; frames are timed from now on.
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        let mut file = File::create(path)?;
        let mut header = Vec::new();
        header.extend(MAGIC.to_ne_bytes());
        header.extend(2u16.to_ne_bytes());
        header.extend(4u16.to_ne_bytes());
        header.extend([0; 8]);
        header.extend(SNAP_LENGTH.to_ne_bytes());
        header.extend(LINKTYPE_ETHERNET.to_ne_bytes());
        file.write_all(&header)?;
        let began = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(Pcap { file, began })
    }

    /// Appends a frame that was sent `at` after the beginning.
    pub(crate) fn write(&mut self, at: Duration, frame: &[u8]) -> io::Result<()> {
        let time = self.began + at;
        let length = frame.len() as u32;
        let mut record = Vec::new();
        record.extend((time.as_secs() as u32).to_ne_bytes());
        record.extend(time.subsec_micros().to_ne_bytes());
        record.extend(length.to_ne_bytes());
        record.extend(length.to_ne_bytes());
        record.extend(frame);
        self.file.write_all(&record)
    }
}
