//! Follows an announcement's frames with a witness, and says of each round how it fared.

use std::time::Duration;

use pnet_base::MacAddr;
use tokio::time::Instant;

use crate::announcement::frame::Frame;
use crate::announcement::injection::Method;
use crate::announcement::question::Question;
use crate::host::witness::Watch;
use crate::path::hop::{Edge, Hop};
use crate::path::readiness::Assessment;
use crate::proof::answer::{AnsweredBy, Inquiry};
use crate::proof::capture_point::{CapturePath, Direction};
use crate::proof::delivery::{Delivery, RoundFate, Sighting};
use crate::report::evidence::Evidence;
use crate::run::diagnose;
use crate::run::order::{Capture, Host};

/// A frame that has not shown on the uplink by then is lost: it may still be on its way through Open vSwitch.
const LOST_AFTER: Duration = Duration::from_millis(5);
/// The same, where Open vSwitch has said that it is through with it.
const LOST_AFTER_PACKET_OUT: Duration = Duration::from_millis(1);

/// Frames that come in are looked for again after so long, while they are many: within [`MOMENT`] of the event, and later.
const WINDOW: Duration = Duration::from_millis(100);
const LATE_WINDOW: Duration = Duration::from_millis(500);
const MOMENT: Duration = Duration::from_secs(1);

/// The proof of one announcement, and what it is drawn from.
#[derive(Debug)]
pub(crate) struct Observer {
    witness: Capture,
    began: Instant,
    mac: MacAddr,
    /// The frames' way, all of it.
    path: CapturePath,
    watch: Option<Watch>,
    /// Why nothing can be seen.
    blind: Option<String>,
    /// What is proved so far.
    pub proof: Delivery,
    /// Shows answers that come to the guest, once something was asked.
    guests_device: Option<Watch>,
    /// What was asked, and answered.
    pub inquiry: Option<Inquiry>,
    /// When it is looked for more frames that come in.
    rearm_at: Instant,
}

impl Observer {
    /// Sees the rounds of `frames` take `path`, for an event at `began`: leave the host, to begin with. Every socket more would
    /// delay the first frame.
    pub(crate) fn new(
        witness: Capture,
        began: Instant,
        mac: MacAddr,
        frames: &[Frame],
        path: CapturePath,
    ) -> Observer {
        let proof = Delivery::new(mac, frames, path.clone());
        let mut observer = Observer {
            witness,
            began,
            mac,
            path,
            watch: None,
            blind: None,
            proof,
            guests_device: None,
            inquiry: None,
            rearm_at: began,
        };
        let is_blind = observer.path.blind().next().is_some();
        observer.look(is_blind);
        observer
    }

    /// Sees to it that frames are looked for along `path`.
    pub(crate) fn follow(&mut self, path: CapturePath) {
        if self.path != path {
            self.path = path;
            self.look(!self.proof.path().is_exits_only());
        }
    }

    /// Looks at every hop.
    pub(crate) fn look_everywhere(&mut self) {
        if self.proof.path().is_exits_only() {
            self.look(true);
        }
    }

    fn look(&mut self, everywhere: bool) {
        let path = self.path.clone();
        let path = if everywhere { path } else { path.exits_only() };
        self.inquiry.iter_mut().for_each(|inquiry| inquiry.passage.follow(path.clone()));
        self.proof.follow(path);
        let watch = self.witness.watch(self.proof.path().points(), self.mac, self.began);
        (self.watch, self.blind) = match watch {
            Ok(watch) => (Some(watch), None),
            Err(error) => (None, Some(error.to_string())),
        };
    }

    /// Why it cannot be seen whether frames leave the host, where it cannot.
    pub(crate) fn unseen(&self) -> Option<String> {
        self.blind.clone().or_else(|| self.proof.unseen())
    }

    /// Whether frames that pass this hop show.
    pub(crate) fn is_seen(&self, hop: &Hop) -> bool {
        self.blind.is_none() && self.proof.path().outward(hop).is_some()
    }

    /// What it has come to, with what the host's bridges can add.
    pub(crate) async fn evidence(&self, host: &Host, seen: &Assessment) -> Evidence {
        let mut unseen = self.unseen();
        let why = match unseen {
            None => diagnose::why(host, seen, &self.proof).await,
            Some(_) => Vec::new(),
        };
        if let (Some(unseen), None, Some(frame)) =
            (&mut unseen, self.proof.departure(), self.proof.frames().first())
        {
            if let Some(words) = diagnose::ofproto(host, seen, std::slice::from_ref(frame)).await.pop() {
                *unseen += &format!("; Open vSwitch has for it {words}");
            }
        }
        let evidence = Evidence::of(&self.proof, unseen, &why);
        let Some(inquiry) = &self.inquiry else {
            return evidence;
        };
        let why = match evidence.unseen {
            None => diagnose::why(host, seen, &inquiry.passage).await,
            Some(_) => Vec::new(),
        };
        evidence.with_inquiry(inquiry, &self.proof, &why, self.began.elapsed())
    }

    /// A round is about to be sent.
    pub(crate) fn begin(&mut self) {
        self.proof.begin();
        self.look_on();
    }

    /// A round of some of the frames is about to be sent.
    pub(crate) fn begin_some(&mut self, round: &[Frame]) {
        self.proof.begin_some(round);
        self.look_on();
    }

    /// What passes from now on is of the round that began last.
    pub(crate) fn look_on(&mut self) {
        self.watch.iter_mut().for_each(Watch::begin);
    }

    /// These questions are about to be sent, for a guest with this device.
    pub(crate) fn ask(&mut self, questions: &[Question], device: Option<u32>) {
        if self.guests_device.is_none() {
            // Without it, only what comes in by an edge is seen to be an answer.
            let watch = device.map(|device| self.witness.watch_guest(device, self.mac, self.began));
            self.guests_device = watch.and_then(Result::ok);
        }
        let (mac, path) = (self.mac, self.proof.path());
        let inquiry =
            self.inquiry.get_or_insert_with(|| Inquiry::new(mac, Delivery::new(mac, &[], path.clone())));
        inquiry.ask(questions, self.began.elapsed());
        self.look_on();
    }

    /// The questions have been sent: returns when they have left, or would have.
    pub(crate) async fn asked(&mut self) {
        let deadline = Instant::now() + LOST_AFTER;
        let Some(watch) = &mut self.watch else {
            return;
        };
        loop {
            for sighting in watch.so_far() {
                take(&mut self.proof, &mut self.inquiry, &sighting);
            }
            let is_under_way = |inquiry: &Inquiry| inquiry.passage.fate() != RoundFate::Left;
            if !self.inquiry.as_ref().is_some_and(is_under_way) || Instant::now() >= deadline {
                return;
            }
            tokio::select! {
                sighting = watch.next() => take(&mut self.proof, &mut self.inquiry, &sighting),
                () = tokio::time::sleep_until(deadline) => {}
            }
        }
    }

    /// The network is known to know the guest here.
    pub(crate) fn is_answered(&self) -> bool {
        let by_network = self.inquiry.as_ref().is_some_and(Inquiry::is_answered_by_network);
        by_network || self.proof.returned().is_some()
    }

    /// How the round that has just been sent fares: as soon as that is certain.
    pub(crate) async fn judge(&mut self) -> RoundFate {
        let Some(watch) = &mut self.watch else {
            return RoundFate::Unseen;
        };
        let patience = match self.proof.path().method() {
            Method::PacketOut => LOST_AFTER_PACKET_OUT,
            _ => LOST_AFTER,
        };
        // Elsewhere nothing is to be expected.
        let has_exits = self.proof.path().points().iter().any(|point| point.is_uplink);
        let deadline = Instant::now() + if has_exits { patience } else { Duration::ZERO };
        let fate = loop {
            for sighting in watch.so_far() {
                take(&mut self.proof, &mut self.inquiry, &sighting);
            }
            let fate = self.proof.fate();
            // Of a round that had its time, what was seen meanwhile has been looked at once more.
            if fate == RoundFate::Left || Instant::now() >= deadline {
                watch.end();
                break fate;
            }
            tokio::select! {
                sighting = watch.next() => take(&mut self.proof, &mut self.inquiry, &sighting),
                () = tokio::time::sleep_until(deadline) => {}
            }
        };
        if matches!(fate, RoundFate::Lost | RoundFate::Partly) {
            // Of the next round it is to be known where it ends.
            self.look_everywhere();
        }
        if fate == RoundFate::Lost {
            // On a busy host the frames of a round that was given up may be on their way still.
            self.look_on();
        }
        fate
    }

    /// Takes the next sighting into account, between two rounds.
    pub(crate) async fn see(&mut self) {
        let Some(watch) = &mut self.watch else {
            return std::future::pending().await;
        };
        let on_guests_device = async {
            match &mut self.guests_device {
                Some(watch) => watch.next().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            sighting = watch.next() => take(&mut self.proof, &mut self.inquiry, &sighting),
            sighting = on_guests_device => take_answer(&self.proof, &mut self.inquiry, &sighting),
            () = tokio::time::sleep_until(self.rearm_at), if self.proof.returned().is_some() => {
                watch.rearm();
                let now = Instant::now();
                let is_early = now.duration_since(self.began) < MOMENT;
                self.rearm_at = now + if is_early { WINDOW } else { LATE_WINDOW };
            }
        }
    }
}

/// Takes a frame into account that was seen on its way, or at an edge.
fn take(proof: &mut Delivery, inquiry: &mut Option<Inquiry>, sighting: &Sighting) {
    if let Some(inquiry) = inquiry {
        let by = proof.came_in(sighting).map(|edge| match edge {
            Edge::Host => AnsweredBy::Host,
            _ => AnsweredBy::Network,
        });
        if by.is_some() && inquiry.answered(sighting, by) {
            return;
        }
        inquiry.passage.saw(sighting);
    }
    proof.saw(sighting);
}

/// Takes a frame into account that the guest was sent: what has not come in by an edge is from this host, unless the host has
/// edges that show nothing.
fn take_answer(proof: &Delivery, inquiry: &mut Option<Inquiry>, sighting: &Sighting) {
    let by = proof.path().blind().next().is_none().then_some(AnsweredBy::Host);
    if let (Some(inquiry), Direction::Out) = (inquiry, sighting.direction) {
        inquiry.answered(sighting, by);
    }
}
