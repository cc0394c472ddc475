use super::*;

struct Fake(Mutex<(Class, u64, bool)>);

impl Budgeted for Fake {
    fn set_class(&self, class: Class) {
        self.0.lock().expect("no panic").0 = class;
    }

    fn held(&self) -> Option<u64> {
        let (_, held, is_closed) = *self.0.lock().expect("no panic");
        (!is_closed).then_some(held)
    }

    fn close(&self) {
        *self.0.lock().expect("no panic") = (Class::Stranger, 0, true);
    }
}

fn open(budgets: &Budgets, peer: PeerId, held: u64) -> Registered<Fake> {
    Registered::new(budgets, peer, |Grant { class, .. }| {
        Arc::new(Fake(Mutex::new((class, held, false))))
    })
}

fn class(connection: &Registered<Fake>) -> Class {
    connection.0.lock().expect("no panic").0
}

#[test]
fn a_class_reaches_the_connections_that_are_open_and_those_to_come_and_no_other_peer() {
    let budgets = Budgets::new(Class::Stranger);
    let [peer, other] = [(); 2].map(|()| PeerId::random());
    let (first, foreign) = (open(&budgets, peer, 0), open(&budgets, other, 0));
    budgets.set_class(peer, Class::Carrying);
    let second = open(&budgets, peer, 0);
    assert_eq!([&first, &second].map(class), [Class::Carrying; 2]);
    assert_eq!(class(&foreign), Class::Stranger);
    budgets.set_class(peer, Class::Stranger);
    assert_eq!([&first, &second].map(class), [Class::Stranger; 2]);
    drop((first, second, foreign));
    let registry = budgets.lock();
    assert!(registry.classes.is_empty() && registry.open.is_empty());
}

#[test]
fn connections_are_closed_by_what_they_hold_strangers_first_and_no_idle_one_of_another_class() {
    let budgets = Budgets::new(Class::Stranger);
    let peers = [(); 6].map(|()| PeerId::random());
    budgets.set_class(peers[0], Class::Carrying);
    budgets.set_class(peers[1], Class::Known);
    let held = [32 << 20, 1000, 300 << 10, 900 << 10, 1000, 2000];
    let connections: Vec<_> = peers
        .iter()
        .zip(held)
        .map(|(peer, held)| open(&budgets, *peer, held))
        .collect();
    assert_eq!(budgets.held(), held.iter().sum::<u64>());
    assert_eq!(budgets.close(0, 0), []);
    let closed = |bytes, of_others| {
        let closed = budgets.close(bytes, of_others).into_iter();
        closed.map(|one| one.held).collect::<Vec<_>>()
    };
    assert_eq!(closed(1, 1), [900 << 10]);
    // Then the idle ones of strangers, the oldest first; none a second time.
    assert_eq!(closed((300 << 10) + CONNECTION + 1, 1), [300 << 10, 1000]);
    assert_eq!(closed(u64::MAX, 0), [2000]);
    assert_eq!(closed(u64::MAX, 1), [32 << 20]);
    assert!(closed(u64::MAX, u64::MAX).is_empty());
    assert_eq!(budgets.held(), 1000, "known and idle");
    drop(connections);
}

#[test]
fn when_there_is_room_again_every_connection_is_read_on() {
    struct Waits(std::sync::atomic::AtomicU32);
    impl Budgeted for Waits {
        fn set_class(&self, _: Class) {}
        fn held(&self) -> Option<u64> {
            Some(0)
        }
        fn read_on(&self) {
            self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
        fn close(&self) {}
    }
    let budgets = Budgets::new(Class::Stranger);
    let connection = Registered::new(&budgets, PeerId::random(), |_| {
        Arc::new(Waits(std::sync::atomic::AtomicU32::default()))
    });
    let woken = || connection.0.load(std::sync::atomic::Ordering::Relaxed);
    for (room, times) in [(10, 0), (20, 0), (0, 0), (0, 0), (1, 1), (u64::MAX, 1)] {
        budgets.set_room(room);
        assert_eq!(woken(), times, "{room}");
    }
}

#[test]
fn while_memory_is_short_what_comes_over_quic_is_dropped_of_connections_that_hold_much() {
    struct Quic(SocketAddr, Mutex<bool>);
    impl Budgeted for Quic {
        fn set_class(&self, _: Class) {}
        fn held(&self) -> Option<u64> {
            Some(0)
        }
        fn holds_much(&self) -> bool {
            *self.1.lock().expect("no panic")
        }
        fn close(&self) {}
        fn remote(&self) -> Option<(Transport, SocketAddr)> {
            Some((Transport::Quic, self.0))
        }
    }
    let budgets = Budgets::new(Class::Stranger);
    let remote = |port| SocketAddr::from(([203, 0, 113, 1], port));
    let open = |port| {
        Registered::new(&budgets, PeerId::random(), |_| {
            Arc::new(Quic(remote(port), Mutex::new(port == 1)))
        })
    };
    let (greedy, honest) = (open(1), open(2));
    let dropped = |bytes| [1, 2, 3].map(|port| budgets.drops(remote(port), bytes));
    assert_eq!(dropped(1 << 30), [false; 3], "no limit");
    budgets.set_room(3000);
    assert_eq!(dropped(500), [false; 3]);
    assert_eq!(
        dropped(600),
        [false, false, false],
        "the last of them fills the room"
    );
    assert_eq!(dropped(0), [true, false, false]);
    // Over a socket of IPv6, too.
    let mapped = SocketAddr::from((std::net::Ipv4Addr::new(203, 0, 113, 1).to_ipv6_mapped(), 1));
    assert!(budgets.drops(mapped, 0));
    *greedy.1.lock().expect("no panic") = false;
    assert_eq!(dropped(0), [false; 3], "it was read");
    *greedy.1.lock().expect("no panic") = true;
    budgets.set_room(3000);
    assert_eq!(dropped(0), [false; 3], "there is memory again");
    drop((greedy, honest));
    assert!(budgets.lock().quic.is_empty());
}
