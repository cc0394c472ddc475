//! What has been refused lately, for whom looks at the node. Pure.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::Refused;

/// A refusal is shown for this long.
const SHOWN: Duration = Duration::from_secs(60);

/// The refusals for one reason, of which none came later than [`SHOWN`] after the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Run {
    /// How many.
    pub(crate) count: u64,
    /// When the last one was.
    pub(crate) last: Instant,
}

/// The refusals by reason.
#[derive(Debug, Default)]
pub(crate) struct Recent(BTreeMap<Refused, Run>);

impl Recent {
    /// A connection was refused, or ended early.
    pub(crate) fn handle_refused(&mut self, refused: Refused, now: Instant) {
        let run = self.0.entry(refused).or_insert(Run {
            count: 0,
            last: now,
        });
        if now.saturating_duration_since(run.last) > SHOWN {
            run.count = 0;
        }
        *run = Run {
            count: run.count + 1,
            last: now,
        };
    }

    /// What is to be shown.
    pub(crate) fn runs(&self, now: Instant) -> impl Iterator<Item = (Refused, Run)> {
        let is_shown = move |run: &Run| now.saturating_duration_since(run.last) <= SHOWN;
        let runs = self.0.iter().map(|(refused, run)| (*refused, *run));
        runs.filter(move |(_, run)| is_shown(run))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_counted_by_reason_and_shown_for_a_minute_after_the_last() {
        let (mut recent, start) = (Recent::default(), Instant::now());
        let at = |s| start + Duration::from_secs(s);
        for s in [0, 50, 100] {
            recent.handle_refused(Refused::Memory, at(s));
        }
        recent.handle_refused(Refused::Circuits, at(100));
        let shown = |recent: &Recent, s| {
            let runs = recent.runs(at(s));
            runs.map(|(refused, run)| (refused, run.count))
                .collect::<Vec<_>>()
        };
        let both = vec![(Refused::Circuits, 1), (Refused::Memory, 3)];
        assert_eq!(shown(&recent, 160), both);
        assert_eq!(shown(&recent, 161), []);
        recent.handle_refused(Refused::Memory, at(161));
        assert_eq!(shown(&recent, 161), [(Refused::Memory, 1)]);
    }
}
