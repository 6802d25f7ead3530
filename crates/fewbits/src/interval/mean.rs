//! Intervals of means over rows.

use super::{DropInterval, Z};

/// Running mean and spread of one number a row.
#[derive(Clone, Copy, Debug, Default)]
pub struct Moments {
    count: f64,
    mean: f64,
    /// The sum of squared distances from the mean.
    spread: f64,
}

impl Moments {
    /// Takes the number of one row: how much worse the second model is on it.
    pub fn push(&mut self, value: f64) {
        // Welford's update, which does not cancel.
        self.count += 1.0;
        let before = value - self.mean;
        self.mean += before / self.count;
        self.spread += before * (value - self.mean);
    }

    /// Student's interval of the mean: x̄ ± t(n−1)·s/√n. `None` of less than two rows.
    pub fn interval(&self) -> Option<DropInterval> {
        let n = self.count;
        let degrees = (n >= 2.0).then_some(n - 1.0)?;
        let half = student_t(degrees) * (self.spread / degrees / n).sqrt();
        let ends = (self.mean - half, self.mean + half);
        DropInterval::by_root(ends, self.mean, n as usize, "Student's t over paired rows")
    }
}

/// What two models gave the tokens of one row, in nats: sums of negative log-likelihoods.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RowNats {
    /// Tokens of the row.
    pub tokens: f64,
    /// Of the first model.
    pub a: f64,
    /// Of the second.
    pub b: f64,
}

/// The interval of exp(Σb/Σt) − exp(Σa/Σt), a difference of perplexities, by the delta method:
/// each is a function of a ratio of sums over rows, whose variance is that of its linear part
/// (W. G. Cochran, "Sampling Techniques", 3rd edition, 1977, chapter 6). Rows and not tokens are
/// what is sampled: tokens of one text depend on each other. `None` of less than two rows.
pub fn of_perplexity(rows: &[RowNats]) -> Option<DropInterval> {
    let n = rows.len() as f64;
    let tokens: f64 = rows.iter().map(|row| row.tokens).sum();
    let degrees = (n >= 2.0 && tokens > 0.0).then_some(n - 1.0)?;
    let ratio = |sum: f64| sum / tokens;
    let a = ratio(rows.iter().map(|row| row.a).sum());
    let b = ratio(rows.iter().map(|row| row.b).sum());
    let drop = b.exp() - a.exp();
    // d exp(Σb/Σt) = exp(b)·(bᵢ − b·tᵢ)/Σt for row i.
    let linear =
        |row: &RowNats| b.exp() * (row.b - b * row.tokens) - a.exp() * (row.a - a * row.tokens);
    let squares: f64 = rows.iter().map(|row| linear(row).powi(2)).sum();
    let half = student_t(degrees) * (n / degrees * squares).sqrt() / tokens;
    let method = "delta method of perplexities over paired rows (Cochran 1977)";
    DropInterval::by_root((drop - half, drop + half), drop, rows.len(), method)
}

/// The quantile of Student's t above which 2.5 % lie, for one or more degrees of freedom: exact for
/// 1 and 2, otherwise the expansion 26.7.5 of Abramowitz and Stegun, "Handbook of Mathematical
/// Functions" (1964), 0.2 % off at worst.
fn student_t(degrees: f64) -> f64 {
    if degrees < 2.0 {
        return 12.706_204_736_174_7;
    }
    if degrees < 3.0 {
        return 4.302_652_729_749_46;
    }
    let x = Z;
    let g1 = (x.powi(3) + x) / 4.0;
    let g2 = (5.0 * x.powi(5) + 16.0 * x.powi(3) + 3.0 * x) / 96.0;
    let g3 = (3.0 * x.powi(7) + 19.0 * x.powi(5) + 17.0 * x.powi(3) - 15.0 * x) / 384.0;
    let g4 = (79.0 * x.powi(9) + 776.0 * x.powi(7) + 1482.0 * x.powi(5)
        - 1920.0 * x.powi(3)
        - 945.0 * x)
        / 92_160.0;
    let v = degrees;
    x + g1 / v + g2 / v.powi(2) + g3 / v.powi(3) + g4 / v.powi(4)
}

#[cfg(test)]
mod tests {
    use super::super::bootstrap::SplitMix64;
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_tables() {
        // scipy.stats.t.ppf(0.975, degrees), in tests/fixtures/scripts/intervals.py
        for (degrees, expected) in [
            (1.0, 12.706_204_736),
            (2.0, 4.302_652_730),
            (3.0, 3.182_446_305),
            (5.0, 2.570_581_836),
            (10.0, 2.228_138_852),
            (30.0, 2.042_272_456),
            (1e6, 1.959_966_348),
        ] {
            let found = student_t(degrees);
            assert!((found / expected - 1.0).abs() < 2e-3, "{degrees}: {found}");
        }
        assert!((student_t(30.0) - 2.042_272_456).abs() < 1e-6);
    }

    #[test]
    fn students_interval_is_that_of_his_sleep_data() {
        // Student 1908: additional hours of sleep, ten patients, two drugs; R's
        // t.test(extra ~ group, data = sleep, paired = TRUE): −2.4598858 to −0.7001142.
        let first = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0];
        let second = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4];
        let mut moments = Moments::default();
        assert_eq!(moments.interval(), None);
        for (a, b) in first.iter().zip(&second) {
            moments.push(a - b);
        }
        let interval = moments.interval().unwrap();
        assert!((interval.low + 2.459_885_8).abs() < 1e-4, "{interval:?}");
        assert!((interval.high + 0.700_114_2).abs() < 1e-4, "{interval:?}");
        assert!((interval.drop + 1.58).abs() < 1e-12);
    }

    /// Rows of 4 to 12 tokens that are alike within a row, as those of one text are.
    fn texts(rows: usize, random: &mut SplitMix64) -> Vec<RowNats> {
        let row = |random: &mut SplitMix64| {
            let tokens = 4.0 + (random.unit() * 9.0).floor();
            let hard = 1.0 + random.unit();
            let worse = 0.1 * random.unit();
            RowNats { tokens, a: tokens * hard, b: tokens * (hard + worse) }
        };
        (0..rows).map(|_| row(random)).collect()
    }

    #[test]
    fn perplexitys_interval_holds_the_drop_as_often_as_it_says() {
        let mut random = SplitMix64::new(7);
        let all = of_perplexity(&texts(1_000_000, &mut random)).unwrap().drop;
        const SAMPLES: usize = 2000;
        let held = (0..SAMPLES).filter(|_| {
            let interval = of_perplexity(&texts(40, &mut random)).unwrap();
            (interval.low..=interval.high).contains(&all)
        });
        let held = held.count() as f64 / SAMPLES as f64;
        assert!((0.93..=0.97).contains(&held), "{held}");
    }

    #[test]
    fn equal_texts_leave_no_doubt_and_one_leaves_all() {
        let row = RowNats { tokens: 3.0, a: 3.0, b: 6.0 };
        let interval = of_perplexity(&[row, row]).unwrap();
        assert!((interval.drop - (2f64.exp() - 1f64.exp())).abs() < 1e-12);
        assert!((interval.high - interval.low).abs() < 1e-9);
        assert_eq!(of_perplexity(&[row]), None);
        let none = RowNats { tokens: 0.0, a: 0.0, b: 0.0 };
        assert_eq!(of_perplexity(&[none, none]), None);
    }
}
