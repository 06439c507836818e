//! Keeps the rosters in the runtime directory, so that the next daemon finds it.

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::guest::ledger::Roster;

const FILE: &str = "roster.json";
/// Changes at each boot (random(4)): a roster of another boot is of guests that are no more.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The rosters, by libvirt's URI.
pub type Rosters = BTreeMap<String, Roster>;

/// Where the rosters are kept, by one daemon at a time.
#[derive(Debug)]
pub struct Keep {
    file: PathBuf,
    boot: String,
    /// The directory, locked for as long as this is there.
    _lock: File,
}

#[derive(Serialize, Deserialize)]
struct Kept<B, R> {
    boot: B,
    rosters: R,
}

impl Keep {
    /// Keeps it in `directory`, which is made if need be; the error is one line for the operator.
    pub fn open(directory: &Path) -> Result<Self, String> {
        let place = directory.display();
        std::fs::create_dir_all(directory).map_err(|error| format!("cannot make {place}: {error}"))?;
        let lock = File::open(directory).map_err(|error| format!("cannot open {place}: {error}"))?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => format!("another announced runs already: it keeps {place} locked"),
            TryLockError::Error(error) => format!("cannot lock {place}: {error}"),
        })?;
        let boot = std::fs::read_to_string(BOOT_ID).unwrap_or_default().trim().to_owned();
        Ok(Keep { file: directory.join(FILE), boot, _lock: lock })
    }

    /// The rosters that a daemon left since this boot; one that cannot be read is as none.
    pub fn load(&self) -> Option<Rosters> {
        let read = std::fs::read(&self.file);
        let parsed = read.and_then(|text| Ok(serde_json::from_slice::<Kept<String, Rosters>>(&text)?));
        match parsed {
            Ok(kept) => Some(kept.rosters).filter(|_| kept.boot == self.boot),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                let file = self.file.display();
                tracing::warn!("{file} cannot be read: {error}; all guests are taken as announced");
                None
            }
        }
    }

    /// Saves the rosters: whole, or not at all.
    pub fn save<'a>(&self, rosters: impl Iterator<Item = (&'a str, &'a Roster)>) -> io::Result<()> {
        let kept = Kept { boot: &self.boot, rosters: rosters.collect::<BTreeMap<_, _>>() };
        let new = self.file.with_extension("new");
        std::fs::write(&new, serde_json::to_vec(&kept)?)?;
        std::fs::rename(&new, &self.file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_saved_is_loaded_but_not_after_another_boot() {
        let directory = tempfile::tempdir().unwrap();
        let mut keep = Keep::open(&directory.path().join("new")).unwrap();
        assert_eq!(keep.load(), None);
        keep.save([("qemu:///system", &Roster::default())].into_iter()).unwrap();
        let saved = Rosters::from([("qemu:///system".into(), Roster::default())]);
        assert_eq!(keep.load(), Some(saved));
        keep.boot = "another".into();
        assert_eq!(keep.load(), None);
    }

    #[test]
    fn a_broken_file_is_as_none() {
        let directory = tempfile::tempdir().unwrap();
        let keep = Keep::open(directory.path()).unwrap();
        for broken in [&b"{"[..], b"", b"\xff"] {
            std::fs::write(directory.path().join(FILE), broken).unwrap();
            assert_eq!(keep.load(), None);
        }
    }

    #[test]
    fn two_daemons_do_not_share_a_directory() {
        let directory = tempfile::tempdir().unwrap();
        let first = Keep::open(directory.path()).unwrap();
        let error = Keep::open(directory.path()).unwrap_err();
        assert!(error.starts_with("another announced runs already"), "{error}");
        drop(first);
        Keep::open(directory.path()).unwrap();
    }
}
