//! The part of an order that mostly is the same for all announcements of a configuration. Thousands may wait: they share it.

use std::sync::Arc;
use std::time::Duration;

use crate::announcement::frame::{Kind, Style};
use crate::announcement::injection::Method;
use crate::announcement::schedule::Schedule;
use crate::announcement::uplink;
use crate::config::{Config, ProofTable};
use crate::guest::target::Target;
use crate::path::uplinks::Uplinks;
use crate::run::guest_asker::GuestAsker;
use crate::run::link_query::LinkQuery;

/// At once, and once more if the guest does not run yet: the first round may be lost, and the usual ones follow.
const EARLY_SCHEDULE: Schedule = Schedule {
    count: 2,
    interval: Duration::from_millis(50),
    backoff: 1.0,
    max_interval: Duration::from_millis(50),
};
/// Longer than any switch-over: a guest that stays paused is given up.
const EARLY_WAIT: Duration = Duration::from_secs(60);

/// How a NIC is announced.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Settings {
    /// The settings of the frames.
    pub style: Style,
    /// All IPv6 routers are asked, too.
    pub router_solicitation: bool,
    /// When the rounds are sent.
    pub schedule: Schedule,
    /// How the departure of frames is observed.
    pub proof: ProofTable,
    /// How long the port may take to become ready; if it is endless, before that is warned of.
    pub wait: Duration,
    /// The devices by which frames leave the host, according to the configuration.
    pub uplinks: Uplinks,
    /// The injection method according to the configuration.
    pub inject: Option<Method>,
    /// Lost frames are sent again for as long as the guest is here.
    pub endless: bool,
    /// Tells whether the guest's link is up by now.
    pub link_query: Option<LinkQuery>,
    /// Has the guest announce itself.
    pub ask_guest: Option<GuestAsker>,
    /// The guest does not run here yet, and is announced all the same: its source has stopped it.
    pub early: bool,
    /// Send no frame, and do not wait between rounds.
    pub dry_run: bool,
}

impl Settings {
    /// For `target` under `config`.
    pub(super) fn new(config: &Config, target: &Target) -> Settings {
        let style = config.style(target);
        Settings {
            // A routing guest is itself asked for advertisements.
            router_solicitation: config.frames.router_solicitation && !style.router,
            style,
            // Checked when the configuration was settled.
            schedule: config.schedule().unwrap_or_default(),
            proof: config.proof,
            wait: config.ports.wait,
            uplinks: config.path.uplinks.clone(),
            inject: config.ports.inject,
            endless: false,
            link_query: None,
            ask_guest: None,
            early: false,
            dry_run: false,
        }
    }

    /// For a guest that has stopped at its source and does not run here yet. What would be answered, or would ask for an answer, is
    /// left out.
    pub(super) fn before_it_runs(&mut self) {
        self.style.send.retain(|kind| Kind::ANNOUNCEMENTS.contains(kind));
        (self.early, self.endless, self.router_solicitation) = (true, false, false);
        (self.link_query, self.ask_guest) = (None, None);
        self.proof.more_rounds = 0;
        (self.schedule, self.wait) = (EARLY_SCHEDULE, EARLY_WAIT);
    }

    /// For a change of an uplink: a few rounds and no question.
    pub(super) fn after_uplink_change(&mut self) {
        self.style.send.retain(|kind| Kind::ANNOUNCEMENTS.contains(kind));
        (self.router_solicitation, self.ask_guest) = (false, None);
        self.proof.more_rounds = 0;
        self.schedule = uplink::schedule();
    }
}

/// The settings of the orders that are carried out, each once.
#[derive(Debug, Default)]
pub(crate) struct SharedSettings(Vec<Arc<Settings>>);

impl SharedSettings {
    /// The same settings as those of other orders, where they are equal.
    pub(crate) fn share(&mut self, settings: Arc<Settings>) -> Arc<Settings> {
        if let Some(known) = self.0.iter().find(|known| **known == settings) {
            return known.clone();
        }
        self.0.retain(|known| Arc::strong_count(known) > 1);
        self.0.push(settings.clone());
        settings
    }
}
