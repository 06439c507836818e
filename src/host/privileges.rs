//! Gives up every capability that is not needed any more (capabilities(7)).

use caps::{CapSet, Capability, CapsHashSet};

/// The kernel keeps us from giving capabilities up.
#[derive(Debug, thiserror::Error)]
#[error("cannot give up capabilities: {0}")]
pub(crate) struct PrivilegesError(caps::errors::CapsError);

/// Keeps only the capabilities in `kept`; what was made before goes on working. CAP_BPF stays where `works` finds that
/// it does not without.
///
/// All threads must be started after this: a capability belongs to a thread.
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
            // One that this kernel does not know cannot be dropped, nor had.
            let _ = caps::drop(None, CapSet::Bounding, *capability);
        }
    }
    caps::set(None, CapSet::Inheritable, &CapsHashSet::new()).map_err(failed)?;
    caps::set(None, CapSet::Effective, &left(&kept)).map_err(failed)?;
    caps::set(None, CapSet::Permitted, &left(&kept)).map_err(failed)
}
