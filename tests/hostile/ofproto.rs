//! Broken answers of ovs-vswitchd: each result fits into a line, and no answer blocks an announcement.

use std::fs;
use std::path::Path;
use std::time::Duration;

use announced::for_tests::fdb_show::{self, Entry};
use announced::for_tests::ofproto_trace;
use announced::for_tests::{ovs_fdb::Tables, unixctl};
use pnet_base::MacAddr;
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::json;

use crate::bytes::{changed, changes};
use crate::server::{Manner, serve};
use crate::{always, cpu_time, ended, is_one_line};

/// Signs that a trace is read by, and numbers out of range.
const POISON: &[&str] = &[
    "\n",
    "    ",
    "\n    drop",
    "\n\nbridge(\"br-ex\")\n---\n",
    "\n 0. ",
    "priority ",
    ", priority 4294967296",
    "No match.",
    " -> ",
    " >> ",
    " >>>> ",
    "<<<<",
    "\nDatapath actions: ",
    "push_vlan(vid=65536",
    "pop_vlan",
    "(((",
    ")))",
    ",,",
    "\r",
    "\u{1b}[2J",
    "\0",
    "é",
    "LOCAL",
    "-1",
    "4294967296",
    "fa:16:3e:00:00:0a",
];

const NO_ANSWER: &str = "no answer from";

const MAC: MacAddr = MacAddr(0xfa, 0x16, 0x3e, 0, 0, 0x0a);

/// Real answers.
fn answers() -> Vec<String> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/ofproto");
    let mut files: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.iter().map(|file| fs::read_to_string(file).unwrap()).collect()
}

fn is_sound(answer: &str) -> Result<(), TestCaseError> {
    fdb_show::learned(answer, MAC, None);
    let Some(verdict) = ofproto_trace::verdict(answer, "br-int", answer) else {
        return Ok(());
    };
    for line in verdict.ends.iter().map(|end| &end.line).chain([&verdict.deciding]) {
        prop_assert!(is_one_line(line) && line.chars().count() < 20_000, "{:?}", line);
    }
    prop_assert!(verdict.outputs.iter().all(|output| is_one_line(&output.to_string())));
    Ok(())
}

#[test]
fn ten_thousand_broken_answers_are_read() {
    let answers = answers();
    always(10_000, (0..answers.len(), changes(POISON)), |(which, changes)| {
        let bytes = changed(answers[which].as_bytes(), &changes);
        is_sound(&String::from_utf8_lossy(&bytes))
    });
}

#[test]
fn random_lines_are_read() {
    let words = vec(proptest::sample::select(POISON), 0..60);
    always(10_000, words, |words| is_sound(&words.concat()));
}

/// Twenty megabytes each of what costs most: bridges in bridges, flows in flows, ports without end, one endless line.
#[test]
fn endless_answers_cost_their_length_at_most() {
    let deeper =
        |what: &str| (0..3_000).map(|n| format!("{}{what}\n", " ".repeat(4 * n))).collect::<String>();
    let began = cpu_time();
    for answer in [
        deeper("bridge(\"br\")"),
        format!("bridge(\"br\")\n{}", deeper(" 0. priority 0")),
        "bridge(\"br\")\n 0. priority 0\n    drop\n".repeat(500_000),
        format!("bridge(\"br\")\n{}", " 0. priority 0\n    NORMAL\n     >> no\n".repeat(500_000)),
        format!("bridge(\"{0}\")\n 0. {0}, priority {0}\n    {0}\n     >> {0}\n", "a".repeat(4 << 20)),
        format!("Datapath actions: {}", "push_vlan(vid=1),2,".repeat(1 << 20)),
        format!("Datapath actions: {}", "(".repeat(16 << 20)),
        "Datapath actions: 1\n".repeat(1 << 20),
        "    5     7  fa:16:3e:00:00:0b    0\n".repeat(1 << 19),
        (0..1 << 20).map(|n| format!("    p 1/{n}: ()\n")).collect(),
    ] {
        let answer = answer + "\nDatapath actions: drop\n";
        is_sound(&answer).unwrap();
    }
    let took = cpu_time() - began;
    println!("they took {took:?}");
    assert!(took < Duration::from_secs(120), "{took:?}");
}

/// A run directory whose ovs-vswitchd answers every client in this manner.
fn daemon(manner: Manner) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("ovs-vswitchd.pid"), "7\n").unwrap();
    serve(&directory.path().join("ovs-vswitchd.7.ctl"), manner);
    directory
}

#[test]
fn nonsense_from_ovs_vswitchd_is_reported_in_one_line() {
    let reply = |reply: serde_json::Value| Manner::Then(reply.to_string().into_bytes());
    let cases = [
        (
            reply(json!({"id": 0, "error": "no\u{1b}[2J\n such\tbridge\n"})),
            "refuses fdb/show: no [2J such bridge",
        ),
        (reply(json!({"id": 0, "result": 7, "error": null})), "gives an unreadable answer to fdb/show"),
        (reply(json!({"id": 0, "result": "x", "error": "y"})), "gives an unreadable answer to fdb/show"),
        (reply(json!({"id": 0})), "gives an unreadable answer to fdb/show"),
        (reply(json!({"id": 1, "result": "x", "error": null})), NO_ANSWER),
        (Manner::Then(b"{".to_vec()), NO_ANSWER),
        (Manner::Then(b"}".to_vec()), "a bracket closes nothing"),
        (Manner::ThenCloses(Vec::new()), "lost the connection to"),
        (Manner::Forever(b"{\"id\":0,\"result\":\"".to_vec(), vec![b'a'; 1 << 16]), "/ovs-vswitchd.7.ctl"),
        (Manner::Forever(Vec::new(), b"{}".repeat(1 << 12)), NO_ANSWER),
    ];
    std::thread::scope(|scope| {
        for (manner, words) in cases {
            scope.spawn(move || {
                let directory = daemon(manner);
                let ask = || {
                    let tables = Tables::default();
                    let asked = tables.learned(directory.path(), "br-int", MAC, None);
                    let learned: Option<Result<Option<Entry>, _>> = ended(asked);
                    learned.expect("it hangs").expect_err(words).to_string()
                };
                // On a slow machine an answer may come too late.
                let mut answers = std::iter::repeat_with(ask).take(20);
                let why = answers.find(|why| why.contains(words) || !why.contains(NO_ANSWER)).expect(words);
                assert!(is_one_line(&why) && why.contains(words), "{why:?}");
            });
        }
    });
}

#[test]
fn a_pid_file_without_a_pid_is_reported_in_one_line() {
    for text in [&b""[..], b"-1", b"../x", b"4294967296", b"7 8", b"\xff\xfe", &[b'1'; 1 << 20]] {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("ovs-vswitchd.pid"), text).unwrap();
        let asked = unixctl::call(directory.path(), "version", &[]);
        let why = ended(asked).expect("it hangs").unwrap_err().to_string();
        assert!(is_one_line(&why) && why.contains("ovs-vswitchd.pid: "), "{why:?}");
    }
}
