//! A bridge that speaks broken OpenFlow: a frame is taken, or refused in bounded time.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::mpsc::channel;
use std::time::Duration;

use announced::for_tests::frame::{self, Frame, Style};
use announced::for_tests::injection::Way;
use announced::for_tests::injector::Injectors;
use announced::for_tests::openflow::{Aim, Connection};
use announced::for_tests::packet_outs::{Answer, PacketOuts, Submission};
use pnet_base::MacAddr;
use proptest::collection::vec;
use proptest::prelude::*;

use crate::bytes::{changed, changes};
use crate::server::{Manner, serve};
use crate::{DEADLINE, always, ended, is_one_line};

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

/// One frame to a bridge that says this and closes; why the frame was not taken.
fn frame_to(says: &[u8]) -> Option<Result<(), String>> {
    let stream = tokio::io::join(std::io::Cursor::new(says.to_owned()), tokio::io::sink());
    ended(async {
        let connection = Connection::over(stream).await.map_err(|error| error.to_string())?;
        match PacketOuts::over(connection)
            .send(Aim::Table { in_port: 5 }, &[&[0; 60]], &Submission::new(true))
            .await
        {
            Answer::Taken => Ok(()),
            Answer::Refused(why) | Answer::Broken(why) => Err(why.to_string()),
        }
    })
}

#[test]
fn an_honest_bridge_takes_frames_or_says_why_not() {
    assert_eq!(frame_to(&[HELLO, ECHO_REQUEST, BARRIER_REPLY].concat()), Some(Ok(())));
    let refused = frame_to(&[HELLO, REFUSAL, BARRIER_REPLY].concat());
    assert_eq!(refused, Some(Err("OpenFlow error of type 2, code 4".into())));
}

#[test]
fn thirty_thousand_broken_conversations_end() {
    let honest = [HELLO, ECHO_REQUEST, REFUSAL, BARRIER_REPLY].concat();
    always(30_000, changes(POISON), |changes| ends(frame_to(&changed(&honest, &changes))));
}

#[test]
fn ten_thousand_random_conversations_end() {
    always(10_000, (any::<bool>(), vec(any::<u8>(), 0..400)), |(greets, bytes)| {
        ends(frame_to(&[if greets { HELLO } else { &[] }, &bytes].concat()))
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
fn a_bridge_that_never_answers_delays_no_announcement() {
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
                    injectors
                        .send(&way, &frames, &Submission::new(true))
                        .await
                        .map_err(|error| error.to_string())
                });
                let why = sent.unwrap_or_else(|| panic!("{bridge}: it hangs")).expect_err(bridge);
                assert!(is_one_line(&why), "{bridge}: {why}");
            });
        }
    });
}

/// A message as it came, or the end of the connection.
fn message(stream: &mut UnixStream) -> Option<Vec<u8>> {
    let mut message = vec![0; 8];
    stream.read_exact(&mut message).ok()?;
    assert_eq!(message[0], 4, "no message of OpenFlow 1.3 begins with {message:?}");
    let length = u16::from_be_bytes([message[2], message[3]]);
    message.resize(usize::from(length), 0);
    stream.read_exact(&mut message[8..]).ok()?;
    Some(message)
}

fn welcome(listener: &UnixListener) -> UnixStream {
    let (mut stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.write_all(HELLO).unwrap();
    message(&mut stream).unwrap();
    stream
}

fn many(frames: usize) -> Vec<Frame> {
    let round = frame::round(MacAddr(2, 0, 0, 0, 0, 1), &[], &Style::default());
    round.into_iter().cycle().take(frames).collect()
}

#[test]
fn a_cancelled_round_leaves_no_half_message_before_the_next_one() {
    let directory = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(directory.path().join("br0.mgmt")).unwrap();
    let way = Way::PacketOut { bridge: "br0".into(), in_port: 5 };
    let injectors = Injectors::new(directory.path().to_owned());
    let (cancelled, go_on) = channel();
    let bridge = std::thread::spawn(move || {
        // Of the first round nothing is read until it has been cancelled: more than a socket holds.
        let mut stream = welcome(&listener);
        go_on.recv().unwrap();
        let kinds = [(); 4_003].map(|()| {
            let message = message(&mut stream).unwrap();
            if message[1] == 20 {
                stream.write_all(&[&[4, 21, 0, 8], &message[4..8]].concat()).unwrap();
            }
            message[1]
        });
        assert!(kinds[..4_000].iter().all(|kind| *kind == 13), "the first round is whole");
        assert_eq!(kinds[4_000..], [20, 13, 20]);
    });
    let second = ended(async {
        injectors.prepare(std::slice::from_ref(&way), None).await.unwrap();
        let first = many(4_000);
        let sent = tokio::time::timeout(
            Duration::from_millis(200),
            injectors.send(&way, &first, &Submission::new(true)),
        )
        .await;
        assert!(sent.is_err(), "{sent:?}");
        cancelled.send(()).unwrap();
        injectors.send(&way, &many(1), &Submission::new(true)).await
    });
    bridge.join().unwrap();
    assert!(matches!(second, Some(Ok(()))), "{second:?}");
}

#[test]
fn announcements_do_not_queue_up_before_a_bridge_that_hangs() {
    let directory = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(directory.path().join("br0.mgmt")).unwrap();
    let way = Way::PacketOut { bridge: "br0".into(), in_port: 5 };
    let injectors = Injectors::new(directory.path().to_owned());
    let (asked, asks) = channel();
    std::thread::spawn(move || {
        let mut stream = welcome(&listener);
        while let Some(message) = message(&mut stream) {
            if message[1] == 13 {
                asked.send(()).unwrap();
            }
        }
    });
    let (frames, all) = (many(1), std::cell::Cell::new(0));
    let sends = async {
        let submission = Submission::new(true);
        let send = || injectors.send(&way, &frames, &submission);
        // All of them are asked at the same time, before the first of them is given up.
        let heard = async {
            while all.get() < 3 {
                all.set(all.get() + asks.try_iter().count());
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::select! {
            () = heard => true,
            given_up = send() => panic!("{given_up:?}"),
            given_up = send() => panic!("{given_up:?}"),
            given_up = send() => panic!("{given_up:?}"),
        }
    };
    assert_eq!(ended(sends), Some(true));
}

#[test]
fn connections_do_not_queue_up_before_a_bridge_that_hangs() {
    let directory = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(directory.path().join("br0.mgmt")).unwrap();
    let way = Way::PacketOut { bridge: "br0".into(), in_port: 5 };
    let injectors = Injectors::new(directory.path().to_owned());
    let again = ended(async {
        for _ in 0..3 {
            injectors.prepare(std::slice::from_ref(&way), None).await.unwrap_err();
        }
        let bridge = std::thread::spawn(move || {
            let stream = welcome(&listener);
            listener.set_nonblocking(true).unwrap();
            (stream, listener.accept().map(drop).map_err(|error| error.kind()))
        });
        (injectors.prepare(std::slice::from_ref(&way), None).await.is_ok(), bridge.join().unwrap().1)
    });
    assert_eq!(again, Some((true, Err(ErrorKind::WouldBlock))), "one is enough");
}

#[test]
fn later_rounds_leave_room_for_first_ones_before_a_busy_bridge() {
    let directory = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(directory.path().join("br0.mgmt")).unwrap();
    let way = |in_port| Way::PacketOut { bridge: "br0".into(), in_port };
    let injectors = Injectors::new(directory.path().to_owned());
    let bridge = std::thread::spawn(move || {
        let mut stream = welcome(&listener);
        let messages = std::iter::from_fn(|| message(&mut stream)).filter(|message| message[1] == 13);
        // After the buffer's id comes the port.
        messages.map(|message| u32::from_be_bytes(message[12..16].try_into().unwrap())).take(5).collect()
    });
    let frames = many(1);
    let (later, first) = (way(7), way(8));
    ended(async {
        injectors.prepare(std::slice::from_ref(&first), None).await.unwrap();
        let [first_of_all, not_first] = [true, false].map(Submission::new);
        let later = || injectors.send(&later, &frames, &not_first);
        let first = injectors.send(&first, &frames, &first_of_all);
        tokio::join!(later(), later(), later(), later(), later(), later(), first)
    });
    let ports: Vec<u32> = bridge.join().unwrap();
    assert_eq!(ports, [7, 7, 7, 7, 8]);
}
