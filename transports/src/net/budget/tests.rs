use super::*;

struct Fake(Mutex<(Class, u64, bool)>);

impl Budgeted for Fake {
    fn set_class(&self, class: Class) {
        self.0.lock().expect("no panic").0 = class;
    }

    fn held(&self) -> u64 {
        self.0.lock().expect("no panic").1
    }

    fn close(&self) {
        *self.0.lock().expect("no panic") = (Class::Stranger, 0, true);
    }
}

fn open(budgets: &Budgets, peer: PeerId, held: u64) -> Registered<Fake> {
    Registered::new(budgets, peer, |class| {
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
fn the_connection_that_holds_the_most_is_closed_and_strangers_come_first() {
    let budgets = Budgets::new(Class::Stranger);
    let peers = [(); 4].map(|()| PeerId::random());
    budgets.set_class(peers[0], Class::Carrying);
    let held = [32 << 20, 300 << 10, 900 << 10, 1000];
    let connections: Vec<_> = peers
        .iter()
        .zip(held)
        .map(|(peer, held)| open(&budgets, *peer, held))
        .collect();
    assert_eq!(budgets.held(), held.iter().sum::<u64>());
    let closed: Vec<_> = std::iter::from_fn(|| budgets.close_largest())
        .map(|largest| largest.held)
        .collect();
    assert_eq!(closed, [900 << 10, 300 << 10, 32 << 20]);
    let is_closed = connections
        .iter()
        .map(|one| one.0.lock().expect("no panic").2);
    // Closing what holds next to nothing would not help.
    assert_eq!(is_closed.collect::<Vec<_>>(), [true, true, true, false]);
}
