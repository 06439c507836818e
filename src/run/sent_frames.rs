//! The frames that all announcements of this process have sent so far, also those that are under way.

use std::sync::{Arc, Mutex, PoisonError};

use crate::announcement::frame::Frame;
use crate::report::evidence::Tally;

/// Counts them; clones share the counts.
#[derive(Debug, Clone, Default)]
pub(crate) struct SentFrames(Arc<Mutex<Tally>>);

impl SentFrames {
    /// Counts frames that were sent.
    pub(crate) fn add(&self, frames: &[Frame]) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        frames.iter().for_each(|frame| counts.add(frame.kind));
    }

    /// The counts.
    pub(crate) fn so_far(&self) -> Tally {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
