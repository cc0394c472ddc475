#![allow(clippy::unwrap_used, reason = "a test may panic")]

use proptest::prelude::*;

use super::*;

/// No HMAC, but it depends on every byte.
fn sign(bytes: &[u8]) -> [u8; 32] {
    let sum = bytes.iter().fold(7u64, |sum, byte| {
        sum.wrapping_mul(31).wrapping_add(u64::from(*byte))
    });
    let mut made = [0; 32];
    made[..8].copy_from_slice(&sum.to_be_bytes());
    made
}

const KEY: Key<'static> = Key {
    name: "k",
    sign: &sign,
};

fn update() -> Update {
    let added = Change::Add {
        name: "h.example.net".to_owned(),
        data: Data::Address("203.0.113.7".parse().unwrap()),
        ttl: 30,
    };
    Update::new(0x1234, "example.net", &[added], Some(&KEY), 1_800_000_000).unwrap()
}

/// As a server with the key answers: the header, and a signature over it.
fn answer(update: &Update, code: u16, error: u16) -> Vec<u8> {
    let mut bytes = Vec::new();
    put(&mut bytes, &[0x1234, RESPONSE | UPDATE | code, 0, 0, 0, 0]);
    let mut signed = 32u16.to_be_bytes().to_vec();
    signed.extend(update.mac.unwrap());
    signed.extend(&bytes);
    put_variables(&mut signed, "k", 1_800_000_001, error, &[]).unwrap();
    put_tsig(&mut bytes, "k", 1_800_000_001, &sign(&signed), 0x1234).unwrap();
    let at = bytes.len() - 4;
    bytes[at..at + 2].copy_from_slice(&error.to_be_bytes());
    bytes[11] = 1;
    bytes
}

#[test]
fn an_update_has_the_zone_its_changes_and_a_signature() {
    let bytes = update().bytes;
    let zone = b"\x07example\x03net\x00\x00\x06\x00\x01";
    assert_eq!(
        bytes[..12],
        *b"\x12\x34\x28\x00\x00\x01\x00\x00\x00\x01\x00\x01"
    );
    assert_eq!(bytes[12..12 + zone.len()], *zone);
    let record =
        b"\x01h\x07example\x03net\x00\x00\x01\x00\x01\x00\x00\x00\x1e\x00\x04\xcb\x00\x71\x07";
    assert_eq!(bytes[12 + zone.len()..][..record.len()], *record);
    assert_eq!(Tsig::find(&bytes).unwrap().unix, 1_800_000_000);
    let long = "a".repeat(64);
    assert_eq!(
        Update::new(1, &long, &[], None, 0),
        Err(Invalid::Name(long))
    );
}

#[test]
fn an_answer_counts_only_with_the_signature_of_the_key() {
    let update = update();
    let good = answer(&update, 0, 0);
    assert_eq!(update.read_answer(&good, Some(&KEY)), Ok(()));
    let mut forged = good.clone();
    let at = forged.len() - 20;
    forged[at] ^= 1;
    let unsigned = Err(Refused::Unsigned("k".to_owned()));
    assert_eq!(update.read_answer(&forged, Some(&KEY)), unsigned);
    assert_eq!(update.read_answer(&good[..12], Some(&KEY)), unsigned);
    let refused = answer(&update, 5, 0);
    let policy = update.read_answer(&refused, Some(&KEY)).unwrap_err();
    assert!(policy.to_string().contains("REFUSED"), "{policy}");
    for error in [16, 17] {
        let wrong = answer(&update, NOT_AUTH, error);
        let wrong = update.read_answer(&wrong, Some(&KEY));
        assert_eq!(wrong, Err(Refused::Key("k".to_owned())));
    }
    let late = answer(&update, NOT_AUTH, 18);
    assert_eq!(update.read_answer(&late, Some(&KEY)), Err(Refused::Clock));
    let mut other = good;
    other[0] ^= 1;
    let malformed = Err(Refused::Malformed);
    assert_eq!(update.read_answer(&other, Some(&KEY)), malformed);
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        read_anything(&bytes);
        let mut answer = vec![0, 7, 0x80, 0];
        answer.extend(bytes);
        read_anything(&answer);
    }
}
