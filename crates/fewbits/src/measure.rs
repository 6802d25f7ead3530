//! Measuring latency and memory.

use std::time::{Duration, Instant};

use fewbits_engine::{Runner, Tensor};
use serde::Serialize;

use crate::Result;

/// Calls before the clock counts: caches fill, threads wake.
const WARM_UP_CALLS: usize = 3;
/// As many timed calls a model tell enough.
const ENOUGH_CALLS: usize = 10;
/// Slow models are left at so few.
const LEAST_CALLS: usize = 3;
/// Models are slow whose [`ENOUGH_CALLS`] would take so many times what timing may take.
const PATIENCE: u32 = 4;
/// At most this many, even if they are fast.
const MOST_CALLS: usize = 2000;

/// The time of one call, over all timed calls.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Latency {
    /// The median, in milliseconds.
    pub median: f64,
    /// A tenth of the calls took no longer.
    pub p10: f64,
    /// Nine tenths of the calls took no longer.
    pub p90: f64,
    /// How many calls were timed.
    pub calls: usize,
}

/// Times several models side by side for about `budget` in all: one call of each in turn, so that
/// whatever else the machine does falls on all of them alike.
///
/// # Errors
/// If a model cannot be run on its inputs.
pub fn latencies(
    runners: &[&dyn Runner],
    inputs: &[&[(String, Tensor)]],
    budget: Duration,
) -> Result<Vec<Latency>> {
    let begun = Instant::now();
    for call in 0..WARM_UP_CALLS {
        if call > 0 && begun.elapsed() > budget {
            break;
        }
        for (runner, inputs) in runners.iter().zip(inputs) {
            runner.run(inputs)?;
        }
    }
    let mut times: Vec<Vec<f64>> = vec![Vec::new(); runners.len()];
    let begun = Instant::now();
    for call in 0..MOST_CALLS {
        let limit = match call {
            0..LEAST_CALLS => Duration::MAX,
            LEAST_CALLS..ENOUGH_CALLS => budget.saturating_mul(PATIENCE),
            _ => budget,
        };
        if begun.elapsed() > limit {
            break;
        }
        for ((runner, inputs), times) in runners.iter().zip(inputs).zip(&mut times) {
            let start = Instant::now();
            runner.run(inputs)?;
            times.push(start.elapsed().as_secs_f64() * 1e3);
        }
    }
    Ok(times.into_iter().map(Latency::of).collect())
}

impl Latency {
    /// Of at least one time.
    fn of(mut times: Vec<f64>) -> Latency {
        times.sort_by(f64::total_cmp);
        let at = |part: f64| quantile(&times, part);
        Latency { median: at(0.5), p10: at(0.1), p90: at(0.9), calls: times.len() }
    }
}

/// The quantile of sorted values, interpolated between neighbours.
fn quantile(sorted: &[f64], part: f64) -> f64 {
    let place = part * (sorted.len() - 1) as f64;
    let (below, above) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    below + (above - below) * place.fract()
}

/// The largest resident memory that this process has had, in bytes; `None` where the system does
/// not tell.
pub fn peak_rss_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use fewbits_engine::ValueSpec;

    use super::*;

    #[test]
    fn quantiles_lie_between_times() {
        assert_eq!(Latency::of(vec![3.0, 1.0, 2.0]).median, 2.0);
        assert_eq!(Latency::of(vec![4.0, 1.0, 2.0, 3.0]).median, 2.5);
        let of_eleven = Latency::of((0..=10).rev().map(f64::from).collect());
        assert_eq!((of_eleven.p10, of_eleven.median, of_eleven.p90), (1.0, 5.0, 9.0));
        assert_eq!(Latency::of(vec![7.0]), Latency { median: 7.0, p10: 7.0, p90: 7.0, calls: 1 });
    }

    /// Takes the time that it is told and counts its calls.
    struct Sleeper(Duration, AtomicUsize);

    impl Runner for Sleeper {
        fn inputs(&self) -> &[ValueSpec] {
            &[]
        }

        fn outputs(&self) -> &[ValueSpec] {
            &[]
        }

        fn run(&self, _: &[(String, Tensor)]) -> fewbits_engine::Result<Vec<(String, Tensor)>> {
            self.1.fetch_add(1, Ordering::Relaxed);
            std::thread::sleep(self.0);
            Ok(Vec::new())
        }
    }

    #[test]
    fn slow_models_are_called_less_often_and_all_alike() {
        for (sleep_ms, budget_ms, expected) in [(0, 100, 10..=2000), (60, 1, 3..=3), (3, 5, 3..=10)]
        {
            let sleeper = || Sleeper(Duration::from_millis(sleep_ms), AtomicUsize::new(0));
            let (a, b) = (sleeper(), sleeper());
            let budget = Duration::from_millis(budget_ms);
            let times = latencies(&[&a, &b], &[&[], &[]], budget).unwrap();
            assert!(expected.contains(&times[0].calls), "{sleep_ms} ms: {times:?}");
            assert_eq!(times[0].calls, times[1].calls);
            assert_eq!(a.1.into_inner(), b.1.into_inner());
            assert!(times[0].median >= sleep_ms as f64);
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn the_peak_is_told_on_linux() {
        assert!(peak_rss_bytes().unwrap() > 100_000);
    }
}
