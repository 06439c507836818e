//! Drops capabilities that are no longer needed (capabilities(7)).

use caps::{CapSet, Capability, CapsHashSet};

/// The kernel refuses to drop capabilities.
#[derive(Debug, thiserror::Error)]
#[error("cannot give up capabilities: {0}")]
pub(crate) struct PrivilegesError(caps::errors::CapsError);

/// Keeps only the capabilities in `kept`; existing sockets and programs continue to work. CAP_BPF stays if `works` returns
/// false without it.
///
/// Call this before starting threads: capabilities belong to a thread.
pub(crate) fn drop_all_but(kept: &[Capability], works: impl Fn() -> bool) -> Result<(), PrivilegesError> {
    let mut kept: CapsHashSet = kept.iter().copied().collect();
    let failed = PrivilegesError;
    let permitted = caps::read(None, CapSet::Permitted).map_err(failed)?;
    let left = |kept: &CapsHashSet| permitted.intersection(kept).copied().collect::<CapsHashSet>();
    caps::set(None, CapSet::Effective, &left(&kept)).map_err(failed)?;
    if !works() {
        kept.insert(Capability::CAP_BPF);
    }
    if permitted.contains(&Capability::CAP_SETPCAP) {
        caps::raise(None, CapSet::Effective, Capability::CAP_SETPCAP).map_err(failed)?;
        for capability in caps::all().difference(&kept) {
            // A capability that this kernel does not know can be neither held nor dropped.
            let _ = caps::drop(None, CapSet::Bounding, *capability);
        }
    }
    caps::set(None, CapSet::Inheritable, &CapsHashSet::new()).map_err(failed)?;
    caps::set(None, CapSet::Effective, &left(&kept)).map_err(failed)?;
    caps::set(None, CapSet::Permitted, &left(&kept)).map_err(failed)
}
