//! Jitter from a seed: the same seed gives the same waits.

/// A sequence of numbers between 0 and 1, by [SplitMix64](https://prng.di.unimi.it/splitmix64.c).
#[derive(Debug)]
pub(crate) struct Jitter(u64);

impl Jitter {
    /// The sequence of this seed.
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub(crate) fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let bits = u32::try_from((mixed ^ (mixed >> 31)) >> 32).unwrap_or_default();
        f64::from(bits) / f64::from(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_are_spread_between_0_and_1_and_repeat_with_their_seed() {
        let numbers = |seed| {
            let mut jitter = Jitter::new(seed);
            std::iter::from_fn(move || Some(jitter.next())).take(1000)
        };
        assert!(numbers(7).all(|number| (0.0..=1.0).contains(&number)));
        let mean = numbers(7).sum::<f64>() / 1000.0;
        assert!((0.45..0.55).contains(&mean), "{mean}");
        assert!(numbers(7).eq(numbers(7)) && !numbers(7).eq(numbers(8)));
    }
}
