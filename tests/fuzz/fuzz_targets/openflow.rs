//! A bridge that speaks any OpenFlow: what we say is well-formed, and a round counts as accepted only after the answer to our
//! own barrier.
#![no_main]

use announced::for_tests::openflow::{Aim, Connection};
use announced::for_tests::packet_outs::{Answer, PacketOuts, Submission};
use announced_fuzz::{Bytes, Stream, ended, is_one_line};
use libfuzzer_sys::fuzz_target;

const HELLO: u8 = 0;
const PACKET_OUT: u8 = 13;

fuzz_target!(|input: &[u8]| {
    let mut bytes = Bytes(input);
    let (piece, in_port, frames) = (1 + bytes.below(64), u32::from(bytes.u16()), bytes.below(4));
    let stream = Stream::of(bytes.0.to_owned(), piece);
    let written = stream.written.clone();
    let accepted = ended(async {
        let connection = Connection::over(stream).await?;
        let frame = &[0x5a; 60][..];
        match PacketOuts::over(connection)
            .send(Aim::Table { in_port }, &vec![frame; frames], &Submission::new(true))
            .await
        {
            Answer::Taken => Ok(()),
            Answer::Refused(error) | Answer::Broken(error) => Err(error),
        }
    });
    let written = written.lock().expect("no panic").clone();
    let said = messages(&written);
    let total: usize = said.iter().map(|message| message.len()).sum();
    assert_eq!(total, written.len(), "whole messages only");
    assert!(said.first().is_some_and(|hello| hello[1] == HELLO));
    let ours = said.iter().filter(|message| message[1] == PACKET_OUT);
    match accepted {
        Ok(()) => {
            assert_eq!(ours.count(), frames);
            // Its own number, among what the bridge said.
            let barrier = said.iter().find(|message| matches!(message[1], 18 | 20)).expect("a barrier");
            let heard = messages(bytes.0);
            assert!(heard.iter().any(|answer| answer[1] == barrier[1] + 1 && answer[4..8] == barrier[4..8]));
        }
        Err(error) => assert!(is_one_line(&error.to_string())),
    }
});

/// The messages of a stream, up to the first that is not whole.
fn messages(mut stream: &[u8]) -> Vec<&[u8]> {
    let mut messages = Vec::new();
    while let [_, _, high, low, ..] = *stream {
        let length = usize::from(u16::from_be_bytes([high, low]));
        if length < 8 || stream.len() < length {
            break;
        }
        let (message, rest) = stream.split_at(length);
        messages.push(message);
        stream = rest;
    }
    messages
}
