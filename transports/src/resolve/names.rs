//! What is remembered of names: the last answer of the resolver for a moment, and the addresses at which the right peer answered.
//!
//! Pure: the time and the jitter are arguments.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    time::{Duration, Instant},
};

/// Names that are remembered. For a further one, the one that was asked for least lately is forgotten, and those at which nobody
/// has answered before others: a record of a stranger may name any host.
const MAX_NAMES: usize = 64;

/// Good addresses of one name: the last ones of each family.
const MAX_GOOD: usize = 4;

/// How long an answer is used again: legs of several transports and families ask for one name at once.
const FRESH: Duration = Duration::from_secs(1);

/// How long a failure is: it doubles with each.
const FAILED: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(8));

/// The addresses of a name, or why there are none.
pub(super) type Answer = Result<Vec<IpAddr>, String>;

/// The names that were asked for.
#[derive(Debug, Default)]
pub(super) struct Names(BTreeMap<String, Name>);

#[derive(Debug)]
struct Name {
    asked: Instant,
    /// The last answer, and until when it is used.
    answer: Option<(Answer, Instant)>,
    /// Answers in a row that were failures.
    failures: u32,
    /// Where the right peer has answered, the last one first.
    good: Vec<IpAddr>,
}

impl Names {
    /// The last answer, if the resolver is not to be asked again yet.
    pub(super) fn answer(&mut self, name: &str, now: Instant) -> Option<Answer> {
        let known = self.name(name, now);
        let (answer, until) = known.answer.as_ref()?;
        (now < *until).then(|| answer.clone())
    }

    /// The resolver has answered. Returns how many failures that makes in a row.
    pub(super) fn handle_answer(
        &mut self,
        name: &str,
        answer: Answer,
        now: Instant,
        jitter: f64,
    ) -> u32 {
        let known = self.name(name, now);
        let lasts = match &answer {
            Ok(_) => {
                known.failures = 0;
                FRESH
            }
            Err(_) => {
                let doubled = 1_u32.checked_shl(known.failures).unwrap_or(u32::MAX);
                known.failures = known.failures.saturating_add(1);
                let longest = FAILED.0.saturating_mul(doubled).min(FAILED.1);
                longest.mul_f64(1.0 - jitter.clamp(0.0, 1.0) / 2.0)
            }
        };
        known.answer = Some((answer, now + lasts));
        known.failures
    }

    /// The right peer has answered at this address of the name.
    pub(super) fn handle_good(&mut self, name: &str, ip: IpAddr, now: Instant) {
        let good = &mut self.name(name, now).good;
        good.retain(|other| *other != ip);
        good.insert(0, ip);
        good.truncate(MAX_GOOD);
    }

    /// Where the right peer has answered, the last one first.
    pub(super) fn good(&self, name: &str) -> Vec<IpAddr> {
        self.0
            .get(name)
            .map_or_else(Vec::new, |known| known.good.clone())
    }

    fn name(&mut self, name: &str, now: Instant) -> &mut Name {
        if !self.0.contains_key(name) && self.0.len() >= MAX_NAMES {
            let least = |(_, known): &(&String, &Name)| (!known.good.is_empty(), known.asked);
            let least = self
                .0
                .iter()
                .min_by_key(least)
                .map(|(name, _)| name.clone());
            least.and_then(|name| self.0.remove(&name));
        }
        let known = self.0.entry(name.to_owned()).or_insert_with(|| Name {
            asked: now,
            answer: None,
            failures: 0,
            good: Vec::new(),
        });
        known.asked = now;
        known
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    #[test]
    fn a_name_that_cannot_be_resolved_is_asked_for_ever_less_often_and_its_good_addresses_stay() {
        let (mut names, start) = (Names::default(), Instant::now());
        names.handle_good("relay", ip(1), start);
        let (mut now, mut queries) = (start, 0);
        while now < start + Duration::from_secs(60) {
            if names.answer("relay", now).is_none() {
                queries += 1;
                let refused = Err("refused".to_owned());
                assert_eq!(names.handle_answer("relay", refused, now, 0.0), queries);
            }
            now += Duration::from_millis(100);
        }
        assert!((8..=12).contains(&queries), "{queries}");
        assert_eq!(names.good("relay"), [ip(1)]);
        names.handle_answer("relay", Ok(vec![ip(2)]), now, 0.0);
        assert_eq!(names.answer("relay", now), Some(Ok(vec![ip(2)])));
        assert_eq!(names.answer("relay", now + FRESH), None);
        assert_eq!(
            names.handle_answer("relay", Err(String::new()), now, 0.0),
            1
        );
    }

    #[test]
    fn the_last_good_addresses_come_first_and_are_few() {
        let (mut names, now) = (Names::default(), Instant::now());
        for last in [1, 2, 3, 1, 4, 5] {
            names.handle_good("relay", ip(last), now);
        }
        assert_eq!(names.good("relay"), [5, 4, 1, 3].map(ip));
    }

    #[test]
    fn names_of_strangers_do_not_displace_one_that_was_good() {
        let (mut names, now) = (Names::default(), Instant::now());
        names.handle_good("relay", ip(1), now);
        for n in 0..1000 {
            let later = now + Duration::from_millis(n + 1);
            names.handle_answer(&format!("stranger-{n}"), Ok(Vec::new()), later, 0.0);
        }
        assert_eq!(names.good("relay"), [ip(1)]);
        assert_eq!(names.0.len(), MAX_NAMES);
    }
}
