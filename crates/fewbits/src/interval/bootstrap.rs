//! The paired percentile bootstrap, for metrics without a formula.

use rayon::prelude::*;

use super::{CONFIDENCE, DropInterval};

/// Resamples: the ends of a 95 % interval are then the 25th and 976th, steady to about a tenth of
/// its width.
const RESAMPLES: u64 = 1000;
const METHOD: &str = "paired percentile bootstrap, 1000 resamples (Efron 1979)";
/// Any number would do; the same one makes the same data give the same interval.
const SEED: u64 = 0x5eed;

/// The interval of `drop`, a statistic of `rows` rows, from resamples of them with replacement
/// (B. Efron, "Bootstrap methods: another look at the jackknife", Annals of Statistics 7 (1979);
/// the percentile method, B. Efron and R. Tibshirani, "An Introduction to the Bootstrap" (1993),
/// equation 13.5).
///
/// `drop_of` gets how often each row was drawn; both models are measured on the same draw, which
/// makes it paired. Resamples of which it is not defined (`None`) are left out. The result depends
/// on nothing but the data. `None` of less than two rows, or if most resamples are left out.
pub fn interval(
    rows: usize,
    drop: f64,
    drop_of: impl Fn(&[u32]) -> Option<f64> + Sync,
) -> Option<DropInterval> {
    if rows < 2 {
        return None;
    }
    let resample = |resample: u64| {
        // A generator for each resample, so that threads do not matter.
        let mut random = SplitMix64::new(SEED.wrapping_add(resample << 32));
        let mut times_drawn = vec![0u32; rows];
        for _ in 0..rows {
            times_drawn[random.below(rows)] += 1;
        }
        drop_of(&times_drawn).filter(|drop| drop.is_finite())
    };
    let mut drops: Vec<f64> = (0..RESAMPLES).into_par_iter().filter_map(resample).collect();
    if (drops.len() as u64) < RESAMPLES / 2 {
        return None;
    }
    drops.sort_by(f64::total_cmp);
    let tail = (drops.len() as f64 * (1.0 - CONFIDENCE) / 2.0) as usize;
    let ends = (drops[tail], drops[drops.len() - 1 - tail]);
    DropInterval::by_root(ends, drop, rows, METHOD)
}

/// Numbers that look random: G. Steele, D. Lea and C. Flood, "Fast splittable pseudorandom number
/// generators", OOPSLA 2014, with the constants of its reference code.
#[derive(Clone, Debug)]
pub struct SplitMix64(u64);

impl SplitMix64 {
    /// Begins at a seed.
    pub fn new(seed: u64) -> SplitMix64 {
        SplitMix64(seed)
    }

    /// The next 64 bits.
    pub fn next_bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number of 0..1.
    pub fn unit(&mut self) -> f64 {
        (self.next_bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A whole number below `limit`; the bias is below `limit` / 2^64.
    pub fn below(&mut self, limit: usize) -> usize {
        ((u128::from(self.next_bits()) * limit as u128) >> 64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generator_is_the_published_one() {
        // The first outputs of the reference code for the seed 1234567.
        let mut random = SplitMix64::new(1_234_567);
        let first: Vec<u64> = (0..3).map(|_| random.next_bits()).collect();
        assert_eq!(first, [6457827717110365317, 3203168211198807973, 9817491932198370423]);
        let draws = (0..1000).map(|_| random.below(7)).collect::<Vec<_>>();
        assert!((0..7).all(|n| draws.iter().filter(|&&d| d == n).count() > 100));
        assert!((0..1000).all(|_| (0.0..1.0).contains(&random.unit())));
    }

    fn mean(values: &[f64], times_drawn: &[u32]) -> f64 {
        let sum: f64 = values.iter().zip(times_drawn).map(|(v, &t)| v * f64::from(t)).sum();
        sum / values.len() as f64
    }

    #[test]
    fn of_a_mean_it_is_near_students_and_covers_as_often_as_it_says() {
        let mut random = SplitMix64::new(3);
        const SAMPLES: usize = 400;
        let mut held = 0;
        for _ in 0..SAMPLES {
            let values: Vec<f64> = (0..60).map(|_| random.unit()).collect();
            let drop = mean(&values, &[1; 60]);
            let interval = interval(60, drop, |drawn| Some(mean(&values, drawn))).unwrap();
            let mut moments = super::super::mean::Moments::default();
            values.iter().for_each(|&v| moments.push(v));
            let students = moments.interval().unwrap();
            let width = students.high - students.low;
            assert!((interval.low - students.low).abs() < 0.15 * width);
            assert!((interval.high - students.high).abs() < 0.15 * width);
            held += usize::from((interval.low..=interval.high).contains(&0.5));
        }
        let held = held as f64 / SAMPLES as f64;
        assert!((0.91..=0.98).contains(&held), "{held}");
    }

    #[test]
    fn threads_do_not_matter() {
        let values: Vec<f64> = (0..50).map(|i| f64::from(i * i % 17)).collect();
        let at = |threads: usize| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| interval(50, 8.0, |drawn| Some(mean(&values, drawn))))
        };
        assert!(at(1).is_some());
        assert_eq!(at(1), at(3));
    }

    #[test]
    fn resamples_without_an_answer_are_left_out() {
        // One row of ten is needed: two thirds of the resamples hold it.
        let needed = |drawn: &[u32]| (drawn[0] > 0).then(|| f64::from(drawn[1]));
        assert!(interval(10, 1.0, needed).is_some());
        assert_eq!(interval(10, 1.0, |_| None), None);
        assert_eq!(interval(10, 1.0, |_| Some(f64::NAN)), None);
        assert_eq!(interval(1, 1.0, |_| Some(1.0)), None);
    }
}
