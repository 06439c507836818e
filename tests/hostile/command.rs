//! `announce` before an OVSDB server that lies, babbles, stalls or dies: exit 3 and one line, when `--wait` is over.

use std::path::Path;
use std::process::{Command, Output};
use std::time::Instant;

use serde_json::{Value, json};

use crate::server::{Manner, serve};
use crate::{DEADLINE, is_one_line};

/// A command without a peer that answers.
const UNHEARD: &str = "1s";
/// A server that has something to say is heard within this time, on a slow machine too.
const HEARD: &str = "10s";

/// Speaks for the loopback device: it exists everywhere, and no listing below makes it ready.
fn announce(ovsdb: &Path, wait: &str) -> Output {
    let began = Instant::now();
    let mut announce = Command::new(env!("CARGO_BIN_EXE_announce"));
    announce.args(["--dev", "lo", "--mac", "52:54:00:00:00:01", "--inject", "packet-out", "--wait", wait]);
    let output = announce.arg("--ovsdb").arg(ovsdb).output().unwrap();
    assert!(began.elapsed() < DEADLINE, "{} holds us up for {:?}", ovsdb.display(), began.elapsed());
    output
}

fn listing(name: &str, tag: u16) -> Value {
    json!({"id": 0, "error": null, "result": {
        "Bridge": {"b": {"new": {"name": "br0", "ports": ["uuid", "p"]}}},
        "Port": {"p": {"new": {"name": name, "interfaces": ["uuid", "i"], "tag": tag,
            "other_config": ["map", [["net_uuid", "n"]]]}}},
        "Interface": {"i": {"new": {"name": "lo", "type": "", "ofport": 5}}}}})
}

fn update(row: Value) -> Value {
    json!({"id": null, "method": "update", "params": [null, {"Interface": {"i": {"new": row}}}]})
}

/// Each with a word that the line must hold.
fn manners() -> Vec<(&'static str, Manner, &'static str)> {
    let dead = listing("lo", 4095).to_string().into_bytes();
    let vanishing = [&dead[..], b"{\"id\":null,\"method\":\"upd"].concat();
    let rude =
        update(json!({"name": "lo", "type": "", "ofport": -1, "error": "no\nsuch\u{1b}[2Jdevice\u{9b}"}));
    let refusal =
        json!({"id": 0, "result": null, "error": {"error": "not\nallowed", "details": "\u{1b}]0;x\u{7}"}});
    vec![
        ("says nothing", Manner::Then(Vec::new()), "no answer"),
        ("closes at once", Manner::ThenCloses(Vec::new()), "closed"),
        ("says what is no JSON", Manner::ThenCloses(b"{]\x00\xff}}}".into()), "OVSDB"),
        ("speaks HTTP", Manner::ThenCloses(b"HTTP/1.1 400 Bad Request\r\n\r\n".into()), "OVSDB"),
        ("stops in the middle", Manner::Then(dead[..100].into()), "no answer"),
        ("closes in the middle", Manner::ThenCloses(dead[..100].into()), "closed"),
        (
            "nests without an end",
            Manner::Forever(b"{\"id\":0,\"result\":".into(), b"[".repeat(65_536)),
            "OVSDB",
        ),
        ("nests deep", Manner::Then([b"[".repeat(9_999), b"]".repeat(9_999)].concat()), "OVSDB"),
        (
            "never ends a string",
            Manner::Forever(b"{\"id\":0,\"result\":\"".into(), b"a".repeat(65_536)),
            "OVSDB",
        ),
        ("sends empty messages", Manner::Forever(Vec::new(), b"{}".repeat(32_768)), "no answer"),
        (
            "wants an echo for ever",
            Manner::Forever(Vec::new(), b"{\"id\":1,\"method\":\"echo\"}".repeat(999)),
            "OVSDB",
        ),
        ("refuses", Manner::Then(refusal.to_string().into()), "refuses"),
        ("has no rows", Manner::Then(b"{\"id\":0,\"error\":null,\"result\":7}".into()), "not plugged"),
        ("has a dead port", Manner::Then(dead.clone()), "dead VLAN"),
        ("has another name for the port", Manner::Then(listing("x", 4095).to_string().into()), "dead VLAN"),
        ("dies after the listing", Manner::ThenCloses(vanishing), "dead VLAN"),
        ("tells a rude error", Manner::Then([dead, rude.to_string().into()].concat()), "no such"),
    ]
}

#[test]
fn whatever_ovsdb_does_the_command_ends_in_one_line() {
    let directory = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        for (number, (what, manner, word)) in manners().into_iter().enumerate() {
            let socket = directory.path().join(format!("{number}.sock"));
            serve(&socket, manner);
            let wait = if matches!(word, "no answer" | "OVSDB") { UNHEARD } else { HEARD };
            scope.spawn(move || ends_well(what, word, announce(&socket, wait)));
        }
    });
}

#[test]
fn what_is_no_server_ends_in_one_line() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    std::fs::write(&file, "no socket").unwrap();
    let long = directory.path().join("x".repeat(200));
    let absent = directory.path().join("absent");
    std::thread::scope(|scope| {
        for path in [&absent, directory.path(), &file, Path::new("/dev/zero"), &long] {
            scope.spawn(move || {
                ends_well(&path.display().to_string(), "cannot connect", announce(path, UNHEARD))
            });
        }
    });
}

fn ends_well(what: &str, word: &str, output: Output) {
    let said = String::from_utf8(output.stderr).expect(what);
    // Nothing can be told of the port without OVSDB; else the port is not ready.
    let code = if said.contains("not-ready: OVSDB cannot be reached") { 1 } else { 3 };
    assert_eq!(output.status.code(), Some(code), "a server that {what}: {said}");
    assert!(output.stdout.is_empty(), "a server that {what}");
    let (line, warnings): (Vec<&str>, Vec<&str>) =
        said.lines().partition(|line| line.starts_with("announce: "));
    assert!(line.len() == 1 && line[0].contains(word), "a server that {what}: {said:?}");
    assert!(warnings.len() <= 1 && said.lines().all(is_one_line), "a server that {what}: {said:?}");
    assert!(!said.contains("panicked"), "a server that {what}: {said:?}");
}
