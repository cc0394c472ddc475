//! What has been refused lately, for whom looks at the node. Pure.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use super::Refused;

/// A refusal is counted for this long.
const SHOWN: Duration = Duration::from_secs(60);

/// Refusals within this time count as one moment.
const MOMENT: Duration = Duration::from_secs(5);

/// The refusals of the last minute for one reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Run {
    /// How many.
    pub(crate) count: u64,
    /// When the last one was.
    pub(crate) last: Instant,
}

/// The refusals by reason: how many in each moment, and when the moment began.
#[derive(Debug, Default)]
pub(crate) struct Recent(BTreeMap<Refused, (VecDeque<(Instant, u64)>, Instant)>);

impl Recent {
    /// A connection was refused, or ended early.
    pub(crate) fn handle_refused(&mut self, refused: Refused, now: Instant) {
        let (moments, last) = self.0.entry(refused).or_insert((VecDeque::new(), now));
        *last = now;
        moments.retain(|(began, _)| is_shown(*began, now));
        match moments.back_mut() {
            Some((began, count)) if now.saturating_duration_since(*began) < MOMENT => *count += 1,
            _ => moments.push_back((now, 1)),
        }
    }

    /// What is to be shown.
    pub(crate) fn runs(&self, now: Instant) -> impl Iterator<Item = (Refused, Run)> {
        let runs = self.0.iter().map(move |(refused, (moments, last))| {
            let shown = moments
                .iter()
                .filter(move |(began, _)| is_shown(*began, now));
            let count = shown.map(|(_, count)| count).sum();
            (*refused, Run { count, last: *last })
        });
        runs.filter(|(_, run)| run.count > 0)
    }
}

fn is_shown(began: Instant, now: Instant) -> bool {
    now.saturating_duration_since(began) <= SHOWN
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_counted_by_reason_for_a_minute() {
        let (mut recent, start) = (Recent::default(), Instant::now());
        let at = |s| start + Duration::from_secs(s);
        for s in [0, 50, 54, 100] {
            recent.handle_refused(Refused::Memory, at(s));
        }
        recent.handle_refused(Refused::Circuits, at(100));
        let shown = |recent: &Recent, s| {
            let runs = recent.runs(at(s));
            runs.map(|(refused, run)| (refused, run.count))
                .collect::<Vec<_>>()
        };
        let both = vec![(Refused::Circuits, 1), (Refused::Memory, 3)];
        assert_eq!(shown(&recent, 110), both);
        assert_eq!(
            shown(&recent, 111),
            [(Refused::Circuits, 1), (Refused::Memory, 1)]
        );
        assert_eq!(shown(&recent, 161), []);
        recent.handle_refused(Refused::Memory, at(161));
        assert_eq!(shown(&recent, 161), [(Refused::Memory, 1)]);
    }
}
