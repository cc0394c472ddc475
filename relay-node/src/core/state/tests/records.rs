//! The directory: who may register, what is copied where, and what is taken back.

use p2pnode_protocol::directory::{Registration, TAKEN_BACK, TTL};

use super::*;

/// A peer that signs records.
struct Signer {
    key: Keypair,
    id: PeerId,
}

impl Signer {
    fn new() -> Self {
        let key = Keypair::generate_ed25519();
        let id = key.public().to_peer_id();
        Self { key, id }
    }

    /// Its record of that number, with a circuit over `via`, as `source` offers it.
    fn offer(&self, relay: &Relay, source: PeerId, seq: u64, via: PeerId) -> Offer {
        let circuit = addr(&format!("/ip4/203.0.113.7/tcp/443/p2p/{via}/p2p-circuit"));
        let value = Registration::sign(&self.key, seq, &[circuit]).unwrap();
        Offer {
            source,
            registration: Registration::read(&self.id.to_bytes(), &value).unwrap(),
            value,
            expires: relay.now.instant + TTL,
        }
    }
}

fn outcomes(relay: &mut Relay) -> Vec<RecordOutcome> {
    let events = relay.events().into_iter();
    events
        .filter_map(|event| match event {
            Event::Record { outcome, .. } => Some(outcome),
            _ => None,
        })
        .collect()
}

const KEPT: RecordOutcome = RecordOutcome::Kept { withdraws: false };

/// What an offer by the peer itself came to.
fn register(relay: &mut Relay, signer: &Signer, seq: u64) -> Vec<RecordOutcome> {
    let local = relay.key.public().to_peer_id();
    let offer = signer.offer(relay, signer.id, seq, local);
    relay.state.handle_record(offer, relay.now);
    outcomes(relay)
}

/// What an offer of another relay came to.
fn copied(relay: &mut Relay, signer: &Signer, from: PeerId, seq: u64) -> Vec<RecordOutcome> {
    let offer = signer.offer(relay, from, seq, from);
    relay.state.handle_record(offer, relay.now);
    outcomes(relay)
}

/// The peers whose records were stored, copied to which relay, and removed.
#[derive(Debug, Default, PartialEq, Eq)]
struct Moves {
    stored: Vec<PeerId>,
    copies: Vec<(PeerId, PeerId, Duration)>,
    removed: Vec<PeerId>,
}

fn moves(relay: &mut Relay) -> Moves {
    let mut moves = Moves::default();
    for action in relay.actions() {
        match action {
            Action::StoreRecord(stored) => moves.stored.push(stored.peer),
            Action::RemoveRecord(peer) => moves.removed.push(peer),
            Action::CopyRecord { relay: to, record } => {
                let left = record.expires - relay.now.instant;
                moves.copies.push((to, record.peer, left));
            }
            _ => {}
        }
    }
    moves
}

fn copy_ended(relay: &mut Relay, to: PeerId, peer: PeerId, delivery: Delivery) {
    relay
        .state
        .handle_record_copied(to, peer, delivery, relay.now);
}

/// A relay with two others that are connected to it, on 101 and 102.
fn three() -> (Relay, PeerId, PeerId) {
    let [one, two] = peers();
    let mut relay = Relay::new(Settings {
        relays: vec![(one, host(101)), (two, host(102))],
        ..Settings::default()
    });
    relay.connect(101, one, 101);
    relay.connect(102, two, 102);
    relay.actions();
    relay.events();
    (relay, one, two)
}

fn reserve(relay: &mut Relay, connection: usize, signer: &Signer) {
    relay.connect(connection, signer.id, 1);
    relay.reserve(connection, signer.id).unwrap();
}

#[test]
fn a_record_of_a_peer_with_a_reservation_is_kept_and_goes_to_every_other_relay() {
    let (mut relay, one, two) = three();
    let peer = Signer::new();
    reserve(&mut relay, 1, &peer);
    assert_eq!(register(&mut relay, &peer, 1), [KEPT]);
    let mut moves = moves(&mut relay);
    moves.copies.sort_by_key(|(to, ..)| *to != one);
    assert_eq!(moves.stored, [peer.id]);
    assert_eq!(moves.copies, [(one, peer.id, TTL), (two, peer.id, TTL)]);
    assert_eq!(relay.state.totals().records, 1);
}

#[test]
fn a_record_that_comes_before_its_reservation_waits_for_it_and_goes_with_its_last_connection() {
    let mut relay = Relay::new(Settings::default());
    let peer = Signer::new();
    relay.connect(1, peer.id, 1);
    assert_eq!(register(&mut relay, &peer, 1), [RecordOutcome::Waiting]);
    assert_eq!(moves(&mut relay), Moves::default());
    relay.reserve(1, peer.id).unwrap();
    assert_eq!(outcomes(&mut relay), [KEPT]);
    assert_eq!(moves(&mut relay).stored, [peer.id]);
    let other = Signer::new();
    relay.connect(2, other.id, 2);
    assert_eq!(register(&mut relay, &other, 1), [RecordOutcome::Waiting]);
    relay.close(2, other.id);
    relay.connect(3, other.id, 2);
    relay.reserve(3, other.id).unwrap();
    assert_eq!(outcomes(&mut relay), []);
}

#[test]
fn only_so_many_records_wait_and_the_one_that_has_waited_longest_gives_way() {
    let mut relay = Relay::new(Settings::default());
    let signers: Vec<Signer> = (0..3).map(|_| Signer::new()).collect();
    let offer = signers[0].offer(&relay, signers[0].id, 1, signers[0].id);
    for (number, signer) in signers.iter().enumerate() {
        relay.connect(number, signer.id, 1);
    }
    assert_eq!(
        register(&mut relay, &signers[0], 1),
        [RecordOutcome::Waiting]
    );
    relay.advance(Duration::from_secs(1));
    for _ in 0..1022 {
        let now = relay.now.instant;
        let waiting = &mut relay.state.records_awaiting_reservation;
        waiting.insert(PeerId::random(), (now, offer.clone()));
    }
    for signer in &signers[1..] {
        assert_eq!(register(&mut relay, signer, 1), [RecordOutcome::Waiting]);
    }
    assert_eq!(relay.state.records_awaiting_reservation.len(), 1024);
    relay.reserve(0, signers[0].id).unwrap();
    assert_eq!(outcomes(&mut relay), []);
    relay.reserve(2, signers[2].id).unwrap();
    assert_eq!(outcomes(&mut relay), [KEPT]);
}

#[test]
fn a_record_is_gone_here_and_on_the_other_relays_two_minutes_after_the_last_reservation() {
    let (mut relay, one, two) = three();
    let peer = Signer::new();
    reserve(&mut relay, 1, &peer);
    reserve(&mut relay, 2, &peer);
    register(&mut relay, &peer, 1);
    for to in [one, two] {
        copy_ended(&mut relay, to, peer.id, Delivery::Delivered);
    }
    relay.actions();
    relay.close(1, peer.id);
    relay.pass(Duration::from_secs(600));
    assert_eq!(moves(&mut relay), Moves::default(), "one is left");
    relay.close(2, peer.id);
    relay.pass(Duration::from_secs(119));
    assert_eq!(moves(&mut relay), Moves::default());
    relay.pass(Duration::from_secs(1));
    let mut taken = moves(&mut relay);
    taken.copies.sort_by_key(|(to, ..)| *to != one);
    assert_eq!(taken.removed, [peer.id]);
    let ends = TAKEN_BACK;
    assert_eq!(taken.copies, [(one, peer.id, ends), (two, peer.id, ends)]);
    assert_eq!(relay.state.totals().records, 0);
}

#[test]
fn one_source_that_registers_new_ids_without_end_leaves_room_for_each_other_one() {
    let mut relay = Relay::limited(Limits {
        records: 200,
        reservations_per_source: crate::config::PerSource {
            ip4: 1024,
            ip6_net: 1024,
        },
        ..Limits::UNLIMITED
    });
    let local = relay.key.public().to_peer_id();
    let mut honest = Vec::new();
    for number in 0..600 {
        let peer = Signer::new();
        let from = if number % 60 == 59 {
            2 + number / 60
        } else {
            1
        };
        relay.connect(number, peer.id, u8::try_from(from).unwrap());
        relay.reserve(number, peer.id).unwrap();
        let offer = peer.offer(&relay, peer.id, 1, local);
        relay.state.handle_record(offer, relay.now);
        if from == 1 {
            relay.close(number, peer.id);
        } else {
            honest.push(peer.id);
        }
        relay.advance(Duration::from_millis(10));
    }
    relay.pass(Duration::from_secs(120));
    assert_eq!(relay.state.records.peers(), honest.into_iter().collect());
}

#[test]
fn records_are_copied_in_the_order_in_which_they_came() {
    let (mut relay, one, two) = three();
    let signers: Vec<Signer> = (0..100).map(|_| Signer::new()).collect();
    for signer in &signers {
        copied(&mut relay, signer, two, 1);
    }
    let mut order = Vec::new();
    loop {
        let copies = moves(&mut relay).copies;
        if copies.is_empty() {
            break;
        }
        for (to, peer, _) in copies {
            order.push(peer);
            copy_ended(&mut relay, to, peer, Delivery::Delivered);
        }
    }
    assert!(order.iter().eq(signers.iter().map(|signer| &signer.id)));
    assert_eq!(moves(&mut relay).copies, [], "for {one}");
}

#[test]
fn another_relay_speaks_for_any_peer_and_a_stranger_for_none() {
    let (mut relay, one, two) = three();
    let (peer, stranger) = (Signer::new(), relay.member(1, 1));
    relay.events();
    assert_eq!(
        copied(&mut relay, &peer, stranger, 1),
        [RecordOutcome::NoReservation]
    );
    assert_eq!(copied(&mut relay, &peer, one, 2), [KEPT]);
    let copies = moves(&mut relay).copies;
    assert_eq!(copies, [(two, peer.id, TTL)], "not to where it came from");
    assert_eq!(copied(&mut relay, &peer, two, 2), [RecordOutcome::Old]);
    assert_eq!(moves(&mut relay), Moves::default(), "it has come round");
    assert_eq!(copied(&mut relay, &peer, two, 3), [KEPT]);
}

#[test]
fn a_peer_may_renew_what_another_relay_copied_here_without_a_reservation() {
    let (mut relay, one, _) = three();
    let peer = Signer::new();
    assert_eq!(copied(&mut relay, &peer, one, 1), [KEPT]);
    relay.connect(1, peer.id, 1);
    assert_eq!(register(&mut relay, &peer, 2), [KEPT]);
}

#[test]
fn who_is_not_admitted_registers_nothing() {
    let mut relay = Relay::new(Settings {
        access: Access {
            tokens: true,
            ..Access::default()
        },
        ..Settings::default()
    });
    let peer = Signer::new();
    relay.connect(1, peer.id, 1);
    assert_eq!(register(&mut relay, &peer, 1), [RecordOutcome::NotAdmitted]);
}

#[test]
fn a_relay_that_connects_gets_all_records_so_many_at_a_time() {
    let (mut relay, one, two) = three();
    let signers: Vec<Signer> = (0..40).map(|_| Signer::new()).collect();
    for signer in &signers {
        copied(&mut relay, signer, two, 1);
    }
    let first = moves(&mut relay).copies;
    assert_eq!(first.len(), 32);
    relay.close(101, one);
    for (_, peer, _) in first {
        copy_ended(&mut relay, one, peer, Delivery::Failed);
    }
    assert_eq!(moves(&mut relay), Moves::default(), "it is gone");
    relay.connect(103, one, 101);
    let mut under_way = moves(&mut relay).copies;
    assert_eq!(under_way.len(), 32);
    let mut arrived = 0;
    while let Some((_, peer, _)) = under_way.pop() {
        copy_ended(&mut relay, one, peer, Delivery::Delivered);
        under_way.extend(moves(&mut relay).copies);
        arrived += 1;
    }
    assert_eq!(arrived, signers.len());
}

#[test]
fn the_record_of_a_peer_that_is_no_longer_admitted_is_taken_back_here_and_from_the_other_relays() {
    let (mut relay, one, two) = three();
    let peer = Signer::new();
    reserve(&mut relay, 1, &peer);
    register(&mut relay, &peer, 1);
    for to in [one, two] {
        copy_ended(&mut relay, to, peer.id, Delivery::Delivered);
    }
    relay.actions();
    let access = Access {
        allow: vec![one, two],
        ..Access::default()
    };
    relay.state.handle_access(&access, relay.now);
    let mut taken = moves(&mut relay);
    taken.copies.sort_by_key(|(to, ..)| *to != one);
    assert_eq!(taken.removed, [peer.id]);
    let ends = TAKEN_BACK;
    assert_eq!(taken.copies, [(one, peer.id, ends), (two, peer.id, ends)]);
    assert_eq!(relay.state.totals().records, 0);
    relay.events();
    // What a relay copies that does not know it yet is the same record, and stays away.
    let local = relay.key.public().to_peer_id();
    let offer = peer.offer(&relay, one, 1, local);
    relay.state.handle_record(offer, relay.now);
    assert_eq!(outcomes(&mut relay), [RecordOutcome::Old]);
}

#[test]
fn a_copy_that_does_not_arrive_is_sent_again_until_it_does() {
    let (mut relay, one, two) = three();
    let peer = Signer::new();
    copied(&mut relay, &peer, two, 1);
    for _ in 0..3 {
        assert_eq!(moves(&mut relay).copies.len(), 1);
        copy_ended(&mut relay, one, peer.id, Delivery::Failed);
        assert_eq!(moves(&mut relay), Moves::default(), "not at once");
        relay.pass(Duration::from_secs(5));
    }
    assert_eq!(moves(&mut relay).copies.len(), 1);
    copy_ended(&mut relay, one, peer.id, Delivery::Delivered);
    relay.pass(Duration::from_secs(50));
    assert_eq!(moves(&mut relay), Moves::default());
}

#[test]
fn a_relay_takes_back_what_leads_through_it_alone() {
    let (mut relay, one, _) = three();
    let peer = Signer::new();
    assert_eq!(copied(&mut relay, &peer, one, 1), [KEPT]);
    relay.actions();
    let offer = Offer {
        expires: relay.now.instant + TAKEN_BACK,
        ..peer.offer(&relay, one, 1, one)
    };
    relay.state.handle_record(offer, relay.now);
    assert_eq!(outcomes(&mut relay), [RecordOutcome::TakenBack]);
    assert_eq!(moves(&mut relay).stored, [peer.id], "with less time");
    relay.pass(Duration::from_secs(120));
    assert_eq!(moves(&mut relay).removed, [peer.id]);
}

#[test]
fn records_expire_and_make_room_in_a_full_directory() {
    let mut relay = Relay::limited(Limits {
        records: 1,
        ..Limits::UNLIMITED
    });
    let (one, two) = (Signer::new(), Signer::new());
    reserve(&mut relay, 1, &one);
    reserve(&mut relay, 2, &two);
    assert_eq!(register(&mut relay, &one, 1), [KEPT]);
    assert_eq!(register(&mut relay, &two, 1), [RecordOutcome::Full]);
    assert_eq!(register(&mut relay, &one, 2), [KEPT], "its own place");
    relay.actions();
    // Just before the sweep, which would do it.
    relay.advance(TTL);
    assert_eq!(register(&mut relay, &two, 2), [KEPT]);
    let moves = moves(&mut relay);
    assert_eq!((moves.removed, moves.stored), (vec![one.id], vec![two.id]));
}
