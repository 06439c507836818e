//! Keeps the ledgers in the runtime directory for the next daemon: a line with all of them, and a line for each guest that has
//! changed since, so that a change costs as much with ten thousand guests as with one.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use crate::guest::ledger::{Kept, Ledger};

/// The daemon's directory if systemd sets none.
const RUNTIME_DIRECTORY: &str = "/run/announced";
const FILE: &str = "roster.json";
/// Changes at each boot (random(4)): the guests of a previous boot are gone.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// So many lines may follow the first, or as many as there are guests, before all is written anew.
const MIN_LINES: usize = 100;

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
    /// The number of lines after the first; none where all must be written anew.
    lines: Option<usize>,
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

    fn append(&self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Place::Directory { file, .. } => OpenOptions::new().append(true).open(file)?.write_all(bytes),
            #[cfg(test)]
            Place::Memory(kept) => {
                kept.lock().unwrap().extend(bytes);
                Ok(())
            }
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
struct All<B, R> {
    boot: B,
    #[serde(rename = "rosters")]
    ledgers: R,
}

/// A guest that has changed since.
#[derive(Serialize, Deserialize)]
struct Line<'a> {
    #[serde(rename = "roster")]
    ledger: Cow<'a, str>,
    #[serde(flatten)]
    guest: Kept<'a>,
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
        Ok(StateFile {
            place: Place::Directory { file: directory.join(FILE), _lock: lock },
            boot,
            lines: None,
        })
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
        StateFile { place: Place::Memory(kept), boot: String::new(), lines: None }
    }

    /// The ledgers that a daemon saved since this boot; `None` if the file cannot be read.
    pub(super) fn load(&self) -> Option<Ledgers> {
        let parsed = self.place.read().and_then(|text| Ok(parse(&text)?));
        match parsed {
            Ok(all) => Some(all.ledgers).filter(|_| all.boot == self.boot),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                let place = self.place.name();
                tracing::warn!("{place} cannot be read: {error}; all guests count as announced");
                None
            }
        }
    }

    /// Saves what has changed of the ledgers, by name.
    pub(super) fn save(&mut self, ledgers: &mut [(&str, &mut Ledger)]) -> io::Result<()> {
        let mut changed = Vec::new();
        let mut lines = 0;
        for (name, ledger) in &mut *ledgers {
            for uuid in ledger.take_changed() {
                let line = Line { ledger: (*name).into(), guest: ledger.kept(&uuid) };
                serde_json::to_writer(&mut changed, &line)?;
                changed.push(b'\n');
                lines += 1;
            }
        }
        let guests: usize = ledgers.iter().map(|(_, ledger)| ledger.len()).sum();
        // Where the file is gone, or the last line broken, all of it is written.
        let before = self.lines.take().filter(|before| before + lines <= guests.max(MIN_LINES));
        self.lines = match before.filter(|_| changed.is_empty() || self.place.append(&changed).is_ok()) {
            Some(before) => Some(before + lines),
            None => {
                let ledgers = ledgers.iter().map(|(name, ledger)| (*name, &**ledger));
                let all = All { boot: &self.boot, ledgers: ledgers.collect::<BTreeMap<_, _>>() };
                self.place.write([serde_json::to_vec(&all)?, b"\n".into()].concat())?;
                Some(0)
            }
        };
        Ok(())
    }

    /// All is saved the next time, as an older version reads it.
    pub(super) fn save_all_next(&mut self) {
        self.lines = None;
    }
}

/// The ledgers with the changes after them. A last line that was not written to its end counts as none.
fn parse(text: &[u8]) -> serde_json::Result<All<String, Ledgers>> {
    let mut values = serde_json::Deserializer::from_slice(text);
    let mut all = All::<String, Ledgers>::deserialize(&mut values)?;
    while let Ok(Line { ledger, guest }) = Line::deserialize(&mut values) {
        all.ledgers.entry(ledger.into_owned()).or_default().restore(guest);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::guest::event::{Cause, Change};

    #[test]
    fn saved_ledgers_are_loaded_but_not_after_another_boot() {
        let directory = tempfile::tempdir().unwrap();
        let mut keep = StateFile::open(&directory.path().join("new")).unwrap();
        assert!(keep.load().is_none());
        keep.save(&mut [("qemu:///system", &mut Ledger::default())]).unwrap();
        assert_eq!(keep.load().unwrap().keys().collect::<Vec<_>>(), ["qemu:///system"]);
        keep.boot = "another".into();
        assert!(keep.load().is_none());
    }

    #[test]
    fn a_change_is_a_line_of_its_own_and_is_loaded_like_all_else() {
        let directory = tempfile::tempdir().unwrap();
        let mut keep = StateFile::open(directory.path()).unwrap();
        let (file, mut ledger) = (directory.path().join(FILE), Ledger::default());
        let change = |ledger: &mut Ledger, keep: &mut StateFile, guest: u32, change: Change| {
            ledger.change(&format!("{guest}"), Some(7), &change, &[Cause::Migrated], Duration::ZERO);
            keep.save(&mut [("", ledger)]).unwrap();
            let loaded = serde_json::to_string(&keep.load().unwrap()[""]).unwrap();
            assert_eq!(loaded, serde_json::to_string(ledger).unwrap());
            std::fs::read_to_string(&file).unwrap().lines().count()
        };
        let arriving = || Change::Arriving(Cause::Migrated);
        let counts: Vec<usize> = (0..4).map(|n| change(&mut ledger, &mut keep, n, arriving())).collect();
        assert_eq!(counts, [1, 2, 3, 4]);
        ledger.name("1", "web1");
        assert_eq!(change(&mut ledger, &mut keep, 2, Change::Left), 6);
        let broken = std::fs::read(&file).unwrap();
        std::fs::write(&file, &broken[..broken.len() - 3]).unwrap();
        assert!(keep.load().unwrap()[""].knows("2"), "the last line has no end");
        keep.save_all_next();
        assert_eq!(change(&mut ledger, &mut keep, 9, arriving()), 1);
        std::fs::remove_file(&file).unwrap();
        assert_eq!(change(&mut ledger, &mut keep, 10, arriving()), 1);
        let longest = (11..300).map(|n| change(&mut ledger, &mut keep, n % 20, arriving())).max();
        assert!(longest.unwrap() <= 1 + MIN_LINES);
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
