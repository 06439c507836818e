//! Waits until a file exists, without polling (inotify(7)).

use std::io;
use std::path::Path;

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

use crate::host::sys;

/// Returns when `path` exists; its directories may be missing, too.
///
/// # Errors
///
/// The kernel cannot watch: the host's limit of watches is reached, or a directory is unreadable.
pub(super) async fn of(path: &Path) -> io::Result<()> {
    // The deepest existing directory of the path: the next component will be created in it.
    let nearest = || path.ancestors().skip(1).find(|directory| directory.is_dir());
    while !path.exists() {
        let directory = nearest().ok_or(io::ErrorKind::NotFound)?;
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        let made = AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO;
        let gone = AddWatchFlags::IN_DELETE_SELF | AddWatchFlags::IN_MOVE_SELF;
        inotify.add_watch(directory, made | gone | AddWatchFlags::IN_ONLYDIR)?;
        // A file created before the watch causes no event.
        if !path.exists() && nearest() == Some(directory) {
            sys::readable(inotify.into())?.readable().await.map(drop)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_file_is_awaited_through_directories_that_come_and_go() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("run/openvswitch");
        let socket = directory.join("db.sock");
        let arrival = of(&socket);
        tokio::pin!(arrival);
        let mut is_there =
            async || tokio::time::timeout(Duration::from_millis(50), &mut arrival).await.is_ok();
        assert!(!is_there().await);
        std::fs::create_dir_all(&directory).unwrap();
        assert!(!is_there().await);
        std::fs::write(directory.join("another"), "").unwrap();
        assert!(!is_there().await);
        std::fs::remove_dir_all(&directory).unwrap();
        assert!(!is_there().await);
        std::fs::create_dir_all(&directory).unwrap();
        assert!(!is_there().await);
        std::fs::write(&socket, "").unwrap();
        tokio::time::timeout(Duration::from_secs(30), arrival).await.unwrap().unwrap();
    }
}
