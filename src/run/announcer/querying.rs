//! Queries the guest for its multicast groups.

use std::time::Duration;

use super::{Run, Signals};
use crate::announcement::progress::Outcome;
use crate::announcement::query;
use crate::announcement::quota::Part;
use crate::path::readiness::Assessment;
use crate::report::multicast::Multicast;
use crate::run::host::Host;
use crate::run::inward;

impl Run {
    /// When the next query is due; none before a round has left. The first is sent also where that was the only round.
    pub(super) fn next_query(&self) -> Option<Duration> {
        let is_reachable = self.multicast.unavailable.is_none();
        let count = match self.machine.progress().outcome {
            None => self.order.queries,
            Some(Outcome::Announced) => self.order.queries.min(1),
            Some(_) => 0,
        };
        self.queries.due(count).filter(|_| self.machine.is_ready() && is_reachable)
    }

    /// Sends the query that is due. Its result does not affect the announcement.
    pub(super) async fn query_guest(&mut self, host: &Host, seen: &Assessment, signals: &Signals) {
        if self.machine.progress().rounds > 0 {
            self.queries.begin(self.now());
        }
        if self.next_query().is_none_or(|due| self.now() < due) {
            return;
        }
        let target = &self.order.target;
        let to = match inward::to_guest(target, host, seen) {
            Ok(to) => to,
            Err(why) => return self.cannot_query(why.to_string()),
        };
        let frames = query::queries(target.mac, &self.order.tags());
        if let (Some(pace), false) = (&host.pace, self.order.settings.dry_run) {
            tokio::select! {
                _ = pace.turn(Part::questions(self.multicast.queries), frames.len()) => {}
                () = signals.must_stop() => return,
            }
        }
        let device = seen.attachment.as_ref().and_then(|attachment| attachment.entry.ifindex);
        self.observer.iter_mut().for_each(|observer| observer.listen_for_reports(device));
        let at = self.now();
        if !self.order.settings.dry_run {
            let frames: Vec<&[u8]> = frames.iter().map(Vec::as_slice).collect();
            let sent = tokio::select! {
                sent = host.injectors.send_inward(&to, &frames) => sent,
                () = signals.must_stop() => return,
            };
            if let Err(error) = sent {
                return self.cannot_query(error.to_string());
            }
        }
        self.multicast.queries += 1;
        self.queries.sent(at);
    }

    fn cannot_query(&mut self, why: String) {
        let queries = self.multicast.queries;
        self.multicast = Multicast { queries, ..Multicast::unavailable(why) };
    }
}
