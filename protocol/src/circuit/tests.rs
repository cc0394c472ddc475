#![allow(clippy::unwrap_used, reason = "a test may panic")]

use proptest::prelude::*;

use super::*;

const UNLIMITED: Limit = Limit {
    duration: None,
    bytes: None,
};

fn limited() -> Limit {
    Limit {
        duration: Some(Duration::from_millis(1500)),
        bytes: Some(300),
    }
}

#[test]
fn requests_are_written_as_the_specification_has_them() {
    assert_eq!(Request::Reserve.encode(), [8, 0]);
    let destination = PeerId::random();
    let id = destination.to_bytes();
    let length = u8::try_from(id.len()).unwrap();
    let expected = [&[8, 1, 18, length + 2, 10, length][..], &id].concat();
    assert_eq!(Request::Connect { destination }.encode(), expected);
}

#[test]
fn answers_are_written_as_the_specification_has_them() {
    assert_eq!(
        refused(Status::NoReservation),
        [8, 2, 40, 0xcc, 1],
        "type STATUS, status 204"
    );
    assert_eq!(connected(UNLIMITED), [8, 2, 40, 100]);
    assert_eq!(
        connected(limited()),
        [8, 2, 34, 5, 8, 2, 16, 0xac, 2, 40, 100]
    );
    let address: Multiaddr = "/ip4/192.0.2.1/tcp/9".parse().unwrap();
    assert_eq!(
        reserved(7, &[address], UNLIMITED),
        [8, 2, 26, 12, 8, 7, 18, 8, 4, 192, 0, 2, 1, 6, 0, 9, 40, 100]
    );
}

#[test]
fn a_reservation_at_a_thousand_addresses_fits_into_a_message() {
    let address: Multiaddr = "/ip4/192.0.2.1/udp/4001/quic-v1".parse().unwrap();
    let message = reserved(u64::MAX, &vec![address; 1000], limited());
    assert!(message.len() <= MAX_MESSAGE);
    assert!(message.len() > MAX_MESSAGE - 256, "and most are listed");
}

#[test]
fn each_message_that_is_no_request_has_its_status() {
    let malformed: [&[u8]; 8] = [
        &[],
        &[8],
        &[0, 0],
        &[10, 1, 0],
        &[8, 1],
        &[8, 1, 18, 0],
        &[8, 1, 18, 3, 10, 1, 0],
        &[8, 1, 18, 200, 1, 10],
    ];
    for message in malformed {
        let fault = Request::decode(message).unwrap_err();
        assert_eq!(fault.status(), Status::MalformedMessage, "{message:?}");
    }
    for message in [[8, 2], [8, 3], [8, 99]] {
        let fault = Request::decode(&message).unwrap_err();
        assert_eq!(fault.status(), Status::UnexpectedMessage, "{message:?}");
    }
}

#[test]
fn unknown_fields_are_skipped() {
    let message = [8, 0, 34, 2, 8, 1, 120, 5, 125, 1, 2, 3, 4];
    assert_eq!(Request::decode(&message), Ok(Request::Reserve));
}

#[test]
fn the_answer_of_a_destination_is_a_status() {
    assert_eq!(decode_answer(&[8, 1, 32, 100]), Ok(Some(Status::Ok)));
    let denied = Ok(Some(Status::PermissionDenied));
    assert_eq!(decode_answer(&[8, 1, 32, 0xca, 1]), denied);
    assert_eq!(decode_answer(&[8, 1, 32, 7]), Ok(None));
    let offered = decode_answer(&offer(&PeerId::random(), limited()));
    assert_eq!(offered, Err(Fault::Unexpected("no status")));
    for message in [&[8, 1][..], &[], &[32, 100], &[8, 1, 34, 0]] {
        let fault = decode_answer(message).unwrap_err();
        assert_eq!(fault.status(), Status::MalformedMessage, "{message:?}");
    }
}

proptest! {
    #[test]
    fn a_request_that_was_decoded_is_decoded_again_as_it_is_encoded(
        bytes in proptest::collection::vec(any::<u8>(), 0..128),
    ) {
        if let Ok(request) = Request::decode(&bytes) {
            prop_assert_eq!(Request::decode(&request.encode()), Ok(request));
        }
        let _understood = decode_answer(&bytes);
    }

    #[test]
    fn a_message_that_is_cut_off_is_never_another_request(cut in 0..40_usize) {
        let message = Request::Connect { destination: PeerId::random() }.encode();
        if let Some(part) = message.get(..cut) && part.len() < message.len() {
            prop_assert!(Request::decode(part).is_err());
        }
    }
}
