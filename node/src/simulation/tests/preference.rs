//! Direct connections of both families, over a network that is at its worst for one of them: which one lives.

use std::time::Duration;

use p2pnode_transports::{Family, FamilyPolicy, Transport};
use relay_node::core::Settings;

use super::{family::dual, seconds, seeds};
use crate::{
    core::dialer::Until,
    simulation::{World, nat::Nat, scenario::NodeSetup},
};

const SEEDS: u64 = 60;

/// Two nodes with both families, of which at least one prefers a family. The first one dials.
struct Crossing {
    world: World,
    rng: fastrand::Rng,
    nodes: [usize; 2],
    policies: [FamilyPolicy; 2],
}

impl Crossing {
    fn new(seed: u64) -> Self {
        use FamilyPolicy::{Auto, PreferIp4, PreferIp6};
        let mut rng = fastrand::Rng::with_seed(seed ^ 0xfa417);
        let mut world = World::new(seed);
        let relay = world.relay(Settings::default());
        let first = [PreferIp4, PreferIp6, Auto][rng.usize(..3)];
        let choices = if first == Auto { 2 } else { 3 };
        let mut policies = [first, [PreferIp4, PreferIp6, Auto][rng.usize(..choices)]];
        let is_open = rng.bool();
        let (quic, tcp) = (Transport::Quic, Transport::Tcp);
        let lists = [vec![quic, tcp], vec![quic], vec![tcp], vec![tcp, quic]];
        let transports = &lists[rng.usize(..lists.len())];
        let mut nodes = policies.map(|family| {
            let nats = [Nat::FullCone, Nat::PortRestricted, Nat::PortRewriting];
            let (nat, ip6) = match is_open {
                true => (Nat::None, Nat::None),
                false => (nats[rng.usize(..nats.len())], Nat::Firewall),
            };
            world.node(NodeSetup {
                family,
                ip6: Some(ip6),
                introductions: rng.bool(),
                transports: transports.clone(),
                ..dual(relay, nat)
            })
        });
        world.until_reserved();
        // The peer ids go by the order of the hosts, and one side closes the surplus: either side dials.
        if rng.bool() {
            nodes.reverse();
            policies.reverse();
        }
        Self {
            world,
            rng,
            nodes,
            policies,
        }
    }

    /// One family, or both, get worse: slower, with jitter, with losses, or without the first flights.
    fn disturb(&mut self) {
        let (network, rng) = (self.world.network(), &mut self.rng);
        network.jitter = Duration::from_millis([0, 5, 60][rng.usize(..3)]);
        network.loss = [0.0, 0.05, 0.2][rng.usize(..3)];
        let by = Duration::from_millis([0, 1, 20, 200, 800][rng.usize(..5)]);
        network.slow.extend([(Family::ALL[rng.usize(..2)], by)]);
        let dark = Duration::from_millis([0, 100, 1500, 4000][rng.usize(..4)]);
        let until = network.now + dark;
        network.dark.extend([(Family::ALL[rng.usize(..2)], until)]);
    }

    /// Dials over the relay, or also at known addresses.
    fn dial(&mut self, from: usize, to: usize) {
        let (from, to) = (self.nodes[from], self.nodes[to]);
        let known = Family::ALL.map(|family| self.world.address(to, family));
        let addrs = if self.rng.bool() { &known[..] } else { &[] };
        let peer = self.world.peer(to);
        self.world.dial_with(from, peer, addrs, Until::Direct);
    }

    /// A session that the other side has dialed ends. Its dialer is not the dialer of the next one.
    fn earlier_session(&mut self) {
        self.dial(1, 0);
        self.world.run(seconds(30));
        let [a, b] = self.nodes;
        self.world.close_direct(a, b);
        self.world.close_direct(b, a);
        self.world.run(seconds(1));
    }

    /// The families of the direct connections that each side has.
    fn families(&self) -> [Vec<Family>; 2] {
        let [a, b] = self.nodes;
        [
            self.world.direct_families(a, b),
            self.world.direct_families(b, a),
        ]
    }

    /// Whether both sides had direct connections of both families at a time.
    fn settle(&mut self) -> bool {
        let end = self.world.network().now + seconds(60);
        let mut had_both = false;
        while self.world.step(end) {
            had_both |= self
                .families()
                .iter()
                .all(|of| Family::ALL.iter().all(|family| of.contains(family)));
        }
        had_both
    }
}

#[test]
fn of_two_direct_connections_that_of_the_preferred_family_lives_whatever_the_network_does() {
    let mut had_both = 0;
    for seed in seeds(SEEDS) {
        let mut crossing = Crossing::new(seed);
        if crossing.rng.u8(..3) == 0 {
            crossing.earlier_session();
        }
        // A dialer that starts now has no leg to the relay yet.
        let dialer = crossing.nodes[0];
        let is_new = crossing.rng.u8(..3) == 0;
        if is_new {
            crossing.world.stop(dialer);
            crossing.world.run(seconds(1));
        }
        crossing.disturb();
        if is_new {
            crossing.world.start(dialer);
        }
        crossing.dial(0, 1);
        let crosses = crossing.rng.u8(..4) == 0;
        if crosses {
            let wait = crossing.rng.u64(..100);
            crossing.world.run(Duration::from_millis(wait));
            crossing.dial(1, 0);
        }
        if !crossing.settle() {
            continue;
        }
        had_both += 1;
        let [ours, theirs] = crossing.families();
        let [dialer, listener] = crossing.policies.map(FamilyPolicy::preferred);
        let case = format!("seed {seed}: {:?}", crossing.policies);
        assert_eq!(ours, theirs, "{case}");
        // Losses may have ended the last one.
        let mut expected = vec![Vec::new(), Vec::from_iter(dialer.or(listener))];
        if crosses {
            // Both sides are the dialer.
            expected.extend(listener.map(|family| vec![family]));
        }
        assert!(expected.contains(&ours), "{case}: {ours:?}");
    }
    assert!(had_both > 0, "no schedule made both connections");
}
