//! What a burst of announcements must be.

use std::time::Duration;

use serde_json::Value;

use super::dissect::{Arp, Frame, Kind, Na};
use super::guest::Nic;
use super::running::Run;

/// What every round of a guest with an IPv4 and an IPv6 address consists of, in order.
pub const ROUND: [&str; 4] = ["arp-request", "arp-reply", "na", "rarp"];

/// The kinds, in the order of their arrival.
pub fn kinds(frames: &[Frame]) -> Vec<&'static str> {
    frames.iter().map(|frame| frame.kind.name()).collect()
}

/// Cuts a burst into its rounds, which must be whole and in this VLAN, and about which tshark has no complaint.
///
/// The order within a round is not looked at: Open vSwitch's userspace datapath lets frames whose flow it does not know
/// yet overtake others.
pub fn rounds(frames: &[Frame], vlan: Option<u16>) -> Vec<&[Frame]> {
    for frame in frames {
        assert_eq!(frame.vlan, vlan, "{frame:#?} among {:?}", kinds(frames));
        assert!(frame.complaints.is_empty(), "{frame:#?}");
    }
    let rounds: Vec<_> = frames.chunks(ROUND.len()).collect();
    let whole = |round: &&[Frame]| ROUND.iter().all(|kind| kinds(round).contains(kind));
    assert!(rounds.iter().all(whole), "{:?}", kinds(frames));
    rounds
}

/// Exactly what the frames of a round say.
pub fn words(nic: &Nic, ipv4: &str, ipv6: &str) -> [Kind; 4] {
    const NOBODY: &str = "00:00:00:00:00:00";
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
        Kind::ArpRequest(arp(ipv4, NOBODY)),
        Kind::ArpReply(arp(ipv4, &nic.mac)),
        Kind::Na(na),
        Kind::Rarp(arp("0.0.0.0", &nic.mac)),
    ]
}

/// The only report of a run with `--json`.
pub fn report(run: &Run) -> Value {
    serde_json::from_str(&run.stdout).unwrap_or_else(|error| panic!("{error}: {run:#?}"))
}

/// No round left before it was due; tells how much later.
pub fn on_schedule(rounds: &[&[Frame]], report: &Value, due: &[u64]) {
    // It is not known when the process began, but when its first frame was sent, and captured.
    let after = |key: &str| Duration::from_secs_f64(report[key].as_f64().unwrap() / 1000.0);
    let began = rounds[0][0].at - after("first_frame_after_ms");
    let ready = began + after("ready_after_ms");
    let noise = Duration::from_millis(5);
    assert_eq!(rounds.len(), due.len());
    for (round, due) in rounds.iter().zip(due) {
        let due = ready + Duration::from_millis(*due);
        assert!(round[0].at + noise >= due, "{:?} early", due - round[0].at);
    }
    let late = rounds.iter().zip(due).map(|(round, due)| {
        let since_first = (round[0].at - rounds[0][0].at).as_secs_f64() * 1000.0;
        format!("{:+.2}", since_first - *due as f64)
    });
    println!("rounds due at {due:?} ms deviate by {:?} ms", late.collect::<Vec<_>>());
}
