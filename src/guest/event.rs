//! Events of a guest, and those that cause an announcement.

use serde::{Deserialize, Serialize};

/// Why an announcement is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// The guest came from another host, and runs here.
    Migrated,
    /// The guest was restored from a file, and runs.
    Restored,
    /// The guest was booted here.
    Started,
    /// The guest got a NIC.
    Plugged,
    /// A NIC is on another bridge than before.
    Moved,
    /// The host's end of a NIC was down, and is up again.
    LinkUp,
    /// The guest has stopped at the source of its migration, and does not run here yet.
    Handover,
    /// The guest had stopped for its migration, which failed: it runs on here.
    Kept,
    /// An uplink of the host, by which the guest's frames leave, has changed.
    Uplink,
    /// A command asked for it.
    Asked,
}

impl Cause {
    /// What happens by itself: every cause but a command.
    pub const EVENTS: [Cause; 9] = [
        Cause::Migrated,
        Cause::Restored,
        Cause::Started,
        Cause::Plugged,
        Cause::Moved,
        Cause::LinkUp,
        Cause::Handover,
        Cause::Kept,
        Cause::Uplink,
    ];

    /// The name of this cause in output and configuration.
    pub fn word(self) -> &'static str {
        match self {
            Cause::Migrated => "migrated",
            Cause::Restored => "restored",
            Cause::Started => "started",
            Cause::Plugged => "plugged",
            Cause::Moved => "moved",
            Cause::LinkUp => "link-up",
            Cause::Handover => "handover",
            Cause::Kept => "kept",
            Cause::Uplink => "uplink",
            Cause::Asked => "asked",
        }
    }
}

/// A change in a guest's lifecycle on this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// libvirt created it here because of `Cause`; it does not run yet.
    Arriving(Cause),
    /// It was booted and runs.
    Booted,
    /// It runs; with the cause, if libvirt gives one.
    Runs(Option<Cause>),
    /// It does not run now.
    Paused,
    /// It has stopped here, to run at the destination of its migration.
    Stops,
    /// It no longer runs here.
    Left,
    /// A device with this alias was plugged in.
    Plugged(String),
    /// Something happened to its NIC of this alias, or to the sub-port of this name.
    Touched(Cause, String),
}

/// The change that a plugged device with this alias means, or `None` if the device is no NIC.
///
/// libvirt names NICs `net0`, `net1` and so on. A user-defined alias begins with `ua-`, whatever the device is.
pub fn plugged(alias: &str) -> Option<Change> {
    let may_be_a_nic = alias.starts_with("net") || alias.starts_with("ua-");
    may_be_a_nic.then(|| Change::Plugged(alias.into()))
}

/// The change that a lifecycle event means (`virDomainEventType` and its details, `include/libvirt/libvirt-domain.h`).
///
/// The order of events per operation is measured with libvirt 9.0 and 11.3: a migrated guest emits STARTED/MIGRATED while
/// paused, and RESUMED when it runs; a booted guest emits RESUMED/UNPAUSED *before* STARTED/BOOTED.
pub fn lifecycle(event: i32, detail: i32) -> Option<Change> {
    const STARTED: i32 = 2;
    const SUSPENDED: i32 = 3;
    const RESUMED: i32 = 4;
    const STOPPED: i32 = 5;
    const SHUTDOWN: i32 = 6;
    const PMSUSPENDED: i32 = 7;
    const CRASHED: i32 = 8;
    Some(match (event, detail) {
        (STARTED, 0) => Change::Booted,
        (STARTED, 1) => Change::Arriving(Cause::Migrated),
        (STARTED, 2 | 3) => Change::Arriving(Cause::Restored),
        // MIGRATED, POSTCOPY at the switch-over, POSTCOPY_FAILED: in all three cases the guest runs here.
        (RESUMED, 1 | 3 | 4) => Change::Runs(Some(Cause::Migrated)),
        (RESUMED, 2) => Change::Runs(Some(Cause::Restored)),
        // A guest that wakes up (STARTED/WAKEUP) runs, too.
        (RESUMED, _) | (STARTED, 4) => Change::Runs(None),
        // MIGRATED, and POSTCOPY, which follows it: only the source of a migration emits them.
        (SUSPENDED, 1 | 7) => Change::Stops,
        (SUSPENDED | PMSUSPENDED, _) => Change::Paused,
        (STOPPED | SHUTDOWN | CRASHED, _) => Change::Left,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plugged_disk_is_no_nic() {
        assert_eq!(plugged("virtio-disk1"), None);
        assert_eq!(plugged("net1"), Some(Change::Plugged("net1".into())));
        assert_eq!(plugged("ua-uplink"), Some(Change::Plugged("ua-uplink".into())));
    }
}
