//! Quartiles of a sample.

use super::Better;

/// Quartiles of a sample, and how many of it failed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Spread {
    pub(super) least: f64,
    pub(super) q1: f64,
    pub(super) median: f64,
    pub(super) q3: f64,
    pub(super) most: f64,
    pub(super) failed: usize,
}

impl Spread {
    /// What failed is as bad as can be. Of no sample all are NaN.
    pub(super) fn of(samples: &[Option<f64>], better: Better) -> Self {
        let worst = match better {
            Better::Less => f64::INFINITY,
            Better::More => 0.0,
        };
        let mut sorted: Vec<f64> = samples
            .iter()
            .map(|sample| sample.unwrap_or(worst))
            .collect();
        sorted.sort_by(f64::total_cmp);
        let at = |part: f64| {
            // Between the two neighbours of the position, which for the median is their middle.
            let position = part * (sorted.len().saturating_sub(1)) as f64;
            let (low, high) = (position.floor(), position.ceil());
            let value = |index: f64| sorted.get(index as usize).copied().unwrap_or(f64::NAN);
            if value(low) == value(high) {
                value(low)
            } else {
                value(low) + (value(high) - value(low)) * (position - low)
            }
        };
        Self {
            least: at(0.0),
            q1: at(0.25),
            median: at(0.5),
            q3: at(0.75),
            most: at(1.0),
            failed: samples.iter().filter(|sample| sample.is_none()).count(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_and_a_failure_is_the_worst() {
        let samples = [Some(30.0), None, Some(10.0), Some(20.0)];
        let times = Spread::of(&samples, Better::Less);
        assert_eq!((times.median, times.failed), (25.0, 1));
        assert!(times.most.is_infinite());
        let rates = Spread::of(&samples, Better::More);
        assert_eq!((rates.least, rates.median, rates.most), (0.0, 15.0, 30.0));
        let odd = Spread::of(&[Some(3.0), Some(1.0), Some(2.0)], Better::Less);
        assert_eq!((odd.least, odd.median, odd.most), (1.0, 2.0, 3.0));
    }

    #[test]
    fn quartiles_lie_between_their_neighbours() {
        let spread = Spread::of(&[0.0, 10.0, 20.0, 30.0, 40.0].map(Some), Better::Less);
        assert_eq!((spread.q1, spread.q3), (10.0, 30.0));
        let four = Spread::of(&[0.0, 10.0, 20.0, 30.0].map(Some), Better::Less);
        assert_eq!((four.q1, four.q3), (7.5, 22.5));
    }

    #[test]
    fn failures_alone_took_for_ever_and_no_sample_is_no_number() {
        assert!(Spread::of(&[None, None], Better::Less).median.is_infinite());
        assert!(Spread::of(&[], Better::Less).median.is_nan());
    }
}
