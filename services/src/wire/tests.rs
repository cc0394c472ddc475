#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use proptest::{collection::vec, prelude::*};

use super::{
    datagram::{FlowNumber, Opener},
    offset::MAX_OFFSET,
    *,
};

fn bytes(frame: Frame) -> Vec<u8> {
    let mut to = BytesMut::new();
    let payload = encode(frame, &mut to);
    to.extend_from_slice(&payload.unwrap_or_default());
    to.to_vec()
}

fn all(mut decoder: Decoder, bytes: &[u8]) -> Result<Vec<Frame>, Error> {
    decoder.handle_bytes(bytes);
    let mut frames = Vec::new();
    while let Some(frame) = decoder.poll_frame()? {
        frames.push(frame);
    }
    Ok(frames)
}

fn read(bytes: &[u8]) -> Result<Vec<Frame>, Error> {
    all(Decoder::default(), bytes)
}

fn open() -> impl Strategy<Value = Open> {
    let socket = || any::<std::net::SocketAddr>().prop_map(|addr| (addr.ip(), addr.port()).into());
    let flow = (0..=FlowNumber::MAX).prop_map(|flow| FlowNumber::new(flow).unwrap());
    let carries = prop_oneof![Just(Carries::Bytes), flow.prop_map(Carries::Datagrams)];
    let client = proptest::option::of((socket(), socket()));
    let service = "[a-z0-9-]{1,63}".prop_map(|name| name.parse().unwrap());
    let numbers = (
        any::<[u8; 16]>(),
        any::<u64>(),
        any::<u32>(),
        0..=MAX_OFFSET,
    );
    let parts = (numbers, service, carries, client, time());
    parts.prop_map(|(numbers, service, carries, client, linger)| Open {
        linger,
        session: SessionId(numbers.0),
        instance: numbers.1,
        attempt: numbers.2,
        service,
        carries,
        limit: numbers.3,
        client,
    })
}

fn time() -> impl Strategy<Value = Option<Duration>> {
    proptest::option::of(any::<u32>().prop_map(|millis| Duration::from_millis(millis.into())))
}

fn accept() -> impl Strategy<Value = Accept> {
    let offsets = (0..=MAX_OFFSET, 0..=MAX_OFFSET, 0..=MAX_OFFSET);
    (any::<u64>(), offsets, time(), time()).prop_map(|(instance, (a, b, limit), paused, linger)| {
        Accept {
            instance,
            received: a.max(b),
            delivered: a.min(b),
            limit,
            paused,
            linger,
        }
    })
}

fn frame() -> impl Strategy<Value = Frame> {
    let offset = || 0..=MAX_OFFSET;
    let resume = (any::<[u8; 16]>(), any::<u32>(), accept()).prop_map(|(id, attempt, progress)| {
        Frame::Resume(Resume {
            session: SessionId(id),
            instance: progress.instance,
            attempt,
            progress,
        })
    });
    let refusal = proptest::sample::select(vec![
        Refusal::Unavailable,
        Refusal::Busy,
        Refusal::UnknownSession,
        Refusal::Stale,
        Refusal::Malformed,
        Refusal::TakesDatagrams,
        Refusal::TakesStreams,
        Refusal::Other,
    ]);
    let reason = proptest::sample::select(vec![
        ResetReason::LocalReset,
        ResetReason::TargetRefused,
        ResetReason::TargetTimeout,
        ResetReason::TargetUnreachable,
        ResetReason::Violation,
        ResetReason::NotAllowed,
        ResetReason::ServiceGone,
        ResetReason::Stopping,
        ResetReason::Idle,
        ResetReason::Other,
    ]);
    let refuse = (any::<u64>(), refusal)
        .prop_map(|(instance, refusal)| Frame::Refuse(Refuse { instance, refusal }));
    let data =
        (0..=MAX_OFFSET - 300, vec(any::<u8>(), 1..300)).prop_map(|(offset, bytes)| Frame::Data {
            offset,
            bytes: bytes.into(),
        });
    prop_oneof![
        open().prop_map(Frame::Open),
        resume,
        accept().prop_map(Frame::Accept),
        refuse,
        data,
        offset().prop_map(|offset| Frame::Fin { offset }),
        (offset(), offset()).prop_map(|(delivered, limit)| Frame::Ack { delivered, limit }),
        offset().prop_map(|limit| Frame::Blocked { limit }),
        (offset(), offset()).prop_map(|(from, limit)| Frame::Rewind { from, limit }),
        reason.prop_map(|reason| Frame::Reset(Reset { reason })),
        Just(Frame::Done),
        (any::<u64>(), any::<bool>())
            .prop_map(|(instance, lists)| Frame::Hello(Hello { instance, lists })),
        ("[a-z0-9-]{1,63}", proptest::option::of("/x/[a-z]{1,100}")).prop_map(
            |(name, protocol)| {
                Frame::Offer(Offer {
                    name: name.parse().unwrap(),
                    kind: Kind::Udp,
                    protocol: protocol.map(|protocol| protocol.parse().unwrap()),
                })
            }
        ),
        vec(any::<u8>(), 0..300).prop_map(|bytes| Frame::Datagram(bytes.into())),
        (64..=255u8).prop_map(Frame::Skipped),
    ]
}

proptest! {
    #[test]
    fn frames_are_read_as_they_were_written_in_whatever_pieces_they_come(
        frames in vec(frame(), 0..6),
        piece in 1..100usize,
    ) {
        let whole: Vec<u8> = frames.iter().cloned().flat_map(bytes).collect();
        prop_assert_eq!(&read(&whole).unwrap(), &frames);
        let mut decoder = Decoder::default();
        let mut read = Vec::new();
        for piece in whole.chunks(piece) {
            decoder.handle_bytes(piece);
            while let Some(frame) = decoder.poll_frame().unwrap() {
                read.push(frame);
            }
        }
        prop_assert_eq!(read, frames);
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in vec(any::<u8>(), 0..200)) {
        fuzz::frames(&bytes);
    }

    #[test]
    fn any_body_of_any_type_is_read_without_a_panic(kind in any::<u8>(), body in vec(any::<u8>(), 0..100)) {
        let length = u8::try_from(body.len()).unwrap();
        fuzz::frames(&[&[kind, 0, 0, length][..], &body].concat());
    }

    #[test]
    fn datagrams_are_read_as_they_were_written(flow in 0..=FlowNumber::MAX, sender in any::<bool>(), payload in vec(any::<u8>(), 0..50)) {
        let flow = FlowNumber::new(flow).unwrap();
        let opener = if sender { Opener::Sender } else { Opener::Receiver };
        let datagram = datagram::encode(flow, opener, &payload);
        prop_assert_eq!(datagram.len(), flow.overhead() + payload.len());
        prop_assert_eq!(datagram::decode(datagram), Some((flow, opener, payload.into())));
    }

    #[test]
    fn any_datagram_is_read_without_a_panic(bytes in vec(any::<u8>(), 0..12)) {
        fuzz::datagram(&bytes);
    }
}

#[test]
fn a_length_beyond_the_limit_of_its_type_is_refused_before_its_body_comes() {
    for (kind, most) in [
        (5, MAX_DATA + 8),
        (13, MAX_DATAGRAM),
        (1, MAX_CONTROL),
        (64, MAX_CONTROL),
        (255, MAX_CONTROL),
    ] {
        let header = |length: usize| {
            let [.., a, b, c] = length.to_be_bytes();
            [kind, a, b, c]
        };
        assert_eq!(Header::parse(header(most)).unwrap().length(), most);
        let length = most + 1;
        assert_eq!(
            Header::parse(header(length)),
            Err(Error::Length { kind, length })
        );
    }
}

#[test]
fn unknown_types_are_skipped_from_64_on_and_refused_below() {
    assert_eq!(read(&[77, 0, 0, 2, 1, 2]).unwrap(), [Frame::Skipped(77)]);
    for kind in [0, 15, 63] {
        assert_eq!(read(&[kind, 0, 0, 0]), Err(Error::Unknown(kind)));
    }
}

#[test]
fn frames_of_a_fixed_length_have_no_other() {
    for (kind, length) in [(6, 8u8), (7, 16), (8, 8), (9, 16), (11, 0)] {
        for wrong in [length + 1, length.wrapping_sub(1)] {
            assert!(matches!(
                read(&[kind, 0, 0, wrong]),
                Err(Error::Length { .. })
            ));
        }
    }
    assert!(
        matches!(read(&[5, 0, 0, 8]), Err(Error::Length { .. })),
        "data without a byte"
    );
}

#[test]
fn offsets_that_could_overflow_are_refused() {
    for offset in [MAX_OFFSET + 1, u64::MAX] {
        assert_eq!(read(&bytes(Frame::Fin { offset })), Err(Error::Body(6)));
        let data = Frame::Data {
            offset,
            bytes: Bytes::from_static(b"x"),
        };
        assert_eq!(read(&bytes(data)), Err(Error::Body(5)));
    }
}

#[test]
fn progress_that_delivers_more_than_it_received_is_refused() {
    let accept = Accept {
        instance: 0,
        received: 1,
        delivered: 2,
        limit: 3,
        ..Accept::default()
    };
    assert_eq!(read(&bytes(Frame::Accept(accept))), Err(Error::Body(3)));
}

#[test]
fn messages_of_a_later_version_are_read() {
    // Field 15 is unknown, and so is the refusal 99.
    let refuse = [4, 0, 0, 13, 9, 7, 0, 0, 0, 0, 0, 0, 0, 16, 99, 120, 1];
    let refusal = Frame::Refuse(Refuse {
        instance: 7,
        refusal: Refusal::Other,
    });
    assert_eq!(read(&refuse).unwrap(), [refusal]);
}

#[test]
fn an_open_with_a_wrong_id_name_flow_or_socket_is_refused() {
    let name = |name: &str| [&[34, u8::try_from(name.len()).unwrap()], name.as_bytes()].concat();
    let id = [&[10, 16][..], &[7; 16]].concat();
    let frame = |parts: &[&[u8]]| {
        let body = parts.concat();
        read(&[&[1, 0, 0, u8::try_from(body.len()).unwrap()][..], &body].concat())
    };
    assert!(frame(&[&id, &name("db")]).is_ok());
    let (db, upper) = (name("db"), name("DB"));
    let wrong: [&[&[u8]]; 7] = [
        &[],
        &[&id],
        &[&db],
        &[&[10, 1, 7], &db],
        &[&id, &upper],
        &[&id, &db, &[40, 0x80, 0x80, 0x80, 0x80, 2]],
        &[&id, &db, &[58, 3, 10, 1, 7]],
    ];
    for wrong in wrong {
        assert_eq!(frame(wrong), Err(Error::Body(1)), "{wrong:?}");
    }
}

#[test]
fn flows_have_short_numbers_first() {
    for (flow, overhead) in [
        (0, 1),
        (31, 1),
        (32, 2),
        (8191, 2),
        (8192, 4),
        (FlowNumber::MAX, 4),
    ] {
        assert_eq!(
            FlowNumber::new(flow).unwrap().overhead(),
            overhead,
            "{flow}"
        );
    }
    assert_eq!(FlowNumber::new(FlowNumber::MAX + 1), None);
    assert_eq!(
        datagram::decode(Bytes::from_static(&[0xc0; 8])),
        None,
        "eight bytes"
    );
    assert_eq!(
        datagram::decode(Bytes::from_static(&[0x40])),
        None,
        "cut off"
    );
}
