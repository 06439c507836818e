//! An operator's pause: the daemon sends nothing until it ends.

use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, SystemTime};

use jiff::Timestamp;

use crate::announcement::hold;
use crate::daemon::state::runtime_directory;
use crate::report::snapshot::Paused;
use crate::run::wall_clock;

/// The pause of this host; without it there is none. It outlives the daemon, and not the host.
const FILE: &str = "paused.json";
/// The characters of a reason.
const MAX_REASON: usize = 200;

impl Paused {
    /// From now on, for so long.
    pub(super) fn new(lasts: Duration, reason: Option<String>, by_uid: u32) -> Paused {
        let until = SystemTime::now() + lasts.min(hold::MAX);
        let reason =
            reason.map(|reason| reason.chars().filter(|c| !c.is_control()).take(MAX_REASON).collect());
        Paused { since: wall_clock::now(), until: wall_clock::text(until), reason, by_uid }
    }

    /// What is left of it: a clock that was set back does not make it longer than a pause may be.
    pub(crate) fn left(&self) -> Duration {
        let until = self.until.parse::<Timestamp>().map_or(SystemTime::UNIX_EPOCH, SystemTime::from);
        until.duration_since(SystemTime::now()).unwrap_or_default().min(hold::MAX)
    }

    /// That of this host, if there is one that has not ended.
    pub(crate) fn here() -> Option<Paused> {
        Paused::read(&runtime_directory())
    }

    /// That in `directory`; one that cannot be read counts as none.
    pub(super) fn read(directory: &Path) -> Option<Paused> {
        let text = fs::read(directory.join(FILE)).ok()?;
        let paused: Paused = serde_json::from_slice(&text).ok()?;
        Some(paused).filter(|paused| !paused.left().is_zero())
    }
}

/// Keeps the pause, or that there is none, for the next daemon.
pub(super) fn keep(paused: Option<&Paused>, directory: &Path) -> io::Result<()> {
    let (file, new) = (directory.join(FILE), directory.join("paused.new"));
    match paused {
        Some(paused) => {
            fs::write(&new, serde_json::to_vec(paused)?)?;
            fs::rename(new, file)
        }
        None => match fs::remove_file(file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_kept_until_it_ends() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path();
        assert_eq!(Paused::read(place), None);
        let paused = Paused::new(Duration::from_secs(60), Some("a\u{1b}b".repeat(500)), 0);
        assert_eq!(paused.reason.as_ref().unwrap().chars().count(), MAX_REASON);
        keep(Some(&paused), place).unwrap();
        assert_eq!(Paused::read(place), Some(paused.clone()));
        assert!(paused.left() <= Duration::from_secs(60) && !paused.left().is_zero());
        keep(Some(&Paused::new(Duration::ZERO, None, 0)), place).unwrap();
        assert_eq!(Paused::read(place), None, "it has ended");
        keep(None, place).unwrap();
        keep(None, place).unwrap();
        fs::write(place.join(FILE), "{").unwrap();
        assert_eq!(Paused::read(place), None);
    }

    #[test]
    fn no_clock_makes_a_pause_longer_than_one_may_be() {
        let far = Paused { until: "2999-01-01T00:00:00.000Z".into(), ..Paused::new(Duration::ZERO, None, 0) };
        assert_eq!(far.left(), hold::MAX);
    }
}
