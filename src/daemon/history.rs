//! The announcements of this host that have ended: the daemon's, the hook's and those by hand, in files of the runtime directory,
//! where the next daemon and `announce status` find them.
//!
//! Each line is a report as JSON. Writers only append; a file that has become long is renamed, and the one before it goes.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use crate::daemon::state::runtime_directory;
use crate::report::Report;
use crate::report::snapshot::Ended;
use crate::run::wall_clock;

const FILE: &str = "history.jsonl";
const OLDER: &str = "history.older.jsonl";
/// The length at which a file is followed by a new one: some hundred reports.
const MAX_LENGTH: u64 = 1 << 20;
/// Every user may read them, as the status.
const MODE: u32 = 0o644;

/// What has ended on this host.
#[derive(Debug)]
pub(crate) struct History {
    directory: PathBuf,
}

impl History {
    /// That of this host.
    pub(crate) fn here() -> History {
        History::of(&runtime_directory())
    }

    /// That in `directory`, which need not exist.
    pub(crate) fn of(directory: &Path) -> History {
        History { directory: directory.into() }
    }

    /// Adds an announcement that has just ended; without the directory, nothing is kept.
    ///
    /// # Errors
    ///
    /// The file cannot be written.
    pub(crate) fn add(&self, ended: &Ended) -> io::Result<()> {
        let Ok(directory) = std::fs::metadata(&self.directory) else {
            return Ok(());
        };
        let path = self.directory.join(FILE);
        let is_new = !path.exists();
        // The directory's owner may be another user than root: no link of theirs is followed.
        let (mut options, no_link) = (OpenOptions::new(), nix::libc::O_NOFOLLOW);
        let mut file = options.append(true).create(true).mode(MODE).custom_flags(no_link).open(&path)?;
        if is_new {
            file.set_permissions(Permissions::from_mode(MODE))?;
            // The daemon may run as another user than root, and appends to what a command of root's has made.
            let _ = fchown(&file, Some(directory.uid()), Some(directory.gid()));
        }
        let mut line = serde_json::to_vec(ended)?;
        line.push(b'\n');
        file.write_all(&line)?;
        if file.metadata()?.len() >= MAX_LENGTH {
            std::fs::rename(&path, self.directory.join(OLDER))?;
        }
        Ok(())
    }

    /// What is kept, the latest last; a line that cannot be read is left out.
    pub(crate) fn read(&self) -> Vec<Ended> {
        let files = [OLDER, FILE].map(|name| File::open(self.directory.join(name)));
        let lines = files.into_iter().flatten().flat_map(|file| BufReader::new(file).lines());
        let mut all: Vec<Ended> =
            lines.map_while(Result::ok).filter_map(|line| serde_json::from_str(&line).ok()).collect();
        all.sort_by(|a, b| a.at.cmp(&b.at));
        all
    }
}

/// A report, as it is remembered.
pub(crate) fn ended(report: &Report) -> Ended {
    let at = report.ended_at.clone().unwrap_or_else(wall_clock::now);
    Ended { at, report: report.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guest::event::Cause;
    use crate::guest::target::Unannounceable;

    fn report(reason: &str) -> Report {
        let reason = reason.to_owned();
        let nic = Unannounceable { domain: None, mac: None, device: None, reason, by_representor: None };
        Report::refused(&nic, Cause::Migrated)
    }

    #[test]
    fn what_was_added_is_read_the_latest_last_and_it_stays_bounded() {
        let directory = tempfile::tempdir().unwrap();
        let history = History::of(directory.path());
        let errors = || history.read().into_iter().filter_map(|ended| ended.report.error).collect::<Vec<_>>();
        for reason in ["first", "second"] {
            history.add(&ended(&report(reason))).unwrap();
        }
        assert_eq!(errors(), ["first", "second"]);
        std::fs::write(directory.path().join(OLDER), "of another version\n").unwrap();
        assert_eq!(errors().len(), 2);

        let long = "x".repeat(100_000);
        (0..40).for_each(|_| history.add(&ended(&report(&long))).unwrap());
        history.add(&ended(&report("last"))).unwrap();
        assert_eq!(errors().last().map(String::as_str), Some("last"));
        let lengths = [FILE, OLDER].map(|name| std::fs::metadata(directory.path().join(name)).unwrap().len());
        assert!(lengths.iter().all(|length| *length < MAX_LENGTH + 200_000), "{lengths:?}");
        let mode = std::fs::metadata(directory.path().join(FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, MODE);
    }

    #[test]
    fn no_link_in_the_place_of_the_file_is_followed() {
        let directory = tempfile::tempdir().unwrap();
        let other = directory.path().join("other");
        std::os::unix::fs::symlink(&other, directory.path().join(FILE)).unwrap();
        assert!(History::of(directory.path()).add(&ended(&report(""))).is_err());
        assert!(!other.exists());
    }

    #[test]
    fn nothing_is_kept_where_no_daemon_has_ever_run() {
        let directory = tempfile::tempdir().unwrap();
        let history = History::of(&directory.path().join("announced"));
        history.add(&ended(&report(""))).unwrap();
        assert!(history.read().is_empty());
    }
}
