//! What the protocol forbids ends a session, and what it lets pass does not.

use super::*;

#[test]
fn what_the_protocol_forbids_resets_the_session_with_the_reason() {
    let data = |offset| Frame::Data {
        offset,
        bytes: Bytes::from_static(&[7; 10]),
    };
    for (frame, why) in [
        (data(5), "leaves a gap"),
        (data(FIRST_WINDOW), "sends beyond the limit"),
        (Frame::Fin { offset: 9 }, "leaves a gap"),
        (
            Frame::Ack {
                delivered: 1,
                limit: 0,
            },
            "confirms what was never sent",
        ),
        (
            Frame::Rewind { from: 1, limit: 9 },
            "asks for what was never sent",
        ),
        (Frame::Done, "is done before its time"),
        (
            Frame::Datagram(Bytes::new()),
            "sends what no session carries",
        ),
        (
            Frame::Hello(crate::wire::Hello {
                instance: 1,
                lists: false,
            }),
            "sends what no session carries",
        ),
        (
            Frame::Refuse(Refuse {
                instance: 1,
                refusal: Refusal::Busy,
            }),
            "begins a stream twice",
        ),
    ] {
        let mut session = Pair::opened().forge(frame.clone());
        let violation = session.violation().map(|violation| violation.to_string());
        assert_eq!(violation, Some(format!("the peer {why}")), "{frame:?}");
        let last = std::iter::from_fn(|| session.poll_event()).last();
        assert_eq!(
            last,
            Some(Event::Closed(End::Reset(ResetReason::Violation)))
        );
    }
    let mut pair = Pair::opened();
    pair.opener.handle_end(pair.now);
    pair.run(RTT);
    assert_eq!(
        pair.forge(data(0)).violation(),
        Some(Violation::Offset("sends behind its end"))
    );
}

#[test]
fn a_frame_that_may_be_skipped_is() {
    assert_eq!(Pair::opened().forge(Frame::Skipped(77)).violation(), None);
}

#[test]
fn a_resume_with_offsets_that_cannot_be_is_a_violation() {
    for (received, delivered) in [(1, 0), (1, 1), (u64::MAX >> 1, 0)] {
        let mut pair = Pair::opened();
        let progress = Accept {
            instance: 1,
            received,
            delivered,
            limit: 0,
            ..Accept::default()
        };
        let resume = Frame::Resume(Resume {
            session: SessionId([7; 16]),
            instance: 1,
            attempt: 9,
            progress,
        });
        let (now, session) = (pair.now, pair.acceptor.as_mut().unwrap());
        session.handle_attach(StreamId(9), resume, now);
        assert!(session.violation().is_some());
    }
}

#[test]
fn a_pause_that_a_peer_claims_is_no_longer_than_a_session_lingers() {
    let mut pair = Pair::opened();
    let resume = Resume {
        session: SessionId([7; 16]),
        instance: 1,
        attempt: 9,
        progress: Accept {
            paused: Some(Duration::MAX),
            ..Accept::default()
        },
    };
    let (now, id) = (pair.now, StreamId(99));
    let session = pair.side(1).unwrap();
    session.handle_attach(id, Frame::Resume(resume), now);
    let event = session.poll_event();
    let pause = crate::config::LINGER;
    assert_eq!(event, Some(Event::Resumed { to: id, pause }));
}
