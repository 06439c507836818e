//! A bridge that speaks broken OpenFlow: a frame is taken, or refused in bounded time.

use announced::for_tests::frame::{self, Style};
use announced::for_tests::injection::Way;
use announced::for_tests::injector::Injectors;
use announced::for_tests::openflow::Connection;
use pnet_base::MacAddr;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::bytes::{changed, changes};
use crate::server::{Manner, Server, serve};
use crate::{always, ended, is_one_line};

/// Beginnings of messages, and lengths that they cannot have.
const POISON: &[&str] = &[
    "\x04\0\0\x08\0\0\0\x01",
    "\x04\x01\0\x08\0\0\0\0",
    "\x04\x02\0\x10\0\0\0\x01echoecho",
    "\x04\x15\0\x08\0\0\0\x02",
    "\x04\x15\0\x08\0\0\0\x03",
    "\x01\x13\0\x08\0\0\0\x03",
    "\0\0\0\0",
    "\x7f\x7f",
    "\0\x07",
];

const HELLO: &[u8] = &[4, 0, 0, 16, 0, 0, 0, 1, 0, 1, 0, 8, 0, 0, 0, 0x12];
const BARRIER_REPLY: &[u8] = &[4, 21, 0, 8, 0, 0, 0, 3];
const ECHO_REQUEST: &[u8] = &[4, 2, 0, 8, 0, 0, 0, 9];
const REFUSAL: &[u8] = &[4, 1, 0, 12, 0, 0, 0, 2, 0, 2, 0, 4];

/// One frame to a server that closes when it has said its part; why it was not taken.
fn frame_to(server: &Server) -> Option<Result<(), String>> {
    ended(async {
        let mut connection = Connection::open(server.socket()).await.map_err(|error| error.to_string())?;
        connection.packet_out(5, &[&[0; 60]]).await.map_err(|error| error.to_string())
    })
}

#[test]
fn an_honest_bridge_takes_frames_or_says_why_not() {
    let server = Server::start();
    server.say([HELLO, ECHO_REQUEST, BARRIER_REPLY].concat());
    assert_eq!(frame_to(&server), Some(Ok(())));
    server.say([HELLO, REFUSAL, BARRIER_REPLY].concat());
    assert_eq!(frame_to(&server), Some(Err("OpenFlow error of type 2, code 4".into())));
}

#[test]
fn three_thousand_broken_conversations_end() {
    let server = Server::start();
    let honest = [HELLO, ECHO_REQUEST, REFUSAL, BARRIER_REPLY].concat();
    always(3_000, changes(POISON), |changes| {
        server.say(changed(&honest, &changes));
        ends(frame_to(&server))
    });
}

#[test]
fn a_thousand_random_conversations_end() {
    let server = Server::start();
    always(1_000, (any::<bool>(), vec(any::<u8>(), 0..400)), |(greets, bytes)| {
        server.say([if greets { HELLO } else { &[] }, &bytes].concat());
        ends(frame_to(&server))
    });
}

fn ends(taken: Option<Result<(), String>>) -> Result<(), TestCaseError> {
    prop_assert!(taken.is_some(), "it hangs");
    if let Some(Err(why)) = taken {
        prop_assert!(is_one_line(&why), "{}", why);
    }
    Ok(())
}

/// Bridges that never come to the point.
#[test]
fn a_bridge_that_never_answers_holds_nobody_up() {
    let directory = tempfile::tempdir().unwrap();
    let never = [
        ("silent", Manner::Then(Vec::new())),
        ("mute", Manner::Then(HELLO.into())),
        ("half", Manner::Then(HELLO[..12].into())),
        ("babbling", Manner::Forever(HELLO.into(), ECHO_REQUEST.repeat(1_000))),
        ("refusing", Manner::Forever(HELLO.into(), REFUSAL.repeat(1_000))),
    ];
    std::thread::scope(|scope| {
        for (bridge, manner) in never {
            serve(&directory.path().join(format!("{bridge}.mgmt")), manner);
            let directory = directory.path().to_owned();
            scope.spawn(move || {
                let way = Way::PacketOut { bridge: bridge.into(), in_port: 5 };
                let injectors = Injectors::new(directory);
                let frames = frame::round(MacAddr(2, 0, 0, 0, 0, 1), &[], &Style::default());
                let sent = ended(async {
                    injectors
                        .prepare(std::slice::from_ref(&way), None)
                        .await
                        .map_err(|error| error.to_string())?;
                    injectors.send(&way, &frames).await.map_err(|error| error.to_string())
                });
                let why = sent.unwrap_or_else(|| panic!("{bridge}: it hangs")).expect_err(bridge);
                assert!(is_one_line(&why), "{bridge}: {why}");
            });
        }
    });
}
