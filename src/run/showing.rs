//! Shows how an announcement stands while it is under way: to the daemon's status, and in the log when something has changed.

use std::time::Duration;

use super::signals::Signals;
use super::stage::{Stage, View};
use crate::guest::event::Cause;
use crate::log::WAITING;
use crate::path::condition::Condition;
use crate::report::unmet::{self, Unmet};

/// A port that comes and goes adds at most so many lines to the log; the end of its announcement has one of its own.
const MAX_LINES: u32 = 20;

/// What the log was told.
#[derive(Debug, Default)]
pub(super) struct Shown {
    has_waited: bool,
    lines: u32,
}

impl Shown {
    /// Shows `view`, if it is new.
    pub(super) fn update(&mut self, view: &View<'_>, to: &Signals) {
        if let Some(last) = to.show(|last| Stage::after(last, view)) {
            self.lines(view, last.as_ref()).iter().for_each(|words| self.tell(view, words));
        }
    }

    /// What the log gets of it.
    fn lines(&mut self, view: &View<'_>, last: Option<&Stage>) -> Vec<String> {
        let mut lines = Vec::new();
        let progress = view.machine.progress();
        let (unmet, rounds) = (&view.seen.unmet, progress.rounds);
        let had = |is: &dyn Fn(&Stage) -> bool| last.is_some_and(is);
        // It mostly lasts a millisecond.
        let is_passing = unmet.iter().all(|condition| matches!(condition, Condition::NotApplied { .. }));
        if !is_passing && !had(&|last| *last.unmet == **unmet) {
            let words = unmet::words(&Unmet::all(unmet, &view.order.target, view.seen.in_charge.0));
            let cause = match (view.order.cause, self.has_waited) {
                (Cause::Asked, _) | (_, true) => String::new(),
                (cause, false) => format!("{}; ", cause.word()),
            };
            let left = view.machine.deadline().map(|end| end.saturating_sub(view.now));
            let left = left.map(|left| format!("; at most {left:.0?}")).unwrap_or_default();
            self.has_waited = true;
            lines.push(format!("{cause}waiting: {words}{left}"));
        }
        if view.order.settings.dry_run {
            return lines;
        }
        if rounds > 0 && !had(&|last| last.rounds > 0) {
            lines.push(self.first_round(view));
        }
        if rounds == 0 && progress.lost > 0 && !had(&|last| last.lost > 0) {
            lines.push("the first round did not leave the host; it is sent again".into());
        }
        // Of one that has ended, it is why it has.
        let is_tried = unmet.is_empty() && progress.outcome.is_none();
        if let (true, Some(why), false) = (is_tried, view.why, had(&|last| last.why.as_deref() == view.why)) {
            lines.push(format!("nothing leaves the host: {why}; it is tried again"));
        }
        lines
    }

    /// `ready after 3002.5 ms, first round left br-int by up0 in VLAN 100 after 3002.9 ms; 9 more rounds within 9.15s`.
    fn first_round(&self, view: &View<'_>) -> String {
        let progress = view.machine.progress();
        let ms = |at: Option<Duration>| at.unwrap_or_default().as_secs_f64() * 1e3;
        let ready = match self.has_waited {
            true => format!("ready after {:.1} ms, ", ms(progress.ready_at)),
            false => String::new(),
        };
        let how = view.departure.as_ref().map_or("was sent".to_owned(), ToString::to_string);
        let first = ms(progress.first_frame_at);
        let offsets = view.order.settings.schedule.offsets();
        let more = match (view.order.settings.schedule.count.saturating_sub(progress.rounds), offsets.last())
        {
            (0, _) | (_, None) => String::new(),
            (more, Some(last)) => {
                format!("; {more} more {} within {last:?}", if more == 1 { "round" } else { "rounds" })
            }
        };
        format!("{ready}first round {how} after {first:.1} ms{more}")
    }

    fn tell(&mut self, view: &View<'_>, words: &str) {
        self.lines += 1;
        if self.lines > MAX_LINES {
            return;
        }
        let target = &view.order.target;
        let (domain, device) = (target.domain.as_ref().map(|domain| &*domain.name), view.seen.device(target));
        let (mac, subject) = (target.mac.to_string(), target.subject(device.clone()));
        tracing::info!(target: WAITING, domain, vm = domain, device, mac, "{subject}: {words}");
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;
    use crate::announcement::machine::{Announcement, Round};
    use crate::announcement::schedule::Schedule;
    use crate::config::Config;
    use crate::guest::target::{Plug, Target};
    use crate::path::owner::Owner;
    use crate::path::readiness::Assessment;
    use crate::run::order::Order;

    #[test]
    fn an_announcement_that_has_ended_is_not_tried_again() {
        let target = Target::of_device(Plug::default(), pnet_base::MacAddr(2, 0, 0, 0, 0, 1));
        let order = Order::new(target, &Config::default(), &[], None);
        let seen = Assessment {
            attachment: None,
            ofport: None,
            settles_in: None,
            in_charge: (Owner::Nobody, String::new()),
            vlan: None,
            unmet: Vec::new(),
        };
        let mut machine = Announcement::new(Schedule::default(), Duration::ZERO);
        machine.observe(Duration::ZERO, &seen);
        machine.sent(Round { at: Duration::ZERO, left: false, only_rarp: false, answered: false });
        let lines = |shown: &mut Shown, machine: &Announcement, why: &str| {
            let view = View {
                order: &order,
                seen: &seen,
                machine,
                condition: None,
                departure: None,
                why: Some(why),
                began: Instant::now(),
                now: Duration::ZERO,
            };
            shown.lines(&view, None)
        };
        let mut shown = Shown::default();
        let under_way = lines(&mut shown, &machine, "up0 is down");
        assert_eq!(under_way.last().unwrap(), "nothing leaves the host: up0 is down; it is tried again");
        machine.cancel(None, "interrupted");
        let ended = lines(&mut shown, &machine, "interrupted (after 0 of 10 rounds)");
        assert!(ended.iter().all(|line| !line.contains("tried again")), "{ended:?}");
    }
}
