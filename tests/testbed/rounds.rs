//! What a burst of announcements must be.

use std::time::Duration;

use serde_json::Value;

use super::capture::Capture;
use super::dissect::{Arp, Frame, Kind, Na};
use super::guest::Nic;
use super::running::{DEADLINE, Run};

/// The announcements of which every round of a guest with an IPv4 and an IPv6 address consists, in order.
pub const ROUND: [&str; 4] = ["arp-request", "arp-reply", "na", "rarp"];

/// The kinds, in the order of their arrival.
pub fn kinds(frames: &[Frame]) -> Vec<&'static str> {
    frames.iter().map(|frame| frame.kind.name()).collect()
}

/// The announcements among frames.
pub fn announcements(frames: Vec<Frame>) -> Vec<Frame> {
    frames.into_iter().filter(|frame| !is_question(frame)).collect()
}

fn is_question(frame: &Frame) -> bool {
    matches!(frame.kind, Kind::Ask(_) | Kind::Solicit(_))
}

/// Sorts the announcements of a burst into its rounds, which must be whole and in this VLAN, and about which tshark has no complaint.
///
/// A round is the next frame of each kind. Their order is not looked at: Open vSwitch's userspace datapath lets frames whose
/// flow it does not know yet overtake others, and sends the frames of a flow together when it has come late to several rounds.
pub fn rounds(frames: &[Frame], vlan: Option<u16>) -> Vec<Vec<&Frame>> {
    for frame in frames {
        assert_eq!(frame.vlan, vlan, "{frame:#?} among {:?}", kinds(frames));
        assert!(frame.complaints.is_empty(), "{frame:#?}");
    }
    let frames: Vec<&Frame> = frames.iter().filter(|frame| !is_question(frame)).collect();
    let of =
        |kind: &str| frames.iter().copied().filter(|frame| frame.kind.name() == kind).collect::<Vec<_>>();
    let by_kind = ROUND.map(of);
    let is_whole = by_kind.iter().all(|of_kind| of_kind.len() * ROUND.len() == frames.len());
    assert!(is_whole, "{by_kind:#?}");
    let round = |number: usize| {
        let mut round: Vec<&Frame> = by_kind.iter().map(|of_kind| of_kind[number]).collect();
        round.sort_by_key(|frame| frame.at);
        round
    };
    (0..by_kind[0].len()).map(round).collect()
}

/// How many announcements were sent, says the report. All of them pass sooner or later where nothing stops them, also those of a
/// round that was taken for lost because Open vSwitch was slow.
pub fn sent(report: &Value) -> usize {
    let count = |kind: &str| report["frames"][kind.replace('-', "_")].as_u64().unwrap() as usize;
    ROUND.iter().map(|kind| count(kind)).sum()
}

/// How many rounds were sent, says the report: those that were taken for lost are more than were asked for.
pub fn rounds_sent(report: &Value) -> usize {
    (report["rounds"].as_u64().unwrap() + report["lost_rounds"].as_u64().unwrap()) as usize
}

/// Waits until all rounds have come of which the report speaks, the last by its NA. Open vSwitch may be behind.
pub fn has_all(wire: &Capture, report: &Value) {
    let rounds = report["rounds"].as_u64().unwrap() as usize;
    assert!(wire.sees_of(0x86dd, rounds, DEADLINE), "{} frames: {report:#}", wire.count());
}

/// Exactly what the frames of a round say.
pub fn words(nic: &Nic, ipv4: &str, ipv6: &str) -> [Kind; 4] {
    const NO_MAC: &str = "00:00:00:00:00:00";
    let arp = |sender_ip: &str, target_mac: &str| Arp {
        sender_mac: nic.mac.clone(),
        sender_ip: sender_ip.parse().unwrap(),
        target_mac: target_mac.to_owned(),
        target_ip: sender_ip.parse().unwrap(),
    };
    let na = Na {
        source: ipv6.parse().unwrap(),
        destination: "ff02::1".parse().unwrap(),
        hop_limit: 255,
        target: ipv6.parse().unwrap(),
        router: false,
        solicited: false,
        overrides: true,
        target_mac: Some(nic.mac.clone()),
    };
    [
        Kind::ArpRequest(arp(ipv4, NO_MAC)),
        Kind::ArpReply(arp(ipv4, &nic.mac)),
        Kind::Na(na),
        Kind::Rarp(arp("0.0.0.0", &nic.mac)),
    ]
}

/// The only report of a run with `--json`.
pub fn report(run: &Run) -> Value {
    serde_json::from_str(&run.stdout).unwrap_or_else(|error| panic!("{error}: {run:#?}"))
}

/// These are all rounds that the report speaks of, and none left before it was due; tells how much later.
///
/// A machine that is slow makes rounds late, or lets them be taken for lost and sent again; none of that makes them early.
pub fn on_schedule(rounds: &[Vec<&Frame>], report: &Value, due: &[u64]) {
    // It is not known when the process began, but when its first frame left, as the kernel told both us and it.
    let after = |key: &str| Duration::from_secs_f64(report[key].as_f64().unwrap() / 1000.0);
    let began = rounds[0][0].at - after("left_host_after_ms");
    let ready = began + after("ready_after_ms");
    // Of the stamps, which are told in microseconds.
    let noise = Duration::from_millis(5);
    assert_eq!(report["rounds"], due.len());
    let lost = rounds_sent(report) - due.len();
    assert!((due.len()..=due.len() + lost).contains(&rounds.len()), "{} rounds: {report:#}", rounds.len());
    let due: Vec<u64> = (0..rounds.len()).map(|number| due[number.saturating_sub(lost)]).collect();
    for (round, due) in rounds.iter().zip(&due) {
        let due = ready + Duration::from_millis(*due);
        assert!(round[0].at + noise >= due, "{:?} early", due - round[0].at);
    }
    let late = rounds.iter().zip(&due).map(|(round, due)| {
        let since_first = (round[0].at - rounds[0][0].at).as_secs_f64() * 1000.0;
        format!("{:+.2}", since_first - *due as f64)
    });
    println!("rounds due at {due:?} ms deviate by {:?} ms", late.collect::<Vec<_>>());
}
