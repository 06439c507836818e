//! The peers' notices: what one of the keys has signed is read as it was written, nothing else is read at all, and no notice is
//! taken twice.
#![no_main]

use std::time::Duration;

use announced::for_tests::handover::guard::Guard;
use announced::for_tests::handover::{Keys, Notice, Refusal, SIZE, Uuid};
use announced_fuzz::{Bytes, is_one_line};
use hmac::{Hmac, KeyInit, Mac};
use libfuzzer_sys::fuzz_target;
use sha2::Sha256;

const KEY: &str = "0123456789abcdef0123456789abcdef";
const SIGNED: usize = SIZE - 32;

fuzz_target!(|input: &[u8]| {
    let keys = Keys::parse(KEY).expect("a key");
    assert!(keys.open(input).is_err(), "it was not signed");
    if let Ok(text) = std::str::from_utf8(input) {
        texts(text);
    }
    let mut bytes = Bytes(input);
    let mut guard = Guard::new(uuid("00000000-0000-0000-0000-000000000001"));
    let (mut now, mut taken) = (Duration::ZERO, Vec::<Notice>::new());
    while !bytes.is_empty() {
        now += Duration::from_millis(bytes.u16().into());
        let Some(notice) = signed(&keys, &mut bytes) else { continue };
        let wall =
            Duration::from_millis(notice.sent_at).saturating_add(Duration::from_secs(bytes.u8().into()));
        let first = guard.take(&notice, now, wall);
        if first.is_ok() {
            let is_overtaken = |other: &Notice| {
                let of_one = (other.sender, other.guest) == (notice.sender, notice.guest);
                of_one && other.counter >= notice.counter
            };
            assert!(!taken.iter().any(is_overtaken), "{notice:?} after a later one");
            assert_eq!(guard.take(&notice, now, wall), Err(Refusal::Replayed));
            taken.push(notice);
        }
    }
});

/// A datagram of any content below the mark and the version, signed by another implementation's call.
fn signed(keys: &Keys, bytes: &mut Bytes<'_>) -> Option<Notice> {
    let mut datagram = b"annd\x01".to_vec();
    let kind = bytes.u8();
    // Most are of a known kind, of few senders and guests, and near each other.
    datagram.extend([kind % 5, 0, if kind > 250 { 1 } else { 0 }]);
    datagram.extend([0; 15]);
    datagram.push(bytes.u8() % 3);
    for _ in 0..3 {
        let number = bytes.u64();
        let number = if number & 1 == 0 { number % 100 } else { number };
        datagram.extend(number.to_be_bytes());
    }
    datagram.extend([0; 15]);
    datagram.push(bytes.u8() % 3);
    assert_eq!(datagram.len(), SIGNED);
    let mut mac = Hmac::<Sha256>::new_from_slice(KEY.as_bytes()).expect("any length");
    mac.update(&datagram);
    datagram.extend(mac.finalize().into_bytes());
    let notice = match keys.open(&datagram) {
        Ok(notice) => notice,
        Err(refusal) => {
            assert_eq!(refusal, Refusal::Malformed);
            return None;
        }
    };
    assert_eq!(keys.seal(&notice), datagram, "read as it was written");
    let at = bytes.below(SIZE);
    datagram[at] ^= 1 << bytes.below(8);
    assert!(keys.open(&datagram).is_err(), "a bit was changed");
    Some(notice)
}

fn texts(text: &str) {
    match Keys::parse(text) {
        Ok(keys) => assert!(!format!("{keys:?}").contains(text.trim()), "a key is not shown"),
        Err(error) => assert!(is_one_line(&error.to_string())),
    }
    if let Ok(uuid) = text.parse::<Uuid>() {
        assert_eq!(uuid.to_string().parse(), Ok(uuid));
    }
}

fn uuid(text: &str) -> Uuid {
    text.parse().expect("a UUID")
}
