//! Notices as bytes: golden, mutated and foreign ones.

use proptest::prelude::*;

use super::*;
use crate::announcement::handover::guard::Guard;

const KEY: &str = "J4RrD5oVs1cWcXq7YV1y0vBhD0B0m2yYb8Jx4l0mQ1E=";
const OLD: &str = "0123456789abcdef0123456789abcdef";

fn keys(text: &str) -> Keys {
    Keys::parse(text).unwrap()
}

fn notice() -> Notice {
    Notice {
        kind: Kind::Stops,
        guest: "5f3a8c12-7b1e-4a59-9d0c-2f6e81b7a4c3".parse().unwrap(),
        sender: "00112233-4455-6677-8899-aabbccddeeff".parse().unwrap(),
        counter: 7,
        sent_at: 1_764_107_646_000,
        uptime: 1234,
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The HMAC is that of `openssl dgst -sha256 -hmac`.
#[test]
fn a_notice_has_these_bytes() {
    let datagram = keys(KEY).seal(&notice());
    assert_eq!(datagram.len(), SIZE);
    assert_eq!(
        hex(&datagram),
        "616e6e64010100000011223344556677\
         8899aabbccddeeff0000000000000007\
         0000019abd02743000000000000004d2\
         5f3a8c127b1e4a599d0c2f6e81b7a4c3\
         85319abac703a49c3fb577d47836b50e3ced5597d28063f8d828510d258e53cb"
    );
    assert_eq!(keys(KEY).open(&datagram), Ok(notice()));
    assert_eq!(notice().guest.to_string(), "5f3a8c12-7b1e-4a59-9d0c-2f6e81b7a4c3");
}

#[test]
fn a_key_is_replaced_host_by_host() {
    let (old, both, new) = (keys(OLD), keys(&format!("# since today\n{KEY}\n\n{OLD}\n")), keys(KEY));
    let by = |signer: &Keys, opener: &Keys| opener.open(&signer.seal(&notice()));
    assert_eq!(by(&old, &both), Ok(notice()));
    assert_eq!(by(&both, &new), Ok(notice()), "the first key signs");
    assert_eq!(by(&both, &both), Ok(notice()));
    assert_eq!(by(&old, &new), Err(Refusal::Unauthenticated));
    // While both have both, in either order.
    assert_eq!(by(&keys(&format!("{OLD}\n{KEY}")), &both), Ok(notice()));
}

#[test]
fn a_text_without_good_keys_is_refused_and_not_repeated() {
    for (text, error) in [
        ("", KeyError::Empty),
        ("# later\n \n", KeyError::Empty),
        ("# a\nsecret", KeyError::Short(2)),
        (&format!("{KEY}\n{OLD}\n{KEY}"), KeyError::Several(3)),
    ] {
        assert_eq!(Keys::parse(text).unwrap_err(), error, "{text}");
        assert!(!error.to_string().contains("secret"));
    }
    assert_eq!(format!("{:?}", keys(KEY)), "1 keys");
}

#[test]
fn a_foreign_datagram_is_named() {
    let good = keys(KEY).seal(&notice());
    let changed = |at: usize, to: u8| {
        let mut datagram = good.clone();
        datagram[at] = to;
        datagram
    };
    // Signed with the key, and without a meaning.
    let signed = |at: usize, to: u8| {
        let mut datagram = changed(at, to);
        datagram.truncate(SIGNED);
        let mac = keys(KEY).0[0].clone().chain_update(&datagram).finalize();
        datagram.extend(mac.into_bytes());
        datagram
    };
    for (datagram, refusal) in [
        (Vec::new(), Refusal::Malformed),
        (b"annd".to_vec(), Refusal::Malformed),
        (good[..SIZE - 1].to_vec(), Refusal::Malformed),
        ([&good[..], &[0]].concat(), Refusal::Malformed),
        (changed(0, b'b'), Refusal::Malformed),
        (changed(4, 2), Refusal::Version),
        ([&changed(4, 2)[..], &[0; 100]].concat(), Refusal::Version),
        (changed(5, 2), Refusal::Unauthenticated),
        (changed(SIZE - 1, !good[SIZE - 1]), Refusal::Unauthenticated),
        (signed(5, 0), Refusal::Malformed),
        (signed(5, 4), Refusal::Malformed),
        (signed(6, 1), Refusal::Malformed),
    ] {
        assert_eq!(keys(KEY).open(&datagram), Err(refusal), "{}", hex(&datagram));
    }
}

/// How many datagrams a property is tried with; `ANNOUNCED_DATAGRAMS` sets another number.
fn datagrams() -> ProptestConfig {
    let number = std::env::var("ANNOUNCED_DATAGRAMS").map_or(2_000, |text| text.parse().unwrap());
    ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(number) }
}

proptest! {
    #![proptest_config(datagrams())]

    #[test]
    fn no_other_bytes_are_a_notice(mut bytes in proptest::collection::vec(any::<u8>(), 0..128), begins in 0usize..9) {
        let good = keys(KEY).seal(&notice());
        let begin = good[..begins.min(bytes.len())].to_vec();
        bytes[..begin.len()].copy_from_slice(&begin);
        prop_assert!(keys(KEY).open(&bytes).is_err());
    }

    #[test]
    fn a_changed_notice_is_none(changes in proptest::collection::vec((0..SIZE, 1u8..), 1..4), length in 0..2 * SIZE) {
        let good = keys(KEY).seal(&notice());
        let mut datagram = good.clone();
        changes.iter().for_each(|(at, by)| datagram[*at] ^= by);
        if datagram != good {
            prop_assert!(keys(KEY).open(&datagram).is_err());
        }
        datagram = good.clone();
        datagram.resize(length, 0);
        prop_assert_eq!(keys(KEY).open(&datagram).is_ok(), length == SIZE);
    }

    #[test]
    fn a_notice_is_what_was_sealed(
        kind in 1u8..4, guest in any::<[u8; 16]>(), sender in any::<[u8; 16]>(),
        counter in any::<u64>(), sent_at in any::<u64>(), uptime in any::<u64>(), wall in any::<u64>(), now in any::<u64>(),
    ) {
        let kind = Kind::of(kind).unwrap();
        let notice = Notice { kind, guest: Uuid(guest), sender: Uuid(sender), counter, sent_at, uptime };
        prop_assert_eq!(keys(KEY).open(&keys(KEY).seal(&notice)), Ok(notice));
        prop_assert_eq!(notice.guest.to_string().parse(), Ok(notice.guest));
        // No number makes the guard overflow.
        let mut guard = Guard::new(Uuid([0; 16]));
        let millis = std::time::Duration::from_millis;
        let first = guard.take(&notice, millis(now), millis(wall));
        prop_assert!(guard.take(&notice, millis(now), millis(wall)).is_err(), "{first:?}");
    }
}
