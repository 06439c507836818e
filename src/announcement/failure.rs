//! Why an announcement has no success, for programs.

/// What ended an announcement, other than a condition of its port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// No way in works.
    Injector,
    /// No frame left the host.
    Departure,
    /// The host routes to the guest: there is no network to announce it on.
    NoNetwork,
    /// The NIC has no address for the kinds of frames that are asked for.
    NothingToSend,
    /// The host's devices cannot be followed any more.
    Netlink,
    /// The program was told to end.
    Interrupted,
    /// A guest without libvirt's word is behind another port of its bridge.
    Moved,
    /// The guest runs on at the source of its migration.
    Kept,
    /// The port keeps no packets for a guest that does not run yet, or is not to be announced before.
    NotEarly,
    /// The configuration leaves the NIC out.
    Excluded,
    /// No host can announce such a NIC.
    Unannounceable,
}

impl Failure {
    /// Every failure.
    pub const ALL: [Failure; 11] = [
        Failure::Injector,
        Failure::Departure,
        Failure::NoNetwork,
        Failure::NothingToSend,
        Failure::Netlink,
        Failure::Interrupted,
        Failure::Moved,
        Failure::Kept,
        Failure::NotEarly,
        Failure::Excluded,
        Failure::Unannounceable,
    ];

    /// Its code in reports. The first two are those of what an announcement waits for, too.
    pub fn code(self) -> &'static str {
        match self {
            Failure::Injector => "injector",
            Failure::Departure => "departure",
            Failure::NoNetwork => "no-network",
            Failure::NothingToSend => "nothing-to-send",
            Failure::Netlink => "netlink",
            Failure::Interrupted => "interrupted",
            Failure::Moved => "moved",
            Failure::Kept => "kept",
            Failure::NotEarly => "not-early",
            Failure::Excluded => "excluded",
            Failure::Unannounceable => "unannounceable",
        }
    }
}
