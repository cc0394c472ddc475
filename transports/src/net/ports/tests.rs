#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use super::*;

fn taken() -> OpenError {
    OpenError {
        socket: Transport::Quic,
        error: io::ErrorKind::AddrInUse.into(),
    }
}

#[test]
fn every_punch_socket_takes_the_same_number_if_it_can() {
    let ports = Ports::new("40000-40050".parse().unwrap(), b"a");
    let (quic, ()) = ports
        .open(Transport::Quic, Family::Ip6, |_| Ok(()))
        .unwrap();
    let (tcp, ()) = ports.open(Transport::Tcp, Family::Ip4, |_| Ok(())).unwrap();
    assert_eq!(tcp.port(), quic.port());
    let shared = quic.port();
    let refuse_shared = |port| if port == shared { Err(taken()) } else { Ok(()) };
    let (other, ()) = ports
        .open(Transport::Tcp, Family::Ip6, refuse_shared)
        .unwrap();
    assert_ne!(other.port(), shared);
    assert_eq!(
        ports.counts(),
        PoolCounts {
            free: 49,
            in_use: 2,
            cooling: 0
        }
    );
    assert_eq!(ports.punch_ports().len(), 3);
    drop((quic, tcp, other));
    assert_eq!(ports.counts().free, 51);
    assert!(ports.punch_ports().is_empty());
}

#[test]
fn an_exhaustion_lasts_until_something_can_be_opened() {
    let ports = Ports::new("40000-40001".parse().unwrap(), b"a");
    let refused = ports.open(Transport::Quic, Family::Ip4, |_| Err::<(), _>(taken()));
    assert!(matches!(refused, Err(NoPort::Exhausted(_))));
    assert_eq!(ports.exhausted().unwrap().holders.len(), 2);
    assert_eq!(ports.unbound(), ports.exhausted());
    let _claim = ports
        .open(Transport::Quic, Family::Ip4, |_| Ok(()))
        .unwrap();
    assert_eq!(ports.exhausted(), None);
    assert_eq!(ports.unbound(), None);
}

#[test]
fn a_dial_without_a_port_is_no_socket_without_one() {
    let ports = Ports::new("40000".parse().unwrap(), b"a");
    let _punch = ports.open(Transport::Tcp, Family::Ip4, |_| Ok(())).unwrap();
    assert!(ports.lease(Family::Ip4).is_err());
    assert!(ports.exhausted().is_some());
    assert_eq!(ports.unbound(), None);
}

#[test]
fn a_host_without_the_family_is_not_an_exhausted_range() {
    let ports = Ports::new("40000-40001".parse().unwrap(), b"a");
    let unsupported = |_| {
        Err::<(), _>(OpenError {
            socket: Transport::Quic,
            error: io::ErrorKind::Unsupported.into(),
        })
    };
    let refused = ports.open(Transport::Quic, Family::Ip6, unsupported);
    assert!(matches!(
        refused,
        Err(NoPort::NoSocket {
            family: Family::Ip6,
            ..
        })
    ));
    assert_eq!(ports.exhausted(), None);
}

#[test]
fn a_port_with_a_tcp_connection_is_the_last_to_be_taken() {
    // Below the ports that the kernel gives to others.
    let listener = (21_000..).find_map(|port| std::net::TcpListener::bind(("0.0.0.0", port)).ok());
    let listener = listener.unwrap();
    let busy = listener.local_addr().unwrap().port();
    let _connection = std::net::TcpStream::connect(("127.0.0.1", busy)).unwrap();
    let _accepted = listener.accept().unwrap();
    let other = busy + 1;
    let range = format!("{busy}-{other}");
    // Whichever of the two a seed prefers.
    for seed in 0..16_u8 {
        let ports = Ports::new(range.parse().unwrap(), &[seed]);
        let taken = |port| if port == other { Err(taken()) } else { Ok(()) };
        let mut tried = Vec::new();
        let opened = ports.open(Transport::Tcp, Family::Ip4, |port| {
            tried.push(port);
            taken(port)
        });
        assert_eq!(opened.unwrap().0.port(), busy);
        assert_eq!(tried, [other, busy]);
    }
}

#[test]
fn a_punch_port_that_moves_is_not_taken_away_by_the_end_of_the_earlier_one() {
    let ports = Ports::new("21000-21050".parse().unwrap(), b"a");
    let of = (Transport::Tcp, Family::Ip4);
    let (earlier, ()) = ports.open(of.0, of.1, |_| Ok(())).unwrap();
    let lease = ports.lease_far(of.0, of.1).unwrap();
    assert!(lease.port().abs_diff(earlier.port()) >= 20);
    let moved = ports.move_punch(of.0, of.1, lease.port());
    drop(earlier);
    assert_eq!(ports.punch_port(of.0, of.1), Some(lease.port()));
    drop(lease);
    assert_eq!(ports.counts().in_use, 1);
    drop(moved);
    assert!(ports.punch_ports().is_empty());
}

#[test]
fn silent_ports_are_left_out_until_one_is_answered_or_all_were_tried() {
    let ports = Ports::new("21100-21103".parse().unwrap(), b"a");
    let of = (Transport::Tcp, Family::Ip4);
    let (punch, ()) = ports.open(of.0, of.1, |_| Ok(())).unwrap();
    let next = || ports.lease_far(of.0, of.1).unwrap().port();
    let far = next();
    assert_eq!(far.abs_diff(punch.port()), 2);
    let rest = [next(), next()];
    assert_eq!(
        BTreeSet::from([punch.port(), far, rest[0], rest[1]]).len(),
        4
    );
    assert_eq!(next(), far);
    next();
    ports.answered(of.0, of.1);
    assert_eq!(next(), far);
}

#[test]
fn a_remote_that_stays_silent_costs_eight_other_ports_and_one_more_in_20_s() {
    let ports = Ports::new("21200-21250".parse().unwrap(), b"a");
    let of = (Transport::Quic, Family::Ip4);
    let (_punch, ()) = ports.open(of.0, of.1, |_| Ok(())).unwrap();
    let leases = std::iter::from_fn(|| ports.lease_far(of.0, of.1));
    assert_eq!(leases.take(20).count(), 8);
    assert!(ports.lease_far(Transport::Tcp, of.1).is_some());
}

#[test]
fn a_number_that_quic_leaves_is_locked_until_tcp_leaves_it() {
    let ports = Ports::new("21300-21309".parse().unwrap(), b"a");
    let bind = |port| Ok(socket::lock(Family::Ip4, port).unwrap());
    let (quic, udp) = ports.open(Transport::Quic, Family::Ip4, bind).unwrap();
    let port = quic.port();
    let is_locked = || socket::lock(Family::Ip4, port).is_err();
    ports.keep_lock(Family::Ip4, port, udp);
    assert!(!is_locked(), "tcp has another number, or none");
    let (tcp, ()) = ports.open(Transport::Tcp, Family::Ip4, |_| Ok(())).unwrap();
    assert_eq!(tcp.port(), port);
    ports.keep_lock(Family::Ip4, port, socket::lock(Family::Ip4, port).unwrap());
    drop(quic);
    assert!(is_locked());
    let lease = ports.lease(Family::Ip4).unwrap();
    let moved = ports.move_punch(Transport::Tcp, Family::Ip4, lease.port());
    drop(tcp);
    assert!(!is_locked());
    drop(moved);
}
