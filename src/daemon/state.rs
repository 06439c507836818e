//! Keeps the ledgers in the runtime directory for the next daemon.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use crate::guest::ledger::Ledger;

/// The daemon's directory if systemd sets none.
const RUNTIME_DIRECTORY: &str = "/run/announced";
const FILE: &str = "roster.json";
/// Changes at each boot (random(4)): the guests of a previous boot are gone.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The daemon's directory: `$RUNTIME_DIRECTORY`, which systemd sets (systemd.exec(5)).
pub(super) fn runtime_directory() -> PathBuf {
    std::env::var_os("RUNTIME_DIRECTORY").map_or_else(|| RUNTIME_DIRECTORY.into(), PathBuf::from)
}

/// The ledgers, by libvirt's URI.
pub(super) type Ledgers = BTreeMap<String, Ledger>;

/// The file with the ledgers, locked by one daemon.
#[derive(Debug)]
pub(super) struct StateFile {
    place: Place,
    boot: String,
}

#[derive(Debug)]
enum Place {
    Directory {
        file: PathBuf,
        /// The lock of the directory.
        _lock: Flock<File>,
    },
    #[cfg(test)]
    Memory(std::sync::Arc<std::sync::Mutex<Vec<u8>>>),
}

impl Place {
    fn name(&self) -> String {
        match self {
            Place::Directory { file, .. } => file.display().to_string(),
            #[cfg(test)]
            Place::Memory(_) => "the memory".into(),
        }
    }

    fn read(&self) -> io::Result<Vec<u8>> {
        match self {
            Place::Directory { file, .. } => std::fs::read(file),
            #[cfg(test)]
            Place::Memory(kept) => match kept.lock().unwrap().clone() {
                bytes if bytes.is_empty() => Err(io::ErrorKind::NotFound.into()),
                bytes => Ok(bytes),
            },
        }
    }

    fn write(&self, bytes: Vec<u8>) -> io::Result<()> {
        match self {
            Place::Directory { file, .. } => {
                let new = file.with_extension("new");
                std::fs::write(&new, bytes)?;
                std::fs::rename(&new, file)
            }
            #[cfg(test)]
            Place::Memory(kept) => {
                *kept.lock().unwrap() = bytes;
                Ok(())
            }
        }
    }
}

#[derive(Serialize, Deserialize)]
struct Kept<B, R> {
    boot: B,
    #[serde(rename = "rosters")]
    ledgers: R,
}

impl StateFile {
    /// Opens the file in `directory`, which is created if necessary; the error is one line for the operator.
    pub(super) fn open(directory: &Path) -> Result<Self, String> {
        let place = directory.display();
        std::fs::create_dir_all(directory).map_err(|error| format!("cannot make {place}: {error}"))?;
        let opened = File::open(directory).map_err(|error| format!("cannot open {place}: {error}"))?;
        let lock =
            Flock::lock(opened, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| match error {
                Errno::EWOULDBLOCK => format!("another announced is running: it holds the lock on {place}"),
                error => format!("cannot lock {place}: {error}"),
            })?;
        let boot = std::fs::read_to_string(BOOT_ID).unwrap_or_default().trim().to_owned();
        Ok(StateFile { place: Place::Directory { file: directory.join(FILE), _lock: lock }, boot })
    }

    /// Where it is.
    pub(super) fn directory(&self) -> Option<&Path> {
        match &self.place {
            Place::Directory { file, .. } => file.parent(),
            #[cfg(test)]
            Place::Memory(_) => None,
        }
    }

    /// Keeps the ledgers in memory.
    #[cfg(test)]
    pub(super) fn in_memory(kept: std::sync::Arc<std::sync::Mutex<Vec<u8>>>) -> Self {
        StateFile { place: Place::Memory(kept), boot: String::new() }
    }

    /// The ledgers that a daemon saved since this boot; `None` if the file cannot be read.
    pub(super) fn load(&self) -> Option<Ledgers> {
        let parsed =
            self.place.read().and_then(|text| Ok(serde_json::from_slice::<Kept<String, Ledgers>>(&text)?));
        match parsed {
            Ok(kept) => Some(kept.ledgers).filter(|_| kept.boot == self.boot),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                let place = self.place.name();
                tracing::warn!("{place} cannot be read: {error}; all guests count as announced");
                None
            }
        }
    }

    /// Saves the ledgers atomically.
    pub(super) fn save<'a>(&self, ledgers: impl Iterator<Item = (&'a str, &'a Ledger)>) -> io::Result<()> {
        let kept = Kept { boot: &self.boot, ledgers: ledgers.collect::<BTreeMap<_, _>>() };
        self.place.write(serde_json::to_vec(&kept)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn saved_ledgers_are_loaded_but_not_after_another_boot() {
        let directory = tempfile::tempdir().unwrap();
        let mut keep = StateFile::open(&directory.path().join("new")).unwrap();
        assert!(keep.load().is_none());
        keep.save([("qemu:///system", &Ledger::default())].into_iter()).unwrap();
        assert_eq!(keep.load().unwrap().keys().collect::<Vec<_>>(), ["qemu:///system"]);
        keep.boot = "another".into();
        assert!(keep.load().is_none());
    }

    #[test]
    fn a_broken_file_counts_as_none() {
        let directory = tempfile::tempdir().unwrap();
        let keep = StateFile::open(directory.path()).unwrap();
        for broken in [&b"{"[..], b"", b"\xff"] {
            std::fs::write(directory.path().join(FILE), broken).unwrap();
            assert!(keep.load().is_none());
        }
    }

    #[test]
    fn two_daemons_do_not_share_a_directory() {
        let directory = tempfile::tempdir().unwrap();
        let first = StateFile::open(directory.path()).unwrap();
        let error = StateFile::open(directory.path()).unwrap_err();
        assert!(error.starts_with("another announced is running"), "{error}");
        drop(first);
        StateFile::open(directory.path()).unwrap();
    }
}
