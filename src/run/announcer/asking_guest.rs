//! Has the guest announce itself, beside the rounds.

use super::{Run, millis};
use crate::announcement::quota::Part;
use crate::host::libvirt::LibvirtError;
use crate::report::guest_announcement::GuestAnnouncement;
use crate::run::guest_asker::Answer;
use crate::run::host::Host;

impl Run {
    /// Asks once, when the first round has left: what the guest says before is lost like that. Nothing waits for the answer.
    pub(super) fn ask_guest(&mut self, host: &Host) {
        let has_begun = self.machine.is_ready() && self.machine.progress().rounds > 0;
        if !has_begun
            || self.machine.has_ended()
            || self.guest_announcement.is_some()
            || self.order.settings.dry_run
        {
            return;
        }
        let asked = self.order.settings.ask_guest.as_ref().and_then(|asker| asker.ask(&self.order.target));
        let Some(asked) = asked else { return };
        self.guest_announcement = Some(GuestAnnouncement::asked(millis(self.now())));
        self.observer.iter_mut().for_each(|observer| observer.listen_to_guest());
        // The guest says about as much as a round does.
        let (pace, frames) = (host.pace.clone(), self.frames.len());
        self.guest_answer = Some(Box::pin(async move {
            if let Some(pace) = pace {
                pace.turn(Part::questions(0), frames).await;
            }
            asked.await
        }));
    }

    /// What libvirt has answered.
    pub(super) fn guest_answered(&mut self, answer: Result<(), LibvirtError>) {
        self.guest_answer = None;
        let now = millis(self.now());
        if let Some(announcement) = &mut self.guest_announcement {
            announcement.answered(now, answer.err().map(|error| error.to_string()));
        }
    }
}

/// Waits for libvirt's answer, if it was asked.
pub(super) async fn answered(answer: &mut Option<Answer>) -> Result<(), LibvirtError> {
    match answer {
        Some(answer) => answer.await,
        None => std::future::pending().await,
    }
}
