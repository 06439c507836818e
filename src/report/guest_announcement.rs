//! The guest's own announcement in a report.

use serde::{Deserialize, Serialize};

/// Whether libvirt was asked to have the guest announce itself, and has done so.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct GuestAnnouncement {
    /// From the event to the request.
    pub asked_after_ms: f64,
    /// From the event to when libvirt had told the guest.
    pub told_after_ms: Option<f64>,
    /// Why it was not told.
    pub error: Option<String>,
}

impl GuestAnnouncement {
    /// libvirt was asked then, and has not answered yet.
    pub(crate) fn asked(at_ms: f64) -> GuestAnnouncement {
        let error = Some("libvirt has not answered yet".into());
        GuestAnnouncement { asked_after_ms: at_ms, told_after_ms: None, error }
    }

    /// It has answered then: the guest was told, or why it was not.
    pub(crate) fn answered(&mut self, at_ms: f64, error: Option<String>) {
        (self.told_after_ms, self.error) = (error.is_none().then_some(at_ms), error);
    }

    /// The result in a line.
    pub(crate) fn line(&self) -> String {
        match (self.told_after_ms, &self.error) {
            (Some(at), _) => format!("told to announce itself after {at} ms"),
            (None, why) => {
                format!("not told to announce itself: {}", why.as_deref().unwrap_or_default())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guest_was_told_or_not_and_why() {
        let mut announcement = GuestAnnouncement::asked(1.0);
        assert_eq!(announcement.line(), "not told to announce itself: libvirt has not answered yet");
        announcement.answered(2.5, Some("libvirt 9.0.0 cannot".into()));
        assert_eq!(announcement.line(), "not told to announce itself: libvirt 9.0.0 cannot");
        announcement.answered(2.5, None);
        assert_eq!(announcement.line(), "told to announce itself after 2.5 ms");
    }
}
