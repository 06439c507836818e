//! Bounds the router solicitations of all announcements.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::time::Instant;

use crate::announcement::question::SolicitationLimit;

/// A bridge, and a VLAN there.
type Segment = (String, Option<u16>);

/// The router solicitations of all announcements.
#[derive(Debug, Clone)]
pub(crate) struct Solicitor(Arc<(Instant, Mutex<SolicitationLimit<Segment>>)>);

impl Solicitor {
    /// None was sent yet.
    pub(crate) fn new() -> Solicitor {
        Solicitor(Arc::new((Instant::now(), Mutex::default())))
    }

    /// Whether `count` more may be sent now on a segment, which count if so.
    pub(crate) fn permits(&self, segment: Segment, count: usize) -> bool {
        let (began, limit) = &*self.0;
        let mut limit = limit.lock().unwrap_or_else(PoisonError::into_inner);
        limit.permits(segment, count, began.elapsed())
    }
}
