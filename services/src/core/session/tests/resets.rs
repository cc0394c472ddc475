//! Resets, and what was sent before them.

use super::*;

const LOCAL: ResetReason = ResetReason::LocalReset;

#[test]
fn a_reset_travels_with_its_reason_even_if_there_is_no_path_at_that_time() {
    for lost in [false, true] {
        for side in 0..2 {
            let mut pair = Pair::opened();
            if lost {
                pair.path = false;
                pair.lose();
            }
            let now = pair.now;
            pair.side(side)
                .unwrap()
                .handle_reset(ResetReason::LocalReset, now);
            pair.run(RTT * 3);
            pair.path = true;
            pair.opener.handle_better_path(pair.now);
            pair.run(RTT * 3);
            let ended = Event::Closed(End::Reset(ResetReason::LocalReset));
            assert_eq!(pair.events[side].last(), Some(&ended));
            let by_peer = Event::Closed(End::ResetByPeer(ResetReason::LocalReset));
            assert_eq!(
                pair.events[1 - side].last(),
                Some(&by_peer),
                "{lost} {side}"
            );
            assert!(pair.opener.is_over() && pair.acceptor.unwrap().is_over());
        }
    }
}

/// The local socket of `side` sends `bytes`, and is reset.
fn send_and_reset(pair: &mut Pair, side: usize, bytes: usize) {
    assert_eq!(pair.write(side, bytes), bytes);
    let now = pair.now;
    pair.side(side).unwrap().handle_reset(LOCAL, now);
}

fn last_events(pair: &Pair, side: usize) -> [Option<Event>; 2] {
    [side, 1 - side].map(|side| pair.events[side].last().copied())
}

fn reset_events() -> [Option<Event>; 2] {
    [End::Reset(LOCAL), End::ResetByPeer(LOCAL)].map(|end| Some(Event::Closed(end)))
}

#[test]
fn what_was_sent_before_a_reset_is_delivered_before_it() {
    for side in 0..2 {
        for lost in [false, true] {
            let mut pair = Pair::opened();
            if lost {
                (pair.path, _) = (false, pair.lose());
            }
            send_and_reset(&mut pair, side, 100_000);
            pair.run(RTT * 3);
            (pair.path, _) = (true, pair.opener.handle_better_path(pair.now));
            pair.run(RTT * 4);
            assert_eq!(pair.got[1 - side].len(), 100_000, "{side} {lost}");
            assert_eq!(last_events(&pair, side), reset_events(), "{side} {lost}");
            assert!(pair.actions[1 - side].contains(&Action::ResetLocal));
            assert!(pair.opener.is_over() && pair.acceptor.unwrap().is_over());
        }
    }
}

#[test]
fn a_client_that_sends_and_resets_before_the_peer_has_answered_is_heard() {
    let mut pair = Pair::new(Settings::default());
    send_and_reset(&mut pair, 0, 1000);
    pair.run(RTT * 4);
    assert_eq!(pair.got[1].len(), 1000);
    assert_eq!(last_events(&pair, 0), reset_events());
}

#[test]
fn a_reset_behind_an_end_comes_after_the_data_and_the_end() {
    let mut pair = Pair::opened();
    pair.write(1, 1000);
    let now = pair.now;
    pair.acceptor.as_mut().unwrap().handle_end(now);
    pair.acceptor.as_mut().unwrap().handle_reset(LOCAL, now);
    pair.run(RTT * 4);
    assert_eq!(pair.got[0].len(), 1000);
    pair.actions[0].retain(|action| matches!(action, Action::ShutdownLocal | Action::ResetLocal));
    let ended = [Action::ShutdownLocal, Action::ResetLocal];
    assert_eq!(pair.actions[0], ended);
}

#[test]
fn what_comes_for_a_socket_that_is_reset_is_dropped_and_completes_nothing() {
    let mut pair = Pair::opened();
    pair.reads[0] = false;
    send_and_reset(&mut pair, 1, 200_000);
    pair.write(0, 10_000);
    pair.opener.handle_end(pair.now);
    pair.run(RTT * 10);
    assert_eq!(pair.acceptor.as_ref().unwrap().violation(), None);
    assert_eq!(pair.events[0], [Event::Opened], "nobody reads");
    pair.reads[0] = true;
    pair.run(RTT * 4);
    assert_eq!((pair.got[0].len(), pair.got[1].len()), (200_000, 0));
    assert_eq!(last_events(&pair, 1), reset_events());
}

#[test]
fn a_reset_waits_no_longer_than_a_session_lingers_for_a_reader_that_does_not_read() {
    let mut pair = Pair::opened();
    pair.reads[1] = false;
    send_and_reset(&mut pair, 0, 1000);
    pair.run(Settings::default().linger - RTT);
    assert_eq!(pair.events[0], [Event::Opened]);
    pair.run(RTT * 2);
    let reset = End::Reset(LOCAL);
    assert_eq!(pair.events[0].last(), Some(&Event::Closed(reset)));
    // What has come waits as long again.
    assert_eq!(pair.events[1], [Event::Opened]);
    pair.run(Settings::default().linger);
    assert_eq!(last_events(&pair, 0), reset_events());
    assert_eq!(pair.memory.held_at_most(), 2 * crate::core::memory::FLOOR);
}

#[test]
fn what_has_come_is_delivered_whatever_ends_the_session() {
    for (frame, end) in [
        (
            Some(Frame::Reset(crate::wire::Reset { reason: LOCAL })),
            End::ResetByPeer(LOCAL),
        ),
        (None, End::PeerRestarted),
    ] {
        let mut pair = Pair::opened();
        pair.reads[1] = false;
        pair.write(0, 1000);
        pair.run(RTT);
        let (now, id) = (pair.now, pair.opener.current().unwrap());
        let session = pair.acceptor.as_mut().unwrap();
        match frame {
            Some(frame) => session.handle_frame(id, frame, now),
            None => session.handle_peer_restarted(now),
        }
        pair.settle();
        assert_eq!(pair.events[1], [Event::Opened]);
        pair.reads[1] = true;
        pair.run(MS);
        assert_eq!(pair.got[1].len(), 1000);
        assert_eq!(pair.events[1].last(), Some(&Event::Closed(end)));
        assert!(pair.actions[1].contains(&Action::ResetLocal));
    }
}

#[test]
fn a_session_that_is_not_wanted_any_longer_is_reset_at_once() {
    let mut pair = Pair::opened();
    pair.write(0, 1000);
    pair.opener.handle_reset(ResetReason::NotAllowed, pair.now);
    pair.settle();
    let end = End::Reset(ResetReason::NotAllowed);
    assert_eq!(pair.events[0].last(), Some(&Event::Closed(end)));
}

#[test]
fn two_sides_that_reset_at_once_do_not_wait_for_each_other() {
    let mut pair = Pair::opened();
    send_and_reset(&mut pair, 0, 1000);
    send_and_reset(&mut pair, 1, 1000);
    pair.run(RTT * 4);
    assert!(pair.opener.is_over() && pair.acceptor.unwrap().is_over());
}
