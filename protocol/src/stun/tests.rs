#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::net::{IpAddr, SocketAddr};

use proptest::prelude::*;

use super::*;

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<char> = hex.chars().filter(|c| !c.is_whitespace()).collect();
    let byte = |pair: &[char]| u8::from_str_radix(&pair.iter().collect::<String>(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

/// [RFC 5769, section 2.2 and 2.3](https://www.rfc-editor.org/rfc/rfc5769#section-2.2).
const IP4: &str = "0101003c 2112a442 b7e7a701bc34d686fa87dfae 8022000b 7465737420766563746f7220 00200008 0001a147e112a643 \
    00080014 2b91f599fd9e90c38c7489f92af9ba53f06be7d7 80280004 c07d4c96";
const IP6: &str = "01010048 2112a442 b7e7a701bc34d686fa87dfae 8022000b 7465737420766563746f7220 00200014 0002a147 \
    0113a9faa5d3f179bc25f4b5bed2b9d9 00080014 a382954e4be67bf11784c97c8292c275bfe3ed41 80280004 c8fb0b4c";

#[test]
fn the_answers_of_rfc_5769_are_read_and_their_fingerprints_are_right() {
    for (hex, mapped) in [
        (IP4, "192.0.2.1:32853"),
        (IP6, "[2001:db8:1234:5678:11:2233:4455:6677]:32853"),
    ] {
        let message = Message::decode(&bytes(hex)).unwrap();
        assert_eq!(message.class, Class::Success);
        assert_eq!(message.mapped, Some(mapped.parse().unwrap()));
        assert!(message.fingerprint && is_stun(&bytes(hex)));
        let mut wrong = bytes(hex);
        *wrong.last_mut().unwrap() ^= 1;
        assert_eq!(Message::decode(&wrong), Err(Malformed::Fingerprint));
    }
}

#[test]
fn a_request_of_rfc_3489_is_answered_in_its_attributes() {
    // As Debian's `stun` sends it.
    let request = bytes("00010008 0130e861420a3d0a7f176b009e4e307b 00030004 00000006");
    assert!(!is_stun(&request), "not on a port of QUIC");
    let request = Message::decode(&request).unwrap();
    assert!(request.transaction.is_classic());
    let both = Change {
        ip: true,
        port: true,
    };
    assert_eq!(request.change, Some(both));
    let mut answer = Message::new(Class::Success, request.transaction);
    answer.mapped = Some(([192, 0, 2, 1], 32853).into());
    answer.other = Some(([192, 0, 2, 2], 3479).into());
    assert_eq!(
        answer.encode()[20..],
        bytes("00010008 00018055c0000201 00050008 00010d97c0000202")
    );
}

#[test]
fn an_attribute_that_has_to_be_understood_is_named_and_another_is_ignored() {
    let request =
        bytes("00010010 2112a442 000000000000000000000000 00280004 00010000 80ff0004 01020304");
    assert_eq!(Message::decode(&request).unwrap().unknown, [0x0028]);
    let mut error = Message::new(Class::Error, Transaction::new([0; 12]));
    error.error = Some(420);
    error.unknown = vec![0x0028];
    let error = error.encode();
    assert_eq!(error[20..], bytes("00090004 00000414 000a0002 00280000"));
    assert_eq!(Message::decode(&error).unwrap().error, Some(420));
}

#[test]
fn packets_of_quic_are_no_stun_whatever_their_first_bits_are() {
    let mut short = [0u8; 40];
    assert!(!is_stun(&short));
    short[4..8].copy_from_slice(&COOKIE);
    assert!(!is_stun(&short), "the length differs");
    short[3] = 20;
    assert!(is_stun(&short));
    short[0] = 0x40;
    assert!(!is_stun(&short), "the fixed bit");
}

fn any_address() -> impl Strategy<Value = SocketAddr> {
    (any::<IpAddr>(), any::<u16>()).prop_map(|(ip, port)| SocketAddr::new(ip, port))
}

prop_compose! {
    fn any_message()(
        id in any::<[u8; 12]>(),
        mapped in proptest::option::of(any_address()),
        origin in proptest::option::of(any_address()),
        other in proptest::option::of(any_address()),
        change in proptest::option::of(any::<(bool, bool)>()),
        response_port in any::<u16>(),
        info in proptest::option::of(any::<(u16, u64, bool, bool)>()),
        on_behalf in proptest::option::of((any_address(), any::<u16>(), any::<bool>(), any::<bool>())),
        padding in 0..400usize,
        fingerprint in any::<bool>(),
    ) -> Message {
        Message {
            mapped,
            origin,
            other,
            change: change.map(|(ip, port)| Change { ip, port }),
            response_port: response_port.try_into().ok(),
            info: info.map(|(second_port, unix_ms, pads, is_hidden)| RelayInfo { second_port, unix_ms, pads, is_hidden }),
            on_behalf: on_behalf.map(|(asker, to, second, tcp)| OnBehalf {
                asker,
                to: to.try_into().ok(),
                from: if second { Port::Second } else { Port::Quic },
                tcp,
            }),
            padding,
            fingerprint,
            ..Message::new(Class::Request, Transaction::new(id))
        }
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read(message in any_message()) {
        let bytes = message.encode();
        prop_assert!(is_stun(&bytes));
        prop_assert_eq!(Message::decode(&bytes).unwrap(), message);
    }

    #[test]
    fn junk_never_panics(junk in proptest::collection::vec(any::<u8>(), 0..200), cut in 0..64usize, message in any_message()) {
        let _ = Message::decode(&junk);
        let bytes = message.encode();
        let _ = Message::decode(&bytes[..bytes.len().saturating_sub(cut)]);
    }
}
