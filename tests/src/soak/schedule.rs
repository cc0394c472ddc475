//! What happens when: a pure function of a seed.
//!
//! Faults come in rounds. A round has one to three faults that overlap, and a calm follows it. Kinds are drawn from a bag, so each
//! comes once before any comes twice.

use std::time::Duration;

use fastrand::Rng;
use serde::Serialize;

/// The most faults of one round.
const TOGETHER: usize = 3;
/// How far apart the beginnings of one round are at most.
const APART: Duration = Duration::from_secs(3);
const SHORTEST: Duration = Duration::from_secs(2);
const MINUTE: u64 = 60;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    A,
    B,
}

impl Side {
    pub const BOTH: [Self; 2] = [Self::A, Self::B];

    pub const fn index(self) -> usize {
        self as usize
    }

    pub const fn name(self) -> &'static str {
        match self {
            Self::A => "a",
            Self::B => "b",
        }
    }
}

/// Number of a relay: the nodes know the first by its address, the second by its name.
pub type RelayNumber = usize;
pub const NAMED: RelayNumber = 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// The router of a site drops what passes its outside, silently.
    LinkSilent(Side),
    /// The router has no carrier outside, and answers that there is no route.
    LinkUnplugged(Side),
    /// The host has no carrier, and no route.
    CableUnplugged(Side),
    /// Nothing passes between the two sites. The relays are reached.
    PathCut,
    /// A NAT loses all mappings and maps to other ports afterwards.
    NatReboot(Side),
    /// A NAT gets another public address.
    Renumbered(Side),
    RelayKilled(RelayNumber),
    /// A relay ends gracefully.
    RelayEnded(RelayNumber),
    RelaySuspended(RelayNumber),
    Suspended(Side),
    /// The clock of a node is wrong by so many seconds.
    ClockOfNode(Side, i64),
    ClockOfRelay(RelayNumber, i64),
    /// The resolver gets no answer.
    DnsSilent,
    /// The resolver gets the answer that nobody listens.
    DnsRefused,
    /// Queues are full: each round trip takes longer, and packets are lost.
    Slow {
        rtt_ms: u64,
        loss_percent: u8,
    },
}

impl Fault {
    /// Whether it happens at once and lasts for no time.
    pub const fn is_instant(self) -> bool {
        matches!(self, Self::NatReboot(_) | Self::Renumbered(_))
    }

    /// Whether two faults cannot be there at once, because one takes away what the other changes.
    fn excludes(self, other: Self) -> bool {
        match (self, other) {
            (Self::LinkUnplugged(a), Self::Renumbered(b))
            | (Self::Renumbered(a), Self::LinkUnplugged(b)) => a == b,
            (a, b) => a.target() == b.target(),
        }
    }

    /// What it changes.
    fn target(self) -> (&'static str, usize) {
        match self {
            Self::LinkSilent(side) => ("filter", side.index()),
            Self::LinkUnplugged(side) => ("carrier", side.index()),
            Self::CableUnplugged(side) => ("cable", side.index()),
            Self::PathCut => ("path", 0),
            Self::NatReboot(side) | Self::Renumbered(side) => ("nat", side.index()),
            Self::RelayKilled(relay) | Self::RelayEnded(relay) | Self::RelaySuspended(relay) => {
                ("relay", relay)
            }
            Self::Suspended(side) => ("process", side.index()),
            Self::ClockOfNode(side, _) => ("clock of node", side.index()),
            Self::ClockOfRelay(relay, _) => ("clock of relay", relay),
            Self::DnsSilent | Self::DnsRefused => ("dns", 0),
            Self::Slow { .. } => ("queue", 0),
        }
    }

    /// Draws one of each kind.
    fn one_of_each(rng: &mut Rng) -> Vec<Self> {
        let side = |rng: &mut Rng| Side::BOTH[rng.usize(..2)];
        let clock = |rng: &mut Rng| {
            let hours = rng.i64(1..=30);
            3600 * if rng.bool() { hours } else { -hours }
        };
        vec![
            Self::LinkSilent(side(rng)),
            Self::LinkUnplugged(side(rng)),
            Self::CableUnplugged(side(rng)),
            Self::PathCut,
            Self::NatReboot(side(rng)),
            Self::Renumbered(side(rng)),
            Self::RelayKilled(rng.usize(..2)),
            Self::RelayEnded(rng.usize(..2)),
            Self::RelaySuspended(rng.usize(..2)),
            Self::Suspended(side(rng)),
            Self::ClockOfNode(side(rng), clock(rng)),
            Self::ClockOfRelay(rng.usize(..2), clock(rng)),
            Self::DnsSilent,
            Self::DnsRefused,
            Self::Slow {
                rtt_ms: rng.u64(200..=1500),
                loss_percent: rng.u8(0..=10),
            },
        ]
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Episode {
    pub fault: Fault,
    /// Since the start.
    pub from: Duration,
    pub until: Duration,
}

#[cfg(test)]
impl Episode {
    fn overlaps(&self, other: &Self) -> bool {
        self.from <= other.until && other.from <= self.until
    }
}

/// How long all of it and its parts last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Form {
    pub length: Duration,
    /// The longest fault.
    pub longest: Duration,
    /// Between two rounds, at least and at most.
    pub calm: [Duration; 2],
}

impl Form {
    /// For the usual tests.
    pub const SHORT: Self = Self {
        length: Duration::from_secs(70),
        longest: Duration::from_secs(7),
        calm: [Duration::from_secs(2), Duration::from_secs(6)],
    };

    pub const fn long(length: Duration, longest: Duration) -> Self {
        Self {
            length,
            longest,
            calm: [Duration::from_secs(5), Duration::from_secs(MINUTE)],
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Schedule {
    pub seed: u64,
    pub form: Form,
    /// In the order of their beginnings.
    pub episodes: Vec<Episode>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Begins,
    Ends,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    pub at: Duration,
    pub change: Change,
    /// Which of [`Schedule::episodes`].
    pub episode: usize,
}

impl Schedule {
    pub fn new(seed: u64, form: Form) -> Self {
        let mut rng = Rng::with_seed(seed);
        let (mut episodes, mut bag) = (Vec::new(), Vec::new());
        let mut at = form.calm[0];
        while at + APART + SHORTEST < form.length {
            // One alone in half of the rounds.
            let wanted = (1 + rng.usize(..TOGETHER)).min(1 + rng.usize(..TOGETHER));
            let mut round = Vec::new();
            for _ in 0..wanted {
                if bag.is_empty() {
                    bag = Fault::one_of_each(&mut rng);
                    rng.shuffle(&mut bag);
                }
                let fits = |fault: &Fault| {
                    let mut others = round.iter();
                    !others.any(|other: &Episode| other.fault.excludes(*fault))
                };
                // What does not fit is left for the next round.
                if let Some(number) = bag.iter().rposition(fits) {
                    let fault = bag.remove(number);
                    round.push(episode(fault, at, form, &mut rng));
                }
            }
            let end = round.iter().map(|episode| episode.until).max();
            at = end.unwrap_or(at) + between(form.calm[0], form.calm[1], &mut rng);
            episodes.append(&mut round);
        }
        episodes.sort_by_key(|episode| episode.from);
        Self {
            seed,
            form,
            episodes,
        }
    }

    /// These faults at once, for so long, and nothing else.
    pub fn outage(faults: &[Fault], lasts: Duration) -> Self {
        let from = Form::SHORT.calm[0];
        let until = from + lasts;
        let episode = |fault: &Fault| Episode {
            fault: *fault,
            from,
            until,
        };
        Self {
            seed: 0,
            form: Form {
                length: until,
                longest: lasts,
                ..Form::SHORT
            },
            episodes: faults.iter().map(episode).collect(),
        }
    }

    /// Beginnings and ends, in the order of time. What is instant has no end.
    pub fn steps(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        for (number, episode) in self.episodes.iter().enumerate() {
            let step = |at, change| Step {
                at,
                change,
                episode: number,
            };
            steps.push(step(episode.from, Change::Begins));
            if !episode.fault.is_instant() {
                steps.push(step(episode.until, Change::Ends));
            }
        }
        steps.sort_by_key(|step| step.at);
        steps
    }
}

fn episode(fault: Fault, round: Duration, form: Form, rng: &mut Rng) -> Episode {
    let from = round + between(Duration::ZERO, APART, rng);
    let lasts = match fault.is_instant() {
        true => Duration::ZERO,
        false => skewed(SHORTEST, form.longest, rng),
    };
    Episode {
        fault,
        from,
        until: (from + lasts).min(form.length),
    }
}

fn between(least: Duration, most: Duration, rng: &mut Rng) -> Duration {
    let span = most.saturating_sub(least).as_millis();
    least + Duration::from_millis(rng.u64(..=u64::try_from(span).unwrap_or(u64::MAX)))
}

/// As often between 2 s and 4 s as between 100 s and 200 s.
fn skewed(least: Duration, most: Duration, rng: &mut Rng) -> Duration {
    let ratio = most.as_secs_f64() / least.as_secs_f64();
    let lasts = least.as_secs_f64() * ratio.max(1.0).powf(rng.f64());
    Duration::from_millis((lasts * 1000.0) as u64)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const LONG: Form = Form::long(Duration::from_secs(1800), Duration::from_secs(200));

    fn kind(fault: Fault) -> std::mem::Discriminant<Fault> {
        std::mem::discriminant(&fault)
    }

    #[test]
    fn a_seed_gives_the_same_schedule_each_time_and_another_seed_another_one() {
        let of = |seed| Schedule::new(seed, LONG);
        assert_eq!(of(1), of(1));
        assert_ne!(of(1).episodes, of(2).episodes);
    }

    #[test]
    fn half_an_hour_has_every_kind_alone_and_together_and_ends_in_time() {
        for seed in 0..50 {
            let schedule = Schedule::new(seed, LONG);
            let episodes = &schedule.episodes;
            let kinds: Vec<_> = episodes.iter().map(|episode| kind(episode.fault)).collect();
            let all = Fault::one_of_each(&mut Rng::with_seed(0));
            assert!(
                all.iter().all(|fault| kinds.contains(&kind(*fault))),
                "seed {seed}: {episodes:?}"
            );
            assert!(episodes.iter().all(|episode| episode.until <= LONG.length));
            let others = |number: usize| {
                let others = episodes.iter().enumerate();
                others.filter(move |(other, _)| *other != number)
            };
            let together = episodes.iter().enumerate().filter(|(number, episode)| {
                others(*number).any(|(_, other)| episode.overlaps(other))
            });
            let together = together.count();
            assert!(0 < together && together < episodes.len(), "seed {seed}");
        }
    }

    #[test]
    fn faults_that_take_away_what_the_other_changes_are_never_there_at_once() {
        for seed in 0..200 {
            for form in [LONG, Form::SHORT] {
                let episodes = Schedule::new(seed, form).episodes;
                for (number, one) in episodes.iter().enumerate() {
                    for other in &episodes[number + 1..] {
                        assert!(
                            !one.overlaps(other) || !one.fault.excludes(other.fault),
                            "seed {seed}: {one:?}, {other:?}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn every_fault_that_lasts_ends_and_steps_are_in_order() {
        let schedule = Schedule::new(7, LONG);
        let steps = schedule.steps();
        assert!(steps.is_sorted_by_key(|step| step.at));
        let ended: BTreeSet<_> = steps
            .iter()
            .filter(|step| step.change == Change::Ends)
            .map(|step| step.episode)
            .collect();
        for (number, episode) in schedule.episodes.iter().enumerate() {
            assert_eq!(ended.contains(&number), !episode.fault.is_instant());
            assert_eq!(episode.from < episode.until, !episode.fault.is_instant());
        }
    }
}
