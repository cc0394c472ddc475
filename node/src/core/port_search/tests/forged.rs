//! Probes that no peer has sent.

use super::*;

#[test]
fn forged_reflected_and_replayed_probes_are_ignored_and_counted() {
    let mut world = begun([Kind::Random, Kind::Stable(0)], 1);
    let seen = world.seen.clone();
    let (hard, easy) = (world.nats[0].ip, world.nats[1].ip);
    let of_easy = seen.iter().find(|(to, ..)| *to == 0).unwrap().clone();
    let of_hard = seen.iter().find(|(to, ..)| *to == 1).unwrap().clone();
    let search = world.searches[0].as_mut().unwrap();
    let easy_at = SocketAddr::new(easy, PUNCH);
    let mut forged = of_easy.3.clone();
    forged[20] ^= 1;
    let socket = Socket::Opened(3);
    search.handle_datagram(socket, easy_at, &forged);
    search.handle_datagram(socket, easy_at, b"anything");
    // Its own, sent back.
    search.handle_datagram(socket, easy_at, &of_hard.3);
    // From elsewhere: from another port, and from another host.
    search.handle_datagram(socket, SocketAddr::new(easy, 7), &of_easy.3);
    search.handle_datagram(socket, SocketAddr::new(hard, PUNCH), &of_easy.3);
    assert_eq!((search.counts().ignored, search.counts().received), (5, 0));
    assert!(search.poll_action().is_none() && search.poll_event().is_none());
    // The same twice, at the side that answers.
    let search = world.searches[1].as_mut().unwrap();
    let hard_at = SocketAddr::new(hard, 5_555);
    for _ in 0..100 {
        search.handle_datagram(Socket::Punch, hard_at, &of_hard.3);
    }
    assert_eq!((search.counts().ignored, search.counts().received), (99, 1));
    let answers: Vec<_> = std::iter::from_fn(|| search.poll_action()).collect();
    assert_eq!(answers.len(), 1, "one answer to a probe: {answers:?}");
}
