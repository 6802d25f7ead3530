//! The extremes of a slice, and what cannot be in a range at all.

/// What the values of a slice span.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Extremes {
    /// The smallest finite value, infinity if there is none.
    pub min: f32,
    /// The largest finite value, minus infinity if there is none.
    pub max: f32,
    pub finite: u64,
    pub nans: u64,
    pub infinities: u64,
}

impl Default for Extremes {
    fn default() -> Self {
        Extremes { min: f32::INFINITY, max: f32::NEG_INFINITY, finite: 0, nans: 0, infinities: 0 }
    }
}

impl Extremes {
    /// Of `values`. Eight lanes, because a single running extreme is one long dependency.
    pub fn of(values: &[f32]) -> Extremes {
        let (mut low, mut high) = ([f32::INFINITY; 8], [f32::NEG_INFINITY; 8]);
        // Zero, unless there is something that times zero is not zero.
        let mut odd = [0f32; 8];
        let (chunks, tail) = values.as_chunks::<8>();
        for chunk in chunks {
            for lane in 0..8 {
                let x = chunk[lane];
                low[lane] = low[lane].min(x);
                high[lane] = high[lane].max(x);
                odd[lane] += x * 0.0;
            }
        }
        if odd.iter().any(|o| o.is_nan()) || tail.iter().any(|x| !x.is_finite()) {
            return Extremes::one_by_one(values);
        }
        Extremes {
            min: low.iter().chain(tail).copied().fold(f32::INFINITY, f32::min),
            max: high.iter().chain(tail).copied().fold(f32::NEG_INFINITY, f32::max),
            finite: values.len() as u64,
            ..Extremes::default()
        }
    }

    /// Of both.
    pub fn join(&mut self, other: &Extremes) {
        self.min = self.min.min(other.min);
        self.max = self.max.max(other.max);
        self.finite += other.finite;
        self.nans += other.nans;
        self.infinities += other.infinities;
    }

    /// The smallest and the largest finite value, if there is one. Which of the two zeros was met
    /// depends on the order: adding 0 makes it the positive one.
    pub fn range(&self) -> Option<(f32, f32)> {
        (self.finite > 0).then_some((self.min + 0.0, self.max + 0.0))
    }

    fn one_by_one(values: &[f32]) -> Extremes {
        let mut extremes = Extremes::default();
        for &x in values {
            if x.is_nan() {
                extremes.nans += 1;
            } else if x.is_infinite() {
                extremes.infinities += 1;
            } else {
                extremes.finite += 1;
                extremes.min = extremes.min.min(x);
                extremes.max = extremes.max.max(x);
            }
        }
        extremes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn lanes_agree_with_a_plain_scan(values in prop::collection::vec(any::<f32>(), 0..60)) {
            prop_assert_eq!(Extremes::of(&values), Extremes::one_by_one(&values));
            let finite: Vec<f32> = values.iter().copied().filter(|x| x.is_finite()).collect();
            prop_assert_eq!(Extremes::of(&finite), Extremes::one_by_one(&finite));
        }

        #[test]
        fn the_sign_of_zero_does_not_depend_on_the_order(negative in prop::collection::vec(any::<bool>(), 1..30)) {
            let mut extremes = Extremes::default();
            for &n in &negative {
                extremes.join(&Extremes::of(&[if n { -0.0 } else { 0.0 }]));
            }
            let (low, high) = extremes.range().unwrap();
            prop_assert!(low.is_sign_positive() && high.is_sign_positive());
        }
    }
}
