//! Limits the router solicitations of all announcements.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::time::Instant;

use crate::announcement::question::SolicitationLimit;

/// A bridge and a VLAN.
type Segment = (String, Option<u16>);

/// The router solicitations of all announcements.
#[derive(Debug, Clone)]
pub(crate) struct Solicitor(Arc<(Instant, Mutex<SolicitationLimit<Segment>>)>);

impl Solicitor {
    /// No solicitation sent yet.
    pub(crate) fn new() -> Solicitor {
        Solicitor(Arc::new((Instant::now(), Mutex::default())))
    }

    /// Whether a segment permits `count` more now; if so, they count.
    pub(crate) fn permits(&self, segment: Segment, count: usize) -> bool {
        let (began, limit) = &*self.0;
        let mut limit = limit.lock().unwrap_or_else(PoisonError::into_inner);
        limit.permits(segment, count, began.elapsed())
    }
}
