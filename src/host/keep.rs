//! Keeps the rosters in the runtime directory, so that the next daemon finds it.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::roster::Roster;

const FILE: &str = "roster.json";
/// Changes at each boot (random(4)): a roster of another boot is of guests that are no more.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The rosters, by libvirt's URI.
pub type Rosters = BTreeMap<String, Roster>;

/// Where the rosters are kept.
#[derive(Debug)]
pub struct Keep {
    file: PathBuf,
    boot: String,
}

#[derive(Serialize, Deserialize)]
struct Kept {
    boot: String,
    rosters: Rosters,
}

impl Keep {
    /// Keeps it in `directory`.
    pub fn new(directory: &Path) -> Self {
        let boot = std::fs::read_to_string(BOOT_ID).unwrap_or_default().trim().to_owned();
        Keep { file: directory.join(FILE), boot }
    }

    /// The rosters that a daemon left since this boot; one that cannot be read is as none.
    pub fn load(&self) -> Option<Rosters> {
        let text = std::fs::read_to_string(&self.file).ok()?;
        match serde_json::from_str::<Kept>(&text) {
            Ok(kept) => Some(kept.rosters).filter(|_| kept.boot == self.boot),
            Err(error) => {
                tracing::warn!("{} cannot be read and is ignored: {error}", self.file.display());
                None
            }
        }
    }

    /// Saves the rosters: whole, or not at all.
    pub fn save(&self, rosters: &Rosters) -> io::Result<()> {
        let kept = Kept { boot: self.boot.clone(), rosters: rosters.clone() };
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
        let mut keep = Keep::new(directory.path());
        assert_eq!(keep.load(), None);
        keep.save(&Rosters::default()).unwrap();
        assert_eq!(keep.load(), Some(Rosters::default()));
        keep.boot = "another".into();
        assert_eq!(keep.load(), None);
    }

    #[test]
    fn a_broken_file_is_as_none() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join(FILE), "{").unwrap();
        assert_eq!(Keep::new(directory.path()).load(), None);
    }
}
