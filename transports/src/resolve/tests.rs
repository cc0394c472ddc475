#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use libp2p::{
    PeerId,
    core::{
        Endpoint,
        muxing::{StreamMuxer, StreamMuxerBox, StreamMuxerEvent},
        transport::PortUse,
    },
};

use super::*;

fn ips(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

#[test]
fn addresses_are_filtered_ordered_and_told_once() {
    let found = || ips(&["2001:db8::1", "192.0.2.1", "2001:db8::1", "192.0.2.2"]);
    for (only, policy, expected) in [
        (
            None,
            FamilyPolicy::Auto,
            ips(&["2001:db8::1", "192.0.2.1", "192.0.2.2"]),
        ),
        (
            None,
            FamilyPolicy::PreferIp4,
            ips(&["192.0.2.1", "192.0.2.2", "2001:db8::1"]),
        ),
        (
            None,
            FamilyPolicy::PreferIp6,
            ips(&["2001:db8::1", "192.0.2.1", "192.0.2.2"]),
        ),
        (None, FamilyPolicy::OnlyIp6, ips(&["2001:db8::1"])),
        (
            Some(Family::Ip4),
            FamilyPolicy::Auto,
            ips(&["192.0.2.1", "192.0.2.2"]),
        ),
        (Some(Family::Ip4), FamilyPolicy::OnlyIp6, ips(&[])),
    ] {
        assert_eq!(select(found(), only, policy), expected, "{only:?} {policy}");
    }
}

#[test]
fn a_name_with_hundreds_of_addresses_is_not_dialed_hundreds_of_times() {
    let found = (0..=255).map(|n| IpAddr::from([10, 0, 0, n])).collect();
    assert_eq!(select(found, None, FamilyPolicy::Auto).len(), MAX_ADDRESSES);
}

/// Answers dials of these addresses with this peer, and knows which were dialed.
struct Peers(Vec<(IpAddr, PeerId)>, Arc<Mutex<Vec<IpAddr>>>);

impl Transport for Peers {
    type Output = Connection;
    type Error = Error;
    type ListenerUpgrade = Incoming;
    type Dial = BoxFuture<'static, Result<Connection, Error>>;

    fn listen_on(&mut self, _: ListenerId, _: Multiaddr) -> Result<(), TransportError<Error>> {
        Ok(())
    }

    fn remove_listener(&mut self, _: ListenerId) -> bool {
        false
    }

    fn dial(&mut self, addr: Multiaddr, _: DialOpts) -> Result<Self::Dial, TransportError<Error>> {
        let ip = to_socket_addr(&addr).unwrap().ip();
        lock(&self.1).push(ip);
        let peer = self.0.iter().find(|(there, _)| *there == ip);
        Ok(std::future::ready(match peer {
            Some((_, peer)) => Ok((*peer, StreamMuxerBox::new(Never))),
            None => Err(Error::io("nobody", std::io::ErrorKind::TimedOut.into())),
        })
        .boxed())
    }

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Event> {
        Poll::Pending
    }
}

struct Never;

impl StreamMuxer for Never {
    type Substream = futures::io::Cursor<Vec<u8>>;
    type Error = std::io::Error;

    fn poll_inbound(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<std::io::Result<Self::Substream>> {
        Poll::Pending
    }

    fn poll_outbound(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<std::io::Result<Self::Substream>> {
        Poll::Pending
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<StreamMuxerEvent>> {
        Poll::Pending
    }
}

/// A resolver whose answer a test sets, over hosts that answer.
struct Bench {
    resolving: Resolving<Peers>,
    answer: Arc<Mutex<Answer>>,
    asked: Arc<Mutex<u32>>,
    dialed: Arc<Mutex<Vec<IpAddr>>>,
}

impl Bench {
    fn new(peers: Vec<(IpAddr, PeerId)>) -> Self {
        let answer = Arc::new(Mutex::new(Err("refused".to_owned())));
        let (asked, dialed) = (Arc::<Mutex<u32>>::default(), Arc::default());
        let (next, count) = (Arc::clone(&answer), Arc::clone(&asked));
        let lookup: Lookup = Arc::new(move |_| {
            *lock(&count) += 1;
            std::future::ready(lock(&next).clone()).boxed()
        });
        let peers = Peers(peers, Arc::clone(&dialed));
        Self {
            resolving: Resolving::with(peers, FamilyPolicy::Auto, None, lookup),
            answer,
            asked,
            dialed,
        }
    }

    async fn dial(&mut self, peer: PeerId) -> Result<PeerId, Error> {
        let addr = format!("/dns/relay.example/tcp/443/p2p/{peer}")
            .parse()
            .unwrap();
        let opts = DialOpts {
            role: Endpoint::Dialer,
            port_use: PortUse::Reuse,
        };
        let dial = self.resolving.dial(addr, opts).unwrap();
        dial.await.map(|connection| connection.0)
    }

    fn answers(&self, answer: Answer) {
        *lock(&self.answer) = answer;
        // As after the time of the last answer.
        *lock(&self.resolving.resolver.names) = {
            let (mut names, now) = (Names::default(), Instant::now());
            for ip in lock(&self.resolving.resolver.names)
                .good("relay.example")
                .iter()
                .rev()
            {
                names.handle_good("relay.example", *ip, now);
            }
            names
        };
    }
}

#[tokio::test(start_paused = true)]
async fn a_relay_is_dialed_where_it_answered_last_while_its_name_cannot_be_resolved() {
    let (peer, there) = (PeerId::random(), ips(&["192.0.2.1"]));
    let mut bench = Bench::new(vec![(there[0], peer)]);
    assert!(matches!(bench.dial(peer).await, Err(Error::Resolve { .. })));
    bench.answers(Ok(there.clone()));
    assert_eq!(bench.dial(peer).await.unwrap(), peer);
    bench.answers(Err("refused".to_owned()));
    for _ in 0..20 {
        assert_eq!(bench.dial(peer).await.unwrap(), peer);
    }
    assert_eq!(*lock(&bench.asked), 3, "the system is not asked each time");
}

#[tokio::test(start_paused = true)]
async fn an_address_that_does_not_answer_or_is_another_peers_is_no_end() {
    let (peer, other, there) = (
        PeerId::random(),
        PeerId::random(),
        ips(&["192.0.2.1", "192.0.2.2", "192.0.2.3"]),
    );
    let mut bench = Bench::new(vec![(there[0], peer), (there[2], other)]);
    bench.answers(Ok(vec![there[0]]));
    bench.dial(peer).await.unwrap();
    for wrong in &there[1..] {
        bench.answers(Ok(vec![*wrong]));
        assert_eq!(bench.dial(peer).await.unwrap(), peer, "{wrong}");
        let dialed = lock(&bench.dialed).clone();
        assert_eq!(dialed[dialed.len() - 2..], [*wrong, there[0]]);
    }
    // Where the other peer was is not remembered.
    bench.answers(Err("refused".to_owned()));
    lock(&bench.dialed).clear();
    bench.dial(peer).await.unwrap();
    assert_eq!(*lock(&bench.dialed), [there[0]]);
}

#[test]
fn on_a_remotes_word_a_name_leads_only_to_addresses_within_reach() {
    let inside = [
        "10.0.0.5",
        "192.168.1.1",
        "127.0.0.1",
        "169.254.169.254",
        "100.100.100.200",
        "fd00::5",
        "::1",
        "fd00:ec2::254",
        "64:ff9b::a00:1",
    ];
    let (none, outside) = (Reach::default(), ips(&["192.0.2.1", "2001:db8::1"]));
    for text in inside {
        let found = ips(&[text]);
        let error = within(Some(none), "relay.example", found.clone()).unwrap_err();
        let reason = format!("relay.example is at {text}, where a remote's word does not lead");
        assert_eq!(error.to_string(), reason);
        let mixed = [found.clone(), outside.clone()].concat();
        assert_eq!(within(Some(none), "relay.example", mixed).unwrap(), outside);
        assert_eq!(within(None, "relay.example", found.clone()).unwrap(), found);
    }
    let near = Reach {
        private: true,
        host: false,
    };
    let found = within(Some(near), "relay.example", ips(&inside)).unwrap();
    assert_eq!(found, ips(&["10.0.0.5", "192.168.1.1", "fd00::5"]));
}

#[tokio::test]
async fn a_name_that_does_not_exist_is_named_in_the_error() {
    let resolving = Bench::new(Vec::new()).resolving;
    let resolver = Resolver {
        lookup: Arc::new(|host| ask_system(host).boxed()),
        ..resolving.resolver
    };
    let error = resolver
        .places("no-such-host.invalid", None, FamilyPolicy::Auto, None)
        .await
        .unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("cannot resolve no-such-host.invalid: "),
        "{error}"
    );
}
