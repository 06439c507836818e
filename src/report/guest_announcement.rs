//! The guest's own announcement in a report.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// Whether libvirt was asked to have the guest announce itself, has done so, and the guest has.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct GuestAnnouncement {
    /// From the event to the request.
    pub asked_after_ms: f64,
    /// From the event to when libvirt had told the guest.
    pub told_after_ms: Option<f64>,
    /// Why it was not told.
    pub error: Option<String>,
    /// From the event to the first announcement that left the host and named an address which ours do not name.
    pub left_after_ms: Option<f64>,
    /// These addresses.
    pub addresses: Vec<IpAddr>,
}

impl GuestAnnouncement {
    /// libvirt was asked then, and has not answered yet.
    pub(crate) fn asked(at_ms: f64) -> GuestAnnouncement {
        let error = Some("libvirt has not answered yet".into());
        GuestAnnouncement { asked_after_ms: at_ms, error, ..GuestAnnouncement::default() }
    }

    /// It has answered then: the guest was told, or why it was not.
    pub(crate) fn answered(&mut self, at_ms: f64, error: Option<String>) {
        (self.told_after_ms, self.error) = (error.is_none().then_some(at_ms), error);
    }

    /// Adds what has left the host of its announcements: the first one's time, and the addresses that ours do not name.
    pub(crate) fn with_own(
        self,
        at_ms: Option<f64>,
        addresses: impl Iterator<Item = IpAddr>,
    ) -> GuestAnnouncement {
        GuestAnnouncement { left_after_ms: at_ms, addresses: addresses.collect(), ..self }
    }

    /// The result in a line.
    pub(crate) fn line(&self) -> String {
        let addresses: Vec<String> = self.addresses.iter().map(IpAddr::to_string).collect();
        let named = self
            .left_after_ms
            .map(|at| format!("; it has named {} itself after {at} ms", addresses.join(", ")));
        match (self.told_after_ms, &self.error) {
            (Some(at), _) => format!("told to announce itself after {at} ms{}", named.unwrap_or_default()),
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
        announcement.left_after_ms = Some(31.0);
        announcement.addresses = ["192.0.2.77", "2001:db8::77"].map(|ip| ip.parse().unwrap()).into();
        let expected =
            "told to announce itself after 2.5 ms; it has named 192.0.2.77, 2001:db8::77 itself after 31 ms";
        assert_eq!(announcement.line(), expected);
    }
}
