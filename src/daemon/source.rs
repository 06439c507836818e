//! Where the configuration in use comes from, and of when.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::config::DEFAULT_FILE;
use crate::report::snapshot::Daemon;
use crate::run::wall_clock;

/// A configuration file, looked at before it is read: a change in between shows as one.
pub(super) struct ConfigSource {
    file: PathBuf,
    modified: Option<SystemTime>,
}

impl ConfigSource {
    /// The file that was named, or the default one.
    pub(super) fn look(named: Option<&Path>) -> ConfigSource {
        let file = named.unwrap_or(Path::new(DEFAULT_FILE));
        let modified = std::fs::metadata(file).and_then(|data| data.modified()).ok();
        ConfigSource { file: file.into(), modified }
    }

    /// The configuration in use is this one, as of now.
    pub(super) fn describe(self, daemon: &mut Daemon) {
        daemon.config = self.modified.map(|_| self.file.display().to_string());
        daemon.config_modified_at = self.modified.map(wall_clock::text);
        daemon.config_loaded_at = wall_clock::now();
        daemon.config_error = None;
    }
}
