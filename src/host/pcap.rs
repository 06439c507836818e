//! Writes frames to a capture file (draft-ietf-opsawg-pcap, with microseconds).

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::time::Instant;

const MAGIC: u32 = 0xa1b2_c3d4;
const LINKTYPE_ETHERNET: u32 = 1;
const SNAP_LENGTH: u32 = 65535;

/// An open capture file.
#[derive(Debug)]
pub(crate) struct Pcap {
    file: File,
    /// The wall clock time at the beginning; frames are timed from it.
    began: Duration,
}

impl Pcap {
    /// Creates or overwrites `path`. Frames are timed since `began`.
    pub(crate) fn create(path: &Path, began: Instant) -> io::Result<Self> {
        let mut file = File::create(path)?;
        let mut header = Vec::new();
        header.extend(MAGIC.to_ne_bytes());
        header.extend(2u16.to_ne_bytes());
        header.extend(4u16.to_ne_bytes());
        header.extend([0; 8]);
        header.extend(SNAP_LENGTH.to_ne_bytes());
        header.extend(LINKTYPE_ETHERNET.to_ne_bytes());
        file.write_all(&header)?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(Pcap { file, began: now.saturating_sub(began.elapsed()) })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_timed_since_the_event_whenever_the_file_was_made() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let event = Duration::from_secs(3600);
        let before = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let mut pcap = Pcap::create(file.path(), Instant::now().checked_sub(event).unwrap()).unwrap();
        pcap.write(event, &[0; 60]).unwrap();
        let bytes = std::fs::read(file.path()).unwrap();
        let number = |at: usize| u64::from(u32::from_ne_bytes(bytes[at..at + 4].try_into().unwrap()));
        let written = Duration::from_secs(number(24)) + Duration::from_micros(number(28));
        let after = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        // The file stores microseconds.
        assert!(
            written + Duration::from_millis(1) > before && written <= after,
            "{before:?} {written:?} {after:?}"
        );
    }
}
