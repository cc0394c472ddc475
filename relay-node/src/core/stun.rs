//! Which binding requests of STUN are answered, from where, and with what.
//!
//! An answer goes to the source of its request, which may be forged, or to another port of that address (RESPONSE-PORT). So it
//! exceeds its request by no more than the address that was asked for, and by the partner's address where there is a partner. The
//! rest is added if the request is as long, and PADDING up to that length if the request wants it. Each source has a rate. A partner is another relay: each answers for the other
//! ([RFC 5780](https://www.rfc-editor.org/rfc/rfc5780)), to addresses at which the other has been asked.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    num::NonZero,
    time::{Duration, Instant, SystemTime},
};

use p2pnode_daemon::limiter::{Limiter, Measure};
use p2pnode_protocol::{
    Family, Network, Scope, Source,
    stun::{self, Class, Message, OnBehalf, Port, RelayInfo},
};

/// How often a source is answered: 20 in a second go on for ever, and 512 may come at once, as when some pods behind one address
/// look at their network. A victim whose address is forged gets 2 kB in a second.
const PER_SOURCE: Measure = Measure {
    burst: 512,
    period: Duration::from_millis(50),
};

/// The code for a request that names something that has to be understood and is not.
const UNKNOWN_ATTRIBUTE: u16 = 420;

/// CHANGE-REQUEST, of a relay that cannot answer from elsewhere.
const CHANGE_REQUEST: u16 = 0x0003;

/// RESPONSE-PORT, where the answer cannot go to another port of the asker.
const RESPONSE_PORT: u16 = 0x0027;

/// The server of STUN. Pure.
#[derive(Debug)]
pub(crate) struct Stun {
    /// Relays that answer for this one, and for which it answers.
    partners: Vec<IpAddr>,
    ports: BTreeMap<(Family, Port), u16>,
    limiters: [Limiter<Network>; 3],
}

/// A request, and how it came.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked<'a> {
    /// Its bytes.
    pub(crate) bytes: &'a [u8],
    /// Where it came from.
    pub(crate) remote: SocketAddr,
    /// Which port it came to.
    pub(crate) at: Port,
    /// The address that it came to, if it is known.
    pub(crate) local: Option<SocketAddr>,
    /// Whether it came over TCP: then its source is no forgery.
    pub(crate) is_tcp: bool,
    /// Whether its source is a NAT in front of the relay, which hides the asker.
    pub(crate) is_hidden: bool,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Send a datagram from this port, or write it where the request came over TCP and `at` is where it came.
    Send {
        from: Port,
        to: SocketAddr,
        bytes: Vec<u8>,
        is_for_partner: bool,
    },
    /// Connect to this address from a port that it does not know, and write this.
    Connect { to: SocketAddr, bytes: Vec<u8> },
    /// Nothing.
    Ignore(Ignored),
}

/// Why a datagram is not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Ignored {
    /// It is no binding request.
    Malformed,
    /// Its source has asked too often.
    TooOften,
    /// It asks on behalf of another, and does not come from a partner, or names an address that nobody can have there.
    NotPartner,
    /// It asks for an answer from elsewhere in the words of RFC 3489, which have no refusal.
    NoOther,
}

impl Stun {
    /// A server with these partners.
    pub(crate) fn new(partners: Vec<IpAddr>) -> Self {
        let measure = |weight| Measure {
            burst: PER_SOURCE.burst * weight,
            period: PER_SOURCE.period / weight,
        };
        Self {
            partners,
            ports: BTreeMap::new(),
            limiters: [1, 2, 4].map(|weight| Limiter::new(measure(weight))),
        }
    }

    /// STUN comes to this port.
    pub(crate) fn handle_bound(&mut self, family: Family, port: Port, number: u16) {
        self.ports.entry((family, port)).or_insert(number);
    }

    /// A datagram or a message has come.
    pub(crate) fn handle(&mut self, asked: Asked<'_>, now: Instant, wall: SystemTime) -> Outcome {
        let request = match Message::decode(asked.bytes) {
            Ok(request) if request.class == Class::Request => request,
            Ok(_) | Err(_) => return Outcome::Ignore(Ignored::Malformed),
        };
        let remote = SocketAddr::new(asked.remote.ip().to_canonical(), asked.remote.port());
        if remote.port() == 0 {
            return Outcome::Ignore(Ignored::Malformed);
        }
        if let Some(on_behalf) = request.on_behalf {
            return self.for_partner(&request, on_behalf, asked, now);
        }
        if !self.admits(remote.ip(), now) {
            return Outcome::Ignore(Ignored::TooOften);
        }
        if !request.unknown.is_empty() && !request.transaction.is_classic() {
            let unknown = request.unknown.clone();
            return refuse(&request, unknown, asked);
        }
        let change = request.change.unwrap_or_default();
        let family = Family::from(remote.ip());
        if request.response_port.is_some() && asked.is_tcp {
            return refuse(&request, vec![RESPONSE_PORT], asked);
        }
        let port = request.response_port.map_or(remote.port(), NonZero::get);
        let to = SocketAddr::new(remote.ip(), port);
        if change.ip {
            return self.ask_partner(&request, remote, asked);
        }
        let from = if change.port {
            asked.at.other()
        } else {
            asked.at
        };
        // Over TCP another port is another connection, which the asker has to accept.
        if change.port && (asked.is_tcp || self.ports.contains_key(&(family, from))) {
            let bytes = self.answer(&request, remote, from, asked, wall);
            return if asked.is_tcp {
                Outcome::Connect { to: remote, bytes }
            } else {
                send(from, to, bytes)
            };
        }
        if change.port {
            return cannot_change(&request, asked);
        }
        send(
            asked.at,
            to,
            self.answer(&request, remote, from, asked, wall),
        )
    }

    /// Answers a partner's asker.
    fn for_partner(
        &mut self,
        request: &Message,
        on_behalf: OnBehalf,
        asked: Asked<'_>,
        now: Instant,
    ) -> Outcome {
        let partner = asked.remote.ip().to_canonical();
        let asker = on_behalf.asker;
        // The partner's private networks are others than this relay's.
        let is_at_hand = Scope::is_global(asker.ip())
            || !Scope::is_global(partner) && Scope::of(asker.ip()) == Scope::of(partner);
        let same_family = Family::from(asker.ip()) == Family::from(partner);
        if asked.is_tcp || !self.partners.contains(&partner) || !is_at_hand || !same_family {
            return Outcome::Ignore(Ignored::NotPartner);
        }
        if asker.port() == 0 || !self.admits(asker.ip(), now) {
            return Outcome::Ignore(Ignored::TooOften);
        }
        let mut answer = Message::new(Class::Success, request.transaction);
        answer.mapped = Some(asker);
        answer.fingerprint = request.fingerprint;
        let bytes = answer.encode();
        if on_behalf.tcp {
            return Outcome::Connect { to: asker, bytes };
        }
        let family = Family::from(asker.ip());
        let port = on_behalf.to.map_or(asker.port(), NonZero::get);
        let from = if self.ports.contains_key(&(family, on_behalf.from)) {
            on_behalf.from
        } else {
            asked.at
        };
        send(from, SocketAddr::new(asker.ip(), port), bytes)
    }

    /// Lets the partner answer.
    fn ask_partner(&self, request: &Message, asker: SocketAddr, asked: Asked<'_>) -> Outcome {
        let family = Family::from(asker.ip());
        let Some(partner) = self.partner(family) else {
            return cannot_change(request, asked);
        };
        let is_other = request.change.is_some_and(|change| change.port);
        let mut question = Message::new(Class::Request, request.transaction);
        question.fingerprint = request.fingerprint;
        question.on_behalf = Some(OnBehalf {
            asker,
            to: request.response_port,
            from: if is_other { asked.at.other() } else { asked.at },
            tcp: asked.is_tcp,
        });
        let port = self.ports.get(&(family, Port::Second)).copied();
        Outcome::Send {
            from: if port.is_some() {
                Port::Second
            } else {
                asked.at
            },
            to: SocketAddr::new(partner, port.unwrap_or(stun::PORT)),
            bytes: question.encode(),
            is_for_partner: true,
        }
    }

    fn answer(
        &self,
        request: &Message,
        remote: SocketAddr,
        from: Port,
        asked: Asked<'_>,
        wall: SystemTime,
    ) -> Vec<u8> {
        let family = Family::from(remote.ip());
        let port = |port| self.ports.get(&(family, port)).copied();
        let mut answer = Message::new(Class::Success, request.transaction);
        answer.mapped = Some(remote);
        answer.fingerprint = request.fingerprint;
        if let Some(partner) = self.partner(family) {
            let other = port(asked.at.other()).unwrap_or(stun::PORT);
            answer.other = Some(SocketAddr::new(partner, other));
        }
        let mut fitting = answer.clone();
        let largest = if asked.is_tcp {
            stun::LARGEST
        } else {
            asked.bytes.len()
        };
        let unix_ms = wall.duration_since(SystemTime::UNIX_EPOCH);
        let info = request.info.map(|_| RelayInfo {
            second_port: port(Port::Second).unwrap_or_default(),
            unix_ms: unix_ms.map_or(0, |time| u64::try_from(time.as_millis()).unwrap_or(0)),
            pads: false,
            is_hidden: asked.is_hidden,
        });
        let origin = asked.local.map(|local| {
            let number = port(from).unwrap_or(local.port());
            SocketAddr::new(local.ip().to_canonical(), number)
        });
        let with_info = Message { info, ..answer };
        let with_origin = Message {
            origin,
            ..with_info.clone()
        };
        for longer in [with_info, with_origin] {
            if longer.encode().len() <= largest {
                fitting = longer;
            }
        }
        if request.info.is_some_and(|info| info.pads) {
            let rest = asked.bytes.len().saturating_sub(fitting.encode().len());
            fitting.padding = rest.saturating_sub(stun::ATTRIBUTE);
        }
        fitting.encode()
    }

    fn partner(&self, family: Family) -> Option<IpAddr> {
        let of_family = |partner: &&IpAddr| Family::from(**partner) == family;
        self.partners.iter().find(of_family).copied()
    }

    /// Whether a source is answered once more, which is counted then.
    fn admits(&mut self, ip: IpAddr, now: Instant) -> bool {
        let networks: Vec<Network> = Source::from(ip).networks().collect();
        let limiter = |weight: u32| weight.trailing_zeros() as usize;
        let limiters = &mut self.limiters;
        let has_left = networks
            .iter()
            .all(|network| limiters[limiter(network.weight())].has_left(network, now));
        if has_left {
            for network in networks {
                limiters[limiter(network.weight())].admits(network, now);
            }
        }
        has_left
    }
}

fn send(from: Port, to: SocketAddr, bytes: Vec<u8>) -> Outcome {
    Outcome::Send {
        from,
        to,
        bytes,
        is_for_partner: false,
    }
}

/// There is no other address or port to answer from.
fn cannot_change(request: &Message, asked: Asked<'_>) -> Outcome {
    if request.transaction.is_classic() {
        return Outcome::Ignore(Ignored::NoOther);
    }
    refuse(request, vec![CHANGE_REQUEST], asked)
}

/// Names what is not understood, as far as the request is as long.
fn refuse(request: &Message, unknown: Vec<u16>, asked: Asked<'_>) -> Outcome {
    let mut error = Message::new(Class::Error, request.transaction);
    error.error = Some(UNKNOWN_ATTRIBUTE);
    error.fingerprint = request.fingerprint;
    let short = error.encode();
    error.unknown = unknown;
    let long = error.encode();
    let fits = asked.is_tcp || long.len() <= asked.bytes.len();
    send(asked.at, asked.remote, if fits { long } else { short })
}

#[cfg(test)]
#[path = "stun_tests.rs"]
mod tests;
