//! roster.json of any daemon, and any order of events on it: what is kept, in whole or by lines, is read again as it was.
#![no_main]

use std::sync::Arc;
use std::time::Duration;

use announced::for_tests::event::{Cause, Change};
use announced::for_tests::ledger::{Action, Ended, Ledger, Present};
use announced_fuzz::Bytes;
use libfuzzer_sys::fuzz_target;

const UUIDS: [&str; 3] = ["a", "b", ""];
const CAUSES: [Cause; 4] = [Cause::Migrated, Cause::Restored, Cause::Started, Cause::Plugged];

fuzz_target!(|input: &[u8]| {
    // A text, and behind a zero byte what happens then.
    let end = input.iter().position(|byte| *byte == 0).unwrap_or(input.len());
    let read = serde_json::from_slice::<Ledger>(&input[..end]);
    let mut ledger = read.unwrap_or_default();
    is_kept(&ledger);
    let mut kept: Ledger = serde_json::from_str(&json(&ledger)).expect("it is read again");
    let mut bytes = Bytes(input.get(end + 1..).unwrap_or_default());
    let (mut now, mut open) = (Duration::ZERO, Vec::<(Arc<str>, u64, bool)>::new());
    while !bytes.is_empty() {
        now += Duration::from_millis(bytes.u8().into());
        let actions = happen(&mut ledger, &mut bytes, now, &mut open);
        for uuid in ledger.take_changed() {
            let line = serde_json::to_string(&ledger.kept(&uuid)).expect("a guest is JSON");
            kept.restore(serde_json::from_str(&line).expect("a line is read again"));
        }
        assert_eq!(json(&kept), json(&ledger), "the lines tell all that has changed");
        for action in actions {
            match action {
                Action::Read { uuid, reading } => {
                    assert!(ledger.knows(&uuid), "only a guest that is here is read");
                    open.push((uuid, reading, true));
                }
                Action::Announce { uuid, run, .. } => open.push((uuid, run, false)),
                _ => {}
            }
        }
    }
    is_kept(&ledger);
});

fn happen(
    ledger: &mut Ledger,
    bytes: &mut Bytes<'_>,
    now: Duration,
    open: &mut Vec<(Arc<str>, u64, bool)>,
) -> Vec<Action> {
    let uuid = bytes.one_of(&UUIDS);
    let cause = bytes.one_of(&CAUSES);
    let id = Some(u32::from(bytes.u8() % 4)).filter(|id| *id > 0);
    let change = match bytes.below(11) {
        0 => Change::Arriving(cause),
        1 => Change::Booted,
        2 => Change::Runs(Some(cause).filter(|_| bytes.bit())),
        3 => Change::Paused,
        4 => Change::Stops,
        5 => Change::Left,
        6 => Change::Plugged("net1".into()),
        7 => Change::Touched(Cause::Moved, "net0".into()),
        8 => {
            let present =
                |uuid: &str| Present { uuid: uuid.into(), name: uuid.into(), id, runs: true, cause: None };
            let present: Vec<Present> = UUIDS.iter().take(bytes.below(4)).map(|uuid| present(uuid)).collect();
            return ledger.reconcile(&present, bytes.bit(), &CAUSES, now);
        }
        9 => return ledger.source_stopped(uuid, now).1,
        _ => {
            let Some(at) = (!open.is_empty()).then(|| bytes.below(open.len())) else { return Vec::new() };
            let (uuid, number, is_reading) = open.swap_remove(at);
            return match is_reading {
                true => ledger.read(&uuid, number, Some(Vec::new()).filter(|_| bytes.bit()), now),
                false => ledger.ended(
                    &uuid,
                    number,
                    bytes.one_of(&[Ended::Done, Ended::Paused, Ended::BrokenOff]),
                    now,
                ),
            };
        }
    };
    ledger.change(uuid, id, &change, &CAUSES, now)
}

fn is_kept(ledger: &Ledger) {
    let written = json(ledger);
    let read: Ledger = serde_json::from_str(&written).expect("it is read again");
    assert_eq!(json(&read), written);
}

fn json(ledger: &Ledger) -> String {
    serde_json::to_string(ledger).expect("a ledger is JSON")
}
