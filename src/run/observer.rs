//! Follows an announcement's frames with a witness, and says of each round how it fared.

use std::time::Duration;

use pnet_base::MacAddr;
use tokio::time::Instant;

use crate::announcement::frame::Frame;
use crate::announcement::injection::Method;
use crate::host::witness::{Watch, Witness};
use crate::path::hop::Hop;
use crate::path::readiness::Assessment;
use crate::proof::capture_point::CapturePath;
use crate::proof::delivery::{Delivery, RoundFate};
use crate::report::evidence::Evidence;
use crate::run::diagnose;
use crate::run::order::Host;

/// A frame that has not shown on the uplink by then is lost: it may still be on its way through Open vSwitch.
const LOST_AFTER: Duration = Duration::from_millis(5);
/// The same, where Open vSwitch has said that it is through with it.
const LOST_AFTER_PACKET_OUT: Duration = Duration::from_millis(1);

/// The proof of one announcement, and what it is drawn from.
#[derive(Debug)]
pub(crate) struct Observer {
    witness: Witness,
    began: Instant,
    mac: MacAddr,
    /// The frames' way, all of it.
    path: CapturePath,
    watch: Option<Watch>,
    /// Why nothing can be seen.
    blind: Option<String>,
    /// What is proved so far.
    pub proof: Delivery,
}

impl Observer {
    /// Sees the rounds of `frames` take `path`, for an event at `began`: leave the host, to begin with. Every socket more would
    /// delay the first frame.
    pub(crate) fn new(
        witness: Witness,
        began: Instant,
        mac: MacAddr,
        frames: &[Frame],
        path: CapturePath,
    ) -> Observer {
        let proof = Delivery::new(mac, frames, path.clone());
        let mut observer = Observer { witness, began, mac, path, watch: None, blind: None, proof };
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
        self.proof.follow(if everywhere { path } else { path.exits_only() });
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
        Evidence::of(&self.proof, unseen, &why)
    }

    /// A round is about to be sent.
    pub(crate) fn begin(&mut self) {
        self.proof.begin();
        self.look_on();
    }

    /// What passes from now on is of the round that began last.
    pub(crate) fn look_on(&mut self) {
        let awaited = self.proof.returned().is_none();
        self.watch.iter_mut().for_each(|watch| watch.begin(awaited));
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
        let has_exits = self.proof.path().points().iter().any(|place| place.is_uplink);
        let deadline = Instant::now() + if has_exits { patience } else { Duration::ZERO };
        let fate = loop {
            watch.so_far().iter().for_each(|sighting| self.proof.saw(sighting));
            let fate = self.proof.fate();
            // Of a round that had its time, what was seen meanwhile has been looked at once more.
            if fate == RoundFate::Left || Instant::now() >= deadline {
                watch.end(self.proof.returned().is_none());
                break fate;
            }
            tokio::select! {
                sighting = watch.next() => self.proof.saw(&sighting),
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
        let sighting = watch.next().await;
        let awaited = self.proof.returned().is_none();
        self.proof.saw(&sighting);
        if awaited && self.proof.returned().is_some() {
            watch.end(false);
        }
    }
}
