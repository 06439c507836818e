//! What `announce` proves, held against what tcpdump saw at every hop.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Value, json};

use super::capture::{Capture, Direction};
use super::dissect::Frame;
use super::rounds::{ROUND, kinds};
use super::running::{Run, eventually};
use super::stand::Stand;

/// A device on which frames show, by its name or, for those of the guest's NIC, by their prefix; and which way they pass it.
pub type Shows<'a> = (&'a str, Direction);

/// What was said of a stand.
#[derive(Debug)]
pub struct Told {
    /// By `--json`.
    pub json: Value,
    pub run: Run,
    /// By `announce trace`, for people.
    pub text: String,
}

/// Traces one round. The path has just these devices in it, and tcpdump saw just what it says of each: these kinds of frames,
/// that way, in that VLAN.
pub fn trace(stand: &Stand, shows: &[Shows<'_>]) -> Told {
    trace_by(stand, "auto", shows)
}

pub fn trace_by(stand: &Stand, way: &str, shows: &[Shows<'_>]) -> Told {
    let text = stand.announce(&["trace", "--inject", way]);
    let shows = named(stand, shows);
    let captures = capture(stand, &shows);
    let run = stand.announce(&["trace", "--inject", way, "--json"]);
    let frames: Vec<Vec<Frame>> = captures.into_iter().map(Capture::stop).collect();

    assert_eq!((run.code, run.stderr.as_str()), (text.code, ""), "{text:#?} {run:#?}");
    let told = Told { json: super::report(&run), run, text: text.stdout };
    for ((device, _), frames) in shows.iter().zip(&frames) {
        let mut passages = told.passages();
        let passage = passages.find(|passage| passage["hop"] == **device);
        agrees(passage.unwrap_or_else(|| panic!("no {device} in {told:#?}")), frames);
    }
    // A device that is down shows no frame.
    let others = told.passages().filter(|passage| shows.iter().all(|(device, _)| passage["hop"] != **device));
    others.for_each(|passage| assert_eq!(passage["after_ms"], Value::Null, "{told:#?}"));
    told.text_agrees();
    told
}

/// Announces two rounds. What is said to have left is what tcpdump saw leave by these devices.
///
/// On a slow machine, frames that Open vSwitch takes from a device may leave after the observer's timeout; tcpdump sees that, and
/// then one more attempt is made.
pub fn announce(stand: &Stand, uplinks: &[&str]) -> Told {
    eventually("Open vSwitch in time", || {
        let entry = stand.is_hybrid.then(|| capture(stand, &[(stand.nic.tap(), Direction::In)]).remove(0));
        let shows: Vec<Shows<'_>> = uplinks.iter().map(|uplink| (*uplink, Direction::Out)).collect();
        let captures = capture(stand, &named(stand, &shows));
        let run = stand.announce(&["--count", "2", "--interval", "300ms", "--wait", "0", "--json"]);
        let frames: Vec<Frame> = captures.into_iter().flat_map(Capture::stop).collect();
        if entry.is_some_and(|entry| is_late(&entry.stop(), &frames)) {
            return None;
        }
        let told = Told { json: super::report(&run), run, text: String::new() };
        told.names_what_left(&frames);
        Some(told)
    })
}

/// Whether some frame left after the observer's timeout (`DEPARTURE_TIMEOUT` in src/run/observer.rs), or has not left yet while
/// others of its kind have.
fn is_late(entered: &[Frame], left: &[Frame]) -> bool {
    ROUND.iter().any(|kind| {
        let [entered, left] =
            [entered, left].map(|all| all.iter().filter(|frame| frame.kind.name() == *kind));
        let (entered, left): (Vec<_>, Vec<_>) = (entered.collect(), left.collect());
        let mut pairs = entered.iter().zip(&left);
        let is_slow = pairs.any(|(entered, left)| left.at - entered.at >= Duration::from_millis(5));
        is_slow || (!left.is_empty() && left.len() != entered.len())
    })
}

fn named(stand: &Stand, shows: &[Shows<'_>]) -> Vec<(String, Direction)> {
    let name = |device: &str| match device {
        "tap" | "qbr" | "qvb" | "qvo" => stand.nic.device(device),
        name => name.to_owned(),
    };
    shows.iter().map(|(device, way)| (name(device), *way)).collect()
}

fn capture(stand: &Stand, shows: &[(String, Direction)]) -> Vec<Capture> {
    let start = |(device, way): &(String, Direction)| {
        Capture::start(&stand.host, device, *way, &stand.nic.all_sent())
    };
    shows.iter().map(start).collect()
}

fn agrees(passage: &Value, frames: &[Frame]) {
    let said: BTreeSet<&str> =
        passage["frames"].as_array().unwrap().iter().map(|k| k.as_str().unwrap()).collect();
    let seen = BTreeSet::from_iter(kinds(frames));
    assert_eq!(said, seen, "{passage:#?}");
    assert_eq!(passage["after_ms"].is_null(), seen.is_empty(), "{passage:#?}");
    assert_eq!(passage["unseen"], false);
    for frame in frames {
        assert_eq!(passage["vlan"].as_u64(), frame.vlan.map(u64::from), "{passage:#?} {frame:#?}");
    }
}

impl Told {
    /// It counts the frames that these are, or says that none was sent.
    fn names_what_left(&self, frames: &[Frame]) {
        let mut left: BTreeMap<&str, u64> = ROUND.iter().map(|kind| (*kind, 0)).collect();
        kinds(frames).into_iter().for_each(|kind| *left.entry(kind).or_default() += 1);
        if self.json["outcome"] != "not-ready" {
            let said = &self.json["frames_left"];
            left.iter()
                .for_each(|(kind, count)| assert_eq!(said[kind.replace('-', "_")], *count, "{self:#?}"));
        } else {
            assert_eq!(frames, []);
        }
    }

    /// What it says of devices on which frames show.
    fn passages(&self) -> impl Iterator<Item = &Value> {
        self.json["path"].as_array().unwrap().iter().filter(|passage| passage["unseen"] == false)
    }

    /// What is for people has the same hops, each on its line.
    fn text_agrees(&self) {
        let lines: Vec<&str> = self.text.lines().skip(1).collect();
        for (line, passage) in lines.iter().zip(self.json["path"].as_array().unwrap()) {
            let hop = passage["hop"].as_str().unwrap();
            assert!(line.contains(hop), "{hop} is not in {line:?}");
            let unseen = line.contains("not observable here");
            assert_eq!(unseen, passage["unseen"] == true && passage["after_ms"].is_null(), "{line}");
            for kind in passage["frames"].as_array().unwrap() {
                assert!(line.contains(kind.as_str().unwrap()), "{kind} is not in {line:?}");
            }
        }
    }

    /// All of it left there.
    pub fn has_left(&self, device: &str, bridge: &str, vlan: Option<u16>) {
        assert_eq!(self.run.code, Some(0), "{self:#?}");
        self.names_departure(device, bridge, vlan);
        assert_eq!((&self.json["stuck"], &self.json["unseen"]), (&json!([]), &Value::Null), "{self:#?}");
    }

    /// Some of it did.
    pub fn names_departure(&self, device: &str, bridge: &str, vlan: Option<u16>) {
        let departure = &self.json["departure"];
        assert_eq!(
            (&departure["device"], &departure["bridge"]),
            (&json!(device), &json!(bridge)),
            "{self:#?}"
        );
        assert_eq!(departure["vlan"], json!(vlan), "{self:#?}");
        assert!(self.json["left_host_after_ms"].as_f64() > Some(0.0), "{self:#?}");
        assert_eq!(self.json["last_hop"], device);
    }

    /// This, and nothing else, did not leave: a failure, since of some address no frame did.
    pub fn is_stuck(&self, stuck: &str) {
        assert_eq!(self.json["stuck"], json!([stuck]), "{self:#?}");
        self.is_stuck_for(stuck);
    }

    /// RARP did not leave; that is no failure, since it says nothing that the others do not.
    pub fn lacks_rarp(&self, stuck: &str) {
        assert_eq!((self.run.code, &self.json["not_left"]), (Some(0), &json!([])), "{self:#?}");
        assert_eq!(self.json["stuck"], json!([stuck]), "{self:#?}");
        assert!(self.text.contains(stuck), "no {stuck:?} in {self:#?}");
    }

    /// Something did not leave, and these words are among what is said of that.
    pub fn is_stuck_for(&self, words: &str) {
        assert_eq!(self.run.code, Some(1), "{self:#?}");
        let stuck = self.json["stuck"].as_array().unwrap();
        assert!(
            stuck.iter().any(|stuck| stuck.as_str().unwrap().contains(words)),
            "no {words:?} in {self:#?}"
        );
        assert!(self.text.contains(words), "no {words:?} in {self:#?}");
    }

    /// Some of each round left.
    pub fn is_announced(&self) {
        assert_eq!((self.run.code, &self.json["outcome"]), (Some(0), &"announced".into()), "{self:#?}");
        assert_eq!((&self.json["rounds"], &self.json["lost_rounds"]), (&2.into(), &0.into()), "{self:#?}");
        assert_eq!(self.json["error"], Value::Null);
    }

    /// No round left, however often it was tried.
    pub fn has_failed(&self, why: &str) {
        assert_eq!((self.run.code, &self.json["outcome"]), (Some(1), &"failed".into()), "{self:#?}");
        let (tries, lost) = (&self.json["frames"]["arp_request"], &self.json["lost_rounds"]);
        assert_eq!((&self.json["rounds"], tries), (&0.into(), lost), "{self:#?}");
        assert!(lost.as_u64() > Some(2), "{self:#?}");
        let error = self.json["error"].as_str().unwrap();
        assert!(error.starts_with("no frame left the host: ") && error.contains(why), "{error}");
        assert!(self.run.stderr.contains(why) && self.run.stderr.lines().count() == 1, "{self:#?}");
        assert_eq!(self.json["departure"], Value::Null);
    }

    /// Nothing was sent.
    pub fn is_not_ready(&self, why: &str) {
        assert_eq!((self.run.code, &self.json["outcome"]), (Some(3), &"not-ready".into()), "{self:#?}");
        assert!(self.run.stderr.contains(why), "{self:#?}");
        assert_eq!(self.json["frames_left"], Value::Null);
    }
}
