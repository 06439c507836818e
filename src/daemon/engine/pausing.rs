//! An operator pauses what the daemon sends, and lets it go on.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use super::Engine;
use crate::daemon::control::{Answer, Asked, Request};
use crate::daemon::pause;
use crate::report::count;
use crate::report::snapshot::Paused;

impl Engine {
    /// Carries out an operator's request.
    pub(super) fn asked(&mut self, asked: Asked) {
        let Asked { request, uid, answer } = asked;
        let done = match request {
            Request::Pause { for_ms, reason } => {
                self.hold(Paused::new(Duration::from_millis(for_ms), reason, uid))
            }
            Request::Resume => self.resume(),
        };
        // A client that has gone does not read it.
        let _ = answer.send(done);
    }

    /// The same, which heeds operators.
    pub(in crate::daemon) fn asked_by(self, requests: mpsc::UnboundedReceiver<Asked>) -> Engine {
        Engine { requests, ..self }
    }

    /// The same, which goes on with the pause of the daemon before this one.
    pub(super) fn held_as_before(mut self) -> Engine {
        let before = self.state_file.as_ref().and_then(|file| Paused::read(file.directory()?));
        if let Some(paused) = before {
            tracing::warn!("{}, as before this start", words(&paused));
            self.hold_until(Some(paused));
        }
        self
    }

    fn hold(&mut self, paused: Paused) -> Answer {
        let told = words(&paused);
        tracing::warn!(
            "{told}, by the user {}; {} under way",
            paused.by_uid,
            count(self.running.len(), "announcement")
        );
        self.hold_until(Some(paused));
        self.keep_pause().map(|()| told.clone()).map_err(|why| format!("{told}, but {why}"))
    }

    fn resume(&mut self) -> Answer {
        if self.paused.is_none() {
            return Ok("announced was not paused".into());
        }
        let told = format!("announced sends again; {} under way", count(self.running.len(), "announcement"));
        tracing::info!("{told}: an operator ended the pause");
        self.hold_until(None);
        self.keep_pause().map(|()| told.clone()).map_err(|why| format!("{told}, but {why}"))
    }

    /// The pause has lasted as long as it was to last.
    pub(super) fn end_of_pause(&mut self) {
        tracing::info!("the pause has ended; {} under way", count(self.running.len(), "announcement"));
        self.hold_until(None);
        if let Err(why) = self.keep_pause() {
            tracing::warn!("{why}");
        }
    }

    fn hold_until(&mut self, paused: Option<Paused>) {
        let left = paused.as_ref().map(Paused::left);
        self.paused = paused.zip(left.map(|left| Instant::now() + left));
        if let Some(pace) = &self.host.pace {
            pace.hold(left.unwrap_or_default());
        }
    }

    fn keep_pause(&self) -> Result<(), String> {
        let Some(directory) = self.state_file.as_ref().and_then(|file| file.directory()) else {
            return Ok(());
        };
        let paused = self.paused.as_ref().map(|(paused, _)| paused);
        pause::keep(paused, directory)
            .map_err(|error| format!("a daemon that starts from now on does not know that: {error}"))
    }
}

/// `announced is paused until 2026-11-25T18:49:01Z (switch replaced): nothing is sent, …`.
fn words(paused: &Paused) -> String {
    let reason = paused.reason.as_ref().map(|reason| format!(" ({reason})")).unwrap_or_default();
    let until = paused.until.get(..19).unwrap_or_default();
    format!("announced is paused until {until}Z{reason}: nothing is sent, and what is to be announced waits")
}

/// Waits for the end of the pause, if there is one.
pub(super) async fn ends(paused: Option<Instant>) {
    match paused {
        Some(end) => tokio::time::sleep_until(end).await,
        None => std::future::pending().await,
    }
}
